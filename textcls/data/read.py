"""CSV files -> rows in Ray's object store: cleaned, counted and, for training, tokenized.

In: files, data settings and perhaps a tokenizer. Out: `ReadRows`: blocks of rows, what is needed to split them, and a
summary. The only module that builds a Ray Data graph. Not here: CSV rules (csv_shards.py), what a block holds
(row_tables.py), splits (split_blocks.py), messages (messages.py).

    shards ─▶ read and clean ─▶ tokenize ─▶ blocks ─▶ summary and keys of each block

A task holds one block, about as large as a shard (data.shard_bytes); the driver holds counts only. Blocks stay in the
object store, which spills to disk when it is full.
"""

import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray
import ray.data  # its first import sets the level of its log: before ray_session does

from textcls.data import row_tables, row_tokens
from textcls.data.csv_layout import Layout
from textcls.data.csv_records import Shard
from textcls.data.csv_shards import plan_shards
from textcls.data.decisions import Decisions
from textcls.data.exclusion import Exclusion
from textcls.data.input_files import InputFile
from textcls.data.label_columns import named_by_columns, with_label_columns
from textcls.data.masked_messages import masked_errors
from textcls.data.remedies import CsvFiles
from textcls.data.rows import Reason
from textcls.data.summary import RowSummary
from textcls.manifest import Excluded
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.tasks.labels import label_order
from textcls.tasks.task import Task
from textcls.text.masks import masker_of
from textcls.text.placeholders import placeholder_ids
from textcls.text.text_input import TextInput
from textcls.text.tokenizer_files import TokenizerFiles


@dataclass(frozen=True)
class ReadRows:
    """Rows that were read, before they are split.

    Attributes:
        csv_files: the files, and how they were read.
        task: what is predicted.
        labels: label names in id order: those of `data.labels`, or those of the rows and of the label columns.
        summary: counts over all rows.
        blocks: object references of tables of `row_tables.schema_of`, in row order. With a tokenizer they have the
            columns of `row_tokens.tokenized` as well.
        keys: object references of `row_tables.keys` of each block.
        seconds: how long reading took.
        exclusion: of the files of `data.exclude`.
        placeholders: kind of personal data that is masked -> token id of its placeholder; -1 without a tokenizer.
    """

    csv_files: CsvFiles
    task: Task
    labels: tuple[str, ...]
    summary: RowSummary
    blocks: list[Any]
    keys: list[Any]
    blocks_with_rejects: list[Any]
    seconds: float
    exclusion: Exclusion | None = None
    placeholders: Mapping[str, int] = field(default_factory=dict)

    @property
    def data(self) -> DataSpec:
        """The settings that the rows were read with."""
        return self.csv_files.data

    @property
    def files(self) -> list[str]:
        """URI of each file, by index."""
        return [file.uri for file in self.csv_files.files]

    @property
    def fingerprint(self) -> str:
        """sha256 over the row id, the text key and the label of every clean row, and what was to be excluded."""
        excluded = b"" if self.exclusion is None else self.exclusion.digest.encode()
        return hashlib.sha256(b"".join(self.summary.digests) + excluded).hexdigest()

    @property
    def excluded(self) -> Excluded | None:
        """What `data.exclude` took out; None if it names no file."""
        if self.exclusion is None:
            return None
        return self.exclusion.record(self.summary.excluded, self.summary.reasons[Reason.EXCLUDED])

    @property
    def masked_rows(self) -> dict[str, int]:
        """Kind of personal data that is masked -> clean rows that hold one."""
        return {kind: self.summary.masked[kind] for kind in self.placeholders}

    def rejects(self) -> Iterator[pa.Table]:
        """Tables (file, line, column, reason, value) of all rejects in row order, block by block."""
        for block in self.blocks_with_rejects:
            yield ray.get(_rejects.remote(block, self.files))

    def first_input(self) -> tuple[int, TextInput] | None:
        """(row id, input) of the first clean row; None if there is none."""
        return next(filter(None, (ray.get(_first_input.remote(block)) for block in self.blocks)), None)

    def location(self, row_id: int) -> str:
        """Where a row is, as FILE:LINE."""
        file, line = row_tables.file_and_line(row_id)
        return f"{self.files[file]}:{line}"


def read_rows(
    files: Sequence[InputFile],
    data: DataSpec,
    text: TextSpec,
    tokenizer: TokenizerFiles | None = None,
    *,
    task: Task,
    group_by: str = "none",
    decisions: Sequence[Decisions] = (),
    exclusion: Exclusion | None = None,
) -> ReadRows:
    """Reads, cleans and, with a tokenizer, tokenizes all rows of the files on Ray.

    Args:
        files: what to read, from `input_files.expand`.
        data: how to read it.
        text: which texts are equal, and what becomes of long ones.
        tokenizer: without one, the rows can be scored as text but not split for training.
        task: what is predicted; reads the label cells.
        group_by: `split.group_by`: which text of a pair is never in two splits.
        decisions: about single rows, from `read_decisions`.
        exclusion: rows that are not used, from `read_exclusion`.

    Raises:
        DataError: a file is no CSV or lacks a column.
        StorageError: the disk or the network failed.
    """
    started = time.monotonic()
    data = with_label_columns(files, data)
    layouts, shards = plan_shards(files, data, run=run_on_ray)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    context.print_on_execution_start = False
    # Block order is row order: the training plan names rows by position, when a run starts and when it resumes.
    context.execution_options.preserve_order = True
    dataset = ray.data.range(len(shards), override_num_blocks=len(shards)).map_batches(
        _read_shard,
        batch_size=1,
        fn_kwargs={
            "shards": shards,
            "layouts": layouts,
            "data": data,
            "text": text,
            "task": task,
            "group_by": group_by,
            "decisions": decisions,
            "exclusion": exclusion,
        },
    )
    if tokenizer is not None:
        dataset = dataset.map_batches(
            _tokenized,
            batch_size=None,
            batch_format="pyarrow",
            fn_kwargs={"tokenizer": tokenizer, "text": text},
        )
    blocks: list[Any] = dataset.to_arrow_refs()
    summaries_and_keys = [_summarize.remote(block, task) for block in blocks]
    total = RowSummary()
    blocks_with_rejects = []
    for block, (summary_ref, _) in zip(blocks, summaries_and_keys, strict=True):
        summary: RowSummary = ray.get(summary_ref)
        total.add(summary)
        if summary.rejects:
            blocks_with_rejects.append(block)
    return ReadRows(
        csv_files=CsvFiles(files, layouts, shards, data, masker_of(text)),
        task=task,
        labels=data.labels or label_order({*total.labels, *named_by_columns(data)}),
        summary=total,
        blocks=blocks,
        keys=[keys for _, keys in summaries_and_keys],
        blocks_with_rejects=blocks_with_rejects,
        seconds=time.monotonic() - started,
        exclusion=exclusion,
        placeholders=placeholder_ids(text, None if tokenizer is None else tokenizer.tokenizer_json),
    )


def run_on_ray(function: Any, jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Runs a function on Ray once per tuple of arguments; returns the results in order."""
    on_ray = ray.remote(function)
    return cast(list[Any], ray.get([on_ray.remote(*job) for job in jobs]))


def _read_shard(
    batch: dict[str, np.ndarray],
    shards: Sequence[Shard],
    layouts: Sequence[Layout],
    data: DataSpec,
    text: TextSpec,
    task: Task,
    group_by: str,
    decisions: Sequence[Decisions],
    exclusion: Exclusion | None,
) -> Iterator[pa.Table]:
    """The tables of one shard; `batch` holds its index as `id`."""
    shard = shards[int(batch["id"][0])]
    layout = layouts[shard.file_index]
    with masked_errors(text, [shard.uri]):
        yield from row_tables.read_tables(
            shard, layout, data, text, task, group_by=group_by, decisions=decisions, exclusion=exclusion
        )


def _tokenized(table: pa.Table, tokenizer: TokenizerFiles, text: TextSpec) -> pa.Table:
    with masked_errors(text):
        return row_tokens.tokenized(table, tokenizer, text.on_long)


@ray.remote(num_returns=2)
def _summarize(block: pa.Table, task: Task) -> tuple[RowSummary, pa.Table]:
    return row_tables.summarize(block, task), row_tables.keys(block)


@ray.remote
def _first_input(block: pa.Table) -> tuple[int, TextInput] | None:
    row = row_tables.clean_rows(block).slice(0, 1)
    return next(zip(row["row_id"].to_pylist(), row_tables.inputs_of(row), strict=True), None)


@ray.remote
def _rejects(block: pa.Table, files: list[str]) -> pa.Table:
    return row_tables.rejects(block, files)
