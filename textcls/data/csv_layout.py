"""Detects the delimiter, the header and the positions of the requested columns at the start of a file. Pure.

In: the first records, parsed in any dialect. Out: a `Layout`, or an error with the setting to change. Not here: reading
(csv_records.py), other formats (file_formats.py), the encoding (encodings.py).

Lines above the header are detected where that is certain: Excel's `sep=;`, and title lines if a later record has every
requested column. Blanks after a delimiter are detected too. `Layout.notes` reports what was detected.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from textcls.data.column_hints import column_hints, flags_note
from textcls.errors import DataError
from textcls.settings.data import DataSpec
from textcls.settings.yaml_text import set_option

_DELIMITERS = ",;\t|"
# Never chosen, only suggested when no other delimiter fits.
_RARE_DELIMITERS = ":^~ \x01\x1f"
# With title lines above it, the header is one of this many records.
_MOST_TITLES = 20
_MOST_NOTES = 5
_SEP_LINE = re.compile(r'\ufeff?"?sep=(.)"?[,;\t|"]*\s*', re.IGNORECASE)
_TOTAL_WORDS = re.compile(
    r"((grand[ -]|sub[ -]?)?totals?|sum|count|average|mean|合計|合计|總計|总计|小計|小计|итого|всего|summe|gesamt|"
    r"gesamtsumme|total g[eé]n[eé]ral|totale|totaal|suma|razem|합계|총계|toplam)[ :.]*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[\d.,%+\- €$£¥]*")


class Dialect(NamedTuple):
    """How records are divided into cells. Quotes and escapes are not detected: settings specify them.

    Attributes:
        delimiter: one character.
        skip_blanks: whether blanks at the start of a cell are ignored, so that a quote after them opens it.
    """

    delimiter: str
    skip_blanks: bool = False


@dataclass(frozen=True)
class Layout:
    """The layout of the records of one file.

    Attributes:
        delimiter: one character.
        width: number of fields of a record.
        positions: 0-based field of each of `DataSpec.columns`, in that order.
        header_line: 1-based number of the first physical line of the last record before the rows: the header or,
            without one, Excel's `sep=` line; 0 if there is neither.
        skip_blanks: see `Dialect`.
        header: names of all columns; empty if there is no header.
        notes: what was detected and should be reported to the user, one sentence each.
        uri: the file.
    """

    delimiter: str
    width: int
    positions: tuple[int, ...]
    header_line: int
    skip_blanks: bool = False
    header: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    uri: str = field(default="", compare=False)

    @property
    def dialect(self) -> Dialect:
        """How records are divided into fields."""
        return Dialect(self.delimiter, self.skip_blanks)


class FirstRecord(NamedTuple):
    """One of the first records of a file in some dialect.

    Attributes:
        line: 1-based number of its first physical line.
        fields: its fields; empty if it has a problem.
        problem: what is wrong with one of its cells; empty if nothing is.
    """

    line: int
    fields: list[str]
    problem: str = ""


ReadStart = Callable[[Dialect], Sequence[FirstRecord]]
"""Parses the first records, at least one, in a dialect."""


def choose_layout(uri: str, read_start: ReadStart, data: DataSpec, hint: Callable[[], str] = lambda: "") -> Layout:
    """The layout of a file.

    Args:
        uri: the file.
        read_start: returns its first records in a dialect.
        data: the settings.
        hint: returns the advice if no column fits, from other evidence than the records; empty if there is none.

    Raises:
        DataError: a column is missing or appears twice, a position is beyond the fields, or a cell is too long.
    """
    sep, sep_line = _sep_line(read_start)

    def start(dialect: Dialect) -> Sequence[FirstRecord]:
        records = read_start(dialect)
        return records[1:] if sep_line and len(records) > 1 else records

    dialect, header, titles = _find_header(start, data, sep)
    line, fields, problem = header
    if problem:
        raise DataError(
            f"{uri}:{line}: the first record holds a cell of {problem}",
            todo="check the quotes in that line; --set data.quoting=none if quotes mean nothing in this file",
        )
    if not _fits(fields, data):
        if data.skip_initial_space == "auto" and dialect.delimiter != " ":
            # Otherwise the advice would name a column with the blank before it.
            fields = start(Dialect(dialect.delimiter, skip_blanks=True))[0].fields
        todo = _delimiter_hint(start, data) or hint()
        if not data.header:
            raise _missing_position(uri, dialect.delimiter, fields, todo, data)
        rows = [record.fields for record in start(dialect)[titles + 1 :]]
        raise _missing_columns(uri, dialect.delimiter, fields, rows, todo, data)
    if data.skip_initial_space == "auto" and not dialect.skip_blanks and dialect.delimiter != " ":
        rows = [record.fields for record in start(dialect)[titles + data.header :]]
        dialect = dialect._replace(skip_blanks=_quotes_follow_blanks(rows))
    notes = tuple(_notes(uri, dialect, sep, sep_line, [record.line for record in start(dialect)[: titles + 1]]))
    if not data.header:
        positions = tuple(map(int, data.columns))
        return Layout(dialect.delimiter, len(fields), positions, sep_line, dialect.skip_blanks, (), notes, uri)
    for column in data.columns:
        if fields.count(column) > 1:
            positions_of_it = " and ".join(str(i) for i, name in enumerate(fields) if name == column)
            raise DataError(
                f"{uri}: the header has {column!r} {fields.count(column)} times: positions {positions_of_it}",
                expected="each column in use to appear once",
                todo="rename the others in the file",
            )
    if note := flags_note(fields, [record.fields for record in start(dialect)[titles + 1 :]], data):
        notes = (*notes, note)
    positions = tuple(fields.index(column) for column in data.columns)
    return Layout(dialect.delimiter, len(fields), positions, line, dialect.skip_blanks, tuple(fields), notes, uri)


def header_again(fields: Sequence[str], layout: Layout) -> bool:
    """Whether a record repeats the header, as in files that were concatenated or written in parts.

    All names must match, or those of at least two requested columns. A byte order mark before the first name, blanks,
    quotes and case are ignored.
    """
    header = layout.header
    if len(set(header)) < 2 or len(fields) != len(header):
        return False
    same = [plain_name(field) == plain_name(name) for field, name in zip(fields, header, strict=True)]
    names = {header[position] for position in layout.positions if same[position]}
    if not all(same) and len(names) < max(2, len(layout.positions)):
        return False
    return not all(name.strip().isdecimal() for name in names or header)


def header_reordered(fields: Sequence[str], layout: Layout) -> bool:
    """Whether a record has the names of the header in another order, so that the rows below it have another layout."""
    header = layout.header
    if len(set(header)) < 2 or len(fields) != len(header):
        return False
    found, names = [plain_name(field) for field in fields], [plain_name(name) for name in header]
    requested = {names[position] for position in layout.positions}
    moved = len(requested) > 1 and all(found.count(name) == 1 for name in requested)
    return found != names and (sorted(found) == sorted(names) or moved) and not header_again(fields, layout)


def plain_name(name: str) -> str:
    """A column's name without byte order mark, blanks, quotes and case, in which a repeated header may differ."""
    return name.strip('\ufeff "').casefold()


def is_total(fields: Sequence[str]) -> bool:
    """Whether a record looks like a totals row: a word for "total", and otherwise numbers and empty cells."""
    cells = [field.strip() for field in fields if field.strip()]
    return bool(cells and _TOTAL_WORDS.fullmatch(cells[0])) and all(map(_NUMBER.fullmatch, cells[1:]))


def layout_notes(layouts: Sequence[Layout]) -> list[str]:
    """The notes of all layouts, at most the first few."""
    notes = list(dict.fromkeys(note for layout in layouts for note in layout.notes))
    more = len(notes) - _MOST_NOTES
    return notes[:_MOST_NOTES] + ([f"{more:,} more notes like these"] if more > 0 else [])


def _sep_line(read_start: ReadStart) -> tuple[str, int]:
    """(delimiter, line) of Excel's `sep=;` line at the beginning of a file; ("", 0) if there is none."""
    # People do not type the unit separator, so each record has one field.
    line, fields, _ = read_start(Dialect("\x1f"))[0]
    found = _SEP_LINE.fullmatch(fields[0]) if len(fields) == 1 else None
    return (found[1], line) if found else ("", 0)


def _find_header(start: ReadStart, data: DataSpec, sep: str) -> tuple[Dialect, FirstRecord, int]:
    """(dialect, header or first row, title lines above it) that fit best."""
    delimiters = data.delimiter if data.delimiter != "auto" else sep + _DELIMITERS.replace(sep, "")
    skips = (False, True) if data.skip_initial_space == "auto" else (data.skip_initial_space,)
    dialects = [Dialect(delimiter, skip and delimiter != " ") for skip, delimiter in product(skips, delimiters)]

    def value(dialect: Dialect) -> tuple[bool, int]:
        fields = start(dialect)[0].fields
        return _fits(fields, data), len(fields)

    best = max(dialects, key=value)  # of equals the first: no blanks skipped, the comma
    first = start(best)[0]
    if first.problem or not data.header or _fits(first.fields, data):
        return best, first, 0
    for titles in range(1, _MOST_TITLES):
        for dialect in dialects:
            records = start(dialect)
            if titles < len(records) and _fits(records[titles].fields, data):
                return dialect, records[titles], titles
    return best, first, 0


def _quotes_follow_blanks(rows: Sequence[Sequence[str]]) -> bool:
    """Whether blanks between a delimiter and a quote are padding; `rows` are the first rows, read with the blanks."""
    later = [fields[1:] for fields in rows if len(fields) > 1]
    quoted = [[field.startswith(" ") and field.lstrip(" ").startswith('"') for field in fields] for fields in later]
    if not any(map(any, quoted)):
        return False
    if all(field.startswith(" ") or not field for fields in later for field in fields):
        return True
    # One column that is quoted in every row is enough.
    return any(all(column) for column in zip(*quoted, strict=False)) and len(set(map(len, quoted))) == 1


def _notes(uri: str, dialect: Dialect, sep: str, sep_line: int, lines: Sequence[int]) -> Iterator[str]:
    """What was detected; `lines` are the line numbers of the title lines and of the header."""
    if sep_line:
        yield f"{uri}:{sep_line}: the line 'sep={sep}' is Excel's and is skipped"
    if len(lines) > 1:
        above = len(lines) - 1
        yield (
            f"{uri}:{lines[-1]}: used as the header; {above} line{'s' if above > 1 else ''} above it "
            f"{'are' if above > 1 else 'is'} skipped"
        )
    if dialect.skip_blanks:
        yield f"{uri}: blanks after a delimiter are skipped; --set data.skip_initial_space=false keeps them"


def _fits(fields: Sequence[str], data: DataSpec) -> bool:
    """Whether a first record has every requested column."""
    if data.header:
        return set(data.columns) <= set(fields)
    return max(map(int, data.columns)) < len(fields)


def _delimiter_hint(start: ReadStart, data: DataSpec) -> str:
    """The --set with which the first record has every requested column; empty if there is none."""
    for delimiter in _DELIMITERS + _RARE_DELIMITERS:
        fields = start(Dialect(delimiter))[0].fields
        # A field that is only a comma: 'text , label' is not delimited by blanks.
        if delimiter != data.delimiter and _fits(fields, data) and not set(_DELIMITERS) & set(fields):
            name = "tab" if delimiter == "\t" else delimiter
            return f"with the delimiter {delimiter!r} it fits: {set_option('data.delimiter', name)}"
    if data.skip_initial_space is False and data.delimiter != " ":
        for delimiter in _DELIMITERS if data.delimiter == "auto" else data.delimiter:
            if _fits(start(Dialect(delimiter, skip_blanks=True))[0].fields, data):
                return f"without the blanks after {delimiter!r} it fits: --set data.skip_initial_space=true"
    return ""


def _missing_position(uri: str, delimiter: str, fields: Sequence[str], hint: str, data: DataSpec) -> DataError:
    beyond = [column for column in data.columns if int(column) >= len(fields)]
    return DataError(
        f"{uri}: no field at position {' or '.join(beyond)}; with the delimiter {delimiter!r} "
        f"the first record has {len(fields)}: {_listed(fields)}",
        expected=f"positions from 0 to {len(fields) - 1}",
        todo=hint
        or f"correct {data.input_setting}, data.label_column or data.where"
        + (" or report.slices" if data.slice_columns else ""),
    )


def _missing_columns(
    uri: str, delimiter: str, fields: Sequence[str], rows: Sequence[Sequence[str]], hint: str, data: DataSpec
) -> DataError:
    missing = [column for column in data.columns if column not in fields]
    return DataError(
        f"{uri}: no column {' or '.join(map(repr, missing))}; with the delimiter {delimiter!r} "
        f"the header has {_listed(fields)}",
        todo=hint or column_hints(missing, fields, rows, data),
    )


def _listed(fields: Sequence[str]) -> str:
    shown = ", ".join(repr(field if len(field) <= 40 else field[:39] + "…") for field in fields[:20])
    return shown + (f" and {len(fields) - 20} more" if len(fields) > 20 else "")
