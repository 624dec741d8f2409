"""What a person sees while a job runs: a bar at a terminal, a plain line now and then in a log.

In: what is posted to a `Board`: by rank 0 of a training run to an actor that outlives workers, by a batch job's driver
to an object of its own. Out: text on the driver's own terminal or log, free of other processes' output.
Not here: results.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import ray

from textcls.plain_text import visible
from textcls.training.events import Event

_POLL_S = 0.5
_LINE_EVERY_S = 10.0
# Reports of the same wait lie closer together; two waits lie a restart apart.
_SAME_WAIT_S = 10.0


class Progress(Protocol):
    """How far a job is: a standing of some kind, and `str` of it is what is shown."""

    @property
    def done(self) -> int:
        """Steps or rows done."""

    @property
    def total(self) -> int | None:
        """Of how many; None while that cannot be told."""


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


@dataclass(frozen=True)
class RowStanding:
    """How far a batch job is.

    Attributes:
        done: rows done, those of an earlier start included.
        total: how many rows there are; None while that cannot be told.
        rows_per_s: since this start.
        exact: whether the total was counted, not estimated.
    """

    done: int
    total: int | None
    rows_per_s: float
    exact: bool = False

    def __str__(self) -> str:
        rate = f"{self.rows_per_s:,.0f} rows/s" if self.rows_per_s >= 100 else f"{self.rows_per_s:.1f} rows/s"
        if self.total is None or self.rows_per_s <= 0:
            return f"{self.done:,} rows · {rate}"
        left = minutes(max(0, self.total - self.done) / self.rows_per_s)
        about = "" if self.exact else "about "
        return f"{self.done:,} of {about}{max(self.total, self.done):,} rows · {rate} · {left} left"


def minutes(seconds: float) -> str:
    """Minutes and seconds, like 3:07."""
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


class Board:
    """Holds the latest standing and the lines not yet shown. Of a run it is a Ray actor without a CPU of its own."""

    def __init__(self) -> None:
        self._standing: Progress | None = None
        self._lines: list[str] = []
        self._events: list[Event] = []
        self._gave_up: dict[int, float] = {}
        self._nodes: dict[int, str] = {}
        self._make_way = False

    def post(self, standing: Progress | None, line: str = "") -> bool:
        """Notes a new standing, a line to show, or both; whether the workers should make way."""
        self._standing = standing or self._standing
        if line:
            self._lines.append(line)
        return self._make_way

    def take(self) -> tuple[Progress | None, list[str]]:
        """The latest standing, and the lines since the last call."""
        lines, self._lines = self._lines, []
        return self._standing, lines

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
        if self._board is None or (now - self._posted < _POLL_S and step < self._total):
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


@contextmanager
def shown(
    take: Callable[[], tuple[Progress | None, list[str]]], say: Callable[[str], None], *, verb: str = "training"
) -> Iterator[None]:
    """Shows what a board holds while the block runs: a bar if standard error is a terminal, otherwise lines.

    Args:
        take: calls the board's `take`.
        say: shows one line.
        verb: what the job is doing.
    """
    stop = threading.Event()
    show: Callable[..., None] = partial(_show_bar, verb) if sys.stderr.isatty() else _show_lines
    thread = threading.Thread(target=show, args=(take, say, stop), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        # Long enough for a board that is still starting: if Ray were shut down under the call, the process would crash.
        thread.join(timeout=60)


def _show_lines(take: Callable[[], Any], say: Callable[[str], None], stop: threading.Event) -> None:
    shown_at, shown_done = time.monotonic(), -1
    while True:
        last = stop.wait(_POLL_S)
        standing, lines = take()
        due = standing is not None and standing.done != shown_done and time.monotonic() - shown_at >= _LINE_EVERY_S
        if due or (lines and standing is not None and standing.done != shown_done):
            say(f"  {standing}")
            shown_at, shown_done = time.monotonic(), standing.done
        for line in lines:
            say(f"  {line}")
        if last:
            return


def _show_bar(verb: str, take: Callable[[], Any], say: Callable[[str], None], stop: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(TextColumn(verb), BarColumn(), TextColumn("{task.description}"), console=Console(stderr=True)) as bar:
        task = bar.add_task("waiting for the workers", total=None)
        while True:
            last = stop.wait(_POLL_S)
            standing, lines = take()
            for line in lines:
                bar.console.print(visible(f"  {line}"), markup=False, highlight=False)
            if standing is not None:
                bar.update(task, completed=standing.done, total=standing.total, description=str(standing))
            if last:
                return
