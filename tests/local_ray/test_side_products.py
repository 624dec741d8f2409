"""A finished run is never lost to a side product (law 11). `pytest tests/local_ray/test_side_products.py`"""

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.local_ray.conftest import small_recipe, write_reviews
from textcls.bundle import load_bundle
from textcls.errors import StorageError
from textcls.reporting.report import NoBaseline, Report
from textcls.tracking.jsonl import JsonLines
from textcls.tracking.ray_metrics import StepMetrics
from textcls.tracking.tensorboard import TensorBoard
from textcls.training import attempts, explained_report, inputs, results, run
from textcls.training.run_dir import RunDir
from textcls.training.worker import train_worker


def _failing(*_: Any, **__: Any) -> None:
    raise MemoryError


def _without_metrics(config: dict[str, Any]) -> Any:
    """The real training function in a process whose Ray metrics fail."""
    import ray.util.metrics

    ray.util.metrics.Histogram.observe = _failing
    return train_worker(config)


def _killed(task: Any) -> Any:
    """A task whose process the operating system kills, started as the real one is."""

    def dies(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    return ray.remote(**task._default_options)(dies)


def test_a_run_whose_every_side_product_fails_has_its_bundle_and_one_line_for_each(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model_dir.parent)  # a relative name: the workers are elsewhere
    model = Path(f"./{tiny_model_dir.name}")
    recipe = small_recipe(model, write_reviews(tmp_path / "r.csv", 120), "train.epochs=1", "report.texts=true")
    out, said = str(tmp_path / "out"), list[str]()

    def full(*_: Any) -> None:
        raise StorageError("the disk: no room to write", todo="free some space")

    # Broken off at the very end, so that the account is written again.
    with monkeypatch.context() as broken:
        broken.setattr(results, "export_bundle", full)
        with pytest.raises(StorageError) as refused:
            run.train(recipe, out, resume=False, say=said.append)
    assert refused.value.todo == "free some space; then the same command with --resume continues the run"
    assert not any("failed" in line for line in said)

    monkeypatch.setattr(results, "write_json", _failing)
    monkeypatch.setattr(RunDir, "drop_checkpoints", _failing)
    monkeypatch.setattr(inputs, "write_account", _failing)
    monkeypatch.setattr(inputs, "write_rejects", _failing)
    monkeypatch.setattr(results, "draw_report", _failing)
    monkeypatch.setattr(results, "report_page", _failing)
    monkeypatch.setattr(results, "_train_baseline", _killed(results._train_baseline))
    monkeypatch.setattr(explained_report, "_explain", _killed(explained_report._explain))
    monkeypatch.setattr(attempts, "train_worker", _without_metrics)
    for sink in (JsonLines, TensorBoard):
        monkeypatch.setattr(sink, "write", _failing)
    said.clear()
    report = run.train(recipe, out, resume=True, say=said.append)

    bundle = load_bundle(f"{out}/bundle")
    assert bundle.manifest.metrics["accuracy"] == report.test.accuracy.model_dump()
    weights = hashlib.sha256((tiny_model_dir / "model.safetensors").read_bytes()).hexdigest()
    assert bundle.manifest.recipe["model"]["sha256"] == weights
    assert isinstance(report.baseline, NoBaseline)
    for failed in (
        "  no baseline: WorkerCrashedError",
        "  report.json failed",
        "  report.html failed",
        "  report.png failed",
        "  explaining rows of the report failed",
        "  removing the checkpoints failed",
        "  events.jsonl misses events",
        "  TensorBoard misses events",
    ):
        assert sum(line.startswith(failed) for line in said) == 1, (failed, said)
    assert "  writing the account again failed; the job continues without it: MemoryError" in said


def test_ray_s_metrics_that_fail_are_reported_once_and_no_step_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.util.metrics

    monkeypatch.setattr(ray.util.metrics.Histogram, "observe", _failing)
    said: list[str] = []
    metrics = StepMetrics("a-run", 0, said.append)
    for _ in range(3):
        metrics.record(0.1, {"tokens_per_s": 50.0, "padding_ratio": 1.1})
    assert said == ["Ray's metrics miss this run, which goes on: MemoryError"]


def test_a_report_that_cannot_be_made_costs_one_line(tmp_path: Path) -> None:
    said: list[str] = []
    found = results._leave_report(
        lambda: Report.model_validate({"test": {"accuracy": 1}}), RunDir(str(tmp_path), resumed=False), said.append
    )
    assert found is None
    assert [line.partition(":")[0] for line in said] == ["  the report failed; the job continues without it"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", [1.0, 0.0])
def test_a_baseline_takes_no_longer_than_it_may(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace as Some

    account = Some(outcomes={"train": 1, "val": 1, "test": 1})
    prepared = Some(account=account, task=None, labels=("a", "b"), inputs={}, blocks={})
    outcome = Some(state=Some(seconds=seconds))
    monkeypatch.setattr(results, "_LEAST_S", 0.1)
    monkeypatch.setattr(results, "_train_baseline", ray.remote(max_retries=0)(_waits))
    said: list[str] = []
    found = results._baseline(None, prepared, outcome, said.append)
    assert found == {"error": f"no baseline: it took more than {max(seconds, 0.1):,.0f} s"}
    assert said[-1] == f"  {found['error']}; the run goes on without it"


def _waits(*_: Any) -> None:
    import threading

    threading.Event().wait()
