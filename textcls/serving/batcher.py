"""Items of many callers -> batches of one worker, and each caller's own outcomes back.

In: lists of items with their costs, from coroutines of one event loop. Out: the outcome of each item, in the caller's
order. Not here: what an item is; the batcher knows nothing of HTTP, Ray and models.

The batcher never delays an item to fill a batch (continuous batching). While the worker is busy, items are queued; when
it is free, it takes the first ones in order of arrival, up to a budget of cost. When a caller is cancelled, its queued
items are dropped. When a batch fails, its items are retried one by one, so that only the caller of the bad item gets
the error.

The queue is bounded in items and, beyond half of that bound, in waiting time, estimated at recent throughput. The first
half is admitted on any machine, however slow: it is ordinary load, and a wrong estimate must not reject it.

Side work (explanations, which cost many items each) has a queue of its own. It runs in small batches while nothing else
is queued, and otherwise has at most its share of the worker's cost. Its items take no place in the queue of others.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

# Weight of the newest batch in the estimate of throughput. Under a sudden load throughput halves within seconds; an
# estimate that lags behind admits requests that wait twice as long.
_NEWEST = 0.5


class QueueFull(Exception):
    """The queue is full; the caller may retry later.

    Attributes:
        waiting: items that are queued or being processed.
        wait_s: estimated seconds until these are done.
    """

    def __init__(self, waiting: int, wait_s: float) -> None:
        super().__init__(f"{waiting} items are waiting, which take about {wait_s:.2f} s")
        self.waiting, self.wait_s = waiting, wait_s


@dataclass(eq=False)
class _Call(Generic[Outcome]):
    """One caller and the outcomes that it still waits for."""

    group: Hashable
    outcomes: list[Outcome | Exception | None]
    missing: int
    done: asyncio.Future[None]
    came: float
    began: float | None = None

    def settle(self, place: int, outcome: Outcome | Exception) -> None:
        """Sets the outcome of the item at this index; only the first one counts."""
        if self.outcomes[place] is not None:
            return
        self.outcomes[place] = outcome
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)


@dataclass(frozen=True)
class Answer(Generic[Outcome]):
    """A caller's outcomes.

    Attributes:
        outcomes: of each item, or the exception that the worker raised for this item alone.
        queue_s: seconds from the call until the worker started its first item.
        work_s: seconds from then until its last item was done.
    """

    outcomes: list[Outcome | Exception]
    queue_s: float
    work_s: float


_Entry = tuple[_Call[Outcome], int, Item, int]  # (caller, place among the caller's items, item, cost)


class _Lane(Generic[Item, Outcome]):
    """A queue, and what may run of it at once.

    Attributes:
        max_cost: summed cost of a batch.
        queue: items that no batch has taken yet.
        admitted: items in flight.
        waiting_cost: of the queued items.
    """

    def __init__(self, max_cost: float) -> None:
        self.max_cost = max_cost
        self.queue: deque[_Entry[Outcome, Item]] = deque()
        self.admitted, self.waiting_cost = 0, 0

    @contextmanager
    def admit(self, items: int) -> Iterator[None]:
        """Counts items as in flight for the block."""
        self.admitted += items
        try:
            yield
        finally:
            self.admitted -= items

    def take(self) -> list[_Entry[Outcome, Item]]:
        """The first queued items of one group, up to the budget; items of cancelled callers are dropped."""
        batch: list[_Entry[Outcome, Item]] = []
        spent = 0
        while self.queue:
            call, _, _, cost = self.queue[0]
            if not call.done.done():
                if batch and (spent + cost > self.max_cost or call.group != batch[0][0].group):
                    break
                batch.append(self.queue[0])
                spent += cost
            self.waiting_cost -= cost
            self.queue.popleft()
        return batch


class Batcher(Generic[Item, Outcome]):
    """Runs the items of all callers in batches, on a single thread. For one event loop.

    Args:
        work: makes one outcome of each item of a batch; all items of a batch have the same group.
        max_cost: summed cost of a batch; an item above it runs alone.
        max_items: most items in flight: queued or being processed.
        max_wait_s: estimated waiting time above which callers beyond half of `max_items` are rejected.
        side_share: share of `max_items`, `max_cost` and the worker's cost that side work may have beside others.
        prepare: called on the worker's thread before anything else.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        work: Callable[[Hashable, list[Item]], Sequence[Outcome]],
        *,
        max_cost: int,
        max_items: int,
        max_wait_s: float = math.inf,
        side_share: float = 0.0,
        prepare: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._work, self.max_cost, self.max_items, self.max_wait_s = work, max_cost, max_items, max_wait_s
        self._side_share = side_share
        self._main, self._side = (_Lane[Item, Outcome](cost) for cost in (max_cost, max_cost * side_share))
        self._owed = 0.0  # cost of side work that others have left room for
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batcher", initializer=prepare)
        self._clock = clock
        self._wake = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._cost_per_s = 0.0
        self._free_since = 0.0  # since when the worker has been free to start the queued items
        self._running: tuple[float, int] | None = None  # (start time, cost) of the batch in progress
        self.on_batch: Callable[[int, int, float], None] = lambda items, cost, seconds: None

    @property
    def admitted(self) -> int:
        """Items in flight; those of side work are not counted."""
        return self._main.admitted

    @property
    def waiting_cost(self) -> int:
        """Cost of the queued items; that of side work is not counted."""
        return self._main.waiting_cost

    @property
    def side_admitted(self) -> int:
        """Items of side work in flight."""
        return self._side.admitted

    @property
    def max_side_items(self) -> int:
        """Most items of side work in flight; one caller may have more if it is alone."""
        return int(self.max_items * self._side_share)

    @property
    def wait_s(self) -> float:
        """Estimated seconds until everything admitted is done, at recent throughput, beside the side work queued."""
        running = self._running[1] if self._running else 0
        left = 1 - self._side_share if self._side.queue else 1.0
        return (self.waiting_cost / left + running) / self._cost_per_s if self._cost_per_s else 0.0

    @property
    def busy_s(self) -> float:
        """Seconds since the batch in progress was started; 0 if there is none."""
        return self._clock() - self._running[0] if self._running else 0.0

    @contextmanager
    def room(self, items: int) -> Iterator[None]:
        """Admits a caller with this number of items for the block; the first always, up to `max_items`.

        Raises:
            QueueFull: too many items are in flight, or these would wait too long.
        """
        wait_s, together = self.wait_s, self.admitted + items
        ordinary = not self.admitted or together <= self.max_items // 2
        if together > self.max_items or (wait_s > self.max_wait_s and not ordinary):
            raise QueueFull(self.admitted, wait_s)
        with self._main.admit(items):
            yield

    @contextmanager
    def side_room(self, items: int) -> Iterator[None]:
        """Admits a caller with this number of items of side work for the block; one that is alone always.

        Raises:
            QueueFull: too many items of side work are in flight, or more than half of the room of others is taken.
        """
        side = self._side
        together = side.admitted + items
        if (side.admitted and together > self.max_side_items) or self.admitted > self.max_items // 2:
            speed = self._cost_per_s * self._side_share
            raise QueueFull(side.admitted, side.waiting_cost / speed if speed else self.wait_s)
        with side.admit(items):
            yield

    async def outcomes(
        self, items: Sequence[tuple[Item, int]], group: Hashable = None, *, aside: bool = False
    ) -> Answer[Outcome]:
        """The outcomes of items, which are given with their costs and may run in several batches.

        On cancellation the items that are still queued are dropped.

        Args:
            items: with their costs.
            group: batches hold items of one group.
            aside: whether this is side work, admitted by `side_room`.
        """
        loop = asyncio.get_running_loop()
        call: _Call[Outcome] = _Call(group, [None] * len(items), len(items), loop.create_future(), self._clock())
        if not items:
            return Answer([], 0.0, 0.0)
        lane = self._side if aside else self._main
        lane.queue.extend((call, place, item, cost) for place, (item, cost) in enumerate(items))
        lane.waiting_cost += sum(cost for _, cost in items)
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = loop.create_task(self._serve())
        self._wake.set()
        await call.done
        found = [outcome for outcome in call.outcomes if outcome is not None]
        began = call.came if call.began is None else call.began
        return Answer(found, began - call.came, self._clock() - began)

    async def close(self) -> None:
        """Stops the worker and cancels the queued items."""
        if self._loop_task is not None:
            self._loop_task.cancel()
        for lane in (self._main, self._side):
            for call, *_ in lane.queue:
                call.done.cancel()
            lane.queue.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _serve(self) -> None:
        self._free_since = self._clock()
        while True:
            if not (self._main.queue or self._side.queue):
                self._wake.clear()
                await self._wake.wait()
                self._free_since = self._clock()
            # One iteration of the event loop: requests that have already arrived get into this batch.
            await asyncio.sleep(0)
            batch = self._take()
            try:
                if batch:
                    await self._run(batch)
            except Exception as error:  # a bug, or a failing hook: the callers must not wait forever
                for call, place, _, _ in batch:
                    call.settle(place, error)
            except asyncio.CancelledError:
                for call, *_ in batch:
                    call.done.cancel()
                raise

    def _take(self) -> list[_Entry[Outcome, Item]]:
        """The next batch: of side work if nothing else is queued, or if it has not had its share."""
        side = self._side
        if side.queue and (not self._main.queue or self._owed >= side.max_cost):
            batch = side.take()
            if self._main.queue:
                self._owed -= sum(cost for *_, cost in batch)
            return batch
        batch = self._main.take()
        # Nothing is saved up while no side work waits.
        earned = sum(cost for *_, cost in batch) * self._side_share / (1 - self._side_share)
        self._owed = self._owed + earned if side.queue else 0.0
        return batch

    async def _run(self, batch: list[_Entry[Outcome, Item]]) -> None:
        began, cost = self._clock(), sum(entry[3] for entry in batch)
        for call, *_ in batch:
            call.began = began if call.began is None else call.began
        self._running = (began, cost)
        try:
            outcomes = await self._outcomes_of(batch)
        finally:
            self._running = None
        ended = self._clock()
        for (call, place, _, _), outcome in zip(batch, outcomes, strict=True):
            call.settle(place, outcome)
        # Only from large batches: the time of a small one is mostly overhead.
        if 2 * cost >= self.max_cost and ended > self._free_since:
            # Includes the time until the busy event loop started the batch: queued items wait for that, too.
            cost_per_s = cost / (ended - self._free_since)
            self._cost_per_s += (cost_per_s - self._cost_per_s) * (_NEWEST if self._cost_per_s else 1.0)
        self._free_since = ended
        self.on_batch(len(batch), cost, ended - began)

    async def _outcomes_of(self, batch: list[_Entry[Outcome, Item]]) -> Sequence[Outcome | Exception]:
        run, group = asyncio.get_running_loop().run_in_executor, batch[0][0].group
        try:
            return _one_each(await run(self._thread, self._work, group, [entry[2] for entry in batch]), len(batch))
        except Exception as error:
            if len(batch) == 1:
                return [error]
        outcomes: list[Outcome | Exception] = []
        for entry in batch:
            outcomes += await self._outcomes_of([entry])
        return outcomes


def _one_each(outcomes: Sequence[Outcome], items: int) -> Sequence[Outcome]:
    """The outcomes, if there is one for each item; otherwise they cannot be assigned to items."""
    if len(outcomes) != items or any(outcome is None for outcome in outcomes):
        raise RuntimeError(f"the worker made {len(outcomes)} outcomes of {items} items")
    return outcomes
