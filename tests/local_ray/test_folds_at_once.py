"""Folds of an audit that train side by side on real Ray learn what they learn one after another, whatever happens."""

import csv
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyrage
import pytest
import ray

from tests.local_ray.conftest import small_recipe
from tests.local_ray.test_encrypted_files import logs_of_ray, planted_in
from textcls.audit.run import AuditOptions, train_folds
from textcls.bundle import MANIFEST
from textcls.encryption import Keys
from textcls.output.json_files import write_json
from textcls.settings.recipe import Recipe

KEYS = Keys((str(pyrage.x25519.Identity.generate().to_public()),))
OPTIONS = AuditOptions(folds=2, keys=KEYS)


@pytest.fixture
def recipe(tiny_model_dir: Path, tmp_path: Path) -> Recipe:
    """Of some seconds of training: 40 rows, each with a word of its own that no other file may hold, and a reject."""
    path = tmp_path / "reviews.csv"
    words = {"positive": "great moving wonderful", "negative": "awful boring bad"}
    with path.open("w", newline="") as file:
        csv.writer(file).writerow(("text", "label"))
        csv.writer(file).writerows((f"zq7f{i:05d} {words[label]}", label) for i in range(20) for label in words)
        csv.writer(file).writerow(("zq7f00099 has no label", ""))
    steps = ("train.epochs=20", "train.rows_per_step=2", "train.checkpoint_every_steps=20")
    return small_recipe(tiny_model_dir, path, "data.max_reject_fraction=0.5", "scale.cpus_per_worker=2", *steps)


def trained(recipe: Recipe, out: Path, at_once: int) -> list[str]:
    """Trains the folds; what they say."""
    said: list[str] = []
    try:
        train_folds(recipe, str(out), OPTIONS, at_once, say=said.append, verbose=False)
    finally:
        assert multiprocessing.active_children() == []
    return said


def bundle(out: Path, fold: int) -> dict[str, bytes]:
    """Name -> content of each file of a fold's bundle."""
    return {path.name: path.read_bytes() for path in (out / "folds" / str(fold) / "bundle").glob("*")}


@contextmanager
def interrupted_at_the_first_checkpoint(out: Path) -> Iterator[None]:
    """Sends this process a SIGINT."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            if any(out.glob("folds/*/training/attempt-*/step-*/checkpoint.json")):
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        ended.set()
        thread.join()


def test_folds_are_interrupted_resumed_and_wait_for_each_other_and_learn_what_they_learn_one_after_another(
    recipe: Recipe, tmp_path: Path
) -> None:
    alone, out = tmp_path / "alone", tmp_path / "side by side"
    # As if fold 2 were finished: one is enough to compare.
    write_json(str(alone / "folds" / "2" / "bundle"), MANIFEST, {})
    assert trained(recipe, alone, 2)[:2] == ["fold 2 of 2: finished before", "fold 1 of 2"]

    with interrupted_at_the_first_checkpoint(out):
        trained(recipe, out, 2)
    assert (bundle(out, 1), bundle(out, 2)) == ({}, {})

    # Of four CPUs two are left for the workers of one fold, and one for the other fold to read its rows meanwhile.
    other_job = ray.remote(_Nothing).options(num_cpus=1).remote()
    ray.get(other_job.__ray_ready__.remote())
    try:
        said = trained(recipe, out, 2)
    finally:
        ray.kill(other_job)
    assert any("continuing from step-" in line for line in said)
    assert bundle(out, 1) == bundle(alone, 1)
    assert bundle(out, 2)["model.safetensors"] != bundle(out, 1)["model.safetensors"]

    assert trained(recipe, out, 2) == ["fold 1 of 2: finished before", "fold 2 of 2: finished before"]
    assert (out / "folds" / "2" / "rejects.parquet.age").exists()
    assert planted_in(out, logs_of_ray()) == {}


class _Nothing:
    """An actor that holds a CPU."""
