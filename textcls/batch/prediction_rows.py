"""Rows of CSV files -> rows of predictions: blocks to score, and tables to write.

In: records of a shard, as `csv` parses them, and scores. Out: `RowBlock`s, and tables with every column of the input,
our own columns, and one row for each record, in order. Pure. Not here: running the model (predict.py), the files that
the tables are written to (predictions_dir.py).
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from textcls.data.csv_records import CellTooLong, Fields
from textcls.data.rows import Reason, Reject, TextReader
from textcls.tasks.task import Task
from textcls.text.text_input import TextInput

FORMATS = ("parquet", "csv")

# Our own columns: these two, those of the answer, which the task names, and those of the text.
_OF_ROW = (("file", pa.string()), ("line", pa.int64()))
_OF_TEXT = (
    ("tokens", pa.int32()),
    ("truncated", pa.bool_()),
    ("unknown_tokens", pa.int32()),
    ("error", pa.string()),
)
# Tokens of each text of a pair.
_OF_PAIR = (("first_tokens", pa.int32()), ("second_tokens", pa.int32()))


class Scored(Protocol):
    """The part of `inference.classifier.Scores` that is used here, without importing torch; N texts, C labels."""

    @property
    def task(self) -> Task:
        """What is predicted."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in id order."""

    @property
    def probabilities(self) -> np.ndarray:
        """float32 [N, C]."""

    @property
    def decisions(self) -> np.ndarray:
        """The answers, as the task decided them."""

    @property
    def tokens(self) -> np.ndarray:
        """int32 [N]."""

    @property
    def text_tokens(self) -> np.ndarray | None:
        """Int32 [N, 2], tokens of each text of pairs; None for single texts."""

    @property
    def truncated(self) -> np.ndarray:
        """bool [N]."""

    @property
    def unknown(self) -> np.ndarray:
        """int32 [N]."""

    @property
    def errors(self) -> Sequence[Any]:
        """For each text None, or an error with a `code`."""


@dataclass(frozen=True)
class Columns:
    """The columns of the output: those of the input, then our own.

    Attributes:
        inputs: names of the columns of the input, as the output has them.
        positions: for each file, the index of the field of each of `inputs`; None if the file has no such column.
        ours: (name, type) of our own columns that every output has.
        score_columns: names of the columns with the score of each label, in id order; empty unless asked for.
        renamed: name in the output -> name in the CSV, where they differ.
    """

    inputs: tuple[str, ...]
    positions: tuple[tuple[int | None, ...], ...]
    ours: tuple[tuple[str, pa.DataType], ...]
    score_columns: tuple[str, ...]
    renamed: dict[str, str]

    @classmethod
    def plan(
        cls,
        headers: Sequence[Sequence[str]],
        task: Task,
        labels: Sequence[str],
        *,
        all_scores: bool,
        pairs: bool = False,
        more: Sequence[tuple[str, pa.DataType]] = (),
    ) -> "Columns":
        """The columns for files with these headers.

        Our columns always have the same names. A column of the input with one of these names becomes `input_NAME`; the
        second of two columns with the same name becomes `NAME_2`. Files may have different columns: the output has all.

        Args:
            headers: column names of each file.
            task: names the columns of the answer.
            labels: label names in id order.
            all_scores: whether each label has a column `score_LABEL`.
            pairs: whether an input is a pair: there are columns for the tokens of each of its texts.
            more: further columns of our own, after the others.
        """
        score_columns = tuple(f"score_{label}" for label in labels) if all_scores or task.scores_in_answer else ()
        ours = (*_OF_ROW, *((name, _arrow_type(kind)) for name, kind in task.answer_columns), *_OF_TEXT)
        ours += (*(_OF_PAIR if pairs else ()), *more)
        taken = {*(name for name, _ in ours), *score_columns}
        positions: list[dict[tuple[str, int], int]] = []
        for header in headers:
            seen: Counter[str] = Counter()
            positions.append({})
            for position, name in enumerate(header):
                positions[-1][name, seen[name]] = position
                seen[name] += 1
        inputs: dict[tuple[str, int], str] = {}
        for name, nth in dict.fromkeys(key for of_file in positions for key in of_file):
            new = printable(name) + (f"_{nth + 1}" if nth else "")
            while new in taken:
                new = f"input_{new}"
            taken.add(new)
            inputs[name, nth] = new
        return cls(
            inputs=tuple(inputs.values()),
            positions=tuple(tuple(of_file.get(key) for key in inputs) for of_file in positions),
            ours=ours,
            score_columns=score_columns,
            renamed={new: printable(name) for (name, _), new in inputs.items() if new != name},
        )

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the output."""
        inputs = [(name, pa.string()) for name in self.inputs]
        return pa.schema([*inputs, *self.ours, *((name, pa.float32()) for name in self.score_columns)])


def printable(cell: str) -> str:
    """The cell as valid Unicode: a byte that could not be decoded becomes \\xNN."""
    if cell.isascii():
        return cell
    try:
        return cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # an unpaired surrogate that the file itself encodes, as some encodings can
        return cell.encode("utf-8", "backslashreplace").decode()


@dataclass
class RowBlock:
    """Consecutive rows of a file.

    Attributes:
        lines: 1-based number of the first physical line of each row.
        rows: fields of each row; None unless there is one for each column.
        errors: why reading rejects a row; None if it has an input.
        inputs: of the rows without an error, in order.
    """

    lines: list[int] = field(default_factory=list)
    rows: list[Sequence[str] | None] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    inputs: list[TextInput] = field(default_factory=list)

    def add(self, line: int, fields: Fields, reader: TextReader) -> None:
        """Appends a row."""
        self.lines.append(line)
        reject = reader.no_row(line, fields)
        if reject or isinstance(fields, CellTooLong):
            # A repeated header has one field for each column, so its fields can be written.
            known = reject and reject.reason == Reason.REPEATED_HEADER and not isinstance(fields, CellTooLong)
            self.rows.append(fields if known else None)
            self.errors.append(str(reject.reason) if reject else None)
            return
        self.rows.append(fields)
        found = reader.input(line, fields)
        if isinstance(found, Reject):
            self.errors.append(str(found.reason))
            return
        self.errors.append(None)
        self.inputs.append(found)


@dataclass(frozen=True)
class BlockSize:
    """A block ends at whichever limit comes first.

    Small blocks bound memory; large blocks have less padding, because texts are sorted by length within a block.

    Attributes:
        rows: rows.
        text_chars: characters of the texts, which cost time.
        chars: characters of all cells, which cost memory.
    """

    rows: int
    text_chars: int
    chars: int


def read_blocks(records: Iterable[tuple[int, Fields]], reader: TextReader, size: BlockSize) -> Iterator[RowBlock]:
    """Blocks of the records of a shard, in order. No block is empty."""
    block, text_chars, chars = RowBlock(), 0, 0
    for line, fields in records:
        inputs = len(block.inputs)
        block.add(line, fields, reader)
        text_chars += block.inputs[-1].chars if len(block.inputs) > inputs else 0
        chars += sum(map(len, fields))
        if len(block.lines) >= size.rows or text_chars >= size.text_chars or chars >= size.chars:
            yield block
            block, text_chars, chars = RowBlock(), 0, 0
    if block.lines:
        yield block


def prediction_table(
    block: RowBlock,
    scores: Scored,
    columns: Columns,
    more: Sequence[pa.Array] = (),
    *,
    file: str,
    file_index: int,
    mask: Callable[[str], str] = str,
) -> pa.Table:
    """A table of `columns.schema` with one row for each row of the block, in order.

    Args:
        block: the rows.
        scores: of the inputs of the block.
        columns: of the output.
        more: the cells of `more` of `Columns.plan`, for each row of the block.
        file: URI of the file that the rows come from.
        file_index: its index among the files.
        mask: changes each cell of the input.
    """
    inputs = [
        _strings([mask(row[position]) if row is not None and position is not None else None for row in block.rows])
        for position in columns.positions[file_index]
    ]
    rows = len(block.lines)
    has_text = np.fromiter((error is None for error in block.errors), bool, rows)
    # Index of each row's text; arbitrary for rows without a text.
    text = np.maximum(np.cumsum(has_text) - 1, 0)
    scored = has_text.copy()
    scored[has_text] = [error is None for error in scores.errors]
    errors = list(block.errors)
    for row, error in zip(np.flatnonzero(has_text).tolist(), scores.errors, strict=True):
        if error is not None:
            errors[row] = error.code

    def of_texts(values: np.ndarray, kind: pa.DataType, valid: np.ndarray) -> pa.Array:
        spread = values[text] if len(values) else np.zeros(rows, values.dtype)
        return pa.array(spread, kind, mask=~valid)

    probabilities, task = scores.probabilities, scores.task
    answers = task.answer_cells(probabilities, scores.decisions, scores.labels)
    ours = [
        pa.array([printable(file)] * rows, pa.string()),
        pa.array(block.lines, pa.int64()),
        *(
            of_texts(cells, _arrow_type(kind), scored)
            for cells, (_, kind) in zip(answers, task.answer_columns, strict=True)
        ),
        of_texts(scores.tokens, pa.int32(), has_text),
        of_texts(scores.truncated, pa.bool_(), has_text),
        of_texts(scores.unknown, pa.int32(), has_text),
        pa.array(errors, pa.string()),
    ]
    if scores.text_tokens is not None:
        ours += [of_texts(of_each, pa.int32(), has_text) for of_each in scores.text_tokens.T]
    ours += more
    each = [of_texts(probabilities[:, i], pa.float32(), scored) for i in range(len(columns.score_columns))]
    return pa.table([*inputs, *ours, *each], schema=columns.schema)


def answer_rows(scores: Scored) -> dict[str, int]:
    """Answer -> texts that have it, of those with scores."""
    scored = np.fromiter((error is None for error in scores.errors), bool, len(scores.errors))
    return dict(scores.task.answer_rows(scores.decisions[scored], scores.labels))


def _arrow_type(kind: type) -> pa.DataType:
    return pa.string() if kind is str else pa.from_numpy_dtype(np.dtype(kind))


def _strings(cells: list[str | None]) -> pa.Array:
    try:
        return pa.array(cells, pa.string())
    except UnicodeEncodeError:
        return pa.array([None if cell is None else printable(cell) for cell in cells], pa.string())


class TableWriter(Protocol):
    """Appends tables to a file."""

    def write_table(self, table: pa.Table) -> None:
        """Appends a table."""


@contextmanager
def table_writer(file: BinaryIO, schema: pa.Schema, suffix: str, csv_encoding: str = "utf-8") -> Iterator[TableWriter]:
    """A writer of tables to a file of one of `FORMATS`; the file is complete when the `with` block ends."""
    if suffix == "parquet":
        with pq.ParquetWriter(file, schema) as writer:
            yield writer
        return
    text = io.TextIOWrapper(file, csv_encoding, newline="")
    yield _CsvWriter(text, schema)
    text.detach()  # flushes; the caller closes the file


class _CsvWriter:
    """Writes CSV as Python's csv module does: commas, a header line. Null becomes an empty cell."""

    def __init__(self, text: io.TextIOWrapper, schema: pa.Schema) -> None:
        self._rows = csv.writer(text)
        self._rows.writerow(schema.names)

    def write_table(self, table: pa.Table) -> None:
        """Appends the rows of a table."""
        self._rows.writerows(zip(*(_cells(column) for column in table.columns), strict=True))


def _cells(column: pa.ChunkedArray) -> list[str]:
    values = column.to_pylist()
    if pa.types.is_boolean(column.type):
        return ["" if value is None else str(value).lower() for value in values]
    if pa.types.is_float32(column.type):
        # As float32: the shortest decimal that rounds to it; the double would have more digits.
        return ["" if value is None else str(np.float32(value)) for value in values]
    return ["" if value is None else str(value) for value in values]
