"""A task that is no part of textcls trains, scores, predicts, serves and reports, by the protocol of tasks/ alone."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray

from tests.http.conftest import service_of
from tests.local_ray.conftest import small_recipe
from tests.unit import ordinal
from tests.unit.ordinal import ORDINAL, SETTINGS, STEPS, write_ratings
from textcls.batch.evaluate import evaluate
from textcls.batch.predict import predict
from textcls.batch.settings import evaluate_settings, predict_settings
from textcls.bundle import Bundle, load_bundle
from textcls.errors import BundleError, RecipeError
from textcls.inference.classifier import Classifier
from textcls.on_ray.session import ray_session
from textcls.reporting.report import Report
from textcls.reporting.terminal import print_report
from textcls.tasks import registry
from textcls.training.run import train

SCALE = ("scale.workers=1", "scale.cpus_per_worker=1")


@pytest.fixture(scope="module", autouse=True)
def classes_travel_to_workers() -> Iterator[None]:
    """Worker processes cannot import this module; an installed package with a task would need nothing of the kind."""
    ray.cloudpickle.register_pickle_by_value(ordinal)
    yield
    ray.cloudpickle.unregister_pickle_by_value(ordinal)


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    registry.register(ORDINAL)
    yield
    del registry._TASKS[ORDINAL.name]


@dataclass(frozen=True)
class Run:
    csv: Path
    out: Path
    said: list[str]
    report: Report

    @property
    def bundle(self) -> Bundle:
        return load_bundle(str(self.out / "bundle"))


@pytest.fixture(scope="module")
def ordinal_run(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    place, said = tmp_path_factory.mktemp("ordinal"), list[str]()
    path = write_ratings(place / "ratings.csv", 400)
    recipe = small_recipe(tiny_model_dir, path, *SETTINGS, *SCALE)
    report = train(recipe, str(place / "run"), resume=False, say=said.append, task=ORDINAL)
    assert report is not None, said
    return Run(path, place / "run", said, report)


def test_it_trains_and_its_bundle_names_it(ordinal_run: Run) -> None:
    manifest = json.loads((ordinal_run.out / "bundle" / "bundle.json").read_bytes())
    assert (manifest["task"], manifest["scoring"]) == ("ordinal", "sigmoid")
    assert manifest["labels"] == list(STEPS)
    assert json.loads((ordinal_run.out / "bundle" / "config.json").read_bytes())["problem_type"] == ORDINAL.problem_type
    assert manifest["metrics"]["mean_missed_steps"] < 0.5  # a guess misses 1.25 steps on average
    first, *_, last = [loss for _, loss in ordinal_run.report.curve]
    assert last < first / 2
    assert ordinal_run.report.best is not None
    losses = [epoch.loss for epoch in ordinal_run.report.history]
    assert ordinal_run.report.best.score == -min(loss for loss in losses if loss is not None)


def test_its_own_metrics_are_in_the_lines_the_events_and_the_report(ordinal_run: Run) -> None:
    events = [json.loads(line) for line in (ordinal_run.out / "events.jsonl").read_text().splitlines()]
    measured = [event for event in events if "mean_missed_steps" in event]
    *validated, tested = measured
    assert len(validated) == 8
    assert all(0 <= event["mean_missed_steps"] <= 3 for event in validated)
    stored = json.loads((ordinal_run.out / "report.json").read_bytes())
    assert tested["mean_missed_steps"] == stored["test"]["mean_missed_steps"]
    assert stored["baseline"]["mean_missed_steps"] < 1.2
    shown = io.StringIO()
    print_report(ordinal_run.report, shown)
    assert "missed steps" in shown.getvalue().replace("_", " ")
    assert (ordinal_run.out / "report.png").stat().st_size > 10_000


def test_the_classifier_scores_by_its_rules(ordinal_run: Run) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts = [
        "the film boring boring boring",
        "the film wonderful boring was",
        "wonderful wonderful wonderful film",
        " ",
    ]
    classifier = Classifier.load(str(ordinal_run.out / "bundle"), device="cpu")
    scores = classifier.scores(texts)
    assert scores.task is classifier.bundle.task is ORDINAL
    model = AutoModelForSequenceClassification.from_pretrained(ordinal_run.out / "bundle")
    tokenizer = AutoTokenizer.from_pretrained(ordinal_run.out / "bundle")
    for i, text in enumerate(texts[:3]):
        with torch.inference_mode():
            logits = model(**tokenizer(text, return_tensors="pt", truncation=True)).logits.numpy()
        np.testing.assert_allclose(scores.probabilities[i], ORDINAL.probabilities(logits)[0], atol=1e-5)
        assert scores.answer(i)["label"] == scores.label(i)
        assert scores.abstained(i) == (scores.confidence(i) < classifier.thresholds[0])
    assert (scores.label(3), scores.abstained(3)) == (None, True)


def test_it_is_evaluated_as_it_was_tested(ordinal_run: Run, tmp_path: Path) -> None:
    bundle = ordinal_run.bundle
    with ray_session():
        spec = evaluate_settings(bundle, [str(ordinal_run.csv)], list(SCALE))
        report = evaluate(bundle, spec, str(tmp_path / "out"), say=lambda line: None).content()
    with ordinal_run.csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = Classifier.load(bundle.uri, device="cpu").scores([row["text"] for row in rows])
    targets = ORDINAL.encode([row["label"] for row in rows], STEPS)
    expected = ORDINAL.summarise(
        ORDINAL.counts(scores.probabilities, targets, np.array([bundle.manifest.calibration.threshold])), STEPS
    )
    assert report["test"]["rows"] == 400
    for name in ("mean_missed_steps", "macro_f1", "log_loss"):
        assert report["test"][name] == pytest.approx(expected[name], abs=1e-6)
    assert report["test"]["answered"]["rows"] == expected["answered"]["rows"]


def test_it_predicts_in_the_columns_that_it_names(ordinal_run: Run, tmp_path: Path) -> None:
    bundle = ordinal_run.bundle
    with ray_session():
        spec = predict_settings(bundle, [str(ordinal_run.csv)], list(SCALE))
        predict(bundle, spec, str(tmp_path / "out"), suffix="parquet", all_scores=False, say=lambda line: None)
    found = pq.read_table(tmp_path / "out" / "parts").to_pylist()
    scores = Classifier.load(bundle.uri, device="cpu").scores([row["text"] for row in found])
    assert [row["label"] for row in found] == [scores.label(i) for i in range(400)]
    assert [row["score"] for row in found] == pytest.approx([scores.confidence(i) for i in range(400)], abs=1e-5)


def test_it_is_served_and_scores_of_another_kind_are_refused(ordinal_run: Run) -> None:
    text = "the film wonderful boring was"
    scores = Classifier.load(str(ordinal_run.out / "bundle"), device="cpu").scores([text])
    with service_of(ordinal_run.out / "bundle") as service:
        (answer,) = service.ask("/predict", {"inputs": text}).json["predictions"]
        assert answer["label"] == scores.label(0)
        assert answer["score"] == pytest.approx(scores.confidence(0), abs=1e-5)
        refused = service.ask("/", {"inputs": text, "parameters": {"function_to_apply": "softmax"}})
        assert (refused.status, refused.json["error"]["code"]) == (422, "invalid")
        assert "function_to_apply softmax would give other scores than the bundle's" in refused.json["error"]["message"]


def test_a_metric_that_it_does_not_have_cannot_choose_its_checkpoint(ordinal_run: Run, tiny_model_dir: Path) -> None:
    recipe = small_recipe(tiny_model_dir, ordinal_run.csv, "train.select_by=macro_f1")
    with pytest.raises(RecipeError, match=r"train\.select_by is 'macro_f1'") as caught:
        train(recipe, str(ordinal_run.out.parent / "other"), resume=False, say=lambda line: None, task=ORDINAL)
    assert caught.value.expected == "a metric of task ordinal: mean_missed_steps, accuracy, loss"


def test_where_it_is_not_registered_its_bundle_is_refused(ordinal_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry._TASKS, ORDINAL.name)
    with pytest.raises(BundleError, match="task is 'ordinal'"):
        load_bundle(str(ordinal_run.out / "bundle"))
