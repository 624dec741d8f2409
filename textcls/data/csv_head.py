"""Detects the layout of a file from its first bytes: format, encoding, dialect and header.

In: a file and a `DataSpec`. Out: its `Layout` with notes on what was detected, or an error with the setting to change.
Not here: the rules by which records show a layout (csv_layout.py), the rest of the file (csv_records.py).
"""

import codecs
import csv
import functools
import io
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from textcls import storage
from textcls.data import encodings
from textcls.data.csv_layout import Dialect, FirstRecord, Layout, choose_layout, is_total
from textcls.data.csv_records import CellTooLong, Fields, Shard, codec_name, holds_ascii, parse_records, read_records
from textcls.data.file_formats import is_compressed, open_bytes, other_text_format, refuse_other_formats
from textcls.data.input_files import InputFile
from textcls.errors import DataError
from textcls.settings.data import DataSpec
from textcls.settings.yaml_text import set_option

# The layout is decided by this much: some hundred rows, read in a millisecond.
_HEAD_BYTES = 2**17
_HEAD_RECORDS = 50
_TAIL_BYTES = 4096
_BACKSLASH = "\\"
# Inside a quoted cell, where csv writes a doubled quote; the last backslash of "C:\\" is not such a one.
_ESCAPED_QUOTE = re.compile(rb'\\"[^,;\t|\r\n"]')


def read_layout(file: InputFile, data: DataSpec) -> Layout:
    """The layout of a file, detected from its first records; empty lines are not records.

    Raises:
        DataError: the file is not a CSV in this encoding or has no record, or a column is missing or appears twice.
    """
    refuse_other_formats(file.uri)
    with storage.explained(file.uri), open_bytes(file.uri) as content:
        head = content.read(_HEAD_BYTES)
    _refuse_wide(file.uri, head, data)

    @functools.cache
    def read_start(dialect: Dialect, encoding: str = data.encoding, escape: str = data.escape) -> list[FirstRecord]:
        read_as = data.model_copy(update={"encoding": encoding, "escape": escape})
        text = _decoded(head, encoding)
        found = list(islice(parse_records(text, Shard(file.uri, 0), dialect, read_as), _HEAD_RECORDS + 1))
        if len(head) == _HEAD_BYTES:
            found = found[:-1]  # the last record may be incomplete
        if not found:
            found = list(islice(read_records(Shard(file.uri, 0), dialect, read_as), 1))
        if not found:
            raise DataError(f"{file.uri}: only empty lines", expected="a CSV with at least one row")
        return [_first_record(line, fields) for line, fields in found]

    def hint() -> str:
        if found := other_text_format(file.uri, head):
            return f"is it {found[0]}? {found[1]}"
        return _encoding_hint(file.uri, head, read_start, data)

    try:
        layout = choose_layout(file.uri, read_start, data, hint)
    except DataError:
        # Damaged compressed data may decompress to wrong bytes for a while before the checksum fails.
        if is_compressed(file.uri):
            with storage.explained(file.uri), open_bytes(file.uri) as content:
                while content.read(_HEAD_BYTES):
                    pass
        raise
    notes = (*_encoding_notes(file.uri, head, data), *_total_note(file, layout, data))
    if _ESCAPED_QUOTE.search(head) and data.escape == "none" and data.quoting == "minimal":
        now, escaped = (read_start(layout.dialect, escape=escape) for escape in ("none", _BACKSLASH))
        if all(len(record.fields) == layout.width for record in escaped):
            line = next((one.line for one, other in zip(now, escaped, strict=False) if one != other), 1)
            advice = f"if a backslash escapes the quote after it: {set_option('data.escape', _BACKSLASH)}"
            notes = (*notes, f"{file.uri}:{line}: {advice}")
    return replace(layout, notes=(*layout.notes, *notes))


def _total_note(file: InputFile, layout: Layout, data: DataSpec) -> Iterator[str]:
    """A note if the last line looks like a totals row that is read as a row, with its number as the label."""
    if is_compressed(file.uri) or storage.is_remote(file.uri) or not holds_ascii(data.encoding) or layout.width < 2:
        return  # the check is not worth another request
    with storage.explained(file.uri), open_bytes(file.uri) as content:
        content.seek(max(0, file.size_bytes - _TAIL_BYTES))
        tail = content.read().decode(data.encoding, "replace")
        lines = re.split(r"[\r\n]+", tail)
    last = next((line for line in reversed(lines[1:]) if line.strip()), "")
    fields = next(csv.reader([last], delimiter=layout.delimiter), [])
    if (
        len(fields) == layout.width
        and is_total(fields)
        and all(fields[position].strip() for position in layout.positions)
    ):
        yield f"{file.uri}: the last line, {last.strip()[:80]!r}, looks like a total and is read as a row"


def _decoded(head: bytes, encoding: str) -> io.StringIO:
    """The text of a file's first bytes, with its own line ends, without a byte order mark or an incomplete character.

    It ends where bytes are invalid in a wide encoding; reading the file then raises the error.
    """
    encoding = "utf-8" if codec_name(encoding) == "utf-8-sig" else encoding
    head = head.removeprefix(codecs.BOM_UTF8)
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
    try:
        text = decoder.decode(head, final=len(head) < _HEAD_BYTES)
    except UnicodeError as error:
        # UTF-16 without its byte order mark has no text.
        text = head[: error.start].decode(encoding, "ignore") if isinstance(error, UnicodeDecodeError) else ""
    return io.StringIO(text, newline="")


def _first_record(line: int, fields: Fields) -> FirstRecord:
    if isinstance(fields, CellTooLong):
        return FirstRecord(line, [], problem=fields.value)
    return FirstRecord(line, fields)


def _refuse_wide(uri: str, head: bytes, data: DataSpec) -> None:
    """Refuses a file in UTF-16 if `data.encoding` is not, and the reverse."""
    found = encodings.wide_encoding(head)
    is_wide = encodings.is_wide(codec_name(data.encoding))
    if encodings.fits_wide(head, data.encoding) if is_wide else not found:
        return
    right = "" if found else encodings.setting(head)
    raise DataError(
        f"{uri} is {'in' if found else 'not in'} {'UTF-32' if 'utf-32' in (found, data.encoding) else 'UTF-16'}",
        expected=f"{data.encoding}, the value of data.encoding",
        todo=right or set_option("data.encoding", found or "utf-8"),
    )


def _encoding_hint(
    uri: str, head: bytes, read_start: Callable[[Dialect, str], list[FirstRecord]], data: DataSpec
) -> str:
    """The --set with which the header has the columns, or is readable; empty if the encoding is right."""
    likely = encodings.likely_encoding(head)
    delimiters = ",;\t|" if data.delimiter == "auto" else data.delimiter
    if data.header:
        for encoding in dict.fromkeys((likely, *encodings.USUAL)):
            if not encoding or codec_name(encoding) == codec_name(data.encoding):
                continue
            try:
                starts = [read_start(Dialect(delimiter), encoding)[0] for delimiter in delimiters]
            except DataError:
                continue
            if any(set(data.columns) <= set(start.fields) for start in starts):
                return f"in another encoding it fits: {set_option('data.encoding', encoding)}"
    if likely and likely != data.encoding and not encodings.reads(head[: head.rfind(b"\n") + 1] or head, data.encoding):
        return f"the encoding is probably {' or '.join(encodings.likely_encodings(head))}: {encodings.setting(head)}"
    return ""


def _encoding_notes(uri: str, head: bytes, data: DataSpec) -> Iterator[str]:
    """Notes on UTF-8 that is read in another encoding, now or before the file was written."""
    requested = codec_name(data.encoding)
    if requested in ("utf-8", "utf-8-sig") or encodings.is_wide(requested):
        if found := encodings.mojibake(_decoded(head, data.encoding).getvalue().splitlines()):
            written, original = found
            yield (
                f"{uri} has {written!r} for {original!r}: UTF-8 that was once read as cp1252. No setting undoes it; "
                f"iconv -f UTF-8 -t CP1252 {shlex.quote(uri)} > {shlex.quote(uri + '.utf8.csv')} does"
            )
    elif encodings.likely_encoding(head) == "utf-8" and requested != "ascii":
        yield f"{uri} is in UTF-8 and read as {data.encoding}: {set_option('data.encoding', 'utf-8')}"
