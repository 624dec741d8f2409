"""Laws 1 to 3 on the real data graph. `pytest tests/local_ray/test_pipeline.py`"""

import csv
import io
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import ray

from tests.local_ray.conftest import prepared_data, read, small_recipe, write_reviews
from textcls.data import split_blocks
from textcls.data.spellings import Spellings
from textcls.data.split_blocks import PreparedData, split_rows
from textcls.errors import DataError
from textcls.on_ray.session import ray_session
from textcls.training.run import dry_run


def rows_of(prepared: PreparedData) -> dict[str, list[tuple[tuple[int, ...], int]]]:
    """Split -> (token ids, label id) of each row, in order."""
    found = {}
    for name, blocks in prepared.blocks.items():
        tables = ray.get(blocks)
        found[name] = [(tuple(row["input_ids"]), row["target"]) for table in tables for row in table.to_pylist()]
    return found


def nasty(path: Path) -> Path:
    """Good rows among rejects of every kind, duplicates and empty lines."""
    rows = [
        "text,label,n",
        *(f'"good film {i}\nindeed",positive,{i}' for i in range(40)),
        *(f"bad film {i},negative,{i}" for i in range(40)),
        ",positive,1",
        "no label,,1",
        "",
        "too,many,fields,here",
        "short,row",
        "GOOD   film 3 indeed,positive,9",
        '"quoted ""thing""",negative,2',
        'bare "quote" here,positive,2',
    ]
    path.write_bytes("\r\n".join(rows).encode() + b"\r\nbroken \xff bytes,negative,3\r\n")
    return path


def test_every_row_is_accounted_for(tiny_model_dir, tmp_path):
    recipe = small_recipe(tiny_model_dir, nasty(tmp_path / "n.csv"), "data.max_reject_fraction=0.2")
    data = read(recipe)
    prepared = split_rows(data, recipe.split, max_tokens=32)
    with (tmp_path / "n.csv").open(newline="", errors="surrogateescape") as file:
        expected = sum(1 for row in csv.reader(file) if row) - 1
    account = prepared.account
    assert account.read == expected
    assert account.is_balanced
    assert (account.outcomes["rejects"], account.outcomes["duplicates"]) == (5, 1)
    assert account.reject_reasons == {"missing_text": 1, "missing_label": 1, "ragged_row": 2, "undecodable": 1}
    rejects = [row for table in data.rejects() for row in table.to_pylist()]
    assert [(r["line"], r["reason"]) for r in rejects] == [
        (122, "missing_text"),
        (123, "missing_label"),
        (125, "ragged_row"),
        (126, "ragged_row"),
        (130, "undecodable"),
    ]
    assert {r["file"] for r in rejects} == {str(tmp_path / "n.csv")}


@pytest.mark.parametrize("shard_bytes", [100, 777, 5000])
def test_shards_change_nothing(tiny_model_dir, tmp_path, shard_bytes):
    path = write_reviews(tmp_path / "r.csv", 300)
    whole = prepared_data(small_recipe(tiny_model_dir, path))
    cut = prepared_data(small_recipe(tiny_model_dir, path, f"data.shard_bytes={shard_bytes}"))
    assert rows_of(cut) == rows_of(whole)
    assert cut.account == whole.account


def test_split_does_not_depend_on_order_or_layout_of_files(tiny_model_dir, tmp_path):
    path = write_reviews(tmp_path / "all.csv", 300)
    header, *rows = csv.reader(io.StringIO(path.read_text()))
    random.Random(1).shuffle(rows)
    names = []
    for i in range(3):
        name = tmp_path / f"part{i}.csv"
        with name.open("w", newline="") as file:
            csv.writer(file, delimiter=",;\t"[i], lineterminator="\r\n").writerows([header, *rows[i::3]])
        names.append(str(name))
    one = prepared_data(small_recipe(tiny_model_dir, path))
    many = prepared_data(small_recipe(tiny_model_dir, path, f"data.csv={names}"))
    for name in ("train", "val", "test"):
        assert sorted(rows_of(one)[name]) == sorted(rows_of(many)[name])


def test_hash_ranges_change_nothing(tiny_model_dir, tmp_path, monkeypatch):
    recipe = small_recipe(tiny_model_dir, write_reviews(tmp_path / "r.csv", 300), "data.shard_bytes=3000")
    data = read(recipe)
    one = split_rows(data, recipe.split, max_tokens=32)
    monkeypatch.setattr(split_blocks, "_ROWS_PER_RANGE", 40)
    assert rows_of(split_rows(data, recipe.split, max_tokens=32)) == rows_of(one)


def test_a_text_under_two_labels_is_reported_and_stays_in_one_split(tiny_model_dir, tmp_path):
    path = write_reviews(tmp_path / "r.csv", 100)
    with path.open("a") as file:
        file.write("The same thing,positive\nthe  SAME thing,negative\n" * 3)
    prepared = prepared_data(small_recipe(tiny_model_dir, path, "data.on_duplicate=keep_all"))
    assert prepared.conflicts[0] == 1
    assert prepared.conflicts[1][0].startswith(str(path) + ":")
    counts = {name: len(rows) - len({ids for ids, _ in rows}) for name, rows in rows_of(prepared).items()}
    assert sorted(counts.values()) == [0, 0, 5]


def test_an_error_of_ours_comes_out_of_a_task_as_it_was(tiny_model_dir, tmp_path):
    path = tmp_path / "cut_short.csv"
    rows = "".join(f"review {i},{'ab'[i % 2]}\n" for i in range(2000))
    path.write_bytes(f"text,label\n{rows}".encode("utf-16") + b"\x00\xd8\x00\x00")
    recipe = small_recipe(tiny_model_dir, path, "data.encoding=utf-16")
    with pytest.raises(DataError) as caught, ray_session():
        read(recipe)
    assert type(caught.value) is DataError
    assert str(caught.value).startswith(f"{path}, after line")


def test_where_and_label_map_choose_rows_before_they_are_read(tiny_model_dir, tmp_path):
    path = tmp_path / "w.csv"
    path.write_text("text,label,source\n" + "".join(f"review {i},{i % 2},{'ab'[i % 3 == 0]}\n" for i in range(90)))
    prepared = prepared_data(
        small_recipe(tiny_model_dir, path, "data.where.source=a", "data.label_map={'0': bad, '1': good}")
    )
    assert prepared.labels == ("bad", "good")
    assert (prepared.account.read, prepared.account.outside_where) == (60, 30)
    assert prepared.account.is_balanced


@pytest.mark.parametrize("shard_bytes", [100, 10_000])
def test_spellings_that_settings_name_are_counted_over_all_shards_and_told(tiny_model_dir, tmp_path, shard_bytes):
    path = tmp_path / "w.csv"
    path.write_text("text,label,source\n" + "".join(f"review {i},{i % 2}.0,{'ab'[i % 3 == 0]}\n" for i in range(90)))
    overrides = ["data.where.source=[A, b]", "data.label_map={'0': bad}", f"data.shard_bytes={shard_bytes}"]
    recipe = small_recipe(tiny_model_dir, path, *overrides)
    data = read(recipe)
    assert data.summary.spellings == Spellings(
        {"source": Counter(A=0, b=30, a=60)}, Counter({"0": 0, "0.0": 15, "1.0": 15})
    )
    assert data.summary.outside_where == 60
    told = []
    dry_run(recipe, say=told.append)
    for part in ("no row has 'source' 'A'; 60 have 'a'", "no row has the label '0'; 15 have '0.0'", '{"0.0": "bad"}'):
        assert part in "\n".join(told)


def test_token_counts_are_those_before_the_cut(tiny_model_dir, tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("text,label\n" + "".join(f"{'film ' * n}{n},{n % 2}\n" for n in range(1, 61)))
    prepared = prepared_data(small_recipe(tiny_model_dir, path))
    lengths = [len(ids) for rows in rows_of(prepared).values() for ids, _ in rows]
    assert max(lengths) == 32
    assert prepared.tokens["truncated_rows"] == sum(1 for n in range(1, 61) if n + 2 + len(str(n)) > 32)
    assert prepared.tokens["percentiles"]["100"] == 64
    assert np.isclose(prepared.tokens["truncated_fraction"], prepared.tokens["truncated_rows"] / 60)
