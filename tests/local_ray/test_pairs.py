"""Pairs of texts from the CSV to the answer: the laws of one text hold for them. One run on one worker, one on two."""

import csv
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.http.conftest import service_of
from tests.local_ray.conftest import small_recipe
from textcls.batch.evaluate import evaluate
from textcls.batch.predict import predict
from textcls.batch.settings import evaluate_settings, predict_settings
from textcls.bundle import load_bundle
from textcls.inference.classifier import Classifier
from textcls.on_ray.session import ray_session
from textcls.reporting.report import Report
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.text_input import TextInput
from textcls.training.run import dry_run, train

SETTINGS = [
    "data.pair=[question, answer]",
    "model.dropout=0",
    "data.max_reject_fraction=0.1",
    "scale.cpus_per_worker=1",
]
ROWS = 240


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of which the label says whether both texts agree, long and short; two rows lack their second text."""
    chance, words = random.Random(0), {"great": "wonderful", "awful": "bad"}
    lines = ["question,answer,label"]
    for i in range(ROWS):
        one, other = chance.choice(list(words)), chance.choice(list(words))
        first, second = ([word] + ["film"] * chance.randint(0, 25) for word in (one, words[other]))
        lines.append(
            f"{' '.join(first)} {i},{'' if i in (7, 70) else ' '.join(second)},{'yes' if one == other else 'no'}"
        )
    found = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    found.write_text("\n".join(lines) + "\n")
    return found


@pytest.fixture(scope="module")
def run(
    path: Path, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], tuple[Path, Report]]:
    """(the directory, the report) of a run on so many workers."""

    @cache
    def trained(workers: int) -> tuple[Path, Report]:
        out = tmp_path_factory.mktemp("run") / "out"
        recipe = small_recipe(tiny_model_dir, path, *SETTINGS, f"scale.workers={workers}")
        report = train(recipe, str(out), resume=False, say=lambda line: None, task=SINGLE_LABEL)
        assert report is not None
        return out, report

    return trained


def test_two_workers_learn_from_pairs_what_one_learns(run: Callable[[int], tuple[Path, Report]]) -> None:
    (_, one), (_, two) = run(1), run(2)
    assert [step for step, _ in one.curve] == [step for step, _ in two.curve]
    np.testing.assert_allclose([loss for _, loss in two.curve], [loss for _, loss in one.curve], rtol=1e-4)
    assert one.test.log_loss == pytest.approx(two.test.log_loss, rel=1e-3)


def test_every_pair_is_accounted_for_and_both_lengths_are_reported(run: Callable[[int], tuple[Path, Report]]) -> None:
    out, report = run(1)
    rejects = pq.read_table(out / "rejects.parquet").to_pylist()
    assert [(one["line"], one["column"], one["reason"]) for one in rejects] == [
        (9, "answer", "missing_text"),
        (72, "answer", "missing_text"),
    ]
    account = json.loads((out / "rows.json").read_text())
    assert account["read"] == ROWS
    assert report.tokens is not None
    first, second = report.tokens.texts
    assert report.tokens.percentiles["100"] <= first["100"] + second["100"] + 3
    assert min(first["50"], second["50"]) > 3


def test_a_pair_scores_alike_everywhere(run: Callable[[int], tuple[Path, Report]], path: Path, tmp_path: Path) -> None:
    out, _ = run(1)
    bundle = load_bundle(str(out / "bundle"))
    assert bundle.manifest.pairs
    scale = ["scale.workers=1", "scale.cpus_per_worker=1"]
    with ray_session():
        spec = predict_settings(bundle, [str(path)], scale)
        predict(bundle, spec, str(tmp_path / "p"), suffix="parquet", all_scores=True, say=lambda line: None)
        evaluation = evaluate(
            bundle, evaluate_settings(bundle, [str(path)], scale), str(tmp_path / "e"), say=lambda line: None
        )
    rows = pq.read_table(tmp_path / "p" / "parts").to_pylist()
    assert [row["error"] for row in rows].count("missing_text") == 2
    usable = [row for row in rows if row["error"] is None]
    inputs = [TextInput(row["question"], row["answer"]) for row in usable]
    classifier = Classifier.load(bundle.uri, device="cpu")
    scores = classifier.scores(inputs)
    assert scores.text_tokens is not None
    assert [[row["first_tokens"], row["second_tokens"]] for row in usable] == scores.text_tokens.tolist()
    assert [row["tokens"] for row in usable] == (scores.text_tokens.sum(axis=1) + 3).tolist()
    predicted = [[row[f"score_{label}"] for label in scores.labels] for row in usable]
    np.testing.assert_allclose(predicted, scores.probabilities, atol=1e-5)

    with path.open(newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file) if row["answer"]]
    targets = SINGLE_LABEL.encode(labels, scores.labels)
    assert evaluation.test.accuracy is not None
    assert evaluation.test.accuracy.value == pytest.approx((scores.probabilities.argmax(axis=1) == targets).mean())
    assert evaluation.tokens is not None
    assert len(evaluation.tokens.texts) == 2

    from transformers import pipeline

    theirs = pipeline("text-classification", bundle.uri, top_k=None, truncation=True)
    with service_of(out / "bundle") as service:
        for i in range(0, len(inputs), 40):
            sent = inputs[i]._asdict()
            (answer,) = service.ask("/predict", {"inputs": sent}).json["predictions"]
            for found in (answer["scores"], theirs(sent)):
                by_label = {one["label"]: one["score"] for one in found}
                np.testing.assert_allclose(
                    [by_label[label] for label in scores.labels], scores.probabilities[i], atol=1e-5
                )


def test_a_dry_run_shows_how_text_columns_are_joined_and_the_lengths_of_a_pair(
    path: Path, tiny_model_dir: Path
) -> None:
    said: list[str] = []
    joined = ["data.text_columns=[question, answer]", *SETTINGS[1:]]
    dry_run(small_recipe(tiny_model_dir, path, *joined), say=said.append, task=SINGLE_LABEL)
    (told,) = [line for line in said if "are joined by a space to one text" in line]
    assert f"as in {path}:2: " in told
    advised = told.partition("; if they are a pair: ")[2].replace("--set ", "").replace("'", "").split(" ", 1)
    assert parse_recipe("", [*joined, *advised]).data.pair == ("question", "answer")
    said.clear()
    settings = [*SETTINGS, "train.rows_per_step=10000"]
    dry_run(small_recipe(tiny_model_dir, path, *settings), say=said.append, task=SINGLE_LABEL)
    assert [line.strip().split(":")[0] for line in said if "tokens of" in line] == [
        "tokens of question",
        "tokens of answer",
    ]
    assert [line for line in said if "warning: train.rows_per_step 10,000 is more than the " in line]
