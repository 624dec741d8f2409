"""Advice on rejects, from the content of the files at a few of them.

In: the reason of most rejects, the locations of a few. Out: a sentence with the setting or the command that helps. Each
setting is tried on the rows before it is advised. Not here: which rows are rejects (rows.py), whether there are too
many (checks.py).
"""

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

from textcls import storage
from textcls.data import encodings
from textcls.data.csv_head import read_layout
from textcls.data.csv_layout import Layout
from textcls.data.csv_records import CellTooLong, Fields, Shard, open_text, parse_records
from textcls.data.file_formats import is_compressed, open_bytes
from textcls.data.input_files import InputFile
from textcls.data.label_columns import label_cells_advice
from textcls.data.rows import Reason, cut_in_two
from textcls.errors import TextclsError
from textcls.settings.data import DataSpec
from textcls.settings.yaml_text import set_option
from textcls.tasks.label_cells import plain_cell

# Limits of the sample: enough to detect an encoding or a dialect, in less than a second.
_SAMPLE_BYTES = 2**16
_MOST_BYTES = 2**26
_SAMPLE_RECORDS = 300
# Share of empty cells from which on a column looks like the wrong one.
_ALL_BUT_EMPTY = 0.9
_LONGEST_LINE = 2**20
# Another dialect is advised if at most this share of the records then has the wrong number of fields.
_FEW = 0.01
# If more than this share of the non-ASCII lines can be read, the encoding is right and the other lines are damaged.
_MIXED = 0.2
# A column of labels has at least this many rows per value.
_ROWS_PER_LABEL = 3

Location = tuple[int, int]
"""(index of a file, 1-based line in it)."""


@dataclass(frozen=True)
class CsvFiles:
    """The files of a run with the layouts and shards of `plan_shards`, the settings, and what masks a cell."""

    files: Sequence[InputFile]
    layouts: Sequence[Layout]
    shards: Sequence[Shard]
    data: DataSpec
    mask: Callable[[str], str] = str

    @classmethod
    def whole(cls, files: Sequence[InputFile], data: DataSpec) -> Self:
        """The whole files, as one shard each."""
        shards = [Shard(file.uri, index) for index, file in enumerate(files)]
        return cls(files, [read_layout(file, data) for file in files], shards, data)


def remedy(reason: str, csv_files: CsvFiles, locations: Sequence[Location] = ()) -> str:
    """The advice on the rejects of one reason; empty if there is none but to correct the rows.

    Args:
        reason: a `Reason`.
        csv_files: the files of the rows.
        locations: of a few rejects; without any, the files are sampled from their start.
    """
    try:
        match reason:
            case Reason.UNDECODABLE:
                return _other_encoding(csv_files, locations)
            case Reason.RAGGED_ROW | Reason.CELL_TOO_LONG:
                return _other_dialect(csv_files, locations) or _corrected_rows(reason, csv_files, locations)
            case Reason.MISSING_LABEL | Reason.NOT_YES_OR_NO if csv_files.data.labels_in == "columns":
                return _other_label_cells(csv_files, locations)
            case Reason.MISSING_LABEL | Reason.MISSING_TEXT:
                return _other_column(reason, csv_files, locations)
            case Reason.REPEATED_HEADER:
                return "delete the lines that repeat the header"
            case Reason.TOTAL_LINE:
                return "delete the total lines"
            case Reason.PERSONAL_LABEL:
                return (
                    f"is {csv_files.data.label_setting} right? Labels become part of the bundle and stay as they are; "
                    "if these identify nobody, list every label in data.labels"
                )
    except (TextclsError, UnicodeError):
        pass  # the files changed or cannot be read: the counts and examples of the message remain
    return ""


# --- encodings --------------------------------------------------------------------------------------------------------


def _other_encoding(csv_files: CsvFiles, locations: Sequence[Location]) -> str:
    data = csv_files.data
    if encodings.is_wide(data.encoding):
        return ""
    shard, bad, good = _lines_beyond_ascii(csv_files, locations)
    if not bad:
        return ""
    if len(good) > _MIXED * (len(bad) + len(good)):
        likely = encodings.likely_encodings(b"".join(bad))
        kind = f"they look like {' or '.join(likely)}" if likely else "they are damaged, or in several encodings"
        return f"other non-ASCII lines are in {data.encoding}, these are not: {kind}. Convert them at their source"
    sample = b"".join((*bad, *good))
    likely = encodings.likely_encodings(sample)
    if not likely:
        return "no usual encoding reads these lines: export the files again, as UTF-8"
    if any(_is_read_rightly(file, data) for file in csv_files.files if file.uri != shard.uri):
        target, to = shlex.quote(f"{shard.uri}.utf8.csv"), encodings.iconv_name(data.encoding)
        printed = f"{'gzip -dc' if shard.uri.endswith('.gz') else 'cat'} {shlex.quote(shard.uri)}"
        commands = (f"{printed} | iconv -f {encodings.iconv_name(name)} -t {to} > {target}" for name in likely)
        return (
            f"other files are in {data.encoding}; convert this one"
            f"{', check the result' if len(likely) > 1 else ''} and use the result: {' or '.join(commands)}"
        )
    return f"the bytes look like {' or '.join(likely)}: {encodings.setting(sample)}"


def _lines_beyond_ascii(csv_files: CsvFiles, locations: Sequence[Location]) -> tuple[Shard, list[bytes], list[bytes]]:
    """(shard, lines that the encoding cannot read, lines that it can) of the first shard with unreadable lines."""
    encoding, read = csv_files.data.encoding, 0
    bad: list[bytes] = []
    good: list[bytes] = []
    shards = _shards_from(csv_files, locations)
    for shard in shards:
        good, sampled = [], 0
        with storage.explained(shard.uri), open_bytes(shard.uri) as file:
            if shard.start_byte:
                file.seek(shard.start_byte)
            while sampled < _SAMPLE_BYTES and read < _MOST_BYTES and (line := file.readline(_LONGEST_LINE)):
                read += len(line)
                if not line.isascii():
                    (good if encodings.reads(line, encoding) else bad).append(line)
                    sampled += len(line)
        if bad or read >= _MOST_BYTES:
            break
    return shard, bad, good


def _is_read_rightly(file: InputFile, data: DataSpec) -> bool:
    """Whether the start of a file has non-ASCII characters and is in the requested encoding."""
    with storage.explained(file.uri), open_bytes(file.uri) as content:
        head = content.read(_SAMPLE_BYTES)
    return not head.isascii() and data.encoding.lower() in encodings.likely_encodings(head)


# --- dialects ---------------------------------------------------------------------------------------------------------


def _other_dialect(csv_files: CsvFiles, locations: Sequence[Location]) -> str:
    """The setting with which the records at a reject, and the first ones of the file, have the right number of
    fields."""
    data = csv_files.data
    trials: list[tuple[str, Any]] = []
    if data.escape == "none":
        trials.append(("escape", "\\"))
    if data.quoting == "minimal":
        trials.append(("quoting", "none"))
    if data.skip_initial_space is not True and data.delimiter != " ":
        trials.append(("skip_initial_space", True))
    if data.quoting == "none":
        trials.append(("quoting", "minimal"))
    trials += [("delimiter", delimiter) for delimiter in ",;\t|" if delimiter != data.delimiter]
    now = _misshapen(csv_files, locations, data)
    found = []
    for key, value in trials:
        try:
            share = _misshapen(csv_files, locations, data.model_copy(update={key: value}))
        except TextclsError:
            continue  # the header does not fit
        if share <= _FEW and share < now:
            found.append((share, key, value))
    if not found:
        return ""
    _, key, value = min(found, key=lambda one: one[0])
    text = {"\t": "tab", True: "true"}.get(value, value)
    return f"the rows fit with {set_option(f'data.{key}', str(text))}"


def _misshapen(csv_files: CsvFiles, locations: Sequence[Location], data: DataSpec) -> float:
    """Share of records with the wrong number of fields: the larger of the shares at the file's start and at a
    reject."""
    (index, line), *_ = [*locations, (0, 1)]
    layout = read_layout(csv_files.files[index], data)
    start = Shard(csv_files.files[index].uri, index)
    shares = []
    for shard, first in ((start, layout.header_line + 1), (_shard_of(csv_files, index, line), line)):
        records = [fields for _, fields in islice(_records_from(shard, first, layout, data), _SAMPLE_RECORDS)]
        wrong = sum(isinstance(fields, CellTooLong) or len(fields) != layout.width for fields in records)
        shares.append(wrong / max(1, len(records)))
    return max(shares)


def _records_from(shard: Shard, line: int, layout: Layout, data: DataSpec) -> Iterator[tuple[int, Fields]]:
    """The records from a physical line on; the line starts a record."""
    with storage.explained(shard.uri), open_text(shard, data.encoding) as text:
        for _ in range(line - shard.first_line):
            text.readline()
        yield from parse_records(text, Shard(shard.uri, shard.file_index, 0, line), layout.dialect, data)


def _corrected_rows(reason: str, csv_files: CsvFiles, locations: Sequence[Location]) -> str:
    if not locations:
        return ""
    index, line = locations[0]
    layout, uri = csv_files.layouts[index], csv_files.files[index].uri
    if reason == Reason.CELL_TOO_LONG:
        more = set_option("data.max_cell_chars", str(4 * csv_files.data.max_cell_chars))
        return f"close the quote that {uri}:{line} opens; if cells may be this long: {more}"
    _, fields = next(_records_from(_shard_of(csv_files, index, line), line, layout, csv_files.data), (line, []))
    if layout.header and set(csv_files.data.columns) <= set(fields) and not is_compressed(uri):
        return f"{uri}:{line} is a header of other columns; {cut_in_two(uri, line)}"
    where = "first row" if not layout.header else "header"
    return (
        f"rows such as {uri}:{line} do not have the {layout.width} fields of the {where}: put cells that contain "
        f"{layout.delimiter!r} or a line end in double quotes"
    )


# --- columns ----------------------------------------------------------------------------------------------------------


def _other_column(reason: str, csv_files: CsvFiles, locations: Sequence[Location]) -> str:
    """The setting with another column, if the requested one is all but empty and another has content.

    A label column that is filled in every now and then is the right one: of a to_label.csv, half may be labelled.
    """
    data = csv_files.data
    layout, rows = _first_rows(csv_files, locations)
    position = dict(zip(data.columns, layout.positions, strict=True))

    def blank(column: str) -> int:
        return sum(not fields[position[column]].strip() for fields in rows)

    texts = data.text_columns[:1] if data.pair is None else data.pair
    requested = data.label_column if reason == Reason.MISSING_LABEL else max(texts, key=blank)
    if not rows or blank(requested) < _ALL_BUT_EMPTY * len(rows):
        return f"fill in column {requested!r} in these rows, or delete them"
    best, best_value = "", 0.0
    for at in range(layout.width):
        cells = [fields[at].strip() for fields in rows]
        if at in layout.positions or not all(cells):
            continue
        if reason == Reason.MISSING_TEXT:
            value = sum(map(len, cells)) / len(cells)
        else:
            labels = len(set(cells))
            value = len(cells) / labels if labels > 1 else 0
            value = value if value >= _ROWS_PER_LABEL else 0
        if value > best_value:
            best, best_value = layout.header[at] if layout.header else str(at), value
    if best:
        key = "data.label_column" if reason == Reason.MISSING_LABEL else data.input_setting
        named = best if key != "data.pair" else [best if column == requested else column for column in texts]
        return f"column {requested!r} is empty; is it column {best!r}? {set_option(key, named)}"
    return f"column {requested!r} is empty, and no other column fits: fill it in"


def _other_label_cells(csv_files: CsvFiles, locations: Sequence[Location]) -> str:
    """What to do about cells of label columns that are neither yes nor no; see `label_cells_advice`."""
    data = csv_files.data
    layout, rows = _first_rows(csv_files, locations)
    for index, line in locations:
        if csv_files.layouts[index] is layout:
            records = _records_from(_shard_of(csv_files, index, line), line, layout, data)
            rows += [fields for _, fields in islice(records, 1) if not isinstance(fields, CellTooLong)]
    position = dict(zip(data.columns, layout.positions, strict=True))
    cells = {
        column: Counter(
            plain_cell(csv_files.mask(fields[position[column]])) for fields in rows if len(fields) == layout.width
        )
        for column in data.label_columns
    }
    return label_cells_advice(data, cells)


def _first_rows(csv_files: CsvFiles, locations: Sequence[Location]) -> tuple[Layout, list[list[str]]]:
    """(layout, first rows) of the file of the first location or, without one, of the first file."""
    (index, _), *_ = [*locations, (0, 1)]
    layout = csv_files.layouts[index]
    start = Shard(csv_files.files[index].uri, index)
    records = islice(_records_from(start, 1, layout, csv_files.data), _SAMPLE_RECORDS)
    rows = [fields for _, fields in records if not isinstance(fields, CellTooLong) and len(fields) == layout.width]
    return layout, rows[1 if layout.header else 0 :]


# --- locations --------------------------------------------------------------------------------------------------------


def _shards_from(csv_files: CsvFiles, locations: Sequence[Location]) -> Sequence[Shard]:
    """The shards that may have rejects: those of known locations, else all."""
    if not locations:
        return csv_files.shards
    return list(dict.fromkeys(_shard_of(csv_files, index, line) for index, line in locations))


def _shard_of(csv_files: CsvFiles, index: int, line: int) -> Shard:
    """The shard in which the record at a line starts."""
    return next(
        shard for shard in reversed(csv_files.shards) if shard.file_index == index and shard.first_line <= max(1, line)
    )
