"""One big CSV -> exact byte ranges that parse in parallel, with the rows and line numbers of one sequential read.

In: files and a `DataSpec`. Out: the `Layout` of each file, `Shard`s, and the raw rows of a shard as Python's `csv`
module has them. Not here: how a range is scanned (csv_scan.py), what makes a row a reject (rows.py), Ray (pipeline.py).

    ranges of about data.shard_bytes ─▶ scan each, in parallel ─▶ chain ─▶ shards ─▶ read each, in parallel

A compressed file, or one in an encoding whose bytes mean nothing on their own (UTF-16), is one shard.
"""

import codecs
import csv
import functools
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, starmap
from typing import Any, NamedTuple, cast

from textcls import storage
from textcls.data.csv_layout import FirstRecord, Layout, choose_layout, refuse_other_formats
from textcls.data.csv_scan import INSIDE, OUTSIDE, Scan, scan_range, state_after
from textcls.data.input_files import InputFile
from textcls.errors import DataError
from textcls.recipe import DataSpec

_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
_HEAD_BYTES = 4096
# A line may be longer than its longest cell; the floor keeps a small cell limit from refusing whole files.
_LINE_CELLS = 4
_LEAST_LINE_CHARS = 2**20

Run = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], list[Any]]
"""Gives the results of a function called with each tuple of arguments, in order."""


@dataclass(frozen=True)
class Shard:
    """A part of one file that starts with a record.

    Attributes:
        uri: the file.
        file_index: its place among the files of the run.
        start_byte: where the first record starts; 0 is the file's beginning, header and byte order mark included.
        first_line: 1-based number of the physical line there.
        line_count: physical lines that the shard's records take up; None: up to the end of the file.
    """

    uri: str
    file_index: int
    start_byte: int = 0
    first_line: int = 1
    line_count: int | None = None


class CellTooLong(NamedTuple):
    """Stands for the fields of a record of which one is longer than `data.max_cell_chars`."""

    value: str


Fields = list[str] | CellTooLong


def run_here(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
    """A `Run` in this process, one call after the other."""
    return list(starmap(function, jobs))


def plan_shards(files: Sequence[InputFile], data: DataSpec, *, run: Run = run_here) -> tuple[list[Layout], list[Shard]]:
    """(layout of each file, shards of all files in row order).

    Args:
        files: what to read.
        data: how to read it.
        run: scans the ranges of large files; give one that spreads the calls over Ray tasks.

    Raises:
        DataError: a file that lacks the columns asked for, or is no CSV.
    """
    layouts = [read_layout(file, data) for file in files]
    ranges_of_file = [_ranges(file, data) for file in files]
    jobs = [
        (file.uri, layout.delimiter, start, stop, data.quoting == "minimal")
        for file, layout, ranges in zip(files, layouts, ranges_of_file, strict=True)
        for start, stop in ranges
    ]
    scans = iter(run(scan_range, jobs))
    shards: list[Shard] = []
    for index, (file, ranges) in enumerate(zip(files, ranges_of_file, strict=True)):
        shards += chain(file.uri, index, [next(scans) for _ in ranges]) if ranges else [Shard(file.uri, index)]
    return layouts, shards


def _ranges(file: InputFile, data: DataSpec) -> list[tuple[int, int]]:
    """(start, stop) bytes of the ranges that are scanned; none if the file is one shard."""
    ranges = -(-file.size_bytes // data.shard_bytes)
    if ranges <= 1 or _is_compressed(file.uri) or not holds_ascii(data.encoding):
        return []
    return list(pairwise(file.size_bytes * i // ranges for i in range(ranges + 1)))


def chain(uri: str, file_index: int, scans: Sequence[Scan]) -> list[Shard]:
    """Shards of one file, in order, from the scans of its ranges; a range in which no record starts gives none."""
    state, line = OUTSIDE, 1
    starts = []
    for scan in scans:
        if record := scan.first_record[state]:
            starts.append((record.byte, line + record.line))
        state = scan.end_state[state]
        line += scan.lines
    counts = [following - first for (_, first), (_, following) in pairwise(starts)]
    return [
        Shard(uri, file_index, byte, first_line, count)
        for (byte, first_line), count in zip(starts, [*counts, None], strict=True)
    ]


def read_layout(file: InputFile, data: DataSpec) -> Layout:
    """How the records of a file are laid out, from its first record; an empty line is none.

    Raises:
        DataError: no CSV in this encoding, no record, a column that is missing or stands twice.
    """
    if holds_ascii(data.encoding):
        with storage.explained(file.uri), _open_bytes(file.uri) as content:
            head = content.peek(_HEAD_BYTES)[:_HEAD_BYTES]
        refuse_other_formats(file.uri, head, data)

    @functools.cache
    def read_first(delimiter: str) -> FirstRecord:
        line, fields = next(_read_records(Shard(file.uri, 0), delimiter, data), (0, []))
        if isinstance(fields, CellTooLong):
            return FirstRecord(line, [], problem=fields.value)
        if not fields:
            raise DataError(f"{file.uri}: nothing but empty lines", expected="a CSV with at least one row")
        return FirstRecord(line, fields)

    return choose_layout(file.uri, read_first, data)


def column_names(file: InputFile, layout: Layout, data: DataSpec) -> list[str]:
    """Names of all columns of a file, as its header spells them; without a header, their positions."""
    if not data.header:
        return [str(position) for position in range(layout.width)]
    _, fields = next(_read_records(Shard(file.uri, 0), layout.delimiter, data))
    assert not isinstance(fields, CellTooLong), "read_layout refuses such a header"
    return fields


def read_shard(shard: Shard, layout: Layout, data: DataSpec) -> Iterator[tuple[int, Fields]]:
    """(number of the first physical line, fields) of each record that starts in a shard, in order.

    Empty lines are no records, and the header is left out. Bytes that cannot be decoded are lone surrogates
    (`errors="surrogateescape"`). Holds one record at a time.

    Raises:
        DataError: a line without an end, or content that is not in `data.encoding` at all.
        StorageError: the file cannot be read.
    """
    records = _read_records(shard, layout.delimiter, data)
    if shard.first_line <= layout.header_line:
        next(records, None)  # nothing but empty lines comes before the header
    return records


def _read_records(shard: Shard, delimiter: str, data: DataSpec) -> Iterator[tuple[int, Fields]]:
    with storage.explained(shard.uri), _open_text(shard, data.encoding) as text:
        lines = _Lines(text, shard, data)
        quoted = data.quoting == "minimal"
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
        line = shard.first_line
        stop = sys.maxsize if shard.line_count is None else line + shard.line_count
        fields: Fields | None
        while line < stop:
            # The limit is the process's own: whoever handles the row must find it as it was.
            previous = csv.field_size_limit(data.max_cell_chars)
            try:
                fields = next(reader, None)
            except csv.Error:  # over the limit: the only error csv knows for whole lines of text, unless strict
                fields = _skip_record(lines, line, delimiter, data)
            finally:
                csv.field_size_limit(previous)
            if fields is None:
                return
            if fields:
                yield line, fields
            line = lines.number + 1


def _skip_record(lines: "_Lines", first_line: int, delimiter: str, data: DataSpec) -> CellTooLong:
    """Reads to the end of the record that csv gave up within the line last handed out; csv then starts afresh."""
    value = f"more than {data.max_cell_chars:,} characters"
    if data.quoting == "none":
        return CellTooLong(value)
    state = state_after(lines.last, OUTSIDE if lines.number == first_line else INSIDE, delimiter)
    while state == INSIDE:
        if not (line := next(lines, "")):
            return CellTooLong(f"{value}: the quote opened here is never closed")
        state = state_after(line, state, delimiter)
    return CellTooLong(value)


class _Lines:
    """The physical lines from a shard's first to the end of the file.

    Attributes:
        number: number of the line last handed out.
        last: that line.
    """

    def __init__(self, text: io.TextIOWrapper, shard: Shard, data: DataSpec) -> None:
        self.number = shard.first_line - 1
        self.last = ""
        self._read_line = text.readline
        self._longest = max(_LINE_CELLS * data.max_cell_chars, _LEAST_LINE_CHARS)
        self._uri = shard.uri
        self._encoding = data.encoding

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            self.last = line = self._read_line(self._longest)
        except UnicodeError as error:
            raise DataError(
                f"{self._uri}, after line {self.number}: not {self._encoding}: {error}",
                todo="set data.encoding to the encoding it was written in",
            ) from error
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) >= self._longest:
            raise DataError(
                f"{self._uri}:{self.number}: no line end within {self._longest:,} characters",
                expected="a CSV; is this one?",
                todo="if it is, raise data.max_cell_chars",
            )
        return line


def _open_text(shard: Shard, encoding: str) -> io.TextIOWrapper:
    """The text from a shard's first byte on, line ends as they are, without a UTF-8 byte order mark."""
    file = _open_bytes(shard.uri)
    if shard.start_byte:
        file.seek(shard.start_byte)
    elif file.peek(len(codecs.BOM_UTF8)).startswith(codecs.BOM_UTF8):
        file.read(len(codecs.BOM_UTF8))
    if _codec(encoding) == "utf-8-sig":
        encoding = "utf-8"  # the mark is gone already, and is text anywhere else
    return io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="")


def _open_bytes(uri: str) -> io.BufferedReader:
    """A file from its beginning; decompressed if its name says so, and then not seekable."""
    if not _is_compressed(uri):
        return cast(io.BufferedReader, storage.open_input(uri))
    store, path = storage.filesystem(uri)
    with storage.explained(uri):
        return io.BufferedReader(storage.patiently(lambda: store.open_input_stream(path, compression="detect")))


def _is_compressed(uri: str) -> bool:
    return uri.endswith(_COMPRESSED)


def _codec(encoding: str) -> str:
    return codecs.lookup(encoding).name


@functools.cache
def holds_ascii(encoding: str) -> bool:
    """Whether a byte below 128 always stands for its ASCII character: UTF-8, and single-byte supersets of ASCII."""
    if _codec(encoding) in ("utf-8", "utf-8-sig"):
        return True
    # Alone and in company: multi-byte codecs join bytes, escaping codecs wait for what follows.
    try:
        alone = [bytes([byte]).decode(encoding, "surrogateescape") for byte in range(256)]
        together = (bytes(range(256)) + rb"\u0041").decode(encoding, "surrogateescape")
    except UnicodeError:
        return False
    is_ascii = [char == chr(byte) and char.isascii() for byte, char in enumerate(alone)]
    return together == "".join(alone) + r"\u0041" and all(is_ascii[:128]) and not any(map(str.isascii, alone[128:]))
