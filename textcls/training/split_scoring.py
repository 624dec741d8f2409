"""What the rows of a split add up to over all workers: counts, losses, and the calibration fitted to them.

In: a module, token rows, the task, this rank. Out: sums that are equal on every rank. Not here: what is counted
(tasks/), when to score (loop.py).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed

from textcls.bundle import Calibration
from textcls.modeling.batching import micro_batches
from textcls.modeling.build import fold_temperature, logits_of
from textcls.settings.recipe import CalibrationSpec
from textcls.tasks.calibration import TEMPERATURES
from textcls.tasks.task import RowCounts, Task
from textcls.training.token_rows import TokenRows

# Rows that are measured at once: counts of many labels cost as much for one row as for a thousand.
_ROWS_MEASURED = 2048

# (float [B, C] logits, [B, *T] targets) -> arrays or counts that add up over rows.
Measure = Callable[[np.ndarray, np.ndarray], tuple[Any, ...]]


class Scoring:
    """Scores splits with a module; each row is scored once, by one rank.

    Args:
        model: the bare module. Ranks may hold different numbers of batches, and a wrapper would wait for its peers.
        data: split -> token rows.
        task: turns logits and targets into counts.
        labels: label names in id order.
        pad_id: fills batches.
        max_tokens: padded tokens that the module is given at once.
        bf16: whether matrix products run in bfloat16.
        rank: this worker's.
        world_size: how many workers there are.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        data: Mapping[str, TokenRows],
        task: Task,
        labels: Sequence[str],
        *,
        pad_id: int,
        max_tokens: int,
        bf16: bool,
        rank: int,
        world_size: int,
    ) -> None:
        self._model, self._data, self._task, self._labels = model, data, task, labels
        self._pad_id, self._max_tokens, self._bf16 = pad_id, max_tokens, bf16
        self._rank, self._world_size = rank, world_size

    def counts(self, split: str, thresholds: np.ndarray | None = None) -> RowCounts:
        """Counts over all rows of a split, with the decisions of these thresholds or the task's default ones."""
        task = self._task

        def measure(logits_BC: np.ndarray, targets_B: np.ndarray) -> tuple[RowCounts]:
            return (task.counts(task.probabilities(logits_BC), targets_B, thresholds),)

        (counts,) = self._sum_over(split, measure)
        return counts  # type: ignore[no-any-return]

    def calibrate(self, spec: CalibrationSpec, *, head: str, ece_before: float) -> Calibration:
        """Fits temperatures and thresholds on the validation split; from here on the module's logits are calibrated."""
        task = self._task
        temperatures: float | np.ndarray = 1.0
        if spec.temperature:

            def losses(logits_BC: np.ndarray, targets_B: np.ndarray) -> tuple[np.ndarray]:
                scaled = (task.probabilities(logits_BC / temperature) for temperature in TEMPERATURES)
                return (np.stack([task.log_losses(probabilities_BC, targets_B) for probabilities_BC in scaled]),)

            rows_C = task.label_rows(self._data["val"].targets, len(self._labels))
            (summed,) = self._sum_over("val", losses)
            temperatures = task.temperatures(summed, rows_C)
            divisors = temperatures if isinstance(temperatures, float) else temperatures.tolist()
            fold_temperature(dict(self._model.named_parameters()), head, divisors)

        def measure(logits_BC: np.ndarray, targets_B: np.ndarray) -> tuple[np.ndarray, RowCounts]:
            probabilities_BC = task.probabilities(logits_BC)
            return task.threshold_counts(probabilities_BC, targets_B), task.counts(probabilities_BC, targets_B)

        found, counts = self._sum_over("val", measure)
        return Calibration.fitted(
            temperatures,
            task.choose_thresholds(found, spec),
            ece_before=ece_before,
            ece_after=task.headline(task.summarise(counts, self._labels))["ece"],
            min_precision=spec.min_precision,
        )

    def _sum_over(self, split: str, measure: Measure) -> tuple[Any, ...]:
        """The sum of a measure over all rows of a split, the same on every rank."""
        data = self._data[split]
        device = next(self._model.parameters()).device
        total = measure(np.empty((0, len(self._labels))), self._task.encode((), self._labels))
        batches = micro_batches(np.arange(len(data)), data.lengths, self._max_tokens)
        self._model.eval()
        logits: list[np.ndarray] = []
        measured: list[np.ndarray] = []
        with torch.inference_mode():
            for rows in batches[self._rank :: self._world_size]:
                batch = data.batch(rows, self._pad_id).to(device)
                logits_BC = logits_of(
                    self._model, batch.input_ids_BL, batch.attention_mask_BL, batch.token_types_BL, bf16=self._bf16
                )
                logits.append(logits_BC.cpu().numpy())
                measured.append(rows)
                if sum(map(len, measured)) >= _ROWS_MEASURED:
                    total = _added(total, measure(np.concatenate(logits), data.targets[np.concatenate(measured)]))
                    logits, measured = [], []
        if measured:
            total = _added(total, measure(np.concatenate(logits), data.targets[np.concatenate(measured)]))
        if self._world_size > 1:
            totals: list[Any] = [None] * self._world_size
            torch.distributed.all_gather_object(totals, total)
            total = functools.reduce(_added, totals)
        return total


def _added(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
