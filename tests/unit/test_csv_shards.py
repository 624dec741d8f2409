"""A file read in parallel gives the rows and the line numbers of Python's `csv` module, however it is cut."""

import bz2
import csv
import gzip
import io
import pickle
import random
import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from textcls.data.csv_head import read_layout
from textcls.data.csv_layout import Layout
from textcls.data.csv_records import CellTooLong, Shard, holds_ascii, read_shard
from textcls.data.csv_scan import scan_range
from textcls.data.csv_shards import chain, plan_shards
from textcls.data.input_files import expand
from textcls.errors import DataError
from textcls.settings.data import DataSpec
from textcls.storage import write_bytes

NASTY_FILES = sorted((Path(__file__).parent.parent / "csv").glob("*.csv"))
BOM = b"\xef\xbb\xbf"
LAYOUT = Layout(",", 2, (0, 1), 0)
PLAIN = {"header": False, "text_columns": "0", "label_column": "1"}

Rows = list[tuple[int, object]]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv") / "scratch.csv"


def oracle(
    content: bytes, encoding: str = "utf-8", delimiter: str = ",", quoting: int = csv.QUOTE_MINIMAL, **dialect: Any
) -> Rows:
    """What the csv module makes of a file: (first line, fields) of each record that is not an empty line."""
    text = io.TextIOWrapper(
        io.BytesIO(content.removeprefix(BOM)), encoding=encoding, errors="surrogateescape", newline=""
    )
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting, **dialect)
    rows: Rows = []
    line = 1
    previous = csv.field_size_limit(2**31 - 1)
    try:
        for fields in reader:
            if fields:
                rows.append((line, fields))
            line = reader.line_num + 1
    finally:
        csv.field_size_limit(previous)
    return rows


def shards_of(path: Path, cuts: Sequence[int], layout: Layout, data: DataSpec, piece_bytes: int) -> list[Shard]:
    bounds = [0, *sorted(cuts), path.stat().st_size]
    quoted = data.quoting == "minimal"
    return chain(
        str(path),
        0,
        [
            scan_range(str(path), layout.delimiter, start, stop, quoted, layout.skip_blanks, piece_bytes=piece_bytes)
            for start, stop in pairwise(bounds)
        ],
    )


def read_cut(path: Path, cuts: Sequence[int], data: DataSpec, layout: Layout = LAYOUT, piece_bytes: int = 3) -> Rows:
    shards = shards_of(path, cuts, layout, data, piece_bytes)
    starts = [shard.start_byte for shard in shards]
    assert starts == sorted(set(starts))
    assert starts[-1] < path.stat().st_size
    return [row for shard in shards for row in read_shard(shard, layout, data)]


# --- law 2 ----------------------------------------------------------------------------------------------------------

QUOTES = [b'"', b'""', b'"""', b'""""""', b',"', b'",', b'"\n', b'\n"', b'\r"', b'"\r', b'x"y', b'"a\nb",c\r\n']
LINE_ENDS = [b"\n", b"\r", b"\r\n", b"\n\n"]
OTHERS = [b",", b";", b"a", b"bc", b" ", b"a,b\n", b"\x00", b"\xff", b"\xc3", "é☃".encode(), BOM]
PIECES = QUOTES + LINE_ENDS + OTHERS
contents = st.builds(
    lambda mark, pieces: mark + b"".join(pieces),
    st.sampled_from([b"", b"", BOM]),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=24),
)


def law(examples: int) -> settings:
    """So many examples in a full run, and a third of them in any other; always the same ones."""
    least = examples * min(settings.default.max_examples, 300) // 300
    return settings(max_examples=least, deadline=None, derandomize=True, database=None)


@law(200)
@given(content=contents, piece_bytes=st.integers(1, 7), delimiter=st.sampled_from(",;"))
@example(content=b'a"b,"c\n', piece_bytes=1, delimiter=",")
@example(content=BOM + b'"a\nb"', piece_bytes=1, delimiter=",")
@example(content=b'\r\n\r\r"\n"\r', piece_bytes=1, delimiter=",")
def test_a_file_cut_at_any_byte_gives_the_rows_of_csv(
    scratch: Path, content: bytes, piece_bytes: int, delimiter: str
) -> None:
    scratch.write_bytes(content)
    data, layout = DataSpec(**PLAIN), Layout(delimiter, 2, (0, 1), 0)
    expected = oracle(content, delimiter=delimiter)
    assert list(read_shard(Shard(str(scratch), 0), layout, data)) == expected
    for cut in range(1, len(content)):
        assert read_cut(scratch, [cut], data, layout, piece_bytes) == expected


@law(400)
@given(content=contents, piece_bytes=st.integers(1, 7), draw=st.data())
def test_a_file_cut_into_many_ranges_gives_the_rows_of_csv(
    scratch: Path, content: bytes, piece_bytes: int, draw: st.DataObject
) -> None:
    scratch.write_bytes(content)
    cuts = draw.draw(st.sets(st.integers(1, max(1, len(content) - 1)), max_size=12)) if len(content) > 1 else set()
    assert read_cut(scratch, sorted(cuts), DataSpec(**PLAIN), piece_bytes=piece_bytes) == oracle(content)


@law(100)
@given(content=contents, encoding=st.sampled_from(["latin-1", "cp1252", "koi8-r", "ascii", "utf-8-sig"]))
@example(content=BOM + b"a\n" + BOM + b"b,c\n", encoding="utf-8-sig")
def test_every_encoding_that_holds_ascii_can_be_cut(scratch: Path, content: bytes, encoding: str) -> None:
    scratch.write_bytes(content)
    data = DataSpec(**PLAIN, encoding=encoding)
    expected = oracle(content, encoding.removesuffix("-sig"))
    for cut in range(1, len(content)):
        assert read_cut(scratch, [cut], data) == expected


@law(100)
@given(content=contents)
def test_without_quoting_every_line_is_a_row(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    data = DataSpec(**PLAIN, quoting="none")
    expected = oracle(content, quoting=csv.QUOTE_NONE)
    for cut in range(1, len(content)):
        assert read_cut(scratch, [cut], data) == expected


BLANKS = [b" ", b'"', b' "', b', "', b'",', b'" ,', b'  "a', b"\n", b'\n "', b"\r", b",", b"a", b'""', b'" "', b'"\n']
blank_contents = st.builds(b"".join, st.lists(st.sampled_from(BLANKS), min_size=1, max_size=24))


@law(300)
@given(content=blank_contents, piece_bytes=st.integers(1, 7))
@example(content=b'a,   "b\nc"\n', piece_bytes=1)
def test_blanks_that_are_skipped_are_skipped_wherever_a_file_is_cut(
    scratch: Path, content: bytes, piece_bytes: int
) -> None:
    scratch.write_bytes(content)
    data, layout = DataSpec(**PLAIN), Layout(",", 2, (0, 1), 0, skip_blanks=True)
    expected = oracle(content, skipinitialspace=True)
    assert list(read_shard(Shard(str(scratch), 0), layout, data)) == expected
    for cut in range(1, len(content)):
        assert read_cut(scratch, [cut], data, layout, piece_bytes) == expected


ESCAPES = [
    b"\\",
    b'\\"',
    b"\\\\",
    b"\\n",
    b"\\\n",
    b"\\,",
    b"\\\r",
    b'"',
    b',"',
    b'",',
    b'"a\\"b\nc"',
    b"\n",
    b"\r\n",
    b"a",
    b" ",
]
escaped_contents = st.builds(b"".join, st.lists(st.sampled_from(ESCAPES), min_size=1, max_size=24))


@law(400)
@given(
    content=escaped_contents,
    limit=st.integers(1, 6) | st.just(100),
    quoting=st.sampled_from(["minimal", "none"]),
    skip_blanks=st.booleans(),
)
@example(content=b'a\\\naaaaaa"b\nc,d\n', limit=5, quoting="minimal", skip_blanks=False)
@example(content=b'"a\\"\nbbbbbbbb\\"\n",c\nd\n', limit=5, quoting="minimal", skip_blanks=False)
def test_escapes_mean_what_csv_says_and_a_cell_over_the_limit_costs_its_own_row_only(
    scratch: Path, content: bytes, limit: int, quoting: str, skip_blanks: bool
) -> None:
    scratch.write_bytes(content)
    data = DataSpec(**PLAIN, escape="\\", quoting=quoting, max_cell_chars=limit)
    rows = oracle(
        content,
        quoting=csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL,
        escapechar="\\",
        skipinitialspace=skip_blanks,
    )
    expected = [(line, "too long" if any(len(cell) > limit for cell in fields) else fields) for line, fields in rows]
    found = read_shard(Shard(str(scratch), 0), Layout(",", 2, (0, 1), 0, skip_blanks=skip_blanks), data)
    assert [(line, "too long" if isinstance(f, CellTooLong) else f) for line, f in found] == expected


def test_a_file_with_escapes_is_one_shard(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"he said \\"hi, there\\"",pos\n' * 9)
    data = DataSpec(escape="\\", shard_bytes=1)
    (layout,), shards = plan_shards(expand([str(path)]), data)
    assert shards == [Shard(str(path), 0)]
    assert next(read_shard(shards[0], layout, data)) == (2, ['he said "hi, there"', "pos"])


@law(300)
@given(content=contents, limit=st.integers(1, 6), quoting=st.sampled_from(["minimal", "none"]), draw=st.data())
def test_a_cell_over_the_limit_costs_its_own_row_only(
    scratch: Path, content: bytes, limit: int, quoting: str, draw: st.DataObject
) -> None:
    scratch.write_bytes(content)
    data = DataSpec(**PLAIN, max_cell_chars=limit, quoting=quoting)
    rows = oracle(content, quoting=csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL)
    expected = [(line, "too long" if any(len(cell) > limit for cell in fields) else fields) for line, fields in rows]
    cuts = [draw.draw(st.integers(1, len(content) - 1))] if len(content) > 1 else []
    found = read_cut(scratch, cuts, data)
    assert [(line, "too long" if isinstance(f, CellTooLong) else f) for line, f in found] == expected


@pytest.mark.parametrize("path", NASTY_FILES, ids=lambda path: path.stem)
def test_nasty_files_give_the_rows_of_csv(path: Path) -> None:
    encoding = {"latin_1": "latin-1", "utf_16": "utf-16"}.get(path.stem, "utf-8")
    quoting = "none" if path.stem == "quotes_that_mean_nothing" else "minimal"
    data = DataSpec(encoding=encoding, quoting=quoting)
    files = expand([str(path)])
    layout = read_layout(files[0], data)
    rows = oracle(
        path.read_bytes(),
        encoding,
        layout.delimiter,
        csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL,
        skipinitialspace=layout.skip_blanks,
    )
    assert layout.skip_blanks == (path.stem == "blanks_before_quotes")
    assert rows[0][1] == ["text", "label"]
    for shard_bytes in range(1, files[0].size_bytes + 1):
        (layout,), shards = plan_shards(files, data.model_copy(update={"shard_bytes": shard_bytes}))
        assert [row for shard in shards for row in read_shard(shard, layout, data)] == rows[1:]


def test_the_index_of_nasty_files_is_complete() -> None:
    index = (NASTY_FILES[0].parent / "README.md").read_text()
    assert [path.name for path in NASTY_FILES] == [
        line.split("`")[1] for line in index.splitlines() if line.startswith("| `")
    ]


# --- shards ---------------------------------------------------------------------------------------------------------


def test_a_cell_of_10_mb_is_read_whole_wherever_it_is_cut(scratch: Path) -> None:
    cell = ('a line, a comma and ""quotes""\r\n' * 320_000).encode()
    content = b'before,pos\n"' + cell + b'",neg\nafter,pos\n'
    scratch.write_bytes(content)
    rng = random.Random(0)
    expected = oracle(content)
    for ranges in (2, 7, 40):
        cuts = sorted(rng.sample(range(1, len(content)), ranges - 1))
        shards = shards_of(scratch, cuts, LAYOUT, DataSpec(**PLAIN), 2**18)
        assert 1 <= len(shards) <= 3
        assert [row for shard in shards for row in read_shard(shard, LAYOUT, DataSpec(**PLAIN))] == expected


def test_a_range_inside_one_cell_holds_no_record(scratch: Path) -> None:
    scratch.write_bytes(b'"' + b"a\n" * 50 + b'",x\nb,y\n')
    scan = scan_range(str(scratch), ",", 20, 40)
    assert (scan.lines, scan.end_state) == (10, (0, 1))
    assert scan.first_record[1] is None


def test_a_range_without_a_line_start_changes_nothing(scratch: Path) -> None:
    scratch.write_bytes(b'x,"' + b'"' * 101 + b"\n")
    assert scan_range(str(scratch), ",", 5, 50) == (0, (0, 1), (None, None))


def test_a_run_of_quotes_longer_than_a_piece_is_one_run(scratch: Path) -> None:
    for quotes in range(1, 30):
        content = b'a,"' + b'"' * quotes + b'\nb,c"\nd,e\n'
        scratch.write_bytes(content)
        assert read_cut(scratch, [len(content) - 5], DataSpec(**PLAIN), piece_bytes=4) == oracle(content)


def test_scans_run_through_the_given_mapper(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "some text,pos\n" * 100)
    calls: list[int] = []

    def run(function, jobs):  # type: ignore[no-untyped-def]
        jobs = pickle.loads(pickle.dumps(list(jobs)))  # as Ray carries it
        calls.append(len(jobs))
        return [pickle.loads(pickle.dumps(function(*job))) for job in jobs]  # as Ray carries it

    layouts, shards = plan_shards(expand([str(path)]), DataSpec(shard_bytes=100), run=run)
    assert calls == [-(-path.stat().st_size // 100)] == [len(shards)]
    assert pickle.loads(pickle.dumps((layouts, shards))) == (layouts, shards)  # as Ray carries it
    assert [shard.first_line for shard in shards] == sorted({shard.first_line for shard in shards})
    assert sum(len(list(read_shard(shard, layouts[0], DataSpec()))) for shard in shards) == 100


def test_columns_are_found_by_name_in_each_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\none,pos\n")
    (tmp_path / "b.csv").write_text("id;label;text\n1;neg;two\n")
    files = expand([str(tmp_path / "*.csv")])
    layouts, shards = plan_shards(files, DataSpec())
    assert layouts == [
        Layout(",", 2, (0, 1), 1, header=("text", "label")),
        Layout(";", 3, (2, 1), 1, header=("id", "label", "text")),
    ]
    assert [shard.file_index for shard in shards] == [0, 1]
    assert list(read_shard(shards[1], layouts[1], DataSpec())) == [(2, ["1", "neg", "two"])]


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_a_compressed_file_is_one_shard_with_the_same_rows(tmp_path: Path, suffix: str, compress) -> None:  # type: ignore[no-untyped-def]
    content = BOM + b'text,label\n"one\nrow",pos\ntwo,neg\n'
    path = tmp_path / f"rows.csv{suffix}"
    path.write_bytes(compress(content))
    (layout,), shards = plan_shards(expand([str(path)]), DataSpec(shard_bytes=1))
    assert shards == [Shard(str(path), 0)]
    assert list(read_shard(shards[0], layout, DataSpec())) == oracle(content)[1:]


@pytest.mark.parametrize(
    "head", ["sep=;\n", "A title\nof; two lines\n\n", 'sep=;\r\n"a title\nin quotes"\r\n', "\n\ntitle;;\n;;\n"]
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_what_stands_above_the_header_is_left_out_wherever_the_file_is_cut(
    tmp_path: Path, head: str, suffix: str
) -> None:
    content = BOM + head.encode() + b'text;label\n"one\nrow";pos\ntwo;neg\ntext;label\nthree;pos\n'
    path = tmp_path / f"rows.csv{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    expected = oracle(content, delimiter=";")
    header = next(i for i, (_, fields) in enumerate(expected) if fields == ["text", "label"])
    for shard_bytes in range(1, len(content), 3):
        (layout,), shards = plan_shards(expand([str(path)]), DataSpec(shard_bytes=shard_bytes))
        assert layout.header_line == expected[header][0]
        assert [row for shard in shards for row in read_shard(shard, layout, DataSpec())] == expected[header + 1 :]


def test_a_damaged_compressed_file_is_an_error_not_fewer_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    rows = "".join(f"text {random.Random(i).random()},pos\n" for i in range(20_000))
    path.write_bytes(gzip.compress(b"text,label\n" + rows.encode())[:-5000])
    with pytest.raises(DataError, match=r"rows\.csv\.gz is incomplete"):
        list(read_shard(Shard(str(path), 0), LAYOUT, DataSpec()))


def test_an_object_in_a_bucket_is_cut_like_a_file(s3: str) -> None:
    content = BOM + b'text,label\n"one\nrow",pos\r\n' * 20
    write_bytes(f"{s3}/rows.csv", content)
    (layout,), shards = plan_shards(expand([f"{s3}/rows.csv"]), DataSpec(shard_bytes=100))
    assert len(shards) > 1
    assert [row for shard in shards for row in read_shard(shard, layout, DataSpec())] == oracle(content)[1:]


def test_utf_16_is_one_shard(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    content = 'text,label\n"one\nrow",pos\ntwo,neg\n'.encode("utf-16")
    path.write_bytes(content)
    data = DataSpec(encoding="utf-16", shard_bytes=1)
    (layout,), shards = plan_shards(expand([str(path)]), data)
    assert shards == [Shard(str(path), 0)]
    assert list(read_shard(shards[0], layout, data)) == oracle(content, "utf-16")[1:]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "UTF8", "utf-8-sig", "ascii", "latin-1", "cp1252", "iso8859-15", "koi8-r"]
)
def test_encodings_that_hold_ascii(encoding: str) -> None:
    assert holds_ascii(encoding)


OTHER_ENCODINGS = """
    utf-16 utf-16-le utf-32 utf-7 cp037 shift_jis gbk gb18030 big5 euc-jp iso2022_jp hz unicode_escape
    raw_unicode_escape
"""


@pytest.mark.parametrize("encoding", OTHER_ENCODINGS.split())
def test_encodings_that_do_not_hold_ascii(encoding: str) -> None:
    assert not holds_ascii(encoding)


# --- reading --------------------------------------------------------------------------------------------------------


def test_the_cell_limit_of_the_process_stays_as_it_was(scratch: Path) -> None:
    scratch.write_bytes(b"aaaa,b\nc,d\nee,f\n")
    before = csv.field_size_limit()
    small, large = (
        read_shard(Shard(str(scratch), 0), LAYOUT, DataSpec(**PLAIN, max_cell_chars=limit)) for limit in (3, 4)
    )
    found = []
    for pair in zip(small, large, strict=True):
        assert csv.field_size_limit() == before
        found.append(pair)
    assert [isinstance(fields, CellTooLong) for pair in found for _, fields in pair] == [True] + [False] * 5


def test_a_quote_that_is_never_closed_is_said_so(scratch: Path) -> None:
    scratch.write_bytes(b'a,b\nc,"d\n' + b"some more\n" * 10)
    rows = list(read_shard(Shard(str(scratch), 0), LAYOUT, DataSpec(**PLAIN, max_cell_chars=50)))
    assert rows[0] == (1, ["a", "b"])
    line, fields = rows[1]
    assert line == 2
    assert isinstance(fields, CellTooLong)
    assert "never closed" in fields.value
    assert len(rows) == 2


def test_memory_does_not_grow_with_an_unclosed_quote(scratch: Path) -> None:
    scratch.write_bytes(b'"' + (b"x" * 99 + b"\n") * 100_000)
    data = DataSpec(**PLAIN, max_cell_chars=10_000)
    tracemalloc.start()
    try:
        rows = list(read_shard(Shard(str(scratch), 0), LAYOUT, data))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(rows) == 1
    assert peak < 2**20


def test_a_line_without_an_end_is_refused_with_its_place(scratch: Path) -> None:
    scratch.write_bytes(b"a,b\n" + b"x" * 2**21)
    rows: Iterator[object] = read_shard(Shard(str(scratch), 0), LAYOUT, DataSpec(**PLAIN, max_cell_chars=10))
    assert next(rows) == (1, ["a", "b"])
    with pytest.raises(DataError, match=rf"{scratch.name}:2: no line end within 1,048,576 characters"):
        next(rows)


def test_bytes_that_the_encoding_cannot_stand_for_are_refused(scratch: Path) -> None:
    scratch.write_bytes("text,label\none,pos\n".encode("utf-16-le") + b"\x00\xd8\x41\x00")
    with pytest.raises(DataError, match="invalid utf-16-le"):
        list(read_shard(Shard(str(scratch), 0), LAYOUT, DataSpec(encoding="utf-16-le")))
