"""The fine-tuning loop, as each Ray Train worker runs it.

In: a `WorkerTask`, the same on every rank. Out: checkpoints through `ray.train.report`, and from rank 0 a
`TrainOutcome`. Not here: starting workers (attempts.py), the rows of a batch (batch_plan.py), files (checkpoint.py).

Exact data parallelism (law 4): all ranks compute the same plan; a step's global batch is dealt to the ranks, each row's
loss is divided by the rows of the *global* batch, and the mean over ranks times their number is the sum. Exact resume
(law 5): the plan depends on (seed, epoch) and dropout on (seed, step, rank), so the step number is the only state
besides weights and moments.
"""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed

from textcls import storage
from textcls.bundle import Calibration
from textcls.errors import InputError, TrainingError
from textcls.modeling.batching import tokens_at_once
from textcls.modeling.build import build_model, freeze_unused, head_of
from textcls.modeling.cpu_training import adapt_to_cpu
from textcls.modeling.precision import bf16_support, refuse_bf16_without_support, uses_bf16
from textcls.modeling.pretrained import Pretrained
from textcls.on_ray import internals
from textcls.settings.recipe import Recipe
from textcls.tasks.task import RowCounts, Task, selection_score
from textcls.text.tokenizer import TokenizerFiles, encoder_of
from textcls.tracking.events import STEPS_DONE, StepMeter
from textcls.training import batch_plan, checkpoint
from textcls.training.coordinator import Pace
from textcls.training.model_files import model_here
from textcls.training.optimizer import build_optimizer, class_weights
from textcls.training.split_scoring import Scoring
from textcls.training.step import Stepper
from textcls.training.token_rows import TokenRows

# Tokens of the made-up text that shows which weights take part.
_ANY_LENGTH = 8
# Points of the loss curve that a run leaves, at most; each costs one all-reduce of three numbers.
_CURVE_POINTS = 200
# The score of a checkpoint that is not the best so far: below any metric, so that it is never kept as the best.
_UNSCORED = -1e30
# Token tables come from other nodes, 128 MB at most each; if none comes for so long, they are not on the way.
_BLOCKS_COME_S = 20.0
# How often ranks agree on whether to make way; each time costs one all-reduce of two numbers.
_LOOK_EVERY_S = 2.0
# Ranks that wait for the same peer give up within this time of each other.
_GIVE_UP_TOGETHER_S = 3.0


@dataclass(frozen=True)
class WorkerTask:
    """What a worker is told; everything else it computes.

    Attributes:
        recipe: the resolved recipe.
        predicts: what is predicted.
        labels: label names in id order.
        model: the pretrained model as the driver found it.
        driver_node: Ray's id of the driver's node, where its files lie.
        tokenizer: its padding id fills batches.
        blocks: split name -> object references of token tables.
        class_counts: training rows of each class, in id order.
        run_id: names the run in its checkpoints.
        attempt_uri: where Ray Train keeps this attempt's checkpoints.
        resume_uri: checkpoint of an earlier attempt to continue from, or "".
        threads: CPU threads of this worker.
        metrics_name: what the run is called among Ray's metrics, as in its events.
        board: handle of the progress board.
    """

    recipe: Recipe
    predicts: Task
    labels: tuple[str, ...]
    model: Pretrained
    driver_node: str
    tokenizer: TokenizerFiles
    blocks: dict[str, list[Any]]
    class_counts: list[int]
    run_id: str
    attempt_uri: str
    resume_uri: str
    threads: int
    board: Any
    metrics_name: str = ""


@dataclass(frozen=True)
class TrainOutcome:
    """What rank 0 returns.

    Attributes:
        progress: state after the last step.
        test: test counts of the best checkpoint, calibrated.
        calibration: what the validation split says of its scores.
        head: name of the layer that a temperature is folded into.
        bf16: whether matrix products ran in bfloat16.
        world_size: workers that finished the run.
        device: "cpu" or the GPU's name.
        first_step_at: Unix time at which this process had done its first optimizer step, or None.
    """

    progress: checkpoint.Progress
    test: RowCounts
    calibration: Calibration
    head: str
    bf16: bool
    world_size: int
    device: str
    first_step_at: float | None


@dataclass(frozen=True)
class MadeWay:
    """What rank 0 returns if the workers were asked to make way.

    Attributes:
        step: of the checkpoint that was kept for those that go on.
    """

    step: int


class BlocksLost(Exception):
    """Token tables died with their node, and have to be made again before anything else. Holds their number."""


def train_worker(config: dict[str, Any]) -> TrainOutcome | MadeWay | BlocksLost | InputError:
    """Runs the loop on this rank; what Ray Train calls. Returns an error that another try would meet again."""
    try:
        worker = _Worker(config["task"])
    except (InputError, BlocksLost) as error:
        return error
    try:
        return worker.run()
    except RuntimeError as error:
        raise worker.hang_of_peers(error) or error from error.__cause__


def _on_all_ranks(build: Callable[[], Any], world_size: int) -> Any:
    """What this rank builds, if every rank could build it; otherwise each raises the first error of ours."""
    built = error = None
    try:
        built = build()
    except (InputError, BlocksLost) as found:
        error = found
    errors = [error] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(errors, error)
    if first := next(filter(None, errors), None):
        raise first
    return built


class _Worker:
    """One rank's model, data and progress."""

    def __init__(self, task: WorkerTask) -> None:
        self.task, self.spec = task, task.recipe.train
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        ray.get(task.board.arrive.remote(self.rank, self.world_size, ray.get_runtime_context().get_node_id()))
        self.device = ray.train.torch.get_device()
        torch.set_num_threads(task.threads)  # Ray leaves one thread a process where OMP_NUM_THREADS is not set
        self.bf16 = uses_bf16(self.spec.precision, self.device)
        _on_all_ranks(self._await_blocks, self.world_size)
        self.data = {name: TokenRows(ray.get(blocks)) for name, blocks in task.blocks.items()}

        self.head = ""
        self.model = _on_all_ranks(self._build, self.world_size)
        if self.device.type == "cpu":
            adapt_to_cpu(self.model, alone=self.world_size == 1)
        # Wrapped for data parallelism if there are several ranks; `model` stays the bare module.
        self.wrapped = ray.train.torch.prepare_model(
            self.model, parallel_strategy_kwargs={"gradient_as_bucket_view": True}
        )
        self.optimizer = build_optimizer(self.model, self.spec)
        self.progress = self._restore()
        self.steps_per_epoch = batch_plan.steps_per_epoch(len(self.data["train"]), self.spec.rows_per_step)
        self.total_steps = self.steps_per_epoch * self.spec.epochs
        max_tokens = tokens_at_once(self.spec.max_tokens_per_micro_batch, self.device)
        self.stepper = Stepper(
            model=self.model,
            wrapped=self.wrapped,
            optimizer=self.optimizer,
            data=self.data["train"],
            spec=self.spec,
            problem_type=task.predicts.problem_type,
            weights_C=class_weights(task.class_counts, self.spec.class_weights, self.device),
            total_steps=self.total_steps,
            pad_id=task.tokenizer.pad_id,
            bf16=self.bf16,
            max_tokens=max_tokens,
            rank=self.rank,
            world_size=self.world_size,
        )
        self.scoring = Scoring(
            self.model,
            self.data,
            task.predicts,
            task.labels,
            pad_id=task.tokenizer.pad_id,
            max_tokens=max_tokens,
            bf16=self.bf16,
            rank=self.rank,
            world_size=self.world_size,
        )
        self.curve_every = max(1, self.total_steps // _CURVE_POINTS)
        # Loss, padded tokens and tokens of this rank since the last merge; kept on the device, so that no step waits.
        self.open_totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        self.staged = _staged_by(task)
        if self.rank == 0:
            for left in Path(tempfile.gettempdir()).glob(f"{self.staged}*"):  # by workers of this run that were killed
                shutil.rmtree(left, ignore_errors=True)
        self.first_step_at: float | None = None
        self.pace = Pace(task.board if self.rank == 0 else None, self.progress.step, self.total_steps)
        self.look_at_step, self.looked = self.progress.step + 1, (self.progress.step, time.perf_counter())
        self.meter = StepMeter(task.metrics_name, self.rank, *self._spent(), say=self.pace.line)
        if self.progress.step:
            self.pace.note("resumed", step=self.progress.step, epoch=self.progress.epoch)

    def _await_blocks(self) -> None:
        """Waits for the token tables, for as long as they come.

        Raises:
            BlocksLost: they do not. Those that died with a node are made again on CPUs, and the workers may hold all.
        """
        waiting = [block for blocks in self.task.blocks.values() for block in blocks]
        while waiting:
            come, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_BLOCKS_COME_S)
            if not come:
                raise BlocksLost(len(waiting))

    def _build(self) -> Any:
        """The bare module. One that could not be calibrated or multiplied here is refused now, not after hours."""
        task = self.task
        refuse_bf16_without_support(self.spec.precision, bf16_support(self.device), "a worker's device")
        model = build_model(
            model_here(task.model, task.driver_node),
            task.labels,
            task.recipe.model,
            problem_type=task.predicts.problem_type,
            pad_id=task.tokenizer.pad_id,
            seed=self.spec.seed,
        )
        if task.recipe.calibration.temperature:
            self.head = head_of(model, len(task.labels))
        if self.world_size > 1:
            freeze_unused(model, encoder_of(task.tokenizer).sample(_ANY_LENGTH))
        return model

    def _restore(self) -> checkpoint.Progress:
        """Continues from Ray's latest checkpoint of this attempt, else from an earlier attempt's, else from nothing."""
        latest = ray.train.get_checkpoint()
        if latest is None and not self.task.resume_uri:
            return checkpoint.Progress()
        with latest.as_directory() if latest else checkpoint.local_copy(self.task.resume_uri) as directory:
            return checkpoint.read_checkpoint(directory, self.model, self.optimizer, run_id=self.task.run_id)

    def hang_of_peers(self, error: RuntimeError) -> TrainingError | None:
        """What to say of ranks that this one has waited for in vain, if that is what the error means."""
        if self.world_size == 1 or "timed out" not in str(error).lower():
            return None
        ray.get(self.task.board.give_up.remote(self.rank))
        time.sleep(_GIVE_UP_TOGETHER_S)  # until the others have said so, too
        waited = ray.get(self.task.board.give_up.remote(self.rank))
        hung = sorted(set(range(self.world_size)) - waited)
        told = f"rank{'s' if len(hung) > 1 else ''} {', '.join(map(str, hung))}" if hung else "a rank"
        return TrainingError(f"{told} did not answer for {self.task.recipe.scale.hang_timeout_s:g} s")

    def run(self) -> TrainOutcome | MadeWay:
        progress = self.progress
        while progress.epoch < self.spec.epochs and not progress.stopped_early:
            last = (progress.epoch + 1) * self.steps_per_epoch
            for batch in self._remaining_batches():
                self._step(batch)
                if progress.step == last:
                    continue  # the epoch's end keeps one
                every, make_way = self.spec.checkpoint_every_steps, self._should_make_way()
                if make_way or (every and progress.step % every == 0):
                    self._keep_checkpoint(_UNSCORED)
                if make_way:
                    ray.train.get_all_reported_checkpoints()  # waits until every upload has ended
                    return MadeWay(progress.step)
            self._end_epoch()
        self._take_best_weights()
        best = next(epoch for epoch in progress.history if epoch["step"] == progress.best_step)
        calibration = self.scoring.calibrate(self.task.recipe.calibration, head=self.head, ece_before=best["ece"])
        return TrainOutcome(
            progress=progress,
            test=self.scoring.counts("test", calibration.threshold),
            calibration=calibration,
            head=self.head,
            bf16=self.bf16,
            world_size=self.world_size,
            device=torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type,
            first_step_at=self.first_step_at,
        )

    def _remaining_batches(self) -> Iterator[np.ndarray]:
        """Rows of each global batch from where the run is to the end of the epoch."""
        epoch, lengths = self.progress.epoch, self.data["train"].lengths
        batches = batch_plan.epoch_batches(lengths, self.spec.seed, epoch, self.spec.rows_per_step)
        for i in range(self.progress.step - epoch * self.steps_per_epoch, len(batches)):
            yield batches[i]

    def _step(self, batch: np.ndarray) -> None:
        started, progress = time.perf_counter(), self.progress
        cost = self.stepper(progress.step, batch)
        self.open_totals += torch.stack(
            [cost.loss_sum, *cost.loss_sum.new_tensor([cost.padded_tokens, cost.real_tokens])]
        )
        progress.step += 1
        progress.rows += len(batch)
        progress.open_rows += len(batch)
        seconds = time.perf_counter() - started
        progress.seconds += seconds
        self.meter.step(seconds)
        self.first_step_at = self.first_step_at or time.time()
        loss_now = None
        if progress.step % self.curve_every == 0 or progress.step == self.total_steps:
            loss_now = self._extend_curve()
        self.pace.step(progress.step, int(self.data["train"].lengths[batch].sum()), loss_now)

    def _should_make_way(self) -> bool:
        """Whether the driver wants others to go on from here. Ranks agree on it about every two seconds."""
        step, (looked_at, at) = self.progress.step, self.looked
        if step < self.look_at_step:
            return False
        now = time.perf_counter()
        news = torch.tensor([float(self.pace.make_way), now - at], dtype=torch.float64, device=self.device)
        if self.world_size > 1:
            torch.distributed.all_reduce(news)
        asked, seconds = map(float, news.tolist())
        # The same number on every rank: all know the same sum.
        steps_per_s = (step - looked_at) * self.world_size / seconds
        self.look_at_step, self.looked = step + max(1, round(_LOOK_EVERY_S * steps_per_s)), (step, now)
        return asked > 0

    def _merge_totals(self) -> None:
        """Adds every rank's open totals to the progress."""
        if self.world_size > 1:
            torch.distributed.all_reduce(self.open_totals)
        loss, padded, real = self.open_totals.tolist()
        self.progress.open_loss += loss
        self.progress.padded_tokens += int(padded)
        self.progress.real_tokens += int(real)
        self.open_totals.zero_()

    def _extend_curve(self) -> float:
        self._merge_totals()
        progress = self.progress
        mean = progress.open_loss / progress.open_rows
        progress.curve.append((progress.step, mean))
        progress.open_loss, progress.open_rows = 0.0, 0
        rate = self.optimizer.param_groups[0]["lr"]
        stretch = self.meter.stretch(*self._spent())
        self.pace.note(STEPS_DONE, step=progress.step, loss=mean, learning_rate=rate, **stretch)
        return mean

    def _spent(self) -> tuple[int, int, float]:
        return self.progress.real_tokens, self.progress.padded_tokens, self.progress.seconds

    def _end_epoch(self) -> None:
        """Validates, keeps a checkpoint, decides whether to go on."""
        progress = self.progress
        progress.epoch += 1
        predicts = self.task.predicts
        val = predicts.headline(predicts.summarise(self.scoring.counts("val"), self.task.labels))
        score = selection_score(predicts, val, self.spec.select_by)
        progress.history.append({"epoch": progress.epoch, "step": progress.step, **val})
        improved = progress.best_score is None or score > progress.best_score
        if improved:
            progress.best_score, progress.best_step, progress.stale_epochs = score, progress.step, 0
            progress.best_uri = storage.join(self.task.attempt_uri, _directory_of(progress.step))
        else:
            progress.stale_epochs += 1
        progress.stopped_early = self.spec.patience is not None and progress.stale_epochs >= self.spec.patience
        shown = " · ".join(f"{metric.words} {val[name]:.4f}" for name, metric in predicts.headline_metrics.items())
        self.pace.line(f"epoch {progress.epoch} of {self.spec.epochs}: validation {shown}")
        self.pace.note("epoch_done", epoch=progress.epoch, step=progress.step, **val)
        # Of two equal scores Ray keeps the later, and the best is the earlier: so only improvements have a score.
        self._keep_checkpoint(score if improved else _UNSCORED)

    def _keep_checkpoint(self, score: float) -> None:
        """Writes a checkpoint on rank 0 and hands it to Ray Train, which uploads it while training goes on."""
        self._merge_totals()
        kept = None
        if self.rank == 0:
            directory = tempfile.mkdtemp(prefix=self.staged)
            checkpoint.write_checkpoint(directory, self.model, self.optimizer, self.progress, run_id=self.task.run_id)
            kept = ray.train.Checkpoint.from_directory(directory)
        ray.train.report(
            {"score": score, "step": self.progress.step},
            checkpoint=kept,
            checkpoint_dir_name=_directory_of(self.progress.step),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=self._publish,
            delete_local_checkpoint_after_upload=True,
        )

    def _publish(self, kept: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
        """Copies a checkpoint to the attempt's directory; a kill or a full disk in between leaves no manifest there."""
        place = storage.join(self.task.attempt_uri, name)
        # A restarted worker comes by the same steps, with the same result.
        if not storage.exists(storage.join(place, checkpoint.MANIFEST)):
            started = time.perf_counter()
            storage.put_directory(kept.path, place, last=checkpoint.MANIFEST)
            seconds = round(time.perf_counter() - started, 3)
            self.pace.note("checkpoint_kept", step=int(name.rpartition("-")[2]), seconds=seconds)
        return internals.reported_checkpoint(name)

    def _take_best_weights(self) -> None:
        """The best checkpoint's weights, as they were kept."""
        ray.train.get_all_reported_checkpoints()  # waits until every upload has ended
        with checkpoint.local_copy(self.progress.best_uri) as directory:
            checkpoint.check_checkpoint(directory, run_id=self.task.run_id)
            checkpoint.read_weights(directory, self.model)


def _staged_by(task: WorkerTask) -> str:
    """How the names of a run's checkpoints begin among the temporary files, before they are copied to its directory."""
    run = task.attempt_uri.rpartition("/")[0]
    return f"textcls-checkpoint-{hashlib.sha256(run.encode()).hexdigest()[:12]}-"


def _directory_of(step: int) -> str:
    return f"step-{step:08d}"
