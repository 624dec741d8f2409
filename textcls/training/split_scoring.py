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
from textcls.tasks.calibration import best_temperature, lowest_threshold
from textcls.tasks.task import RowCounts, Task
from textcls.training.token_rows import TokenRows

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

    def counts(self, split: str, threshold: float = 0.0) -> RowCounts:
        """Counts over all rows of a split; below the threshold the model abstains."""
        task = self._task

        def measure(logits_BC: np.ndarray, targets_B: np.ndarray) -> tuple[RowCounts]:
            return (task.counts(task.probabilities(logits_BC), targets_B, threshold),)

        (counts,) = self._sum_over(split, measure)
        return counts  # type: ignore[no-any-return]

    def calibrate(self, spec: CalibrationSpec, *, head: str, ece_before: float) -> Calibration:
        """Fits temperature and threshold on the validation split; from here on the module's logits are calibrated."""
        task, temperature = self._task, 1.0
        if spec.temperature:

            def losses(logits_BC: np.ndarray, targets_B: np.ndarray) -> tuple[np.ndarray]:
                return (task.temperature_losses(logits_BC, targets_B),)

            temperature = best_temperature(*self._sum_over("val", losses))
            fold_temperature(dict(self._model.named_parameters()), head, temperature)

        def measure(logits_BC: np.ndarray, targets_B: np.ndarray) -> tuple[np.ndarray, RowCounts]:
            probabilities_BC = task.probabilities(logits_BC)
            return task.confidence_counts(probabilities_BC, targets_B), task.counts(probabilities_BC, targets_B)

        confidences, counts = self._sum_over("val", measure)
        threshold = 0.0
        if spec.min_precision is not None:
            threshold = lowest_threshold(confidences, spec.min_precision)
        return Calibration(
            temperature=temperature,
            ece_before=ece_before,
            ece_after=task.headline(task.summarise(counts, self._labels))["ece"],
            threshold=threshold,
            min_precision=spec.min_precision,
        )

    def _sum_over(self, split: str, measure: Measure) -> tuple[Any, ...]:
        """The sum of a measure over all rows of a split, the same on every rank."""
        data = self._data[split]
        device = next(self._model.parameters()).device
        total = measure(np.empty((0, len(self._labels))), self._task.encode((), self._labels))
        batches = micro_batches(np.arange(len(data)), data.lengths, self._max_tokens)
        self._model.eval()
        with torch.inference_mode():
            for rows in batches[self._rank :: self._world_size]:
                batch = data.batch(rows, self._pad_id).to(device)
                logits_BC = logits_of(
                    self._model, batch.input_ids_BL, batch.attention_mask_BL, batch.token_types_BL, bf16=self._bf16
                )
                total = _added(total, measure(logits_BC.cpu().numpy(), data.targets[rows]))
        if self._world_size > 1:
            totals: list[Any] = [None] * self._world_size
            torch.distributed.all_gather_object(totals, total)
            total = functools.reduce(_added, totals)
        return total


def _added(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
