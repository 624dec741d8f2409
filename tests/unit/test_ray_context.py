"""How a worker talks to the coordinator: without waiting in a step, and no more often than needed; its checkpoints."""

import shutil
import stat
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest
import torch

from textcls import storage
from textcls.errors import TrainingError
from textcls.progress import StepProgress
from textcls.training import checkpoint, ray_context
from textcls.training.coordinator import Coordinator
from textcls.training.ray_context import RayContext


class Answer:
    """What a call of an actor returns: its value, which may not be there yet."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Actor:
    """The coordinator in this process.

    Attributes:
        calls: names of the methods that were called.
        answers_arrive: whether answers are there when they are looked for.
    """

    def __init__(self) -> None:
        self.coordinator, self.calls, self.answers_arrive = Coordinator(), list[str](), True

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: Any) -> Answer:
            self.calls.append(name)
            return Answer(getattr(self.coordinator, name)(*arguments))

        return Some(remote=remote)


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Actor:
    actor = Actor()

    def wait(waiting: list[Answer], timeout: float) -> tuple[list[Answer], list[Answer]]:
        assert timeout == 0, "a step does not wait"
        return (waiting, []) if actor.answers_arrive else ([], waiting)

    def get(answer: Answer) -> Any:
        assert actor.answers_arrive, "a step does not wait"
        return answer.value

    clock = Some(now=0.0)
    monkeypatch.setattr(
        ray_context,
        "time",
        Some(
            monotonic=lambda: clock.now,
            perf_counter=lambda: clock.now,
            sleep=lambda seconds: setattr(clock, "now", clock.now + seconds),
        ),
    )
    actor.clock = clock
    monkeypatch.setattr(ray_context, "own_node", lambda: "a-node")
    monkeypatch.setattr(
        ray_context,
        "ray",
        Some(
            get=get,
            wait=wait,
            train=Some(
                get_context=lambda: Some(get_world_rank=lambda: actor.rank, get_world_size=lambda: 3),
                torch=Some(get_device=lambda: torch.device("cpu")),
            ),
        ),
    )
    return actor


def context_of(actor: Actor, rank: int, tmp_path: Path) -> RayContext:
    actor.rank = rank
    return RayContext(actor, run_id="a-run", attempt_uri=f"{tmp_path}/attempt-0001", resume_uri="", hang_timeout_s=5.0)


def test_the_question_whether_to_stop_is_asked_once_a_second_and_never_waited_for(actor: Actor, tmp_path: Path) -> None:
    context = context_of(actor, 0, tmp_path)
    assert actor.coordinator.node_ids() == {"a-node"}
    for _ in range(100):
        assert not context.should_stop()
    assert actor.calls.count("should_stop") == 1
    actor.coordinator.request_stop()
    assert not context.should_stop(), "the last answer holds for a second"
    actor.clock.now += 1.0
    actor.answers_arrive = False
    for _ in range(100):
        assert not context.should_stop(), "the answer is on its way"
        actor.clock.now += 1.0
    assert actor.calls.count("should_stop") == 2, "one question at a time"
    actor.answers_arrive = True
    assert context.should_stop()


def test_other_ranks_ask_nothing_and_post_nothing(actor: Actor, tmp_path: Path) -> None:
    context = context_of(actor, 1, tmp_path)
    context.report_progress(StepProgress(1, 2, None, 1.0, 1.0))
    context.report_line("a line")
    context.report_event("an_event")
    assert not context.should_stop()
    assert actor.calls == ["register"]


def test_progress_is_posted_twice_a_second_and_after_the_last_step(actor: Actor, tmp_path: Path) -> None:
    context = context_of(actor, 0, tmp_path)
    for step in range(1, 10):
        context.report_progress(StepProgress(step, 9, None, 1.0, 1.0))
        actor.clock.now += 0.2
    progress, _ = actor.coordinator.take_progress()
    assert progress is not None
    assert progress.done == 9
    assert actor.calls.count("post_progress") == 4  # at 0, 0.6, 1.2 and 1.6 s


def test_the_ranks_that_did_not_answer_are_named(actor: Actor, tmp_path: Path) -> None:
    contexts = [context_of(actor, rank, tmp_path) for rank in range(3)]
    timeout = RuntimeError("gloo: Timed out waiting 5000ms for recv operation to complete")
    assert contexts[0].peer_timeout(RuntimeError("out of memory")) is None
    contexts[2].peer_timeout(timeout)
    found = contexts[0].peer_timeout(timeout)
    assert isinstance(found, TrainingError)
    assert found.found == "rank 1 did not answer for 5 s"


def test_leftovers_of_killed_workers_of_this_run_are_removed(
    actor: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / f"{context_of(actor, 1, tmp_path).staging_prefix}x"
    left.mkdir()
    other = tmp_path / "textcls-checkpoint-of-another-run"
    other.mkdir()
    context_of(actor, 0, tmp_path)
    assert not left.exists()
    assert other.exists()


@pytest.mark.parametrize("resumed", [False, True], ids=["Ray's latest", "an earlier attempt's"])
@pytest.mark.parametrize("where", ["local", "s3"])
def test_the_secret_of_private_training_is_for_its_owner_alone_wherever_it_is_a_file(
    actor: Actor,
    tmp_path: Path,
    where: str,
    resumed: bool,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempt = f"{request.getfixturevalue('s3') if where == 's3' else tmp_path}/run/attempt-0001"
    actor.rank = 0
    context = RayContext(actor, run_id="a-run", attempt_uri=attempt, resume_uri="", hang_timeout_s=5.0)
    staged = tmp_path / "staged"
    staged.mkdir()
    for name in ("model.safetensors", checkpoint.KEY, checkpoint.MANIFEST):
        (staged / name).write_bytes(b"1")
    monkeypatch.setattr(ray_context.internals, "reported_checkpoint", lambda name: Some(path=f"bucket/run/{name}"))
    latest = context._upload(Some(path=str(staged)), "step-00000007")
    shutil.rmtree(staged)

    uri = context.checkpoint_uri(7)
    assert storage.names_in(uri) == [checkpoint.MANIFEST, "model.safetensors", checkpoint.KEY]
    context._resume_uri = uri if resumed else ""
    ray_context.ray.train.get_checkpoint = lambda: None if resumed else latest
    with context.latest_checkpoint() as directory:
        assert directory is not None
        assert checkpoint.read_key(directory) == b"1"
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path(directory).iterdir()}
    assert modes[checkpoint.KEY] == 0o600
    assert modes["model.safetensors"] & 0o044, "others may read the rest"
