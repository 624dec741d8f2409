"""Attempts to train: workers for a `WorkerArguments`, restarted when they fail, are preempted or rescaled.

In: the inputs of a run and its directory. Out: the `TrainOutcome` of the attempt that came to the end of the recipe.
Not here: how many workers (scaling.py), what they do (worker.py), which failures end the run (failures.py), the bundle
(export.py).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from textcls.errors import InputError, NoRoomError, TextclsError, TrainingError, own_error
from textcls.on_ray import internals
from textcls.on_ray.session import own_node
from textcls.progress import Progress, progress_display
from textcls.settings.recipe import Recipe
from textcls.tracking.events import Event
from textcls.tracking.journal import Journal
from textcls.training.coordinator import Coordinator
from textcls.training.failures import final_error
from textcls.training.inputs import TrainingInputs
from textcls.training.loop_result import Stopped, TrainOutcome
from textcls.training.private.budget import Budget
from textcls.training.run_dir import RunDir
from textcls.training.scaling import RescalePolicy, StopReason, TrainingWorkers, available_workers
from textcls.training.worker import BlocksLost, WorkerArguments, train_worker

# How long elastic workers may take to start after there was room for them, before the room is counted anew.
_ELASTIC_START_S = 60.0


def fit(
    inputs: TrainingInputs,
    recipe: Recipe,
    run: RunDir,
    workers: TrainingWorkers,
    *,
    say: Callable[[str], None],
    journal: Journal,
    budget: Budget | None = None,
) -> TrainOutcome:
    """Trains to the end of the recipe, from the run's latest checkpoint if it has one.

    Args:
        inputs: from `read`; shared with other runs if need be.
        recipe: the resolved recipe.
        run: the claimed directory.
        workers: from `plan_training_workers`.
        say: shows one line to the user.
        journal: takes the events.
        budget: of private training; None trains without privacy.

    Raises:
        TrainingError: workers failed more often than `scale.max_failures`.
        RunDirError: the latest checkpoint is damaged or another run's.
    """
    return _Attempts(inputs, recipe, run, workers, say, journal, budget).outcome()


class _Attempts:
    """Attempts, until one comes to the end of the recipe; arguments as of `fit`.

    Ray Train restarts as many workers as there were. A new attempt starts where that is not enough: when workers are
    preempted or rescaled, when elastic workers fail, when Ray Train's own controller fails.
    """

    def __init__(
        self,
        inputs: TrainingInputs,
        recipe: Recipe,
        run: RunDir,
        planned: TrainingWorkers,
        say: Callable[[str], None],
        journal: Journal,
        budget: Budget | None,
    ) -> None:
        self._inputs, self._recipe, self._run, self._budget = inputs, recipe, run, budget
        self._planned, self._say, self._journal = planned, say, journal
        self._elastic = planned.min_count is not None
        self._failures_left = recipe.scale.max_failures
        self._recomputes_left = recipe.scale.max_failures + 1
        # On the driver's node: an actor that dies with another node would end the run.
        self._node = own_node()
        here = NodeAffinitySchedulingStrategy(self._node, soft=False)
        self._coordinator = ray.remote(Coordinator).options(num_cpus=0, scheduling_strategy=here).remote()
        self._stop_reason = StopReason("", "")

    def outcome(self) -> TrainOutcome:
        """Of the last attempt."""
        known = 0
        while True:
            workers = available_workers(self._planned, known)
            known = 0
            if self._elastic:
                self._say(f"  training with {workers}")
            policy = RescalePolicy(self._planned, workers, self._recipe.scale.resize_after_s)
            try:
                with progress_display(partial(self._poll, policy), self._say):
                    outcome = self._attempt(workers)
            except (ray.train.TrainingFailedError, ray.exceptions.RayActorError) as error:
                if final := self._final(error, workers):
                    raise final from error
                self._failures_left -= 1
                if not isinstance(error, ray.train.WorkerGroupError):
                    left = f"another attempt follows, {self._failures_left} more may fail"
                    self._say(f"  an attempt failed ({_last_line(error)}); {left}")
                continue
            if isinstance(outcome, TrainOutcome):
                return outcome
            if isinstance(outcome, BlocksLost):
                self._recompute_blocks()
                continue
            reason = self._stop_reason
            known = reason.workers
            self._say(f"  {reason.message}: resuming from step {outcome.step:,} with other workers")
            self._journal.record(reason.event, step=outcome.step, workers=workers.count, reason=reason.message)

    def _poll(self, policy: RescalePolicy) -> tuple[Progress | None, list[str]]:
        """Moves events to the journal, requests a stop if there is a reason, and returns what is to be shown."""
        coordinator = self._coordinator
        progress, events, nodes = ray.get(
            [coordinator.take_progress.remote(), coordinator.take_events.remote(), coordinator.node_ids.remote()]
        )
        self._journal.write(events)
        self._count_failures(events)
        if nodes and (reason := policy.stop_reason(nodes)):
            self._stop_reason = reason
            coordinator.request_stop.remote()
        return progress  # type: ignore[no-any-return]

    def _count_failures(self, events: Sequence[Event]) -> None:
        """Takes failures that Ray Train restarted workers after off those that later attempts may have."""
        if self._elastic:
            return  # each ends its attempt, and is counted there
        for event in events:
            if event.name == "worker_failed":
                self._failures_left = event.values["failures_left"]

    def _recompute_blocks(self) -> None:
        """Has Ray recompute token tables that died with a node, while no worker holds the CPUs."""
        self._say("  tokens were lost with their node; reading and tokenizing those rows again")
        timeout_s = self._recipe.scale.start_timeout_s
        until = time.monotonic() + timeout_s
        recomputed = self._recomputes_left > 0 and all(
            ray.wait([block], timeout=max(0.0, until - time.monotonic()))[0]
            for blocks in self._inputs.data.blocks.values()
            for block in blocks
        )
        self._recomputes_left -= 1
        if not recomputed:
            raise NoRoomError(
                f"tokens were lost with their node, and could not be recomputed within {timeout_s:g} s",
                todo="--resume when the cluster has CPUs to spare, or raise scale.start_timeout_s",
            )

    def _attempt(self, workers: TrainingWorkers) -> TrainOutcome | Stopped | BlocksLost:
        """One run of Ray Train, in a directory of its own."""
        recipe, attempt_uri = self._recipe, self._run.next_attempt()
        scale = recipe.scale
        # If the room for elastic workers has gone meanwhile, fewer start sooner than all of them later.
        shorter = self._elastic and workers.count > (self._planned.min_count or 0)
        start_timeout_s = min(scale.start_timeout_s, _ELASTIC_START_S) if shorter else scale.start_timeout_s
        internals.set_worker_timeouts(start_s=start_timeout_s, hang_s=scale.hang_timeout_s)
        storage_path, _, name = attempt_uri.rpartition("/")
        trainer = ray.train.torch.TorchTrainer(
            train_worker,
            train_loop_config={"arguments": self._arguments(workers, attempt_uri)},
            torch_config=ray.train.torch.TorchConfig(timeout_s=math.ceil(scale.hang_timeout_s)),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers.count, use_gpu=workers.use_gpu, resources_per_worker=workers.resources
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=storage_path,
                callbacks=[_FailureReporter(self._coordinator, self._failures_left)],
                failure_config=ray.train.FailureConfig(
                    max_failures=0 if self._elastic else self._failures_left,
                    max_preemption_failures=0 if self._elastic else -1,
                    controller_failure_limit=0,
                ),
                checkpoint_config=ray.train.CheckpointConfig(
                    num_to_keep=2, checkpoint_score_attribute="score", checkpoint_score_order="max"
                ),
            ),
        )
        outcome: TrainOutcome | Stopped | BlocksLost | InputError = internals.end_at_once(trainer).fit().return_value
        if isinstance(outcome, InputError):
            raise outcome
        return outcome

    def _arguments(self, workers: TrainingWorkers, attempt_uri: str) -> WorkerArguments:
        inputs, recipe, data = self._inputs, self._recipe, self._inputs.data
        fingerprint = recipe.learning_fingerprint[:32] + data.fingerprint[:32]
        resume_uri = self._run.latest_checkpoint(fingerprint)
        if resume_uri:
            self._say(f"  continuing from {resume_uri.rpartition('/')[2]}")
        return WorkerArguments(
            recipe=recipe,
            task=data.task,
            labels=data.labels,
            model=inputs.model,
            driver_node=self._node,
            tokenizer=inputs.tokenizer,
            blocks=data.blocks,
            slices=data.slices,
            class_counts=data.class_counts["train"],
            fingerprint=fingerprint,
            attempt_uri=attempt_uri,
            resume_uri=resume_uri,
            threads=workers.cpus,
            run_id=self._run.run_id,
            coordinator=self._coordinator,
            budget=self._budget,
        )

    def _final(self, error: Exception, workers: TrainingWorkers) -> TextclsError | None:
        """The error that ends the run; None if another attempt should follow."""
        cause = getattr(error, "controller_failure", error)
        if internals.is_start_timeout(cause) and (
            not self._failures_left or self._planned.min_count in (None, workers.count)
        ):
            return _no_room(workers, self._recipe.scale.start_timeout_s)
        # Ray Train has restarted the workers as often as it may.
        exhausted = isinstance(error, ray.train.WorkerGroupError) and not self._elastic
        if own := None if exhausted else own_error(cause):
            return own
        if self._failures_left and not exhausted:
            return None
        return _too_many_failures(error, self._recipe.scale.max_failures)


class _FailureReporter(ray.train.UserCallback):  # type: ignore[misc]
    """Has the driver show and record each failure of workers, and ends the run if a restart would fail alike."""

    def __init__(self, coordinator: Any, max_failures: int) -> None:
        self._coordinator, self._left = coordinator, max_failures

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train's controller after each failure.

        Raises:
            TextclsError: another try would fail alike. Ray Train then ends the run, whatever failures are left.
        """
        if final := final_error(worker_exceptions):
            raise final
        failed = "; ".join(f"rank {rank}: {_last_line(error)}" for rank, error in sorted(worker_exceptions.items()))
        left = max(0, self._left - 1)
        next_ = f"resuming from the last checkpoint, {left} more may fail" if self._left else "giving up"
        self._coordinator.post_progress.remote(None, f"a worker failed ({failed}); {next_}")
        errors = sorted({type(error).__name__ for error in worker_exceptions.values()})
        values = {"ranks": sorted(worker_exceptions), "errors": errors, "failures_left": left}
        self._coordinator.post_event.remote(Event("worker_failed", values))
        self._left = left


def _no_room(workers: TrainingWorkers, waited_s: float) -> NoRoomError:
    free = ray.available_resources()
    return NoRoomError(
        f"no room for {workers} within {waited_s:g} s: {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs are "
        "free on the cluster",
        todo="--resume when other jobs have ended or nodes have come (back), or raise scale.start_timeout_s",
    )


def _too_many_failures(error: Exception, max_failures: int) -> TextclsError:
    """The error that a worker raised, if it was one of ours; otherwise the last line of each worker's."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        if own := own_error(failure):
            return own
    failed = "; ".join(f"rank {rank}: {_last_line(failure)}" for rank, failure in sorted(failures.items()))
    return TrainingError(
        f"training failed more than {max_failures} times: {failed or _last_line(error)}",
        todo="--resume continues from the last checkpoint once the cause is gone",
    )


def _last_line(error: BaseException) -> str:
    if internals.is_hang(error):
        return "no answer within scale.hang_timeout_s"
    cause = getattr(error, "cause", error)
    if isinstance(cause, TextclsError):
        return cause.found
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
