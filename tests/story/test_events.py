"""What a run tells of itself: events, and metrics that Ray exports, though a worker dies in the middle."""

import json
import os
import re
import signal
import urllib.request
from pathlib import Path

from .conftest import OFTEN, Cluster, Ended, User

METRICS = {"textcls_step_seconds_count", "textcls_tokens_per_s", "textcls_padding_ratio"}


def _told(out: Path) -> str:
    return (out / "events.jsonl").read_text() if (out / "events.jsonl").exists() else ""


def _exported(cluster: Cluster, run: str, found: dict[str, float]) -> dict[str, float]:
    """Adds what Ray exports of a run to what was found before: a gauge is not in every answer."""
    with urllib.request.urlopen(cluster.metrics, timeout=30) as answer:
        lines = answer.read().decode()
    for name, value in re.findall(rf'^ray_(textcls_\w+)\{{[^}}]*run="{run}"[^}}]*\}} (\S+)$', lines, re.MULTILINE):
        found[name] = float(value)
    return found


def test_a_run_whose_worker_dies_tells_all_of_it(cluster_user: User, cluster: Cluster) -> None:
    out = cluster_user.home / "out"
    running = cluster_user.starts("--out", "out", *OFTEN, "--set", "train.epochs=3")
    try:
        # By then Ray Train knows of a checkpoint.
        running.until(lambda: "epoch_completed" in _told(out))
        run = json.loads((out / "run.json").read_text())["id"]
        exported: dict[str, float] = {}
        running.until(lambda: set(_exported(cluster, run, exported)) >= METRICS)
        assert exported["textcls_tokens_per_s"] > 0
        assert exported["textcls_padding_ratio"] >= 1
        (pid,) = (pid for pid, name in cluster.node.relatives().items() if name.startswith("ray::RayTrainWo"))
        os.kill(pid, signal.SIGKILL)
        ended: Ended = running.ended()
    finally:
        running.kill()
    assert ended.status == 0, ended
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert {event["run"] for event in events} == {run}

    named = {name: [event for event in events if event["event"] == name] for name in {one["event"] for one in events}}
    assert {
        name: len(found) for name, found in named.items() if name not in ("checkpoint_saved", "epoch_completed")
    } == {**dict.fromkeys(("run_started", "data_prepared", "worker_failed", "resumed", "tested", "bundle_written"), 1)}
    account = json.loads((out / "rows.json").read_text())
    assert account.items() >= {name: named["data_prepared"][0][name] for name in ("read", "train", "val")}.items()
    assert named["worker_failed"][0]["ranks"] == [0]
    kept = {event["step"] for event in named["checkpoint_saved"]}
    assert named["resumed"][0]["step"] in kept
    assert {event["step"] for event in named["epoch_completed"]} == {210 * epoch for epoch in range(1, 4)}
    report = json.loads((out / "report.json").read_text())
    assert named["tested"][0]["accuracy"] == report["test"]["accuracy"]["value"]
    assert not re.search("great|moving|awful|boring", (out / "events.jsonl").read_text()), "a text"
    assert len(list((out / "tensorboard").iterdir())) == 1
