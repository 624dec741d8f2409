"""Opens a file as plain bytes, decompressed according to its extension; detects files that are not CSV.

In: a URI. Out: a stream of bytes, or an error with the format and the command that converts it. Not here: the bytes as
text (encodings.py) or as records (csv_records.py).

Extension and first bytes must agree: a file that was renamed, truncated or not unpacked is an error, never fewer rows.
"""

import bz2
import gzip
import io
import json
import re
import shlex
import zlib
from typing import Any, BinaryIO, cast

from textcls import storage
from textcls.errors import DataError

_HEAD_BYTES = 4096
_BUFFER_BYTES = 2**18
# Extension -> (format, first bytes).
_COMPRESSED = {
    ".gz": ("gzip", b"\x1f\x8b"),
    ".bz2": ("bzip2", b"BZh"),
    ".zst": ("zstd", b"\x28\xb5\x2f\xfd"),
    ".lz4": ("lz4", b"\x04\x22\x4d\x18"),
}
_BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
_SPREADSHEET = "save it as CSV UTF-8 in the spreadsheet program and use that file"
_ARCHIVE = "unpack it and use the CSV in it"
# First bytes -> (format, advice). PD: a command with this pandas reader.
_FORMATS = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Excel workbook (.xls)", _SPREADSHEET),
    b"\xfd7zXZ": ("an xz file", "xz -dc {source} > {target}"),
    b"\x1f\x9d": ("a file of the program compress (.Z)", "gzip -dc {source} > {target}"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _ARCHIVE),
    b"Rar!\x1a\x07": ("a RAR archive", _ARCHIVE),
    b"PAR1": ("a Parquet file", "PD read_parquet"),
    b"ARROW1": ("an Arrow (Feather) file", "PD read_feather"),
    b"ORC": ("an ORC file", "PD read_orc"),
    b"Obj\x01": ("an Avro file", "convert it to CSV"),
    b"%PDF-": ("a PDF", "export the table as CSV from its source"),
    b"age-encryption.org/v1": ("an encrypted file of age", "age --decrypt --identity KEY_FILE {source} > {target}"),
    b"SQLite format 3\x00": ("an SQLite database", "sqlite3 -csv -header {source} 'SELECT * FROM NAME' > {target}"),
}
# A CSV may begin with these as well, but has no NUL.
_TEXT_TOO = (b"PAR1", b"ARROW1", b"ORC", b"Obj\x01")
_CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x7f]")
_CONTROL_SHARE = 0.02
_HTML = re.compile(rb"\s*<(!doctype html|html|head|body|table|\?xml)\b", re.IGNORECASE)


def is_compressed(uri: str) -> bool:
    """Whether a file is decompressed while it is read, according to its extension."""
    return uri.endswith(tuple(_COMPRESSED))


def open_bytes(uri: str) -> io.BufferedReader:
    """A file as a stream of bytes; a compressed file is decompressed and not seekable.

    Reading may raise a `DataError`: compressed data are truncated, damaged or followed by other data.
    """
    raw = storage.open_input(uri)
    for suffix, (codec, _) in _COMPRESSED.items():
        if uri.endswith(suffix):
            return io.BufferedReader(_Decompressed(uri, codec, raw), _BUFFER_BYTES)
    return cast(io.BufferedReader, raw)


def refuse_other_formats(uri: str) -> None:
    """Refuses a file that is not a CSV, or not compressed as its extension says.

    Raises:
        DataError: with the format, and the command that converts it to CSV.
    """
    with storage.open_input(uri) as file, storage.explained(uri):
        head = file.read(_HEAD_BYTES)
    _refuse_format(uri, head)
    actual = next((suffix for suffix, (_, magic) in _COMPRESSED.items() if _begins(head, suffix, magic)), "")
    named = next((suffix for suffix in _COMPRESSED if uri.endswith(suffix)), "")
    if actual != named:
        kind = f"{_COMPRESSED[actual][0]} data" if actual else "data that are not compressed"
        right = uri.removesuffix(named) + actual
        raise DataError(
            f"{uri} holds {kind}" + (f", not {_COMPRESSED[named][0]}" if named else ""),
            expected=f"a name that ends in {actual}" if actual else f"a name that does not end in {named}",
            todo=f"rename it to {right}" if storage.is_remote(uri) else f"mv {shlex.quote(uri)} {shlex.quote(right)}",
        )
    if named:
        with storage.explained(uri), open_bytes(uri) as content:
            inner = content.peek(_HEAD_BYTES)[:_HEAD_BYTES]
        _refuse_format(uri, inner, inside=f" inside {_COMPRESSED[named][0]}")


def other_text_format(uri: str, head: bytes) -> tuple[str, str] | None:
    """(format, advice) of a file whose columns were not found because it is not a CSV; None if it may be a CSV.

    Args:
        uri: the file.
        head: its first bytes, decompressed.
    """
    if _HTML.match(head):
        return "a web page or XML", "download or export the table itself as CSV"
    if len(_CONTROL.findall(head)) > _CONTROL_SHARE * len(head):
        return "binary data", "export the table as CSV; a file of NUL bytes is an interrupted copy"
    first, _, rest = head.strip().partition(b"\n")
    if not first.startswith((b"{", b"[")):
        return None
    try:
        is_lines = isinstance(json.loads(first), dict) and (not rest.strip() or rest.lstrip().startswith(b"{"))
    except ValueError:
        is_lines = False
        if not re.match(rb'[\[{]\s*([\[{"]|$)', first):
            return None
    return "JSON", _pandas(uri, "read_json", ", lines=True" if is_lines else "")


def _begins(head: bytes, suffix: str, magic: bytes) -> bool:
    return bool(_BZIP2.match(head)) if suffix == ".bz2" else head.startswith(magic)


def _refuse_format(uri: str, head: bytes, inside: str = "") -> None:
    found = next((found for magic, found in _FORMATS.items() if head.startswith(magic)), None)
    if found and head.startswith(_TEXT_TOO) and 0 not in head:
        found = None
    if head.startswith(b"PK\x03\x04"):
        office = b"[Content_Types].xml" in head or b"xl/" in head or b"opendocument.spreadsheet" in head
        found = ("a spreadsheet (.xlsx or .ods)", _SPREADSHEET) if office else ("a zip archive", _unzip(uri, head))
    elif head[257:262] == b"ustar":
        found = ("a tar archive", f"tar -xf {shlex.quote(uri)} and use the CSV in it")
    if found is None:
        return
    kind, todo = found
    if todo.startswith("PD "):
        todo = _pandas(uri, todo.removeprefix("PD "))
    raise DataError(
        f"{uri} is {kind}{inside}",
        expected="a CSV, plain or compressed as .gz, .bz2, .zst or .lz4",
        todo=todo.format(source=shlex.quote(uri), target=shlex.quote(_beside(uri))),
    )


def _unzip(uri: str, head: bytes) -> str:
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")].decode("utf-8", "replace")
    return f"unzip {shlex.quote(uri)} and use the CSV in it" + (f", such as {name}" if name.isprintable() else "")


def _beside(uri: str) -> str:
    """A file name for the CSV that a command writes."""
    stem = uri
    while (stem := re.sub(r"\.(csv|tsv|txt|xz|Z|parquet|feather|orc|db|jsonl?|gz|bz2|zst|lz4|age)$", "", stem)) != uri:
        uri = stem
    return f"{uri}-plain.csv"


def _pandas(uri: str, reader: str, arguments: str = "") -> str:
    source, target = repr(uri), repr(_beside(uri))
    code = f"import pandas; pandas.{reader}({source}{arguments}).to_csv({target}, index=False)"
    return f"python -c {shlex.quote(code)}"


class _Decompressed(io.RawIOBase):
    """The decompressed bytes of a file; errors in its compressed data become a `DataError`."""

    def __init__(self, uri: str, codec: str, raw: BinaryIO) -> None:
        self._uri, self._codec, self._raw = uri, codec, raw
        self._bytes, self._lines = 0, 0
        self._content: Any
        if codec == "gzip":
            self._content = gzip.GzipFile(fileobj=raw)
        elif codec == "bzip2":
            self._content = bz2.BZ2File(raw)
        else:
            import pyarrow as pa

            self._content = pa.CompressedInputStream(pa.PythonFile(raw, "r"), codec)
        self._read = self._content.read1 if codec in ("gzip", "bzip2") else self._content.read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            # `read` discards its buffer when the data end early; `read1` returns each decompressed piece.
            content = self._read(len(buffer))
        except (EOFError, OSError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the disk or the network, not of the file
            raise self._explained(str(error)) from error
        self._bytes += len(content)
        self._lines += content.count(b"\n")
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._content.close()
        self._raw.close()
        super().close()

    def _explained(self, reason: str) -> Exception:
        reached = f"after about {self._lines:,} lines ({self._bytes:,} bytes decompressed)"
        if re.search("end-of-stream|Truncated", reason):
            return DataError(
                f"{self._uri} is incomplete: its {self._codec} data end early, {reached}",
                expected="the whole file",
                todo="copy or download it again" + self._salvage("the lines up to there"),
            )
        if re.search("Not a gzipped file|header check|unknown compression method|Unknown frame|frameType", reason):
            return DataError(
                f"{self._uri} has other data after its {self._codec} data, {reached}",
                expected=f"{self._codec} data up to the end",
                todo="copy or download it again" + self._salvage("the lines up to there"),
            )
        if re.search("CRC|inflate|decompress|Error -|Invalid|invalid|length check|corrupt", reason):
            return DataError(
                f"{self._uri} is damaged: {reason}, {reached}",
                expected=f"whole {self._codec} data",
                todo="copy or download it again",
            )
        return OSError(reason)

    def _salvage(self, what: str) -> str:
        if self._codec != "gzip" or storage.is_remote(self._uri):
            return ""
        return f"; for {what}: gzip -dc {shlex.quote(self._uri)} > {shlex.quote(_beside(self._uri))}"
