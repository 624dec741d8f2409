"""Workers for a `WorkerTask`, restarted when they die or make way; then the best checkpoint as a bundle.

In: prepared data and a run's directory. Out: a `TrainOutcome`, and a published bundle. Not here: how many workers
(scaling.py), the loop (loop.py).
"""

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from textcls import storage
from textcls.bundle import Manifest, write_bundle
from textcls.data.split_blocks import PreparedData
from textcls.errors import InputError, TextclsError, TrainingError, own_error
from textcls.modeling.pretrained import Pretrained
from textcls.on_ray import internals
from textcls.progress import Progress, shown
from textcls.settings.recipe import Recipe
from textcls.text.tokenizer import TokenizerFiles
from textcls.tracking.events import Event, Journal
from textcls.training import checkpoint
from textcls.training.coordinator import Coordinator
from textcls.training.export import export_files
from textcls.training.failures import final_error
from textcls.training.loop import BlocksLost, MadeWay, TrainOutcome, WorkerTask, train_worker
from textcls.training.run_dir import RunDir
from textcls.training.scaling import Lookout, Workers, gathered

# How long elastic workers that there was room for may take to be placed, before they are counted anew.
_ELASTIC_START_S = 60.0


def fit(
    recipe: Recipe,
    model: Pretrained,
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
        model: the pretrained model.
        prepared: tokenized splits in the object store.
        tokenizer: the prepared tokenizer.
        run: the claimed directory.
        workers: from `plan_workers`.
        say: shows one line to the user.
        journal: takes the events.

    Raises:
        TrainingError: workers failed more often than `scale.max_failures`.
        RunDirError: the latest checkpoint is damaged or another run's.
    """
    return _Fit(recipe, model, prepared, tokenizer, run, workers, say, journal).outcome()


class _Fit:
    """Attempts, until one comes to the end of the recipe; arguments as of `fit`.

    Ray Train restarts as many workers as there were. An attempt ends and another begins where that is not enough: if
    workers make way for others, if elastic ones fail, if Ray Train's own controller fails.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Pretrained,
        prepared: PreparedData,
        tokenizer: TokenizerFiles,
        run: RunDir,
        asked: Workers,
        say: Callable[[str], None],
        journal: Journal | None,
    ) -> None:
        self._recipe, self._model = recipe, model
        self._prepared, self._tokenizer, self._run = prepared, tokenizer, run
        self._asked, self._say, self._journal = asked, say, journal
        self._elastic = asked.least is not None
        self._failures_left = recipe.scale.max_failures
        self._remakes_left = recipe.scale.max_failures + 1
        # Where the driver is: a board that dies with another node would take the run with it.
        self._node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(self._node, soft=False)
        self._board = ray.remote(Coordinator).options(num_cpus=0, scheduling_strategy=here).remote()
        self._reason = ""

    def outcome(self) -> TrainOutcome:
        """Of the last attempt."""
        while True:
            workers = gathered(self._asked)
            if self._elastic:
                self._say(f"  training with {workers}")
            lookout = Lookout(self._asked, workers, self._recipe.scale.resize_after_s)
            try:
                with shown(partial(self._news, lookout), self._say):
                    outcome = self._attempt(workers)
            except (ray.train.TrainingFailedError, ray.exceptions.RayActorError) as error:
                if final := self._final(error, workers):
                    raise final from error
                self._failures_left -= 1
                if not isinstance(error, ray.train.WorkerGroupError):
                    told = f"{_last_line(error)}); another attempt, {self._failures_left} more may fail"
                    self._say(f"  training broke off ({told}")
                continue
            if isinstance(outcome, TrainOutcome):
                return outcome
            if isinstance(outcome, BlocksLost):
                self._remake_blocks()
                continue
            self._say(f"  {self._reason}: going on from step {outcome.step:,} with others")
            if self._journal is not None:
                self._journal.note("made_way", step=outcome.step, workers=workers.count, reason=self._reason)

    def _remake_blocks(self) -> None:
        """Has Ray make anew what died with a node, while no worker holds the CPUs."""
        self._say("  tokens died with their node; reading and tokenizing those rows again")
        timeout_s = self._recipe.scale.start_timeout_s
        until = time.monotonic() + timeout_s
        made = self._remakes_left > 0 and all(
            ray.wait([block], timeout=max(0.0, until - time.monotonic()))[0]
            for blocks in self._prepared.blocks.values()
            for block in blocks
        )
        self._remakes_left -= 1
        if not made:
            raise TrainingError(
                f"tokens died with their node, and could not be made again within {timeout_s:g} s",
                todo="--resume when the cluster has CPUs to spare, or raise scale.start_timeout_s",
            )

    def _news(self, lookout: Lookout) -> tuple[Progress | None, list[str]]:
        """What is to be shown. On the way events go to the journal, and workers learn that they should make way."""
        standing, events, nodes = ray.get(
            [self._board.take.remote(), self._board.noted.remote(), self._board.places.remote()]
        )
        if self._journal is not None:
            self._journal.take(events)
        if nodes and (reason := lookout.reason(nodes)):
            self._reason = reason
            self._board.ask_to_make_way.remote()
        return standing  # type: ignore[no-any-return]

    def _attempt(self, workers: Workers) -> TrainOutcome | MadeWay | BlocksLost:
        """One run of Ray Train, in a directory of its own."""
        recipe, prepared, run = self._recipe, self._prepared, self._run
        run_id = recipe.learning_fingerprint[:32] + prepared.fingerprint[:32]
        attempt = run.next_attempt()
        resume_uri = run.latest_checkpoint(run_id)
        if resume_uri:
            self._say(f"  continuing from {resume_uri.rpartition('/')[2]}")
        task = WorkerTask(
            recipe=recipe,
            predicts=prepared.task,
            labels=prepared.labels,
            model=self._model,
            driver_node=self._node,
            tokenizer=self._tokenizer,
            blocks=prepared.blocks,
            class_counts=prepared.class_counts["train"],
            run_id=run_id,
            attempt_uri=attempt,
            resume_uri=resume_uri,
            threads=workers.cpus,
            metrics_name=run.run_id,
            board=self._board,
        )
        scale = recipe.scale
        # Elastic workers are gathered where there is room; if it has gone meanwhile, fewer are sooner than later.
        shorter = self._elastic and workers.count > (self._asked.least or 0)
        start_timeout_s = min(scale.start_timeout_s, _ELASTIC_START_S) if shorter else scale.start_timeout_s
        internals.set_worker_timeouts(start_s=start_timeout_s, hang_s=scale.hang_timeout_s)
        parent, _, name = attempt.rpartition("/")
        trainer = ray.train.torch.TorchTrainer(
            train_worker,
            train_loop_config={"task": task},
            torch_config=ray.train.torch.TorchConfig(timeout_s=math.ceil(scale.hang_timeout_s)),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers.count, use_gpu=workers.use_gpu, resources_per_worker=workers.bundle
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=parent,
                callbacks=[_TellsOfFailures(self._board, self._failures_left)],
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
        outcome: TrainOutcome | MadeWay | BlocksLost | InputError = internals.end_at_once(trainer).fit().return_value
        if isinstance(outcome, InputError):
            raise outcome
        return outcome

    def _final(self, error: Exception, workers: Workers) -> TextclsError | None:
        """What to tell the user if the failure of an attempt is the run's, too."""
        cause = getattr(error, "controller_failure", error)
        if internals.is_start_timeout(cause) and (
            not self._failures_left or self._asked.least in (None, workers.count)
        ):
            return _no_room(workers, self._recipe.scale.start_timeout_s)
        # Ray Train has tried often enough.
        tried = isinstance(error, ray.train.WorkerGroupError) and not self._elastic
        if own := None if tried else own_error(cause):
            return own
        return None if self._failures_left and not tried else _told_plainly(error, self._recipe.scale.max_failures)


def _no_room(workers: Workers, waited_s: float) -> TrainingError:
    free = ray.available_resources()
    return TrainingError(
        f"no room for {workers} within {waited_s:g} s: {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs are "
        "free on the cluster",
        todo="--resume when other jobs have ended or nodes have come (back), or raise scale.start_timeout_s",
    )


class _TellsOfFailures(ray.train.UserCallback):  # type: ignore[misc]
    """Lets the user know that workers failed, though the run goes on."""

    def __init__(self, board: Any, max_failures: int) -> None:
        self._board, self._left = board, max_failures

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train's controller after each failure.

        Raises:
            TextclsError: another try would fail alike. Ray Train then ends the run, whatever failures are left.
        """
        if final := final_error(worker_exceptions):
            raise final
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
    if internals.is_hang(error):
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
        temperature = outcome.calibration.temperature
        export_files(best, directory, tokenizer=tokenizer, head=outcome.head, temperature=temperature)
        return write_bundle(
            directory,
            storage.join(run.uri, "bundle"),
            task=prepared.task,
            labels=prepared.labels,
            text=recipe.text,
            metrics=metrics,
            recipe=recipe,
            data_fingerprint=prepared.fingerprint,
            calibration=outcome.calibration,
        )
