"""The first record of a file decides its layout; where it cannot, the error holds the setting that helps."""

import io
import shlex
import zipfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from textcls.data.csv_layout import Layout
from textcls.data.csv_shards import read_layout
from textcls.data.input_files import InputFile
from textcls.errors import DataError
from textcls.recipe import DataSpec
from textcls.recipe_file import parse_recipe


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layout") / "scratch.csv"


def layout_of(path: Path, content: str | bytes, data: DataSpec | None = None) -> Layout:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_layout(InputFile(str(path), path.stat().st_size), data or DataSpec())


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
    assert layout_of(scratch, header + "\n") == Layout(delimiter, 4, (1, 2), 1)


def test_without_a_header_auto_takes_the_delimiter_with_the_most_fields(scratch: Path) -> None:
    data = DataSpec(header=False, text_columns="1", label_column="0")
    assert layout_of(scratch, "pos;a text, with a comma;x\n", data) == Layout(";", 3, (1, 0), 0)
    assert layout_of(scratch, "pos,a;text\n", data) == Layout(",", 2, (1, 0), 0)


def test_the_header_is_the_first_line_that_is_not_empty(scratch: Path) -> None:
    assert layout_of(scratch, b'\xef\xbb\xbf\r\n\n"text","label"\n') == Layout(",", 2, (0, 1), 3)


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


def test_a_column_that_stands_twice_is_refused_only_if_it_is_used(scratch: Path) -> None:
    assert layout_of(scratch, "text,label,id,id\n").width == 4
    error = error_of(scratch, "text,label,text\n")
    assert "'text' 2 times, at positions 0 and 2" in error.found


def test_a_position_beyond_the_fields_is_told_with_the_fields(scratch: Path) -> None:
    data = DataSpec(header=False, text_columns="1", label_column="7")
    error = error_of(scratch, "pos,some text\n", data)
    assert "no field at position 7" in error.found
    assert "has 2: 'pos', 'some text'" in error.found


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_comes_with_the_setting_that_reads_it(scratch: Path, encoding: str) -> None:
    content = "text,label\nnaïve ☃,pos\n".encode(encoding)
    assert layout_of(scratch, content, after(error_of(scratch, content))) == Layout(",", 2, (0, 1), 1)


def test_a_zip_file_is_named_as_one(scratch: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("rows.csv", "text,label\n")
    assert "zip or Excel" in error_of(scratch, buffer.getvalue()).found


def test_a_file_of_empty_lines_is_refused(scratch: Path) -> None:
    assert "empty lines" in error_of(scratch, "\n\r\n\r").found


def test_a_quote_in_the_header_that_is_never_closed_is_told_with_its_line(scratch: Path) -> None:
    error = error_of(scratch, '\n"text,label\n' + "one,pos\n" * 100, DataSpec(max_cell_chars=100))
    assert f"{scratch.name}:2" in error.found
    assert "never closed" in error.found


def test_a_delimiter_that_makes_the_header_one_over_long_cell_is_not_chosen(scratch: Path) -> None:
    assert layout_of(scratch, "text,label,id\n", DataSpec(max_cell_chars=6)) == Layout(",", 3, (0, 1), 1)
    assert layout_of(scratch, 'text,label,;"x\n' + "one,pos,\n" * 9, DataSpec(max_cell_chars=20)).delimiter == ","
