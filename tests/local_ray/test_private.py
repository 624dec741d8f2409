"""Private training on real Ray Train workers, and what is left of its secret.

`pytest tests/local_ray/test_private.py`
"""

import json
import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import ray
from safetensors.numpy import load_file

from tests.local_ray.conftest import prepared_data, small_recipe, write_reviews
from tests.local_ray.test_training import weights, wrapped
from textcls.bundle import load_bundle
from textcls.errors import RunDirError
from textcls.modeling.pretrained import find_model
from textcls.text.tokenizer_files import prepare_tokenizer
from textcls.tracking.journal import Journal
from textcls.training import attempts, run
from textcls.training.checkpoint import KEY
from textcls.training.inputs import TrainingInputs
from textcls.training.loop_result import TrainOutcome
from textcls.training.private.budget import Budget
from textcls.training.run_dir import RunDir
from textcls.training.scaling import TrainingWorkers

PRIVATE = ("privacy.epsilon=8", "train.rows_per_step=64")


def with_a_fixed_key(before_step):
    """Training with a secret that the test knows, and something done before each step; see `wrapped`."""
    train = wrapped(before_step)

    def fixed(config: dict) -> TrainOutcome:
        from textcls.training import loop

        loop.new_key = lambda: bytes(range(32))
        return train(config)

    return fixed


def test_two_workers_and_a_killed_one_take_the_steps_of_one_worker(tiny_model_dir, tmp_path, monkeypatch):
    path = write_reviews(tmp_path / "r.csv", 243)
    recipe = small_recipe(tiny_model_dir, path, *PRIVATE, "scale.max_failures=1")
    data, tokenizer = prepared_data(recipe), prepare_tokenizer(recipe.model.pretrained, recipe.text)
    budget = Budget(8.0, 1e-3, "none", 170, 64 / 170, 6, 0.7, 0.1)

    def fitted(name: str, before_step, workers: int = 1) -> TrainOutcome:
        monkeypatch.setattr(attempts, "train_worker", with_a_fixed_key(before_step))
        claimed = RunDir.claim(str(tmp_path / name), recipe, resume=False)
        inputs, planned = TrainingInputs(find_model(recipe.model), tokenizer, data), TrainingWorkers(workers, False, 1)
        journal = Journal([], said.append)
        return attempts.fit(inputs, recipe, claimed, planned, say=said.append, journal=journal, budget=budget)

    said: list[str] = []
    one = fitted("one", lambda worker, batch: None)
    two = fitted("two", lambda worker, batch: None, workers=2)
    assert (one.world_size, two.world_size) == (1, 2)
    learned = weights(one.state)
    for name, value in weights(two.state).items():
        np.testing.assert_allclose(value, learned[name], atol=1e-4, err_msg=name)
    mark = str(tmp_path / "killed")

    def kill(worker, batch):
        if worker.state.step == 2 and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)

    killed = fitted("killed again", kill)
    assert sum("a worker failed" in line for line in said) == 1
    for name, value in weights(killed.state).items():
        assert (value == learned[name]).all(), name


def test_a_run_states_its_epsilon_and_leaves_nothing_of_its_secret(tiny_model_dir, tmp_path):
    path = write_reviews(tmp_path / "r.csv", 243)
    secrets, said = list[bytes](), list[str]()

    def say(line: str) -> None:
        said.append(line)
        secrets.extend(found.read_bytes() for found in (tmp_path / "runs").rglob(KEY))

    recipe = small_recipe(tiny_model_dir, path, *PRIVATE)
    run.dry_run(recipe, say=say)
    (shown,) = [line for line in said if line.startswith("private training: epsilon")]
    assert "6 steps of 64 rows on average" in shown
    assert not (tmp_path / "runs").exists(), "a dry run spends nothing"
    report = run.train(recipe, str(tmp_path / "runs" / "one"), resume=False, say=say)
    (secret,) = set(secrets)
    assert len(secret) == 32
    places = [tmp_path, Path(ray._private.worker._global_node.get_session_dir_path())]
    places += list(Path(tempfile.gettempdir()).glob("textcls-*"))
    for place in places:
        for file in place.rglob("*"):
            if file.is_file() and not file.is_symlink():
                content = file.read_bytes()
                assert secret not in content, file
                assert secret.hex().encode() not in content, file
    stated = load_bundle(str(tmp_path / "runs" / "one" / "bundle")).manifest
    assert stated.data_fingerprint == ""
    assert 7.9 < stated.privacy.epsilon <= 8
    assert (stated.privacy.unit, stated.privacy.steps, stated.privacy.sampling_rate) == ("row", 6, 64 / 170)
    assert report.best.step == stated.privacy.steps, "the last checkpoint"
    learned = load_file(tmp_path / "runs" / "one" / "bundle" / "model.safetensors")
    words = "embeddings.word_embeddings.weight"
    assert (learned[f"bert.{words}"] == load_file(tiny_model_dir / "model.safetensors")[words]).all()
    assert report.privacy.epsilon == stated.privacy.epsilon
    assert report.privacy.other_runs == ()
    assert json.loads((tmp_path / "runs" / "one" / "run.json").read_text())["privacy"]["steps"] == 6
    # A second run on the same rows is not hidden.
    said.clear()
    plain = small_recipe(tiny_model_dir, path, "train.epochs=1", "data.max_cell_chars=1000")
    run.train(plain, str(tmp_path / "runs" / "plain"), resume=False, say=say)
    second = run.train(recipe, str(tmp_path / "runs" / "two"), resume=False, say=say)
    assert second.privacy.other_runs == (
        f"one was trained on the same rows with epsilon {stated.privacy.epsilon:.2f}.",
        "plain was trained on the same rows without privacy.",
    )
    assert any("warning: one was trained on the same rows" in line for line in said)


def test_a_run_goes_on_with_its_own_epsilon_and_steps_only(tiny_model_dir, tmp_path):
    path = write_reviews(tmp_path / "r.csv", 60)
    begun = small_recipe(tiny_model_dir, path, *PRIVATE)
    RunDir.claim(str(tmp_path / "out"), begun, resume=False)
    for change in ("privacy.epsilon=9", "privacy.max_grad_norm=1", "train.epochs=3", "privacy.epsilon=null"):
        with pytest.raises(RunDirError, match="another recipe"):
            RunDir.claim(str(tmp_path / "out"), small_recipe(tiny_model_dir, path, *PRIVATE, change), resume=True)
    assert RunDir.claim(str(tmp_path / "out"), begun, resume=True).resumed
    recorded = RunDir.claim(str(tmp_path / "out"), begun, resume=True).bind_privacy(lambda: {"epsilon": 7.0})
    again = RunDir.claim(str(tmp_path / "out"), begun, resume=True).bind_privacy(lambda: {"epsilon": 99.0})
    assert recorded == again == {"epsilon": 7.0}
