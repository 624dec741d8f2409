"""Which delimiter, which header and which fields hold the columns asked for, found at the start of a file. Pure.

In: the first records, parsed in any dialect one likes to try. Out: a `Layout`, or an error that names the setting to
change. Not here: reading (csv_shards.py), other formats (file_formats.py), what encoding it is (encodings.py).

What stands above the header is recognised where that is certain: Excel's `sep=;`, and title lines if a later record
holds every column asked for. So are blanks after a delimiter. A `Layout` says what was recognised.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from textcls.errors import DataError
from textcls.settings.recipe import DataSpec
from textcls.settings.yaml_text import set_option

_DELIMITERS = ",;\t|"
# Never chosen, only named when nothing else fits.
_RARE_DELIMITERS = ":^~ \x01\x1f"
# The header is one of so many records, if title lines stand above it.
_MOST_TITLES = 20
_SHOWN_NOTES = 5
_SEP_LINE = re.compile(r'\ufeff?"?sep=(.)"?[,;\t|"]*\s*', re.IGNORECASE)
_TOTAL_WORDS = re.compile(
    r"((grand[ -]|sub[ -]?)?totals?|sum|count|average|mean|合計|合计|總計|总计|小計|小计|итого|всего|summe|gesamt|"
    r"gesamtsumme|total g[eé]n[eé]ral|totale|totaal|suma|razem|합계|총계|toplam)[ :.]*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[\d.,%+\- €$£¥]*")


class Dialect(NamedTuple):
    """What two programs that write CSV may do differently, beside quotes and escapes, which settings tell.

    Attributes:
        delimiter: one character.
        skip_blanks: whether blanks at the start of a cell are left out, so that a quote after them opens it.
    """

    delimiter: str
    skip_blanks: bool = False


@dataclass(frozen=True)
class Layout:
    """How the records of one file are laid out.

    Attributes:
        delimiter: one character.
        width: fields of a record.
        positions: 0-based field of each of `DataSpec.columns`, in that order.
        header_line: 1-based number of the first physical line of the last record that is no row: the header or,
            without one, Excel's `sep=` line; 0 if there is neither.
        skip_blanks: see `Dialect`.
        header: names of all columns; none if there is no header.
        notes: what the user should know of how the file is read, one sentence each.
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
        """How records are cut into fields."""
        return Dialect(self.delimiter, self.skip_blanks)


class FirstRecord(NamedTuple):
    """One of the first records of a file in some dialect.

    Attributes:
        line: 1-based number of its first physical line.
        fields: its fields; none if it has a problem.
        problem: what is wrong with one of its cells, if something is.
    """

    line: int
    fields: list[str]
    problem: str = ""


ReadStart = Callable[[Dialect], Sequence[FirstRecord]]
"""Parses the first records, one at least, in a dialect."""


def choose_layout(uri: str, read_start: ReadStart, data: DataSpec, hint: Callable[[], str] = lambda: "") -> Layout:
    """The layout of a file.

    Args:
        uri: the file.
        read_start: gives its first records.
        data: how the user says that it is laid out.
        hint: what to do if no column fits, from other evidence than its records; empty if there is none.

    Raises:
        DataError: a column that is missing or stands twice, a position beyond the fields, an over-long cell.
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
            # So that no advice names a column with the blank before it.
            fields = start(Dialect(dialect.delimiter, skip_blanks=True))[0].fields
        todo = _delimiter_hint(start, data) or hint()
        raise (_missing_columns if data.header else _missing_position)(uri, dialect.delimiter, fields, todo, data)
    if data.skip_initial_space == "auto" and not dialect.skip_blanks and dialect.delimiter != " ":
        rows = [record.fields for record in start(dialect)[titles + data.header :]]
        dialect = dialect._replace(skip_blanks=_quotes_follow_blanks(rows))
    notes = tuple(_notes(uri, dialect, sep, sep_line, [record.line for record in start(dialect)[: titles + 1]]))
    if not data.header:
        positions = tuple(map(int, data.columns))
        return Layout(dialect.delimiter, len(fields), positions, sep_line, dialect.skip_blanks, (), notes, uri)
    for column in data.columns:
        if fields.count(column) > 1:
            places = " and ".join(str(i) for i, name in enumerate(fields) if name == column)
            raise DataError(
                f"{uri}: the header holds {column!r} {fields.count(column)} times, at positions {places} (from 0)",
                expected="each column that is used once",
                todo="rename the others in the file",
            )
    positions = tuple(fields.index(column) for column in data.columns)
    return Layout(dialect.delimiter, len(fields), positions, line, dialect.skip_blanks, tuple(fields), notes, uri)


def header_again(fields: Sequence[str], layout: Layout) -> bool:
    """Whether a record is the header once more: files that were joined, or written in parts, hold it again.

    Certain if all names are there, or at least those of two columns that are asked for. A mark of UTF-8 before the
    first, blanks, quotes and case do not matter.
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
    """Whether a record holds the names of the header in another order: the rows below it are laid out otherwise."""
    header = layout.header
    if len(set(header)) < 2 or len(fields) != len(header):
        return False
    found, names = [plain_name(field) for field in fields], [plain_name(name) for name in header]
    asked = {names[position] for position in layout.positions}
    moved = len(asked) > 1 and all(found.count(name) == 1 for name in asked)
    return found != names and (sorted(found) == sorted(names) or moved) and not header_again(fields, layout)


def plain_name(name: str) -> str:
    """A column's name without what a second copy of the header may have more or less of."""
    return name.strip('\ufeff "').casefold()


def is_total(fields: Sequence[str]) -> bool:
    """Whether a record looks like a total below a table: a word for it, and otherwise numbers and empty cells."""
    cells = [field.strip() for field in fields if field.strip()]
    return bool(cells and _TOTAL_WORDS.fullmatch(cells[0])) and all(map(_NUMBER.fullmatch, cells[1:]))


def layout_notes(layouts: Sequence[Layout]) -> list[str]:
    """What the user should know of how files are read; the first few of many."""
    notes = [note for layout in layouts for note in layout.notes]
    more = len(notes) - _SHOWN_NOTES
    return notes[:_SHOWN_NOTES] + ([f"{more:,} more notes like these"] if more > 0 else [])


def _sep_line(read_start: ReadStart) -> tuple[str, int]:
    """(delimiter, line) of Excel's `sep=;` at the beginning of a file; ("", 0) if there is none."""
    # The unit separator cuts nothing that a person would write.
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

    best = max(dialects, key=value)  # the first of equals: no blanks skipped, the comma
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
    """Whether blanks between a delimiter and a quote are layout, told by the first rows, read as if they were text."""
    later = [fields[1:] for fields in rows if len(fields) > 1]
    quoted = [[field.startswith(" ") and field.lstrip(" ").startswith('"') for field in fields] for fields in later]
    if not any(map(any, quoted)):
        return False
    if all(field.startswith(" ") or not field for fields in later for field in fields):
        return True
    # One column that is quoted in every row will do.
    return any(all(column) for column in zip(*quoted, strict=False)) and len(set(map(len, quoted))) == 1


def _notes(uri: str, dialect: Dialect, sep: str, sep_line: int, lines: Sequence[int]) -> Iterator[str]:
    """What was recognised; `lines` are those of title lines and of the header."""
    if sep_line:
        yield f"{uri}:{sep_line}: the line 'sep={sep}' is Excel's and no row"
    if len(lines) > 1:
        above = len(lines) - 1
        yield (
            f"{uri}:{lines[-1]}: taken for the header; {above} line{'s' if above > 1 else ''} above it "
            f"{'are' if above > 1 else 'is'} no row"
        )
    if dialect.skip_blanks:
        yield f"{uri}: blanks after a delimiter are skipped; --set data.skip_initial_space=false keeps them"


def _fits(fields: Sequence[str], data: DataSpec) -> bool:
    """Whether a first record has all that `data.columns` asks for."""
    if data.header:
        return set(data.columns) <= set(fields)
    return max(map(int, data.columns)) < len(fields)


def _delimiter_hint(start: ReadStart, data: DataSpec) -> str:
    """The --set under which the first record would fit; empty if there is none."""
    for delimiter in _DELIMITERS + _RARE_DELIMITERS:
        fields = start(Dialect(delimiter))[0].fields
        # A field that is a comma: 'text , label' is not delimited by blanks.
        if delimiter != data.delimiter and _fits(fields, data) and not set(_DELIMITERS) & set(fields):
            name = "tab" if delimiter == "\t" else delimiter
            return f"it fits under the delimiter {delimiter!r}: {set_option('data.delimiter', name)}"
    if data.skip_initial_space is False and data.delimiter != " ":
        for delimiter in _DELIMITERS if data.delimiter == "auto" else data.delimiter:
            if _fits(start(Dialect(delimiter, skip_blanks=True))[0].fields, data):
                return f"it fits if blanks after {delimiter!r} are skipped: --set data.skip_initial_space=true"
    return ""


def _missing_position(uri: str, delimiter: str, fields: Sequence[str], hint: str, data: DataSpec) -> DataError:
    beyond = [column for column in data.columns if int(column) >= len(fields)]
    return DataError(
        f"{uri}: no field at position {' or '.join(beyond)}; under the delimiter {delimiter!r} "
        f"the first record has {len(fields)}: {_listed(fields)}",
        expected=f"positions from 0 to {len(fields) - 1}",
        todo=hint or "correct data.text_columns, data.label_column or data.where",
    )


def _missing_columns(uri: str, delimiter: str, fields: Sequence[str], hint: str, data: DataSpec) -> DataError:
    missing = [column for column in data.columns if column not in fields]
    return DataError(
        f"{uri}: no column {' or '.join(map(repr, missing))}; under the delimiter {delimiter!r} "
        f"the header has {_listed(fields)}",
        todo=hint or _column_hints(missing, fields, data),
    )


def _column_hints(missing: Sequence[str], fields: Sequence[str], data: DataSpec) -> str:
    """The --set that names the closest column in place of each missing one."""
    names = {name.strip().lower(): name for name in reversed(fields)}
    unused = [name for name in dict.fromkeys(fields) if name not in data.columns]
    only = unused[0] if len(unused) == 1 == len(missing) else "NAME"

    def closest(column: str) -> str:
        close = difflib.get_close_matches(column.strip().lower(), names, n=1)
        return names[close[0]] if close else only

    hints = []
    if set(missing) & set(data.text_columns):
        texts = [closest(column) if column in missing else column for column in data.text_columns]
        hints.append(set_option("data.text_columns", texts if len(texts) > 1 else texts[0]))
    if data.label_column in missing:
        hints.append(set_option("data.label_column", closest(data.label_column)))
    for setting, named in (("data.where", data.where), ("data.where_not", data.where_not)):
        if set(missing) & set(named):
            there = {closest(column) if column in missing else column: values for column, values in named.items()}
            hints.append(set_option(setting, {column: values for column, values in there.items() if column != "NAME"}))
    return " ".join(hints)


def _listed(fields: Sequence[str]) -> str:
    shown = ", ".join(repr(field if len(field) <= 40 else field[:39] + "…") for field in fields[:20])
    return shown + (f" and {len(fields) - 20} more" if len(fields) > 20 else "")
