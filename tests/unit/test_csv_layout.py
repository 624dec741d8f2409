"""The first record of a file decides its layout; where it cannot, the error holds the setting that helps."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from textcls.data.csv_head import read_layout
from textcls.data.csv_layout import Layout
from textcls.data.csv_records import Shard, read_shard
from textcls.data.input_files import InputFile
from textcls.errors import DataError
from textcls.settings.data import DataSpec
from textcls.settings.recipe_file import parse_recipe


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layout") / "scratch.csv"


def layout_of(path: Path, content: str | bytes, data: DataSpec | None = None) -> Layout:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_layout(InputFile(str(path), path.stat().st_size), data or DataSpec())


def shape(layout: Layout) -> tuple[str, int, tuple[int, ...], int]:
    return layout.delimiter, layout.width, layout.positions, layout.header_line


def error_of(path: Path, content: str | bytes, data: DataSpec | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        layout_of(path, content, data)
    assert str(path) in caught.value.found
    return caught.value


def after(error: DataError, *, before: tuple[str, ...] = ()) -> DataSpec:
    """The data settings once the user has typed every --set of an error into a shell."""
    words = shlex.split(error.todo[error.todo.index("--set") :])
    assert words[::2] == ["--set"] * (len(words) // 2)
    return parse_recipe("", [*before, *words[1::2]]).data


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_auto_finds_the_delimiter_under_which_the_columns_exist(scratch: Path, delimiter: str) -> None:
    header = delimiter.join(["id", '"text"', "label", "a,b" if delimiter != "," else "a;b"])
    assert shape(layout_of(scratch, header + "\n")) == (delimiter, 4, (1, 2), 1)


def test_without_a_header_auto_takes_the_delimiter_with_the_most_fields(scratch: Path) -> None:
    data = DataSpec(header=False, text_columns="1", label_column="0")
    assert shape(layout_of(scratch, "pos;a text, with a comma;x\n", data)) == (";", 3, (1, 0), 0)
    assert shape(layout_of(scratch, "pos,a;text\n", data)) == (",", 2, (1, 0), 0)


def test_the_header_is_the_first_line_that_is_not_empty(scratch: Path) -> None:
    assert shape(layout_of(scratch, b'\xef\xbb\xbf\r\n\n"text","label"\n')) == (",", 2, (0, 1), 3)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("review,Label", {"label_column": "Label", "text_columns": ("review",)}),
        ("review,lable", {"label_column": "lable", "text_columns": ("review",)}),
        ('review," label"', {"label_column": " label", "text_columns": ("review",)}),
        ("Review,label", {"label_column": "label", "text_columns": ("Review",)}),
        ("reviews,labels,id", {"label_column": "labels", "text_columns": ("reviews",)}),
    ],
)
def test_a_missing_column_comes_with_the_setting_that_names_the_closest(
    scratch: Path, header: str, expected: dict[str, object]
) -> None:
    settings_before = ("data.text_columns=review",)
    error = error_of(scratch, header + "\n", parse_recipe("", settings_before).data)
    data = after(error, before=settings_before)
    assert {key: getattr(data, key) for key in expected} == expected
    assert layout_of(scratch, header + "\n", data).width == len(header.split(","))


@settings(deadline=None, derandomize=True, database=None)
@given(name=st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=6, max_size=12))
def test_the_setting_in_an_error_survives_shell_and_yaml(scratch: Path, name: str) -> None:
    # One character more than the real name, so that the real one is the closest.
    assume(not set(name) & set(',;|\t"'))
    data = DataSpec(label_column=name + "x")
    fixed = after(error_of(scratch, f"text,{name}\n", data))
    assert fixed.label_column == name


def test_one_of_several_text_columns_is_corrected_and_the_others_kept(scratch: Path) -> None:
    error = error_of(scratch, "title,text body,label\n", DataSpec(text_columns=("title", "text_body")))
    assert after(error).text_columns == ("title", "text body")


def test_a_missing_column_is_told_with_the_columns_that_exist(scratch: Path) -> None:
    error = error_of(scratch, ",".join(f"column{i}" for i in range(50)) + "\n")
    assert "'text' or 'label'" in error.found
    assert "'column0', 'column1'" in error.found
    assert "and 30 more" in error.found


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", ":", "^", "~", " "])
def test_a_wrong_delimiter_comes_with_the_setting_that_is_right(scratch: Path, delimiter: str) -> None:
    header = delimiter.join(["text", "label", "id"]) + "\n"
    wrong = DataSpec(delimiter=";" if delimiter == "," else ",") if delimiter in ",;\t|" else DataSpec()
    assert layout_of(scratch, header, after(error_of(scratch, header, wrong))).delimiter == delimiter


def test_blanks_around_commas_are_no_delimiter(scratch: Path) -> None:
    content = "text , label\none , pos\n"
    data = after(error_of(scratch, content))
    assert data.text_columns == ("text ",)
    assert [fields for _, fields in read_shard(Shard(str(scratch), 0), layout_of(scratch, content, data), data)] == [
        ["one ", "pos"]
    ]


@pytest.mark.parametrize("content", [bytes(1000), bytes(range(256)) * 20], ids=["NUL", "every byte"])
def test_binary_data_are_named_as_such(scratch: Path, content: bytes) -> None:
    assert "is it binary data?" in error_of(scratch, content).todo


def test_a_column_that_stands_twice_is_refused_only_if_it_is_used(scratch: Path) -> None:
    assert layout_of(scratch, "text,label,id,id\n").width == 4
    error = error_of(scratch, "text,label,text\n")
    assert "'text' 2 times: positions 0 and 2" in error.found


def test_a_position_beyond_the_fields_is_told_with_the_fields(scratch: Path) -> None:
    data = DataSpec(header=False, text_columns="1", label_column="7")
    error = error_of(scratch, "pos,some text\n", data)
    assert "no field at position 7" in error.found
    assert "has 2: 'pos', 'some text'" in error.found


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_comes_with_the_setting_that_reads_it(scratch: Path, encoding: str) -> None:
    content = "text,label\nnaïve ☃,pos\n".encode(encoding)
    assert shape(layout_of(scratch, content, after(error_of(scratch, content)))) == (",", 2, (0, 1), 1)


def test_a_file_of_empty_lines_is_refused(scratch: Path) -> None:
    assert "empty lines" in error_of(scratch, "\n\r\n\r").found


def test_a_quote_in_the_header_that_is_never_closed_is_told_with_its_line(scratch: Path) -> None:
    error = error_of(scratch, '\n"text,label\n' + "one,pos\n" * 100, DataSpec(max_cell_chars=100))
    assert f"{scratch.name}:2" in error.found
    assert "never closed" in error.found


def test_a_delimiter_that_makes_the_header_one_over_long_cell_is_not_chosen(scratch: Path) -> None:
    assert shape(layout_of(scratch, "text,label,id\n", DataSpec(max_cell_chars=6))) == (",", 3, (0, 1), 1)
    assert layout_of(scratch, 'text,label,;"x\n' + "one,pos,\n" * 9, DataSpec(max_cell_chars=20)).delimiter == ","


# --- what stands above the header ------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["sep=;", "SEP=;", '"sep=;"', "sep=;;;", "\ufeffsep=;"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_sep_line_of_excel_is_no_row_and_names_the_delimiter(scratch: Path, line: str, end: str) -> None:
    layout = layout_of(scratch, end.join([line, "text;label", "one;pos", ""]))
    assert shape(layout) == (";", 2, (0, 1), 2)
    assert f"{scratch}:1: the line 'sep=;' is Excel's and is skipped" in layout.notes
    assert list(read_shard(Shard(str(scratch), 0), layout, DataSpec())) == [(3, ["one", "pos"])]


def test_the_delimiter_of_a_sep_line_wins_over_the_usual_ones(scratch: Path) -> None:
    assert shape(layout_of(scratch, "sep=^\ntext^label\n")) == ("^", 2, (0, 1), 2)
    assert shape(layout_of(scratch, "sep=\t\ntext\tlabel\n")) == ("\t", 2, (0, 1), 2)


def test_a_setting_wins_over_a_sep_line_and_a_wrong_sep_line_does_no_harm(scratch: Path) -> None:
    assert layout_of(scratch, "sep=;\ntext,label\n", DataSpec(delimiter=",")).delimiter == ","
    assert layout_of(scratch, "sep=;\ntext,label\n").delimiter == ","


def test_a_sep_line_is_no_row_without_a_header_either(scratch: Path) -> None:
    data = DataSpec(header=False, text_columns="0", label_column="1")
    layout = layout_of(scratch, "sep=;\none;pos\ntwo;neg\n", data)
    assert shape(layout) == (";", 2, (0, 1), 1)
    assert list(read_shard(Shard(str(scratch), 0), layout, data)) == [(2, ["one", "pos"]), (3, ["two", "neg"])]


@pytest.mark.parametrize(
    "titles",
    ["Reviews of 2024\n", "Reviews of 2024,\n,\n", "Export\n\nall rows; sorted\n", '"a ""title""\nof 2 lines"\n'],
)
def test_title_lines_above_the_header_are_recognised_and_told(scratch: Path, titles: str) -> None:
    layout = layout_of(scratch, titles + "id,text,label\n1,one,pos\n")
    line = titles.count("\n") + 1
    assert shape(layout) == (",", 3, (1, 2), line)
    assert f"{scratch}:{line}: used as the header" in layout.notes[0]
    assert list(read_shard(Shard(str(scratch), 0), layout, DataSpec())) == [(line + 1, ["1", "one", "pos"])]


def test_a_header_far_below_is_not_guessed(scratch: Path) -> None:
    assert "no column 'text' or 'label'" in error_of(scratch, "a,b\n" * 100 + "text,label\n").found


def test_a_file_with_a_plain_header_has_no_notes(scratch: Path) -> None:
    assert layout_of(scratch, "text,label\nnaïve,pos\n").notes == ()


# --- blanks after the delimiter --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('"text", "label"\n"one, two", "pos"\n', [["one, two", "pos"]]),
        ("text, label\none, pos\n", [["one", "pos"]]),
        ('text,label\n"one", "pos"\n"two, three",  "neg"\n', [["one", "pos"], ["two, three", "neg"]]),
        ('label; text\npos; "one; two"\nneg; three\n', [["pos", "one; two"], ["neg", "three"]]),
        ('label,text\npos, "one, two"\nneg, three\n', [["pos", "one, two"], ["neg", "three"]]),
        # Not layout: a blank here and there is text.
        ('text,label\none, pos\n "two",neg\n', [["one", " pos"], [' "two"', "neg"]]),
        ('label,text\npos, "one"\nneg,"two"\n', [["pos", ' "one"'], ["neg", "two"]]),
        ("text,label\none, pos\n", [["one", " pos"]]),
    ],
)
def test_blanks_before_quotes_are_layout_where_it_is_certain(
    scratch: Path, content: str, rows: list[list[str]]
) -> None:
    layout = layout_of(scratch, content)
    assert [fields for _, fields in read_shard(Shard(str(scratch), 0), layout, DataSpec())] == rows
    assert ("blanks after a delimiter are skipped" in "".join(layout.notes)) == layout.skip_blanks


def test_a_setting_keeps_blanks_or_skips_them(scratch: Path) -> None:
    kept = DataSpec(skip_initial_space=False)
    error = error_of(scratch, '"text", "label"\n"one", "pos"\n', kept)
    assert after(error).skip_initial_space is True
    skipped = layout_of(scratch, "text,label\none, pos\n", DataSpec(skip_initial_space=True))
    assert list(read_shard(Shard(str(scratch), 0), skipped, DataSpec())) == [(2, ["one", "pos"])]


# --- encodings and other formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "gb18030", "gbk", "big5", "cp1252"])
def test_columns_that_fit_in_another_encoding_come_with_its_setting(scratch: Path, encoding: str) -> None:
    text, label = ("文本", "标签") if encoding.startswith(("utf", "gb")) else ("文本", "標籤")
    if encoding == "cp1252":
        text, label = "texte rédigé", "étiquette"
    before = (f"data.text_columns={text}", f"data.label_column={label}")
    content = f"{text},{label}\n一,好\n" if encoding != "cp1252" else f"{text},{label}\nça,été\n"
    error = error_of(scratch, content.encode(encoding), parse_recipe("", before).data)
    data = after(error, before=before)
    layout = layout_of(scratch, content.encode(encoding), data)
    assert layout.header == (text, label)


def test_a_header_in_no_readable_encoding_names_the_likely_one_first(scratch: Path) -> None:
    content = "отзыв,оценка\nЭтот фильм был очень хорош,хорошо\n".encode("cp1251")
    assert after(error_of(scratch, content)).encoding == "cp1251"


@pytest.mark.parametrize("asked", ["utf-16", "utf-16-le"])
@pytest.mark.parametrize("actual", ["utf-8", "cp1252", "gb18030"])
def test_a_file_that_is_not_utf_16_comes_with_the_setting_that_reads_it(scratch: Path, asked: str, actual: str) -> None:
    cell = "这部电影真的很好看" if actual == "gb18030" else "un café très bon"
    content = f"text,label\n{cell},pos\n".encode(actual)
    data = after(error_of(scratch, content, DataSpec(encoding=asked)))
    assert (data.encoding, layout_of(scratch, content, data).width) == (actual, 2)


def test_utf_8_that_is_read_as_something_else_is_told(scratch: Path) -> None:
    for encoding in ("cp1252", "latin-1", "cp1251"):
        (note,) = layout_of(scratch, "text,label\nun café,pos\n", DataSpec(encoding=encoding)).notes
        assert note.endswith("--set data.encoding=utf-8")
    assert layout_of(scratch, "text,label\nun café,pos\n".encode("cp1252"), DataSpec(encoding="cp1252")).notes == ()


def test_utf_8_that_was_once_read_as_cp1252_is_told_with_the_command_that_undoes_it(scratch: Path) -> None:
    right = "text,label\n" + "un café très bon,pos\nnaïve,neg\n" * 3
    (note,) = layout_of(scratch, right.encode().decode("cp1252")).notes
    assert "'cafÃ©' for 'café'" in note
    command = note[note.index("iconv") :].removesuffix(" does")
    subprocess.run(command, shell=True, check=True)
    repaired = Path(shlex.split(command)[-1])
    assert repaired.read_text() == right


def test_a_few_such_words_in_a_good_file_are_not_told(scratch: Path) -> None:
    assert layout_of(scratch, "text,label\n" + "un café,pos\n" * 9 + "Ã© is mojibake,neg\n").notes == ()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('{"text": "one", "label": "pos"}\n{"text": "two", "label": "neg"}\n', "JSON"),
        ('[{"text": "one", "label": "pos"}, {"text": "two", "label": "neg"}]', "JSON"),
        ("<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page or XML"),
    ],
)
def test_json_and_web_pages_are_named_as_such(scratch: Path, content: str, kind: str) -> None:
    todo = error_of(scratch, content).todo
    assert f"is it {kind}?" in todo
    if kind == "JSON":
        subprocess.run(todo[todo.index("python") :].replace("python", sys.executable, 1), shell=True, check=True)
        made = scratch.with_name("scratch-plain.csv")
        assert made.read_text() == "text,label\none,pos\ntwo,neg\n"


# --- what is only told -----------------------------------------------------------------------------------------------


def test_a_total_that_is_read_as_a_row_is_told(scratch: Path) -> None:
    (note,) = layout_of(scratch, "text,label\ngood,pos\nTotal,300\n\n").notes
    assert "the last line, 'Total,300', looks like a total and is read as a row" in note
    for content in ("text,label\ntotal,pos\n", "text,label\nTotal,\n", "text,label\nTotal,3\ngood,pos\n"):
        assert layout_of(scratch, content).notes == ()


def test_backslashes_before_quotes_that_csv_would_have_doubled_are_told(scratch: Path) -> None:
    content = 'text,label\nfine,pos\n"he said \\"yes\\" twice",neg\n'
    (note,) = layout_of(scratch, content).notes
    assert f"{scratch}:3:" in note
    data = parse_recipe("", [shlex.split(note[note.index("--set") :])[1]]).data
    assert list(read_shard(Shard(str(scratch), 0), layout_of(scratch, content, data), data))[1:] == [
        (3, ['he said "yes" twice', "neg"])
    ]
    assert layout_of(scratch, content, data).notes == ()


@pytest.mark.parametrize(
    "row", ['"C:\\dir\\",pos', '"{""a"": ""b\\""c""}",pos', "a \\n and \\ in text,pos", '"he said ""yes""",neg']
)
def test_backslashes_that_mean_nothing_are_not_told(scratch: Path, row: str) -> None:
    assert layout_of(scratch, f"text,label\n{row}\n").notes == ()
