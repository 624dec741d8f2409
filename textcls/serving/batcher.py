"""Items of many callers -> batches of one worker, and each caller's own outcomes back.

In: lists of items with their costs, from coroutines of one event loop. Out: the outcome of each item, in the caller's
order. Not here: what an item is; the batcher knows nothing of HTTP, Ray and models.

The batcher never delays an item to fill a batch (continuous batching). While the worker is busy, items are queued; when
it is free, it takes the first ones in order of arrival, up to a budget of cost. When a caller is cancelled, its queued
items are dropped. When a batch fails, its items are retried one by one, so that only the caller of the bad item gets
the error.

The queue is bounded in items and, beyond half of that bound, in waiting time, estimated at recent throughput. The first
half is admitted on any machine, however slow: it is ordinary load, and a wrong estimate must not reject it.
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


class Batcher(Generic[Item, Outcome]):
    """Runs the items of all callers in batches, on a single thread. For one event loop.

    Args:
        work: makes one outcome of each item of a batch; all items of a batch have the same group.
        max_cost: summed cost of a batch; an item above it runs alone.
        max_items: most items in flight: queued or being processed.
        max_wait_s: estimated waiting time above which callers beyond half of `max_items` are rejected.
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
        prepare: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._work, self.max_cost, self.max_items, self.max_wait_s = work, max_cost, max_items, max_wait_s
        self._queue: deque[_Entry[Outcome, Item]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batcher", initializer=prepare)
        self._clock = clock
        self._wake = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._cost_per_s = 0.0
        self._free_since = 0.0  # since when the worker has been free to start the queued items
        self._running: tuple[float, int] | None = None  # (start time, cost) of the batch in progress
        self.admitted, self.waiting_cost = 0, 0
        self.on_batch: Callable[[int, int, float], None] = lambda items, cost, seconds: None

    @property
    def wait_s(self) -> float:
        """Estimated seconds until everything admitted is done, at recent throughput."""
        running = self._running[1] if self._running else 0
        return (self.waiting_cost + running) / self._cost_per_s if self._cost_per_s else 0.0

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
        self.admitted += items
        try:
            yield
        finally:
            self.admitted -= items

    async def outcomes(self, items: Sequence[tuple[Item, int]], group: Hashable = None) -> Answer[Outcome]:
        """The outcomes of items, which are given with their costs and may run in several batches.

        On cancellation the items that are still queued are dropped.
        """
        loop = asyncio.get_running_loop()
        call: _Call[Outcome] = _Call(group, [None] * len(items), len(items), loop.create_future(), self._clock())
        if not items:
            return Answer([], 0.0, 0.0)
        self._queue.extend((call, place, item, cost) for place, (item, cost) in enumerate(items))
        self.waiting_cost += sum(cost for _, cost in items)
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
        for call, *_ in self._queue:
            call.done.cancel()
        self._queue.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _serve(self) -> None:
        self._free_since = self._clock()
        while True:
            if not self._queue:
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
        """The first queued items of one group, up to the budget; items of cancelled callers are dropped."""
        batch: list[_Entry[Outcome, Item]] = []
        spent = 0
        while self._queue:
            call, _, _, cost = self._queue[0]
            if not call.done.done():
                if batch and (spent + cost > self.max_cost or call.group != batch[0][0].group):
                    break
                batch.append(self._queue[0])
                spent += cost
            self.waiting_cost -= cost
            self._queue.popleft()
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
