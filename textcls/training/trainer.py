"""Workers for a `WorkerTask`: how many, on what, restarted when they die; then the best checkpoint as a bundle.

In: prepared data and a run's directory. Out: a `TrainOutcome`, and a published bundle. Not here: the loop (worker.py).
"""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from safetensors.numpy import load_file, save_file

from textcls import storage
from textcls.bundle import Manifest, write_bundle
from textcls.data.pipeline import PreparedData
from textcls.errors import InputError, RecipeError, TextclsError, TrainingError, own_error
from textcls.recipe import Recipe, ScaleSpec
from textcls.text import TokenizerFiles
from textcls.training import checkpoint
from textcls.training.events import Event, Journal
from textcls.training.progress_display import Board, shown
from textcls.training.run_dir import RunDir
from textcls.training.worker import TrainOutcome, WorkerTask, train_worker


@dataclass(frozen=True)
class Workers:
    """How a run is spread out.

    Attributes:
        count: training processes.
        use_gpu: one GPU each.
        cpus: CPUs, and threads, of each.
    """

    count: int
    use_gpu: bool
    cpus: int

    def __str__(self) -> str:
        each = "a GPU" if self.use_gpu else f"{self.cpus} CPU" + ("s" if self.cpus != 1 else "")
        return f"{self.count:,} worker" + (f"s with {each} each" if self.count > 1 else f" with {each}")


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
    count = scale.workers if scale.workers != "auto" else max(gpus, 1) if use_gpu else 1
    if scale.cpus_per_worker != "auto":
        cpus = scale.cpus_per_worker
    elif use_gpu:
        cpus = 1
    else:
        cpus = max(1, min(node_cpus, sum(int(node.get("CPU", 0)) for node in nodes) // count))
    workers = Workers(count, use_gpu, cpus)
    fitting = sum(_fitting(workers, node) for node in nodes)
    if count > fitting and not _may_grow(workers):
        exists = ", ".join(f"{int(node.get('CPU', 0))} CPUs and {int(node.get('GPU', 0))} GPUs" for node in nodes)
        raise RecipeError(
            f"the recipe asks for {workers}; the cluster's nodes have {exists}",
            expected=f"at most {fitting} such workers",
            todo="lower scale.workers or scale.cpus_per_worker, --set scale.use_gpu=false, or add nodes",
        )
    return workers


def _fitting(workers: Workers, node: Mapping[str, float]) -> int:
    """How many of the workers a node can hold."""
    by_cpu = int(node.get("CPU", 0) // workers.cpus)
    return min(by_cpu, int(node.get("GPU", 0))) if workers.use_gpu else by_cpu


def _may_grow(workers: Workers) -> bool:
    """Whether the cluster has an autoscaler that may start enough nodes."""
    # What Ray Train itself asks; there is no public name for it.
    most = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    asked = {"CPU": workers.cpus * workers.count} | ({"GPU": workers.count} if workers.use_gpu else {})
    return all(number <= most.get(name, 0) for name, number in asked.items())


def fit(
    recipe: Recipe,
    prepared: PreparedData,
    tokenizer: TokenizerFiles,
    run: RunDir,
    workers: Workers,
    say: Callable[[str], None],
    journal: Journal | None = None,
) -> TrainOutcome:
    """Trains to the end of the recipe, from the run's latest checkpoint if it has one.

    Args:
        recipe: the resolved recipe.
        prepared: tokenized splits in the object store.
        tokenizer: the prepared tokenizer.
        run: the claimed directory.
        workers: from `plan_workers`.
        say: shows one line to the user.
        journal: takes the events of workers.

    Raises:
        TrainingError: workers failed more often than `scale.max_failures`.
        RunDirError: the latest checkpoint is damaged or another run's.
    """
    # Where the driver is: a board that dies with another node would take the run with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
    # Ray Train restarts workers that die in the loop. One that dies while it starts can end Ray Train's own controller,
    # as can a disk or a network that fails it: then another attempt begins.
    for left in reversed(range(recipe.scale.max_failures + 1)):
        try:
            with shown(partial(_taken, board, journal), say):
                return _attempt(recipe, prepared, tokenizer, run, workers, board, left, say)
        except ray.train.WorkerGroupError as error:
            raise _told_plainly(error, recipe.scale.max_failures) from error
        except (ray.train.TrainingFailedError, ray.exceptions.RayActorError) as error:
            if isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError):
                raise _no_room(workers, recipe.scale.start_timeout_s) from error
            own = own_error(getattr(error, "controller_failure", error))
            if own or not left:
                raise (own or _told_plainly(error, recipe.scale.max_failures)) from error
            say(f"  training broke off ({_last_line(error)}); another attempt, {left} more may fail")
    raise AssertionError("the last attempt returns or raises")


def _attempt(
    recipe: Recipe,
    prepared: PreparedData,
    tokenizer: TokenizerFiles,
    run: RunDir,
    workers: Workers,
    board: Any,
    max_failures: int,
    say: Callable[[str], None],
) -> TrainOutcome:
    """One run of Ray Train, in a directory of its own; arguments as of `fit`."""
    run_id = recipe.learning_fingerprint[:32] + prepared.fingerprint[:32]
    attempt = run.next_attempt()
    resume_uri = run.latest_checkpoint(run_id)
    if resume_uri:
        say(f"  continuing from {resume_uri.rpartition('/')[2]}")
    task = WorkerTask(
        recipe=recipe,
        labels=prepared.labels,
        tokenizer=tokenizer,
        blocks=prepared.blocks,
        class_counts=prepared.class_counts["train"],
        run_id=run_id,
        attempt_uri=attempt,
        resume_uri=resume_uri,
        threads=workers.cpus,
        metrics_name=run.run_id,
        board=board,
    )
    parent, _, name = attempt.rpartition("/")
    # Ray Train hands these on to its controller and workers; it has no other way to be told.
    os.environ |= {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(recipe.scale.start_timeout_s),
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(recipe.scale.hang_timeout_s),
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(recipe.scale.hang_timeout_s),
    }
    trainer = _Trainer(
        train_worker,
        train_loop_config={"task": task},
        torch_config=ray.train.torch.TorchConfig(timeout_s=math.ceil(recipe.scale.hang_timeout_s)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.use_gpu,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": 1} if workers.use_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=parent,
            callbacks=[_TellsOfFailures(board, max_failures)],
            failure_config=ray.train.FailureConfig(max_failures=max_failures, controller_failure_limit=0),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute="score", checkpoint_score_order="max"
            ),
        ),
    )
    outcome: TrainOutcome | InputError = trainer.fit().return_value
    if isinstance(outcome, InputError):
        raise outcome
    return outcome


def _taken(board: Any, journal: Journal | None) -> Any:
    """What is to be shown; events go to the journal."""
    held, events = ray.get([board.take.remote(), board.noted.remote()])
    if journal is not None:
        journal.take(events)
    return held


def _no_room(workers: Workers, waited_s: float) -> TrainingError:
    free = ray.available_resources()
    return TrainingError(
        f"no room for {workers} within {waited_s:g} s: {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs are "
        "free on the cluster",
        todo="--resume when other jobs have ended or nodes have come (back), or raise scale.start_timeout_s",
    )


class _Trainer(ray.train.torch.TorchTrainer):  # type: ignore[misc]
    """Leaves Ctrl-C to Python.

    Ray Train's own handler takes up to ten seconds, exits without a word, and when training is over it stays and
    swallows the first two Ctrl-C.
    """

    def _register_sigint_handler(self, controller: object) -> None:
        pass


class _TellsOfFailures(ray.train.UserCallback):  # type: ignore[misc]
    """Lets the user know that workers failed, though the run goes on."""

    def __init__(self, board: Any, max_failures: int) -> None:
        self._board, self._left = board, max_failures

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train's controller after each failure."""
        told = "; ".join(f"rank {rank}: {_last_line(error)}" for rank, error in sorted(worker_exceptions.items()))
        next_ = f"going on from the last checkpoint, {self._left} more may fail" if self._left else "giving up"
        self._board.post.remote(None, f"a worker failed ({told}); {next_}")
        kinds = sorted({type(error).__name__ for error in worker_exceptions.values()})
        numbers = {"ranks": sorted(worker_exceptions), "errors": kinds, "failures_left": self._left}
        self._board.note.remote(Event("worker_lost", numbers))
        self._left -= 1


def _told_plainly(error: Exception, max_failures: int) -> TextclsError:
    """The error a worker raised, if it was one of ours; otherwise what all of them said."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        if own := own_error(failure):
            return own
    told = "; ".join(f"rank {rank}: {_last_line(failure)}" for rank, failure in sorted(failures.items()))
    return TrainingError(
        f"training failed more than {max_failures} times: {told or _last_line(error)}",
        todo="--resume continues from the last checkpoint once the cause is gone",
    )


def _last_line(error: BaseException) -> str:
    if isinstance(error, WorkerHealthCheckTimeoutError):
        return "no sign of life for scale.hang_timeout_s"
    cause = getattr(error, "cause", error)
    if isinstance(cause, TextclsError):
        return cause.found
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def publish_bundle(
    recipe: Recipe,
    prepared: PreparedData,
    tokenizer: TokenizerFiles,
    outcome: TrainOutcome,
    run: RunDir,
    metrics: Mapping[str, Any],
) -> Manifest:
    """Makes the best checkpoint a bundle at OUT/bundle.

    Raises:
        StorageError: no space, no permission; the run can be resumed and will publish then.
    """
    with (
        tempfile.TemporaryDirectory(prefix="textcls-bundle-") as directory,
        checkpoint.local_copy(outcome.progress.best_uri) as best,
    ):
        shutil.copyfile(os.path.join(best, "config.json"), os.path.join(directory, "config.json"))
        _save_calibrated(best, directory, outcome.head, outcome.calibration.temperature)
        tokenizer.save(directory)
        return write_bundle(
            directory,
            storage.join(run.uri, "bundle"),
            labels=prepared.labels,
            text=recipe.text,
            metrics=metrics,
            recipe=recipe,
            data_fingerprint=prepared.fingerprint,
            calibration=outcome.calibration,
        )


def _save_calibrated(source: str, target: str, head: str, temperature: float) -> None:
    """Copies the weights, those of the head divided by the temperature, as the worker did before the test."""
    weights = load_file(os.path.join(source, "model.safetensors"))
    for name in weights:
        if name.rpartition(".")[0] == head:
            weights[name] = weights[name] / np.float32(temperature)
    save_file(weights, os.path.join(target, "model.safetensors"), metadata={"format": "pt"})
