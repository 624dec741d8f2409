"""The journal of a run: each event goes to every sink that the run has.

In: events of the driver, of rank 0 and of Ray Train's controller. Out: `events.jsonl` and TensorBoard files in --out,
and an MLflow run if MLFLOW_TRACKING_URI is set. Not here: what a sink does (one module each).

No event is worth a run: a sink that fails is reported once, and the run goes on.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from textcls.errors import one_line
from textcls.settings.recipe import Recipe
from textcls.tracking.events import Event, Sink
from textcls.tracking.jsonl import JsonLines
from textcls.tracking.mlflow import MlflowRun, mlflow_requested
from textcls.tracking.tensorboard import TensorBoard


class Journal:
    """Writes each event to every sink. Thread-safe.

    Args:
        sinks: where events go.
        say: takes one line for the user.
    """

    def __init__(self, sinks: Sequence[Sink], say: Callable[[str], None]) -> None:
        self._sinks, self._say = tuple(sinks), say
        self._failed: set[str] = set()
        self._started = False
        self._lock = threading.Lock()

    def record(self, name: str, **values: Any) -> None:
        """Writes an event that happens now."""
        self.write([Event(name, values)])

    def write(self, events: Sequence[Event]) -> None:
        """Writes events that happened elsewhere, in order."""
        if events:
            self._started = True
            self._for_each(lambda sink: sink.write(events))

    def close(self, error: str = "") -> None:
        """Ends the journal. An error before the first event, such as one in the recipe, is no event."""
        if error and self._started:
            self.record("run_interrupted" if error == "KeyboardInterrupt" else "run_failed", error=error)
        self._for_each(lambda sink: sink.close(error))

    def _for_each(self, do: Callable[[Sink], None]) -> None:
        with self._lock:
            for sink in self._sinks:
                try:
                    do(sink)
                except Exception as error:  # a sink's library may raise anything
                    if sink.name not in self._failed:
                        self._failed.add(sink.name)
                        self._say(f"  {sink.name} misses events, and the run goes on: {one_line(error)}")


@contextmanager
def open_journal(
    uri: str, run_id: str, recipe: Recipe, say: Callable[[str], None], *, resumed: bool
) -> Iterator[Journal]:
    """The journal of the run in `uri`, open for the duration of the block; an error that leaves the block is an event.

    Raises:
        InputError: MLFLOW_TRACKING_URI is set, and MLflow is not installed or its server cannot be reached.
    """
    sinks: list[Sink] = [JsonLines(uri, run_id, resumed=resumed), TensorBoard(uri)]
    if mlflow_requested():
        sinks.append(MlflowRun(uri, run_id, recipe, resumed=resumed))
    journal = Journal(sinks, say)
    try:
        yield journal
    except BaseException as error:
        journal.close(type(error).__name__)
        raise
    journal.close()
