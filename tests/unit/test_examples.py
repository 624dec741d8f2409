"""The embedded example data: as its generator writes it, with answers that a single word does not give away."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.unit.reading import read_as
from textcls.examples import support
from textcls.settings.recipe_file import parse_recipe, recipe_text
from textcls.storage import absolute
from textcls.tasks.registry import task_of
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.text_input import TextInput
from textcls.training.baseline import train_baseline


def rows_of(name: str) -> list[list[str]]:
    with open(support.FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    support.write(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in support.FOLDER.glob("*.csv")) == ["messages.csv", "pairs.csv"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (support.FOLDER / name).read_bytes(), name


def test_messages_complain_of_no_topic_one_or_several_and_each_topic_is_frequent() -> None:
    rows = rows_of("messages.csv")
    assert len({text for text, _ in rows}) == len(rows) == support.MESSAGES
    sets = [cell.split(";") if cell else [] for _, cell in rows]
    sizes, topics = Counter(map(len, sets)), Counter(topic for one in sets for topic in one)
    assert sorted(sizes) == [0, 1, 2, 3]
    assert min(sizes.values()) > 0.02 * len(rows)
    assert len(topics) == 6
    assert min(topics.values()) > 0.1 * len(rows)


def test_each_pair_occurs_once_and_neither_length_nor_words_tell_its_answer() -> None:
    rows = rows_of("pairs.csv")
    assert len({(first, second) for first, second, _ in rows}) == len(rows) == support.PAIRS
    same = np.array([answer == "same" for *_, answer in rows])
    assert same.sum() * 2 == len(rows)
    for column in (0, 1):
        chars = np.array([len(row[column]) for row in rows])
        assert chars[same].mean() == pytest.approx(chars[~same].mean(), rel=0.02)
    texts, half = [TextInput(f"{first} {second}") for first, second, _ in rows], len(rows) // 2
    targets = same.astype(int)
    by_words = train_baseline(
        texts[:half], targets[:half], texts[half:], targets[half:], ("different", "same"), seed=0, task=SINGLE_LABEL
    )
    assert by_words["accuracy"]["value"] < 0.6


def test_the_recipe_of_the_pairs_reads_every_row() -> None:
    recipe = parse_recipe(recipe_text("pairs"))
    (uri,) = recipe.data.csv
    found = read_as(recipe.data, [uri]).found
    assert (found.read, found.rows) == (support.PAIRS, support.PAIRS)
    assert found.labels == {"same": support.PAIRS // 2, "different": support.PAIRS // 2}


def test_the_recipe_of_the_messages_reads_every_row_as_a_set_of_topics() -> None:
    recipe = parse_recipe(recipe_text("multi-label"))
    (uri,) = recipe.data.csv
    read = task_of(recipe.data).label_reader(recipe.data)
    with open(absolute(uri), encoding="utf-8", newline="") as file:
        found = [read((row["topics"],)) for row in csv.DictReader(file)]
    assert {one.reason for one in found} == {""}
    assert [";".join(one.written) for one in found] == [cell for _, cell in rows_of("messages.csv")]
