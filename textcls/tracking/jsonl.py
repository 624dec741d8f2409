"""Events as OUT/events.jsonl: one JSON object a line.

In: events. Out: the file, always complete: each time the whole file is written anew. Not here: points of the training
curves, which are too many for it (tensorboard.py, mlflow.py).
"""

import math
from collections.abc import Sequence
from typing import Any

from textcls import storage
from textcls.plain_text import json_text
from textcls.tracking.events import STEP_METRICS, Event


class JsonLines:
    """The sink that writes events.jsonl.

    Args:
        uri: the run's directory.
        run_id: the value of `run` in each line; the same after a resume.
        resumed: append to the lines that are there.
    """

    name = "events.jsonl"

    def __init__(self, uri: str, run_id: str, *, resumed: bool) -> None:
        self._uri, self._run_id = storage.join(uri, self.name), run_id
        self._lines = None if resumed else b""  # None: not read yet

    def write(self, events: Sequence[Event]) -> None:
        """Appends a line for each event."""
        kept = [event for event in events if event.name != STEP_METRICS]
        if self._lines is None:
            self._lines = storage.read_bytes(self._uri) if storage.exists(self._uri) else b""
        for event in kept:
            line = {"time": round(event.time, 3), "run": self._run_id, "event": event.name, **event.values}
            self._lines += json_text({key: _finite(value) for key, value in line.items()}).encode() + b"\n"
        if kept:
            storage.write_bytes(self._uri, self._lines)

    def close(self, error: str) -> None:
        """Does nothing: no file is open."""


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
