"""What a person sees while a job runs: a bar at a terminal, a plain line now and then in a log.

In: a standing and lines, posted to a `Board` or to whatever else has its `take`. Out: text on the driver's own terminal
or log, free of other processes' output. Not here: results (reporting/), what workers of a training run ask each other
(training/coordinator.py).
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from textcls.plain_text import visible

POLL_S = 0.5
"""How often a board is looked at, and posted to."""
_LINE_EVERY_S = 10.0


class Progress(Protocol):
    """How far a job is: a standing of some kind, and `str` of it is what is shown."""

    @property
    def done(self) -> int:
        """Steps or rows done."""

    @property
    def total(self) -> int | None:
        """Of how many; None while that cannot be told."""


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
    """Holds the latest standing and the lines not yet shown."""

    def __init__(self) -> None:
        self._standing: Progress | None = None
        self._lines: list[str] = []

    def post(self, standing: Progress | None, line: str = "") -> None:
        """Notes a new standing, a line to show, or both."""
        self._standing = standing or self._standing
        if line:
            self._lines.append(line)

    def take(self) -> tuple[Progress | None, list[str]]:
        """The latest standing, and the lines since the last call."""
        lines, self._lines = self._lines, []
        return self._standing, lines


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
        last = stop.wait(POLL_S)
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
            last = stop.wait(POLL_S)
            standing, lines = take()
            for line in lines:
                bar.console.print(visible(f"  {line}"), markup=False, highlight=False)
            if standing is not None:
                bar.update(task, completed=standing.done, total=standing.total, description=str(standing))
            if last:
                return
