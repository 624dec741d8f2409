"""The columns of `report.slices` are read beside the rows and change nothing about them."""

from pathlib import Path

import pytest

from tests.unit.reading import options, read_as
from textcls.data import row_tables
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.data.slice_columns import slice_fields, with_slices
from textcls.errors import DataError, InputError
from textcls.settings.recipe import Recipe, TextSpec
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.single_label import SINGLE_LABEL


def written(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def table_of(recipe: Recipe, path: Path):
    data = with_slices(recipe.data, recipe.report.slices).model_copy(update={"csv": (str(path),)})
    layouts, shards = plan_shards(expand(data.csv), data, run=lambda function, jobs: [function(*job) for job in jobs])
    (table,) = row_tables.read_tables(shards[0], layouts[0], data, TextSpec(), SINGLE_LABEL)
    assert table.schema == row_tables.schema_of(data)
    return table


def test_the_cells_of_slices_lie_beside_clean_rows(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.csv", "text,label,channel,age", "fine,good,mail,31", ",bad,chat,", f"bad,bad,,{'x' * 500}"
    )
    table = table_of(parse_recipe("", ["report.slices=[age, channel]"]), path)
    clean = row_tables.clean_rows(table)
    assert clean["slice_1"].to_pylist() == ["mail", ""]
    first, cut = clean["slice_0"].to_pylist()
    assert (first, len(cut)) == ("31", 120)
    plain = table_of(Recipe(), path)
    assert table.select(plain.column_names).equals(plain)
    assert slice_fields(Recipe().data) == []


def test_a_cell_that_cannot_be_decoded_is_no_reject(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,label,channel", "fine,good,caf\xe9", encoding="latin-1")
    clean = row_tables.clean_rows(table_of(parse_recipe("", ["report.slices=channel"]), path))
    assert clean["slice_0"].to_pylist() == ["caf\\xe9"]


@pytest.mark.parametrize(
    ("asked", "advised"), [("[chanel, age]", ("channel", "age")), ("[age, nothing]", ("age",)), ("nothing", ())]
)
def test_a_missing_column_comes_with_those_that_exist_and_a_setting_that_works(
    tmp_path: Path, asked: str, advised: tuple[str, ...]
) -> None:
    path = written(tmp_path / "a.csv", "text,label,channel,age", "fine,good,mail,31")
    recipe = parse_recipe("", [f"report.slices={asked}"])
    with pytest.raises(DataError, match=r"no column .*the header has 'text', 'label', 'channel', 'age'") as caught:
        read_as(with_slices(recipe.data, recipe.report.slices), [path])
    assert isinstance(caught.value, InputError)
    (advice,) = options(caught.value.todo)
    followed = parse_recipe("", [advice])
    assert followed.report.slices == advised
    assert read_as(with_slices(followed.data, followed.report.slices), [path]).found.rows == 1


def test_without_a_header_slices_are_positions(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "fine,good,mail", "bad,bad,chat")
    settings = ["data.header=false", "data.text_columns=0", "data.label_column=1"]
    clean = row_tables.clean_rows(table_of(parse_recipe("", [*settings, "report.slices=2"]), path))
    assert clean["slice_0"].to_pylist() == ["mail", "chat"]
    recipe = parse_recipe("", [*settings, "report.slices=7"])
    with pytest.raises(DataError, match="no field at position 7") as caught:
        read_as(with_slices(recipe.data, recipe.report.slices), [path])
    assert "report.slices" in caught.value.todo
