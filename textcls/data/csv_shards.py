"""One big CSV -> exact byte ranges that parse in parallel, with the rows and line numbers of one sequential read.

In: files and a `DataSpec`. Out: the `Layout` of each file, and `Shard`s. Not here: how a range is scanned
(csv_scan.py), how a shard is read (csv_records.py), Ray (read.py).

ranges of about data.shard_bytes ─▶ scan each, in parallel ─▶ chain ─▶ shards ─▶ read each, in parallel

A file is one shard if it is compressed, has backslash escapes, or is in an encoding that does not extend ASCII
(UTF-16).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise, starmap
from typing import Any

from textcls.data.csv_head import read_layout
from textcls.data.csv_layout import Layout
from textcls.data.csv_records import Shard, holds_ascii
from textcls.data.csv_scan import OUTSIDE, Scan, scan_range
from textcls.data.file_formats import is_compressed
from textcls.data.input_files import InputFile
from textcls.settings.data import DataSpec

Run = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], list[Any]]
"""Calls a function with each tuple of arguments; returns the results in order."""


def run_here(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
    """A `Run` in this process, one call after the other."""
    return list(starmap(function, jobs))


def plan_shards(files: Sequence[InputFile], data: DataSpec, *, run: Run = run_here) -> tuple[list[Layout], list[Shard]]:
    """(layout of each file, shards of all files in row order).

    Args:
        files: the files to read.
        data: the settings.
        run: runs the scans of large files, for example as Ray tasks.

    Raises:
        DataError: a file lacks a requested column, or is not a CSV.
    """
    layouts = [read_layout(file, data) for file in files]
    ranges_of_file = [_ranges(file, data) for file in files]
    jobs = [
        (file.uri, layout.delimiter, start, stop, data.quoting == "minimal", layout.skip_blanks)
        for file, layout, ranges in zip(files, layouts, ranges_of_file, strict=True)
        for start, stop in ranges
    ]
    scans = iter(run(scan_range, jobs))
    shards: list[Shard] = []
    for index, (file, ranges) in enumerate(zip(files, ranges_of_file, strict=True)):
        shards += chain(file.uri, index, [next(scans) for _ in ranges]) if ranges else [Shard(file.uri, index)]
    return layouts, shards


def _ranges(file: InputFile, data: DataSpec) -> list[tuple[int, int]]:
    """(start, stop) bytes of the ranges to scan; empty if the file is one shard."""
    ranges = -(-file.size_bytes // data.shard_bytes)
    if ranges <= 1 or is_compressed(file.uri) or data.escape != "none" or not holds_ascii(data.encoding):
        return []
    return list(pairwise(file.size_bytes * i // ranges for i in range(ranges + 1)))


def chain(uri: str, file_index: int, scans: Sequence[Scan]) -> list[Shard]:
    """Shards of one file, in order, from the scans of its ranges; a range without a record start gives no shard."""
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


def column_names(layout: Layout) -> list[str]:
    """Names of all columns of a file as in its header, or their positions if there is no header."""
    return list(layout.header) or [str(position) for position in range(layout.width)]
