"""What divides rows into slices: length, truncation, file, the columns that `report.slices` names, confidence.

In: facts of rows, and how often each cell of a column occurs. Out: for each row the number of its slice in every group,
and the slices' names. Pure. Not here: what is counted for a slice (findings.py), reading the cells (data/).

Slices have fixed numbers before any row is scored, so that counts add up over workers. N rows, G groups.
"""

import hashlib
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

MOST_VALUES = 30
"""Slices that a column or the files are divided into; the other values are one slice more."""
EMPTY, OTHERS = "(empty)", "(other values)"
"""The slices of cells that are empty, and of values with fewer rows than those listed."""

# Different cells of a column that are counted; beyond these, those with fewest rows are left out.
_MOST_COUNTED = 10_000
# Ranges of numbers: at most so many, of at least about so many rows.
_MOST_RANGES, _ROWS_OF_RANGE = 10, 60
# Share of the rows with a value that must hold numbers, in a column of numbers: some cells say "n/a" or "unknown".
_NUMBERS = 0.9
_LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_HASH_BYTES = 8


class Group(NamedTuple):
    """One way to divide rows.

    Attributes:
        by: as `Slice.by` of a report.
        values: name of each slice, by its number.
    """

    by: str
    values: tuple[str, ...]


def _up_to(edges: Sequence[int]) -> tuple[str, ...]:
    """Names of ranges of whole numbers that end with these."""
    firsts = (1, *(edge + 1 for edge in edges))
    closed = (f"{first:,} to {last:,}" for first, last in zip(firsts, edges, strict=False))
    return (*closed, f"more than {edges[-1]:,}")


def _from(edges: Sequence[float]) -> tuple[str, ...]:
    """Names of ranges that begin with these numbers."""
    named = [f"{edge:,.15g}" for edge in edges]
    inner = (f"{low} to under {high}" for low, high in pairwise(named))
    return (f"under {named[0]}", *inner, f"{named[-1]} or more")


LENGTH = Group("length", _up_to(_LENGTHS))
TRUNCATED = Group("truncated", ("no", "yes"))
CONFIDENCE = Group("confidence", _from(_CONFIDENCES))


def confidence_codes(confidence: np.ndarray) -> np.ndarray:
    """int64 [N]: numbers of the slices of `CONFIDENCE`."""
    found: np.ndarray = np.searchsorted(_CONFIDENCES, confidence, side="right")
    return found


@dataclass
class CellCounts:
    """How often each cell of a column occurs; sums over blocks do, as long as they are added in the order of blocks.

    Attributes:
        rows: stripped cell -> rows; at most 10,000 of them.
        left_out: whether there are other cells: each has no more rows than the rarest one that is kept.
    """

    rows: Counter[str] = field(default_factory=Counter)
    left_out: bool = False

    @classmethod
    def of(cls, cells: pa.ChunkedArray) -> Self:
        """The counts of a column of strings."""
        found = cls()
        for item in cells.value_counts().to_pylist():
            found.rows[(item["values"] or "").strip()] += item["counts"]
        found._leave_out()
        return found

    def add(self, other: "CellCounts") -> None:
        """Adds the counts of a later block."""
        self.rows.update(other.rows)
        self.left_out |= other.left_out
        self._leave_out()

    def _leave_out(self) -> None:
        if len(self.rows) > _MOST_COUNTED:
            self.rows, self.left_out = Counter(dict(_by_rows(self.rows)[:_MOST_COUNTED])), True


def _by_rows(rows: Mapping[str, int]) -> list[tuple[str, int]]:
    """(cell, rows) by falling rows; equal ones by a hash, so that those that are kept are no end of the alphabet."""

    def hashed(cell: str) -> bytes:
        return hashlib.blake2b(cell.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()

    return sorted(rows.items(), key=lambda item: (-item[1], hashed(item[0])))


def _number(cell: str) -> float | None:
    """The number that a cell holds, NaN included; None if it holds none."""
    try:
        found = float(cell)
    except ValueError:
        return None
    return None if math.isinf(found) else found


@dataclass(frozen=True)
class ColumnGroup:
    """How the cells of a column divide rows: by value or, for many numbers, by range.

    Attributes:
        column: its name.
        values: name of each slice, by its number; the first is that of empty cells.
        edges: where ranges begin; empty if slices are single values. Ranges come first, then cells that are no numbers.
    """

    column: str
    values: tuple[str, ...]
    edges: tuple[float, ...] = ()

    @classmethod
    def of(cls, column: str, counts: CellCounts) -> Self:
        """The slices of a column with these cells."""
        rows = Counter({cell: n for cell, n in counts.rows.items() if cell})
        numbers = Counter({cell: n for cell, n in rows.items() if _number(cell) is not None})
        are_many = counts.left_out or len(rows) > MOST_VALUES
        ranges: tuple[str, ...] = ()
        edges: tuple[float, ...] = ()
        if are_many and numbers.total() >= _NUMBERS * rows.total():
            edges = _edges(numbers)
        if edges:
            ranges = _from(edges)
            rows -= numbers
            if not rows:
                return cls(column, (EMPTY, *ranges), edges)
        # Of many values, those of one row would be slices of nothing.
        kept = [cell for cell, n in _by_rows(rows)[: MOST_VALUES - len(ranges)] if n > 1 or not are_many]
        return cls(column, (EMPTY, *ranges, *sorted(kept, key=_in_order), OTHERS), edges)

    @property
    def group(self) -> Group:
        """Its name and those of its slices."""
        return Group(f"column {self.column}", self.values)

    def codes(self, cells: pa.ChunkedArray) -> np.ndarray:
        """int16 [N]: numbers of the slices of these cells."""
        encoded = pa.chunked_array(cells).combine_chunks().dictionary_encode(null_encoding="encode")
        first = len(self.edges) + 2 if self.edges else 1  # of the slices of single values
        places = {value: place for place, value in enumerate(self.values[first:], first)}
        of_cell = np.array([self._code(cell, places) for cell in encoded.dictionary.to_pylist()], np.int16)
        found: np.ndarray = of_cell[encoded.indices.to_numpy()]
        return found

    def _code(self, cell: str | None, places: Mapping[str, int]) -> int:
        cell = (cell or "").strip()
        number = _number(cell) if self.edges else None
        if not cell or (number is not None and math.isnan(number)):
            return 0
        if number is not None:
            return 1 + bisect_right(self.edges, number)
        # Without a slice of other values there is no other cell; a cell of that very name is one of them.
        return places.get(cell, places.get(OTHERS, 0))


def _in_order(cell: str) -> tuple[bool, float, str]:
    """The key that sorts values: numbers by size, then words."""
    number = _number(cell)
    if number is None or math.isnan(number):
        return True, 0, cell
    return False, number, cell


def _edges(rows: Mapping[str, int]) -> tuple[float, ...]:
    """Where ranges of about as many rows begin, in as few digits as keep them apart: 10 ranges, of few rows fewer."""
    numbers = sorted((number, n) for cell, n in rows.items() if not math.isnan(number := float(cell)))
    if not numbers:
        return ()
    below = np.cumsum([n for _, n in numbers])
    ranges = max(2, min(_MOST_RANGES, int(below[-1]) // _ROWS_OF_RANGE))
    places = np.searchsorted(below, np.arange(1, ranges) * below[-1] / ranges, side="right")
    edges = sorted({numbers[i][0] for i in places.tolist() if numbers[i][0] > numbers[0][0]})
    for digits in range(2, 18):
        short = sorted({float(f"{edge:.{digits}g}") for edge in edges})
        if len(short) == len(edges):
            return tuple(short)
    return tuple(edges)


@dataclass(frozen=True)
class FileGroup:
    """How files divide rows.

    Attributes:
        values: URI of each file that is a slice, and the name of the slice of all others.
        numbers: number of the slice of each file, by index.
    """

    values: tuple[str, ...]
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, files: Sequence[str], rows: Mapping[int, int]) -> Self:
        """The slices of files, of which those with most rows are slices of their own.

        Args:
            files: URI of each, by index.
            rows: index -> rows.
        """
        most = sorted(range(len(files)), key=lambda i: (-rows.get(i, 0), i))[:MOST_VALUES]
        number_of = {index: number for number, index in enumerate(sorted(most))}
        values = (*(files[index] for index in sorted(most)), "(other files)")
        return cls(values, tuple(number_of.get(index, len(most)) for index in range(len(files))))

    @property
    def group(self) -> Group:
        """Its name and those of its slices."""
        return Group("file", self.values)


@dataclass(frozen=True)
class RowFacts:
    """What is known of N rows before they are scored.

    Attributes:
        row_id: int64 [N].
        file: int64 [N], index of the file.
        tokens: int32 [N], before any cut.
        truncated: bool [N].
        cells: for each column of `report.slices`, N strings.
    """

    row_id: np.ndarray
    file: np.ndarray
    tokens: np.ndarray
    truncated: np.ndarray
    cells: Sequence[pa.ChunkedArray]


class CodedRows(NamedTuple):
    """N rows with the numbers of their slices.

    Attributes:
        row_id: int64 [N].
        codes: int16 [G, N], in the order of `SlicePlan.groups`.
    """

    row_id: np.ndarray
    codes: np.ndarray

    def take(self, rows: np.ndarray) -> "CodedRows":
        """Some of the rows, by position."""
        return CodedRows(self.row_id[rows], self.codes[:, rows])


@dataclass(frozen=True)
class SlicePlan:
    """Which slices rows are divided into, known before any is scored.

    Attributes:
        files: the source files.
        columns: the columns of `report.slices`.
    """

    files: FileGroup
    columns: tuple[ColumnGroup, ...] = ()

    @property
    def groups(self) -> tuple[Group, ...]:
        """What rows are divided by before they are scored."""
        return (LENGTH, TRUNCATED, self.files.group, *(column.group for column in self.columns))

    def coded(self, facts: RowFacts) -> CodedRows:
        """The rows with the numbers of their slices."""
        of_groups: Iterable[np.ndarray] = (
            np.searchsorted(_LENGTHS, facts.tokens),
            facts.truncated,
            np.array(self.files.numbers)[facts.file],
            *(column.codes(cells) for column, cells in zip(self.columns, facts.cells, strict=True)),
        )
        return CodedRows(facts.row_id, np.stack([codes.astype(np.int16) for codes in of_groups]))
