"""Bundle + CSV files -> predictions: every row of the input exactly once, in input order.

In: a verified bundle, settings, an --out. Out: the manifest. OUT holds the manifest and the parts, in input order.
Not here: what an actor does with a shard (predict_shard.py), the columns of the output (prediction_rows.py), the files
in OUT (predictions_dir.py), the actors (actor_pool.py).

    shards ─▶ actors, each: one shard after another ─▶ parts, records ─▶ manifest
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any, BinaryIO

from textcls import encryption
from textcls.age_keys import OwnKey, identities
from textcls.batch.actor_pool import plan_pool, run_on_pool
from textcls.batch.embedding_pool import EmbeddingPool
from textcls.batch.explanation_rows import COLUMNS as EXPLANATION_COLUMNS
from textcls.batch.explanation_rows import Explaining
from textcls.batch.predict_shard import PartOptions, PredictShard
from textcls.batch.prediction_counts import lost_files, manifest_of
from textcls.batch.prediction_rows import Columns
from textcls.batch.predictions_dir import PredictionsDir
from textcls.batch.settings import PredictSpec, nothing_scored, with_small_shards
from textcls.batch.to_label import NAME as TO_LABEL
from textcls.batch.to_label import RankSpec, input_names, kept, label_columns, sheet, to_label
from textcls.bundle import Bundle, precision_asked
from textcls.data.csv_layout import Layout, layout_notes
from textcls.data.csv_records import Shard, read_shard
from textcls.data.csv_shards import column_names, plan_shards
from textcls.data.input_files import InputFile, expand
from textcls.data.masked_messages import masked_messages
from textcls.data.read import run_on_ray
from textcls.data.remedies import CsvFiles, remedy
from textcls.data.rows import Reason
from textcls.encryption import NO_KEYS, Keys
from textcls.errors import InputError
from textcls.modeling.precision import fp32_note
from textcls.on_ray.session import ray_session
from textcls.output.lock import locked
from textcls.progress import ProgressBoard, RowProgress, progress_display
from textcls.settings.data import DataSpec
from textcls.text.masks import masker_of
from textcls.text.normalizer import normalizer_of

Say = Callable[[str], None]
Beside = Callable[[str, Mapping[str, Any], Callable[[str], BinaryIO]], None]
"""Called with the URI of an --out, the manifest, and what opens a part, before the predictions are finished."""

# If more than this share of the rows has an error, the message says what to do about it.
_MANY_ERRORS = 0.01
# What to do about rows with an error that no setting helps.
_CORRECTED = {str(Reason.RAGGED_ROW): "put cells that hold the delimiter or a line end in double quotes"}

# The settings that the rows of a part depend on.
_READING = {
    "text_columns",
    "pair",
    "header",
    "delimiter",
    "quoting",
    "skip_initial_space",
    "escape",
    "encoding",
    "max_cell_chars",
    "shard_bytes",
}


def predict(
    bundle: Bundle,
    spec: PredictSpec,
    out: str,
    *,
    suffix: str,
    csv_encoding: str = "utf-8",
    all_scores: bool,
    rank: RankSpec | None = None,
    explaining: Explaining | None = None,
    beside: Beside = lambda uri, manifest, open_input: None,
    keys: Keys = NO_KEYS,
    mask_columns: bool = False,
    say: Say,
    verbose: bool = False,
) -> dict[str, Any]:
    """Predicts every row of the files and writes the predictions to `out`; returns their manifest.

    Args:
        bundle: a verified bundle.
        spec: from `predict_settings`.
        out: URI of a new directory, or of one where the same job was interrupted: it then continues.
        suffix: `parquet` or `csv`.
        csv_encoding: of CSV parts; `utf-8-sig` starts each with the byte order mark that Excel needs.
        all_scores: write the score of every label, not only of the predicted one.
        rank: write the rows to label next as well. None does not.
        explaining: also explain the rows, and stop where it says; see `explain_rows`.
        beside: writes further files of the job, such as a page.
        keys: the recipients, if files that hold texts are to be encrypted.
        mask_columns: mask every column that is copied from the input, as the bundle masks texts.
        say: shows the user one line.
        verbose: show Ray's own log lines as well.

    Raises:
        InputError: files, settings or directory cannot be used.
        StorageError: the disk or the network failed; the same call continues.
        ScoringError: actors died more often than `scale.max_failures` allows; the same call continues.
    """
    files = expand(spec.data.csv)
    data = with_small_shards(spec.data, files)
    identity = _identity(bundle, files, data, suffix, csv_encoding, all_scores)
    if rank is not None:
        identity["rank_rows"] = rank.rows
    if explaining is not None:
        identity["explain"] = asdict(explaining)
    if mask_columns:
        identity["mask_columns"] = True
    # The recipients' secret keys are not at hand for what this job reads again.
    own = OwnKey() if keys.recipients and (rank or explaining) else None
    opened_by = [*own.identities(), *identities(keys.identity_file)] if own else []
    mask = masker_of(bundle.manifest.text) if mask_columns else None
    options = PartOptions(csv_encoding, all_scores, rank, explaining, mask)
    places = [out, bundle.uri, *(file.uri for file in files)]
    with masked_messages(bundle.manifest.text, say, places) as say, locked(out) as uri:
        own_recipient = own.recipient if own else ""
        target = PredictionsDir.claim(uri, identity, suffix=suffix, keys=keys, own_recipient=own_recipient)
        try:
            with ray_session(verbose=verbose):
                manifest = _predicted(bundle, spec, files, data, target, opened_by, options, say)
        except InputError:
            target.abandon()
            raise
        if manifest["rows"] and not manifest["labels"]:
            target.refuse(manifest)
            raise nothing_scored(manifest["errors"], data, files, where=f"{target.uri}/parts lists them")
        beside(target.uri, manifest, lambda part: encryption.open_input(part, opened_by))
        target.finish(manifest)
        for reason, rows in manifest["errors"].items():
            if rows > _MANY_ERRORS * manifest["rows"]:
                found = remedy(reason, CsvFiles.whole(files, data)) or _CORRECTED.get(reason, "")
                have = "1 row has" if rows == 1 else f"{rows:,} rows have"
                say(f"  warning: {have} the error {reason}" + (f"; {found}" if found else ""))
    return manifest


def _predicted(
    bundle: Bundle,
    spec: PredictSpec,
    files: Sequence[InputFile],
    data: DataSpec,
    target: PredictionsDir,
    opened_by: Sequence[Any],
    options: PartOptions,
    say: Say,
) -> dict[str, Any]:
    """Writes every part that is not finished; returns the manifest of all parts."""
    layouts, shards = plan_shards(files, data, run=run_on_ray)
    explaining, rank = options.explaining, options.rank
    last_rows = None
    if explaining is not None and explaining.rows is not None:
        shards, last_rows = _first_rows(shards, layouts, data, explaining.rows)
    for line in layout_notes(layouts):
        say(f"  note: {line}")
    headers = [column_names(layout) for layout in layouts]
    manifest = bundle.manifest
    more = EXPLANATION_COLUMNS if explaining else ()
    columns = Columns.plan(
        headers, bundle.task, manifest.labels, all_scores=options.all_scores, pairs=manifest.pairs, more=more
    )
    for new, name in columns.renamed.items():
        say(f"  column {name!r} of the CSV is {new!r} in the predictions")
    records = target.records()
    for index in target.unreadable(records, opened_by):
        del records[index]
    if target.resumed:
        say(f"  continuing: {len(records):,} of {len(shards):,} parts are finished")
    pending = [index for index in range(len(shards)) if index not in records]
    if pending:
        size = plan_pool(spec.scale, items=len(pending))
        verb = "predicting" if explaining is None else "explaining"
        say(f"{verb} {len(pending):,} part{'s' if len(pending) != 1 else ''}: {size}")
        work = PredictShard(tuple(shards), tuple(layouts), data, columns, target, options, last_rows)
        part_bytes = [0 if last_rows is not None else _bytes_of(i, shards, files) for i in range(len(shards))]
        progress = _Progress(part_bytes, records)
        with progress_display(progress.board.take, say, verb=verb):
            for position, record in run_on_pool(work, pending, size, bundle, on_rows=progress.add):
                records[pending[position]] = record
                progress.finish(pending[position], record["rows"])
        used = "fp32" if any(records[index]["precision"] == "fp32" for index in pending) else "bf16"
        if note := fp32_note(precision_asked(bundle), used):
            say(f"  {note}")
    for line in lost_files(shards, records):
        say(f"  warning: {line}")
    predictions = manifest_of(bundle, target, shards, records, columns)
    if rank is not None and predictions["labels"]:
        found = kept([target.candidates(index, opened_by) for index in range(len(shards))], rank)
        rows = to_label(found, rank, normalizer_of(bundle.manifest.text), EmbeddingPool(bundle, spec.scale, say))
        content = sheet(
            rows, inputs=input_names(bundle, data), labels=label_columns(bundle), encoding=options.csv_encoding
        )
        encryption.write_bytes(target.file_uri(TO_LABEL), content, target.recipients())
        predictions["to_label"] = dict(sorted(Counter(row.why for row in rows).items()))
    return predictions


def _first_rows(
    shards: Sequence[Shard], layouts: Sequence[Layout], data: DataSpec, rows: int
) -> tuple[list[Shard], int]:
    """(the first shards, which hold this many rows; how many rows of the last of them are needed)."""
    taken, missing, found = [], rows, 0
    for shard in shards:
        taken.append(shard)
        found = sum(1 for _ in islice(read_shard(shard, layouts[shard.file_index], data), missing))
        missing -= found
        if not missing:
            break
    return taken, found


class _Progress:
    """The progress of the job, from rows done and parts finished.

    The total number of rows is estimated from the rows per byte of the finished parts.

    Args:
        part_bytes: size of each part's shard; 0 if the number of rows cannot be estimated from it.
        records: of the parts that an earlier start has finished.
    """

    def __init__(self, part_bytes: Sequence[int], records: Mapping[int, Mapping[str, Any]]) -> None:
        self.board = ProgressBoard()
        self._bytes, self._started, self._new = part_bytes, time.monotonic(), 0
        self._old = self._finished = sum(record["rows"] for record in records.values())
        self._finished_bytes = sum(part_bytes[index] for index in records)

    def add(self, rows: int) -> None:
        """Counts rows that are done."""
        self._new += rows
        self._post()

    def finish(self, index: int, rows: int) -> None:
        """Counts a finished part."""
        self._finished += rows
        self._finished_bytes += self._bytes[index]
        self._post()

    def _post(self) -> None:
        total = None
        if self._finished_bytes and all(self._bytes):
            total = round(self._finished / self._finished_bytes * sum(self._bytes))
        spent = max(time.monotonic() - self._started, 1e-6)
        self.board.post(RowProgress(self._old + self._new, total, self._new / spent))


def _bytes_of(index: int, shards: Sequence[Shard], files: Sequence[InputFile]) -> int:
    """Size of a shard."""
    shard, following = shards[index], shards[index + 1] if index + 1 < len(shards) else None
    size = files[shard.file_index].size_bytes
    end = following.start_byte if following and following.file_index == shard.file_index else size
    return end - shard.start_byte


def _identity(
    bundle: Bundle, files: Sequence[InputFile], data: DataSpec, suffix: str, csv_encoding: str, all_scores: bool
) -> dict[str, Any]:
    """Everything that the bytes of a part depend on."""
    return {
        "bundle": bundle.digest,
        "files": {file.uri: {"place": index, "size_bytes": file.size_bytes} for index, file in enumerate(files)},
        "data": data.model_dump(mode="json", include=_READING),
        "format": suffix,
        "all_scores": all_scores,
        # Left out for UTF-8: jobs that began before this setting existed have no such key.
        **({"csv_encoding": csv_encoding} if csv_encoding != "utf-8" else {}),
    }
