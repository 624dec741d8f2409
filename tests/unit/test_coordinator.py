"""What the driver and the workers of a run learn of each other, and when an attempt should stop."""

import pytest

from textcls.on_ray import internals
from textcls.progress import StepTimer
from textcls.tracking.events import Event
from textcls.training import coordinator, scaling
from textcls.training.coordinator import Coordinator
from textcls.training.scaling import RescalePolicy, StopReason, TrainingWorkers, available_workers


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (coordinator, scaling):
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_worker_that_starts_replaces_its_predecessor() -> None:
    found = Coordinator()
    for rank, node in enumerate("abc"):
        found.register(rank, 3, node)
    assert found.node_ids() == {"a", "b", "c"}
    found.register(0, 2, "d")  # an attempt of two
    assert found.node_ids() == {"b", "d"}


def test_a_stop_that_was_requested_of_earlier_workers_is_over() -> None:
    found = Coordinator()
    found.register(0, 1, "a")
    assert not found.should_stop()
    found.request_stop()
    assert found.should_stop()
    assert found.should_stop(), "asking changes nothing"
    found.register(0, 1, "b")
    assert not found.should_stop()


def test_ranks_that_report_a_timeout_together_have_waited_for_the_same_peer(clock: Clock) -> None:
    found = Coordinator()
    assert found.report_timeout(0) == {0}
    clock.now += 1
    assert found.report_timeout(2) == {0, 2}
    clock.now += 60  # a restart later
    assert found.report_timeout(1) == {1}


def test_progress_events_and_the_stop_do_not_travel_together() -> None:
    found, timer = Coordinator(), StepTimer(0, 10)
    found.request_stop()
    found.post_progress(timer.after(3, 100, 0.5))
    found.post_progress(None, "epoch 1")
    found.post_event(Event("epoch_completed", {"step": 3}))
    progress, lines = found.take_progress()
    assert (str(progress).partition(" · ")[0], lines) == ("step 3 of 10", ["epoch 1"])
    assert [event.name for event in found.take_events()] == ["epoch_completed"]
    progress, lines = found.take_progress()
    assert progress is not None, "the latest stays"
    assert (lines, found.take_events()) == ([], [])


FOUR, TWO = TrainingWorkers(4, False, 1, min_count=1), TrainingWorkers(2, False, 1)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, float]]:
    """Node -> what is free; nodes whose name begins with `draining` are drained."""
    free: dict[str, dict[str, float]] = {}
    monkeypatch.setattr(internals, "free_resources", lambda: free)
    monkeypatch.setattr(internals, "draining_nodes", lambda: {name for name in free if name.startswith("draining")})
    return free


def test_workers_stop_before_their_node_goes_away(clock: Clock, cluster: dict[str, dict[str, float]]) -> None:
    policy = RescalePolicy(TWO, TWO, 30.0)
    clock.now += 2
    assert policy.stop_reason({"a", "b"}) is None
    cluster |= {"draining": {}, "a": {}}
    assert policy.stop_reason({"a", "draining"}) is None, "the cluster has just been asked"
    clock.now += 2
    assert policy.stop_reason({"a", "b"}) is None, "another's node"
    clock.now += 2
    assert policy.stop_reason({"a", "draining"}) == StopReason("preempted", "a node of the workers is being drained")


def test_elastic_workers_are_rescaled_once_more_have_fitted_for_a_while(
    clock: Clock, cluster: dict[str, dict[str, float]]
) -> None:
    policy = RescalePolicy(FOUR, TWO, 30.0)

    def reason_after(seconds: float) -> StopReason | None:
        clock.now += seconds
        return policy.stop_reason({"a"})

    assert reason_after(100) is None, "no room"
    cluster["b"] = {"CPU": 1.0}
    assert reason_after(20) is None
    del cluster["b"]
    assert reason_after(20) is None, "the room has gone"
    cluster["b"] = {"CPU": 1.0}
    assert reason_after(29) is None
    assert reason_after(2) == StopReason("rescaled", "more workers fit", workers=3)
    cluster["c"] = {"CPU": 64.0}
    assert reason_after(2) == StopReason("rescaled", "more workers fit", workers=4)


@pytest.mark.parametrize("current", [TrainingWorkers(4, False, 1), TrainingWorkers(2, False, 1)])
def test_fixed_workers_and_all_workers_are_never_rescaled(
    clock: Clock, cluster: dict[str, dict[str, float]], current: TrainingWorkers
) -> None:
    cluster["b"] = {"CPU": 64.0}
    policy = RescalePolicy(FOUR if current.count == 4 else TWO, current, 1.0)
    clock.now += 100
    assert policy.stop_reason({"a"}) is None


@pytest.mark.parametrize(("cpus", "count"), [(0.0, 1), (3.0, 3), (9.0, 4)])
def test_an_attempt_has_as_many_elastic_workers_as_fit(
    clock: Clock, cluster: dict[str, dict[str, float]], cpus: float, count: int
) -> None:
    cluster |= {"a": {"CPU": cpus}, "draining": {"CPU": 64.0}}
    assert available_workers(FOUR) == TrainingWorkers(count, False, 1)
    assert available_workers(TWO) is TWO


@pytest.mark.parametrize(("known", "count"), [(0, 1), (1, 1), (2, 3)])
def test_an_attempt_waits_for_room_that_there_was_when_the_last_one_was_stopped(
    clock: Clock, cluster: dict[str, dict[str, float]], monkeypatch: pytest.MonkeyPatch, known: int, count: int
) -> None:
    began = clock.now

    def free() -> dict[str, dict[str, float]]:
        return {"a": {"CPU": 1.0}, "b": {"CPU": 2.0 if clock.now - began > 20 else 0.0}}

    monkeypatch.setattr(internals, "free_resources", free)
    assert available_workers(FOUR, known).count == count


def test_an_attempt_does_not_wait_for_ever_for_room_that_has_gone(
    clock: Clock, cluster: dict[str, dict[str, float]]
) -> None:
    began = clock.now
    cluster["a"] = {"CPU": 1.0}
    assert available_workers(FOUR, 3).count == 1
    assert 55 < clock.now - began < 65
