"""CSV files -> the same files with their identifiers masked: every row once, in the same order, at any size.

In: settings, an --out. Out: the manifest; OUT holds a masked file for each input, the rejects and the manifest.
Not here: single records (masked_rows.py), the files in OUT (masked_dir.py).

    shards ─▶ Ray Data, each: read ─▶ mask ─▶ one part, one record ─▶ files, joined of parts ─▶ manifest

A task holds one record at a time, and its rejects; the driver holds counts. Shards are exact byte ranges
(data/csv_shards.py), so the files are the same whatever their number and that of the workers. A task that Ray repeats
writes the same part again; a job that is interrupted continues with the parts that are missing.
"""

import io
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray
import ray.data  # its first import sets the level of its log: before ray_session does

from textcls import storage
from textcls.data.csv_layout import Layout, layout_notes
from textcls.data.csv_records import Shard, codec_name
from textcls.data.csv_shards import plan_shards
from textcls.data.file_formats import open_bytes
from textcls.data.input_files import InputFile, expand
from textcls.data.masked_messages import masked_errors, masked_messages
from textcls.data.read import run_on_ray
from textcls.data.remedies import CsvFiles, remedy
from textcls.errors import DataError, InputError
from textcls.masking.masked_dir import MaskedDir, file_names
from textcls.masking.masked_rows import RejectedRow, RowMasker
from textcls.masking.pseudonyms import PseudonymKey
from textcls.masking.raw_records import read_raw
from textcls.masking.settings import READING, MaskSpec
from textcls.on_ray.session import ray_session
from textcls.output.account import REJECT_SCHEMA, write_rejects
from textcls.output.lock import locked
from textcls.progress import ProgressBoard, RowProgress, progress_display
from textcls.settings.yaml_text import set_option
from textcls.text.masks import mask_kinds, masker_of

Say = Callable[[str], None]

_BOM = b"\xef\xbb\xbf"


def mask(
    spec: MaskSpec, out: str, *, key: PseudonymKey | None = None, say: Say, verbose: bool = False
) -> dict[str, Any]:
    """Masks every row of the files; returns the manifest.

    Args:
        spec: from `mask_settings`.
        out: URI of a new directory, or of one where the same job was interrupted: it then continues.
        key: with one, pseudonyms take the place of plain placeholders.
        say: shows the user one line.
        verbose: show Ray's own log lines as well.

    Raises:
        InputError: files, settings or directory cannot be used, or too many rows cannot be parsed.
        StorageError: the disk or the network failed; the same call continues.
    """
    files = expand(spec.data.csv)
    _refuse_delimiter(spec)
    places = [out, *spec.data.csv, *(file.uri for file in files)]
    with masked_messages(spec.text, say, places) as say, locked(out) as uri:
        target = MaskedDir.claim(uri, _identity(spec, files, key))
        try:
            with ray_session(verbose=verbose):
                manifest = _masked(spec, files, target, key, say)
        except InputError:
            if not target.resumed:
                target.abandon()
            raise
        target.finish(manifest)
        for name in spec.text.mask_patterns:
            if not manifest["kinds"][name]:
                say(f"  warning: no cell holds any {name}: check the pattern text.mask_patterns.{name}")
    return manifest


def _identity(spec: MaskSpec, files: Sequence[InputFile], key: PseudonymKey | None) -> dict[str, Any]:
    """Everything that the bytes of a part depend on; of the key a name alone."""
    return {
        "files": {file.uri: {"place": index, "size_bytes": file.size_bytes} for index, file in enumerate(files)},
        "data": spec.data.model_dump(mode="json", include=set(READING)),
        "columns": list(spec.data.masked),
        "mask": list(spec.text.mask),
        "mask_patterns": dict(spec.text.mask_patterns),
        "key": None if key is None else key.check,
    }


def _masked(
    spec: MaskSpec, files: Sequence[InputFile], target: MaskedDir, key: PseudonymKey | None, say: Say
) -> dict[str, Any]:
    layouts, shards = plan_shards(files, spec.data, run=run_on_ray)
    for line in layout_notes(layouts):
        say(f"  note: {line}")
    records = target.records()
    if target.resumed:
        say(f"  continuing: {len(records):,} of {len(shards):,} parts are finished")
    pending = [index for index in range(len(shards)) if index not in records]
    names = file_names([file.uri for file in files])
    parts: list[list[int]] = [[] for _ in files]
    for index, shard in enumerate(shards):
        parts[shard.file_index].append(index)
    board, started = ProgressBoard(), time.monotonic()
    with progress_display(board.take, say, verb="masking"):
        work = _MaskShard(tuple(shards), tuple(layouts), spec, target, key)
        for index, record in _on_ray_data(work, pending):
            records[index] = record
            done = sum(one["written"] for one in records.values())
            board.post(RowProgress(done, None, done / max(time.monotonic() - started, 1e-6)))
    _refuse_rejects(spec, files, layouts, shards, records)
    write_rejects(target.uri, _rejects(target, records))
    for name, of_file in zip(names, parts, strict=True):
        target.join(name, of_file)
    return _manifest(spec, files, names, parts, records, keyed=key is not None)


def _on_ray_data(work: "_MaskShard", pending: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(index, record) of each pending shard as soon as it is done."""
    if not pending:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    context.print_on_execution_start = False
    dataset = ray.data.from_items([{"index": index} for index in pending], override_num_blocks=len(pending))
    for row in dataset.map_batches(work, batch_size=1).iter_rows():
        index = int(row["index"])
        yield index, work.target.record(index)


@dataclass(frozen=True)
class _MaskShard:
    """Masks one shard: writes its part, then its record."""

    shards: tuple[Shard, ...]
    layouts: tuple[Layout, ...]
    spec: MaskSpec
    target: MaskedDir
    key: PseudonymKey | None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`batch` holds the number of one shard as `index`; so does the result."""
        for index in batch["index"].tolist():
            with masked_errors(self.spec.text, [self.shards[index].uri]):
                self._mask(index)
        return batch

    def _mask(self, index: int) -> None:
        shard, data = self.shards[index], self.spec.data
        layout = self.layouts[shard.file_index]
        masked = RowMasker(masker_of(self.spec.text), layout, data, data.masked, self.key)
        rejects: list[RejectedRow] = []
        with storage.written_whole(self.target.part_uri(index)) as file:
            if _has_mark(shard):
                file.write(_BOM)
            encoding = "utf-8" if codec_name(data.encoding) == "utf-8-sig" else data.encoding
            text = io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="")
            for record in read_raw(shard, layout, data):
                if isinstance(found := masked(record), RejectedRow):
                    rejects.append(found)
                else:
                    text.write(found)
            text.detach()  # flushes; `written_whole` closes the file
        counts = masked.counts
        record_of_part = {
            "read": counts.read,
            "written": counts.written,
            "masked": counts.masked,
            "hits": [[column, kind, number] for (column, kind), number in sorted(counts.hits.items())],
            "reasons": dict(sorted(counts.reasons.items())),
        }
        columns = zip(*((shard.uri, *one) for one in rejects), strict=True) if rejects else [[]] * len(REJECT_SCHEMA)
        arrays = [pa.array(list(column), kind) for column, kind in zip(columns, REJECT_SCHEMA.types, strict=True)]
        self.target.finish_part(index, record_of_part, pa.table(arrays, schema=REJECT_SCHEMA))


def _has_mark(shard: Shard) -> bool:
    """Whether a shard begins with the byte order mark of UTF-8, which reading skips."""
    if shard.start_byte:
        return False
    with storage.explained(shard.uri), open_bytes(shard.uri) as file:
        return file.peek(len(_BOM)).startswith(_BOM)


def _refuse_delimiter(spec: MaskSpec) -> None:
    """Refuses files whose cells cannot hold a placeholder.

    Raises:
        InputError: quotes mean nothing, and the delimiter may be in a placeholder.
    """
    placeholders = "".join(kind.placeholder for kind in mask_kinds(spec.text)) + ":0123456789abcdef"
    if spec.data.quoting == "none" and spec.data.delimiter in placeholders:
        raise InputError(
            f"data.delimiter {spec.data.delimiter!r} with data.quoting none: a placeholder would be two cells",
            expected="a delimiter that no placeholder holds",
            todo="write the files with another delimiter",
        )


def _refuse_rejects(
    spec: MaskSpec,
    files: Sequence[InputFile],
    layouts: Sequence[Layout],
    shards: Sequence[Shard],
    records: Mapping[int, Mapping[str, Any]],
) -> None:
    """Stops a job in which too many rows cannot be parsed.

    Raises:
        DataError: their share is above `data.max_reject_fraction`.
    """
    read = sum(record["read"] for record in records.values())
    reasons = _total(records, "reasons")
    rejects = sum(reasons.values())
    if not read:
        raise DataError("the files hold a header and no row", expected="at least one row")
    if rejects <= spec.data.max_reject_fraction * read:
        return
    by_reason = ", ".join(f"{rows:,} {reason}" for reason, rows in reasons.most_common())
    found = remedy(reasons.most_common(1)[0][0], CsvFiles(files, layouts, shards, spec.data))
    share = min(1.0, -(-1000 * rejects // read) / 1000)
    raise DataError(
        f"{rejects:,} of {read:,} rows ({rejects / read:.1%}) are rejects ({by_reason})",
        expected=f"at most {spec.data.max_reject_fraction:.1%} (data.max_reject_fraction)",
        todo=(f"{found}; " if found else "")
        + f"to go on without them: {set_option('data.max_reject_fraction', share)}",
    )


def _total(records: Mapping[int, Mapping[str, Any]], name: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for record in records.values():
        total.update(record[name])
    return total


def _rejects(target: MaskedDir, records: Mapping[int, Mapping[str, Any]]) -> Iterator[pa.Table]:
    for index in sorted(records):
        if records[index]["reasons"]:
            yield target.rejects(index)


def _manifest(
    spec: MaskSpec,
    files: Sequence[InputFile],
    names: Sequence[str],
    parts: Sequence[Sequence[int]],
    records: Mapping[int, Mapping[str, Any]],
    *,
    keyed: bool,
) -> dict[str, Any]:
    """The counts of all files; they do not depend on interruptions."""
    kinds: Counter[str] = Counter()
    columns: dict[str, Counter[str]] = {}
    for record in records.values():
        for column, kind, number in cast(list[tuple[str, str, int]], record["hits"]):
            kinds[kind] += number
            columns.setdefault(column, Counter())[kind] += number
    reasons = _total(records, "reasons")
    of_files = [
        {
            "name": f"csv/{name}",
            "input": file.uri,
            "rows": sum(records[index]["written"] for index in of_file),
        }
        for file, name, of_file in zip(files, names, parts, strict=True)
    ]
    return {
        "read": sum(record["read"] for record in records.values()),
        "written": sum(record["written"] for record in records.values()),
        "rejects": sum(reasons.values()),
        "reject_reasons": dict(reasons),
        "rows_masked": sum(record["masked"] for record in records.values()),
        "kinds": {kind.name: kinds[kind.name] for kind in mask_kinds(spec.text)},
        "columns": {column: dict(sorted(counts.items())) for column, counts in sorted(columns.items())},
        "keyed": keyed,
        "files": of_files,
    }
