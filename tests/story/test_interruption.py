"""A run that is interrupted, however it happens, goes on with --resume and ends with the same weights."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from .conftest import OFTEN, Cluster, Command, Ended, FirstRun, User, wait_until

TRAIN = ("--recipe", "recipe.yaml", *OFTEN)


def _interrupted(user: User, out: str, attempt: int, number: int, *, group: bool = False) -> Ended:
    """Trains up to the attempt's first checkpoint, sends a signal, and sees that nothing is left running."""
    running = user.starts("--out", out, *OFTEN, *(["--resume"] if attempt > 1 else []))
    checkpoints = user.home / out / "training" / f"attempt-{attempt:04d}"
    try:
        running.until(lambda: any(checkpoints.glob("step-*/checkpoint.json")))
        running.signal(number, group=group)
        ended = running.ended()
        wait_until(lambda: not running.relatives())
    finally:
        running.kill()
    assert not (user.home / out / "bundle").exists()
    return ended


@pytest.fixture(scope="session")
def cluster_user(first_run: FirstRun, cluster: Cluster) -> User:
    """The user of the first run, whose jobs now join a running cluster."""
    return User(first_run.user.home, first_run.user.shell | {"RAY_ADDRESS": cluster.address})


@pytest.fixture(scope="session")
def broken_off(first_run: FirstRun, cluster_user: User) -> Path:
    """--out of the first run's twin, broken off three times: by Ctrl-C, by SIGTERM to the job alone, by SIGKILL."""
    out = "broken off"
    told = f"\ninterrupted; the same command with --resume continues {out}\n"
    assert _interrupted(first_run.user, out, 1, signal.SIGINT, group=True).calmly(130).err == told
    assert _interrupted(cluster_user, out, 2, signal.SIGTERM).calmly(130).err == told
    assert _interrupted(cluster_user, out, 3, signal.SIGKILL).status == -signal.SIGKILL
    return first_run.user.home / out


@pytest.fixture
def copy(broken_off: Path, first_run: FirstRun) -> Path:
    """A copy of the interrupted run, to be spoilt."""
    copy = first_run.user.home / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(broken_off, copy))


def test_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    broken_off: Path, first_run: FirstRun, cluster_user: User
) -> None:
    out = first_run.user.home / "resumed"
    shutil.copytree(broken_off, out)
    ended = cluster_user.trains("--out", "resumed", "--resume", *OFTEN).calmly(0)
    assert "continuing from step-" in ended.out
    assert (out / "bundle" / "model.safetensors").read_bytes() == first_run.weights
    assert sorted(os.listdir(out)) == sorted(os.listdir(first_run.out))
    events, before = ((place / "events.jsonl").read_text() for place in (out, broken_off))
    assert events.startswith(before)
    told = [json.loads(line) for line in events.splitlines()]
    assert {event["run"] for event in told} == {json.loads((out / "run.json").read_text())["id"]}
    assert [event["attempt"] for event in told if event["event"] == "run_started"] == [1, 2, 3, 4]
    # By Ctrl-C and by SIGTERM; SIGKILL leaves no time for it.
    assert [event["error"] for event in told if event["event"] == "run_interrupted"] == ["KeyboardInterrupt"] * 2
    # What happens in the half second before a SIGKILL may be lost.
    assert [event["event"] for event in told].count("resumed") in (2, 3)


def test_interrupted_run_is_not_written_over(copy: Path, first_run: FirstRun, without_ray: Command) -> None:
    home = first_run.user.home
    refused = without_ray("train", home, *TRAIN, "--out", "copy").calmly(2)
    assert "was interrupted" in refused.err
    assert "--resume continues it" in refused.err

    changed = ("--out", "copy", "--resume", "--set", "train.learning_rate=0.002")
    other = without_ray("train", home, *TRAIN, *changed).calmly(2)
    assert "train.learning_rate was 0.001, now 0.002" in other.err


def test_torn_identity_is_refused(copy: Path, first_run: FirstRun, without_ray: Command) -> None:
    identity = copy / "run.json"
    identity.write_bytes(identity.read_bytes()[:100])
    refused = without_ray("train", first_run.user.home, *TRAIN, "--out", "copy", "--resume").calmly(2)
    assert f"{identity} is damaged" in refused.err


def test_damaged_checkpoint_is_refused_by_name(copy: Path, first_run: FirstRun, on_cluster: Command) -> None:
    latest = max(copy.glob("training/*/step-*"), key=lambda place: place.name)
    moments = bytearray((latest / "optimizer.safetensors").read_bytes())
    moments[-1] ^= 1
    (latest / "optimizer.safetensors").write_bytes(moments)
    refused = on_cluster("train", first_run.user.home, *TRAIN, "--out", "copy", "--resume").calmly(2)
    assert f"{latest / 'optimizer.safetensors'} is damaged" in refused.err
    assert f"remove {latest}" in refused.err


def test_changed_rows_are_refused(copy: Path, first_run: FirstRun, on_cluster: Command) -> None:
    reviews = first_run.user.home / "reviews.csv"
    written = reviews.read_bytes()
    reviews.write_bytes(written.replace(b"great", b"grand", 1))
    try:
        refused = on_cluster("train", first_run.user.home, *TRAIN, "--out", "copy", "--resume").calmly(2)
    finally:
        reviews.write_bytes(written)
    assert "are not those this run began with" in refused.err
    assert json.loads((copy / "run.json").read_text()) == json.loads((copy.parent / "broken off/run.json").read_text())


def test_directory_of_someone_else_is_refused(user: User, without_ray: Command) -> None:
    (user.home / "photos").mkdir()
    (user.home / "photos" / "cat.png").write_bytes(b"miaow")
    for flags in ((), ("--resume",)):
        refused = without_ray("train", user.home, *TRAIN, "--out", "photos", *flags).calmly(2)
        assert "is not empty and holds no run (cat.png" in refused.err
    assert os.listdir(user.home / "photos") == ["cat.png"]
