"""Work spread over processes that each hold a classifier.

In: a bundle, work, and the items to do it on. Out: the result of each item, as soon as it is there, and on the way how
many rows are done. A process that dies is replaced and its item done again. Not here: what the work is (evaluate.py,
predict.py), how texts are scored (classifier.py).
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError

from textcls.errors import RecipeError, ScoringError
from textcls.inference.classifier import Classifier
from textcls.settings.recipe import ScaleSpec

# On a GPU's side: one to feed it, the others to read and tokenize.
_CPUS_BESIDE_GPU = 4

Item = TypeVar("Item")

Work = Callable[[Classifier, Any], Generator[int, None, Any]]
"""Does an item: yields how many rows were done since it last did, returns the item's result. It must pickle."""


@dataclass(frozen=True)
class Workers:
    """How scoring is spread out.

    Attributes:
        count: processes.
        use_gpu: one GPU each.
        cpus: CPUs, and threads, of each.
        max_failures: so many may die before scoring is given up.
    """

    count: int
    use_gpu: bool
    cpus: int
    max_failures: int

    def __str__(self) -> str:
        each = "a GPU" if self.use_gpu else f"{self.cpus} CPU" + ("s" if self.cpus > 1 else "")
        return f"{self.count} worker" + (f"s with {each} each" if self.count > 1 else f" with {each}")


def plan_workers(scale: ScaleSpec, *, items: int) -> Workers:
    """Settles every `auto` by what the cluster has now.

    Args:
        scale: what is asked for.
        items: units of work; more processes than that have nothing to do.

    Raises:
        RecipeError: the cluster can never satisfy the request.
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
    asked = scale.most_workers
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
    return Workers(max(1, min(count, items)), use_gpu, cpus, scale.max_failures)


def _fewer(room: int, use_gpu: bool, most_cpus: int) -> str:
    """The --set that asks for no more than there is."""
    if room:
        return f"--set scale.workers={room}"
    return "--set scale.use_gpu=false" if use_gpu else f"--set scale.cpus_per_worker={most_cpus}"


def run_on_workers(
    work: Work, items: Sequence[Any], workers: Workers, bundle_uri: str, *, on_rows: Callable[[int], None]
) -> Iterator[tuple[int, Any]]:
    """(position, result) of each item, in the order in which they are done.

    Args:
        work: what is done on each item.
        items: an object reference among them reaches the work as what it refers to.
        workers: from `plan_workers`.
        bundle_uri: what each process loads.
        on_rows: told how many more rows are done; less than 0 if some have to be done again.

    Raises:
        ScoringError: processes died more often than `max_failures` allows.
        TextclsError: whatever the work raises.
    """

    hired: list[Any] = []

    def start() -> Any:
        hired.append(
            ray.remote(_Worker)
            .options(num_cpus=workers.cpus, num_gpus=int(workers.use_gpu), scheduling_strategy="SPREAD")
            .remote(bundle_uri, workers)
        )
        return hired[-1]

    waiting, failures = deque(range(len(items))), 0
    busy: dict[Any, _Assignment] = {}
    try:
        idle = [start() for _ in range(min(workers.count, len(items)))]
        while waiting or busy:
            while waiting and idle:
                worker, position = idle.pop(), waiting.popleft()
                busy[worker.run.remote(work, items[position])] = _Assignment(worker, position)
            ready, _ = ray.wait(list(busy), num_returns=1, fetch_local=False)
            assigned = busy[ready[0]]
            try:
                rows, is_done, result = ray.get(next(ready[0]))
            except RayActorError as error:
                failures += 1
                if failures > workers.max_failures:
                    raise _given_up(error, workers) from error
                del busy[ready[0]]
                on_rows(-assigned.rows)
                waiting.appendleft(assigned.position)
                idle.append(start())
                continue
            assigned.rows += rows
            on_rows(rows)
            if is_done:
                del busy[ready[0]]
                idle.append(assigned.worker)
                yield assigned.position, result
    finally:
        # Not left to the last reference: an error's traceback holds one, and with it their CPUs.
        if ray.is_initialized():
            for worker in hired:
                ray.kill(worker)


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; the next one is made in a thread while one is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        upcoming = thread.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, items, None)
            yield item


@dataclass
class _Assignment:
    """An item in a worker's hands.

    Attributes:
        worker: handle of the actor.
        position: the item's.
        rows: rows of it that are done.
    """

    worker: Any
    position: int
    rows: int = 0


class _Worker:
    """An actor that holds a classifier.

    It is loaded with the first item: what a constructor raises reaches the driver as text alone.
    """

    def __init__(self, bundle_uri: str, workers: Workers) -> None:
        # Read when the tokenizer first runs; left alone it takes a thread for each of the machine's cores.
        os.environ["RAYON_NUM_THREADS"] = str(workers.cpus)
        self._uri, self._workers = bundle_uri, workers
        self._classifier: Classifier | None = None

    def run(self, work: Work, item: Any) -> Iterator[tuple[int, bool, Any]]:
        """(rows done since the last, whether that was all, result of the item) again and again."""
        if self._classifier is None:
            device = "cuda" if self._workers.use_gpu else "cpu"
            self._classifier = Classifier.load(self._uri, device=device, threads=self._workers.cpus)
        steps = work(self._classifier, item)
        while True:
            try:
                rows = next(steps)
            except StopIteration as end:
                yield 0, True, end.value
                return
            yield rows, False, None


def _given_up(error: Exception, workers: Workers) -> ScoringError:
    last_line = str(error).strip().rpartition("\n")[2].strip() or type(error).__name__
    return ScoringError(
        f"scoring processes died more than {workers.max_failures} times: {last_line}",
        todo="is there enough memory? lower scale.workers; the same command goes on once the cause is gone",
    )
