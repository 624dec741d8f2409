"""Folds side by side: processes that say what they do, end when they should, and leave none behind. No Ray."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from textcls.audit.side_by_side import run_side_by_side
from textcls.errors import DataError, NoRoomError, TrainingError
from textcls.settings.scale import ScaleSpec

BOUND_S = 120


def wait_until(happened: Callable[[], bool]) -> None:
    given_up, pause = time.monotonic() + BOUND_S, threading.Event()
    while not happened():
        assert time.monotonic() < given_up, "it did not happen"
        pause.wait(0.01)


@dataclass(frozen=True)
class Work:
    """Does what a plan says for each fold; folds see each other by files.

    Attributes:
        folder: of the files.
        plan: number of a fold -> step after step: (what, with what).
    """

    folder: Path
    plan: dict[int, list[tuple[str, Any]]]

    def __call__(self, number: int, say: Callable[[str], None]) -> None:
        (self.folder / f"running {number} {os.getpid()}").touch()
        say(f"{len(list(self.folder.glob('running *')))} are running")
        try:
            for step, value in self.plan[number]:
                getattr(self, step)(value, say)
        except KeyboardInterrupt:
            say("cleans up")
            if (self.folder / "sent").exists():
                wait_until((self.folder / "sent again").exists)
            (self.folder / f"cleaned up {number}").touch()
            raise
        finally:
            next(self.folder.glob(f"running {number} *")).unlink()

    def writes(self, name: str, say: Callable[[str], None]) -> None:
        (self.folder / name).touch()

    def waits_for(self, name: str, say: Callable[[str], None]) -> None:
        wait_until((self.folder / name).exists)

    def says(self, line: str, say: Callable[[str], None]) -> None:
        say(line)

    def prints(self, line: str, say: Callable[[str], None]) -> None:
        print(line)

    def fails(self, error: BaseException, say: Callable[[str], None]) -> None:
        raise error

    def fails_at_first(self, error: BaseException, say: Callable[[str], None]) -> None:
        if not (self.folder / "failed").exists():
            (self.folder / "failed").touch()
            raise error

    def says_who_it_is(self, variable: str, say: Callable[[str], None]) -> None:
        say(f"pid {os.getpid()}")
        say(f"{variable}: {os.environ.get(variable)}")
        say(f"argv {Path('/proc/self/cmdline').read_text()!r}")

    def is_killed_at_first(self, number: int, say: Callable[[str], None]) -> None:
        if not (self.folder / "failed").exists():
            (self.folder / "failed").touch()
            os.kill(os.getpid(), number)


def lines_of(work: Work, most: int, on_line: Callable[[str], None] = lambda line: None, **options: Any) -> list[str]:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        on_line(line)

    try:
        run_side_by_side(work, sorted(work.plan), most, say, **options)
    finally:
        assert multiprocessing.active_children() == []
    return said


def test_folds_run_at_the_same_time_and_their_lines_name_them(tmp_path: Path) -> None:
    meeting = {n: [("writes", f"{n}"), ("waits_for", f"{3 - n}"), ("says", "  met"), ("prints", "x")] for n in (1, 2)}
    said = lines_of(Work(tmp_path, meeting | {3: [], 4: []}), 2)
    begins, ends = [f"fold {n}: begins" for n in (1, 2, 3, 4)], [f"fold {n}: finished" for n in (1, 2, 3, 4)]
    assert [line for line in said if "begins" in line] == begins
    assert sorted(line for line in said if "finished" in line) == ends
    assert sorted(line for line in said if "met" in line) == ["fold 1: met", "fold 2: met"]
    running = [line for line in said if "running" in line]
    assert len(running) == 4
    assert all(line.endswith(("1 are running", "2 are running")) for line in running)
    assert not any(line.endswith(": x") for line in said)


def test_what_libraries_print_is_shown_if_asked_for(tmp_path: Path) -> None:
    assert "fold 1: a warning" in lines_of(Work(tmp_path, {1: [("prints", "a warning")]}), 1, verbose=True)


def test_an_error_is_raised_as_it_is_and_interrupts_the_others(tmp_path: Path) -> None:
    error = DataError("a.csv: no rows", expected="rows", todo="add rows")
    work = Work(tmp_path, {1: [("writes", "1"), ("waits_for", "never")], 2: [("waits_for", "1"), ("fails", error)]})
    with pytest.raises(DataError) as raised:
        lines_of(work, 2)
    assert str(raised.value) == str(error)
    assert (tmp_path / "cleaned up 1").exists()


def test_ctrl_c_interrupts_each_fold_once_wherever_the_terminal_sends_it(tmp_path: Path) -> None:
    plan = [("says_who_it_is", "X"), ("waits_for", "sent"), ("says", "goes on"), ("waits_for", "never")]
    pids: list[int] = []
    seen: list[str] = []

    def on_line(line: str) -> None:
        _, _, what = line.partition(": ")
        if what.startswith("pid "):
            pids.append(int(what.split()[-1]))
        seen.append(what.partition(" ")[0])
        if seen.count("pid") == 2 and what.startswith("pid"):
            send(signal.SIGINT, "sent")
        if seen.count("goes") == 2 and what.startswith("goes"):
            send(signal.SIGTERM, "")  # as `ray job stop` and systemd do, to all processes
        if seen.count("cleans") == 2:
            send(signal.SIGTERM, "sent again")
            signal.raise_signal(signal.SIGINT)

    def send(number: int, then: str) -> None:
        for pid in pids:
            os.kill(pid, number)
        if then:
            (tmp_path / then).touch()

    with pytest.raises(KeyboardInterrupt):
        lines_of(Work(tmp_path, {1: plan, 2: plan}), 2, on_line)
    assert sorted(path.name for path in tmp_path.glob("cleaned up *")) == ["cleaned up 1", "cleaned up 2"]


def test_a_fold_without_room_beside_others_is_done_again_when_one_has_ended(tmp_path: Path) -> None:
    no_room = NoRoomError("no room", todo="wait")
    plan = {
        1: [("writes", "1"), ("waits_for", "seen")],
        2: [("waits_for", "1"), ("fails_at_first", no_room), ("says", "has room")],
        3: [],
    }
    said = lines_of(Work(tmp_path, plan), 2, lambda line: (tmp_path / "seen").touch() if "no room" in line else None)
    assert said.index("fold 2: has room") > said.index("fold 1: finished")
    assert said.index("fold 3: begins") > said.index("fold 2: finished")  # two had no room at once
    assert said.count("fold 2: begins") == 2


def test_a_fold_without_room_although_it_is_alone_fails(tmp_path: Path) -> None:
    with pytest.raises(NoRoomError, match="no room"):
        lines_of(Work(tmp_path, {1: [("fails", NoRoomError("no room"))]}), 2)


@pytest.mark.parametrize(
    ("step", "found"),
    [
        (("is_killed_at_first", signal.SIGKILL), "the process of fold 1 was killed by SIGKILL"),
        (("fails_at_first", ValueError("a bug")), "the process of fold 1 ended with an error, exit status 1"),
    ],
)
def test_a_process_that_dies_ends_the_others_and_all_can_go_on(
    tmp_path: Path, step: tuple[str, Any], found: str
) -> None:
    said: list[str] = []
    plan = {1: [("waits_for", "2"), step], 2: [("writes", "2"), ("waits_for", "failed"), ("waits_for", "again")]}
    with pytest.raises(TrainingError, match=found) as raised:
        lines_of(Work(tmp_path, plan), 2, said.append)
    assert (tmp_path / "cleaned up 2").exists()
    assert ("fold 1: ValueError: a bug" in said) == step[0].startswith("fails")
    # What the message advises: the same again, and fewer at once.
    assert "--resume continues" in raised.value.todo
    (tmp_path / "again").touch()
    assert {"fold 1: finished", "fold 2: finished"} <= set(lines_of(Work(tmp_path, plan), 2))
    if "a larger scale.cpus_per_worker" in raised.value.todo:
        assert [at_once(cpus(8), 5, cpus_per_worker=each)[1] for each in (2, 4)] == [4, 2]


def test_processes_end_when_the_audit_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from textcls.audit.side_by_side import run_side_by_side; "
        "from tests.unit.test_side_by_side import Work; "
        "plan = {n: [('writes', str(n)), ('waits_for', 'never')] for n in (1, 2)}; "
        "run_side_by_side(Work(Path(sys.argv[1]), plan), [1, 2], 2, print)"
    )
    root = Path(__file__).parents[2]
    audit = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=root, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: (tmp_path / "1").exists() and (tmp_path / "2").exists())
    finally:
        audit.kill()
        audit.wait()
    wait_until(lambda: len(list(tmp_path.glob("cleaned up *"))) == 2)


def test_a_process_has_the_environment_and_no_arguments_that_others_could_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTCLS_AGE_IDENTITY", "AGE-SECRET-KEY-1X")
    said = lines_of(Work(tmp_path, {1: [("says_who_it_is", "TEXTCLS_AGE_IDENTITY")]}), 1)
    assert "fold 1: TEXTCLS_AGE_IDENTITY: AGE-SECRET-KEY-1X" in said
    (arguments,) = [line for line in said if line.startswith("fold 1: argv")]
    assert "spawn_main" in arguments
    assert not any(word in arguments for word in ("AGE", "says_who_it_is", str(tmp_path)))


def at_once(nodes: list[dict[str, float]], folds: int, **scale: Any) -> tuple[ScaleSpec, int]:
    """`runs_at_once` on a cluster of these nodes, and one that has died."""
    from textcls.training import scaling  # not by the processes of folds: it imports torch

    alive = [{"Alive": True, "Resources": node} for node in nodes]
    cluster = SimpleNamespace(nodes=lambda: [*alive, {"Alive": False, "Resources": {"CPU": 64.0}}])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "ray", cluster)
        return scaling.runs_at_once(ScaleSpec(**scale), folds)


def cpus(*nodes: int) -> list[dict[str, float]]:
    return [{"CPU": float(node)} for node in nodes]


@pytest.mark.parametrize(
    ("nodes", "scale", "folds", "workers", "number"),
    [
        (cpus(8), {}, 5, "auto", 1),
        (cpus(8, 8, 8, 8), {}, 5, "auto", 4),
        (cpus(0, 8, 8, 8), {}, 2, "auto", 2),
        (cpus(8), {"cpus_per_worker": 2}, 5, "auto", 4),
        (cpus(8, 8), {"workers": 2, "cpus_per_worker": 2}, 5, 2, 4),
        (cpus(8, 8), {"workers": (2, 4), "cpus_per_worker": 2}, 5, (2, 4), 2),
        ([{"CPU": 8.0, "GPU": 1.0}], {}, 5, "auto", 1),
        ([{"CPU": 8.0, "GPU": 4.0}], {}, 5, 1, 4),
        ([{"CPU": 8.0, "GPU": 8.0}], {}, 2, 4, 2),
        ([{"CPU": 8.0, "GPU": 4.0}], {"workers": 4}, 5, 4, 1),
        ([{"CPU": 8.0, "GPU": 4.0}], {"use_gpu": False}, 5, "auto", 1),
        # One node cannot hold a worker's CPU for each of its GPUs.
        ([{"CPU": 2.0, "GPU": 4.0}, {"CPU": 4.0, "GPU": 2.0}], {"workers": 1}, 5, 1, 4),
    ],
)
def test_as_many_runs_fit_as_the_cluster_has_room_for(
    nodes: list[dict[str, float]], scale: dict[str, Any], folds: int, workers: Any, number: int
) -> None:
    assert at_once(nodes, folds, **scale) == (ScaleSpec(**scale | {"workers": workers}), number)
