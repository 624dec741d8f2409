"""What the driver and the workers of a run tell each other: progress, events, who is here, whether to stop.

In: what rank 0 posts and every rank says to a `Coordinator`, an actor that outlives workers. Out: the standing and the
lines to show, events for the journal, the nodes of the workers. Not here: showing them (progress.py).
"""

import time
from dataclasses import dataclass
from typing import Any

import ray

from textcls.progress import POLL_S, Board, Progress, minutes
from textcls.tracking.events import Event

# Reports of the same wait lie closer together; two waits lie a restart apart.
_SAME_WAIT_S = 10.0


@dataclass(frozen=True)
class Standing:
    """How far a training run is.

    Attributes:
        step: optimizer steps done.
        total_steps: steps of the whole run.
        loss: latest point of the loss curve, None before the first.
        tokens_per_s: over this worker's life.
        seconds_left: at the same pace.
    """

    step: int
    total_steps: int
    loss: float | None
    tokens_per_s: float
    seconds_left: float

    @property
    def done(self) -> int:
        """Steps."""
        return self.step

    @property
    def total(self) -> int:
        """Steps."""
        return self.total_steps

    def __str__(self) -> str:
        loss = "" if self.loss is None else f" · loss {self.loss:.3f}"
        left = minutes(self.seconds_left)
        return f"step {self.step:,} of {self.total_steps:,}{loss} · {self.tokens_per_s:,.0f} tokens/s · {left} left"


class Coordinator:
    """Holds what workers have told and the driver has not yet taken. A Ray actor without a CPU of its own."""

    def __init__(self) -> None:
        self._board = Board()
        self._events: list[Event] = []
        self._gave_up: dict[int, float] = {}
        self._nodes: dict[int, str] = {}
        self._make_way = False

    def post(self, standing: Progress | None, line: str = "") -> bool:
        """Notes a new standing, a line to show, or both; whether the workers should make way."""
        self._board.post(standing, line)
        return self._make_way

    def take(self) -> tuple[Progress | None, list[str]]:
        """The latest standing, and the lines since the last call."""
        return self._board.take()

    def note(self, event: Event) -> None:
        """Keeps an event for the driver."""
        self._events.append(event)

    def noted(self) -> list[Event]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events

    def arrive(self, rank: int, world_size: int, node_id: str) -> None:
        """Notes the node of a worker that starts. Those before it, and what they were asked, no longer count."""
        self._nodes = {r: n for r, n in self._nodes.items() if r < world_size} | {rank: node_id}
        self._make_way = False

    def places(self) -> set[str]:
        """Ids of the workers' nodes."""
        return set(self._nodes.values())

    def ask_to_make_way(self) -> None:
        """Lets the workers know that they should end with a checkpoint."""
        self._make_way = True

    def give_up(self, rank: int) -> set[int]:
        """Notes that a rank has waited for its peers in vain; those that have done so in the last seconds."""
        self._gave_up[rank] = now = time.monotonic()
        return {rank for rank, at in self._gave_up.items() if now - at < _SAME_WAIT_S}


class Pace:
    """Rank 0's side: posts its standing twice a second at most, and learns by the way that workers should make way.

    Args:
        board: handle of the board, None on other ranks.
        step: where this worker begins; more than 0 if the run is resumed.
        total_steps: steps of the whole run.
    """

    def __init__(self, board: Any, step: int, total_steps: int) -> None:
        self._board, self._first, self._total = board, step, total_steps
        self._started, self._posted, self._tokens = time.monotonic(), 0.0, 0
        self._loss: float | None = None
        self._answer: Any = None
        self.make_way = False

    def step(self, step: int, tokens: int, loss: float | None) -> None:
        """One more step is done; `loss` is given now and then."""
        self._tokens += tokens
        self._loss = self._loss if loss is None else loss
        now = time.monotonic()
        if self._board is None or (now - self._posted < POLL_S and step < self._total):
            return
        self._posted = now
        spent = max(now - self._started, 1e-6)
        left = spent / max(step - self._first, 1) * (self._total - step)
        answer = self._board.post.remote(Standing(step, self._total, self._loss, self._tokens / spent, left))
        self._answer = self._answer or answer
        if ray.wait([self._answer], timeout=0)[0]:  # one that is still on its way is kept until it is here
            self.make_way, self._answer = ray.get(self._answer), None

    def line(self, text: str) -> None:
        """A line worth keeping, such as an epoch's validation."""
        if self._board is not None:
            self._board.post.remote(None, text)

    def note(self, name: str, **numbers: Any) -> None:
        """An event, for the driver's journal."""
        if self._board is not None:
            self._board.note.remote(Event(name, numbers))
