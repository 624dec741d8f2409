"""Rows of CSV files -> rows of predictions: blocks to score, and tables to write.

In: records of a shard as csv has them, and scores. Out: `RowBlock`s, and tables with every column of the input, our own
columns, and one row for each record, in order. Pure; not here: running the model (predict.py), where the tables go
(predictions_dir.py).
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from textcls.data.csv_records import CellTooLong, Fields
from textcls.data.rows import Reason, Reject, TextReader

FORMATS = ("parquet", "csv")

_OURS = (
    ("file", pa.string()),
    ("line", pa.int64()),
    ("label", pa.string()),
    ("score", pa.float32()),
    ("tokens", pa.int32()),
    ("truncated", pa.bool_()),
    ("error", pa.string()),
)


class Scored(Protocol):
    """What is asked of `inference.classifier.Scores`, without loading torch; rows are texts."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in id order."""

    @property
    def probabilities(self) -> np.ndarray:
        """float32 [N, C]."""

    @property
    def tokens(self) -> np.ndarray:
        """int32 [N]."""

    @property
    def truncated(self) -> np.ndarray:
        """bool [N]."""

    @property
    def errors(self) -> Sequence[Any]:
        """None, or what has a `code`, for each text."""

    def label(self, i: int) -> str | None:
        """Label name of text i."""


@dataclass(frozen=True)
class Columns:
    """The columns of the output: those of the input, then ours.

    Attributes:
        inputs: names of the input's columns in the output.
        positions: for each file, the field that holds each of `inputs`; None if the file has no such column.
        score_columns: names of the columns that hold each label's score, in id order; none if they are not asked for.
        renamed: name in the output -> name in the CSV, where they differ.
    """

    inputs: tuple[str, ...]
    positions: tuple[tuple[int | None, ...], ...]
    score_columns: tuple[str, ...]
    renamed: dict[str, str]

    @classmethod
    def plan(cls, headers: Sequence[Sequence[str]], labels: Sequence[str], *, all_scores: bool) -> "Columns":
        """The columns for files with these headers.

        Our columns always have the same names. A column of the input that has one of them becomes `input_NAME`, and
        the second of two columns of one name `NAME_2`. Files may differ in their columns: the output has all of them.

        Args:
            headers: names of each file's columns.
            labels: label names in id order.
            all_scores: whether each label has a column `score_LABEL`.
        """
        score_columns = tuple(f"score_{label}" for label in labels) if all_scores else ()
        taken = {*(name for name, _ in _OURS), *score_columns}
        places: list[dict[tuple[str, int], int]] = []
        for header in headers:
            seen: Counter[str] = Counter()
            places.append({})
            for position, name in enumerate(header):
                places[-1][name, seen[name]] = position
                seen[name] += 1
        inputs: dict[tuple[str, int], str] = {}
        for name, nth in dict.fromkeys(key for of_file in places for key in of_file):
            new = printable(name) + (f"_{nth + 1}" if nth else "")
            while new in taken:
                new = f"input_{new}"
            taken.add(new)
            inputs[name, nth] = new
        return cls(
            inputs=tuple(inputs.values()),
            positions=tuple(tuple(of_file.get(key) for key in inputs) for of_file in places),
            score_columns=score_columns,
            renamed={new: printable(name) for (name, _), new in inputs.items() if new != name},
        )

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the output."""
        inputs = [(name, pa.string()) for name in self.inputs]
        return pa.schema([*inputs, *_OURS, *((name, pa.float32()) for name in self.score_columns)])


def printable(cell: str) -> str:
    """The cell in valid Unicode: a byte that could not be decoded appears as \\xNN."""
    if cell.isascii():
        return cell
    try:
        return cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a pair that the file spells out, as some encodings can
        return cell.encode("utf-8", "backslashreplace").decode()


@dataclass
class RowBlock:
    """Consecutive rows of a file.

    Attributes:
        lines: 1-based number of each row's first physical line.
        rows: fields of each row; None where they are not one for each column.
        errors: why a row cannot be scored, as far as reading shows; None where it has a text.
        texts: the texts, of the rows without an error, in order.
    """

    lines: list[int] = field(default_factory=list)
    rows: list[Sequence[str] | None] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def add(self, line: int, fields: Fields, reader: TextReader) -> None:
        """Takes one more row."""
        self.lines.append(line)
        reject = reader.no_row(line, fields)
        if reject or isinstance(fields, CellTooLong):
            # Of a header once more it is known which cell belongs to which column.
            known = reject and reject.reason == Reason.REPEATED_HEADER and not isinstance(fields, CellTooLong)
            self.rows.append(fields if known else None)
            self.errors.append(str(reject.reason) if reject else None)
            return
        self.rows.append(fields)
        text = reader.text(line, fields)
        if isinstance(text, Reject):
            self.errors.append(str(text.reason))
            return
        self.errors.append(None)
        self.texts.append(text)


@dataclass(frozen=True)
class BlockSize:
    """A block ends at whichever comes first. Blocks bound memory; sorting texts by length wants them large.

    Attributes:
        rows: rows.
        text_chars: characters of text, which cost time.
        chars: characters of all cells, which cost memory.
    """

    rows: int
    text_chars: int
    chars: int


def read_blocks(records: Iterable[tuple[int, Fields]], reader: TextReader, size: BlockSize) -> Iterator[RowBlock]:
    """Blocks of the records of a shard, in order; none is empty."""
    block, text_chars, chars = RowBlock(), 0, 0
    for line, fields in records:
        texts = len(block.texts)
        block.add(line, fields, reader)
        text_chars += len(block.texts[-1]) if len(block.texts) > texts else 0
        chars += sum(map(len, fields))
        if len(block.lines) >= size.rows or text_chars >= size.text_chars or chars >= size.chars:
            yield block
            block, text_chars, chars = RowBlock(), 0, 0
    if block.lines:
        yield block


def prediction_table(block: RowBlock, scores: Scored, columns: Columns, *, file: str, file_index: int) -> pa.Table:
    """One row for each of the block, in order, in `columns.schema`.

    Args:
        block: the rows.
        scores: of the block's texts.
        columns: what the output has.
        file: URI of the rows' file.
        file_index: its place among the files.
    """
    inputs = [
        _strings([row[position] if row is not None and position is not None else None for row in block.rows])
        for position in columns.positions[file_index]
    ]
    rows = len(block.lines)
    has_text = np.fromiter((error is None for error in block.errors), bool, rows)
    # A row's text among the texts; any, where it has none.
    text = np.maximum(np.cumsum(has_text) - 1, 0)
    scored = has_text.copy()
    scored[has_text] = [error is None for error in scores.errors]
    errors = list(block.errors)
    labels: list[str | None] = [None] * rows
    for row, i in zip(np.flatnonzero(has_text).tolist(), range(len(scores.errors)), strict=True):
        if (error := scores.errors[i]) is not None:
            errors[row] = error.code
        else:
            labels[row] = scores.label(i)

    def of_texts(values: np.ndarray, kind: pa.DataType, valid: np.ndarray) -> pa.Array:
        spread = values[text] if len(values) else np.zeros(rows, values.dtype)
        return pa.array(spread, kind, mask=~valid)

    probabilities = scores.probabilities
    ours = [
        pa.array([printable(file)] * rows, pa.string()),
        pa.array(block.lines, pa.int64()),
        pa.array(labels, pa.string()),
        of_texts(probabilities.max(axis=1), pa.float32(), scored),
        of_texts(scores.tokens, pa.int32(), has_text),
        of_texts(scores.truncated, pa.bool_(), has_text),
        pa.array(errors, pa.string()),
    ]
    each = [of_texts(probabilities[:, i], pa.float32(), scored) for i in range(len(columns.score_columns))]
    return pa.table([*inputs, *ours, *each], schema=columns.schema)


def _strings(cells: list[str | None]) -> pa.Array:
    try:
        return pa.array(cells, pa.string())
    except UnicodeEncodeError:
        return pa.array([None if cell is None else printable(cell) for cell in cells], pa.string())


class TableWriter(Protocol):
    """Writes one table after the other."""

    def write_table(self, table: pa.Table) -> None:
        """Writes a table."""


@contextmanager
def table_writer(file: BinaryIO, schema: pa.Schema, suffix: str, csv_encoding: str = "utf-8") -> Iterator[TableWriter]:
    """A writer of tables into a file of one of `FORMATS`; the file is complete when the block ends."""
    if suffix == "parquet":
        with pq.ParquetWriter(file, schema) as writer:
            yield writer
        return
    text = io.TextIOWrapper(file, csv_encoding, newline="")
    yield _CsvWriter(text, schema)
    text.detach()  # flushes; the file is its opener's to close


class _CsvWriter:
    """CSV as Python's csv module writes it: commas, a header; null is an empty cell."""

    def __init__(self, text: io.TextIOWrapper, schema: pa.Schema) -> None:
        self._rows = csv.writer(text)
        self._rows.writerow(schema.names)

    def write_table(self, table: pa.Table) -> None:
        """Writes the rows."""
        self._rows.writerows(zip(*(_cells(column) for column in table.columns), strict=True))


def _cells(column: pa.ChunkedArray) -> list[str]:
    values = column.to_pylist()
    if pa.types.is_boolean(column.type):
        return ["" if value is None else str(value).lower() for value in values]
    if pa.types.is_float32(column.type):
        # Through float32: the shortest number that is this one, not its double's.
        return ["" if value is None else str(np.float32(value)) for value in values]
    return ["" if value is None else str(value) for value in values]
