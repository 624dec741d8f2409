"""The effect of a byte range on csv's parser, computed without the bytes before it.

In: a byte range of an uncompressed file in an encoding that extends ASCII. Out: a `Scan`. Not here: chaining the scans
of a file into shards (csv_shards.py).

csv reads physical lines (\\n, \\r or \\r\\n). At the start of a line its parser is in one of two states: OUTSIDE (a
record starts here) or INSIDE a quoted cell. So a range of whole lines is a function from state to state, and ranges
are scanned in parallel and chained. Within a line only runs of quotes matter, and of these only those of odd length:

    after a delimiter or a line end   a quote opens a cell outside, and closes it inside: the state toggles
    after anything else               a quote is plain text outside, and closes the cell inside: the state is OUTSIDE

An even run is an empty cell, or doubled quotes. (After the closing quote of a cell, csv treats the rest as plain text.)
With `skip_blanks`, blanks at the start of a cell are ignored.

Backslash escapes (`data.escape`) add a third state, inside an unquoted cell. Such files are one shard: csv reads them
sequentially, and `escaped_state_after` follows it through a record that it refused.
"""

import codecs
import re
from typing import BinaryIO, NamedTuple

import numpy as np

from textcls import storage
from textcls.errors import DataError

OUTSIDE, INSIDE, CONTINUED = 0, 1, 2
_QUOTE, _LF, _CR, _BLANK = b'"\n\r '
_LINE_END = re.compile(rb"[\r\n]")
_QUOTE_RUN = re.compile('"+')
# Fits the second-level cache: 2.5 GB/s; 8 MB pieces give 1 GB/s.
_PIECE_BYTES = 256 * 2**10


class RecordStart(NamedTuple):
    """Start of the first record of a range: its byte in the file, its 0-based line in the range."""

    byte: int
    line: int


class Scan(NamedTuple):
    """The effect of a byte range on the parser. Pairs are indexed by the state at the start of the range's first line.

    Attributes:
        lines: number of physical lines that start in the range.
        end_state: the state after the last of them.
        first_record: start of the first record; None if no record starts in the range.
    """

    lines: int
    end_state: tuple[int, int]
    first_record: tuple[RecordStart | None, RecordStart | None]


def scan_range(
    uri: str,
    delimiter: str,
    start: int,
    stop: int,
    quoted: bool = True,
    skip_blanks: bool = False,
    *,
    piece_bytes: int = _PIECE_BYTES,
) -> Scan:
    """The effect on the parser of the physical lines that start in bytes [start, stop).

    Memory is a few pieces, for lines and cells of any length.

    Args:
        uri: the file.
        delimiter: one character.
        start: first byte of the range.
        stop: byte after the range; the last line is read to its end beyond it.
        quoted: whether quotes are special.
        skip_blanks: whether blanks at the start of a cell are ignored, as by csv's `skipinitialspace`.
        piece_bytes: bytes read at a time.
    """
    with storage.open_input(uri) as file, storage.explained(uri):
        begin = _line_start(file, start, piece_bytes)
        if begin >= stop:
            return Scan(0, (OUTSIDE, INSIDE), (None, None))
        end = _line_start(file, stop, piece_bytes)
        scanner = _Scanner(delimiter, quoted, skip_blanks, end)
        file.seek(begin)
        if begin == 0 and file.read(3) != codecs.BOM_UTF8:
            file.seek(0)
        offset, held = file.tell(), b""
        while offset < end:
            new = file.read(min(piece_bytes, end - offset))
            if not new:
                raise DataError(
                    f"{uri} became shorter while it was read", todo="run again when no program writes to it"
                )
            piece_offset = offset - len(held)
            offset += len(new)
            held = scanner.add(held + new, piece_offset, is_last=offset == end)
    after_outside, after_inside = scanner.state
    return Scan(scanner.lines, (after_outside, after_inside), (RecordStart(begin, 0), scanner.first_if_inside))


def state_after(line: str, state: int, delimiter: str, skip_blanks: bool = False) -> int:
    """The state at the end of one decoded physical line, given the state at its start."""
    for run in _QUOTE_RUN.finditer(line):
        if len(run[0]) % 2:
            before = line[: run.start()].rstrip(" ") if skip_blanks else line[: run.start()]
            toggles = not before or before[-1] == delimiter
            state = 1 - state if toggles else OUTSIDE
    return state


def escaped_state_after(line: str, state: int, delimiter: str, quoted: bool, skip_blanks: bool) -> int:
    """`state_after` where a backslash escapes the character after it; may be CONTINUED, inside an unquoted cell."""
    cell_start, plain, in_quotes, quote_seen, line_end_escaped = range(5)
    inner = {OUTSIDE: cell_start, INSIDE: in_quotes, CONTINUED: plain}[state]
    chars = iter(line)
    for char in chars:
        if char == "\\" and inner != quote_seen:
            escaped = next(chars, "")
            if inner != in_quotes:
                inner = line_end_escaped if escaped in "\r\n" else plain
        elif inner == in_quotes:
            inner = quote_seen if char == '"' and quoted else in_quotes
        elif inner == quote_seen and char == '"':
            inner = in_quotes
        elif char == delimiter:
            inner = cell_start
        elif char in "\r\n":
            return OUTSIDE
        elif inner == cell_start and char == '"' and quoted:
            inner = in_quotes
        elif not (inner == cell_start and char == " " and skip_blanks):
            inner = plain
    return {in_quotes: INSIDE, line_end_escaped: CONTINUED}.get(inner, OUTSIDE)


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
    """Scans a range of whole lines piece by piece.

    Attributes:
        lines: lines so far.
        state: the current state, indexed by the state at the start of the range.
        first_if_inside: start of the first record, if the range begins INSIDE.
    """

    def __init__(self, delimiter: str, quoted: bool, skip_blanks: bool, end: int) -> None:
        self.lines = 0
        self.state = [OUTSIDE, INSIDE]
        self.first_if_inside: RecordStart | None = None
        self._quoted = quoted
        self._skip_blanks = skip_blanks
        self._end = end
        # The byte before the next piece, ignoring skipped blanks; a range begins as if after a line end.
        self._before = _LF
        self._starts_cell = np.zeros(256, bool)  # whether a cell starts after this byte
        self._starts_cell[[ord(delimiter), _LF, _CR]] = True

    def add(self, piece: bytes, offset: int, *, is_last: bool) -> bytes:
        """Scans a piece; returns the bytes to put before the next piece, because their meaning depends on it.

        A run of quotes at the end of the piece is reduced to its parity, so that no run is too long.
        """
        held = b""
        if not is_last and piece.endswith(b"\r"):
            piece, held = piece[:-1], b"\r"
        elif not is_last and piece.endswith(b'"'):
            length, piece = len(piece), piece.rstrip(b'"')
            held = b'"' * ((length - len(piece)) % 2)
        if not piece:
            return held
        chars = np.frombuffer(piece, np.uint8)
        if self._quoted:
            runs = _odd_runs(chars)
            toggles = self._starts_cell[self._bytes_before(chars, runs)]
            if self.first_if_inside is None:
                self._look_for_record(chars, offset, runs, toggles)
            self._advance(toggles)
        self.lines += _count_line_ends(chars)
        if is_last and piece[-1] not in b"\r\n":
            self.lines += 1
        if kept := piece.rstrip(b" ") if self._skip_blanks else piece:
            self._before = kept[-1]
        return held

    def _bytes_before(self, chars: np.ndarray, runs: np.ndarray) -> np.ndarray:
        """uint8: the byte before each run of quotes, ignoring skipped blanks."""
        if self._skip_blanks:
            others = np.flatnonzero(chars != _BLANK)
            at = np.searchsorted(others, runs) - 1
            skipped: np.ndarray = np.where(at < 0, np.uint8(self._before), chars[others[at]])
            return skipped
        before: np.ndarray = chars[runs - 1]
        if runs.size and runs[0] == 0:
            before[0] = self._before
        return before

    def _advance(self, toggles: np.ndarray) -> None:
        resets = np.flatnonzero(~toggles)
        if resets.size:
            self.state = [(len(toggles) - 1 - int(resets[-1])) % 2] * 2
        elif len(toggles) % 2:
            self.state = [1 - state for state in self.state]

    def _look_for_record(self, chars: np.ndarray, offset: int, runs: np.ndarray, toggles: np.ndarray) -> None:
        """Sets `first_if_inside` if a line of the range starts OUTSIDE in this piece."""
        number = np.arange(len(runs))
        last_reset = np.maximum.accumulate(np.where(toggles, -1, number))
        after_run = np.where(last_reset < 0, self.state[INSIDE] + number + 1, number - last_reset) % 2
        line_ends = np.flatnonzero(_is_line_end(chars))
        at_line_end = np.append(self.state[INSIDE], after_run)[np.searchsorted(runs, line_ends)]
        outside = np.flatnonzero(at_line_end == OUTSIDE)
        if outside.size and (byte := offset + int(line_ends[outside[0]]) + 1) < self._end:
            self.first_if_inside = RecordStart(byte, self.lines + int(outside[0]) + 1)


def _odd_runs(chars: np.ndarray) -> np.ndarray:
    """int64: start of each run of quotes of odd length."""
    quotes = np.flatnonzero(chars == _QUOTE)
    first_of_run = np.flatnonzero(np.diff(quotes, prepend=-2) != 1)
    is_odd = np.diff(first_of_run, append=len(quotes)) % 2 == 1
    starts: np.ndarray = quotes[first_of_run[is_odd]]
    return starts


def _is_line_end(chars: np.ndarray) -> np.ndarray:
    """bool: each \\n, and each \\r that is not followed by \\n."""
    line_ends: np.ndarray = chars == _LF
    returns = chars == _CR
    returns[:-1] &= ~line_ends[1:]
    line_ends |= returns
    return line_ends


def _count_line_ends(chars: np.ndarray) -> int:
    """The sum of `_is_line_end`, computed faster."""
    newlines, returns = chars == _LF, chars == _CR
    lines = np.count_nonzero(newlines)
    if single := np.count_nonzero(returns):
        lines += single - np.count_nonzero(returns[:-1] & newlines[1:])
    return int(lines)
