"""Laws 4 to 6 on real Ray Train workers. `pytest tests/local_ray/test_training.py`"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.local_ray.conftest import small_recipe, write_reviews
from textcls.data.pipeline import PreparedData, ReadData
from textcls.text import TokenizerFiles, prepare_tokenizer
from textcls.training import trainer
from textcls.training.checkpoint import Progress
from textcls.training.run_dir import RunDir
from textcls.training.trainer import Workers
from textcls.training.worker import TrainOutcome, train_worker


@pytest.fixture(scope="module")
def reviews(tiny_model_dir, tmp_path_factory) -> tuple[Path, PreparedData, TokenizerFiles]:
    """243 rows: 170 to train on, so that every epoch ends with a short batch."""
    path = write_reviews(tmp_path_factory.mktemp("data") / "r.csv", 243)
    recipe = small_recipe(tiny_model_dir, path)
    tokenizer = prepare_tokenizer(recipe.model.pretrained, recipe.text, model_limit=64)
    return path, ReadData(recipe, tokenizer).divide(), tokenizer


def fitted(
    reviews, model: Path, out: Path, *overrides: str, workers: int = 1, said: list[str] | None = None
) -> TrainOutcome:
    path, prepared, tokenizer = reviews
    recipe = small_recipe(model, path, *overrides)
    run = RunDir.claim(str(out), recipe, resume=False)
    said = [] if said is None else said
    return trainer.fit(recipe, prepared, tokenizer, run, Workers(workers, False, 1), said.append)


def weights(progress: Progress) -> dict[str, np.ndarray]:
    return load_file(os.path.join(progress.best_uri, "model.safetensors"))


def wrapped(before_step: Callable[[object], None]) -> Callable[[dict], TrainOutcome]:
    """The real training function, with something done before each step, in the worker's process.

    A closure: workers cannot import this module, so it travels by value.
    """

    def train(config: dict) -> TrainOutcome:
        from textcls.training import worker

        step = worker._Worker._step

        def spied(self, batch):
            before_step(self, batch)
            step(self, batch)

        worker._Worker._step = spied
        try:
            return train_worker(config)
        finally:
            worker._Worker._step = step

    return train


def test_two_workers_follow_one_worker(reviews, tiny_model_dir, tmp_path):
    settings = ("model.dropout=0", "train.epochs=1", "train.class_weights=balanced", "train.label_smoothing=0.1")
    one = fitted(reviews, tiny_model_dir, tmp_path / "one", *settings)
    two = fitted(reviews, tiny_model_dir, tmp_path / "two", *settings, "scale.workers=2", workers=2)
    assert (one.world_size, two.world_size) == (1, 2)
    assert [step for step, _ in one.progress.curve] == list(range(1, 12))
    np.testing.assert_allclose(
        [loss for _, loss in two.progress.curve], [loss for _, loss in one.progress.curve], rtol=1e-5
    )
    learned, pretrained = weights(one.progress), load_file(tiny_model_dir / "model.safetensors")
    for name, value in weights(two.progress).items():
        np.testing.assert_allclose(value, learned[name], atol=1e-4, err_msg=name)
    moved = learned["bert.encoder.layer.0.output.dense.weight"] - pretrained["encoder.layer.0.output.dense.weight"]
    assert abs(moved).max() > 3e-3  # the tolerance is a small part of what was learned
    assert (two.test.confusion == one.test.confusion).all()
    assert two.progress.rows == one.progress.rows == 170


def test_small_parts_add_up_to_the_whole_step(reviews, tiny_model_dir, tmp_path):
    path = reviews[0]
    assert path.exists()
    settings = ("model.dropout=0", "train.epochs=1", "train.rows_per_step=170")
    whole = fitted(reviews, tiny_model_dir, tmp_path / "whole", *settings)
    parts = fitted(reviews, tiny_model_dir, tmp_path / "parts", *settings, "train.max_tokens_per_micro_batch=512")
    np.testing.assert_allclose(parts.progress.curve, whole.progress.curve, rtol=1e-6)
    for name, value in weights(parts.progress).items():
        np.testing.assert_allclose(value, weights(whole.progress)[name], atol=2e-5, err_msg=name)


def test_every_row_is_used_once_an_epoch_and_scored_once(reviews, tiny_model_dir, tmp_path, monkeypatch):
    seen = str(tmp_path / "seen.txt")

    def note(worker, batch):
        with open(seen, "a") as file:
            file.writelines(f"{worker.progress.epoch} {row}\n" for row in batch.tolist())

    monkeypatch.setattr(trainer, "train_worker", wrapped(note))
    outcome = fitted(reviews, tiny_model_dir, tmp_path / "out")
    rows = [tuple(map(int, line.split())) for line in Path(seen).read_text().splitlines()]
    train = reviews[1].account.train
    assert sorted(rows) == [(epoch, row) for epoch in range(2) for row in range(train)]
    assert outcome.progress.rows == 2 * train
    assert outcome.test.rows == reviews[1].account.test
    assert outcome.progress.padded_tokens >= outcome.progress.real_tokens > 0


def test_killed_at_any_step_ends_with_the_same_bits(reviews, tiny_model_dir, tmp_path, monkeypatch):
    settings = ("train.checkpoint_every_steps=3", "train.epochs=2", "scale.max_failures=3")
    calm = fitted(reviews, tiny_model_dir, tmp_path / "calm", *settings)
    marks = str(tmp_path / "killed-at-")

    def kill_thrice(worker, batch):
        step = worker.progress.step
        if step in (2, 10, 17) and not os.path.exists(f"{marks}{step}"):
            open(f"{marks}{step}", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(trainer, "train_worker", wrapped(kill_thrice))
    said: list[str] = []
    killed = fitted(reviews, tiny_model_dir, tmp_path / "killed", *settings, said=said)
    assert all(os.path.exists(f"{marks}{step}") for step in (2, 10, 17))
    assert sum("a worker failed" in line for line in said) == 3
    assert killed.progress.best_step == calm.progress.best_step
    for name, value in weights(killed.progress).items():
        assert (value == weights(calm.progress)[name]).all(), name
    assert (killed.test.confusion == calm.test.confusion).all()
    assert killed.test.loss == calm.test.loss


def test_patience_stops_and_the_best_epoch_is_kept(reviews, tiny_model_dir, tmp_path):
    outcome = fitted(
        reviews,
        tiny_model_dir,
        tmp_path / "out",
        "train.epochs=6",
        "train.patience=1",
        "train.learning_rate=0.3",
        "train.warmup_fraction=0",
        "train.select_by=loss",
    )
    progress = outcome.progress
    assert progress.stopped_early
    losses = [epoch["loss"] for epoch in progress.history]
    assert len(losses) < 6
    assert progress.best_step == progress.history[int(np.argmin(losses))]["step"]
    assert progress.best_score == -min(losses)
