"""Events of a run: what an event is, and what a sink of events has to do.

In: a name and values. Out: an `Event`, and its numbers as points of charts. Not here: where events go (journal.py and
one module per sink), lines for people (progress.py), results (reporting/).

An event never holds a text of the data, nor the message of an error, which may quote one.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

STEP_METRICS = "step_metrics"
"""The event with a point of the training curves. There are too many of them for events.jsonl."""
# Events that have a step, and the prefix of their charts' names.
_CHARTS = {STEP_METRICS: "train", "epoch_completed": "validation", "tested": "test"}


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        name: what, in the past tense.
        values: numbers, names and hashes.
        time: Unix time.
    """

    name: str
    values: dict[str, Any]
    time: float = field(default_factory=time.time)

    def scalars(self) -> dict[str, float]:
        """Chart -> value of the numbers that are drawn over steps; empty for an event without a chart."""
        if self.name not in _CHARTS:
            return {}
        return {
            f"{_CHARTS[self.name]}/{name}": float(value)
            for name, value in self.values.items()
            if name not in ("step", "epoch") and isinstance(value, int | float)
        }


class Sink(Protocol):
    """Where events go."""

    name: str

    def write(self, events: Sequence[Event]) -> None:
        """Keeps events, in order. May raise anything."""

    def close(self, error: str) -> None:
        """The run has ended; `error` is the class name of the error that ended it, or ""."""
