"""What the rows of a split add up to, over all workers: counts, losses, and the calibration they ask for.

In: a module, token rows, this rank. Out: sums that are the same on every rank. Not here: when to score (worker.py).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.distributed

from textcls.bundle import Calibration
from textcls.calibration import (
    CONFIDENCE_STEPS,
    best_temperature,
    confidence_counts,
    lowest_threshold,
    softmax,
    temperature_losses,
)
from textcls.metrics import Counts, summarise
from textcls.recipe import CalibrationSpec
from textcls.training import plan
from textcls.training.collate import TokenRows
from textcls.training.model import divide_logits, logits_of

# (float [B, C] logits, int64 [B] label ids) -> an array that adds up over rows.
Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]


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

        def measure(logits_BC: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
            return Counts.of(softmax(logits_BC), labels_B, threshold=threshold).to_vector()

        return Counts.from_vector(self._sum_over(split, measure), len(self._labels))

    def calibrate(self, spec: CalibrationSpec, *, head: str, ece_before: float) -> Calibration:
        """Fits temperature and threshold on the validation split; the module's logits are calibrated from here on."""
        temperature = 1.0
        if spec.temperature:
            temperature = best_temperature(self._sum_over("val", temperature_losses))
            divide_logits(self._model, head, temperature)

        def measure(logits_BC: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
            counts = Counts.of(softmax(logits_BC), labels_B).to_vector()
            return np.concatenate([confidence_counts(logits_BC, labels_B).ravel(), counts])

        confidences, counts = np.split(self._sum_over("val", measure), [2 * CONFIDENCE_STEPS])
        threshold = 0.0
        if spec.min_precision is not None:
            threshold = lowest_threshold(confidences.reshape(2, CONFIDENCE_STEPS), spec.min_precision)
        return Calibration(
            temperature=temperature,
            ece_before=ece_before,
            ece_after=summarise(Counts.from_vector(counts, len(self._labels)), self._labels)["ece"],
            threshold=threshold,
            min_precision=spec.min_precision,
        )

    def _sum_over(self, split: str, measure: Measure) -> np.ndarray:
        """The sum of a measure over all rows of a split."""
        data, classes = self._data[split], len(self._labels)
        device = next(self._model.parameters()).device
        total = measure(np.empty((0, classes)), np.empty(0, np.int64)).astype(np.float64)
        batches = plan.micro_batches(np.arange(len(data)), data.lengths, self._max_tokens)
        self._model.eval()
        with torch.inference_mode():
            for rows in batches[self._rank :: self._world_size]:
                batch = data.batch(rows, self._pad_id).to(device)
                logits_BC = logits_of(self._model, batch.input_ids_BL, batch.attention_mask_BL, bf16=self._bf16)
                total += measure(logits_BC.cpu().numpy(), data.labels[rows])
        if self._world_size > 1:
            merged = torch.from_numpy(total).to(device)
            torch.distributed.all_reduce(merged)
            total = merged.cpu().numpy()
        return total
