"""`data.exclude`: what is to be forgotten is read from its file, leaves no trace in the account, and is recorded."""

import csv
import hashlib
import itertools
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcls.commands import forget
from textcls.data.checks import refuse_conflicts, refuse_unfit
from textcls.data.csv_shards import plan_shards
from textcls.data.exclusion import Exclusion
from textcls.data.exclusion_files import read_exclusion, text_marks
from textcls.data.input_files import expand
from textcls.data.messages import check_rows, read_lines
from textcls.data.read import ReadRows
from textcls.data.remedies import CsvFiles
from textcls.data.row_tables import clean_rows, read_tables, rejects, summarize
from textcls.data.rows import Reason
from textcls.errors import DataError, RunDirError
from textcls.settings.data import DataSpec
from textcls.settings.recipe import Recipe, TextSpec
from textcls.tasks.registry import task_of
from textcls.training.run_dir import RunDir

TEXTS = {"C-1": "My Invoice  is wrong", "C-2": "my invoice is wrong", "007": "thank you", "7": "thank you, all"}


def write(path: Path, rows: list[list[str]], *, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A CSV of texts with the number of a customer; the first two texts are duplicates."""
    content = [[key, text, "good" if i % 2 else "bad"] for i, (key, text) in enumerate(TEXTS.items())]
    return write(tmp_path / "rows.csv", [["customer", "text", "label"], *content])


def excluding(rows: Path, *files: Path, text: TextSpec | None = None, **settings) -> ReadRows:
    """The rows, read in this process with these files as `data.exclude`."""
    data = DataSpec(csv=(str(rows),), exclude=tuple(map(str, files)), **settings)
    text, task, found = text or TextSpec(), task_of(data), expand(data.csv)
    exclusion = read_exclusion(data, text)
    layouts, shards = plan_shards(found, data)
    tables = [
        table
        for shard in shards
        for table in read_tables(shard, layouts[shard.file_index], data, text, task, exclusion=exclusion)
    ]
    table = pa.concat_tables(tables)
    csv_files = CsvFiles(found, layouts, shards, data)
    return ReadRows(csv_files, task, ("bad", "good"), summarize(table, task), [table], [], [], 0.0, exclusion)


def kept(read: ReadRows) -> list[str]:
    """The texts that are left, in order."""
    return clean_rows(read.blocks[0])["text"].to_pylist()


def rejected(read: ReadRows) -> list[tuple[int, str, str, str]]:
    found = rejects(read.blocks[0], read.files).to_pylist()
    return [(row["line"], row["column"], row["reason"], row["value"]) for row in found]


# --- by text ----------------------------------------------------------------------------------------------------------


def test_every_copy_of_a_text_goes_also_in_other_case_and_spacing(rows: Path, tmp_path: Path) -> None:
    named = write(tmp_path / "forget.csv", [["text"], ["MY invoice is wrong "]])
    read = excluding(rows, named)
    assert kept(read) == ["thank you", "thank you, all"]
    assert rejected(read) == [(2, "", "excluded", ""), (3, "", "excluded", "")]
    assert (read.summary.read, read.summary.rows, read.summary.rejects) == (4, 2, 2)


def test_case_counts_where_the_model_reads_it(rows: Path, tmp_path: Path) -> None:
    named = write(tmp_path / "forget.csv", [["text"], ["my invoice is wrong"]])
    assert kept(excluding(rows, named, text=TextSpec(lowercase=False)))[0] == "My Invoice  is wrong"


def test_a_file_of_hashes_does_what_the_texts_do_and_holds_none(rows: Path, tmp_path: Path) -> None:
    named = write(tmp_path / "forget.csv", [["text"], ["my invoice is wrong"], ["never written"]])
    hashes, out = tmp_path / "hashes.txt", [["--csv", str(named)], ["--out", str(tmp_path / "hashes.txt")]]
    assert forget.main(["--recipe", "base", *itertools.chain(*out)]) == 0
    assert forget.main(["--recipe", "base", *itertools.chain(*out)]) == 2  # never written over
    out[1][1] = str(tmp_path / "new.txt")
    assert forget.main(["--recipe", "base", *itertools.chain(*out)]) == 0
    assert (tmp_path / "new.txt").read_bytes() == hashes.read_bytes()
    assert "invoice" not in hashes.read_text()
    by_hash, by_text = excluding(rows, hashes), excluding(rows, named)
    assert kept(by_hash) == kept(by_text) == ["thank you", "thank you, all"]
    assert by_hash.excluded == by_text.excluded
    assert by_hash.fingerprint == by_text.fingerprint


def test_with_masks_copies_with_other_identifiers_go_as_well(tmp_path: Path) -> None:
    data = [
        ["text", "label"],
        ["Call 555-010-4477 now", "bad"],
        ["call 555-010-9921  now", "good"],
        ["call now", "bad"],
    ]
    path = write(tmp_path / "rows.csv", data)
    named = write(tmp_path / "forget.csv", [["text"], ["Call 555-010-0000 now"]])
    masked, hashes = TextSpec(mask=("phone",)), tmp_path / "hashes.txt"
    assert len(kept(excluding(path, named))) == 3
    assert kept(excluding(path, named, text=masked)) == ["call now"]
    options = ["--set", "text.mask=[phone]", "--csv", str(named), "--out", str(hashes)]
    assert forget.main(["--recipe", "base", *options]) == 0
    assert kept(excluding(path, hashes, text=masked)) == ["call now"]
    with pytest.raises(DataError, match="other text settings"):
        excluding(path, hashes)


def test_a_pair_is_excluded_as_a_pair(tmp_path: Path) -> None:
    header = ["q", "a", "label"]
    data = [["Why?", "So", "good"], ["Why?", "So what", "bad"], ["Why? So", "what", "bad"], ["why?", "so", "bad"]]
    path = write(tmp_path / "pairs.csv", [header, *data])
    named = write(tmp_path / "forget.csv", [["q", "a"], ["WHY?", "so"]])
    read = excluding(path, named, pair=("q", "a"))
    assert [row[0] for row in rejected(read)] == [2, 5]
    hashes = tmp_path / "hashes.txt"
    options = ["--set", "data.pair=[q, a]", "--csv", str(named), "--out", str(hashes)]
    assert forget.main(["--recipe", "base", *options]) == 0
    assert rejected(excluding(path, hashes, pair=("q", "a"))) == rejected(read)


def test_hashes_of_other_text_settings_are_refused_until_they_are_made_again(rows: Path, tmp_path: Path) -> None:
    named = write(tmp_path / "forget.csv", [["text"], ["My Invoice is wrong"]])
    hashes, cased = tmp_path / "hashes.txt", TextSpec(lowercase=False)
    data = DataSpec()
    hashes.write_text("\n".join(text_marks(expand([str(named)]), data, TextSpec())))
    assert len(kept(excluding(rows, hashes))) == 2
    with pytest.raises(DataError, match="other text settings") as refused:
        excluding(rows, hashes, text=cased)
    assert f"{hashes}:1" in refused.value.found
    hashes.write_text("\n".join(text_marks(expand([str(named)]), data, cased)))
    assert kept(excluding(rows, hashes, text=cased))[0] == "my invoice is wrong"
    # Another length of texts is no other text.
    assert excluding(rows, hashes, text=TextSpec(lowercase=False, max_tokens=16)).excluded.rows == 1


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4, unique=True))
def test_the_digest_does_not_depend_on_the_order_of_the_entries(texts: list[str]) -> None:
    entries = [("", hashlib.sha256(text.encode()).hexdigest(), f"f:{i}") for i, text in enumerate(texts)]
    one, other = (Exclusion.of("", found, "0" * 8) for found in (entries, [*reversed(entries), *entries]))
    assert one.digest == other.digest
    assert len(other.places) == len(texts)
    assert Exclusion.of("", entries[1:], "0" * 8).digest != one.digest


# --- by key -----------------------------------------------------------------------------------------------------------


def test_by_key_only_the_rows_of_this_key_go_and_equal_texts_of_others_stay(rows: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("C-1\n")
    read = excluding(rows, keys, exclude_by="customer")
    assert kept(read) == ["my invoice is wrong", "thank you", "thank you, all"]
    assert rejected(read) == [(2, "", "excluded", "")]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"C-1\n\n  7 \n", [2, 5]),
        (b'"C-1"\r\n"7"\r\n', [2, 5]),
        (b"\xef\xbb\xbfcustomer\nC-1\n7", [2, 5]),
        (b"name;customer\nsomebody;C-1\nsomebody else;7\n", [2, 5]),
        (b"customer,text,label\n007,thank you,good\n", [4]),
        (b"\n", []),
        (b"", []),
    ],
)
def test_keys_are_read_one_a_line_or_from_their_column(
    rows: Path, tmp_path: Path, content: bytes, lines: list[int]
) -> None:
    keys = tmp_path / "keys.csv"
    keys.write_bytes(content)
    assert [row[0] for row in rejected(excluding(rows, keys, exclude_by="customer"))] == lines


def test_keys_are_text_and_another_spelling_is_told_not_guessed(rows: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("c-1\n7\nC-9\n0007.0\n")
    read = excluding(rows, keys, exclude_by="customer")
    assert [row[0] for row in rejected(read)] == [5]  # not 007
    said = [line for line in read_lines(read) if "entries" in line]
    assert said[0].startswith("  excluded 1 rows by 4 entries of data.exclude (digest ")
    assert said[1] == f"  1 entries match no row, as if they were deleted before: {keys}:3"
    assert "2 entries match no row as they are written, but some rows in another spelling" in said[2]
    assert said[2].endswith(f"{keys}:4, {keys}:1")  # by entry, not by line
    assert not any("C-9" in line or "c-1" in line for line in said)


def test_without_a_header_the_key_is_a_position_and_its_file_has_none(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", [["0", "a text", "bad"], ["1", "a film", "good"], ["0", "more", "bad"]])
    keys = tmp_path / "keys.txt"
    keys.write_text("0\n")
    settings = {"header": False, "text_columns": ("1",), "label_column": "2", "exclude_by": "0"}
    assert kept(excluding(path, keys, **settings)) == ["a film"]


def test_keys_texts_and_hashes_may_come_together_and_all_that_match_are_counted(rows: Path, tmp_path: Path) -> None:
    named = [["text"], ["my invoice is wrong"], ["thank you"]]
    keys, hashes, texts = tmp_path / "keys.txt", tmp_path / "hashes.txt", write(tmp_path / "texts.csv", named)
    keys.write_text("C-1\n007\n")
    hashes.write_text("\n".join(text_marks(expand([str(texts)]), DataSpec(), TextSpec())))
    read = excluding(rows, keys, hashes, texts, exclude_by="customer")
    assert [row[0] for row in rejected(read)] == [2, 3, 4]
    record = read.excluded
    assert (record.entries, record.without_rows, record.rows) == (4, 0, 3)


def test_the_record_can_be_made_again_from_the_entries(rows: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("C-1\nC-9\n7\n7\n")
    record = excluding(rows, keys, exclude_by="customer").excluded
    entries = ['["customer", "7"]', '["customer", "C-1"]', '["customer", "C-9"]']
    assert record.digest == hashlib.sha256("\n".join(sorted(entries)).encode()).hexdigest()
    assert (record.entries, record.without_rows, record.rows) == (3, 1, 2)


def test_a_run_is_not_resumed_with_another_list_even_if_it_takes_out_the_same_rows(rows: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("C-1\n")
    run = RunDir.claim(str(tmp_path / "run"), Recipe(), resume=False)
    run.bind_data(excluding(rows, keys, exclude_by="customer").fingerprint)
    keys.write_text("C-1\nC-9\n")
    with pytest.raises(RunDirError, match=r"those of data\.exclude, are not those this run began with"):
        run.bind_data(excluding(rows, keys, exclude_by="customer").fingerprint)
    keys.write_text("C-1\n\n")
    run.bind_data(excluding(rows, keys, exclude_by="customer").fingerprint)


def test_nothing_to_exclude_leaves_the_rows_as_they_are(rows: Path, tmp_path: Path) -> None:
    before = excluding(rows)
    assert (before.excluded, before.summary.excluded) == (None, {})
    empty = tmp_path / "none.txt"
    empty.write_text("")
    assert kept(excluding(rows, empty)) == kept(before) == list(TEXTS.values())
    read = excluding(rows, empty)
    assert read.excluded.entries == 0
    assert [line for line in read_lines(read) if "warning" in line and "hold no entry" in line]


# --- nothing of it is repeated ----------------------------------------------------------------------------------------


def test_no_other_reject_repeats_what_is_to_be_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"customer,text,label\nC-1,secret \xff text,bad\nC-1,another secret,\nC-2,a text,secret label\n")
    keys = tmp_path / "keys.txt"
    keys.write_text("C-1\nC-2\n")
    read = excluding(path, keys, exclude_by="customer", labels=("bad", "good"))
    assert read.summary.reasons == {Reason.EXCLUDED: 3}
    assert "secret" not in str(rejected(read))
    assert read.summary.spellings.labels.total() == 0
    written = str(read.blocks[0].to_pylist())
    assert "secret" not in written
    assert "C-1" not in written


def test_excluded_rows_do_not_stop_a_run_unless_none_is_left() -> None:
    data, excluded = DataSpec(max_reject_fraction=0.01), str(Reason.EXCLUDED)
    arguments = {"read": 100, "outside_where": 0, "examples": [], "labels": ("bad", "good")}
    refuse_unfit(data, reasons={excluded: 40}, **arguments)
    refuse_conflicts(data, 100, {excluded: 40, str(Reason.CONFLICTING_LABELS): 1})
    with pytest.raises(DataError, match="2 of 100 rows"):
        refuse_unfit(data, reasons={excluded: 40, str(Reason.MISSING_TEXT): 2}, **arguments)
    with pytest.raises(DataError, match="takes out all 100 rows"):
        refuse_unfit(data, reasons={excluded: 100}, **arguments)
    with pytest.raises(DataError, match=r"takes out 60 of 100 rows, and data\.decisions drops the others"):
        refuse_unfit(data, reasons={excluded: 60, str(Reason.DROPPED_BY_DECISION): 40}, **arguments)


def test_what_takes_out_every_row_is_refused_until_it_does_not(rows: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("\n".join(TEXTS))
    with pytest.raises(DataError, match="takes out all 4 rows") as refused:
        check_rows(excluding(rows, keys, exclude_by="customer"))
    assert refused.value.todo == "check the files of data.exclude and the column of data.exclude_by"
    keys.write_text("C-1\n")
    check_rows(excluding(rows, keys, exclude_by="customer"))


# --- files that cannot be used ----------------------------------------------------------------------------------------


def test_a_file_that_is_none_of_these_is_refused_until_it_is_one(rows: Path, tmp_path: Path) -> None:
    path = tmp_path / "forget.csv"
    with pytest.raises(DataError, match="no such file"):
        excluding(rows, path)
    path.write_text("C-1\n")
    with pytest.raises(DataError, match="neither texts nor hashes") as refused:
        excluding(rows, path)
    assert "data.exclude_by=NAME" in refused.value.todo
    assert len(kept(excluding(rows, path, exclude_by="customer"))) == 3
    path.write_text("C-1,somebody\n")
    with pytest.raises(DataError, match=r"forget\.csv:1 is not one key"):
        excluding(rows, path, exclude_by="customer")
    path.write_text('"C-1,somebody"\n')
    assert len(kept(excluding(rows, path, exclude_by="customer"))) == 4
    path.write_text('"C-1\n' + "somebody\n" * 50_000)
    with pytest.raises(DataError, match=r"forget\.csv:1 is not one key"):
        excluding(rows, path, exclude_by="customer")


@pytest.mark.parametrize("line", ["thank you", "text-12345678-abc"])
def test_a_line_among_hashes_that_is_none_is_refused_and_not_repeated(rows: Path, tmp_path: Path, line: str) -> None:
    texts = write(tmp_path / "texts.csv", [["text"], ["my invoice is wrong"]])
    hashes = tmp_path / "hashes.txt"
    marks = text_marks(expand([str(texts)]), DataSpec(), TextSpec())
    hashes.write_text("\n".join([*marks, line]))
    with pytest.raises(DataError, match=r"hashes\.txt:2 is no hash") as refused:
        excluding(rows, hashes)
    assert line not in str(refused.value).replace(str(hashes), "")
    hashes.write_text("\n".join(marks))
    assert len(kept(excluding(rows, hashes))) == 2


@pytest.mark.parametrize(
    ("row", "reason"), [("a secret,x", "ragged_row"), ('""', "missing_text"), ("secret \udcff", "undecodable")]
)
def test_a_row_that_cannot_be_read_is_refused_and_not_repeated(
    rows: Path, tmp_path: Path, row: str, reason: str
) -> None:
    path = tmp_path / "forget.csv"
    path.write_bytes(f"text\nthank you\n{row}\n".encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=rf"forget\.csv:3 is no row of such a file: {reason}") as refused:
        excluding(rows, path)
    assert "secret" not in str(refused.value)
    path.write_text("text\nthank you\n")
    assert len(kept(excluding(rows, path))) == 3


def test_texts_are_read_in_the_encoding_of_the_data_or_as_a_spreadsheet_saves_them(tmp_path: Path) -> None:
    data = [["text", "label"], ["schöne Grüße", "good"], ["nein", "bad"]]
    path = write(tmp_path / "rows.csv", data, encoding="cp1252", delimiter=";")
    settings = {"encoding": "cp1252", "delimiter": ";"}
    for encoding, delimiter in (("cp1252", ";"), ("utf-8-sig", ","), ("utf-8", "\t")):
        named = write(tmp_path / "forget.csv", [["text"], ["Schöne Grüße"]], encoding=encoding, delimiter=delimiter)
        assert kept(excluding(path, named, **settings)) == ["nein"]


def test_a_column_of_keys_that_the_rows_lack_comes_with_the_closest(rows: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("C-1\n")
    with pytest.raises(DataError, match="custmer") as refused:
        excluding(rows, keys, exclude_by="custmer")
    assert "--set data.exclude_by=customer" in refused.value.todo
