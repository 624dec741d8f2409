"""One big CSV -> exact byte ranges that parse in parallel; each gives the rows that one sequential read gives.

In: files and a `DataSpec`. Out: a `Layout` per file (delimiter, columns), `Shard`s, and the raw rows of a shard with
their line numbers, as Python's `csv` module has them. Not here: what makes a row a reject (rows.py), Ray (pipeline.py).

How a range can be scanned without knowing what came before it. csv reads physical lines (\\n, \\r or \\r\\n). Where a
line starts, its parser is in one of two states: OUTSIDE (a record starts here) or INSIDE a quoted cell. So a range of
whole lines is a function from state to state, and ranges are scanned in parallel and chained. Within a line only runs
of quotes matter, and of these only the odd ones:

    after a delimiter or a line end   a quote opens a cell outside, and closes it inside: the state toggles
    after anything else               a quote is plain text outside, and closes the cell inside: the state is OUTSIDE

An even run closes what it opened, or is a doubled quote. (After a cell's closing quote csv takes text as it comes.)
"""

import codecs
import csv
import difflib
import io
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import yaml

from textcls import storage
from textcls.errors import DataError
from textcls.recipe import DataSpec
from textcls.storage import InputFile

OUTSIDE, INSIDE = 0, 1
_QUOTE, _LF, _CR = b'"\n\r'
_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
_DELIMITERS = ",;\t|"
# Fits the second-level cache: 2.5 GB/s; 8 MB pieces give 1 GB/s.
_PIECE_BYTES = 256 * 2**10
# A line may be a few times longer than its longest cell; the floor keeps small cell limits from refusing whole files.
_LEAST_LINE_CHARS = 2**20
_HEAD_BYTES = 4096
_RARE_DELIMITERS = ":^~ \x01\x1f"
_MAGIC = {
    b"PK\x03\x04": "a zip or Excel file",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file whose name does not end in .gz",
    b"\xfd7zXZ": "an xz file",
}
_LINE_END = re.compile(rb"[\r\n]")
_QUOTE_RUN = re.compile('"+')


@dataclass(frozen=True)
class Layout:
    """How the records of one file are laid out.

    Attributes:
        delimiter: one character.
        width: fields of a record.
        positions: 0-based field of each of `DataSpec.columns`, in that order.
    """

    delimiter: str
    width: int
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Shard:
    """A part of one file that starts with a record.

    Attributes:
        uri: the file.
        file_index: its place among the files of the run.
        start_byte: where the first record starts; 0 is the file's beginning.
        first_line: 1-based number of the physical line there.
        line_count: physical lines of the shard's records; None: up to the end of the file.
    """

    uri: str
    file_index: int
    start_byte: int = 0
    first_line: int = 1
    line_count: int | None = None


class RecordStart(NamedTuple):
    """Where the first record of a range starts: its byte in the file, its 0-based line in the range."""

    byte: int
    line: int


class Scan(NamedTuple):
    """What a byte range does to the parser. Pairs are indexed by the state in which the range's first line starts.

    Attributes:
        lines: physical lines that start in the range.
        end_state: the state after the last of them.
        first_record: where the first record starts; None if none does.
    """

    lines: int
    end_state: tuple[int, int]
    first_record: tuple[RecordStart | None, RecordStart | None]


class CellTooLong(NamedTuple):
    """Stands in for the fields of a record of which one is longer than `data.max_cell_chars`."""

    value: str


Fields = list[str] | CellTooLong


# --- planning -------------------------------------------------------------------------------------------------------


def run_here(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Results of a function called with each tuple of arguments, in order, one after the other in this process."""
    return list(starmap(function, jobs))


def plan_shards(
    files: Sequence[InputFile],
    data: DataSpec,
    *,
    run: Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], list[Any]] = run_here,
) -> tuple[list[Layout], list[Shard]]:
    """(layout of each file, shards of all files in row order).

    Args:
        files: what to read.
        data: how to read it.
        run: how the ranges of large files are scanned; a Ray pipeline passes one that spreads the calls over tasks.

    Raises:
        DataError: a file without the columns asked for, or that is no CSV.
    """
    layouts = [read_layout(file, data) for file in files]
    jobs: list[tuple[Any, ...]] = []
    ranges_of_file = []
    for file, layout in zip(files, layouts, strict=True):
        ranges = -(-file.size_bytes // data.shard_bytes) if _can_be_sharded(file.uri, data.encoding) else 1
        cuts = [file.size_bytes * i // ranges for i in range(ranges + 1)]
        ranges_of_file.append(ranges)
        if ranges > 1:
            jobs += [(file.uri, layout, data, start, stop) for start, stop in zip(cuts, cuts[1:], strict=False)]
    scans = iter(run(scan_range, jobs))
    shards = []
    for index, (file, ranges) in enumerate(zip(files, ranges_of_file, strict=True)):
        if ranges > 1:
            shards += chain(file.uri, index, [next(scans) for _ in range(ranges)])
        else:
            shards.append(Shard(file.uri, index))
    return layouts, shards


def chain(uri: str, file_index: int, scans: Sequence[Scan]) -> list[Shard]:
    """Shards of one file, in order, from the scans of its ranges; a range in which no record starts gives none."""
    state, line = OUTSIDE, 1
    starts = []
    for scan in scans:
        if record := scan.first_record[state]:
            starts.append((record.byte, line + record.line))
        state = scan.end_state[state]
        line += scan.lines
    ends = [first_line for _, first_line in starts[1:]]
    counts = [end - first for (_, first), end in zip(starts, ends, strict=False)]
    return [
        Shard(uri, file_index, byte, first_line, count)
        for (byte, first_line), count in zip(starts, [*counts, None], strict=True)
    ]


def _can_be_sharded(uri: str, encoding: str) -> bool:
    """Whether bytes of a file can be told apart as quotes, delimiters and line ends without decoding from its start."""
    return not uri.lower().endswith(_COMPRESSED) and _holds_ascii(encoding)


def _holds_ascii(encoding: str) -> bool:
    """Whether a byte below 128 always stands for its ASCII character: UTF-8, and single-byte supersets of ASCII."""
    if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii"):
        return True
    # Each byte alone, then in company: multi-byte codecs join bytes, and escape codecs wait for what follows.
    try:
        alone = "".join(bytes([byte]).decode(encoding, "surrogateescape") for byte in range(256))
        together = (bytes(range(256)) + rb"\u0041").decode(encoding, "surrogateescape")
    except UnicodeError:
        return False
    ascii_part, rest = alone[:128], alone[128:]
    return (
        together == alone + r"\u0041"
        and ascii_part == bytes(range(128)).decode("ascii")
        and not any(char.isascii() for char in rest)
    )


# --- pass 1: scanning -----------------------------------------------------------------------------------------------


def scan_range(
    uri: str, layout: Layout, data: DataSpec, start: int, stop: int, piece_bytes: int = _PIECE_BYTES
) -> Scan:
    """What the physical lines that start in bytes [start, stop) do to the parser.

    Memory is a few pieces, however long lines and cells are.

    Args:
        uri: an uncompressed file in an encoding that holds ASCII.
        layout: gives the delimiter.
        data: gives the quoting.
        start: first byte of the range.
        stop: byte after the range; the last line is read to its end beyond it.
        piece_bytes: how much is read at a time.
    """
    with storage.open_input(uri) as file, storage.explained(uri):
        begin = _line_start(file, start, piece_bytes)
        if begin >= stop:
            return Scan(0, (OUTSIDE, INSIDE), (None, None))
        end = _line_start(file, stop, piece_bytes)
        scanner = _Scanner(layout.delimiter, begin, end)
        file.seek(begin)
        if begin == 0 and file.read(3) != codecs.BOM_UTF8:
            file.seek(0)
        offset, held = file.tell(), b""
        while offset < end:
            new = file.read(min(piece_bytes, end - offset))
            if not new:
                raise DataError(f"{uri} became shorter while it was read", todo="run again when nothing writes there")
            piece, piece_offset = held + new, offset - len(held)
            offset += len(new)
            held = scanner.add(piece, piece_offset, is_last=offset == end)
    if data.quoting == "none":
        return Scan(scanner.lines, (OUTSIDE, OUTSIDE), (RecordStart(begin, 0),) * 2)
    return Scan(scanner.lines, (scanner.state[0], scanner.state[1]), (RecordStart(begin, 0), scanner.first_if_inside))


def _line_start(file: BinaryIO, at: int, piece_bytes: int) -> int:
    """The first start of a line at or after a byte; the file's size if there is none."""
    if at == 0:
        return 0
    offset = file.seek(at - 1)
    while piece := file.read(piece_bytes):
        if found := _LINE_END.search(piece):
            follows = piece[found.end() : found.end() + 1] or file.read(1)
            return offset + found.end() + (found[0] == b"\r" and follows == b"\n")
        offset += len(piece)
    return offset


class _Scanner:
    """Folds the pieces of a range of whole lines.

    Attributes:
        lines: lines so far.
        state: the state now, by the state at the beginning.
        first_if_inside: first record start, if the range begins INSIDE.
    """

    def __init__(self, delimiter: str, begin: int, end: int) -> None:
        self.lines = 0
        self.state = [OUTSIDE, INSIDE]
        self.first_if_inside: RecordStart | None = None
        self._end = end
        self._before = _LF  # the byte before the next piece; a range begins as if after a line end
        self._ends_cell = np.zeros(256, bool)
        self._ends_cell[[ord(delimiter), _LF, _CR]] = True

    def add(self, piece: bytes, offset: int, *, is_last: bool) -> bytes:
        """The bytes that must go in front of the next piece, which decides what they mean.

        Of a run of quotes at the end of the piece only its parity is kept.
        """
        held = b""
        if not is_last and piece.endswith(b"\r"):
            piece, held = piece[:-1], b"\r"
        elif not is_last and piece.endswith(b'"'):
            whole, piece = len(piece), piece.rstrip(b'"')
            held = b'"' * ((whole - len(piece)) % 2)
        if piece:
            chars = np.frombuffer(piece, np.uint8)
            quotes = self._odd_runs(chars)
            toggles = self._ends_cell[chars[quotes - 1]]
            if quotes.size and quotes[0] == 0:
                toggles[0] = self._ends_cell[self._before]
            if self.first_if_inside is None:
                self._look_for_record(chars, offset, quotes, toggles)
            self._advance(toggles)
            self.lines += _count_line_ends(chars)
            if is_last and piece[-1] not in b"\r\n":
                self.lines += 1
            self._before = piece[-1]
        return held

    @staticmethod
    def _odd_runs(chars: np.ndarray) -> np.ndarray:
        """int64: where the runs of quotes of odd length start."""
        quotes = np.flatnonzero(chars == _QUOTE)
        first_of_run = np.flatnonzero(np.diff(quotes, prepend=-2) != 1)
        is_odd = np.diff(first_of_run, append=len(quotes)) % 2 == 1
        return quotes[first_of_run[is_odd]]

    def _advance(self, toggles: np.ndarray) -> None:
        resets = np.flatnonzero(~toggles)
        if resets.size:
            self.state = [(len(toggles) - 1 - int(resets[-1])) % 2] * 2
        elif len(toggles) % 2:
            self.state.reverse()

    def _look_for_record(self, chars: np.ndarray, offset: int, quotes: np.ndarray, toggles: np.ndarray) -> None:
        """Sets `first_if_inside` if one of this piece's line ends is OUTSIDE."""
        run = np.arange(len(quotes))
        last_reset = np.maximum.accumulate(np.where(toggles, -1, run))
        after = np.where(last_reset < 0, self.state[INSIDE] + run + 1, run - last_reset) % 2
        line_ends = np.flatnonzero(_is_line_end(chars))
        states = np.append(self.state[INSIDE], after)[np.searchsorted(quotes, line_ends)]
        outside = np.flatnonzero(states == OUTSIDE)
        if outside.size and (byte := offset + int(line_ends[outside[0]]) + 1) < self._end:
            self.first_if_inside = RecordStart(byte, self.lines + int(outside[0]) + 1)


def _is_line_end(chars: np.ndarray) -> np.ndarray:
    """bool: each \\n, and each \\r that no \\n follows."""
    found: np.ndarray = chars == _LF
    returns = chars == _CR
    returns[:-1] &= ~found[1:]
    return found | returns


def _count_line_ends(chars: np.ndarray) -> int:
    """As `_is_line_end` sums up to; five times as fast where there is no \\r."""
    returns = chars == _CR
    if returns.any():
        return int(np.count_nonzero(_is_line_end(chars)))
    return int(np.count_nonzero(chars == _LF))


# --- pass 2: reading ------------------------------------------------------------------------------------------------


def read_shard(shard: Shard, layout: Layout, data: DataSpec) -> Iterator[tuple[int, Fields]]:
    """(number of the record's first physical line, its fields) of each row that starts in a shard, in order.

    Empty lines are no rows, nor is the header. Bytes that cannot be decoded are lone surrogates
    (`errors="surrogateescape"`). Holds one record at a time.

    Raises:
        DataError: a line without an end, or bytes that even surrogates cannot stand for.
        StorageError: the file cannot be read.
    """
    rows = _records(shard, layout.delimiter, data)
    if data.header and shard.start_byte == 0:
        next(rows, None)
    return rows


def _records(shard: Shard, delimiter: str, data: DataSpec) -> Iterator[tuple[int, Fields]]:
    with storage.explained(shard.uri), _open_text(shard, data.encoding) as text:
        lines = _Lines(text, shard, data)
        source = iter(lines)
        quoting = csv.QUOTE_MINIMAL if data.quoting == "minimal" else csv.QUOTE_NONE
        reader = csv.reader(source, delimiter=delimiter, quoting=quoting)
        line = shard.first_line
        stop = sys.maxsize if shard.line_count is None else line + shard.line_count
        fields: Fields | None
        while line < stop:
            # The limit belongs to the process: whoever handles the row must find it as it was.
            previous = csv.field_size_limit(data.max_cell_chars)
            try:
                fields = next(reader, None)
            except csv.Error as error:
                if "field limit" not in str(error):
                    raise  # none is known in csv's non-strict mode
                fields = _skip_record(source, lines, line, delimiter, data)
            finally:
                csv.field_size_limit(previous)
            if fields is None:
                return
            if fields:
                yield line, fields
            line = lines.number + 1


def _skip_record(source: Iterator[str], lines: "_Lines", line: int, delimiter: str, data: DataSpec) -> CellTooLong:
    """Reads on to the end of the record that csv gave up on within the line last handed out.

    Args:
        source: the lines that csv reads.
        lines: where they come from.
        line: the record's first line.
        delimiter: one character.
        data: how to read.
    """
    value = f"more than {data.max_cell_chars:,} characters"
    state = OUTSIDE if lines.number == line else INSIDE
    if data.quoting == "minimal":
        state = _state_after(lines.last, state, delimiter)
        while state == INSIDE:
            if (text := next(source, None)) is None:
                return CellTooLong(f"{value}; the quote opened here is never closed")
            state = _state_after(text, state, delimiter)
    return CellTooLong(value)


def _state_after(line: str, state: int, delimiter: str) -> int:
    """The parser's state at the end of a physical line, by the rule in the module's docstring."""
    for run in _QUOTE_RUN.finditer(line):
        if len(run[0]) % 2:
            toggles = run.start() == 0 or line[run.start() - 1] == delimiter
            state = 1 - state if toggles else OUTSIDE
    return state


class _Lines:
    """The physical lines from a shard's beginning to the end of the file.

    Attributes:
        number: number of the line last handed out.
        last: that line.
    """

    def __init__(self, text: io.TextIOWrapper, shard: Shard, data: DataSpec) -> None:
        self.number = shard.first_line - 1
        self.last = ""
        self._text, self._uri, self._data = text, shard.uri, data

    def __iter__(self) -> Iterator[str]:
        longest = max(4 * self._data.max_cell_chars, _LEAST_LINE_CHARS)
        try:
            for self.number, self.last in enumerate(iter(partial(self._text.readline, longest), ""), self.number + 1):
                if len(self.last) >= longest:
                    raise DataError(
                        f"{self._uri}:{self.number}: no line end within {longest:,} characters",
                        expected="a CSV; is this one?",
                        todo="if it is, raise data.max_cell_chars",
                    )
                yield self.last
        except UnicodeError as error:
            raise DataError(
                f"{self._uri}, after line {self.number}: not {self._data.encoding}: {error}",
                todo="set data.encoding to the one it was written in",
            ) from error


def _open_text(shard: Shard, encoding: str) -> io.TextIOWrapper:
    """The text from a shard's first byte on, with line ends as they are, without a byte order mark."""
    file = _open_bytes(shard.uri)
    if shard.start_byte:
        file.seek(shard.start_byte)
    elif file.peek(3).startswith(codecs.BOM_UTF8):
        file.read(3)
    if codecs.lookup(encoding).name == "utf-8-sig":
        encoding = "utf-8"  # else a second mark would be skipped, or one at the start of a later shard
    return io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")


def _open_bytes(uri: str) -> io.BufferedReader:
    """A file to read from its beginning; decompressed, and then not seekable, if its name says so."""
    if not uri.lower().endswith(_COMPRESSED):
        return cast(io.BufferedReader, storage.open_input(uri))
    store, path = storage.filesystem(uri)
    with storage.explained(uri):
        return io.BufferedReader(store.open_input_stream(path, compression="detect"))


# --- the layout -----------------------------------------------------------------------------------------------------


def read_layout(file: InputFile, data: DataSpec) -> Layout:
    """How the records of a file are laid out, from its first record.

    Raises:
        DataError: not text in this encoding, no record, a column that is missing or stands twice, or a position
            beyond the fields.
    """
    _refuse_other_formats(file.uri, data)
    candidates = _DELIMITERS if data.delimiter == "auto" else data.delimiter
    records = {delimiter: _first_record(file.uri, delimiter, data) for delimiter in candidates}
    # A stable sort: of equals, the comma.
    best = sorted(records, key=lambda d: (_fits(records[d], data), len(records[d])), reverse=True)[0]
    fields = records[best]
    if not data.header:
        return _layout_by_position(file.uri, best, fields, data)
    if missing := [column for column in data.columns if column not in fields]:
        raise _missing_columns(file.uri, best, fields, missing, data)
    for column in data.columns:
        if fields.count(column) > 1:
            places = " and ".join(str(i) for i, name in enumerate(fields, 1) if name == column)
            raise DataError(
                f"{file.uri}: the header names the column {column!r} twice, as fields {places}",
                todo="rename one of them in the file, or --set data.header=false and name columns by 0-based position",
            )
    return Layout(best, len(fields), tuple(fields.index(column) for column in data.columns))


def _first_record(uri: str, delimiter: str, data: DataSpec) -> list[str]:
    line, fields = next(_records(Shard(uri, 0), delimiter, data), (0, []))
    if isinstance(fields, CellTooLong):
        raise DataError(
            f"{uri}:{line}: the first record holds a cell of {fields.value}",
            todo="check the quotes on that line; --set data.quoting=none if quotes mean nothing in this file",
        )
    if not fields:
        raise DataError(f"{uri}: no record, only empty lines", expected="a CSV with at least one row")
    return fields


def _fits(fields: Sequence[str], data: DataSpec) -> bool:
    """Whether a first record has what the columns asked for need."""
    if data.header:
        return set(data.columns) <= set(fields)
    return max(map(int, data.columns)) < len(fields)


def _layout_by_position(uri: str, delimiter: str, fields: Sequence[str], data: DataSpec) -> Layout:
    positions = tuple(map(int, data.columns))
    if max(positions) >= len(fields):
        shown = ", ".join(_shown(field) for field in fields[:5])
        raise DataError(
            f"{uri}: no field at position {max(positions)}: its first record has {len(fields)} "
            f"(0 to {len(fields) - 1}) with the delimiter {delimiter!r}: {shown}",
            todo=_delimiter_hint(uri, data) or "count positions from 0 in data.text_columns and data.label_column",
        )
    return Layout(delimiter, len(fields), positions)


def _missing_columns(
    uri: str, delimiter: str, fields: Sequence[str], missing: Sequence[str], data: DataSpec
) -> DataError:
    todo = _delimiter_hint(uri, data) or " ".join(_column_hint(column, fields, data) for column in missing)
    shown = ", ".join(map(_shown, fields[:20])) + (f" and {len(fields) - 20} more" if len(fields) > 20 else "")
    return DataError(
        f"{uri}: no column {' or '.join(map(repr, missing))}; with the delimiter {delimiter!r} the header has {shown}",
        todo=todo,
    )


def _delimiter_hint(uri: str, data: DataSpec) -> str:
    """The --set under which the first record would do, if there is one."""
    for delimiter in _DELIMITERS + _RARE_DELIMITERS:
        if delimiter != data.delimiter and _fits(_first_record(uri, delimiter, data), data):
            return f"the delimiter is {delimiter!r}: " + _set("data.delimiter", {"\t": "tab"}.get(delimiter, delimiter))
    return ""


def _column_hint(column: str, fields: Sequence[str], data: DataSpec) -> str:
    """The --set that names the closest column in place of a missing one."""
    lowered = {name.strip().lower(): name for name in reversed(fields)}
    close = difflib.get_close_matches(column.strip().lower(), lowered, n=1)
    name = lowered[close[0]] if close else "NAME"
    if column == data.label_column:
        return _set("data.label_column", name)
    if column in data.text_columns:
        names = [name if text_column == column else text_column for text_column in data.text_columns]
        return _set("data.text_columns", names if len(names) > 1 else name)
    return f"correct {column!r} in data.where" + (f" to {name!r}" if close else "")


def _set(key: str, value: str | list[str]) -> str:
    """A --set that a shell and YAML both take for this value."""
    plain = isinstance(value, str) and re.fullmatch(r"[\w.-]+", value) and yaml.safe_load(value) == value
    alone = isinstance(value, str) and len(value) == 1  # the recipe takes a lone sign as it stands
    text = value if plain or alone else json.dumps(value, ensure_ascii=False)
    return f"--set {shlex.quote(f'{key}={text}')}"


def _shown(name: str) -> str:
    return repr(name if len(name) <= 40 else name[:39] + "…")


def _refuse_other_formats(uri: str, data: DataSpec) -> None:
    """Stops at a file whose first bytes are not text in an encoding that holds ASCII."""
    with storage.explained(uri), _open_bytes(uri) as file:
        head = file.peek(_HEAD_BYTES)[:_HEAD_BYTES]
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{uri} is {kind}", expected="a CSV, plain or as .gz, .bz2, .zst or .lz4")
    if not _holds_ascii(data.encoding):
        return
    nulls = np.flatnonzero(np.frombuffer(head, np.uint8) == 0)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        found, encoding = "begins with the byte order mark of UTF-16", "utf-16"
    elif len(nulls) > len(head) / 10:
        found = f"holds {len(nulls)} NUL bytes among its first {len(head)}, as UTF-16 does"
        encoding = "utf-16-le" if np.count_nonzero(nulls % 2) > len(nulls) / 2 else "utf-16-be"
    else:
        return
    raise DataError(f"{uri} {found}", expected=data.encoding, todo=f"--set data.encoding={encoding}")
