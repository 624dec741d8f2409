"""Reads the records of a shard as Python's `csv` module does, one at a time.

In: a `Shard` and the `Layout` of its file. Out: line numbers and fields. Not here: where shards start (csv_shards.py),
which rows are rejects (rows.py).
"""

import codecs
import csv
import functools
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile
from typing import NamedTuple, TextIO

from textcls import storage
from textcls.data import encodings
from textcls.data.csv_layout import Dialect, Layout
from textcls.data.csv_scan import INSIDE, OUTSIDE, escaped_state_after, state_after
from textcls.data.file_formats import open_bytes
from textcls.errors import DataError
from textcls.settings.data import DataSpec
from textcls.settings.yaml_text import set_option

# A line may be longer than its longest cell; with the floor, a small cell limit does not refuse whole files.
_LINE_CELLS = 4
_LEAST_LINE_CHARS = 2**20


@dataclass(frozen=True)
class Shard:
    """A byte range of one file that starts with a record.

    Attributes:
        uri: the file.
        file_index: its index among the files of the run.
        start_byte: start of the first record; 0 is the start of the file, with header and byte order mark.
        first_line: 1-based number of the physical line at `start_byte`.
        line_count: number of physical lines of the shard's records; None: up to the end of the file.
    """

    uri: str
    file_index: int
    start_byte: int = 0
    first_line: int = 1
    line_count: int | None = None


class CellTooLong(NamedTuple):
    """Replaces the fields of a record with a cell longer than `data.max_cell_chars`."""

    value: str


Fields = list[str] | CellTooLong


def read_shard(shard: Shard, layout: Layout, data: DataSpec) -> Iterator[tuple[int, Fields]]:
    """(number of the first physical line, fields) of each record that starts in a shard, in order.

    Empty lines are skipped, and so are the header and the lines above it. Bytes that cannot be decoded become lone
    surrogates (`errors="surrogateescape"`). One record is in memory at a time.

    Raises:
        DataError: a line is too long, the content is not in `data.encoding` at all, or compressed data are damaged.
        StorageError: the file cannot be read.
    """
    records = read_records(shard, layout.dialect, data)
    if shard.first_line <= layout.header_line:
        return dropwhile(lambda record: record[0] <= layout.header_line, records)
    return records


def read_records(shard: Shard, dialect: Dialect, data: DataSpec) -> Iterator[tuple[int, Fields]]:
    """`read_shard` in any dialect, with the header and the lines above it."""
    with storage.explained(shard.uri), open_text(shard, data.encoding) as text:
        yield from parse_records(text, shard, dialect, data)


def parse_records(text: TextIO, shard: Shard, dialect: Dialect, data: DataSpec) -> Iterator[tuple[int, Fields]]:
    """(number of the first physical line, fields) of each record of a shard; `text` starts where the shard does."""
    lines = _Lines(text, shard, dialect, data)
    reader = csv.reader(
        lines,
        delimiter=dialect.delimiter,
        quoting=csv.QUOTE_MINIMAL if data.quoting == "minimal" else csv.QUOTE_NONE,
        escapechar=None if data.escape == "none" else data.escape,
        skipinitialspace=dialect.skip_blanks,
    )
    line = shard.first_line
    stop = sys.maxsize if shard.line_count is None else line + shard.line_count
    fields: Fields | None
    while line < stop:
        lines.begin_record()
        # The limit is global to the process: it is restored before the caller handles the row.
        previous = csv.field_size_limit(data.max_cell_chars)
        try:
            fields = next(reader, None)
        except csv.Error:  # over the limit: the only error of csv for whole lines of text, unless strict
            fields = _skip_record(lines, data)
        finally:
            csv.field_size_limit(previous)
        if fields is None:
            return
        if fields:
            yield line, fields
        line = lines.number + 1


def _skip_record(lines: "_Lines", data: DataSpec) -> CellTooLong:
    """Skips the rest of a record that csv refused; the last returned line is inside it. csv then starts a new
    record."""
    value = f"more than {data.max_cell_chars:,} characters"
    while lines.state_after_last() != OUTSIDE:
        if not next(lines, ""):
            return CellTooLong(f"{value}: the quote opened here is never closed")
    return CellTooLong(value)


class _Lines:
    """The physical lines from a shard's first to the end of the file.

    Attributes:
        number: number of the last returned line.
        last: that line.
    """

    def __init__(self, text: TextIO, shard: Shard, dialect: Dialect, data: DataSpec) -> None:
        self.number = shard.first_line - 1
        self.last = ""
        self._read_line = text.readline
        self._longest = max(_LINE_CELLS * data.max_cell_chars, _LEAST_LINE_CHARS)
        self._uri = shard.uri
        self._data, self._dialect = data, dialect
        self._state: int | None = None  # at the start of the last line; None before the first line of a record

    def begin_record(self) -> None:
        """The next line starts a record."""
        self._state = None

    def state_after_last(self) -> int:
        """The state of csv's parser at the end of the last line."""
        assert self._state is not None, "no line of this record was read"
        quoted = self._data.quoting == "minimal"
        if self._data.escape != "none":
            return escaped_state_after(
                self.last, self._state, self._dialect.delimiter, quoted, self._dialect.skip_blanks
            )
        return state_after(self.last, self._state, *self._dialect) if quoted else OUTSIDE

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        # csv reads another line of a record only if a cell continues on it.
        if self._state is None:
            self._state = OUTSIDE
        else:
            self._state = INSIDE if self._data.escape == "none" else self.state_after_last()
        try:
            self.last = line = self._read_line(self._longest)
        except UnicodeError as error:
            raise DataError(
                f"{self._uri}, after line {self.number}: invalid {self._data.encoding}: {error}",
                todo=_other_encoding(error, self._data),
            ) from error
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) >= self._longest:
            raise DataError(
                f"{self._uri}:{self.number}: no line end within {self._longest:,} characters",
                expected="a CSV; is this file one?",
                todo=f"if it is: {set_option('data.max_cell_chars', 4 * self._longest)}",
            )
        return line


def _other_encoding(error: UnicodeError, data: DataSpec) -> str:
    """The advice for bytes that an encoding cannot decode, not even with `surrogateescape`."""
    content = error.object if isinstance(error, UnicodeDecodeError) else b""
    likely = encodings.likely_encoding(content)
    if likely and codec_name(likely) != codec_name(data.encoding):
        return encodings.setting(content)
    return "the file is damaged or truncated there, or set data.encoding to the encoding it was written in"


def open_text(shard: Shard, encoding: str) -> io.TextIOWrapper:
    """The text from a shard's first byte on, with its own line ends, without a UTF-8 byte order mark."""
    file = open_bytes(shard.uri)
    if shard.start_byte:
        file.seek(shard.start_byte)
    elif file.peek(len(codecs.BOM_UTF8)).startswith(codecs.BOM_UTF8):
        file.read(len(codecs.BOM_UTF8))
    if codec_name(encoding) == "utf-8-sig":
        encoding = "utf-8"  # the mark has been skipped, and elsewhere it is text
    return io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="")


def codec_name(encoding: str) -> str:
    """The canonical name of a codec."""
    return codecs.lookup(encoding).name


@functools.cache
def holds_ascii(encoding: str) -> bool:
    """Whether a byte below 128 is always its ASCII character: true for UTF-8 and single-byte supersets of ASCII."""
    if codec_name(encoding) in ("utf-8", "utf-8-sig"):
        return True
    # Each byte alone, and all together: multi-byte codecs combine bytes, escaping codecs depend on the next ones.
    try:
        alone = [bytes([byte]).decode(encoding, "surrogateescape") for byte in range(256)]
        together = (bytes(range(256)) + rb"\u0041").decode(encoding, "surrogateescape")
    except UnicodeError:
        return False
    is_ascii = [char == chr(byte) and char.isascii() for byte, char in enumerate(alone)]
    return together == "".join(alone) + r"\u0041" and all(is_ascii[:128]) and not any(map(str.isascii, alone[128:]))
