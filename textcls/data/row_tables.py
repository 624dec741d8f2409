"""Tables of the rows of a CSV file: what a read task writes, and what is taken from its blocks later.

In: the records of one shard; later, blocks of rows. Out: tables of `schema_of`, and from them the clean rows, the
rejects and the summary of a block. Pure. Not here: what makes a row a reject (rows.py), token ids (row_tokens.py), Ray
(read.py, split_blocks.py).

A table holds three kinds of rows, in file order. Exactly one of these columns is set:

    text    a clean row; `label`, `key_hi` and `key_lo` are set as well, `text_pair` in tables of pairs, and `slice_0`,
            `slice_1` ... in tables with the cells of `report.slices`, masked, printable, at most 120 characters
    reason  a reject; `column` and `value` are set as well
    counts  the last row of each shard: counts of rows that the table does not hold
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textcls.data.csv_layout import Layout
from textcls.data.csv_records import Shard, read_shard
from textcls.data.decisions import Decisions
from textcls.data.exclusion import Exclusion
from textcls.data.rows import CleanRow, RowCleaner, shown
from textcls.data.slice_columns import slice_fields
from textcls.data.spellings import Spellings
from textcls.data.summary import EXAMPLES, RowSummary, histogram
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.tasks.task import Task
from textcls.text.masks import masker_of
from textcls.text.text_input import TextInput

# A table ends at whichever comes first. This bounds the memory of a task: Python objects become Arrow arrays early.
_TABLE_ROWS = 20_000
_TABLE_CHARS = 16 * 2**20
# Different cells of report.slices whose shown form is cached.
_SLICES_KEPT = 4096
# row_id = file index << 40 | line: one number that orders rows as the files do (2**40 lines a file).
_LINE_BITS = 40

# `counted` is "outside_where" (rows that the filters left out), "where" (rows by cell of a filtered column), "label"
# (rows by label as written; see `Spellings` for both), "decided" (rows by the decision that they met), "masked" (rows
# by kind of personal data that they hold), "excluded" or "nearly_excluded" (rows by number of the entry of
# `data.exclude` that they met, or met but for its spelling).
_COUNT = pa.struct([("counted", pa.string()), ("column", pa.string()), ("cell", pa.string()), ("rows", pa.int64())])

# What the split depends on; about 36 bytes a row.
_KEYS = ["row_id", "key_hi", "key_lo", "label"]
# The numbers of tokens that a table with token ids has of its rows: of the whole input, and of each text of a pair.
_TOKENS = ("tokens", "unknown", "first_tokens", "second_tokens")


def schema_of(data: DataSpec) -> pa.Schema:
    """Names and types of the columns that a read task writes."""
    return pa.schema(
        [
            ("row_id", pa.int64()),
            *((name, pa.large_string()) for name in TextInput._fields[: 1 if data.pair is None else 2]),
            ("label", pa.string()),
            ("key_hi", pa.uint64()),
            ("key_lo", pa.uint64()),
            ("column", pa.string()),
            ("reason", pa.string()),
            ("value", pa.string()),
            ("counts", pa.list_(_COUNT)),
            *((name, pa.string()) for name in slice_fields(data)),
        ]
    )


def input_columns(table: pa.Table) -> list[str]:
    """The columns of a table that hold its inputs: a field of `TextInput` each."""
    return [name for name in TextInput._fields if name in table.column_names]


def row_id(file_index: int, line: int) -> int:
    """The number of the row that begins at a 1-based line of a file; in order of files and lines."""
    return file_index << _LINE_BITS | line


def file_and_line(row_id: int) -> tuple[int, int]:
    """(index of the file, 1-based line in it) of a row."""
    return row_id >> _LINE_BITS, row_id & (1 << _LINE_BITS) - 1


def files_of(table: pa.Table) -> np.ndarray:
    """int64 [N]: the index of the file of each row."""
    found: np.ndarray = table["row_id"].to_numpy() >> _LINE_BITS
    return found


def sample_mask(table: pa.Table, share: float) -> np.ndarray:
    """bool [N]: about this share of the rows, the same whatever the blocks: the lowest hashes (Knuth 1973, 6.4)."""
    hashes = table["row_id"].to_numpy().astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    found: np.ndarray = hashes / 2.0**64 < share
    return found


def read_tables(
    shard: Shard,
    layout: Layout,
    data: DataSpec,
    text: TextSpec,
    task: Task,
    *,
    group_by: str = "none",
    decisions: Sequence[Decisions] = (),
    exclusion: Exclusion | None = None,
) -> Iterator[pa.Table]:
    """Tables of `schema_of` with all rows of a shard, in order. The last row of the last holds the shard's counts."""
    cleaner = RowCleaner(layout, data, text, task, group_by=group_by, decisions=decisions, exclusion=exclusion)
    base = row_id(shard.file_index, 0)
    # Lists of columns, not of rows: 20,000 live tuples would make the garbage collector a tenth of the work.
    schema = schema_of(data)
    columns: list[list[Any]] = [[] for _ in schema.names]
    texts = 1 if data.pair is None else 2
    no_input = (None,) * texts
    positions = dict(zip(data.columns, layout.positions, strict=True))
    of_slices = [positions[column] for column in data.slice_columns]
    shown_slice = lru_cache(_SLICES_KEPT)(partial(shown, mask=masker_of(text)))
    no_slices = (None,) * len(of_slices)
    chars = outside_where = 0

    def add(*row: Any) -> None:
        for column, value in zip(columns, row, strict=True):
            column.append(value)

    for line, fields in read_shard(shard, layout, data):
        row = cleaner(line, fields)
        if row is None:
            outside_where += 1
            continue
        if isinstance(row, CleanRow):
            cells = [fields[position] for position in of_slices]
            high, low = int.from_bytes(row.key[:8], "little"), int.from_bytes(row.key[8:], "little")
            add(
                base | row.line,
                *row.input[:texts],
                row.label,
                high,
                low,
                None,
                None,
                None,
                None,
                *map(shown_slice, cells),
            )
            chars += row.input.chars + sum(map(len, cells))
        else:
            add(base | row.line, *no_input, None, 0, 0, row.column, str(row.reason), row.value, None, *no_slices)
        if chars >= _TABLE_CHARS or len(columns[0]) >= _TABLE_ROWS:
            yield _table(columns, schema)
            columns, chars = [[] for _ in columns], 0
    # Every shard has this row: Ray Data drops the columns of a table without rows.
    add(base, *no_input, None, 0, 0, None, None, None, _counts(outside_where, cleaner), *no_slices)
    yield _table(columns, schema)


def _table(columns: list[list[Any]], schema: pa.Schema) -> pa.Table:
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)], schema=schema)


def _counts(outside_where: int, cleaner: RowCleaner) -> list[tuple[str, str | None, str | None, int]]:
    """A cell of `counts`."""
    spellings = cleaner.spellings
    return [
        ("outside_where", None, None, outside_where),
        *(("where", column, cell, rows) for column, cells in spellings.where.items() for cell, rows in cells.items()),
        *(("label", None, cell, rows) for cell, rows in spellings.labels.items()),
        *(("decided", None, decision, rows) for decision, rows in cleaner.decided.items()),
        *(("masked", None, kind, rows) for kind, rows in cleaner.masked.items()),
        *(("excluded", None, entry, rows) for entry, rows in cleaner.excluded.items()),
        *(("nearly_excluded", None, entry, rows) for entry, rows in cleaner.nearly_excluded.items()),
    ]


def inputs_of(table: pa.Table) -> list[TextInput]:
    """The input of each row, made of the columns that have the names of its fields; null is an empty text."""
    columns = [pc.fill_null(table[name], "").to_pylist() for name in input_columns(table)]
    return [TextInput(*cells) for cells in zip(*columns, strict=True)]


def clean_rows(table: pa.Table) -> pa.Table:
    """The clean rows of a table, with all its columns."""
    return table.filter(pc.is_valid(table["text"]))


def rejects(table: pa.Table, files: list[str]) -> pa.Table:
    """The rejects of a table, as rejects.parquet has them.

    Args:
        table: a table of `schema_of`.
        files: URI of each file, by index.
    """
    found = _rejected(table)
    ids = found["row_id"].to_numpy()
    return pa.table(
        {
            "file": pa.array([files[file] for file in ids >> _LINE_BITS], pa.string()),
            "line": pa.array(ids & (1 << _LINE_BITS) - 1, pa.int64()),
            "column": found["column"],
            "reason": found["reason"],
            "value": found["value"],
        }
    )


def _rejected(table: pa.Table) -> pa.Table:
    return table.select(["row_id", "column", "reason", "value"]).filter(pc.is_valid(table["reason"]))


def keys(table: pa.Table) -> pa.Table:
    """What the split depends on, row by clean row: `row_id`, `key_hi`, `key_lo` and `label`."""
    return _clean_without_texts(table).select(_KEYS).combine_chunks()


def _clean_without_texts(table: pa.Table) -> pa.Table:
    """The clean rows of a table, with the columns that are small: a filter copies what it keeps."""
    small = [name for name in (*_KEYS, *_TOKENS, "windows") if name in table.column_names]
    return table.select(small).filter(pc.is_valid(table["text"]))


def targets_of(labels: pa.ChunkedArray, task: Task, names: Sequence[str]) -> np.ndarray:
    """[N, *T]: the targets of a column of labels; each different label is encoded once.

    Args:
        labels: the column `label` of clean rows.
        task: what is predicted.
        names: label names in id order.
    """
    different = labels.combine_chunks().dictionary_encode()
    targets: np.ndarray = task.encode(different.dictionary.to_pylist(), names)[different.indices.to_numpy()]
    return targets


def target_column(targets: np.ndarray) -> pa.Array:
    """Targets [N, *T] as a column: numbers, or lists of one length."""
    if targets.ndim == 1:
        return pa.array(targets)
    return pa.FixedSizeListArray.from_arrays(pa.array(targets.reshape(-1)), targets.shape[1])


def summarize(table: pa.Table, task: Task) -> RowSummary:
    """The counts of a table, a few examples of its rejects and the hash of its clean rows."""
    clean, rejected = _clean_without_texts(table), _rejected(table)
    found = RowSummary(rows=clean.num_rows, reasons=_counted(rejected["reason"]))
    for label, rows in _counted(clean["label"]).items():
        found.add_label(task.names_in(label), rows)
    for counts in table["counts"].drop_null().to_pylist():
        _add_counts(found, counts)
    if "tokens" in clean.column_names:
        found.token_histogram = histogram(clean["tokens"].to_numpy())
        found.unknown = pc.sum(clean["unknown"]).as_py() or 0
    if "windows" in clean.column_names:
        found.windows = pc.sum(pc.list_value_length(clean["windows"])).as_py() or 0
    if "first_tokens" in clean.column_names:
        found.text_histograms = [histogram(clean[name].to_numpy()) for name in ("first_tokens", "second_tokens")]
    for row in rejected.to_pylist():
        examples = found.examples.setdefault(row["reason"], [])
        if len(examples) < EXAMPLES:
            examples.append(row)
    digest = hashlib.sha256()
    for name in ("row_id", "key_hi", "key_lo"):
        digest.update(clean[name].to_numpy().tobytes())
    digest.update("\0".join(clean["label"].to_pylist()).encode())
    found.digests = [digest.digest()]
    return found


def _add_counts(summary: RowSummary, counts: list[dict[str, Any]]) -> None:
    """Adds a cell of `counts` to a summary."""
    spellings = Spellings()
    for count in counts:
        match count["counted"]:
            case "outside_where":
                summary.outside_where += count["rows"]
            case "where":
                spellings.where.setdefault(count["column"], Counter())[count["cell"]] = count["rows"]
            case "label":
                spellings.labels[count["cell"]] = count["rows"]
            case "decided":
                summary.decided[count["cell"]] += count["rows"]
            case "masked":
                summary.masked[count["cell"]] += count["rows"]
            case "excluded":
                summary.excluded[count["cell"]] += count["rows"]
            case "nearly_excluded":
                summary.nearly_excluded[count["cell"]] += count["rows"]
    summary.spellings.add(spellings)


def _counted(column: pa.ChunkedArray) -> Counter[str]:
    return Counter({item["values"]: item["counts"] for item in column.value_counts().to_pylist()})
