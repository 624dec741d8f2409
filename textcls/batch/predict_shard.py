"""One shard of a CSV -> one part of the predictions and its record, on an actor.

In: a classifier and the place of a shard. Out: a part, the rows that may be worth a label, and a record of counts, as
files; the record. Not here: which shards there are and which are left (predict.py), the columns (prediction_rows.py),
the files (predictions_dir.py).

    read ─▶ blocks ─▶ tokenize ─▶ score ─▶ one part, one record

An actor holds at most three blocks: one that is written, one that is prefetched and one that is read.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa

from textcls import encryption
from textcls.batch.actor_pool import prefetched
from textcls.batch.explanation_rows import Explaining
from textcls.batch.prediction_rows import (
    BlockSize,
    Columns,
    RowBlock,
    answer_rows,
    prediction_table,
    read_blocks,
    table_writer,
)
from textcls.batch.predictions_dir import PredictionsDir
from textcls.batch.to_label import RankSpec, candidates, kept
from textcls.data.csv_layout import Layout
from textcls.data.csv_records import Fields, Shard, read_shard
from textcls.data.rows import TextReader
from textcls.inference.classifier import Classifier, Scores
from textcls.inference.encoding import Encoded
from textcls.settings.data import DataSpec
from textcls.text.masks import masker_of
from textcls.text.normalizer import normalizer_of

# About ten batches, and a few seconds on a CPU: an actor reports progress once per block.
_CPU_BLOCK = BlockSize(rows=2_048, text_chars=2**19, chars=2**24)
_GPU_BLOCK = BlockSize(rows=32_768, text_chars=2**23, chars=2**26)
# Explaining a row takes as long as predicting it and a variant for each of its words.
_EXPLAINED_BLOCK_ROWS = 32
# At most so many rows x labels in a block: 64 MB of scores.
_BLOCK_SCORES = 2**24


@dataclass(frozen=True)
class PartOptions:
    """What the parts hold, and how they are written.

    Attributes:
        csv_encoding: of CSV parts.
        all_scores: whether the score of every label is written, not only of the predicted one.
        rank: which rows may be worth a label; None for none.
        explaining: how rows are explained; None if they are not.
        mask: changes each cell that is copied from the input; None to copy it as it is.
    """

    csv_encoding: str
    all_scores: bool
    rank: RankSpec | None = None
    explaining: Explaining | None = None
    mask: Callable[[str], str] | None = None


@dataclass(frozen=True)
class PredictShard:
    """Predicts one shard: writes its part, then its record; picklable.

    Attributes:
        shards: all shards of the job; the place of a shard is that of its part.
        layouts: of the files, by the place of the file.
        data: how they are read.
        columns: of the parts.
        target: where parts and records go.
        options: what the parts hold.
        last_rows: rows that are wanted of the last shard; None for all.
    """

    shards: tuple[Shard, ...]
    layouts: tuple[Layout, ...]
    data: DataSpec
    columns: Columns
    target: PredictionsDir
    options: PartOptions
    last_rows: int | None = None

    def __call__(self, classifier: Classifier, index: int) -> Generator[int, None, dict[str, Any]]:
        """Yields the number of rows done, block by block; returns the record."""
        shard, options = self.shards[index], self.options
        recipients = self.target.recipients(read_again=options.explaining is not None)
        rows, truncated = 0, 0
        labels: Counter[str] = Counter()
        errors: Counter[str] = Counter()
        worth: list[pa.Table] = []
        with (
            encryption.written_whole(self.target.part_uri(index), recipients) as file,
            table_writer(file, self.columns.schema, self.target.suffix, options.csv_encoding) as writer,
        ):
            for block, encoded in prefetched(self._encoded_blocks(classifier, shard)):
                scores = classifier.score_encoded(encoded)
                more = options.explaining.columns(classifier, block.errors, block.inputs) if options.explaining else ()
                place: dict[str, Any] = {"file": shard.uri, "file_index": shard.file_index}
                table = prediction_table(block, scores, self.columns, more, **place, mask=options.mask or str)
                writer.write_table(table)
                rows += len(table)
                truncated += int(scores.truncated.sum())
                labels.update(answer_rows(scores))
                errors.update(error for error in table["error"].to_pylist() if error is not None)
                if options.rank is not None:
                    worth = [kept([*worth, self._candidates(classifier, block, scores, shard)], options.rank)]
                yield len(table)
        if options.rank is not None:
            self.target.write_candidates(index, kept(worth, options.rank))
        record = {
            "rows": rows,
            "labels": dict(sorted(labels.items())),
            "errors": dict(sorted(errors.items())),
            "truncated": truncated,
            "precision": classifier.precision,
        }
        self.target.write_record(index, record)
        return record

    def _candidates(self, classifier: Classifier, block: RowBlock, scores: Scores, shard: Shard) -> pa.Table:
        text = classifier.bundle.manifest.text
        place: dict[str, Any] = {"file": shard.uri, "file_index": shard.file_index}
        return candidates(block, scores, classifier.thresholds, normalizer_of(text), **place, mask=masker_of(text))

    def _encoded_blocks(self, classifier: Classifier, shard: Shard) -> Iterator[tuple[RowBlock, list[Encoded]]]:
        layout = self.layouts[shard.file_index]
        size = _CPU_BLOCK if classifier.device == "cpu" else _GPU_BLOCK
        size = replace(size, rows=max(1, min(size.rows, _BLOCK_SCORES // len(classifier.labels))))
        records: Iterator[tuple[int, Fields]] = read_shard(shard, layout, self.data)
        if self.options.explaining is not None:
            size = replace(size, rows=_EXPLAINED_BLOCK_ROWS)
        if self.last_rows is not None and shard == self.shards[-1]:
            records = islice(records, self.last_rows)
        for block in read_blocks(records, TextReader(layout, self.data, classifier.bundle.manifest.text), size):
            yield block, classifier.encode(block.inputs)
