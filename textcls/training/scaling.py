"""How many workers train and on what, and when others should take over.

In: what the recipe asks for, what the cluster has. Out: `Workers`, or why none can do it, and the reason to regroup.
Not here: starting them (attempts.py), what they do (loop.py).
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
from textcls.settings.recipe import ScaleSpec

# How long elastic workers wait for the most that may train: what has just ended still has to give its CPUs back.
_GATHER_S = 5.0
# How often the cluster is asked about its nodes.
_LOOK_EVERY_S = 2.0
# How long a node may take to import torch and tell what its processor multiplies.
_PROCESSOR_TOLD_S = 60.0


@dataclass(frozen=True)
class Workers:
    """How a run is spread out.

    Attributes:
        count: training processes; of elastic ones, the most.
        use_gpu: one GPU each.
        cpus: CPUs, and threads, of each.
        least: the fewest that may train, if they are elastic.
    """

    count: int
    use_gpu: bool
    cpus: int
    least: int | None = None

    def __str__(self) -> str:
        each = "a GPU" if self.use_gpu else f"{self.cpus} CPU" + ("s" if self.cpus != 1 else "")
        number = f"{self.count:,}" if self.least is None else f"{self.least:,} to {self.count:,}"
        return f"{number} worker" + (f"s with {each} each" if self.count > 1 else f" with {each}")

    @property
    def bundle(self) -> dict[str, int]:
        """What Ray reserves for each."""
        return {"CPU": self.cpus} | ({"GPU": 1} if self.use_gpu else {})


def plan_workers(scale: ScaleSpec) -> Workers:
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
    workers = Workers(most, use_gpu, cpus, least if isinstance(scale.workers, tuple) else None)
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


def refuse_unsupported_precision(precision: str, workers: Workers) -> None:
    """Refuses bf16 before any row is read, if a node that may hold a CPU worker cannot multiply it.

    Each node is asked itself: the driver's processor may be another one. A node that starts later, or does not answer,
    and a GPU are asked by the worker.

    Raises:
        RecipeError: a node cannot.
    """
    if precision != "bf16" or workers.use_gpu:
        return
    here = _own_node()
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
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_PROCESSOR_TOLD_S) if asked else ([], [])
    for answer in answered:
        try:
            support = ray.get(answer)
        except ray.exceptions.RayError:  # the node is gone
            continue
        refuse_bf16_without_support(precision, support, f"the processor of node {asked[answer]}")


def _own_node() -> str:
    """Id of the node that this process runs on."""
    return str(ray.get_runtime_context().get_node_id())


@ray.remote(num_cpus=0, max_retries=0)
def _processor_support() -> str:
    return bf16_support(torch.device("cpu"))


def gathered(workers: Workers) -> Workers:
    """Those that train next: as many of elastic workers as there is room for now, and never less than the least."""
    if workers.least is None:
        return workers
    until = time.monotonic() + _GATHER_S
    while (room := _room(workers)) < workers.count and time.monotonic() < until:
        time.sleep(_GATHER_S / 10)  # the cluster has no notice of it
    return replace(workers, count=max(workers.least, min(workers.count, room)), least=None)


class Lookout:
    """Tells when the workers of an attempt should make way for others.

    Args:
        asked: what the recipe asks for.
        now: those that train.
        settled_s: how long there must be room for more before it is used.
    """

    def __init__(self, asked: Workers, now: Workers, settled_s: float) -> None:
        self._asked, self._now, self._settled_s = asked, now, settled_s
        self._looked = self._room_since = time.monotonic()

    def reason(self, nodes: Collection[str]) -> str:
        """Why to make way, or "".

        Args:
            nodes: ids of the nodes on which the workers run.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return ""
        self._looked = now
        if draining := internals.draining_nodes().intersection(nodes):
            return f"{len(draining)} of the workers' nodes will be taken away"
        if self._asked.least is None or self._now.count >= self._asked.count or not _room(self._asked):
            self._room_since = now
            return ""
        return "there is room for more workers" if now - self._room_since >= self._settled_s else ""


def _fitting(workers: Workers, node: Mapping[str, float]) -> int:
    """How many of the workers a node can hold."""
    by_cpu = int(node.get("CPU", 0) // workers.cpus)
    return min(by_cpu, int(node.get("GPU", 0))) if workers.use_gpu else by_cpu


def _room(workers: Workers) -> int:
    """How many more of the workers the cluster could hold now."""
    free, draining = internals.free_resources(), internals.draining_nodes()
    return sum(_fitting(workers, node) for node_id, node in free.items() if node_id not in draining)


def _may_grow(workers: Workers, count: int) -> bool:
    """Whether the cluster has an autoscaler that may start enough nodes for so many."""
    most = internals.most_resources()
    return all(number * count <= most.get(name, 0) for name, number in workers.bundle.items())
