"""What a journal tells its sinks, and what a sink that fails costs: nothing."""

import json
import math
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tensorboardX.proto.event_pb2 import Event as Record

from textcls import storage
from textcls.errors import InputError, StorageError
from textcls.settings.recipe import Recipe
from textcls.tracking.events import STEP_METRICS, Event
from textcls.tracking.journal import Journal, open_journal
from textcls.tracking.jsonl import JsonLines
from textcls.tracking.mlflow import mlflow_requested
from textcls.tracking.tensorboard import TensorBoard

POINT = Event(STEP_METRICS, {"step": 10, "loss": 0.5, "learning_rate": 1e-4})
EPOCH = Event("epoch_completed", {"epoch": 1, "step": 20, "macro_f1": 0.75})


@pytest.fixture(autouse=True)
def _no_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


class Failing:
    """A sink that cannot take anything, and says a password."""

    name = "a sink"

    def write(self, events: Sequence[Event]) -> None:
        raise StorageError("http://me:hidden@server/x: no network")

    def close(self, error: str) -> None:
        raise OSError("closed twice")


def lines(place: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (place / "events.jsonl").read_text().splitlines()]


def records(path: Path) -> Iterator[Record]:
    """What stands in an event file, as TensorBoard reads it."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        record = Record()
        record.ParseFromString(content[12 : 12 + length])
        yield record
        content = content[16 + length :]


def points(place: Path) -> list[tuple[str, int, float]]:
    return [
        (value.tag, record.step, pytest.approx(value.simple_value))
        for path in sorted(place.glob("tensorboard/*"))
        for record in records(path)
        for value in record.summary.value
    ]


def test_an_event_is_a_line_with_its_time_and_run(tmp_path: Path) -> None:
    sink = JsonLines(str(tmp_path), "abc", resumed=False)
    sink.write([Event("epoch_completed", {"step": 20, "loss": math.nan}, time=12.3456), POINT])
    (line,) = lines(tmp_path)
    assert line == {"time": 12.346, "run": "abc", "event": "epoch_completed", "step": 20, "loss": None}


def test_a_resumed_run_appends_and_a_new_one_begins_anew(tmp_path: Path) -> None:
    for resumed, expected in ((False, 1), (True, 2), (True, 3), (False, 1)):
        JsonLines(str(tmp_path), "abc", resumed=resumed).write([EPOCH])
        assert len(lines(tmp_path)) == expected


def test_a_sink_that_fails_is_told_once_without_a_password_and_the_others_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    journal = Journal([Failing(), JsonLines(str(tmp_path), "abc", resumed=False)], said.append)
    journal.record("run_started")
    journal.record("epoch_completed", step=1)
    journal.close()
    assert said == ["  a sink misses events, and the run goes on: http://***@server/x: no network"]
    assert [line["event"] for line in lines(tmp_path)] == ["run_started", "epoch_completed"]


def test_what_could_not_be_written_is_written_with_the_next_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    journal = Journal([JsonLines(str(tmp_path), "abc", resumed=False)], said.append)
    with monkeypatch.context() as full:
        full.setattr(storage, "write_bytes", lambda uri, content: Failing().write([]))
        journal.record("run_started")
    journal.record("epoch_completed", step=1)
    assert len(said) == 1
    assert [line["event"] for line in lines(tmp_path)] == ["run_started", "epoch_completed"]


def test_a_run_that_breaks_off_says_by_which_kind_of_error_and_nothing_of_its_message(tmp_path: Path) -> None:

    def broken_off(*events: str) -> None:
        with open_journal(str(tmp_path), "abc", Recipe(), lambda line: None, resumed=False) as journal:
            for event in events:
                journal.record(event)
            raise ValueError("a text")

    with pytest.raises(ValueError, match="a text"):
        broken_off()
    assert not list(tmp_path.iterdir()), "it had not begun"
    with pytest.raises(ValueError, match="a text"):
        broken_off("run_started")
    _, line = lines(tmp_path)
    assert (line["event"], line["error"]) == ("run_failed", "ValueError")
    assert "a text" not in (tmp_path / "events.jsonl").read_text()


def test_tensorboard_has_each_number_at_its_step_and_a_file_for_each_start(tmp_path: Path) -> None:
    for _ in range(2):
        board = TensorBoard(str(tmp_path))
        board.write([Event("run_started", {"workers": 2})])
        board.write([POINT, EPOCH])
        one = [("train/loss", 10, 0.5), ("train/learning_rate", 10, 1e-4), ("validation/macro_f1", 20, 0.75)]
        assert points(tmp_path)[:3] == one, "before it is closed"
        board.close("")
    assert points(tmp_path) == one * 2


def test_a_run_without_a_point_leaves_no_directory(tmp_path: Path) -> None:
    board = TensorBoard(str(tmp_path))
    board.write([Event("run_started", {"workers": 2})])
    board.close("DataError")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_s_files_are_uploaded_after_an_epoch(s3: str, tmp_path: Path) -> None:
    board = TensorBoard(f"{s3}/run")
    board.write([POINT])
    assert storage.names_in(f"{s3}/run/tensorboard") == []
    board.write([EPOCH])
    (name,) = storage.names_in(f"{s3}/run/tensorboard")
    board.write([POINT])
    board.close("")
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / name).write_bytes(storage.read_bytes(f"{s3}/run/tensorboard/{name}"))
    assert len(points(tmp_path)) == 5


# --- MLflow ----------------------------------------------------------------------------------------------------------


def test_a_resumed_run_is_one_run_of_mlflow_with_recipe_curves_report_and_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    out, recipe = tmp_path / "out", Recipe()
    out.mkdir()
    (out / "report.json").write_text('{"test": {}}')

    def broken_off() -> None:
        with open_journal(str(out), "abc", recipe, lambda line: None, resumed=False) as journal:
            journal.write([POINT])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    client = MlflowClient()
    (experiment,) = (one for one in client.search_experiments() if one.name == "textcls")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "KILLED"

    said: list[str] = []
    with open_journal(str(out), "abc", recipe, said.append, resumed=True) as journal:
        journal.write([EPOCH])
        journal.record("bundle_written", bytes=1)
    assert said == []
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["train.learning_rate"] == "5e-05"
    assert run.data.metrics == {"train.loss": 0.5, "train.learning_rate": 1e-4, "validation.macro_f1": 0.75}
    assert run.data.tags["bundle"] == f"{out}/bundle"
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["report.json"]


def test_mlflow_that_is_asked_for_and_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not mlflow_requested()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hidden@server")
    assert mlflow_requested()
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed") as told:
        mlflow_requested()
    assert "textcls[mlflow]" in str(told.value)
    assert "hidden" not in str(told.value)


def test_an_mlflow_that_cannot_be_reached_is_told_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hidden@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(InputError, match="MLFLOW_TRACKING_URI") as told,
        open_journal(str(tmp_path), "abc", Recipe(), lambda line: None, resumed=False),
    ):
        pass
    assert "hidden" not in str(told.value)
