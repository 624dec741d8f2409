"""A record keeps the characters it is written in, but for the cells that change, and is read back as it should be."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from textcls.data.csv_layout import Layout
from textcls.data.csv_records import CellTooLong, Shard
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.masking.raw_records import read_raw, with_cells
from textcls.masking.settings import MaskedDataSpec

NASTY_FILES = sorted((Path(__file__).parent.parent / "csv").glob("*.csv"))
SETTINGS: dict[str, dict[str, Any]] = {
    "latin_1.csv": {"encoding": "latin-1"},
    "utf_16.csv": {"encoding": "utf-16"},
    "quotes_that_mean_nothing.csv": {"quoting": "none"},
    "blanks_before_quotes.csv": {"skip_initial_space": True},
}


@pytest.mark.parametrize("path", NASTY_FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("shard_bytes", [16, 100, 2**20])
def test_the_records_of_all_shards_are_every_character_of_the_file(path: Path, shard_bytes: int) -> None:
    data = MaskedDataSpec(header=False, shard_bytes=shard_bytes, **SETTINGS.get(path.name, {}))
    (layout,), shards = plan_shards(expand([str(path)]), data)
    content = path.read_bytes()
    text = content.removeprefix(b"\xef\xbb\xbf").decode(data.encoding, "surrogateescape")
    found = [record for shard in shards for record in read_raw(shard, layout, data)]
    assert "".join(record.before + record.raw for record in found) == text
    records = [record for record in found if record.fields is not None]
    assert len(records) > 1
    for record in records:
        assert not record.before.strip("\r\n")


def test_an_unclosed_quote_does_not_take_the_file_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_text("a,b\n" + '"' + "x\n" * 200_000)
    data = MaskedDataSpec(max_cell_chars=1000)
    (layout,), (shard,) = plan_shards(expand([str(path)]), data)
    *_, long, end = read_raw(shard, layout, data)
    assert isinstance(long.fields, CellTooLong)
    assert len(long.raw) < 100_000
    assert (end.fields, end.before) == (None, "")


CELLS = st.text(st.sampled_from('ab ,;"\n\r'), max_size=6)


@given(
    row=st.lists(
        st.sampled_from(["", "a", '"a"', '"a,b"', '"a""b"', '"a"",b"', '"a\nb"', 'a"b', '"a"b', " a", ' "a"', '""'])
    ),
    cell=CELLS,
    draw=st.data(),
    end=st.sampled_from(["\n", "\r\n", "\r", ""]),
    skip_blanks=st.booleans(),
)
@example(row=['"a"b', "c"], cell='x"', draw=None, end="\n", skip_blanks=False)
@example(row=['"a"",b"', '"c"'], cell="x", draw=None, end="\n", skip_blanks=False)
def test_a_changed_cell_is_read_back_and_the_others_keep_their_characters(
    row: list[str], cell: str, draw: Any, end: str, skip_blanks: bool
) -> None:
    row = row or ["a"]
    raw = ",".join(row) + end
    fields = parsed(raw, skip_blanks)
    position = draw.draw(st.integers(0, len(row) - 1)) if draw is not None else 0
    if not fields or len(fields) != len(row):
        return
    layout, data = Layout(",", len(row), (), 0, skip_blanks), MaskedDataSpec(header=False)
    kept = cell.lstrip(" ") if skip_blanks and not any(char in cell for char in ',"\r\n') else cell
    if skip_blanks and kept != cell and not row[position].lstrip(" ").startswith('"'):
        return  # csv itself cannot write such a cell without quotes it would not use
    changed = with_cells(raw, fields, {position: cell}, layout, data)
    if len(row) == 1 and not cell:
        return
    assert parsed(changed, skip_blanks) == [*fields[:position], cell, *fields[position + 1 :]]
    before, after = ",".join(row[:position]), ",".join(row[position + 1 :])
    assert changed.startswith(before)
    assert changed.endswith(after + end)


def parsed(raw: str, skip_blanks: bool) -> list[str]:
    return next(csv.reader(io.StringIO(raw, newline=""), skipinitialspace=skip_blanks), [])


def test_a_record_with_escapes_is_written_by_csv_and_read_back() -> None:
    layout, data = Layout(",", 2, (), 0), MaskedDataSpec(escape="\\")
    changed = with_cells('"a \\"b\\"",c\\,d\r\n', ['a "b"', "c,d"], {1: "e,f\\"}, layout, data)
    (record,) = csv.reader(io.StringIO(changed, newline=""), escapechar="\\")
    assert record == ['a "b"', "e,f\\"]
    assert changed.endswith("\r\n")


def test_where_quotes_mean_nothing_none_are_written() -> None:
    layout, data = Layout("|", 2, (), 0), MaskedDataSpec(quoting="none")
    assert with_cells('"a|b"\n', ['"a', 'b"'], {0: "[X]"}, layout, data) == '[X]|b"\n'


def test_a_shard_of_an_empty_tail_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_text("a,b\n\n\n1,2\n\n\n")
    data = MaskedDataSpec()
    (layout,), (shard,) = plan_shards(expand([str(path)]), data)
    assert shard == Shard(str(path), 0)
    found = list(read_raw(shard, layout, data))
    assert [(one.line, one.before, one.raw) for one in found] == [
        (1, "", "a,b\n"),
        (4, "\n\n", "1,2\n"),
        (5, "\n\n", ""),
    ]
