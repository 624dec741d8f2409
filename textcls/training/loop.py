"""The fine-tuning loop, as each worker runs it.

In: a model, token rows, a recipe and a `WorkerContext`. Out: checkpoints, and a `TrainOutcome` or `Stopped`
(loop_result.py).
Not here: one step (step.py), the rows of a batch (batch_plan.py), the files of a checkpoint (checkpoint.py), building
the model and starting workers (worker.py, attempts.py).

Exact data parallelism (law 4): all ranks compute the same plan; a step's global batch is dealt to the ranks, each row's
loss is divided by the rows of the *global* batch, and the mean over ranks times their number is the sum. Exact resume
(law 5): the plan depends on (seed, epoch) and dropout on (seed, step, rank), so the step number is the only state
besides weights and moments.

Private training (private/) has another plan and another step, and no choice among checkpoints: it keeps the last. Its
random numbers are those of a secret, which is drawn here and kept in checkpoints, the first one before the first step.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from textcls.modeling.batching import tokens_at_once
from textcls.modeling.precision import uses_bf16
from textcls.progress import StepTimer
from textcls.settings.recipe import Recipe
from textcls.tasks.task import Task, selection_score
from textcls.tracking.events import STEP_METRICS
from textcls.training import batch_plan, checkpoint
from textcls.training.context import UNSCORED, WorkerContext
from textcls.training.loop_result import Stopped, TrainOutcome
from textcls.training.optimizer import build_optimizer, class_weights
from textcls.training.private.budget import Budget
from textcls.training.private.poisson_plan import PoissonPlan
from textcls.training.private.randomness import KEY_BYTES, new_key
from textcls.training.split_scoring import Scoring
from textcls.training.step import StepCost, Stepper
from textcls.training.studied_rows import StudiedRows
from textcls.training.token_rows import TokenRows

# Points of the loss curve that a run leaves, at most; each costs one all-reduce of three numbers.
_CURVE_POINTS = 200
# How often several ranks agree on whether to stop; each time costs one all-reduce of two numbers.
_AGREE_EVERY_S = 2.0


class TrainingLoop:
    """One rank's share of a training run.

    Args:
        context: this worker among the others.
        recipe: the resolved recipe.
        task: what is predicted.
        labels: label names in id order.
        model: the bare module, on the context's device.
        data: token rows of `train`, `val` and `test`.
        class_counts: training rows of each class, in id order.
        pad_id: id of the padding token.
        head: name of the layer that the temperature is folded into, or "".
        fingerprint: of recipe and data; names the run in its checkpoints.
        test_rows: finds slices and examples among the test rows; None finds none.
        budget: of private training; None trains without privacy.
    """

    def __init__(
        self,
        context: WorkerContext,
        recipe: Recipe,
        task: Task,
        labels: Sequence[str],
        model: Any,
        data: Mapping[str, TokenRows],
        *,
        class_counts: Sequence[int],
        pad_id: int,
        head: str,
        fingerprint: str,
        test_rows: StudiedRows | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.context, self.model = context, model
        self._recipe, self._task, self._labels = recipe, task, labels
        self._data, self._head, self._fingerprint = data, head, fingerprint
        self._test_rows, self._budget, self._key = test_rows, budget, b""
        self._spec = spec = recipe.train
        self._bf16 = uses_bf16(spec.precision, context.device)
        max_tokens = tokens_at_once(spec.max_tokens_per_micro_batch, context.device)
        self._steps_per_epoch = batch_plan.steps_per_epoch(len(data["train"]), spec.rows_per_step)
        self._total_steps = self._steps_per_epoch * spec.epochs
        # Moves it to the device, so the optimizer comes after. Private steps add gradients up over ranks themselves.
        wrapped = context.wrap(model) if budget is None else model.to(context.device)
        self._optimizer = build_optimizer(model, spec)
        self.state = self._restored()
        self._take_step = self._stepper(wrapped, class_counts, pad_id=pad_id, max_tokens=max_tokens)
        self._scoring = Scoring(
            model,
            data,
            task,
            labels,
            pad_id=pad_id,
            max_tokens=max_tokens,
            bf16=self._bf16,
            rank=context.rank,
            world_size=context.world_size,
        )
        self._curve_every = max(1, self._total_steps // _CURVE_POINTS)
        # Loss, padded tokens and real tokens of this rank since the last merge; on the device, so that no step waits.
        self._open_totals = torch.zeros(3, dtype=torch.float64, device=context.device)
        self._spent_before, self._speed = self._spent(), dict[str, float]()
        self._first_step_at: float | None = None
        self._timer = StepTimer(self.state.step, self._total_steps)
        self._agree_at_step, self._agreed = self.state.step + 1, (self.state.step, time.perf_counter())

    def _stepper(
        self, wrapped: Any, class_counts: Sequence[int], *, pad_id: int, max_tokens: int
    ) -> Callable[[int, np.ndarray], StepCost]:
        """Takes a step of a number on rows; the plain one, or the private one."""
        task, train, context = self._task, self._data["train"], self.context
        same: dict[str, Any] = {
            "model": self.model,
            "optimizer": self._optimizer,
            "data": train,
            "spec": self._spec,
            "problem_type": task.problem_type,
            "total_steps": self._total_steps,
            "pad_id": pad_id,
            "max_tokens": max_tokens,
            "rank": context.rank,
            "world_size": context.world_size,
        }
        if self._budget is not None:
            from textcls.training.private.clipping import RowClipper  # needs opacus
            from textcls.training.private.step import PrivateStepper

            clipper = RowClipper(self.model, self._budget.max_grad_norm)
            secret: dict[str, Any] = {
                "budget": self._budget,
                "key": self._key,
                "sum_over_ranks": context.sum_over_ranks,
            }
            return PrivateStepper(**same, **secret, clipper=clipper)
        weights_C = class_weights(task.problem_type, class_counts, len(train), self._spec.class_weights, context.device)
        return Stepper(**same, wrapped=wrapped, weights_C=weights_C, bf16=self._bf16)

    def run(self) -> TrainOutcome | Stopped:
        """Trains until the last epoch, until patience runs out, or until the driver requests a stop."""
        state, every = self.state, self._spec.checkpoint_every_steps
        if self._budget is not None and not self._has_checkpoint:
            # Before the first step: an attempt that is killed after it must be repeated with the same noise.
            self._save_checkpoint(UNSCORED)
            self.context.wait_for_checkpoints()
        if state.step:
            self.context.report_event("resumed", step=state.step, epoch=state.epoch)
        while state.epoch < self._spec.epochs and not state.stopped_early:
            last = (state.epoch + 1) * self._steps_per_epoch
            for batch in self._remaining_batches():
                self._step(batch)
                if state.step == last:
                    continue  # the end of the epoch saves a checkpoint
                stop = self._should_stop()
                if stop or (every and state.step % every == 0):
                    self._save_checkpoint(UNSCORED)
                if stop:
                    self.context.wait_for_checkpoints()
                    return Stopped(state.step)
            self._end_epoch()
        return self._outcome()

    def _restored(self) -> checkpoint.TrainingState:
        with self.context.latest_checkpoint() as directory:
            self._has_checkpoint = directory is not None
            if directory is None:
                if self._budget is not None:
                    self._key = self._shared_key()
                return checkpoint.TrainingState()
            if self._budget is not None:
                self._key = checkpoint.read_key(directory)
            return checkpoint.read_checkpoint(directory, self.model, self._optimizer, fingerprint=self._fingerprint)

    def _shared_key(self) -> bytes:
        """A new secret, the same on every rank."""
        own = new_key() if self.context.rank == 0 else bytes(KEY_BYTES)
        shared = torch.tensor(list(own), dtype=torch.int64, device=self.context.device)
        self.context.sum_over_ranks(shared)
        return bytes(shared.tolist())

    def _remaining_batches(self) -> Iterator[np.ndarray]:
        """Rows of each global batch, from the step that the run is at to the end of the epoch."""
        epoch, lengths = self.state.epoch, self._data["train"].lengths
        batches: batch_plan.EpochPlan | PoissonPlan
        if self._budget is None:
            batches = batch_plan.epoch_batches(lengths, self._spec.seed, epoch, self._spec.rows_per_step)
        else:
            batches = PoissonPlan(self._budget, self._key, epoch * self._steps_per_epoch, self._steps_per_epoch)
        for i in range(self.state.step - epoch * self._steps_per_epoch, len(batches)):
            yield batches[i]

    def _step(self, batch: np.ndarray) -> None:
        """Takes a step on the rows `batch` (int64 [rows of the global batch])."""
        started, state = time.perf_counter(), self.state
        cost = self._take_step(state.step, batch)
        self._open_totals += torch.stack(
            [cost.loss_sum, *cost.loss_sum.new_tensor([cost.padded_tokens, cost.real_tokens])]
        )
        state.step += 1
        state.rows += len(batch)
        state.open_rows += len(batch)
        seconds = time.perf_counter() - started
        state.seconds += seconds
        self.context.record_step(seconds, self._speed)
        self._first_step_at = self._first_step_at or time.time()
        loss = None
        if state.step % self._curve_every == 0 or state.step == self._total_steps:
            loss = self._extend_curve()
        tokens = int(self._data["train"].lengths[batch].sum())
        self.context.report_progress(self._timer.after(state.step, tokens, loss))

    def _should_stop(self) -> bool:
        """Whether the driver has requested a stop; the same answer at the same step on every rank."""
        requested = self.context.should_stop()
        if self.context.world_size == 1:
            return requested
        step, (agreed_step, agreed_at) = self.state.step, self._agreed
        if step < self._agree_at_step:
            return False
        now = time.perf_counter()
        sums = torch.tensor([float(requested), now - agreed_at], dtype=torch.float64, device=self.context.device)
        self.context.sum_over_ranks(sums)
        requests, seconds = map(float, sums.tolist())
        # The same number on every rank: all know the same sum.
        steps_per_s = (step - agreed_step) * self.context.world_size / seconds
        self._agree_at_step, self._agreed = step + max(1, round(_AGREE_EVERY_S * steps_per_s)), (step, now)
        return requests > 0

    def _merge_totals(self) -> None:
        """Adds the open totals of every rank to the state."""
        self.context.sum_over_ranks(self._open_totals)
        loss, padded, real = self._open_totals.tolist()
        self.state.open_loss += loss
        self.state.padded_tokens += int(padded)
        self.state.real_tokens += int(real)
        self._open_totals.zero_()

    def _extend_curve(self) -> float | None:
        """Adds a point to the loss curve, and returns its loss; None if there was no row since the last point."""
        self._merge_totals()
        state = self.state
        if not state.open_rows:  # private steps may be without rows
            return None
        mean = state.open_loss / state.open_rows
        state.curve.append((state.step, mean))
        state.open_loss, state.open_rows = 0.0, 0
        real, padded, seconds = (now - before for now, before in zip(self._spent(), self._spent_before, strict=True))
        self._spent_before = self._spent()
        self._speed = {"tokens_per_s": real / max(seconds, 1e-9), "padding_ratio": padded / max(real, 1)}
        rate = self._optimizer.param_groups[0]["lr"]
        self.context.report_event(STEP_METRICS, step=state.step, loss=mean, learning_rate=rate, **self._speed)
        return mean

    def _spent(self) -> tuple[float, float, float]:
        """Real tokens, padded tokens and seconds of the run so far."""
        return self.state.real_tokens, self.state.padded_tokens, self.state.seconds

    def _end_epoch(self) -> None:
        """Validates, saves a checkpoint, and counts epochs without an improvement."""
        state, task = self.state, self._task
        state.epoch += 1
        counts = task.at_best_thresholds(self._scoring.counts("val"))
        val = task.headline(task.summarise(counts, self._labels))
        score = selection_score(task, val, self._spec.select_by)
        state.history.append({"epoch": state.epoch, "step": state.step, **val})
        # A choice by validation would depend on these rows: private training keeps the last checkpoint.
        improved = state.best_score is None or score > state.best_score or self._budget is not None
        if improved:
            state.best_score, state.best_step, state.stale_epochs = score, state.step, 0
            state.best_uri = self.context.checkpoint_uri(state.step)
        else:
            state.stale_epochs += 1
        state.stopped_early = self._spec.patience is not None and state.stale_epochs >= self._spec.patience
        shown = " · ".join(f"{metric.words} {val[name]:.4f}" for name, metric in task.headline_metrics.items())
        self.context.report_line(f"epoch {state.epoch} of {self._spec.epochs}: validation {shown}")
        self.context.report_event("epoch_completed", epoch=state.epoch, step=state.step, **val)
        # Of two equal scores Ray keeps the later, and the best is the earlier: so only improvements have a score.
        kept = score if self._budget is None else float(state.epoch)
        self._save_checkpoint(kept if improved else UNSCORED)

    def _save_checkpoint(self, score: float) -> None:
        self._merge_totals()
        write = partial(
            checkpoint.write_checkpoint,
            model=self.model,
            optimizer=self._optimizer,
            state=self.state,
            fingerprint=self._fingerprint,
            key=self._key,
        )
        self.context.save_checkpoint(write, step=self.state.step, score=score)

    def _outcome(self) -> TrainOutcome:
        """Calibrates and tests the best checkpoint, as it was saved."""
        state, device = self.state, self.context.device
        self.context.wait_for_checkpoints()
        with checkpoint.local_copy(state.best_uri) as directory:
            checkpoint.check_checkpoint(directory, fingerprint=self._fingerprint)
            checkpoint.read_weights(directory, self.model)
        best = next(epoch for epoch in state.history if epoch["step"] == state.best_step)
        calibration = self._scoring.calibrate(self._recipe.calibration, head=self._head, ece_before=best["ece"])
        thresholds = calibration.task_thresholds(self._task.default_thresholds(len(self._labels)))
        if self._test_rows is None:
            test, studied = self._scoring.counts("test", thresholds), None
        else:
            test, studied = self._scoring.counts_and_findings("test", thresholds, self._test_rows)
        return TrainOutcome(
            state=state,
            test=test,
            studied=studied,
            calibration=calibration,
            head=self._head,
            bf16=self._bf16,
            world_size=self.context.world_size,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            first_step_at=self._first_step_at,
        )
