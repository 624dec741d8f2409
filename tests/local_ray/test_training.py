"""Laws 4 to 6 on real Ray Train workers. `pytest tests/local_ray/test_training.py`"""

import json
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import ray
from safetensors.numpy import load_file

from tests.local_ray.conftest import (
    PAIRS_OF_SEVERAL_LABELS,
    prepared_data,
    rewritten,
    small_recipe,
    write_reviews,
)
from textcls.data.prepared_rows import PreparedData
from textcls.errors import ModelError, RecipeError, TrainingError
from textcls.manifest import Excluded
from textcls.modeling.pretrained import find_model
from textcls.settings.scale import ScaleSpec
from textcls.tasks.metrics import Counts
from textcls.text.tokenizer_files import TokenizerFiles, prepare_tokenizer
from textcls.tracking.journal import Journal
from textcls.training import attempts, run
from textcls.training.checkpoint import TrainingState
from textcls.training.export import export_bundle
from textcls.training.inputs import TrainingInputs
from textcls.training.loop_result import TrainOutcome
from textcls.training.run_dir import RunDir
from textcls.training.scaling import StopReason, TrainingWorkers, plan_training_workers
from textcls.training.worker import train_worker


@pytest.fixture(scope="module")
def reviews(tiny_model_dir, tmp_path_factory) -> tuple[Path, PreparedData, TokenizerFiles]:
    """243 rows: 170 to train on, so that every epoch ends with a short batch."""
    path = write_reviews(tmp_path_factory.mktemp("data") / "r.csv", 243)
    recipe = small_recipe(tiny_model_dir, path)
    tokenizer = prepare_tokenizer(recipe.model.pretrained, recipe.text)
    return path, prepared_data(recipe), tokenizer


def fitted(
    reviews,
    model: Path,
    out: Path,
    *overrides: str,
    workers: int = 1,
    said: list[str] | None = None,
    resume: bool = False,
) -> TrainOutcome:
    path, prepared, tokenizer = reviews
    recipe = small_recipe(model, path, *overrides)
    run = RunDir.claim(str(out), recipe, resume=resume)
    said = [] if said is None else said
    planned, journal = TrainingWorkers(workers, False, 1), Journal([], said.append)
    inputs = TrainingInputs(find_model(recipe.model), tokenizer, prepared)
    return attempts.fit(inputs, recipe, run, planned, say=said.append, journal=journal)


@pytest.fixture(scope="module")
def calm(reviews, tiny_model_dir, tmp_path_factory) -> Callable[[int], TrainOutcome]:
    """The outcome of two epochs on so many workers, to which nothing happens."""

    @cache
    def run(workers: int) -> TrainOutcome:
        out = tmp_path_factory.mktemp("calm") / "out"
        return fitted(reviews, tiny_model_dir, out, f"scale.workers={workers}", workers=workers)

    return run


# What changes the loss, without dropout: it depends on the rank.
EVERYTHING = (
    *("model.dropout=0", "train.epochs=1", "train.class_weights=balanced", "train.label_smoothing=0.1"),
    "calibration.min_precision=0.9",
)


@pytest.fixture(scope="module")
def one_epoch(reviews, tiny_model_dir, tmp_path_factory) -> TrainOutcome:
    """One epoch of one worker with every setting of the loss."""
    return fitted(reviews, tiny_model_dir, tmp_path_factory.mktemp("one epoch") / "out", *EVERYTHING)


def weights(state: TrainingState) -> dict[str, np.ndarray]:
    return load_file(os.path.join(state.best_uri, "model.safetensors"))


def wrapped(before_step: Callable[[object], None]) -> Callable[[dict], TrainOutcome]:
    """The real training function, with something done before each step, in the worker's process.

    A closure: workers cannot import this module, so it travels by value.
    """

    def train(config: dict) -> TrainOutcome:
        from textcls.training import loop

        step = loop.TrainingLoop._step

        def spied(self, batch):
            before_step(self, batch)
            step(self, batch)

        loop.TrainingLoop._step = spied
        try:
            return train_worker(config)
        finally:
            loop.TrainingLoop._step = step

    return train


FOUR_AND_FIVE = [{"CPU": 4.0}, {"CPU": 5.0}]


@pytest.mark.parametrize(
    ("nodes", "autoscaler", "scale", "told"),
    [
        (FOUR_AND_FIVE, None, {"workers": 2, "cpus_per_worker": 3}, ""),
        # Nine CPUs in all, but no node has room for two.
        (FOUR_AND_FIVE, None, {"workers": 3, "cpus_per_worker": 3}, "at most 2 such workers"),
        (FOUR_AND_FIVE, {"CPU": 40}, {"workers": 3, "cpus_per_worker": 3}, ""),
        (FOUR_AND_FIVE, {"CPU": 40}, {"workers": 14, "cpus_per_worker": 3}, "at most 2 such workers"),
        (FOUR_AND_FIVE, None, {"use_gpu": True}, "at most 0 such workers"),
        (FOUR_AND_FIVE, {"CPU": 40, "GPU": 2}, {"use_gpu": True, "workers": 2}, ""),
        (FOUR_AND_FIVE, {"CPU": 40, "GPU": 2}, {"use_gpu": True, "workers": 3}, "at most 0 such workers"),
        ([{"CPU": 1.0, "GPU": 4.0}], None, {"workers": 2}, "at most 1 such workers"),
        # Of a range the least must fit.
        (FOUR_AND_FIVE, None, {"workers": (2, 9), "cpus_per_worker": 3}, ""),
        (FOUR_AND_FIVE, None, {"workers": (3, 9), "cpus_per_worker": 3}, "at most 2 such workers"),
    ],
)
def test_workers_must_fit_the_nodes_there_are_or_may_come(monkeypatch, nodes, autoscaler, scale, told):
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    state = ray._private.state.state
    monkeypatch.setattr(state, "get_max_resources_from_cluster_config", lambda: autoscaler)
    if told:
        with pytest.raises(RecipeError, match=told):
            plan_training_workers(ScaleSpec(**scale))
    else:
        asked, planned = scale.get("workers", 1), plan_training_workers(ScaleSpec(**scale))
        assert asked == ((planned.min_count, planned.count) if planned.min_count else planned.count)


def test_two_workers_follow_one_worker(one_epoch, reviews, tiny_model_dir, tmp_path):
    one, two = one_epoch, fitted(reviews, tiny_model_dir, tmp_path, *EVERYTHING, "scale.workers=2", workers=2)
    assert (one.world_size, two.world_size) == (1, 2)
    assert [step for step, _ in one.state.curve] == list(range(1, 12))
    np.testing.assert_allclose([loss for _, loss in two.state.curve], [loss for _, loss in one.state.curve], rtol=1e-5)
    learned, pretrained = weights(one.state), load_file(tiny_model_dir / "model.safetensors")
    for name, value in weights(two.state).items():
        np.testing.assert_allclose(value, learned[name], atol=1e-4, err_msg=name)
    moved = learned["bert.encoder.layer.0.output.dense.weight"] - pretrained["encoder.layer.0.output.dense.weight"]
    assert abs(moved).max() > 3e-3  # the tolerance is a small part of what was learned
    assert (two.test.confusion == one.test.confusion).all()
    assert two.state.rows == one.state.rows == 170


def test_killed_at_any_step_ends_with_the_same_bits(calm, reviews, tiny_model_dir, tmp_path, monkeypatch, full):
    expected = calm(1)
    # Before the first checkpoint; after one, in the second epoch.
    steps = (2, 7, 10, 17) if full else (2, 17)
    settings = ("train.checkpoint_every_steps=3", f"scale.max_failures={len(steps)}")
    marks = str(tmp_path / "killed-at-")

    def kill(worker, batch):
        step = worker.state.step
        if step in steps and not os.path.exists(f"{marks}{step}"):
            Path(f"{marks}{step}").write_text(worker.context.staging_prefix)
            tempfile.mkdtemp(prefix=worker.context.staging_prefix)  # what a kill while a checkpoint is copied leaves
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(attempts, "train_worker", wrapped(kill))
    said: list[str] = []
    killed = fitted(reviews, tiny_model_dir, tmp_path / "killed", *settings, said=said)
    (staged,) = {Path(f"{marks}{step}").read_text() for step in steps}
    assert not list(Path(tempfile.gettempdir()).glob(f"{staged}*"))
    assert sum("a worker failed" in line for line in said) == len(steps)
    assert killed.state.best_step == expected.state.best_step
    for name, value in weights(killed.state).items():
        assert (value == weights(expected.state)[name]).all(), name
    assert (killed.test.confusion == expected.test.confusion).all()
    assert killed.test.loss == expected.test.loss


def test_pairs_of_several_labels_end_alike_after_a_kill_and_on_two_workers(tiny_model_dir, tmp_path, monkeypatch):
    kind = PAIRS_OF_SEVERAL_LABELS
    path = rewritten(write_reviews(tmp_path / "r.csv", 243), kind)
    settings = (*kind.settings, *EVERYTHING, "train.checkpoint_every_steps=3", "scale.max_failures=1")
    recipe = small_recipe(tiny_model_dir, path, *settings)
    tokenizer = prepare_tokenizer(recipe.model.pretrained, recipe.text, token_types=True)
    rows = path, prepared_data(recipe), tokenizer
    one = fitted(rows, tiny_model_dir, tmp_path / "one", *settings)
    two = fitted(rows, tiny_model_dir, tmp_path / "two", *settings, "scale.workers=2", workers=2)
    np.testing.assert_allclose([loss for _, loss in two.state.curve], [loss for _, loss in one.state.curve], rtol=1e-5)
    learned = weights(one.state)
    for name, value in weights(two.state).items():
        np.testing.assert_allclose(value, learned[name], atol=1e-4, err_msg=name)
    assert two.test.rows == one.test.rows
    mark = tmp_path / "killed"

    def kill(worker, batch):
        if worker.state.step == 7 and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(attempts, "train_worker", wrapped(kill))
    said: list[str] = []
    killed = fitted(rows, tiny_model_dir, tmp_path / "again", *settings, said=said)
    assert sum("a worker failed" in line for line in said) == 1
    for name, value in weights(killed.state).items():
        assert (value == learned[name]).all(), name
    np.testing.assert_array_equal(killed.test.loss, one.test.loss)


def test_a_rank_that_others_wait_for_in_vain_is_named_and_the_run_goes_on(
    calm, reviews, tiny_model_dir, tmp_path, monkeypatch
):
    expected = calm(2)
    settings = ("train.checkpoint_every_steps=3", "scale.workers=2", "scale.max_failures=1")
    mark = str(tmp_path / "stuck")

    def stick_once(worker, batch):
        if worker.context.rank == 1 and worker.state.step == 5 and not os.path.exists(mark):
            open(mark, "w").close()
            threading.Event().wait()  # alive, and answering Ray

    monkeypatch.setattr(attempts, "train_worker", wrapped(stick_once))
    said: list[str] = []
    hung = fitted(
        reviews, tiny_model_dir, tmp_path / "hung", *settings, "scale.hang_timeout_s=15", workers=2, said=said
    )
    assert sum("(rank 0: rank 1 did not answer for 15 s)" in line for line in said) == 1, said
    for name, value in weights(hung.state).items():
        assert (value == weights(expected.state)[name]).all(), name


def test_workers_that_are_preempted_lose_no_step_and_not_a_bit(calm, reviews, tiny_model_dir, tmp_path, monkeypatch):
    expected, workers = calm(2), 2
    settings = ("scale.max_failures=0", f"scale.workers={workers}")
    steps = str(tmp_path / "steps.txt")

    def note_slowly(worker, batch):
        time.sleep(0.25)  # long enough for the driver to notice meanwhile
        if worker.context.rank == 0:
            with open(steps, "a") as file:
                file.write(f"{worker.state.step}\n")

    noticed: list[str] = []

    def stop_reason(self, nodes):
        if noticed or not Path(steps).exists():
            return None
        noticed.extend(nodes)
        return StopReason("preempted", "a node goes")

    monkeypatch.setattr(attempts, "train_worker", wrapped(note_slowly))
    monkeypatch.setattr(attempts.RescalePolicy, "stop_reason", stop_reason)
    said: list[str] = []
    moved = fitted(reviews, tiny_model_dir, tmp_path / "moved", *settings, workers=workers, said=said)
    assert noticed == [ray.get_runtime_context().get_node_id()]
    assert (
        sum(bool(re.match(r"  a node goes: resuming from step \d+ with other workers", line)) for line in said) == 1
    ), said
    assert Path(steps).read_text().split() == [str(step) for step in range(22)]
    for name, value in weights(moved.state).items():
        assert (value == weights(expected.state)[name]).all(), name


def test_the_published_bundle_scores_as_the_test_did_and_is_calibrated(one_epoch, reviews, tiny_model_dir, tmp_path):
    from textcls.inference.classifier import Classifier

    path, prepared, tokenizer = reviews
    excluded = Excluded(digest="c" * 64, entries=3, without_rows=1, rows=2)
    prepared = replace(prepared, excluded=excluded)
    outcome, recipe = one_epoch, small_recipe(tiny_model_dir, path, *EVERYTHING)
    export_bundle(recipe, prepared, tokenizer, outcome, str(tmp_path / "out"), {})

    classifier = Classifier.load(str(tmp_path / "out" / "bundle"), threads=1)
    assert classifier.bundle.manifest.excluded == excluded
    calibration = classifier.bundle.manifest.calibration
    assert calibration == outcome.calibration
    assert calibration.temperature != 1
    trained = weights(outcome.state)["classifier.weight"]
    kept = load_file(tmp_path / "out" / "bundle" / "model.safetensors")["classifier.weight"]
    np.testing.assert_array_equal(kept, trained / np.float32(calibration.temperature))

    texts = [text for block in ray.get(prepared.inputs["test"]) for text in block["text"].to_pylist()]
    labels = [label for block in ray.get(prepared.blocks["test"]) for label in block["target"].to_pylist()]
    scores = classifier.scores(texts)
    counts = Counts.of(scores.probabilities, np.array(labels), threshold=classifier.thresholds[0])
    assert (counts.confusion == outcome.test.confusion).all()
    np.testing.assert_allclose(counts.loss, outcome.test.loss, rtol=1e-5)
    assert (counts.answered, counts.answered_correct) == (outcome.test.answered, outcome.test.answered_correct)
    assert sum(not scores.abstained(i) for i in range(len(scores))) == counts.answered


def test_an_error_that_another_try_would_meet_again_ends_the_run_at_once(reviews, tiny_model_dir, tmp_path):
    broken = shutil.copytree(tiny_model_dir, tmp_path / "model")
    settings = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(settings | {"hidden_size": 48}))
    said: list[str] = []
    with pytest.raises(ModelError, match="weights of the encoder are missing or of another shape"):
        fitted(reviews, broken, tmp_path / "out", said=said)
    assert not any("a worker failed" in line for line in said)
    anew = small_recipe(tiny_model_dir, reviews[0], "train.epochs=1")
    assert RunDir.claim(str(tmp_path / "out"), anew, resume=False).replaces


def test_a_cluster_that_cannot_be_reached_leaves_an_out_that_any_run_may_use(
    reviews, tiny_model_dir, tmp_path, monkeypatch
):
    @contextmanager
    def unreachable(**_):
        raise ConnectionError("no Ray at the address")
        yield

    recipe, out = small_recipe(tiny_model_dir, reviews[0]), str(tmp_path / "out")
    monkeypatch.setattr(run, "ray_session", unreachable)
    with pytest.raises(ConnectionError):
        run.train(recipe, out, resume=False, say=lambda line: None)
    assert RunDir.claim(out, recipe, resume=True).resumed
    other = small_recipe(tiny_model_dir, reviews[0], "train.epochs=1")
    assert RunDir.claim(out, other, resume=False).replaces


def test_an_error_of_python_code_in_one_rank_ends_the_run_at_once(reviews, tiny_model_dir, tmp_path, monkeypatch):
    def fail(worker, batch):
        if worker.context.rank == worker.context.world_size - 1 and worker.state.step == 2:
            raise IndexError("index 66 is out of bounds")

    monkeypatch.setattr(attempts, "train_worker", wrapped(fail))
    said: list[str] = []
    out, settings = tmp_path / "out", ("scale.workers=2", "scale.max_failures=3")
    with pytest.raises(TrainingError, match="rank 1 failed: IndexError: index 66 is out of bounds"):
        fitted(reviews, tiny_model_dir, out, *settings, workers=2, said=said)
    assert not any("a worker failed" in line for line in said)
    monkeypatch.undo()
    resumed = fitted(reviews, tiny_model_dir, out, *settings, resume=True)  # what the message advises
    assert resumed.state.step == 2 * 11
