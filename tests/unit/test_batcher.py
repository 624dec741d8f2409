"""The law of the batcher: every caller gets exactly its own outcomes, whatever happens to the others."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textcls.serving.batcher import Answer, Batcher, QueueFull
from textcls.settings.serve import ServeSpec

BOUND_S = 60


def run(story: Callable[[], Awaitable[Any]]) -> Any:
    """Runs a story to its end; one that hangs fails."""

    async def bounded() -> Any:
        return await asyncio.wait_for(story(), BOUND_S)

    return asyncio.run(bounded())


class Boom(Exception):
    pass


@dataclass
class Worker:
    """Makes `("done", item)` of an item; fails on what it is told to, and remembers its batches."""

    fail_on: frozenset[Any] = frozenset()
    batches: list[list[Any]] = field(default_factory=list)
    groups: list[Hashable] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    gate: threading.Event | None = None
    begun: threading.Event = field(default_factory=threading.Event)

    def __call__(self, group: Hashable, items: list[Any]) -> list[tuple[str, Any]]:
        self.batches.append(items)
        self.groups.append(group)
        self.threads.add(threading.get_ident())
        self.begun.set()
        if self.gate is not None:
            assert self.gate.wait(BOUND_S)
        if bad := self.fail_on & set(items):
            raise Boom(sorted(bad))
        return [("done", item) for item in items]


async def until(happened: Callable[[], bool]) -> None:
    while not happened():
        await asyncio.sleep(0)


def batcher_of(worker: Any, **limits: Any) -> Batcher[Any, Any]:
    return Batcher(worker, **({"max_cost": 100, "max_items": 10**6} | limits))


calls = st.lists(
    st.fixed_dictionaries(
        {
            "costs": st.lists(st.integers(0, 30), max_size=8),
            "bad": st.sets(st.integers(0, 7)),
            "group": st.sampled_from(["old", "new"]),
            "pause": st.integers(0, 4),  # rounds of the loop before it calls
            "cancel": st.one_of(st.none(), st.integers(0, 12)),  # rounds after which it gives up
        }
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(calls, st.integers(1, 40), st.booleans())
def test_every_caller_gets_exactly_its_own_outcomes(plan: list[dict[str, Any]], max_cost: int, odd: bool) -> None:
    fail_on = frozenset((i, place) for i, call in enumerate(plan) for place in call["bad"])
    cost_of = {(i, place): cost for i, call in enumerate(plan) for place, cost in enumerate(call["costs"])}
    worker = Worker(fail_on)

    def work(group: Hashable, items: list[Any]) -> list[Any]:
        # An odd worker loses an outcome of every batch that holds a bad item, in place of raising.
        if odd and len(items) > 1 and fail_on & set(items):
            worker.batches.append(items)
            worker.groups.append(group)
            return [("done", item) for item in items[1:]]
        return worker(group, items)

    async def caller(batcher: Batcher[Any, Any], i: int, call: dict[str, Any]) -> Answer[Any]:
        for _ in range(call["pause"]):
            await asyncio.sleep(0)
        with batcher.room(len(call["costs"])):
            items = [((i, place), cost) for place, cost in enumerate(call["costs"])]
            return await batcher.outcomes(items, call["group"])

    async def story() -> None:
        batcher = batcher_of(work, max_cost=max_cost)
        tasks = [asyncio.create_task(caller(batcher, i, call)) for i, call in enumerate(plan)]

        async def give_up(task: asyncio.Task[Any], rounds: int) -> None:
            for _ in range(rounds):
                await asyncio.sleep(0)
            task.cancel()

        cancels = [give_up(tasks[i], c["cancel"]) for i, c in enumerate(plan) if c["cancel"] is not None]
        await asyncio.gather(*cancels)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for i, (call, answer) in enumerate(zip(plan, answers, strict=True)):
            if isinstance(answer, asyncio.CancelledError):
                assert call["cancel"] is not None
                continue
            assert isinstance(answer, Answer), answer
            assert len(answer.outcomes) == len(call["costs"])
            for place, outcome in enumerate(answer.outcomes):
                if place in call["bad"]:
                    assert isinstance(outcome, Boom)
                    assert outcome.args == ([(i, place)],)
                else:
                    assert outcome == ("done", (i, place))
            assert answer.queue_s >= 0
        assert batcher.admitted == 0
        # What is left behind by those who gave up wedges nobody.
        assert (await batcher.outcomes([("last", 1)])).outcomes == [("done", "last")]
        assert batcher.waiting_cost == 0
        await batcher.close()

    run(story)
    for group, batch in zip(worker.groups, worker.batches, strict=True):
        costs = [cost_of.get(item, 1) for item in batch]
        assert len(batch) == 1 or sum(costs) <= max_cost
        assert {plan[item[0]]["group"] for item in batch if item != "last"} <= {group}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20), max_size=40), st.integers(1, 30))
def test_items_run_in_the_order_they_came(costs: list[int], max_cost: int) -> None:
    worker = Worker()

    async def story() -> None:
        batcher = batcher_of(worker, max_cost=max_cost)
        await asyncio.gather(*(batcher.outcomes([(i, cost)]) for i, cost in enumerate(costs)))
        await batcher.close()

    run(story)
    assert [item for batch in worker.batches for item in batch] == list(range(len(costs)))


def test_what_comes_while_the_worker_is_busy_runs_together_on_one_thread_that_is_not_the_loop_s() -> None:
    worker = Worker(gate=threading.Event())

    async def story() -> None:
        batcher = batcher_of(worker)
        tasks = [asyncio.create_task(batcher.outcomes([("first", 1)]))]
        await until(worker.begun.is_set)
        tasks += [asyncio.create_task(batcher.outcomes([(i, 1)])) for i in range(50)]
        await until(lambda: batcher.waiting_cost == 50)
        assert batcher.busy_s > 0
        worker.gate.set()  # type: ignore[union-attr]
        await asyncio.gather(*tasks)
        assert batcher.busy_s == 0
        await batcher.close()

    run(story)
    assert [len(batch) for batch in worker.batches] == [1, 50]
    assert len(worker.threads) == 1
    assert threading.get_ident() not in worker.threads


def test_a_caller_that_has_gone_costs_nothing() -> None:
    worker = Worker(gate=threading.Event())

    async def story() -> None:
        batcher = batcher_of(worker)
        first = asyncio.create_task(batcher.outcomes([("first", 1)]))
        await until(worker.begun.is_set)
        gone = asyncio.create_task(batcher.outcomes([("gone", 99)]))
        stays = asyncio.create_task(batcher.outcomes([("stays", 99)]))
        await until(lambda: batcher.waiting_cost == 198)
        gone.cancel()
        worker.gate.set()  # type: ignore[union-attr]
        await asyncio.gather(first, stays)
        assert gone.cancelled()
        await batcher.close()

    run(story)
    assert worker.batches == [["first"], ["stays"]]


def test_a_caller_s_long_list_runs_in_several_batches_and_comes_back_in_order() -> None:
    worker = Worker()

    async def story() -> Sequence[Any]:
        batcher = batcher_of(worker, max_cost=10)
        answer = await batcher.outcomes([(i, 3) for i in range(100)])
        await batcher.close()
        return answer.outcomes

    assert run(story) == [("done", i) for i in range(100)]
    assert max(map(len, worker.batches)) == 3


def test_above_its_bounds_callers_are_refused_at_once_and_below_taken_again() -> None:
    worker = Worker(gate=threading.Event())

    async def story() -> None:
        batcher = batcher_of(worker, max_items=3, max_cost=8)

        async def caller(items: int) -> Answer[Any]:
            with batcher.room(items):
                return await batcher.outcomes([(i, 4) for i in range(items)])

        with pytest.raises(QueueFull):
            await caller(4)
        held = asyncio.create_task(caller(3))
        await until(worker.begun.is_set)
        with pytest.raises(QueueFull, match="3 items are waiting"):
            await caller(1)
        assert len(worker.batches) == 1
        worker.gate.set()  # type: ignore[union-attr]
        await held
        assert (await caller(3)).outcomes
        await batcher.close()

    run(story)


def test_who_would_wait_too_long_is_refused_but_never_the_first() -> None:
    worker = Worker()

    async def story() -> None:
        batcher = batcher_of(worker, max_cost=4, max_items=4, max_wait_s=1e-9)
        with batcher.room(1):
            await batcher.outcomes([("measured", 4)])
        with batcher.room(3):  # more than half of them, but nobody else is there
            waiting = asyncio.create_task(batcher.outcomes([("x", 4)]))
            await until(lambda: batcher.wait_s > 0)
            with pytest.raises(QueueFull) as refused, batcher.room(1):
                pass
            assert refused.value.wait_s > 0
            await waiting
        await batcher.close()

    run(story)


def test_what_passes_between_batches_counts_as_waiting_but_idleness_does_not() -> None:
    async def wait_of_one_more(batcher: Batcher[Any, Any]) -> float:
        one = asyncio.create_task(batcher.outcomes([("one more", 4)]))
        await until(lambda: batcher.wait_s > 0)
        wait_s = batcher.wait_s
        await one
        return wait_s

    async def story() -> None:
        batcher = batcher_of(Worker(), max_cost=4)
        await batcher.outcomes([("first", 4)])
        assert await wait_of_one_more(batcher) < 1
        batcher.on_batch = lambda items, cost, seconds: time.sleep(0.05)  # the event loop is busy with others
        await batcher.outcomes([(i, 4) for i in range(24)])
        busy = await wait_of_one_more(batcher)
        assert busy > 0.02
        await asyncio.sleep(1.0)
        await batcher.outcomes([("after a while", 4)])
        assert await wait_of_one_more(batcher) < busy
        await batcher.close()

    run(story)


# --- load ------------------------------------------------------------------------------------------------------------

TOKENS = 25  # of a short text


@dataclass
class Machine:
    """A model with a clock of its own: a batch takes what it costs at a speed in tokens/s, and now and then longer."""

    speed: float
    pauses: Sequence[float] = (0.0,)  # before each batch, over and over
    now: float = 0.0
    tokens: int = 0
    batches: int = 0

    def __call__(self, group: Hashable, items: list[Any]) -> list[Any]:
        self.now += self.pauses[self.batches % len(self.pauses)] + TOKENS * len(items) / self.speed
        self.tokens += TOKENS * len(items)
        self.batches += 1
        return items

    def batcher(self) -> Batcher[Any, Any]:
        """With a service's defaults."""
        spec = ServeSpec()
        return Batcher(
            self,
            max_cost=spec.max_batch_tokens,
            max_items=spec.max_queued_texts,
            max_wait_s=spec.max_wait_s,
            side_share=spec.explain_share,
            clock=lambda: self.now,
        )


@dataclass
class Load:
    """Clients that ask again as soon as they are answered or refused."""

    waits: list[float] = field(default_factory=list)
    refused: int = 0
    most: int = 0

    async def run(self, batcher: Batcher[Any, Any], clients: int, texts: int, rounds: int) -> "Load":
        async def client() -> None:
            for _ in range(rounds):
                try:
                    with batcher.room(texts):
                        self.most = max(self.most, batcher.admitted)
                        self.waits.append((await batcher.outcomes([(i, TOKENS) for i in range(texts)])).queue_s)
                except QueueFull:
                    self.refused += 1
                    await asyncio.sleep(0)

        await asyncio.gather(*(client() for _ in range(clients)))
        return self


# As measured on two cores with AVX-512, 20 times slower, and so slow that a text takes 3 s.
SPEEDS = [10_000.0, 500.0, 8.0]


@pytest.mark.parametrize(
    "pauses", [(0.0,), (60.0, *[0.0] * 99), (0.0, 2.0, 0.0, 9.0)], ids=["alone", "first", "shared"]
)
@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize(("clients", "texts"), [(8, 32), (64, 1), (12, 16), (1, 256)])
def test_ordinary_load_is_never_refused_however_slow_the_machine(
    clients: int, texts: int, speed: float, pauses: Sequence[float]
) -> None:
    async def story() -> None:
        batcher = Machine(speed, pauses).batcher()
        load = await Load().run(batcher, clients, texts, rounds=20)
        assert load.refused == 0
        assert len(load.waits) == 20 * clients
        await batcher.close()

    run(story)


@pytest.mark.parametrize("speed", [*SPEEDS, 2000.0])
@pytest.mark.parametrize(("clients", "texts"), [(64, 32), (2000, 1)])
def test_overload_is_bounded_in_texts_and_in_seconds_and_leaves_nothing_behind(
    clients: int, texts: int, speed: float
) -> None:
    async def story() -> None:
        machine, spec = Machine(speed), ServeSpec()
        batcher = machine.batcher()
        await Load().run(batcher, 8, 32, rounds=2)  # by now its speed is known
        load = await Load().run(batcher, clients, texts, rounds=20)
        half_s = spec.max_queued_texts / 2 * TOKENS / speed
        batch_s = spec.max_batch_tokens / speed
        assert load.refused > 0
        assert load.most <= spec.max_queued_texts
        assert max(load.waits) <= max(spec.max_wait_s, half_s) + 2 * batch_s
        # Nothing was idle meanwhile, and what comes after finds a free machine.
        assert machine.tokens / machine.now == pytest.approx(speed)
        assert (batcher.admitted, batcher.waiting_cost) == (0, 0)
        assert (await Load().run(batcher, 8, 32, rounds=5)).refused == 0
        await batcher.close()

    run(story)


@dataclass
class Explaining:
    """Clients that ask for explanations of so many texts each until they are told to stop."""

    texts: int
    going: bool = True
    answered: int = 0
    refused: int = 0
    most: int = 0

    async def run(self, batcher: Batcher[Any, Any], clients: int) -> None:
        async def client() -> None:
            while self.going:
                try:
                    with batcher.side_room(self.texts):
                        self.most = max(self.most, batcher.side_admitted)
                        await batcher.outcomes([(i, TOKENS) for i in range(self.texts)], "explain", aside=True)
                        self.answered += 1
                except QueueFull:
                    self.refused += 1
                    await asyncio.sleep(0)

        await asyncio.gather(*(client() for _ in range(clients)))


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("texts", [20, 101, 400])
@pytest.mark.parametrize(("clients", "each"), [(8, 32), (64, 1), (1, 256), (1, 1)])
def test_a_flood_of_explanations_takes_no_place_and_its_share_of_the_time_from_others(
    clients: int, each: int, texts: int, speed: float
) -> None:
    async def story() -> None:
        spec, alone, beside = ServeSpec(), Machine(speed), Machine(speed)
        batcher = alone.batcher()
        calm = await Load().run(batcher, clients, each, rounds=40)
        await batcher.close()
        batcher, explaining = beside.batcher(), Explaining(texts)
        flood = asyncio.create_task(explaining.run(batcher, 100))
        await until(lambda: bool(explaining.most))
        load = await Load().run(batcher, clients, each, rounds=40)
        explaining.going = False
        others = alone.now / beside.now
        await flood
        # As many are admitted as without them.
        assert (load.refused, calm.refused) == (0, 0)
        # Each waits no longer than for its share, the batch in progress and one more of explanations.
        side_s = (spec.explain_share * spec.max_batch_tokens + TOKENS) / speed
        assert max(load.waits) <= max(calm.waits) / (1 - spec.explain_share) + 2 * side_s
        if clients * each > 64:  # enough texts for the model to be busy with them alone
            assert others == pytest.approx(1 - spec.explain_share, abs=0.06)
        # And explanations have what is theirs: no more in flight, unless one is alone, and some answers.
        assert explaining.most <= max(spec.explain_share * spec.max_queued_texts, texts)
        assert explaining.answered > 0
        assert explaining.refused > 0
        assert (batcher.admitted, batcher.side_admitted, batcher.waiting_cost) == (0, 0, 0)
        await batcher.close()

    run(story)


def test_explanations_are_refused_before_others_are() -> None:
    async def story() -> None:
        batcher = batcher_of(Worker(), max_items=100, side_share=0.2)
        with batcher.room(50), batcher.side_room(90):  # alone, whatever it costs
            with pytest.raises(QueueFull), batcher.side_room(1):
                pass
            with batcher.room(1), pytest.raises(QueueFull):
                batcher.side_room(1).__enter__()
        with batcher.room(51), pytest.raises(QueueFull), batcher.side_room(1):
            pass
        await batcher.close()

    run(story)


def test_explanations_run_whenever_nothing_else_waits() -> None:
    async def story() -> None:
        worker = Worker()
        batcher = batcher_of(worker, max_cost=10, side_share=0.5)
        found = await batcher.outcomes([(i, 1) for i in range(12)], aside=True)
        assert [outcome for _, outcome in found.outcomes] == list(range(12))  # type: ignore[misc]
        assert [len(batch) for batch in worker.batches] == [5, 5, 2]
        await batcher.close()

    run(story)


def test_a_hook_that_fails_wedges_nobody() -> None:
    async def story() -> None:
        batcher = batcher_of(Worker())

        def hook(items: int, cost: int, seconds: float) -> None:
            raise Boom

        batcher.on_batch = hook
        for i in range(3):
            assert (await batcher.outcomes([(i, 1)])).outcomes == [("done", i)]
        await batcher.close()

    run(story)


def test_closing_cancels_who_waits() -> None:
    worker = Worker(gate=threading.Event())

    async def story() -> None:
        batcher = batcher_of(worker)
        first = asyncio.create_task(batcher.outcomes([("first", 1)]))
        await until(worker.begun.is_set)
        second = asyncio.create_task(batcher.outcomes([("second", 1)]))
        await until(lambda: batcher.waiting_cost == 1)
        await batcher.close()
        for caller in (first, second):
            with pytest.raises(asyncio.CancelledError):
                await caller
        worker.gate.set()  # type: ignore[union-attr]

    run(story)
