"""Records of a CSV shard with the very characters they are written in, and how to change single cells of one.

In: a `Shard`, and the `Layout` of its file. Out: `RawRecord`s, which together are all characters of the shard; a record
with other cells in which every other character stays as it is. Pure but for reading the file. Not here: which cells
change (masked_rows.py), where shards start (data/csv_shards.py).

`csv` parses the records, as everywhere. The characters of a cell are found by the same rules and checked against it: a
changed record is parsed again, and written anew by `csv` if it does not give the cells that it should.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TextIO, cast

from textcls import storage
from textcls.data.csv_layout import Layout
from textcls.data.csv_records import Fields, Shard, open_text, parse_records
from textcls.settings.data import DataSpec

_LINE_END = re.compile(r"(\r\n|\n|\r)\Z")
# Characters of a record beyond its cells: quotes, each doubled at worst, delimiters and the line end.
_CHARS_PER_CHAR = 2
_SLACK_CHARS = 2**16


class RawRecord(NamedTuple):
    """A record as it is written.

    Attributes:
        line: 1-based number of its first physical line.
        before: the empty lines before it, which are no records.
        raw: its characters, with the line end; those of a record that is too long may be missing.
        fields: its cells, as `csv` parses them; None for the empty lines at the end of a shard.
    """

    line: int
    before: str
    raw: str
    fields: Fields | None


class _Recorder:
    """Hands out lines and keeps those since the last `take`, up to a limit."""

    def __init__(self, text: TextIO, most_chars: int) -> None:
        self._text, self._most_chars = text, most_chars
        self._lines: list[str] = []
        self._chars = 0

    def readline(self, size: int) -> str:
        line = self._text.readline(size)
        self._chars += len(line)
        if self._chars <= self._most_chars:  # beyond it there is a quote that is never closed
            self._lines.append(line)
        return line

    def take(self) -> list[str]:
        lines, self._lines, self._chars = self._lines, [], 0
        return lines


def read_raw(shard: Shard, layout: Layout, data: DataSpec) -> Iterator[RawRecord]:
    """The records that start in a shard, in order, the header and the lines above it included.

    Raises:
        DataError: see `read_shard` of data/csv_records.py.
        StorageError: the file cannot be read.
    """
    most_chars = _CHARS_PER_CHAR * data.max_cell_chars * max(layout.width, 1) + _SLACK_CHARS
    with storage.explained(shard.uri), open_text(shard, data.encoding) as text:
        recorder = _Recorder(text, most_chars)
        following = shard.first_line
        for line, fields in parse_records(cast(TextIO, recorder), shard, layout.dialect, data):
            lines = recorder.take()
            empty = line - following
            yield RawRecord(line, "".join(lines[:empty]), "".join(lines[empty:]), fields)
            following = line + len(lines) - empty
        yield RawRecord(following, "".join(recorder.take()), "", None)


def with_cells(raw: str, fields: Sequence[str], cells: Mapping[int, str], layout: Layout, data: DataSpec) -> str:
    """The characters of a record in which some cells are others.

    A cell is quoted if it was, or if it needs to be; all else stays as it is written.

    Args:
        raw: of a `RawRecord`.
        fields: its cells.
        cells: position -> the new cell.
        layout: of the file.
        data: how it is read.
    """
    wanted = [cells.get(position, field) for position, field in enumerate(fields)]
    end = found[1] if (found := _LINE_END.search(raw)) else ""
    pieces = _pieces(raw.removesuffix(end), layout, data)
    if len(pieces) == len(fields) and data.escape == "none":
        quoted = data.quoting == "minimal"
        for position, cell in cells.items():
            blanks = len(pieces[position]) - len(pieces[position].lstrip(" ")) if layout.skip_blanks else 0
            piece = pieces[position]
            pieces[position] = piece[:blanks] + _written(cell, piece[blanks:], layout.delimiter, quoted=quoted)
        changed = layout.delimiter.join(pieces) + end
        if _parsed(changed, layout, data) == [wanted]:
            return changed
    return _anew(wanted, end or "\n", layout, data)


def _written(cell: str, before: str, delimiter: str, *, quoted: bool) -> str:
    """A cell as it stands in a file, in place of another one."""
    needs_quotes = before.startswith('"') or cell.startswith('"') or any(char in cell for char in (delimiter, *"\r\n"))
    if not (quoted and needs_quotes):
        return cell
    return '"' + cell.replace('"', '""') + '"'


def _pieces(record: str, layout: Layout, data: DataSpec) -> list[str]:
    """The characters of each cell of a record without its line end, by the rules of `csv`; escapes are not known."""
    pieces: list[str] = []
    start = 0
    while True:
        at = start
        while layout.skip_blanks and record[at : at + 1] == " ":
            at += 1
        if data.quoting == "minimal" and record[at : at + 1] == '"':
            at = _closing_quote(record, at + 1)
        end = record.find(layout.delimiter, at)
        if end < 0:
            return [*pieces, record[start:]]
        pieces.append(record[start:end])
        start = end + 1


def _closing_quote(record: str, at: int) -> int:
    """The place after the quote that closes a cell; the end of the record if there is none."""
    while (found := record.find('"', at)) >= 0:
        if record[found + 1 : found + 2] != '"':
            return found + 1
        at = found + 2
    return len(record)


def _anew(cells: Sequence[str], end: str, layout: Layout, data: DataSpec) -> str:
    """A record written by `csv`."""
    file = io.StringIO(newline="")
    minimal = data.quoting == "minimal"
    csv.writer(
        file,
        delimiter=layout.delimiter,
        quoting=csv.QUOTE_MINIMAL if minimal else csv.QUOTE_NONE,
        quotechar='"' if minimal else None,
        escapechar=None if data.escape == "none" else data.escape,
        lineterminator=end,
    ).writerow(cells)
    written = file.getvalue()
    assert _parsed(written, layout, data) == [list(cells)], "a record that csv wrote is read back as another one"
    return written


def _parsed(record: str, layout: Layout, data: DataSpec) -> list[list[str]]:
    """The records that `csv` reads in some characters."""
    shard = Shard(layout.uri, 0)
    found = parse_records(io.StringIO(record, newline=""), shard, layout.dialect, data)
    return [list(fields) for _, fields in found]
