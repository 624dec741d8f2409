"""Several labels a row, from CSV to HTTP: one answer wherever a text is scored, and every row accounted for."""

import csv
import io
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from tests.http.conftest import service_of
from tests.local_ray.conftest import prepared_data, small_recipe
from tests.unit.reading import options
from textcls.batch.evaluate import evaluate
from textcls.batch.predict import predict
from textcls.batch.settings import evaluate_settings, predict_settings
from textcls.bundle import Bundle, load_bundle
from textcls.data import conflicts
from textcls.data.prepared_rows import PreparedData
from textcls.errors import DataError
from textcls.inference.classifier import Classifier
from textcls.on_ray.session import ray_session
from textcls.reporting.report import Report
from textcls.reporting.terminal import print_report
from textcls.tasks.multi_label import MULTI_LABEL
from textcls.training.run import train

TOPICS = {"cast": "awful", "plot": "boring", "place": "moving", "verdict": "wonderful"}
NAMES = sorted(TOPICS)
SCALE = ("scale.workers=1", "scale.cpus_per_worker=1")


def messages(rows: int) -> list[tuple[str, list[str]]]:
    """Texts with a word for each of their topics; one in five has none."""
    chance, found = random.Random(0), []
    for i in range(rows):
        topics = [topic for topic in TOPICS if chance.random() < 0.4]
        words = [*3 * [TOPICS[topic] for topic in topics], "was", f"{i}"]
        chance.shuffle(words)
        found.append((" ".join(words), topics))
    return found


def write_cells(path: Path, rows: list[tuple[str, list[str]]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((text, "; ".join(topics)) for text, topics in rows)])
    return path


@dataclass(frozen=True)
class Run:
    csv: Path
    out: Path
    report: Report

    @property
    def bundle(self) -> Bundle:
        return load_bundle(str(self.out / "bundle"))


@pytest.fixture(scope="module")
def run(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    place, said = tmp_path_factory.mktemp("several"), list[str]()
    path = write_cells(place / "messages.csv", messages(500))
    settings = ("data.labels_in=cell", "data.label_delimiter=;", "train.epochs=12", "train.learning_rate=0.003")
    settings += ("train.rows_per_step=8", "model.dropout=0", "calibration.min_precision=0.9", *SCALE)
    report = train(small_recipe(tiny_model_dir, path, *settings), str(place / "run"), resume=False, say=said.append)
    assert report is not None, said
    return Run(path, place / "run", report)


def test_it_learns_and_the_bundle_says_how_it_decides(run: Run) -> None:
    manifest = json.loads((run.out / "bundle" / "bundle.json").read_bytes())
    assert (manifest["task"], manifest["scoring"], manifest["labels"]) == ("multi_label", "sigmoid", NAMES)
    assert len(manifest["calibration"]["temperatures"]) == 4
    assert len(manifest["calibration"]["thresholds"]) == 5
    assert manifest["metrics"]["map"] > 0.6  # a guess has 0.4
    stored = json.loads((run.out / "report.json").read_bytes())
    assert stored["test"]["co_occurrence"]["labels"] == NAMES
    assert stored["baseline"]["map"] > 0.9
    shown = io.StringIO()
    print_report(run.report, shown)
    assert "micro F1" in shown.getvalue()
    assert (run.out / "report.png").stat().st_size > 10_000


def test_a_text_has_one_answer_alone_in_company_in_transformers_in_batches_and_over_http(
    run: Run, tmp_path: Path
) -> None:
    from transformers import pipeline

    bundle, texts = run.bundle, [text for text, _ in messages(500)]
    classifier = Classifier.load(bundle.uri, device="cpu")
    scores = classifier.scores(texts)
    expected = scores.probabilities
    alone = np.stack([classifier.scores([text]).probabilities[0] for text in texts[:20]])
    np.testing.assert_allclose(alone, expected[:20], atol=1e-5)
    labels = [scores.answer(i)["labels"] for i in range(500)]

    for text, row in zip(texts[:10], expected, strict=False):
        (found,) = pipeline("text-classification", bundle.directory, device="cpu", top_k=None)([text])
        by_label = {one["label"]: one["score"] for one in found}
        np.testing.assert_allclose([by_label[name] for name in NAMES], row, atol=1e-5)

    with ray_session():
        spec = predict_settings(bundle, [str(run.csv)], list(SCALE))
        predict(bundle, spec, str(tmp_path / "p"), suffix="parquet", all_scores=False, say=lambda line: None)
        evaluation = evaluate_settings(bundle, [str(run.csv)], list(SCALE))
        report = evaluate(bundle, evaluation, str(tmp_path / "e"), say=lambda line: None).content()["test"]
    rows = pq.read_table(tmp_path / "p" / "parts").to_pylist()
    np.testing.assert_allclose([[row[f"score_{name}"] for name in NAMES] for row in rows], expected, atol=1e-5)
    assert [sorted(json.loads(row["labels"])) for row in rows] == [sorted(one) for one in labels]
    assert [row["abstained"] for row in rows] == [scores.abstained(i) for i in range(500)]

    targets = MULTI_LABEL.encode([MULTI_LABEL.label_of(topics) for _, topics in messages(500)], NAMES)
    summary = MULTI_LABEL.summarise(MULTI_LABEL.counts(expected, targets, classifier.thresholds), NAMES)
    assert report["rows"] == 500
    for name in ("micro_f1", "macro_f1", "map", "lrap", "log_loss", "hamming_loss"):
        assert report[name] == pytest.approx(summary[name], abs=1e-5)

    with service_of(run.out / "bundle") as service:
        found = service.ask("/predict", {"inputs": texts[:20]}).json["predictions"]
        assert [one["labels"] for one in found] == labels[:20]
        for one, row in zip(found, expected, strict=False):
            by_label = {item["label"]: item["score"] for item in one["scores"]}
            np.testing.assert_allclose([by_label[name] for name in NAMES], row, atol=1e-5)
        asked = {"inputs": texts[0], "parameters": {"function_to_apply": "sigmoid"}}
        (ranked,) = service.ask("/", asked).json
        assert [one["score"] for one in ranked] == pytest.approx(sorted(expected[0], reverse=True), abs=1e-5)
        refused = service.ask("/", {"inputs": texts[0], "parameters": {"function_to_apply": "softmax"}})
        assert (refused.status, refused.json["error"]["code"]) == (422, "invalid")
        info = service.ask("/info").json
        assert info["thresholds"] == dict(zip(NAMES, bundle.manifest.calibration.thresholds or (), strict=False))


# --- rows -------------------------------------------------------------------------------------------------------------


def targets_of(data: PreparedData) -> list[list[float]]:
    return [
        row
        for name in ("train", "val", "test")
        for block in data.blocks[name]
        for row in ray.get(block)["target"].to_pylist()
    ]


def write_conflicts(path: Path) -> Path:
    """300 texts, of which each third has a second row with another topic."""
    rows = messages(300)
    return write_cells(path, rows + [(text, ["place"]) for text, topics in rows[::3] if topics != ["place"]])


@pytest.mark.parametrize("on_conflict", ["first", "union", "reject"])
def test_each_row_of_a_text_with_several_sets_is_accounted_for_and_listed(
    tiny_model_dir: Path, tmp_path: Path, on_conflict: str
) -> None:
    path, rows = write_conflicts(tmp_path / "a.csv"), dict(messages(300))
    settings = ("data.labels_in=cell", "data.label_delimiter=;", f"data.on_conflict={on_conflict}")
    data = prepared_data(small_recipe(tiny_model_dir, path, *settings))
    second = [text for text in list(rows)[::3] if rows[text] != ["place"]]
    number = len(second)
    assert data.account.is_balanced
    assert (data.account.read, data.conflicts[0]) == (300 + number, number)
    rejects = 2 * number if on_conflict == "reject" else 0
    assert data.account.outcomes["rejects"] == rejects == data.account.reject_reasons.get("conflicting_labels", 0)
    assert data.account.outcomes["duplicates"] == (0 if on_conflict == "reject" else number)

    place = NAMES.index("place")
    with_place = sum(row[place] for row in targets_of(data))
    of_first = sum("place" in topics for topics in rows.values())
    added = {"first": 0, "union": sum("place" not in rows[text] for text in second), "reject": None}[on_conflict]
    assert added is None or with_place == of_first + added

    table = pa.concat_tables([conflicts.located(ray.get(ref), [str(path)]) for ref in data.conflict_tables])
    assert len(table) == 2 * number
    assert set(table["line"].to_pylist()) >= {2 + 3 * i for i in range(100) if rows[list(rows)[3 * i]] != ["place"]}
    used = {"first": None, "union": None, "reject": {conflicts.REJECTED}}[on_conflict]
    assert used is None or set(table["used"].to_pylist()) == used


def test_a_row_for_each_pair_of_text_and_label_reads_every_text_with_all_its_labels(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    rows = messages(200)
    path = write_cells(tmp_path / "long.csv", [(text, [topic]) for text, topics in rows for topic in topics])
    settings = ("data.task=multi_label", "data.label_delimiter=;", "data.on_conflict=union")
    long = prepared_data(small_recipe(tiny_model_dir, path, *settings))
    wide = prepared_data(
        small_recipe(tiny_model_dir, write_cells(tmp_path / "wide.csv", [row for row in rows if row[1]]), *settings)
    )
    assert sorted(targets_of(long)) == sorted(targets_of(wide))
    assert long.class_counts == wide.class_counts


def test_columns_of_0_and_1_read_as_cells_do(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows, path = messages(200), tmp_path / "columns.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", *(f"is_{name}" for name in TOPICS), "other"])
        table.writerows([text, *(int(name in topics) for name in TOPICS), 1] for text, topics in rows)
    names = {f"is_{name}": name for name in TOPICS}
    columns = prepared_data(
        small_recipe(tiny_model_dir, path, "data.label_columns=is_*", f"data.label_map={json.dumps(names)}")
    )
    settings = ("data.labels_in=cell", "data.label_delimiter=;")
    cells = prepared_data(small_recipe(tiny_model_dir, write_cells(tmp_path / "cells.csv", rows), *settings))
    assert columns.labels == cells.labels
    assert targets_of(columns) == targets_of(cells)


def test_too_many_conflicts_that_are_rejects_stop_the_run_and_are_listed(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = write_conflicts(tmp_path / "a.csv")
    settings = ("data.labels_in=cell", "data.label_delimiter=;", "data.on_conflict=reject", *SCALE)
    with pytest.raises(DataError, match="their text has other labels"):
        train(small_recipe(tiny_model_dir, path, *settings), str(tmp_path / "out"), resume=False, say=lambda line: None)
    rejects = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    listed = pq.read_table(tmp_path / "out" / "conflicts.parquet").to_pylist()
    assert {(row["file"], row["line"]) for row in rejects} == {(row["file"], row["line"]) for row in listed}
    assert {row["reason"] for row in rejects} == {"conflicting_labels"}


def test_empty_cells_beside_several_labels_come_with_the_settings_that_read_both(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    path, out = write_cells(tmp_path / "a.csv", messages(200)), str(tmp_path / "out")
    with pytest.raises(DataError, match="missing_label") as caught:
        train(small_recipe(tiny_model_dir, path, *SCALE), out, resume=False, say=lambda line: None)
    data = prepared_data(small_recipe(tiny_model_dir, path, *options(caught.value.todo)[:2]))
    assert (data.labels, data.account.outcomes["rejects"]) == (tuple(NAMES), 0)


def test_a_label_column_without_a_1_can_be_left_out_of_a_pattern(tiny_model_dir: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "columns.csv", str(tmp_path / "out")
    with path.open("w", newline="") as file:
        rows = [[text, *(int(name in topics) for name in TOPICS), 0] for text, topics in messages(200)]
        csv.writer(file).writerows([["text", *(f"is_{name}" for name in TOPICS), "is_never"], *rows])
    recipe = small_recipe(tiny_model_dir, path, "data.label_columns=is_*", *SCALE)
    with pytest.raises(DataError, match="no training rows for 'is_never'") as caught:
        train(recipe, out, resume=False, say=lambda line: None)
    assert len(prepared_data(small_recipe(tiny_model_dir, path, *options(caught.value.todo))).labels) == 4
