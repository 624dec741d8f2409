"""What happens in a run, told to whoever asks: `events.jsonl`, TensorBoard, MLflow, and Ray's own metrics.

In: events, each a name and numbers, of the driver, of rank 0 and of Ray Train's controller. Out: files in --out, a run
of MLflow where MLFLOW_TRACKING_URI names a server, metrics that Ray exports. Not here: lines for people
(progress.py), results (reporting/). An event never holds a text, nor a message of an error, which may hold one.

No event is worth a run: what a sink cannot take is told once, and the run goes on.
"""

import glob
import importlib.util
import math
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from textcls import storage
from textcls.errors import InputError, one_line, redacted
from textcls.plain_text import json_text, visible
from textcls.settings.recipe import Recipe

# A point of the curves: too many of them to be events of events.jsonl.
STEPS_DONE = "steps_done"
# Events with a step, and what their charts are called.
_CHARTS = {STEPS_DONE: "train", "epoch_done": "validation", "tested": "test"}


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        name: what, in the past tense.
        numbers: how much; names and hashes may stand among them.
        time: Unix time.
    """

    name: str
    numbers: dict[str, Any]
    time: float = field(default_factory=time.time)

    def scalars(self) -> dict[str, float]:
        """Chart -> value of the numbers that are drawn over steps; empty for an event that has none."""
        if self.name not in _CHARTS:
            return {}
        return {
            f"{_CHARTS[self.name]}/{name}": float(value)
            for name, value in self.numbers.items()
            if name not in ("step", "epoch") and isinstance(value, int | float)
        }


class Sink(Protocol):
    """Where events go."""

    name: str

    def take(self, events: Sequence[Event]) -> None:
        """Keeps events, in order."""

    def close(self, outcome: str) -> None:
        """The run has ended; `outcome` is "" or the name of the error that ended it."""


class Journal:
    """Gives each event to every sink. For several threads.

    Args:
        sinks: where events go.
        say: takes one line for the user.
    """

    def __init__(self, sinks: Sequence[Sink], say: Callable[[str], None]) -> None:
        self._sinks, self._say = tuple(sinks), say
        self._failed: set[str] = set()
        self._begun = False
        self._one_at_a_time = threading.Lock()

    def note(self, name: str, **numbers: Any) -> None:
        """Something happened here and now."""
        self.take([Event(name, numbers)])

    def take(self, events: Sequence[Event]) -> None:
        """Events that happened elsewhere, in order."""
        if events:
            self._begun = True
            self._each(lambda sink: sink.take(events))

    def close(self, outcome: str = "") -> None:
        """The run has ended; a mistake that is found before it begins is no event."""
        if outcome and self._begun:
            self.note("run_broken_off", error=outcome)
        self._each(lambda sink: sink.close(outcome))

    def _each(self, do: Callable[[Sink], None]) -> None:
        with self._one_at_a_time:
            for sink in self._sinks:
                try:
                    do(sink)
                except Exception as error:  # a sink's library may raise anything, and none of it is worth the run
                    if sink.name not in self._failed:
                        self._failed.add(sink.name)
                        self._say(f"  {sink.name} misses events, and the run goes on: {one_line(error)}")


@contextmanager
def journal_of(
    uri: str, run_id: str, recipe: Recipe, say: Callable[[str], None], *, resumed: bool
) -> Iterator[Journal]:
    """The journal of a run in `uri`, until the end of the block, which it also notes if it is a bad one.

    Raises:
        InputError: MLFLOW_TRACKING_URI leads nowhere.
    """
    sinks: list[Sink] = [EventFile(uri, run_id, resumed=resumed), TensorBoard(uri)]
    if mlflow_asked():
        sinks.append(MlflowRun(uri, run_id, recipe, resumed=resumed))
    journal = Journal(sinks, say)
    try:
        yield journal
    except BaseException as error:
        journal.close(type(error).__name__)
        raise
    journal.close()


class EventFile:
    """OUT/events.jsonl: one JSON object a line. It is always whole: each time all of it is written anew."""

    name = "events.jsonl"

    def __init__(self, uri: str, run_id: str, *, resumed: bool) -> None:
        self._uri, self._run_id = storage.join(uri, self.name), run_id
        self._lines = None if resumed else b""  # None: not read yet

    def take(self, events: Sequence[Event]) -> None:
        """Appends a line for each event."""
        kept = [event for event in events if event.name != STEPS_DONE]
        if self._lines is None:
            self._lines = storage.read_bytes(self._uri) if storage.exists(self._uri) else b""
        for event in kept:
            line = {"time": round(event.time, 3), "run": self._run_id, "event": event.name, **event.numbers}
            self._lines += json_text({key: _finite(value) for key, value in line.items()}).encode() + b"\n"
        if kept:
            storage.write_bytes(self._uri, self._lines)

    def close(self, outcome: str) -> None:
        """Nothing is open."""


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TensorBoard:
    """OUT/tensorboard: event files, one for each start of the run; object storage gets them after each epoch."""

    name = "TensorBoard"

    def __init__(self, uri: str) -> None:
        self._place, self._writer = storage.join(uri, "tensorboard"), None  # type: str, Any
        self._held: Any = None

    def take(self, events: Sequence[Event]) -> None:
        """Adds a point to each chart; the file is begun with the first one."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event as Record
        from tensorboardX.summary import scalar

        drawn = [event for event in events if event.scalars()]
        if not drawn:
            return
        if self._writer is None:
            # TensorBoard keeps a file open that grows, so a local one is written in place.
            if storage.is_remote(self._place):
                self._held = tempfile.TemporaryDirectory(prefix="textcls-tensorboard-")
            directory = self._held.name if self._held else self._place
            with storage.explained(directory):
                os.makedirs(directory, exist_ok=True)
                self._writer = EventsWriter(os.path.join(directory, "events"), f".{secrets.token_hex(4)}")
        with storage.explained(self._place):
            for event in drawn:
                for chart, value in event.scalars().items():
                    step = event.numbers["step"]
                    record = Record(step=step, wall_time=event.time, summary=scalar(chart, value))
                    self._writer.write_event(record)
            self._writer.flush()
        if any(event.name != STEPS_DONE for event in drawn):
            self._upload()

    def close(self, outcome: str) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.close()
            self._upload()
            if self._held:
                self._held.cleanup()

    def _upload(self) -> None:
        if self._held:
            for path in glob.glob(os.path.join(self._held.name, "*")):
                storage.write_bytes(storage.join(self._place, os.path.basename(path)), storage.read_bytes(path))


# --- MLflow ----------------------------------------------------------------------------------------------------------


def mlflow_asked() -> bool:
    """Whether the run is to be told to MLflow too.

    Raises:
        InputError: it is, and MLflow is not installed.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return False
    if importlib.util.find_spec("mlflow") is None:
        raise InputError(
            "MLFLOW_TRACKING_URI is set, and MLflow is not installed",
            todo="pip install 'textcls[mlflow]', or unset MLFLOW_TRACKING_URI",
        )
    return True


class MlflowRun:
    """A run of MLflow: the recipe as parameters, the curves as metrics, report.json, the bundle's URI as a tag.

    Raises:
        InputError: MLflow cannot be reached; it is so before the run began.
    """

    name = "MLflow"

    def __init__(self, uri: str, run_id: str, recipe: Recipe, *, resumed: bool) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._uri = uri
        try:
            self._client = client = MlflowClient()
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "textcls"
            found = client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else client.create_experiment(name)
            begun = client.search_runs([experiment], f"tags.textcls_run = '{run_id}'") if resumed else []
            if begun:
                self._run: str = begun[0].info.run_id
                client.update_run(self._run, status="RUNNING")
                return
            tags = {"textcls_run": run_id, "out": uri}
            self._run = client.create_run(experiment, run_name=visible(uri.rpartition("/")[2]), tags=tags).info.run_id
            parameters = [
                Param(f"{section}.{key}", json_text(value)[:500])
                for section, values in recipe.model_dump(mode="json").items()
                for key, value in values.items()
            ]
            for first in range(0, len(parameters), 100):  # as many as MLflow takes at once
                client.log_batch(self._run, params=parameters[first : first + 100])
        except Exception as error:  # of its HTTP client, of its stores
            told = redacted(str(error)).splitlines() or [""]
            raise InputError(
                f"MLFLOW_TRACKING_URI: {type(error).__name__}: {told[0]}",
                todo="check the server and its credentials, or unset MLFLOW_TRACKING_URI",
            ) from None

    def take(self, events: Sequence[Event]) -> None:
        """Logs what has a step as metrics, and a finished run's report and bundle."""
        from mlflow.entities import Metric

        metrics = [
            Metric(chart.replace("/", "."), value, int(1000 * event.time), event.numbers["step"])
            for event in events
            for chart, value in event.scalars().items()
        ]
        if metrics:
            self._client.log_batch(self._run, metrics=metrics)
        for event in events:
            if event.name == "bundle_written":
                self._client.set_tag(self._run, "bundle", storage.join(self._uri, "bundle"))
                report = storage.read_bytes(storage.join(self._uri, "report.json"))
                self._client.log_text(self._run, report.decode(), "report.json")

    def close(self, outcome: str) -> None:
        """Ends the run, as MLflow calls it."""
        status = {"": "FINISHED", "KeyboardInterrupt": "KILLED"}.get(outcome, "FAILED")
        self._client.set_terminated(self._run, status=status)


# --- Ray's metrics ---------------------------------------------------------------------------------------------------


class StepMeter:
    """What a rank's steps cost: each as a metric of Ray, and a stretch of them as numbers of an event.

    Args:
        run_id: names the run among the metrics.
        rank: this process.
        real_tokens, padded_tokens, seconds: the totals of the run so far.
        say: takes one line for the user.
    """

    def __init__(
        self,
        run_id: str,
        rank: int,
        real_tokens: int,
        padded_tokens: int,
        seconds: float,
        *,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._tags = {"run": run_id, "rank": str(rank)}
        self._before = (real_tokens, padded_tokens, seconds)
        self._rank, self._latest = rank, dict[str, float]()
        self._metrics: tuple[Any, Any, Any] | None = None
        self._say, self._failed = say, False

    def step(self, seconds: float) -> None:
        """Exports a step of this rank."""
        if self._failed:
            return
        try:
            self._metrics = self._metrics or self._registered()
            step_seconds, tokens_per_s, padding_ratio = self._metrics
            step_seconds.observe(seconds)
            # Ray forgets a gauge once it has been exported: it has to be set again and again.
            if self._latest and self._rank == 0:
                tokens_per_s.set(self._latest["tokens_per_s"])
                padding_ratio.set(self._latest["padding_ratio"])
        except Exception as error:  # of Ray's metrics, which are not worth the run
            self._failed = True
            self._say(f"Ray's metrics miss this run, which goes on: {one_line(error)}")

    def _registered(self) -> tuple[Any, Any, Any]:
        from ray.util.metrics import Gauge, Histogram

        keys = tuple(self._tags)
        metrics = (
            Histogram("textcls_step_seconds", "An optimizer step.", [0.003 * 2**n for n in range(15)], keys),
            Gauge("textcls_tokens_per_s", "Tokens that a run learns from.", keys),
            Gauge("textcls_padding_ratio", "Padded by real tokens.", keys),
        )
        for metric in metrics:
            metric.set_default_tags(self._tags)
        return metrics

    def stretch(self, real_tokens: int, padded_tokens: int, seconds: float) -> dict[str, float]:
        """Speed and padding of all ranks since the last call, given the totals of the run."""
        now = (real_tokens, padded_tokens, seconds)
        real, padded, spent = (total - before for total, before in zip(now, self._before, strict=True))
        self._before = now
        self._latest = {"tokens_per_s": real / max(spent, 1e-9), "padding_ratio": padded / max(real, 1)}
        return self._latest
