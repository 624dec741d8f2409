"""The actor through which the driver and the workers of a training run coordinate.

In: a worker registers, reports a timeout, posts progress and events; the driver requests a stop. Out: the nodes that
the workers run on, whether the workers should stop, the ranks that did not answer, what was posted. Not here: why
workers should stop (scaling.py), showing progress (progress.py), writing events (tracking/).

The workers' end of it is ray_context.py. The actor outlives workers and controllers, and needs no CPU of its own.
"""

import time
from collections.abc import Sequence

from textcls.progress import Progress, ProgressBoard
from textcls.tracking.events import Event

# Ranks that wait for the same peer report within this time of each other; two such waits are a restart apart.
_SAME_WAIT_S = 10.0


class Coordinator:
    """Who is there, who should stop, who does not answer; and what workers post for the driver."""

    def __init__(self) -> None:
        self._nodes: dict[int, str] = {}
        self._stop = False
        self._timeouts: dict[int, float] = {}
        self._board = ProgressBoard()
        self._events: list[Event] = []

    # The workers of one attempt

    def register(self, rank: int, world_size: int, node_id: str) -> None:
        """Adds a worker that starts. It replaces its predecessor, and a stop that was requested before is over."""
        self._nodes = {r: n for r, n in self._nodes.items() if r < world_size} | {rank: node_id}
        self._stop = False

    def node_ids(self) -> set[str]:
        """Ids of the workers' nodes."""
        return set(self._nodes.values())

    def request_stop(self) -> None:
        """Has the workers save a checkpoint and return."""
        self._stop = True

    def should_stop(self) -> bool:
        """Whether a stop has been requested since the latest worker started."""
        return self._stop

    def report_timeout(self, rank: int) -> set[int]:
        """Records that a rank has waited for its peers in vain; returns the ranks that did so in the last seconds."""
        self._timeouts[rank] = now = time.monotonic()
        return {rank for rank, at in self._timeouts.items() if now - at < _SAME_WAIT_S}

    # Progress, for the display

    def post_progress(self, progress: Progress | None, line: str = "") -> None:
        """Replaces the progress, adds a line, or both."""
        self._board.post(progress, line)

    def take_progress(self) -> tuple[Progress | None, list[str]]:
        """The latest progress, and the lines since the last call."""
        return self._board.take()

    # Events, for the journal

    def post_event(self, event: Event) -> None:
        """Keeps an event for the driver."""
        self._events.append(event)

    def take_events(self) -> Sequence[Event]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events
