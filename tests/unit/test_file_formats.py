"""A file that is no CSV, or not compressed as its name says, is named with the command that makes a CSV of it."""

import bz2
import gzip
import io
import os
import random
import shlex
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from textcls.data.csv_records import read_shard
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.errors import DataError
from textcls.settings.data import DataSpec

ROWS = [(f"a text of its own {random.Random(i).random()}", "pos") for i in range(10_000)]
CONTENT = ("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)).encode()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def lz4(content: bytes) -> bytes:
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, "lz4") as out:
        out.write(content)
    return bytes(buffer.getvalue().to_pybytes())


CODECS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstd, ".lz4": lz4}
COMPRESSED = {suffix: compress(CONTENT) for suffix, compress in CODECS.items()}


def rows_of(path: Path) -> list[object]:
    (layout,), shards = plan_shards(expand([str(path)]), DataSpec())
    return [tuple(fields) for shard in shards for _, fields in read_shard(shard, layout, DataSpec())]


def refusal(path: Path, content: bytes) -> DataError:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        rows_of(path)
    assert str(path) in caught.value.found
    assert caught.value.exit_status == 2
    return caught.value


def follow(error: DataError) -> None:
    """Runs the command of a to-do as the user would."""
    command = error.todo[error.todo.index("gzip -dc") if "gzip -dc" in error.todo else 0 :]
    command = command.split(" and use")[0].replace("python -c", f"{shlex.quote(sys.executable)} -c")
    subprocess.run(command, shell=True, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("suffix", CODECS)
def test_several_compressed_streams_in_a_row_are_read_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.csv{suffix}"
    path.write_bytes(COMPRESSED[suffix] + CODECS[suffix](b"one more,neg\n"))
    assert rows_of(path) == [*ROWS, ("one more", "neg")]


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_a_compressed_file_that_is_cut_off_is_said_to_be_incomplete(tmp_path: Path, suffix: str, share: float) -> None:
    content = COMPRESSED[suffix]
    error = refusal(tmp_path / f"rows.csv{suffix}", content[: int(len(content) * share)])
    assert "is incomplete" in error.found
    assert "lines" in error.found
    assert "copy or download it again" in error.todo


def test_a_small_gzip_file_that_is_cut_off_comes_with_how_much_of_it_can_be_read(tmp_path: Path) -> None:
    rows = "".join(f"text number {i} is {i * i * 7919 % 10007},{'pos' if i % 3 else 'neg'}\n" for i in range(200))
    content = gzip.compress(f"text,label\n{rows}".encode())
    content = content[: len(content) // 2]
    readable = zlib.decompressobj(wbits=31).decompress(content)
    error = refusal(tmp_path / "rows.csv.gz", content)
    assert len(readable) > 1000
    lines = readable.count(b"\n")
    assert f"about {lines} lines ({len(readable):,} bytes decompressed)" in error.found


def test_a_bzip2_file_that_is_cut_off_comes_with_how_much_of_it_can_be_read(tmp_path: Path) -> None:
    whole, cut_off = bz2.compress(CONTENT), bz2.compress(b"one more,neg\n")[:20]
    error = refusal(tmp_path / "rows.csv.bz2", whole + cut_off)
    assert f"({len(CONTENT):,} bytes decompressed)" in error.found


def test_what_is_there_of_a_cut_off_gzip_file_can_be_used(tmp_path: Path) -> None:
    error = refusal(tmp_path / "rows.csv.gz", COMPRESSED[".gz"][:-1000])
    follow(error)
    salvaged = rows_of(tmp_path / "rows-plain.csv")
    assert salvaged[:9_000] == ROWS[:9_000]


def test_zeros_behind_a_gzip_file_are_padding(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(COMPRESSED[".gz"] + b"\0" * 1000)
    assert rows_of(path) == ROWS


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".lz4"])
def test_anything_else_behind_compressed_data_is_told(tmp_path: Path, suffix: str) -> None:
    error = refusal(tmp_path / f"rows.csv{suffix}", COMPRESSED[suffix] + b"<html>error 502</html>" * 9)
    assert "has other data after its" in error.found
    assert "lines" in error.found
    if suffix == ".gz":
        follow(error)
        assert rows_of(tmp_path / "rows-plain.csv") == ROWS


@pytest.mark.parametrize("suffix", [".gz", ".bz2"])  # the others hold no check sum unless asked to
def test_damaged_compressed_data_are_told(tmp_path: Path, suffix: str) -> None:
    content = bytearray(COMPRESSED[suffix])
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(range(40))
    error = refusal(tmp_path / f"rows.csv{suffix}", bytes(content))
    assert "is damaged" in error.found or "something else" in error.found


@pytest.mark.parametrize("suffix", CODECS)
def test_a_compressed_name_of_a_plain_file_comes_with_the_command_that_renames_it(tmp_path: Path, suffix: str) -> None:
    error = refusal(tmp_path / f"my rows.csv{suffix}", CONTENT)
    assert "not compressed" in error.found
    follow(error)
    assert rows_of(tmp_path / "my rows.csv") == ROWS


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.csv.bz2"])
def test_a_file_compressed_otherwise_than_its_name_says_comes_with_its_right_name(
    tmp_path: Path, suffix: str, name: str
) -> None:
    if name.endswith(suffix):
        return
    error = refusal(tmp_path / name, COMPRESSED[suffix])
    follow(error)
    assert rows_of(tmp_path / f"rows.csv{suffix}") == ROWS


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(3000), "an old Excel workbook (.xls)"),
        (zipped("[Content_Types].xml", b"<Types/>"), "a spreadsheet (.xlsx or .ods)"),
        (zipped("mimetype", b"application/vnd.oasis.opendocument.spreadsheet"), "a spreadsheet (.xlsx or .ods)"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\xfd7zXZ\x00\x00", "an xz file"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive"),
        (b"SQLite format 3\x00" + bytes(100), "an SQLite database"),
        (b"age-encryption.org/v1\n-> X25519 ", "an encrypted file of age"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_other_formats_are_named(tmp_path: Path, content: bytes, kind: str, name: str) -> None:
    error = refusal(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    assert f"is {kind}" in error.found
    assert "UTF-16" not in str(error)
    assert error.todo


def test_an_old_workbook_behind_the_name_of_a_gzip_file_is_named(tmp_path: Path) -> None:
    assert "old Excel" in refusal(tmp_path / "rows.csv.gz", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99)).found


def test_a_zip_archive_comes_with_the_command_that_unpacks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = refusal(tmp_path / "rows.csv", zipped("inner.csv", CONTENT))
    assert "a zip archive" in error.found
    assert "such as inner.csv" in error.todo
    archive = shlex.split(error.todo.split(" and ")[0])
    assert archive == ["unzip", str(tmp_path / "rows.csv")]
    zipfile.ZipFile(archive[1]).extractall()
    assert rows_of(tmp_path / "inner.csv") == ROWS


def test_a_tar_archive_is_named_inside_gzip_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rows.csv.gz"
    with tarfile.open(path, "w:gz") as archive:
        (tmp_path / "inner.csv").write_bytes(CONTENT)
        archive.add(tmp_path / "inner.csv", "inner.csv")
    os.unlink(tmp_path / "inner.csv")
    error = refusal(path, path.read_bytes())
    assert "a tar archive inside gzip" in error.found
    follow(error)
    assert rows_of(tmp_path / "inner.csv") == ROWS


@pytest.mark.parametrize("kind", ["parquet", "feather", "orc"])
def test_a_columnar_file_comes_with_the_command_that_makes_a_csv(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame(ROWS[:50], columns=["text", "label"])
    getattr(frame, f"to_{kind}")(tmp_path / "rows.csv")
    error = refusal(tmp_path / "rows.csv", (tmp_path / "rows.csv").read_bytes())
    follow(error)
    assert rows_of(tmp_path / "rows-plain.csv") == ROWS[:50]


@pytest.mark.parametrize("start", ["ORC", "PAR1", "ARROW1", "%PDF"])
def test_a_csv_may_begin_with_the_letters_of_another_format(tmp_path: Path, start: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{start},text,label\n1,one,pos\n")
    assert rows_of(path) == [("1", "one", "pos")]
