"""Laws 1 to 3 on the real data graph, for each kind of row. `pytest tests/local_ray/test_pipeline.py`"""

import csv
import io
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from tests.local_ray.conftest import KINDS, Kind, prepared_data, read, rewritten, small_recipe, write_reviews
from textcls.data import split_blocks
from textcls.data.prepared_rows import PreparedData
from textcls.data.spellings import Spellings
from textcls.data.split_blocks import split_rows
from textcls.errors import DataError
from textcls.on_ray.session import ray_session
from textcls.training.run import dry_run


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def rows_of(prepared: PreparedData) -> dict[str, list[tuple[Any, ...]]]:
    """Split -> (token ids, target, where the second text of a pair begins) of each row, in order."""
    found = {}
    for name, blocks in prepared.blocks.items():
        rows = [row for table in ray.get(blocks) for row in table.to_pylist()]
        found[name] = [(tuple(row["input_ids"]), row["target"], row.get("second")) for row in rows]
    return found


def nasty(path: Path, kind: Kind) -> Path:
    """Good rows among rejects of every sort, duplicates and empty lines."""
    more, labels = ["an answer"] * (len(kind.columns) - 1), {"bad": kind.label("a text", "negative")}
    labels["good"] = kind.label("so long a text that it is a long one, as its label will say", "positive")

    def line(text: str, label: str, number: int) -> str:
        return ",".join([text, *more, labels.get(label, label), str(number)])

    rows = [
        ",".join([*kind.columns, "label", "n"]),
        *(line(f'"good film {i}\nindeed"', "good", i) for i in range(40)),
        *(line(f"bad film {i}", "bad", i) for i in range(40)),
        line("", "good", 1),
        line("no label", "", 1),
        "",
        "one,field,or,more,too,many",
        "short,row",
        line("GOOD   film 3 indeed", "good", 9),
        line('"quoted ""thing"""', "bad", 2),
        line('bare "quote" here', "good", 2),
    ]
    path.write_bytes("\r\n".join(rows).encode() + b"\r\nbroken \xff bytes" + line("", "bad", 3).encode() + b"\r\n")
    return path


def test_every_row_is_accounted_for(tiny_model_dir, tmp_path, kind):
    path = nasty(tmp_path / "n.csv", kind)
    recipe = small_recipe(tiny_model_dir, path, "data.max_reject_fraction=0.2", *kind.settings)
    data = read(recipe)
    prepared = split_rows(data, recipe.split, max_tokens=32)
    with path.open(newline="", errors="surrogateescape") as file:
        expected = sum(1 for row in csv.reader(file) if row) - 1
    account = prepared.account
    assert account.read == expected
    assert account.is_balanced
    rejects = [
        (122, kind.columns[0], "missing_text"),
        (123, "label", "missing_label"),
        (125, "", "ragged_row"),
        (126, "", "ragged_row"),
        (130, kind.columns[0], "undecodable"),
    ]
    if "data.labels_in=cell" in kind.settings:
        del rejects[1]  # no label is data
    assert (account.outcomes["rejects"], account.outcomes["duplicates"]) == (len(rejects), 1)
    assert account.reject_reasons == Counter(reason for _, _, reason in rejects)
    found = [row for table in data.rejects() for row in table.to_pylist()]
    assert [(r["line"], r["column"], r["reason"]) for r in found] == rejects
    assert {r["file"] for r in found} == {str(path)}


# One text in shards of a row and less; the same code finds the rows of the other kinds.
@pytest.mark.parametrize(
    ("name", "shard_bytes"), [("one label", 100), *((name, 777) for name in KINDS), ("one label", 5000)]
)
def test_shards_change_nothing(tiny_model_dir, tmp_path, name, shard_bytes):
    kind = KINDS[name]
    path = rewritten(write_reviews(tmp_path / "r.csv", 300), kind)
    whole = prepared_data(small_recipe(tiny_model_dir, path, *kind.settings))
    cut = prepared_data(small_recipe(tiny_model_dir, path, f"data.shard_bytes={shard_bytes}", *kind.settings))
    assert rows_of(cut) == rows_of(whole)
    assert cut.account == whole.account


def test_split_does_not_depend_on_order_or_layout_of_files(tiny_model_dir, tmp_path, kind):
    path = rewritten(write_reviews(tmp_path / "all.csv", 300), kind)
    header, *rows = csv.reader(io.StringIO(path.read_text()))
    random.Random(1).shuffle(rows)
    names = []
    for i in range(3):
        name = tmp_path / f"part{i}.csv"
        with name.open("w", newline="") as file:
            csv.writer(file, delimiter=",|\t"[i], lineterminator="\r\n").writerows([header, *rows[i::3]])
        names.append(str(name))
    one = prepared_data(small_recipe(tiny_model_dir, path, *kind.settings))
    many = prepared_data(small_recipe(tiny_model_dir, path, f"data.csv={names}", *kind.settings))
    for name in ("train", "val", "test"):
        assert sorted(rows_of(one)[name]) == sorted(rows_of(many)[name])
    assert one.class_counts == many.class_counts


def test_hash_ranges_change_nothing(tiny_model_dir, tmp_path, monkeypatch, kind):
    path = rewritten(write_reviews(tmp_path / "r.csv", 300), kind)
    recipe = small_recipe(tiny_model_dir, path, "data.shard_bytes=3000", *kind.settings)
    data = read(recipe)
    one = split_rows(data, recipe.split, max_tokens=32)
    monkeypatch.setattr(split_blocks, "_ROWS_PER_RANGE", 40)
    assert rows_of(split_rows(data, recipe.split, max_tokens=32)) == rows_of(one)


def test_a_text_under_two_labels_is_reported_and_stays_in_one_split(tiny_model_dir, tmp_path, kind):
    path = write_reviews(tmp_path / "r.csv", 100)
    with path.open("a") as file:
        file.write("The same thing,positive\nthe  SAME thing,negative\n" * 3)
    rewritten(path, kind)
    settings = ("data.on_duplicate=keep_all", *kind.settings)
    prepared = prepared_data(small_recipe(tiny_model_dir, path, *settings))
    assert prepared.conflicts[0] == 1
    assert prepared.conflicts[1][0].startswith(str(path) + ":")
    counts = {name: len(rows) - len({ids for ids, *_ in rows}) for name, rows in rows_of(prepared).items()}
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
    lengths = [len(ids) for rows in rows_of(prepared).values() for ids, *_ in rows]
    assert max(lengths) == 32
    assert prepared.tokens["truncated_rows"] == sum(1 for n in range(1, 61) if n + 2 + len(str(n)) > 32)
    assert prepared.tokens["percentiles"]["100"] == 64
    assert np.isclose(prepared.tokens["truncated_fraction"], prepared.tokens["truncated_rows"] / 60)
