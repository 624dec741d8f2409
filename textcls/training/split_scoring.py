"""What the rows of a split add up to, over all workers: counts, losses, and the calibration they ask for.

In: a module, token rows, this rank. Out: sums that are the same on every rank. Not here: when to score (loop.py).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed

from textcls.bundle import Calibration
from textcls.modeling.batching import micro_batches
from textcls.modeling.build import divide_logits, logits_of
from textcls.settings.recipe import CalibrationSpec
from textcls.tasks.calibration import (
    best_temperature,
    confidence_counts,
    lowest_threshold,
    softmax,
    temperature_losses,
)
from textcls.tasks.metrics import Counts, summarise
from textcls.training.token_rows import TokenRows

# (float [B, C] logits, int64 [B] label ids) -> arrays or counts that add up over rows.
Measure = Callable[[np.ndarray, np.ndarray], tuple[Any, ...]]


class Scoring:
    """Scores splits with a module, each row once by one rank.

    Args:
        model: the bare module. Ranks may hold different numbers of batches, and a wrapper would wait for its peers.
        data: split -> token rows.
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
        labels: Sequence[str],
        *,
        pad_id: int,
        max_tokens: int,
        bf16: bool,
        rank: int,
        world_size: int,
    ) -> None:
        self._model, self._data, self._labels = model, data, labels
        self._pad_id, self._max_tokens, self._bf16 = pad_id, max_tokens, bf16
        self._rank, self._world_size = rank, world_size

    def counts(self, split: str, threshold: float = 0.0) -> Counts:
        """Counts over all rows of a split; below the threshold the model abstains."""

        def measure(logits_BC: np.ndarray, labels_B: np.ndarray) -> tuple[Counts]:
            return (Counts.of(softmax(logits_BC), labels_B, threshold=threshold),)

        (counts,) = self._sum_over(split, measure)
        return counts  # type: ignore[no-any-return]

    def calibrate(self, spec: CalibrationSpec, *, head: str, ece_before: float) -> Calibration:
        """Fits temperature and threshold on the validation split; the module's logits are calibrated from here on."""
        temperature = 1.0
        if spec.temperature:
            (losses,) = self._sum_over("val", lambda logits_BC, labels_B: (temperature_losses(logits_BC, labels_B),))
            temperature = best_temperature(losses)
            divide_logits(self._model, head, temperature)

        def measure(logits_BC: np.ndarray, labels_B: np.ndarray) -> tuple[np.ndarray, Counts]:
            return confidence_counts(logits_BC, labels_B), Counts.of(softmax(logits_BC), labels_B)

        confidences, counts = self._sum_over("val", measure)
        threshold = 0.0
        if spec.min_precision is not None:
            threshold = lowest_threshold(confidences, spec.min_precision)
        return Calibration(
            temperature=temperature,
            ece_before=ece_before,
            ece_after=summarise(counts, self._labels)["ece"],
            threshold=threshold,
            min_precision=spec.min_precision,
        )

    def _sum_over(self, split: str, measure: Measure) -> tuple[Any, ...]:
        """The sum of a measure over all rows of a split, the same on every rank."""
        data, classes = self._data[split], len(self._labels)
        device = next(self._model.parameters()).device
        total = measure(np.empty((0, classes)), np.empty(0, np.int64))
        batches = micro_batches(np.arange(len(data)), data.lengths, self._max_tokens)
        self._model.eval()
        with torch.inference_mode():
            for rows in batches[self._rank :: self._world_size]:
                batch = data.batch(rows, self._pad_id).to(device)
                logits_BC = logits_of(self._model, batch.input_ids_BL, batch.attention_mask_BL, bf16=self._bf16)
                total = _added(total, measure(logits_BC.cpu().numpy(), data.labels[rows]))
        if self._world_size > 1:
            totals: list[Any] = [None] * self._world_size
            torch.distributed.all_gather_object(totals, total)
            total = functools.reduce(_added, totals)
        return total


def _added(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
