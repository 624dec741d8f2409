"""Nodes that die, leave and come under a run: no row is lost, and what is learned stays the same."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from .conftest import OFTEN, FirstRun, Running, User, free_port, step_of, weights_of


class _Nodes:
    """A Ray cluster whose head holds no work, and nodes of one CPU that come and go."""

    def __init__(self, scratch: Path, shell: dict[str, str]) -> None:
        self._scratch = scratch
        self.shell = shell | {
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1",
            # Ray notes there which cluster is the machine's; other stories have one that goes on.
            "RAY_TMPDIR": tempfile.mkdtemp(dir=scratch, prefix=""),
            # A dead node is found out within seconds, and a busy one is not taken for dead.
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_failure_threshold": "8",
            # Small objects too lie on the node that made them, not with the driver, and are lost with it.
            "RAY_max_direct_call_object_size": "0",
        }
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self._head = self._start("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
        self.alive: list[Running] = []

    def _start(self, *arguments: str) -> Running:
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments),
            *(f"--dashboard-agent-listen-port={free_port()}", "--min-worker-port=0", "--max-worker-port=0"),
            *("--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--disable-usage-stats"),
        ]
        return Running(command, cwd=self._scratch, env=self.shell, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def add(self) -> Running:
        """One more node, once it takes work."""
        node = self._start(f"--address={self.address}", "--num-cpus=1")
        self.alive.append(node)
        node.until(lambda: "raylet" in node.relatives().values())
        return node

    def one_that_runs(self, name: str) -> Running | None:
        """A node on which a process runs whose name begins so."""
        found = (n for n in self.alive if any(found.startswith(name) for found in n.relatives().values()))
        return next(found, None)

    def drains(self, node: Running) -> None:
        """Has a node refuse new work, as before it is taken away."""
        (raylet,) = [pid for pid, name in node.relatives().items() if name == "raylet"]
        arguments = Path(f"/proc/{raylet}/cmdline").read_text().split("\0")
        (node_id,) = [a.partition("=")[2] for a in arguments if a.startswith("--node_id=")]
        drain = [*(sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", self.address)]
        why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds"]
        subprocess.run([*drain, "--node-id", node_id, *why, "600"], env=self.shell, check=True, capture_output=True)

    def dies(self, node: Running) -> None:
        """Kills a node with everything on it."""
        self.alive.remove(node)
        node.kill()

    def end(self) -> None:
        for node in (*self.alive, self._head):
            node.kill()


@pytest.fixture
def nodes(scratch: Path, shell: dict[str, str]) -> Iterator[_Nodes]:
    nodes = _Nodes(scratch, shell)
    try:
        nodes.add()
        nodes.add()
        yield nodes
    finally:
        nodes.end()


def test_nodes_that_die_while_reading_and_tokenizing_and_while_training_take_no_row_along(
    first_run: FirstRun, nodes: _Nodes
) -> None:
    out = first_run.user.home / "nodes"
    user = User(first_run.user.home, nodes.shell | {"RAY_ADDRESS": nodes.address})
    running = user.starts("--out", "nodes", *OFTEN, "--set", "data.shard_bytes=2000")
    try:
        running.until(lambda: nodes.one_that_runs("ray::MapBatches") is not None)  # reads rows and tokenizes them
        reading = nodes.one_that_runs("ray::MapBatches")
        assert reading
        nodes.dies(reading)
        nodes.add()
        running.until(lambda: step_of(out) > 0)
        training = nodes.one_that_runs("ray::RayTrainWo")
        assert training
        nodes.dies(training)
        ended = running.ended()
    finally:
        running.kill()
    assert ended.status == 0, ended
    assert "a worker failed" in ended.out
    assert json.loads((out / "rows.json").read_text()) == json.loads((first_run.out / "rows.json").read_text())
    assert weights_of(out) == first_run.weights


# Long enough for a node to leave meanwhile. Without dropout any number of workers learns the same.
LONG = {
    "train.epochs": 60,
    "train.rows_per_step": 2,
    "train.checkpoint_every_steps": 500,
    "model.dropout": 0,
    "scale.cpus_per_worker": 1,
    "scale.resize_after_s": 2,
}


def _long(**changes: object) -> list[str]:
    settings = LONG | {f"scale.{key}": value for key, value in changes.items()}
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def _events(out: Path, name: str) -> list[dict[str, object]]:
    if not (out / "events.jsonl").exists():
        return []
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == name]


def test_elastic_workers_leave_a_drained_node_grow_on_a_new_one_lose_one_and_learn_what_one_learns(
    first_run: FirstRun, nodes: _Nodes
) -> None:
    out = first_run.user.home / "elastic"
    user = User(first_run.user.home, nodes.shell | {"RAY_ADDRESS": nodes.address})
    # One worker, to which nothing happens; and one failure at most, because a preemption is none.
    calm = first_run.user.starts("--out", "calm", *_long())
    running = user.starts("--out", "elastic", *_long(workers=[1, 2], max_failures=1))
    try:
        running.until(lambda: nodes.one_that_runs("ray::RayTrainWo") is not None and step_of(out) > 0)
        left = nodes.one_that_runs("ray::RayTrainWo")
        assert left
        nodes.drains(left)
        running.until(lambda: len(_events(out, "resumed")) == 1)
        stays = next(node for node in nodes.alive if node is not left)
        running.until(lambda: nodes.one_that_runs("ray::RayTrainWo") is stays)
        nodes.dies(left)
        nodes.add()
        running.until(lambda: len(_events(out, "resumed")) == 2)
        nodes.dies(stays)
        ended = running.ended()
        calm.ended().calmly(0)
    finally:
        running.kill()
        calm.kill()
    assert ended.status == 0, ended
    assert re.findall(r"training with (\d) worker", ended.out) == ["2", "1", "2", "1"], ended.out
    assert "a node of the workers is being drained: resuming from step" in ended.out
    assert "more workers fit: resuming from step" in ended.out
    (preempted,), (rescaled,) = _events(out, "preempted"), _events(out, "rescaled")
    # Not a step is done again.
    assert [event["step"] for event in _events(out, "resumed")][:2] == [preempted["step"], rescaled["step"]]
    assert len(_events(out, "worker_failed")) == 1
    found, expected = load(weights_of(out)), load(weights_of(first_run.user.home / "calm"))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=2e-3, err_msg=name)
