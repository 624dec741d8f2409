"""What breaks under a run, one story a fault: nothing is lost, nothing hangs, and the cause is told."""

import itertools
import logging
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from textcls import storage

from .conftest import OFTEN, Cluster, Command, Ended, FirstRun, Running, User, step_of, train_command, weights_of


def _workers(running: Running) -> set[int]:
    """Pids of a run's training workers."""
    return {pid for pid, name in running.relatives().items() if name.startswith("ray::RayTrainWo")}


def test_kills_of_the_worker_cost_restarts_and_not_a_bit(first_run: FirstRun, full: bool) -> None:
    kills = 20 if full else 4
    chance, out = random.Random(20), first_run.user.home / "killed"
    running = first_run.user.starts("--out", "killed", *OFTEN, "--set", f"scale.max_failures={kills}")
    killed: set[int] = set()
    restarts_s, killed_at = [], 0.0
    try:
        running.until(lambda: step_of(out) > 0)
        started = time.monotonic()
        for kill in range(kills):
            step = step_of(out)
            if kill % 4 == 3:  # while it starts: in its imports, its model, its checkpoint
                running.until(lambda: bool(_workers(running) - killed))
                threading.Event().wait(chance.uniform(0, 5))
            else:  # in a step, while a checkpoint is written or copied, in the validation
                running.until(lambda step=step: step_of(out) > step)
                restarts_s += [time.monotonic() - killed_at] if killed else []
                aim = step + 10 * chance.randint(1, 3)
                running.until(lambda aim=aim: step_of(out) >= aim)
                threading.Event().wait(chance.uniform(0, 0.2))
            # A worker that has just ended, or died of itself, has a successor as long as the run goes on.
            running.until(lambda: len(_workers(running) - killed) == 1)
            (worker,) = _workers(running) - killed
            os.kill(worker, signal.SIGKILL)
            killed.add(worker)
            killed_at = time.monotonic()
        running.until(lambda: bool(_workers(running) - killed))
        wall_s = time.monotonic() - started
        ended = running.ended()
    finally:
        running.kill()
    restart_s = statistics.median(restarts_s)
    print(f"{kills} kills in {wall_s:.0f} s; from a kill to the next checkpoint {restart_s:.1f} s (median)")
    assert ended.status == 0, ended
    assert weights_of(out) == first_run.weights
    assert ended.out.count(" more may fail") + ended.out.count("giving up") == kills


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["scale.workers=8", "scale.cpus_per_worker=4", "train.rows_per_step=8"], "8 workers with 4 CPUs each"),
        (["scale.workers=3", "scale.cpus_per_worker=1", "train.rows_per_step=8"], "3 workers with 1 CPU each"),
        (["scale.use_gpu=true"], "1 worker with a GPU"),
    ],
)
def test_what_the_cluster_can_never_give_is_refused_at_once(
    user: User, on_cluster: Command, asked: list[str], told: str
) -> None:
    settings = [part for setting in asked for part in ("--set", setting)]
    started = time.monotonic()
    train = ("train", user.home, "--recipe", "recipe.yaml", "--out", "out")
    refused = on_cluster(*train, *settings).calmly(2)
    assert f"the recipe asks for {told}; the cluster's nodes have 2 CPUs and 0 GPUs" in refused.err
    assert time.monotonic() - started < 300  # not after scale.start_timeout_s
    assert not (user.home / "out").exists()


# Holds a CPU of the cluster until its standard input ends.
_OCCUPIER = """
import sys, ray
ray.init(log_to_driver=False, logging_level="ERROR")
@ray.remote(num_cpus=1)
class Occupier:
    def here(self): pass
held = Occupier.remote()
ray.get(held.here.remote())
print("held", flush=True)
sys.stdin.read()
"""


def test_cpus_that_others_use_are_waited_for_up_to_the_bound(cluster_user: User) -> None:
    settings = ["--set", "scale.cpus_per_worker=2", "--set", "scale.start_timeout_s=5"]
    other = Running(
        [sys.executable, "-c", _OCCUPIER], cwd=cluster_user.home, env=cluster_user.shell, stdin=subprocess.PIPE
    )
    try:
        assert other.process.stdout is not None
        assert other.process.stdout.readline() == b"held\n"
        ended = cluster_user.trains("--out", "out", *settings).calmly(1)
    finally:
        other.kill()
    assert "no room for 1 worker with 2 CPUs within 5 s: 1 CPUs and 0 GPUs are free" in ended.err
    cluster_user.trains("--out", "out", *settings, "--resume").calmly(0)


@pytest.fixture(scope="module")
def cluster_s_user(first_run: FirstRun, cluster: Cluster) -> User:
    """The user of the first run, whose jobs join a running cluster."""
    return User(first_run.user.home, first_run.user.shell | {"RAY_ADDRESS": cluster.address})


def test_second_job_with_the_same_out_is_refused_and_a_torn_snapshot_does_no_harm(
    first_run: FirstRun, cluster_s_user: User, here: Command
) -> None:
    out = cluster_s_user.home / "one out"
    running = cluster_s_user.starts("--out", "one out")
    try:
        running.until((out / "run.json").exists)
        for flags in ((), ("--resume",)):
            refused = here("train", out.parent, "--recipe", "recipe.yaml", "--out", "one out", *flags).calmly(2)
            assert f"{out}: another job is writing there" in refused.err
        snapshot = out / "training" / "attempt-0001" / "checkpoint_manager_snapshot.json"
        running.until(lambda: step_of(out) > 0 and snapshot.exists())
        running.signal(signal.SIGKILL)
        running.ended()
    finally:
        running.kill()
    snapshot.write_bytes(snapshot.read_bytes()[:-20])
    ended = cluster_s_user.trains("--out", "one out", "--resume").calmly(0)
    assert "continuing from step-" in ended.out
    assert weights_of(out) == first_run.weights


# In a mount namespace of its own, like test_full_disk's.
_READ_ONLY = """
mount -t tmpfs -o size=64m tmpfs "$DISK" || exit 9
"$@" & job=$!
until find "$DISK" -path "*/step-????????/checkpoint.json" 2>/dev/null | grep -q .; do kill -0 $job || exit 8; done
# A mount of its own turns read-only at once, where the disk would wait until no file is open.
mount --bind "$DISK/out" "$DISK/out" && mount -o remount,bind,ro "$DISK/out" || exit 7
wait $job; echo "first: $?" | tee /dev/stderr
umount --lazy "$DISK/out" || exit 9
"$@" --resume; echo "second: $?"
cp -r "$DISK/out" "$KEPT"
"""


def test_run_goes_on_when_read_only_storage_can_be_written_again(first_run: FirstRun) -> None:
    user = first_run.user
    disk, kept = user.home / "read-only disk", user.home / "kept"
    disk.mkdir()
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    settings = ["--set", "scale.max_failures=0"]
    train = train_command("--recipe", "recipe.yaml", "--out", disk / "out", *settings)
    running = Running(
        [*namespace, "sh", "-c", _READ_ONLY, "sh", *train],
        cwd=user.home,
        env=user.shell | {"DISK": str(disk), "KEPT": str(kept)},
    )
    try:
        ended = running.ended()
    finally:
        running.kill()
    first_out, _, second_out = ended.out.partition("first: 1\n")
    first_err, _, second_err = ended.err.partition("first: 1\n")
    first, second = Ended(1, first_out, first_err).calmly(1), Ended(0, second_out, second_err).calmly(0)
    assert f"{disk}/out" in first.err
    assert "Read-only file system" in first.err
    assert "continuing from step-" in second.out
    assert second.out.endswith("second: 0\n")
    assert weights_of(kept) == first_run.weights


class _Moody:
    """An S3 server that answers 503 for as long as it is told to, and to every seventh request anyway."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._requests = itertools.count(1)
        self._fails_until = 0.0
        self._written: set[str] = set()
        self.refused = 0

    def has(self, name: str) -> bool:
        """Whether something of this name was written, or is being written."""
        return any(name in path for path in self._written)

    def fails_for(self, seconds: float) -> None:
        """Answers 503 from now on, for so long."""
        self._fails_until = time.monotonic() + seconds

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if time.monotonic() < self._fails_until or next(self._requests) % 7 == 0:
            self.refused += 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        if environ["REQUEST_METHOD"] in ("PUT", "POST"):
            self._written.add(environ["PATH_INFO"])
        return self._app(environ, start_response)


def test_storage_that_fails_for_a_while_costs_time_and_nothing_else(first_run: FirstRun) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moody = _Moody()
    server = make_server("127.0.0.1", 0, moody, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    account = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in account.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="moody")
        user = User(first_run.user.home, first_run.user.shell | account)
        storage.write_bytes("s3://moody/reviews.csv", (user.home / "reviews.csv").read_bytes())
        running = user.starts("--out", "s3://moody/run", "--csv", "s3://moody/reviews.csv")
        try:
            for sign in ("run.json", "step-"):
                running.until(lambda sign=sign: moody.has(sign))
                moody.fails_for(10)  # Ray's own uploads are retried for 6
            running.ended().calmly(0)
        finally:
            running.kill()
        weights = storage.read_bytes("s3://moody/run/bundle/model.safetensors")
        server.shutdown()
    assert moody.refused > 10
    assert weights == first_run.weights


def test_rank_that_hangs_is_named_and_replaced(user: User) -> None:
    hang_timeout_s = 15  # beside other tests a worker that lives may be silent for some seconds
    scale = {"workers": 2, "max_failures": 1, "hang_timeout_s": hang_timeout_s}
    settings = ["train.rows_per_step=2", *(f"scale.{key}={value}" for key, value in scale.items())]
    out = user.home / "out"
    running = user.starts("--out", "out", *OFTEN, *(part for setting in settings for part in ("--set", setting)))
    try:
        running.until(lambda: step_of(out) > 0)
        stopped = max(_workers(running))
        os.kill(stopped, signal.SIGSTOP)
        stopped_at = time.monotonic()
        running.until(lambda: stopped not in _workers(running))
        gone_s = time.monotonic() - stopped_at
        ended = running.ended()
    finally:
        running.kill()
    assert ended.status == 0, ended
    # Ray asks every worker how it is; that one that lives waits in vain for another one is a test of local_ray.
    assert re.search(r"a worker failed \(.*rank [01]: no answer within scale.hang_timeout_s", ended.out), ended.out
    # Ray gives a worker 30 s to leave its process group and 5 s to end, and then kills it.
    assert gone_s < hang_timeout_s + 300
