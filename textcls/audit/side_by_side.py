"""Runs of several folds at once, each in a process of its own.

In: what is to be done for a fold, and how many fit side by side. Out: their lines for the user, with the number of the
fold in front; the error of the first that fails. Not here: what a run does (training/run.py), how many fit
(training/scaling.py).

A run needs a process because Ray Train's timeouts are environment variables, and because Ctrl-C interrupts the main
thread alone. The process is another driver of the same Ray and not an actor: what an actor prints ends up in Ray's
logs, an actor does not have the identity that is in the environment of this process, and the workers of a run that an
actor has started hold their CPUs for as long as the job lasts. What a driver holds Ray takes back when it ends.

Processes are started by `multiprocessing`, which sends recipe and keys through a pipe: the process list shows no
argument. This module imports neither Ray nor torch, so that a process can be interrupted as soon as it has begun.
"""

import io
import multiprocessing
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from textcls import storage
from textcls.encryption import Keys
from textcls.errors import NoRoomError, TextclsError, TrainingError
from textcls.settings.recipe import Recipe

Say = Callable[[str], None]
Work = Callable[[int, Say], None]
"""What is done for the fold of a number: picklable, called in its process."""

# How long an interrupted process may take to leave its run as after Ctrl-C, before it is killed.
_END_S = 20.0
_INTERRUPTED = 130


@dataclass(frozen=True)
class TrainFold:
    """Callable as `Work`: trains the run of a fold, or continues it, on a Ray that is running.

    Attributes:
        address: from `session.own_address`.
        recipes: number of a fold -> the recipe of its run.
        directories: number of a fold -> URI of its --out.
        keys: as of `training.run.train`.
        verbose: show Ray's own log lines as well.
    """

    address: str
    recipes: dict[int, Recipe]
    directories: dict[int, str]
    keys: Keys
    verbose: bool

    def __call__(self, number: int, say: Say) -> None:
        """Trains the run of a fold.

        Raises:
            TextclsError: see `training.run.train`.
        """
        from textcls.on_ray.session import ray_session
        from textcls.training.run import train
        from textcls.training.run_dir import IDENTITY

        out = self.directories[number]
        with ray_session(verbose=self.verbose, address=self.address):
            signal.signal(signal.SIGTERM, _interrupt_once)  # the session has set another handler
            begun = storage.exists(storage.join(out, IDENTITY))
            train(self.recipes[number], out, resume=begun, say=say, verbose=self.verbose, keys=self.keys)


def run_side_by_side(work: Work, numbers: Sequence[int], at_once: int, say: Say, *, verbose: bool = False) -> None:
    """Does the work of each fold, of several at the same time; returns when all is done.

    A fold that finds no room for its workers beside others is trained again when one of them has ended: they may take
    longer than `scale.start_timeout_s`. An error, and Ctrl-C, interrupt the other folds.

    Args:
        work: done in processes.
        numbers: of the folds, in the order in which they begin.
        at_once: the most processes at the same time.
        say: shows one line to the user.
        verbose: show what libraries print in the processes as well.

    Raises:
        TextclsError: the first that any work raised.
        TrainingError: a process died.
    """
    waiting, running = deque(numbers), list[_Fold]()
    resource_tracker.ensure_running()  # it unblocks SIGINT when it starts, see `_Fold`
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(_Fold(work, waiting.popleft(), say, verbose))
                for fold in running:
                    fold.was_beside_others |= len(running) > 1
            ready = wait([fold.connection for fold in running])
            for fold in [fold for fold in running if fold.connection in ready]:
                message = fold.message()
                if isinstance(message, str):
                    say(f"fold {fold.number}: {message.strip()}")
                    continue
                running.remove(fold)
                if isinstance(message, NoRoomError) and fold.was_beside_others:
                    say(f"fold {fold.number}: no room beside the others; it begins again when one of them has ended")
                    waiting.appendleft(fold.number)
                    at_once = max(1, len(running))
                elif message is not None:
                    say(f"fold {fold.number} failed" + ("; the others are interrupted" if running else ""))
                    raise message
                else:
                    say(f"fold {fold.number}: finished")
    finally:
        for fold in running:
            fold.interrupt()
        until = time.monotonic() + _END_S
        for fold in running:
            fold.end(until)


class _Fold:
    """The process that does the work of a fold, and the connection to it.

    The terminal sends Ctrl-C to all processes, and would interrupt this one a second time while it cleans up. So SIGINT
    is blocked in it, from its first instruction on.
    """

    def __init__(self, work: Work, number: int, say: Say, verbose: bool) -> None:
        self.number, self.was_beside_others = number, False
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        self._process: SpawnProcess = context.Process(target=_do, args=(work, number, verbose, there), daemon=True)
        say(f"fold {number}: begins")
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        there.close()

    def message(self) -> str | TextclsError | None:
        """What the process sends next: a line; or at its end the error, None if there was none."""
        try:
            message: str | TextclsError | None = self.connection.recv()
        except (EOFError, OSError):
            message = self._death()
        if not isinstance(message, str):
            self.end(time.monotonic() + _END_S)
        return message

    def interrupt(self) -> None:
        """Interrupts the work as Ctrl-C does."""
        self.connection.close()

    def end(self, until: float) -> None:
        """Waits for the end of the process, which it kills after `until`, a `time.monotonic()`."""
        self._process.join(max(0.0, until - time.monotonic()))
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _death(self) -> TrainingError:
        self._process.join(_END_S)
        status = self._process.exitcode
        if status is None or status >= 0:
            return TrainingError(
                f"the process of fold {self.number} ended with an error, exit status {status}",
                todo="the lines above say why; --resume continues once the cause is gone",
            )
        number = -status
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return TrainingError(
            f"the process of fold {self.number} was killed by {name}",
            todo="--resume continues; if memory was short, with a larger scale.cpus_per_worker fewer run at once",
        )


def _do(work: Work, number: int, verbose: bool, connection: Connection) -> None:
    """What a process runs: sends the lines of the work, then its error, or None."""
    sending = threading.Lock()

    def send(message: object) -> None:
        with sending, suppress(OSError):  # the audit is gone, or is about to interrupt this process
            connection.send(message)

    signal.signal(signal.SIGTERM, _interrupt_once)
    threading.Thread(target=_interrupt_with, args=(connection,), daemon=True).start()
    # Ray prints some warnings in every driver.
    printed = _Lines(send if verbose else lambda line: None)
    outcome: TextclsError | None = None
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            try:
                work(number, send)
            except TextclsError as error:
                outcome = error
            except Exception:
                traceback.print_exc(file=_Lines(send))
                sys.exit(1)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    send(outcome)


def _interrupt_once(number: int, frame: Any) -> None:
    """Handles SIGTERM: as Ctrl-C, but for another one while the process cleans up."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _interrupt_with(connection: Connection) -> None:
    """Interrupts the main thread once the other end is closed: by `_Fold.interrupt`, or since that process has died."""
    with suppress(EOFError, OSError):
        connection.recv()
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


class _Lines(io.TextIOBase):
    """A text stream that hands over each complete line."""

    def __init__(self, send: Say) -> None:
        self._send, self._rest = send, ""

    def write(self, text: str) -> int:
        """Takes text; returns its length."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, lines):
            self._send(line)
        return len(text)
