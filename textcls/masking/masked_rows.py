"""Records of a CSV shard -> the same records with their identifiers masked, or rejects.

In: `RawRecord`s and the kinds to mask. Out: for each record its new characters or a reject, and counts of what was
replaced. Pure. Not here: reading the file (raw_records.py), what an identifier is (text/masks.py).

A reject never quotes a cell: what cannot be parsed cannot be masked with certainty.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from textcls.data.csv_layout import Layout
from textcls.data.csv_records import CellTooLong
from textcls.data.csv_shards import column_names
from textcls.data.rows import Reason
from textcls.errors import DataError
from textcls.masking.pseudonyms import PseudonymKey
from textcls.masking.raw_records import RawRecord, with_cells
from textcls.settings.data import DataSpec
from textcls.settings.yaml_text import set_option
from textcls.text.masks import Masker, MaskKind


class RejectedRow(NamedTuple):
    """A row that is not written.

    Attributes:
        line: 1-based number of its first physical line.
        column: the column at fault; empty if the whole row is.
        reason: a `Reason`.
        value: what was found, without any character of the row.
    """

    line: int
    column: str
    reason: str
    value: str


@dataclass
class MaskedCounts:
    """Counts of some rows.

    Attributes:
        read: rows read.
        written: rows written.
        masked: rows written in which something was replaced.
        hits: (column, kind) -> values replaced.
        reasons: rejects by reason.
    """

    read: int = 0
    written: int = 0
    masked: int = 0
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


class RowMasker:
    """Masks the records of one file, one after another.

    Args:
        masker: finds identifiers.
        layout: of the file.
        data: how it is read.
        columns: names of the columns to mask; none for all.
        key: with one, pseudonyms take the place of plain placeholders.

    Attributes:
        counts: of the rows so far.
    """

    def __init__(
        self, masker: Masker, layout: Layout, data: DataSpec, columns: Sequence[str], key: PseudonymKey | None = None
    ) -> None:
        self.counts = MaskedCounts()
        self._masker, self._layout, self._data, self._key = masker, layout, data, key
        names = column_names(layout)
        self._columns = [(i, name) for i, name in enumerate(names) if not columns or name in columns]

    def __call__(self, record: RawRecord) -> str | RejectedRow:
        """What is written for a record: the header and the lines above it, a row, or nothing but a reject."""
        fields, layout = record.fields, self._layout
        if fields is None:
            return record.before
        if record.line <= layout.header_line:
            return record.before + self._above_rows(record)
        self.counts.read += 1
        if isinstance(fields, CellTooLong):
            return self._reject(record, "", Reason.CELL_TOO_LONG, fields.value)
        if len(fields) != layout.width:
            return self._reject(record, "", Reason.RAGGED_ROW, f"{len(fields)} fields, expected {layout.width}")
        cells: dict[int, str] = {}
        hits: Counter[tuple[str, str]] = Counter()
        for position, name in self._columns:
            cell = fields[position]
            if not cell:
                continue
            if bad := _undecodable(cell):
                told = f"{bad} byte{'s' if bad > 1 else ''} that {'are' if bad > 1 else 'is'} not {self._data.encoding}"
                return self._reject(record, name, Reason.UNDECODABLE, told)
            masked = self._masker.replaced(cell, partial(self._replacement, hits, name))
            if masked != cell:
                cells[position] = masked
        self.counts.written += 1
        self.counts.masked += bool(cells)
        self.counts.hits += hits
        return record.before + (with_cells(record.raw, fields, cells, layout, self._data) if cells else record.raw)

    def _replacement(self, hits: Counter[tuple[str, str]], column: str, kind: MaskKind, value: str) -> str:
        """What replaces an identifier."""
        hits[column, kind.name] += 1
        if self._key is None:
            return kind.placeholder
        return f"{kind.placeholder[:-1]}:{self._key.pseudonym(kind.name, value)}]"

    def _reject(self, record: RawRecord, column: str, reason: str, value: str) -> RejectedRow:
        self.counts.reasons[str(reason)] += 1
        return RejectedRow(record.line, column, str(reason), value)

    def _above_rows(self, record: RawRecord) -> str:
        """The header as it is; the lines above it, which may be a title with a name in it, masked.

        Raises:
            DataError: the header holds an identifier, so it is probably a row.
        """
        if not self._layout.header or record.line != self._layout.header_line:
            return self._masker(record.raw)
        if found := sum(self._masker.counts(record.raw).values()):
            raise DataError(
                f"{self._layout.uri}:{record.line}: the header holds {found} value{'s' if found > 1 else ''} to mask",
                expected="names of columns",
                todo=f"if it is the first row: {set_option('data.header', False)}; otherwise rename the columns",
            )
        return record.raw


def _undecodable(cell: str) -> int:
    """The number of bytes that could not be decoded, which are lone surrogates."""
    return 0 if cell.isascii() else sum("\ud800" <= char <= "\udfff" for char in cell)
