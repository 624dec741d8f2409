"""Rows that cannot be used come with what helps; whoever does what the message says gets further.

Each test makes a file, meets the refusal, does what its to-do says, and reads every row.
"""

import gzip
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.languages import CHINESE, FRENCH, JAPANESE, KOREAN, RUSSIAN, TAIWANESE
from tests.unit.reading import options
from textcls.batch.settings import UnlabelledSpec
from textcls.data import checks
from textcls.data.csv_layout import layout_notes
from textcls.data.csv_records import read_shard
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.data.label_columns import with_label_columns
from textcls.data.remedies import CsvFiles, Location, remedy
from textcls.data.rows import Reason, Reject, RowCleaner
from textcls.errors import DataError
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.registry import task_of

Texts = list[tuple[str, str]]


def sources_of(paths: Sequence[Path], data: DataSpec) -> CsvFiles:
    files = expand([str(path) for path in paths])
    data = with_label_columns(files, data)
    return CsvFiles(files, *plan_shards(files, data), data)


def read(paths: Path | Sequence[Path], *settings: str, notes: list[str] | None = None) -> Texts:
    """The clean rows of files, as a run would read them; or its refusal."""
    sources = sources_of([paths] if isinstance(paths, Path) else paths, parse_recipe("", settings).data)
    data, task = sources.data, task_of(sources.data)
    clean: Texts = []
    rejects: dict[str, list[Location]] = {}
    for shard in sources.shards:
        cleaner = RowCleaner(sources.layouts[shard.file_index], data, TextSpec(), task)
        for line, fields in read_shard(shard, sources.layouts[shard.file_index], data):
            row = cleaner(line, fields)
            if isinstance(row, Reject):
                rejects.setdefault(row.reason, []).append((shard.file_index, line))
            elif row is not None:
                clean.append((row.input.text, row.label))
    reasons = {reason: len(places) for reason, places in rejects.items()}
    checks.refuse_unfit(
        data,
        read=len(clean) + sum(reasons.values()),
        outside_where=0,
        reasons=reasons,
        examples=[],
        labels=sorted({name for _, label in clean for name in task.names_in(label)}),
        remedy=lambda reason: remedy(reason, sources, rejects[reason][:3]),
    )
    if notes is not None:
        notes += layout_notes(sources.layouts)
    return clean


def todo_of(paths: Path | Sequence[Path], *settings: str) -> str:
    with pytest.raises(DataError) as caught:
        read(paths, *settings)
    return caught.value.todo


def first_set(todo: str) -> str:
    """The first `--set` of a to-do, as a shell hands it on."""
    words = shlex.split(todo[todo.index("--set") :].split("; to go on without them")[0])
    return words[1].rstrip(";")


def labelled(lines: Sequence[str], times: int = 3) -> Texts:
    """The texts of some lines, with labels in ASCII."""
    return [(line.rpartition(",")[0], ("pos", "neg")[i % 2]) for i, line in enumerate(list(lines) * times)]


def as_csv(rows: Texts) -> str:
    return "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)


# --- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "lines"),
    [
        ("cp1252", FRENCH),
        ("latin-1", FRENCH),
        ("gb18030", CHINESE),
        ("gbk", CHINESE),
        ("shift_jis", JAPANESE),
        ("euc_kr", KOREAN),
        ("big5", TAIWANESE),
        ("cp1251", RUSSIAN),
        ("utf-16", CHINESE),
        ("utf-16-le", CHINESE),
        ("utf-16-be", FRENCH),
    ],
)
@pytest.mark.parametrize("wrong", ["utf-8", "ascii"])
def test_rows_in_another_encoding_come_with_the_setting_that_reads_them_all(
    tmp_path: Path, encoding: str, lines: list[str], wrong: str
) -> None:
    rows = labelled(lines)
    path = tmp_path / "rows.csv"
    path.write_bytes(as_csv(rows).encode(encoding))
    todo = todo_of(path, f"data.encoding={wrong}")
    assert read(path, first_set(todo)) == rows


def test_rows_that_fit_several_encodings_come_with_a_setting_for_each(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("text,label\nfoo,굿\nbar,neg\n".encode("euc_kr"))
    todo = todo_of(path)
    assert " or --set data.encoding=" in todo
    assert "compare the texts that train --dry-run then prints" in todo
    assert ("foo", "굿") in read(path, "data.encoding=cp949")
    assert "data.encoding=cp949" in todo


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_encoding_is_told_by_the_rows_at_fault_wherever_they_are(tmp_path: Path, suffix: str) -> None:
    rows = [(f"plain text {i}", "pos") for i in range(9000)] + labelled(FRENCH, 40)
    path = tmp_path / f"rows.csv{suffix}"
    content = as_csv(rows).encode("cp1252")
    path.write_bytes(gzip.compress(content) if suffix else content)
    todo = todo_of(path, "data.shard_bytes=20000")
    assert first_set(todo) == "data.encoding=cp1252"
    assert read(path, first_set(todo)) == rows


def test_a_file_in_another_encoding_than_its_neighbours_comes_with_the_command_that_converts_it(tmp_path: Path) -> None:
    good, bad = tmp_path / "a.csv", tmp_path / "b.csv"
    good.write_text(as_csv(labelled(CHINESE)))
    bad.write_bytes(as_csv(labelled(FRENCH)).encode("cp1252"))
    todo = todo_of([good, bad])
    command = todo[todo.index("cat ") :].split("; to go on without them")[0]
    subprocess.run(command, shell=True, check=True)
    assert read([good, Path(shlex.split(command)[-1])]) == labelled(CHINESE) + labelled(FRENCH)


def test_a_few_damaged_rows_of_a_good_file_do_not_change_its_encoding(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = labelled(CHINESE, 10)
    path.write_bytes(as_csv(rows).encode() + "好".encode()[:2] + b"!,pos\n")
    todo = todo_of(path)
    assert "data.encoding" not in todo.replace("other non-ASCII lines are in utf-8", "")
    assert "other non-ASCII lines are in utf-8, these are not" in todo
    assert read(path, first_fraction(todo)) == rows


def first_fraction(todo: str) -> str:
    found = re.search(r"data\.max_reject_fraction=[\d.]+", todo)
    assert found
    return found[0]


def test_the_share_that_lets_rejects_go_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for bad in (1, 2, 7):
        path.write_text("text,label\n" + "good,pos\nbad,neg\n" * 10 + "no label,\n" * bad)
        assert len(read(path, first_fraction(todo_of(path)))) == 20


def test_unlabelled_rows_in_another_encoding_come_with_the_setting_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(as_csv(labelled(FRENCH)).encode("cp1252"))
    assert "--set data.encoding=cp1252" in remedy(Reason.UNDECODABLE, sources_of([path], UnlabelledSpec()))


# --- dialects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "setting", "rows"),
    [
        (
            "text,label\n" + '"he said \\"well, yes\\" and left",pos\n"plain",neg\n' * 9,
            'data.escape="\\\\"',
            [('he said "well, yes" and left', "pos"), ("plain", "neg")] * 9,
        ),
        (
            'text\tlabel\n"5 tall\tpos\nfine\tneg\n' * 1 + '"6 tall\tpos\nfine\tneg\n' * 8,
            "data.quoting=none",
            [('"5 tall', "pos"), ("fine", "neg")] + [('"6 tall', "pos"), ("fine", "neg")] * 8,
        ),
    ],
)
def test_ragged_rows_come_with_the_setting_under_which_they_fit(
    tmp_path: Path, content: str, setting: str, rows: Texts
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    assert first_set(todo_of(path)) == setting
    assert read(path, setting) == rows


def test_blanks_before_quotes_far_below_come_with_the_setting_that_skips_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [(f"plain text {i}", "pos") for i in range(300)] + [("one, two", "neg")] * 100
    path.write_text("label,text\n" + "".join(f"{b},{a}\n" if "," not in a else f'{b}, "{a}"\n' for a, b in rows))
    assert first_set(todo_of(path)) == "data.skip_initial_space=true"
    assert read(path, "data.skip_initial_space=true") == rows


def test_a_quote_that_is_never_closed_comes_with_its_place_or_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"one,pos\n' + "two,neg\n" * 99)
    todo = todo_of(path, "data.max_cell_chars=200")
    assert first_set(todo) == "data.quoting=none"
    assert len(read(path, "data.max_cell_chars=200", "data.quoting=none")) == 100


def test_a_setting_that_leaves_rows_misshapen_is_not_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + '"he said \\"well, yes\\"",pos\none, two,pos\nfine,neg\n' * 9)
    assert "data.escape" not in todo_of(path)


def test_a_cell_that_is_too_long_comes_with_a_limit_that_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f'text,label\n"{"long, " * 9}",pos\ntwo,neg\n')
    assert len(read(path, first_set(todo_of(path, "data.max_cell_chars=20")))) == 2


def test_unquoted_commas_come_with_the_place_to_correct(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "one, two, three,pos\nfour,neg\nfive,pos\n" * 9)
    todo = todo_of(path)
    assert f"rows such as {path}:2 do not have the 2 fields of the header" in todo
    assert len(read(path, first_fraction(todo))) == 18


# --- columns ----------------------------------------------------------------------------------------------------------


def test_an_empty_label_column_comes_with_the_column_that_holds_labels(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,text,label,class\n" + "".join(f"{i},text {i},,{'ab'[i % 2]}\n" for i in range(20)))
    assert first_set(todo_of(path)) == "data.label_column=class"
    assert len(read(path, "data.label_column=class")) == 20


def test_half_a_column_of_labels_is_no_reason_to_read_another_one(tmp_path: Path) -> None:
    path = tmp_path / "to_label.csv"
    why = ("uncertain", "random")
    rows = [f"film {i},{why[i % 2]},{('pos', 'neg')[i // 2 % 2] if i % 2 else ''}" for i in range(40)]
    path.write_text("\n".join(["text,why,label", *rows]) + "\n")
    todo = todo_of(path)
    assert "fill in column 'label' in these rows, or delete them" in todo
    assert "'why'" not in todo
    path.write_text("\n".join(["text,why,label", *rows[1::2]]) + "\n")
    assert len(read(path)) == 20


def test_an_empty_text_column_comes_with_the_column_that_holds_texts(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,text,label,body\n" + "".join(f"{i},,{'ab'[i % 2]},some words {i}\n" for i in range(20)))
    assert first_set(todo_of(path)) == "data.text_columns=body"
    assert len(read(path, "data.text_columns=body")) == 20


# --- records that are no rows -----------------------------------------------------------------------------------------


def test_a_repeated_header_is_a_reject_of_its_own_kind(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    part = "text,label\n" + "good,pos\nbad,neg\n" * 100
    path.write_bytes(part.encode() + b"\xef\xbb\xbf" + part.encode() + part.upper().replace("\n", "\r\n", 1).encode())
    rows = read(path)
    assert len(rows) == 600
    assert Counter(label for _, label in rows).keys() == {"pos", "neg", "POS", "NEG"}


def test_a_second_header_in_another_order_comes_with_the_commands_that_cut_the_file(tmp_path: Path) -> None:
    path = tmp_path / "my rows.csv"
    path.write_text('text,label\n"good\nlines",pos\nbad,neg\nlabel,text\npos,fine\nneg,awful\n')
    with pytest.raises(DataError, match=rf"{path.name}:5: a second header, in another order: label, text") as caught:
        read(path)
    command = caught.value.todo[caught.value.todo.index("head") :]
    subprocess.run(command, shell=True, check=True)
    parts = sorted(tmp_path.glob("my rows.csv.*"))
    assert read(parts) == [("good\nlines", "pos"), ("bad", "neg"), ("fine", "pos"), ("awful", "neg")]
    # However the file is cut.
    for size in range(1, path.stat().st_size):
        with pytest.raises(DataError, match=r"csv:5: a second header"):
            read(path, f"data.shard_bytes={size}")


def test_a_second_header_of_other_columns_comes_with_the_commands_that_cut_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\ngood,pos\nbad,neg\ntext,label,source\nfine,pos,a\n")
    todo = todo_of(path)
    assert "rows.csv:4 is a header of other columns" in todo
    subprocess.run(todo[todo.index("head -n") :].split("; to go on without them")[0], shell=True, check=True)
    assert read(sorted(tmp_path.glob("rows.csv.*"))) == [("good", "pos"), ("bad", "neg"), ("fine", "pos")]


# --- label columns ----------------------------------------------------------------------------------------------------

LABEL_COLUMNS = ("is_late", "is_lost", "is_paid")


def test_a_pattern_of_label_columns_matches_neither_text_of_a_pair(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("is_question,answer,is_spam\nhow?,so,1\nwhy?,thus,0\n", encoding="utf-8")
    data = parse_recipe("", ["data.pair=[is_question,answer]", "data.label_columns=[is_*]"]).data
    assert with_label_columns(expand([str(path)]), data).label_columns == ("is_spam",)


def one_hot(path: Path, yes: str, no: str, *more: tuple[str, Sequence[str]]) -> Path:
    """40 rows with three label columns and others, each (name, its cells in turn)."""
    lines = [",".join(["text", *(name for name, _ in more), *LABEL_COLUMNS])]
    for row in range(40):
        labels = [yes if row % (2 + i) == 0 else no for i in range(3)]
        lines.append(",".join([f"parcel {row}", *(cells[row % len(cells)] for _, cells in more), *labels]))
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(("yes", "no"), [("1", ""), ("x", ""), ("1", "-"), ("X", "0"), ("yes", " "), ("✓", "—")])
def test_other_cells_of_label_columns_come_with_the_setting_that_reads_them(tmp_path: Path, yes: str, no: str) -> None:
    plain = read(one_hot(tmp_path / "plain.csv", "1", "0"), "data.label_columns=[is_*]")
    path = one_hot(tmp_path / "rows.csv", yes, no)
    todo = todo_of(path, "data.label_columns=[is_*]")
    option = options(todo)[0]
    assert read(path, "data.label_columns=[is_*]", option) == plain


def test_empty_cells_among_zeros_are_no_zeros_unless_the_user_says_so(tmp_path: Path) -> None:
    path = one_hot(tmp_path / "rows.csv", "1", "0", ("is_new", ["1", "0", "0", ""]))
    todo = todo_of(path, "data.label_columns=[is_*]")
    assert todo.startswith("fill in the empty cells")
    assert len(read(path, "data.label_columns=[is_*]", options(todo)[0])) == 40


def test_a_column_that_a_pattern_catches_by_mistake_is_named_with_the_columns_to_read(tmp_path: Path) -> None:
    plain = read(one_hot(tmp_path / "plain.csv", "1", "0"), "data.label_columns=[is_*]")
    path = one_hot(tmp_path / "rows.csv", "1", "0", ("is_id", [str(1000 + row) for row in range(40)]))
    todo = todo_of(path, "data.label_columns=[is_*]")
    assert "'is_id'" in todo
    assert "data.label_columns" in todo
    assert read(path, options(todo)[0]) == plain


def test_cells_of_many_words_are_to_be_corrected(tmp_path: Path) -> None:
    path = one_hot(tmp_path / "rows.csv", "1", "0", ("is_new", ["1", "0", "never", "always", "at times"]))
    assert "data.label_cells" not in todo_of(path, "data.label_columns=[is_*]")
