"""The progress display of a job: a bar at a terminal, a plain line now and then in a log.

In: how far the job is, and lines, taken from a `ProgressBoard` or whatever else has its `take`. Out: text on the
driver's own terminal or log, free of other processes' output. Not here: results (reporting/), what the workers of a
training run agree on (training/coordinator.py).
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
"""How often the display asks for progress; a job need not post more often."""
_LINE_EVERY_S = 10.0


class Progress(Protocol):
    """How far a job is; `str` of it is what the display shows."""

    @property
    def done(self) -> int:
        """Steps or rows done."""

    @property
    def total(self) -> int | None:
        """Steps or rows in all; None while that is unknown."""


@dataclass(frozen=True)
class RowProgress:
    """How far a batch job is.

    Attributes:
        done: rows done, those of an earlier start included.
        total: rows in all; None while that is unknown.
        rows_per_s: throughput since this start.
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


@dataclass(frozen=True)
class StepProgress:
    """How far a training run is.

    Attributes:
        done: optimizer steps done.
        total: steps of the whole run.
        loss: latest point of the loss curve, None before the first.
        tokens_per_s: throughput since the workers started.
        seconds_left: at the same throughput.
    """

    done: int
    total: int
    loss: float | None
    tokens_per_s: float
    seconds_left: float

    def __str__(self) -> str:
        loss = "" if self.loss is None else f" · loss {self.loss:.3f}"
        left = minutes(self.seconds_left)
        return f"step {self.done:,} of {self.total:,}{loss} · {self.tokens_per_s:,.0f} tokens/s · {left} left"


class StepTimer:
    """Turns finished steps into a `StepProgress`.

    Args:
        first: steps that were done before this worker started; more than 0 if the run was resumed.
        total: steps of the whole run.
    """

    def __init__(self, first: int, total: int) -> None:
        self._first, self._total = first, total
        self._started, self._tokens = time.monotonic(), 0
        self._loss: float | None = None

    def after(self, step: int, tokens: int, loss: float | None) -> StepProgress:
        """The progress after `step` steps; the last had `tokens` real tokens, and `loss` (None: not known)."""
        self._tokens += tokens
        self._loss = self._loss if loss is None else loss
        spent = max(time.monotonic() - self._started, 1e-6)
        left = spent / max(step - self._first, 1) * (self._total - step)
        return StepProgress(step, self._total, self._loss, self._tokens / spent, left)


def minutes(seconds: float) -> str:
    """Minutes and seconds, like 3:07."""
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


class ProgressBoard:
    """Holds the latest progress and the lines that have not been shown."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._lines: list[str] = []

    def post(self, progress: Progress | None, line: str = "") -> None:
        """Replaces the progress, adds a line, or both."""
        self._progress = progress or self._progress
        if line:
            self._lines.append(line)

    def take(self) -> tuple[Progress | None, list[str]]:
        """The latest progress, and the lines since the last call."""
        lines, self._lines = self._lines, []
        return self._progress, lines


@contextmanager
def progress_display(
    take: Callable[[], tuple[Progress | None, list[str]]], say: Callable[[str], None], *, verb: str = "training"
) -> Iterator[None]:
    """Shows progress while the block runs: a bar if standard error is a terminal, otherwise lines.

    Args:
        take: returns the latest progress and new lines; called on a thread of the display.
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
        # Long enough for an actor that is still starting: if Ray shut down under the call, the process would crash.
        thread.join(timeout=60)


def _show_lines(take: Callable[[], Any], say: Callable[[str], None], stop: threading.Event) -> None:
    shown_at, shown_done = time.monotonic(), -1
    while True:
        last = stop.wait(POLL_S)
        progress, lines = take()
        due = progress is not None and progress.done != shown_done and time.monotonic() - shown_at >= _LINE_EVERY_S
        if due or (lines and progress is not None and progress.done != shown_done):
            say(f"  {progress}")
            shown_at, shown_done = time.monotonic(), progress.done
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
            progress, lines = take()
            for line in lines:
                bar.console.print(visible(f"  {line}"), markup=False, highlight=False)
            if progress is not None:
                bar.update(task, completed=progress.done, total=progress.total, description=str(progress))
            if last:
                return
