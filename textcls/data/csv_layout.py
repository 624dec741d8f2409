"""Which delimiter and which fields hold the columns asked for, found in a file's first record. Pure.

In: the first record, parsed under any delimiter one likes to try. Out: a `Layout`, or an error that names the setting
to change. Not here: reading (csv_shards.py).
"""

import codecs
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from textcls.errors import DataError
from textcls.recipe import DataSpec
from textcls.yaml_text import set_option

_DELIMITERS = ",;\t|"
# Never chosen, only named when nothing else fits.
_RARE_DELIMITERS = ":^~ \x01\x1f"
_FORMATS = {
    b"PK\x03\x04": "a zip or Excel file",
    b"PAR1": "a Parquet file",
    b"\xfd7zXZ": "an xz file",
    b"\x1f\x8b": "a gzip file whose name does not end in .gz",
}


@dataclass(frozen=True)
class Layout:
    """How the records of one file are laid out.

    Attributes:
        delimiter: one character.
        width: fields of a record.
        positions: 0-based field of each of `DataSpec.columns`, in that order.
        header_line: 1-based number of the header's first physical line; 0 if there is no header.
    """

    delimiter: str
    width: int
    positions: tuple[int, ...]
    header_line: int


class FirstRecord(NamedTuple):
    """The first record of a file under some delimiter.

    Attributes:
        line: 1-based number of its first physical line.
        fields: its fields; none if it has a problem.
        problem: what is wrong with one of its cells, if something is.
    """

    line: int
    fields: list[str]
    problem: str = ""


ReadFirst = Callable[[str], FirstRecord]
"""Parses the first record under a delimiter."""


def choose_layout(uri: str, read_first: ReadFirst, data: DataSpec) -> Layout:
    """The layout of a file.

    Raises:
        DataError: a column that is missing or stands twice, a position beyond the fields, an over-long cell.
    """
    delimiters = _DELIMITERS if data.delimiter == "auto" else data.delimiter
    # max() takes the first of equals: the comma.
    delimiter = max(delimiters, key=lambda d: (_fits(read_first(d).fields, data), len(read_first(d).fields)))
    line, fields, problem = read_first(delimiter)
    if problem:
        raise DataError(
            f"{uri}:{line}: the first record holds a cell of {problem}",
            todo="check the quotes in that line; --set data.quoting=none if quotes mean nothing in this file",
        )
    if not _fits(fields, data):
        hint = _delimiter_hint(read_first, data)
        raise (_missing_columns if data.header else _missing_position)(uri, delimiter, fields, hint, data)
    if not data.header:
        return Layout(delimiter, len(fields), tuple(map(int, data.columns)), 0)
    for column in data.columns:
        if fields.count(column) > 1:
            places = " and ".join(str(i) for i, name in enumerate(fields) if name == column)
            raise DataError(
                f"{uri}: the header holds {column!r} {fields.count(column)} times, at positions {places} (from 0)",
                expected="each column that is used once",
                todo="rename the others in the file",
            )
    return Layout(delimiter, len(fields), tuple(fields.index(column) for column in data.columns), line)


def refuse_other_formats(uri: str, head: bytes, data: DataSpec) -> None:
    """Stops at a file that cannot be a CSV in an encoding that holds ASCII.

    Args:
        uri: the file.
        head: its first few thousand bytes.
        data: gives the encoding that was asked for.

    Raises:
        DataError: names the format, or the encoding that it is likely to be in.
    """
    for magic, kind in _FORMATS.items():
        if head.startswith(magic):
            raise DataError(f"{uri} is {kind}", expected="a CSV, plain or compressed as .gz, .bz2, .zst or .lz4")
    nulls = head.count(0)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        found, encoding = "begins with the byte order mark of UTF-16", "utf-16"
    elif nulls > len(head) / 4:
        found = f"holds {nulls:,} NUL bytes among its first {len(head):,}, as UTF-16 does"
        encoding = "utf-16-le" if head[1::2].count(0) > nulls / 2 else "utf-16-be"
    else:
        return
    raise DataError(f"{uri} {found}", expected=data.encoding, todo=f"--set data.encoding={encoding}")


def _fits(fields: Sequence[str], data: DataSpec) -> bool:
    """Whether a first record has all that `data.columns` asks for."""
    if data.header:
        return set(data.columns) <= set(fields)
    return max(map(int, data.columns)) < len(fields)


def _delimiter_hint(read_first: ReadFirst, data: DataSpec) -> str:
    """The --set under which the first record would fit; empty if there is none."""
    for delimiter in _DELIMITERS + _RARE_DELIMITERS:
        if delimiter != data.delimiter and _fits(read_first(delimiter).fields, data):
            name = "tab" if delimiter == "\t" else delimiter
            return f"it fits under the delimiter {delimiter!r}: {set_option('data.delimiter', name)}"
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

    def closest(column: str) -> str:
        close = difflib.get_close_matches(column.strip().lower(), names, n=1)
        return names[close[0]] if close else "NAME"

    hints = []
    if set(missing) & set(data.text_columns):
        texts = [closest(column) if column in missing else column for column in data.text_columns]
        hints.append(set_option("data.text_columns", texts if len(texts) > 1 else texts[0]))
    if data.label_column in missing:
        hints.append(set_option("data.label_column", closest(data.label_column)))
    hints += [f"correct {column!r} in data.where" for column in data.where if column in missing]
    return " ".join(hints)


def _listed(fields: Sequence[str]) -> str:
    shown = ", ".join(repr(field if len(field) <= 40 else field[:39] + "…") for field in fields[:20])
    return shown + (f" and {len(fields) - 20} more" if len(fields) > 20 else "")
