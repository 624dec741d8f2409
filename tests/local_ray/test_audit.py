"""An audit from the CSV to a run with decisions: wrong labels come first, and are corrected. Two small trainings."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.local_ray.conftest import WARM, small_recipe, write_reviews
from tests.local_ray.test_several_labels import messages, write_cells
from textcls.audit.regression import regression_probabilities
from textcls.audit.run import AuditOptions, audit
from textcls.bundle import load_bundle
from textcls.data.decisions import read_decisions
from textcls.errors import DataError
from textcls.inference.classifier import Classifier
from textcls.settings.recipe import Recipe
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.text_input import TextInput
from textcls.training.baseline import word_vectorizer
from textcls.training.run import dry_run
from textcls.training.run_dir import RunDir

ROWS, WRONG = 200, {12, 33, 54, 75, 96, 117, 138, 159}
SETTINGS = ("model.dropout=0", "scale.cpus_per_worker=1", "train.epochs=12", "train.learning_rate=0.005")
QUICK = AuditOptions(folds=2, quick=True, rows=40)


def silent(line: str) -> None:
    """Takes no notice."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reviews of which some have the wrong label; one text stands twice, with both."""
    source = write_reviews(tmp_path_factory.mktemp("reviews") / "clean.csv", ROWS)
    with source.open(newline="") as file:
        header, *rows = csv.reader(file)
    other = {"positive": "negative", "negative": "positive"}
    for row in WRONG:
        rows[row][1] = other[rows[row][1]]
    # Records of several lines have other line numbers: here each is one line.
    rows = [[" ".join(text.split()), label] for text, label in rows]
    rows.append([rows[20][0], other[rows[20][1]]])
    found = source.with_name("noisy.csv")
    with found.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return found


def table(out: Path) -> list[dict[str, str]]:
    with (out / "audit.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def decide(out: Path, decisions: dict[int, str]) -> str:
    """Writes decisions, by rank, into the table."""
    rows = table(out)
    for row in rows:
        row["decision"] = decisions.get(int(row["rank"]), "")
    with (out / "audit.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(out / "audit.csv")


def with_decisions(recipe: Recipe, sheet: str) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"decisions": (sheet,)})})


def test_runs_on_the_other_folds_find_wrong_labels(path: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    recipe = small_recipe(tiny_model_dir, path, *SETTINGS)
    out = tmp_path / "audit"
    with WARM.pool():
        found = audit(recipe, str(out), AuditOptions(folds=2, rows=ROWS), resume=False, say=silent)
    assert found["rows"] == {"read": 201, "audited": 200, "not_audited": 0, "duplicates": 1, "rejects": 0}
    assert found == json.loads((out / "audit.json").read_text())
    assert found["near_duplicates"]["test_rows"] == 40
    rows = pq.read_table(out / "audit.parquet").to_pydict()
    assert sorted(rows["line"]) == list(range(2, ROWS + 2))
    assert rows["loss"] == sorted(rows["loss"], reverse=True)
    first = {line - 2 for line in rows["line"][:16]}
    assert len(first & WRONG) >= 5
    # What a row is given is the mean of its fold's bundle, whose run tested it, and of the words of other folds.
    lines = path.read_text(encoding="utf-8").splitlines()
    inputs = [TextInput(next(csv.reader([lines[line - 1]]))[0]) for line in rows["line"]]
    targets = np.array([("negative", "positive").index(label) for label in rows["label"]], np.int32)
    words = word_vectorizer(recipe.text, rows=ROWS, classes=2).fit_transform(inputs)
    of_words = regression_probabilities(None, words, targets, np.array(rows["fold"]), SINGLE_LABEL, 2)
    for fold in (1, 2):
        directory = out / "folds" / str(fold)
        bundle = load_bundle(str(directory / "bundle"))
        assert bundle.manifest.recipe["split"]["fold"] == f"{fold}/2"
        inside = np.flatnonzero(np.array(rows["fold"]) == fold)
        report = json.loads((directory / "report.json").read_text())
        assert report["rows"]["test"] == len(inside) == 100
        of_bundle = Classifier.load(str(directory / "bundle"), device="cpu").scores([inputs[i] for i in inside])
        right = (of_bundle.probabilities.argmax(axis=1) == targets[inside]).mean()
        assert right == pytest.approx(report["test"]["accuracy"]["value"])
        expected = ((of_bundle.probabilities + of_words[inside]) / 2)[np.arange(100), targets[inside]]
        np.testing.assert_allclose(np.array(rows["p_given"])[inside], expected, atol=1e-4)
    (conflict,) = [row for row in table(out) if row["same_text"]]
    assert conflict["line"] == "22"
    assert f"{path}:{ROWS + 2} (" in conflict["same_text"]


def test_the_quick_mode_lists_rows_whose_decisions_a_run_follows(
    path: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    recipe = small_recipe(tiny_model_dir, path, *SETTINGS)
    out = tmp_path / "audit"
    found = audit(recipe, str(out), QUICK, resume=False, say=silent)
    assert found["listed"] == len(table(out)) == 40
    first, second, third, *_ = table(out)
    assert "noisy.csv:" in first["similar"]
    every = pq.read_table(out / "audit.parquet").to_pydict()
    worth = dict(zip(every["line"], every["value"], strict=True))
    assert all(float(row["value"]) == pytest.approx(worth[int(row["line"])], abs=1e-4) for row in table(out))
    # Values add up to what near rows know of what guessing leaves open.
    left_open = 1 - sum((every["label"].count(label) / ROWS) ** 2 for label in ("positive", "negative"))
    assert sum(worth.values()) == pytest.approx(found["values"]["known"] * left_open * ROWS, rel=0.02)
    assert found["values"]["judged"] == ROWS
    sheet = decide(out, {1: "drop", 2: first["label"] if second["label"] != first["label"] else "keep", 3: "keep"})
    decided = with_decisions(recipe, sheet)
    said: list[str] = []
    dry = tmp_path / "dry"
    dry_run(decided, say=said.append, task=SINGLE_LABEL, out=str(dry))
    assert any("dropped_by_decision" in line for line in said)
    rejects = pq.read_table(dry / "rejects.parquet").to_pydict()
    assert (rejects["line"], rejects["reason"]) == ([int(first["line"])], ["dropped_by_decision"])
    rows = json.loads((dry / "rows.json").read_text())
    assert rows["read"] == 201 == sum(rows[name] for name in ("train", "val", "test", "rejects", "duplicates"))
    conflicts = pq.read_table(dry / "conflicts.parquet").to_pydict()
    assert conflicts["line"] == [22, ROWS + 2]
    assert sorted(conflicts["label"]) == ["negative", "positive"]
    RunDir.claim(str(dry), recipe, resume=False)  # a run may begin there
    assert len(read_decisions(decided.data, SINGLE_LABEL)[0].by_row) == 3
    text = path.read_text()
    moved = path.with_name("moved.csv")
    moved.write_text(text.replace(third["text"], third["text"] + "!"), newline="")
    elsewhere = decided.model_copy(update={"data": decided.data.model_copy(update={"csv": (str(moved),)})})
    with pytest.raises(DataError, match="1 decision is about rows") as refused:
        dry_run(elsewhere, say=silent, task=SINGLE_LABEL)
    assert f"{sheet}:4, about {third['file']}:{third['line']}" in refused.value.found


def test_sets_of_labels_are_audited_and_decided_about(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = write_cells(tmp_path / "messages.csv", messages(120))
    labels = ("data.labels_in=cell", "data.label_delimiter=;")
    recipe = small_recipe(tiny_model_dir, path, *labels)
    out = tmp_path / "audit"
    found = audit(recipe, str(out), QUICK, resume=False, say=silent)
    assert found["rows"]["audited"] + found["rows"]["not_audited"] == 120
    rows = table(out)
    assert all(isinstance(json.loads(row[name]), list) for row in rows for name in ("label", "suggested"))
    decided = with_decisions(recipe, decide(out, {1: "plot; cast", 2: "[]", 3: "drop"}))
    dry_run(decided, say=silent, out=str(tmp_path / "dry"))
    assert json.loads((tmp_path / "dry" / "rows.json").read_text())["reject_reasons"] == {"dropped_by_decision": 1}
