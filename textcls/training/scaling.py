"""How many workers train and on what, and when an attempt should stop for the sake of other workers.

In: what the recipe asks for, what the cluster has. Out: `TrainingWorkers`, or why the cluster can hold none; a
`StopReason` on preemption and for rescaling. Not here: starting workers (attempts.py), what they do (worker.py).
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from textcls.errors import RecipeError
from textcls.modeling.precision import bf16_support, refuse_bf16_without_support
from textcls.on_ray import internals
from textcls.on_ray.session import own_node
from textcls.settings.scale import ScaleSpec

# How long an elastic run waits for room for all its workers: Ray frees the CPUs of the last attempt with a delay.
_FREE_AGAIN_S = 5.0
# The same where it is known that there is room: on a busy machine Ray takes longer.
_KNOWN_ROOM_S = 60.0
# How often the cluster is asked about its nodes.
_ASK_EVERY_S = 2.0
# How long a node may take to import torch and report what its processor can multiply.
_SUPPORT_ANSWER_S = 60.0


@dataclass(frozen=True)
class TrainingWorkers:
    """How a run is spread out.

    Attributes:
        count: training processes; of elastic ones, the most.
        use_gpu: one GPU each.
        cpus: CPUs, and threads, of each.
        min_count: the fewest that may train, if they are elastic.
    """

    count: int
    use_gpu: bool
    cpus: int
    min_count: int | None = None

    def __str__(self) -> str:
        each = "a GPU" if self.use_gpu else f"{self.cpus} CPU" + ("s" if self.cpus != 1 else "")
        number = f"{self.count:,}" if self.min_count is None else f"{self.min_count:,} to {self.count:,}"
        return f"{number} worker" + (f"s with {each} each" if self.count > 1 else f" with {each}")

    @property
    def resources(self) -> dict[str, int]:
        """What Ray reserves for each worker."""
        return {"CPU": self.cpus} | ({"GPU": 1} if self.use_gpu else {})


def plan_training_workers(scale: ScaleSpec) -> TrainingWorkers:
    """Settles every `auto` by what the cluster has now.

    On CPUs one process with all threads of a node: several would exchange every gradient through memory
    (jobs/bench/workers.py compares the two on a machine).

    Raises:
        RecipeError: the cluster can never satisfy the request, not even with the nodes that its autoscaler may start.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    node_cpus = max(int(node.get("CPU", 0)) for node in nodes)
    use_gpu = gpus > 0 if scale.use_gpu == "auto" else scale.use_gpu
    if scale.workers == "auto":
        least = most = max(gpus, 1) if use_gpu else 1
    else:
        least, most = scale.workers if isinstance(scale.workers, tuple) else (scale.workers, scale.workers)
    if scale.cpus_per_worker != "auto":
        cpus = scale.cpus_per_worker
    elif use_gpu:
        cpus = 1
    else:
        cpus = max(1, min(node_cpus, sum(int(node.get("CPU", 0)) for node in nodes) // least))
    workers = TrainingWorkers(most, use_gpu, cpus, least if isinstance(scale.workers, tuple) else None)
    fitting = sum(_fitting(workers, node) for node in nodes)
    if least > fitting and not _may_grow(workers, least):
        if fitting:
            fewer = f"--set scale.workers={fitting}"
        else:
            fewer = "--set scale.use_gpu=false" if use_gpu else f"--set scale.cpus_per_worker={node_cpus}"
        exists = ", ".join(f"{int(node.get('CPU', 0))} CPUs and {int(node.get('GPU', 0))} GPUs" for node in nodes)
        raise RecipeError(
            f"the recipe asks for {workers}; the cluster's nodes have {exists}",
            expected=f"at most {fitting} such workers",
            todo=f"{fewer}, or add nodes",
        )
    return workers


def runs_at_once(scale: ScaleSpec, runs: int) -> tuple[ScaleSpec, int]:
    """How several runs of the same size share the cluster: the `scale` of each, and how many fit side by side.

    `scale.workers: auto` would give every run all GPUs. Of several GPUs each run gets an equal part instead, since runs
    side by side exchange no gradients: 5 runs on 4 or on 8 GPUs have one each, 2 runs on 8 GPUs have four each. The
    number depends on all runs, not on those that are left, so that a resumed run has the same.

    Args:
        scale: of each run alone.
        runs: their number.

    Raises:
        RecipeError: see `plan_training_workers`.
    """
    workers = plan_training_workers(scale)
    if scale.workers == "auto" and workers.count > 1:
        scale = scale.model_copy(update={"workers": max(1, workers.count // runs)})
        workers = plan_training_workers(scale)
    fitting = sum(_fitting(workers, node["Resources"]) for node in ray.nodes() if node["Alive"])
    return scale, max(1, min(runs, fitting // workers.count))


def refuse_unsupported_precision(precision: str, workers: TrainingWorkers) -> None:
    """Refuses bf16 before any row is read, if a node that may hold a CPU worker cannot multiply it.

    Each node is asked itself: the driver's processor may be another one. A node that starts later, or does not answer,
    and a GPU are asked by the worker.

    Raises:
        RecipeError: a node cannot.
    """
    if precision != "bf16" or workers.use_gpu:
        return
    here = own_node()
    nodes = [node for node in ray.nodes() if node["Alive"] and _fitting(workers, node["Resources"])]
    if any(node["NodeID"] == here for node in nodes):
        refuse_bf16_without_support(precision, bf16_support(torch.device("cpu")))
    asked = {
        _processor_support.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(): node["NodeManagerAddress"]
        for node in nodes
        if node["NodeID"] != here
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_SUPPORT_ANSWER_S) if asked else ([], [])
    for answer in answered:
        try:
            support = ray.get(answer)
        except ray.exceptions.RayError:  # the node is gone
            continue
        refuse_bf16_without_support(precision, support, f"the processor of node {asked[answer]}")


@ray.remote(num_cpus=0, max_retries=0)
def _processor_support() -> str:
    return bf16_support(torch.device("cpu"))


def available_workers(planned: TrainingWorkers, known: int = 0) -> TrainingWorkers:
    """The workers of the next attempt: of elastic ones as many as there is room for now, and at least `min_count`.

    Args:
        planned: what the recipe asks for.
        known: how many fitted when the last attempt was stopped, see `StopReason`.
    """
    if planned.min_count is None:
        return planned
    started = time.monotonic()
    while (room := _room(planned)) < planned.count:
        if time.monotonic() - started >= (_KNOWN_ROOM_S if room < known else _FREE_AGAIN_S):
            break
        time.sleep(_FREE_AGAIN_S / 10)  # the cluster offers no notification
    return replace(planned, count=max(planned.min_count, min(planned.count, room)), min_count=None)


@dataclass(frozen=True)
class StopReason:
    """Why an attempt should stop, so that other workers resume from its checkpoint.

    Attributes:
        event: `preempted` or `rescaled`.
        message: for the user.
        workers: how many workers fit, those that train included; 0 if it is not known.
    """

    event: str
    message: str
    workers: int = 0


class RescalePolicy:
    """Decides when the workers of an attempt should stop: before their nodes go away, or when more workers fit.

    Args:
        planned: what the recipe asks for.
        current: the workers that train.
        stable_s: how long more workers must have fitted before the run is rescaled.
    """

    def __init__(self, planned: TrainingWorkers, current: TrainingWorkers, stable_s: float) -> None:
        self._planned, self._current, self._stable_s = planned, current, stable_s
        self._asked_at = self._full_at = time.monotonic()

    def stop_reason(self, nodes: Collection[str]) -> StopReason | None:
        """Why the workers should stop now; None if they should go on. Asks the cluster at most every 2 s.

        Args:
            nodes: ids of the nodes on which the workers run.
        """
        now = time.monotonic()
        if now - self._asked_at < _ASK_EVERY_S:
            return None
        self._asked_at = now
        if draining := internals.draining_nodes().intersection(nodes):
            nodes_are = f"{len(draining)} nodes of the workers are" if len(draining) > 1 else "a node of the workers is"
            return StopReason("preempted", f"{nodes_are} being drained")
        if self._planned.min_count is None or self._current.count >= self._planned.count:
            return None
        if not (room := _room(self._planned)):
            self._full_at = now
            return None
        if now - self._full_at < self._stable_s:
            return None
        return StopReason("rescaled", "more workers fit", min(self._planned.count, self._current.count + room))


def _fitting(workers: TrainingWorkers, node: Mapping[str, float]) -> int:
    """How many of the workers a node can hold."""
    by_cpu = int(node.get("CPU", 0) // workers.cpus)
    return min(by_cpu, int(node.get("GPU", 0))) if workers.use_gpu else by_cpu


def _room(workers: TrainingWorkers) -> int:
    """How many more of the workers the cluster could hold now."""
    free, draining = internals.free_resources(), internals.draining_nodes()
    return sum(_fitting(workers, node) for node_id, node in free.items() if node_id not in draining)


def _may_grow(workers: TrainingWorkers, count: int) -> bool:
    """Whether the cluster has an autoscaler that may start enough nodes for so many."""
    most = internals.max_resources()
    return all(number * count <= most.get(name, 0) for name, number in workers.resources.items())
