"""The protocol of tasks/ is all that the training loop, a bundle, the classifier and a report know of a task.

Proven with `ordinal.py` in this process; `tests/local_ray/test_second_task.py` has the same on Ray.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.ordinal import ORDINAL, SETTINGS, STEPS, write_ratings
from tests.unit.test_loop import OneProcess
from textcls.bundle import load_bundle
from textcls.data import row_tables, row_tokens
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.data.prepared_rows import PreparedData, training_account
from textcls.data.summary import RowSummary
from textcls.errors import BundleError
from textcls.inference.classifier import Classifier
from textcls.modeling.build import build_model, head_of
from textcls.reporting.report import Report
from textcls.reporting.task_scores import TaskScores
from textcls.reporting.terminal import print_report
from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import parse_recipe
from textcls.slices.groups import FileGroup, SlicePlan
from textcls.tasks import registry
from textcls.text.tokenizer_files import prepare_tokenizer
from textcls.training.export import export_bundle
from textcls.training.loop import TrainingLoop
from textcls.training.loop_result import TrainOutcome
from textcls.training.token_rows import TokenRows

NO_SLICES = SlicePlan(FileGroup((), ()))
SPLITS = {"train": slice(0, 280), "val": slice(280, 320), "test": slice(320, 400)}


@dataclass(frozen=True)
class Trained:
    recipe: Recipe
    summary: RowSummary
    targets: np.ndarray
    context: OneProcess
    outcome: TrainOutcome
    bundle: str
    scores: dict[str, Any]


@pytest.fixture(scope="module")
def trained(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run in the stages of `training/`, with the rows of a real CSV, and its bundle."""
    place = tmp_path_factory.mktemp("ordinal")
    path = write_ratings(place / "ratings.csv", 400)
    fixed = (f"data.csv='{path}'", f"model.pretrained='{tiny_model_dir}'", "text.max_tokens=32", "train.precision=fp32")
    recipe = parse_recipe("{}", [*fixed, *SETTINGS])
    tokenizer = prepare_tokenizer(str(tiny_model_dir), recipe.text)

    layouts, (shard,) = plan_shards(expand(recipe.data.csv), recipe.data)
    (table,) = row_tables.read_tables(shard, layouts[0], recipe.data, recipe.text, ORDINAL)
    summary, rows = row_tables.summarize(table, ORDINAL), row_tables.clean_rows(row_tokens.tokenized(table, tokenizer))
    targets = row_tables.targets_of(rows["label"], ORDINAL, STEPS)
    tokens = pa.table({"input_ids": rows["input_ids"], "target": row_tables.target_column(targets)})
    data = {name: TokenRows([tokens.slice(part.start, part.stop - part.start)]) for name, part in SPLITS.items()}

    model = build_model(
        str(tiny_model_dir), STEPS, recipe.model, problem_type=ORDINAL.problem_type, pad_id=tokenizer.pad_id, seed=42
    )
    context, counts = OneProcess(place / "attempt"), ORDINAL.label_rows(data["train"].targets, len(STEPS)).tolist()
    loop = TrainingLoop(
        context,
        recipe,
        ORDINAL,
        STEPS,
        model,
        data,
        class_counts=counts,
        pad_id=tokenizer.pad_id,
        head=head_of(model, len(STEPS)),
        fingerprint="run",
    )
    outcome = loop.run()
    assert isinstance(outcome, TrainOutcome)
    scores = ORDINAL.summarise(outcome.test, STEPS)
    prepared = PreparedData(
        ORDINAL,
        STEPS,
        {},
        {},
        {"train": counts},
        training_account(summary),
        {},
        (0, []),
        [],
        "0" * 64,
        (),
        NO_SLICES,
    )
    export_bundle(recipe, prepared, tokenizer, outcome, str(place), scores)
    return Trained(recipe, summary, targets, context, outcome, str(place / "bundle"), scores)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    registry.register(ORDINAL)


def test_its_cells_become_targets_of_its_own_shape(trained: Trained) -> None:
    assert (trained.targets.shape, trained.targets.dtype) == ((400, 4), np.float32)
    assert sum(trained.summary.labels.values()) == trained.summary.rows == 400
    assert ORDINAL.encode(("1", "3"), STEPS).tolist() == [[1, 0, 0, 0], [1, 1, 1, 0]]
    assert trained.targets.sum(axis=1).max() == 4


def test_the_loop_learns_by_its_loss_and_selects_by_its_metric(trained: Trained) -> None:
    state = trained.outcome.state
    assert state.curve[-1][1] < state.curve[0][1] / 2
    assert state.best_score == -min(epoch["loss"] for epoch in state.history)
    assert trained.scores["mean_missed_steps"] < 0.5  # a guess misses 1.25 steps on average
    assert trained.outcome.calibration.threshold > 0
    assert "validation missed steps 0." in trained.context.lines[-1]
    validated = [values for name, values in trained.context.events if "mean_missed_steps" in values]
    assert len(validated) == trained.recipe.train.epochs


def test_its_bundle_names_it_and_scores_by_its_rules(trained: Trained) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    assert load_bundle(trained.bundle).task is ORDINAL
    classifier = Classifier.load(trained.bundle, device="cpu")
    texts = ["the film was awful", "its plot moving, no 3", " "]
    scores = classifier.scores(texts)
    model, tokenizer = (
        kind.from_pretrained(trained.bundle) for kind in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    for i, text in enumerate(texts[:2]):
        with torch.inference_mode():
            logits = model(**tokenizer(text, return_tensors="pt")).logits.numpy()
        np.testing.assert_allclose(scores.probabilities[i], ORDINAL.probabilities(logits)[0], atol=1e-5)
        assert scores.answer(i)["label"] == scores.label(i)
        assert scores.abstained(i) == (scores.confidence(i) < classifier.thresholds[0])
    assert (scores.label(2), scores.abstained(2)) == (None, True)


def test_the_classifier_repeats_the_result_of_the_test_split(trained: Trained) -> None:
    with open(trained.recipe.data.csv[0], newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)][SPLITS["test"]]
    classifier = Classifier.load(trained.bundle, device="cpu")
    found = ORDINAL.counts(
        classifier.scores(texts).probabilities, trained.targets[SPLITS["test"]], classifier.thresholds
    )
    assert found.exact.confusion.tolist() == trained.outcome.test.exact.confusion.tolist()  # type: ignore[attr-defined]
    assert found.missed_steps == trained.outcome.test.missed_steps  # type: ignore[attr-defined]
    again = ORDINAL.summarise(found, STEPS)
    assert again["answered"]["rows"] == trained.scores["answered"]["rows"] < 80
    assert again["log_loss"] == pytest.approx(trained.scores["log_loss"], abs=1e-5)


def test_its_own_metric_is_in_the_report_that_a_person_reads(trained: Trained) -> None:
    shown = io.StringIO()
    print_report(Report(test=TaskScores.model_validate(trained.scores)), shown)
    assert "missed steps" in shown.getvalue().replace("_", " ")


def test_where_it_is_not_registered_its_bundle_is_refused(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry._TASKS, ORDINAL.name)
    with pytest.raises(BundleError, match="task is 'ordinal'"):
        load_bundle(trained.bundle)
