"""What a block of rows holds, and that every row of a file is in its summary. `pytest tests/unit/test_row_tables.py`"""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from textcls.data import row_tables, row_tokens
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.data.spellings import Spellings
from textcls.data.summary import RowSummary
from textcls.settings.data import DataSpec
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.single_label import SINGLE_LABEL

OVERRIDES = ["data.where.source=[a, Z]", "data.label_map={'0': bad, '9': odd}"]


def tables_of(path: Path, *overrides: str) -> list[pa.Table]:
    """Every table of a file, shard by shard."""
    recipe = parse_recipe("", [*overrides])
    text, data = recipe.text, recipe.data.model_copy(update={"csv": (str(path),)})
    layouts, shards = plan_shards(expand(data.csv), data)
    return [table for shard in shards for table in row_tables.read_tables(shard, layouts[0], data, text, SINGLE_LABEL)]


def total(tables: list[pa.Table]) -> RowSummary:
    found = RowSummary()
    for table in tables:
        found.add(row_tables.summarize(table, SINGLE_LABEL))
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """90 rows, 60 of them with source a, two of those with an empty text."""
    rows = (f"{'' if i in (4, 7) else f'film {i}'},{i % 2},{'ab'[i % 3 == 0]}\n" for i in range(90))
    (tmp_path / "r.csv").write_text("text,label,source\n" + "".join(rows))
    return tmp_path / "r.csv"


@pytest.mark.parametrize("shard_bytes", [100, 10_000])
def test_clean_rows_rejects_and_rows_outside_where_add_up_to_the_file(path: Path, shard_bytes: int) -> None:
    tables = tables_of(path, *OVERRIDES, f"data.shard_bytes={shard_bytes}")
    found = total(tables)
    assert (found.rows, found.reasons, found.outside_where) == (58, Counter(missing_text=2), 30)
    assert found.spellings == Spellings({"source": Counter(a=60, b=30, Z=0)}, Counter({"0": 29, "1": 29, "9": 0}))
    assert found.labels == Counter({"bad": 29, "1": 29})
    assert sum(row_tables.clean_rows(table).num_rows for table in tables) == 58
    assert [row_tables.file_and_line(row["row_id"]) for row in found.examples["missing_text"]] == [(0, 6), (0, 9)]


def test_each_row_of_a_table_is_clean_or_a_reject_or_the_counts_of_its_shard(path: Path) -> None:
    (table,) = tables_of(path, *OVERRIDES)
    kinds = [tuple(row[kind] is not None for kind in ("text", "reason", "counts")) for row in table.to_pylist()]
    assert {sum(kind) for kind in kinds} == {1}
    assert kinds[-1] == (False, False, True)
    assert kinds.count((False, False, True)) == 1


def test_rejects_are_listed_with_file_and_line(path: Path) -> None:
    (table,) = tables_of(path)
    listed = row_tables.rejects(table, [str(path)]).to_pylist()
    empty = {"file": str(path), "column": "text", "reason": "missing_text", "value": ""}
    assert listed == [{**empty, "line": 6}, {**empty, "line": 9}]


def test_the_fingerprint_of_a_table_changes_with_any_clean_row(path: Path) -> None:
    (before,) = total(tables_of(path)).digests
    path.write_text(path.read_text().replace("film 3,", "film 3 again,"))
    assert total(tables_of(path)).digests != [before]


def test_a_shard_without_rows_has_a_table_with_every_column(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("text,label\n")
    (table,) = tables_of(tmp_path / "r.csv")
    assert table.schema == row_tables.schema_of(DataSpec())
    assert total([table]).read == 0


def test_placeholders_are_counted_by_split_whatever_the_chunks() -> None:
    rows = [[2, 7, 8, 7, 3], [], [2, 3], [7], [8, 8], [7, 7], [8]]
    codes = np.array([0, 0, 1, 1, 2, 3, 4], np.int8)  # the last two are duplicates and rejects
    expected = [[2, 1, 0], [1, 0, 0], [0, 2, 0]]
    for cut in range(len(rows) + 1):
        chunks = [pa.array(part, pa.list_(pa.int32())) for part in (rows[:cut], rows[cut:])]
        ids = pa.chunked_array(chunks, pa.list_(pa.int32()))
        assert row_tokens.placeholder_counts(ids, codes, (7, 8, 9)).tolist() == expected
    assert row_tokens.placeholder_counts(ids, codes, ()).shape == (3, 0)
    assert row_tokens.placeholder_counts(ids.slice(2), codes[2:], (7,)).tolist() == [[0], [1], [0]]
    assert row_tokens.placeholder_counts(ids.slice(0, 0), codes[:0], (7,)).tolist() == [[0], [0], [0]]


def test_rows_that_hold_personal_data_are_counted_once_for_each_kind(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(
        "text,label\nmail a@example.com or b@example.com,good\nmail [EMAIL] 13800001234,bad\n,good\nnone,bad\n"
    )
    masks = ["text.mask=[email, cn_mobile, card]"]
    found = total(tables_of(tmp_path / "r.csv", *masks))
    assert dict(found.masked) == {"email": 2, "cn_mobile": 1}
    assert total(tables_of(tmp_path / "r.csv")).masked.total() == 0
    found.add(found)
    assert found.masked["email"] == 4
