"""The rows to label next: the least sure ones, spread, each input once, with a random share; in any order of rows."""

import csv
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import save_tiny_bundle
from textcls.batch.prediction_rows import RowBlock
from textcls.batch.to_label import (
    RankSpec,
    RowToLabel,
    _spread,
    candidates,
    input_names,
    kept,
    label_columns,
    sheet,
    to_label,
)
from textcls.bundle import load_bundle
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.data.row_tables import clean_rows, read_tables
from textcls.inference.classifier import Classifier
from textcls.manifest import Calibration
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.tasks.multi_label import MULTI_LABEL
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.normalizer import normalizer_of
from textcls.text.text_input import TextInput

NORMALIZE = normalizer_of(TextSpec())
NAMES = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett"]


class Pool:
    """Scores of texts by their own words: `0.1` has this margin, of two labels, and `!` an error."""

    labels = ("bad", "good")

    def __init__(self, texts: list[str], task: Any = SINGLE_LABEL) -> None:
        self.texts, self.task = texts, task

    @property
    def probabilities(self) -> np.ndarray:
        margins = np.array([np.nan if "!" in text else float(text.split()[-1]) for text in self.texts])
        return np.column_stack([(1 - margins) / 2, (1 + margins) / 2]).astype(np.float32)

    @property
    def decisions(self) -> np.ndarray:
        return self.task.decide(self.probabilities, self.task.default_thresholds(2))

    @property
    def errors(self) -> list[Any]:
        return ["!" if "!" in text else None for text in self.texts]


def table_of(texts: list[str], file_index: int = 0, first: int = 2) -> pa.Table:
    block = RowBlock(
        lines=list(range(first, first + len(texts) + 1)),
        rows=[None] * (len(texts) + 1),
        errors=["ragged_row", *[None] * len(texts)],
        inputs=[TextInput(text) for text in texts],
    )
    found: Any = Pool(texts)
    return candidates(block, found, np.zeros(1), NORMALIZE, file=f"{file_index}.csv", file_index=file_index)


def pool(rows: int, seed: int = 0) -> list[str]:
    """Different texts, each of some words and a margin."""
    chance = np.random.default_rng(seed)
    return [f"{' '.join(chance.choice(NAMES, 8))} {i} {i} {i} {chance.uniform(0.001, 1):.4f}" for i in range(rows)]


def embed(inputs: Any) -> np.ndarray:
    """Counts of words: texts are near to each other where they share words."""
    return np.array([[one.text.split().count(name) for name in NAMES] for one in inputs], np.float32)


def chosen(texts: list[str], rows: int) -> list[RowToLabel]:
    return to_label(table_of(texts), RankSpec(rows), NORMALIZE, embed)


def texts_of(rows: list[RowToLabel], why: str) -> list[str]:
    return [one.row["texts"][0] for one in rows if one.why == why]


def test_rows_are_the_least_sure_ones_and_a_random_share() -> None:
    texts = pool(2000)
    rows = chosen(texts, 50)
    unsure, random = texts_of(rows, "uncertain"), texts_of(rows, "random")
    assert (len(unsure), len(random)) == (45, 5)
    margins = [one.row["margin"] for one in rows if one.why == "uncertain"]
    assert margins == sorted(margins)
    limit = sorted(float(text.split()[-1]) for text in texts)[2 * 45 + 5]
    assert max(margins) <= limit, "among the twice as many least sure ones"
    assert max(float(text.split()[-1]) for text in random) > limit, "random rows are of all kinds"
    assert [i for i, one in enumerate(rows) if one.why == "random"] == [9, 19, 29, 39, 49], "each tenth"
    assert rows[0].row["line"] == 3 + texts.index(unsure[0])
    assert rows[0].row["predicted"] == "good"


def test_a_random_share_is_of_the_whole_pool_alike() -> None:
    texts = pool(4000, seed=3)
    margins = np.array([float(text.split()[-1]) for text in texts_of(chosen(texts, 3000), "random")])
    assert len(margins) == 300
    assert abs(margins.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 300)


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_rows_depend_neither_on_the_order_nor_on_the_parts(cut: int) -> None:
    texts, spec = pool(300), RankSpec(20)
    shuffled = [texts[i] for i in np.random.default_rng(cut).permutation(len(texts))]
    parts = [kept([table_of(shuffled[i : i + cut], i)], spec) for i in range(0, len(texts), cut)]
    assert all(len(part) <= min(cut, spec.candidates + 2 * spec.random) for part in parts)
    found = kept(parts[::-1], spec)
    rows = to_label(found, spec, NORMALIZE, embed)
    assert [(one.why, one.row["texts"]) for one in rows] == [(o.why, o.row["texts"]) for o in chosen(texts, 20)]


def test_equal_inputs_and_near_duplicates_are_there_once() -> None:
    texts = [f"{' '.join(NAMES)} number {i} of many 0.0001" for i in range(50)] + [
        "THE film 0.0001",
        "the  film 0.0001",
    ]
    rows = chosen([*texts, *pool(30)], 20)
    unsure = texts_of(rows, "uncertain")
    assert sum("of many" in text for text in unsure) <= 1
    assert sum("film" in one.row["texts"][0].lower() for one in rows) == 1
    film = next(one.row for one in rows if "film" in one.row["texts"][0].lower())
    assert film["texts"] == ["THE film 0.0001"], "the first of equal rows"


def test_rows_are_spread_over_what_they_are_about() -> None:
    many = [f"{'alpha ' * 5}{chr(97 + i % 26) * 3}{i * 7919 % 1000} {i * 104729 % 99991} 0.01" for i in range(25)]
    few = [f"{name} {name} {name} {i * 15485863 % 99991} 0.02" for i, name in enumerate(NAMES[1:])]
    found = " ".join(one.row["texts"][0] for one in chosen([*many, *few], 20))
    assert all(name in found for name in NAMES), "not twenty times alpha, which is the least sure"


def test_rows_are_spread_where_a_part_of_them_has_fewer_rows_than_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textcls.batch.to_label._CLUSTERS", 4)
    for rows in (18, 19, 22):
        for number in range(10, rows):
            embeddings = np.random.default_rng(number).normal(size=(rows, 5)).astype(np.float32)
            assert len(set(_spread(embeddings, number).tolist())) == number


def test_a_small_pool_is_given_whole_without_embeddings() -> None:
    rows = to_label(table_of(["a 0.5", "b 0.2", "c !", "d 0.9"]), RankSpec(10), NORMALIZE, embed=None)  # type: ignore[arg-type]
    assert [(one.why, one.row["texts"][0]) for one in rows if one.why == "uncertain"] == [
        ("uncertain", text) for text in ("b 0.2", "a 0.5", "d 0.9") if text not in texts_of(rows, "random")
    ]
    assert len(rows) == 3
    assert to_label(table_of([]), RankSpec(10), NORMALIZE, embed) == []


def test_margins_are_the_distance_to_another_decision() -> None:
    three = np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [1, 0, 0]])
    np.testing.assert_allclose(SINGLE_LABEL.margins(three, np.zeros(1)), [0.2, 0, 1])
    np.testing.assert_allclose(SINGLE_LABEL.margins(np.ones((2, 1)), np.zeros(1)), [1, 1])
    several = MULTI_LABEL.margins(np.array([[0.9, 0.2], [0.45, 0.9]]), np.array([0.5, 0.3, 1.0]))
    np.testing.assert_allclose(several, [0.1, 0.05])


def test_a_row_of_several_labels_is_as_unsure_as_its_least_sure_label() -> None:
    texts = ["a 0.5", "b 0.02", "c !", "d 0.9"]
    block = RowBlock([2, 3, 4, 5], [None] * 4, [None] * 4, [TextInput(text) for text in texts])
    found: Any = Pool(texts, MULTI_LABEL)
    table = candidates(block, found, np.array([0.5, 0.5, 1.0]), NORMALIZE, file="a.csv", file_index=0)
    assert table["margin"].to_pylist() == [0.25, 0.01, 0.45]
    assert table["line"].to_pylist() == [2, 3, 5]
    assert table["predicted"].to_pylist() == ['["good"]'] * 3
    rows = to_label(table, RankSpec(3), NORMALIZE, embed)
    assert {one.row["texts"][0] for one in rows} == {"a 0.5", "b 0.02", "d 0.9"}


def test_an_unsure_row_has_a_label_although_the_classifier_abstains(tiny_model_dir: Path, tmp_path: Path) -> None:
    bundle = save_tiny_bundle(tiny_model_dir, tmp_path / "shy", calibration=Calibration(threshold=1.0))
    classifier = Classifier.load(str(bundle))
    block = RowBlock([2], [None], [None], [TextInput("a great film")])
    scores = classifier.scores(block.inputs)
    assert scores.label(0) == "abstain"
    table = candidates(block, scores, classifier.thresholds, NORMALIZE, file="a.csv", file_index=0)
    assert table["predicted"].to_pylist() == [scores.ranked(0)[0][0]]


def test_columns_of_labels_are_named_though_the_recipe_has_a_pattern() -> None:
    data = {"labels_in": "columns", "label_columns": ["topic_*"], "label_map": {"topic_b": "billing"}}
    manifest: Any = SimpleNamespace(recipe={"data": data}, labels=("billing", "topic_a"))
    assert label_columns(SimpleNamespace(manifest=manifest)) == ("topic_b", "topic_a")  # type: ignore[arg-type]


def test_the_sheet_can_be_labelled_in_a_spreadsheet_and_trained_on(tiny_bundle: Path, pair_bundle: Path) -> None:
    one, pairs = load_bundle(str(tiny_bundle)), load_bundle(str(pair_bundle))
    assert input_names(one, DataSpec(text_columns=("body",))) == ("body",)
    assert input_names(one, DataSpec(text_columns=("title", "body"))) == ("text",)
    assert input_names(pairs, DataSpec(pair=("question", "answer"))) == ("question", "answer")
    assert label_columns(one) == ("label",)
    row = {"margin": 0.25, "file": "=x.csv", "line": 7, "predicted": "@good", "texts": ['=HYPERLINK("x")', "a\nb"]}
    content = sheet([RowToLabel("random", row)], inputs=("question", "why"), labels=("label",), encoding="utf-8-sig")
    (found,) = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    assert found == {
        "rank": "1",
        "file": "'=x.csv",
        "line": "7",
        "why": "random",
        "margin": "0.2500",
        "predicted": "'@good",
        "question": '\'=HYPERLINK("x")',
        "input_why": "a\nb",
        "label": "",
    }


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_what_looks_like_a_formula_is_trained_on_as_it_was_in_the_pool(tmp_path: Path, delimiter: str) -> None:
    texts = ["=SUM(A1)", "-1 stars", "'quoted'", "'+49 170 5550100", "a fine film"]
    rows = [
        RowToLabel("uncertain", {"margin": 0.1, "file": "a.csv", "line": 2, "predicted": "-1", "texts": [text]})
        for text in texts
    ]
    content = sheet(rows, inputs=("text",), labels=("label",)).decode()
    header, *cells = csv.reader(io.StringIO(content, newline=""))
    path = tmp_path / "to_label.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        # The label is copied from the column beside it.
        csv.writer(file, delimiter=delimiter).writerows([header, *([*row[:-1], row[5]] for row in cells)])
    assert rows_in(path) == [(text, "-1") for text in texts]
    # In any other file an apostrophe is a character like any other.
    path.write_text("text,label\n'=SUM(A1),'-1\n", encoding="utf-8")
    assert rows_in(path) == [("'=SUM(A1)", "'-1")]


def rows_in(path: Path) -> list[tuple[str, str]]:
    """(text, label) of the rows of a file, as training reads them."""
    data = DataSpec(csv=(str(path),))
    layouts, shards = plan_shards(expand(data.csv), data, run=lambda function, jobs: [function(*job) for job in jobs])
    table = pa.concat_tables(read_tables(shards[0], layouts[0], data, TextSpec(), SINGLE_LABEL))
    clean = clean_rows(table)
    return list(zip(clean["text"].to_pylist(), clean["label"].to_pylist(), strict=True))
