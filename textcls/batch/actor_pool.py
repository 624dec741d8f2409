"""A pool of Ray actors that each hold a classifier.

In: a bundle, a function and the items to call it on. Out: the result of each item as soon as it is there, and progress
in rows. An actor that dies is replaced and its item recomputed. Not here: the function (evaluate.py, predict.py), how
texts are scored (classifier.py).
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError

from textcls.bundle import Bundle, load_bundle
from textcls.data.masked_messages import masked_errors
from textcls.errors import RecipeError, ScoringError
from textcls.inference.classifier import Classifier
from textcls.settings.recipe import TextSpec
from textcls.settings.scale import ScaleSpec
from textcls.tasks.registry import register
from textcls.tasks.task import Task

# For each GPU: one to feed it, the others to read and tokenize.
_CPUS_BESIDE_GPU = 4

Item = TypeVar("Item")

Work = Callable[[Classifier, Any], Generator[int, None, Any]]
"""Processes an item: yields how many rows it has done since the last yield, returns the item's result. Picklable."""


@dataclass(frozen=True)
class PoolSize:
    """The size of the pool.

    Attributes:
        count: actors.
        use_gpu: whether each has a GPU.
        cpus: CPUs, and threads, of each.
        max_failures: how many actors may die before the job fails.
    """

    count: int
    use_gpu: bool
    cpus: int
    max_failures: int

    def __str__(self) -> str:
        each = "a GPU" if self.use_gpu else f"{self.cpus} CPU" + ("s" if self.cpus > 1 else "")
        return f"{self.count} worker" + (f"s with {each} each" if self.count > 1 else f" with {each}")


def plan_pool(scale: ScaleSpec, *, items: int) -> PoolSize:
    """Resolves every `auto` from the resources that the cluster has now.

    Args:
        scale: the settings.
        items: number of items; more actors than items would be idle.

    Raises:
        RecipeError: the cluster does not have the resources that the settings ask for.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    use_gpu = gpus > 0 if scale.use_gpu == "auto" else scale.use_gpu
    node_cpus = [int(node.get("CPU", 0)) for node in nodes]
    if scale.cpus_per_worker != "auto":
        cpus = scale.cpus_per_worker
    elif use_gpu:
        cpus = max(1, min(_CPUS_BESIDE_GPU, sum(node_cpus) // max(gpus, 1)))
    else:
        cpus = max(node_cpus)
    room = gpus if use_gpu else sum(n // cpus for n in node_cpus)
    asked = scale.max_workers
    if asked and asked > room and scale.cpus_per_worker == "auto" and not use_gpu:
        cpus = max(1, sum(node_cpus) // asked)
        room = sum(n // cpus for n in node_cpus)
    count = room if asked is None else asked
    if isinstance(scale.workers, tuple):
        count = max(scale.workers[0], min(count, room))
    if count > room or count == 0:
        raise RecipeError(
            f"{max(count, 1)} workers with {'a GPU' if use_gpu else f'{cpus} CPUs'} each: the cluster has "
            f"{gpus} GPUs and {sum(node_cpus)} CPUs, at most {max(node_cpus)} on one node",
            todo=f"{_fewer(room, use_gpu, max(node_cpus))}, or add nodes",
        )
    return PoolSize(max(1, min(count, items)), use_gpu, cpus, scale.max_failures)


def _fewer(room: int, use_gpu: bool, max_cpus: int) -> str:
    """The --set that asks for no more than the cluster has."""
    if room:
        return f"--set scale.workers={room}"
    return "--set scale.use_gpu=false" if use_gpu else f"--set scale.cpus_per_worker={max_cpus}"


def run_on_pool(
    work: Work, items: Sequence[Any], size: PoolSize, bundle: Bundle, *, on_rows: Callable[[int], None]
) -> Iterator[tuple[int, Any]]:
    """Yields (position, result) of each item, in the order in which they finish.

    Args:
        work: called on each item.
        items: Ray resolves object references among them before the call.
        size: from `plan_pool`.
        bundle: each actor loads its files, and scores with its text settings.
        on_rows: called with the number of rows done since the last call; negative if rows have to be recomputed.

    Raises:
        ScoringError: actors died more often than `max_failures` allows.
        TextclsError: raised by the work.
    """
    actors: list[Any] = []

    def start() -> Any:
        actors.append(
            ray.remote(_ScoringActor)
            .options(num_cpus=size.cpus, num_gpus=int(size.use_gpu), scheduling_strategy="SPREAD")
            .remote(bundle.uri, bundle.task, bundle.manifest.text, size, bundle.identity_file)
        )
        return actors[-1]

    waiting, failures = deque(range(len(items))), 0
    busy: dict[Any, _Assignment] = {}
    try:
        idle = [start() for _ in range(min(size.count, len(items)))]
        while waiting or busy:
            while waiting and idle:
                actor, position = idle.pop(), waiting.popleft()
                busy[actor.run.remote(work, items[position])] = _Assignment(actor, position)
            ready, _ = ray.wait(list(busy), num_returns=1, fetch_local=False)
            assigned = busy[ready[0]]
            try:
                rows, is_done, result = ray.get(next(ready[0]))
            except RayActorError as error:
                failures += 1
                if failures > size.max_failures:
                    raise _given_up(error, size) from error
                del busy[ready[0]]
                on_rows(-assigned.rows)
                waiting.appendleft(assigned.position)
                idle.append(start())
                continue
            assigned.rows += rows
            on_rows(rows)
            if is_done:
                del busy[ready[0]]
                idle.append(assigned.actor)
                yield assigned.position, result
    finally:
        # Not left to garbage collection: the traceback of an error holds references, and so the CPUs of the actors.
        if ray.is_initialized():
            for actor in actors:
                ray.kill(actor)


def prefetched(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, prefetched: a thread computes the next item while the caller uses the current one."""
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        upcoming = thread.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, items, None)
            yield item


@dataclass
class _Assignment:
    """An in-flight item.

    Attributes:
        actor: handle of the actor that processes it.
        position: of the item.
        rows: rows of it that are done.
    """

    actor: Any
    position: int
    rows: int = 0


class _ScoringActor:
    """An actor that holds a classifier.

    The classifier is loaded with the first item, not in the constructor: Ray turns an error of a constructor into text,
    and the driver needs its type.
    """

    def __init__(self, bundle_uri: str, task: Task, text: TextSpec, size: PoolSize, identity_file: str) -> None:
        # The tokenizer reads it when it first runs. By default it starts a thread for each core of the machine.
        os.environ["RAYON_NUM_THREADS"] = str(size.cpus)
        register(task)  # a task from outside this package is registered in the driver alone
        self._uri, self._text, self._size, self._identity_file = bundle_uri, text, size, identity_file
        self._classifier: Classifier | None = None

    def run(self, work: Work, item: Any) -> Iterator[tuple[int, bool, Any]]:
        """Yields (rows done since the last yield, whether the item is finished, result of the item)."""
        if self._classifier is None:
            device = "cuda" if self._size.use_gpu else "cpu"
            bundle = load_bundle(self._uri, identity_file=self._identity_file).with_text(self._text)
            self._classifier = Classifier.of(bundle, device=device, threads=self._size.cpus)
        steps = work(self._classifier, item)
        while True:
            try:
                with masked_errors(self._text):
                    rows = next(steps)
            except StopIteration as end:
                yield 0, True, end.value
                return
            yield rows, False, None


def _given_up(error: Exception, size: PoolSize) -> ScoringError:
    last_line = str(error).strip().rpartition("\n")[2].strip() or type(error).__name__
    return ScoringError(
        f"scoring workers died more than {size.max_failures} times: {last_line}",
        todo="is there enough memory? lower scale.workers; once the cause is fixed, the same command continues",
    )
