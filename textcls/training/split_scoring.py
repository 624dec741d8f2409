"""What the rows of a split add up to over all workers: counts, losses, and the calibration fitted to them.

In: a module, token rows, the task, this rank. Out: sums that are equal on every rank. Not here: what is counted
(tasks/), when to score (loop.py), how the scores of windows become those of a row (text/windows.py).

Shapes: B rows that are measured together, W windows of all of them, C labels; T as in tasks/task.py.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed

from textcls.manifest import Calibration
from textcls.modeling.batching import micro_batches
from textcls.modeling.build import fold_temperature, logits_of
from textcls.settings.recipe import CalibrationSpec
from textcls.slices.findings import Studied
from textcls.tasks.calibration import TEMPERATURES
from textcls.tasks.task import RowCounts, Task
from textcls.text.windows import mean_over_windows
from textcls.training.studied_rows import StudiedRows
from textcls.training.token_rows import TokenRows

# Rows that are measured at once: counts of many labels cost as much for one row as for a thousand.
_ROWS_MEASURED = 2048


@dataclass(frozen=True)
class RowLogits:
    """The logits of rows, window by window.

    Attributes:
        task: what they mean.
        logits_WC: float32.
        lengths_W: tokens of each window.
        windows_B: windows of each row.
        rows_B: position of each row in its split.
    """

    task: Task
    logits_WC: np.ndarray
    lengths_W: np.ndarray
    windows_B: np.ndarray
    rows_B: np.ndarray

    def probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """float64 [B, C]: the probabilities of the rows, their logits divided by a temperature."""
        found_WC = self.task.probabilities(self.logits_WC / temperature)
        if len(found_WC) == len(self.windows_B):
            return found_WC
        return mean_over_windows(found_WC, self.lengths_W, self.windows_B)


# (logits of B rows, [B, *T] targets) -> arrays or counts that add up over rows.
Measure = Callable[[RowLogits, np.ndarray], tuple[Any, ...]]


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

        def measure(logits: RowLogits, targets_B: np.ndarray) -> tuple[RowCounts]:
            return (task.counts(logits.probabilities(), targets_B, thresholds),)

        (counts,) = self._sum_over(split, measure)
        return counts  # type: ignore[no-any-return]

    def counts_and_findings(
        self, split: str, thresholds: np.ndarray, studied: StudiedRows
    ) -> tuple[RowCounts, Studied]:
        """Counts over all rows of a split, and what is found in them beside; scored once."""
        task = self._task

        def measure(logits: RowLogits, targets_B: np.ndarray) -> tuple[RowCounts, Studied]:
            probabilities_BC = logits.probabilities()
            counts = task.counts(probabilities_BC, targets_B, thresholds)
            return counts, studied(logits.rows_B, probabilities_BC, targets_B, thresholds)

        return self._sum_over(split, measure)

    def calibrate(self, spec: CalibrationSpec, *, head: str, ece_before: float) -> Calibration:
        """Fits temperatures and thresholds on the validation split; from here on the module's logits are calibrated."""
        task = self._task
        temperatures: float | np.ndarray = 1.0
        if spec.temperature:

            def losses(logits: RowLogits, targets_B: np.ndarray) -> tuple[np.ndarray]:
                scaled = map(logits.probabilities, TEMPERATURES)
                return (np.stack([task.log_losses(probabilities_BC, targets_B) for probabilities_BC in scaled]),)

            rows_C = task.label_rows(self._data["val"].targets, len(self._labels))
            (summed,) = self._sum_over("val", losses)
            temperatures = task.temperatures(summed, rows_C)
            divisors = temperatures if isinstance(temperatures, float) else temperatures.tolist()
            fold_temperature(dict(self._model.named_parameters()), head, divisors)

        def measure(logits: RowLogits, targets_B: np.ndarray) -> tuple[np.ndarray, RowCounts]:
            probabilities_BC = logits.probabilities()
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
        data, none = self._data[split], np.empty(0, np.int32)
        no_rows = RowLogits(self._task, np.empty((0, len(self._labels)), np.float32), none, none, none)
        total = measure(no_rows, self._task.encode((), self._labels))
        batches = micro_batches(np.arange(len(data)), data.lengths, self._max_tokens)
        self._model.eval()
        logits: list[np.ndarray] = []
        measured: list[np.ndarray] = []
        with torch.inference_mode():
            for rows in batches[self._rank :: self._world_size]:
                logits.append(self._logits(data, rows))
                measured.append(rows)
                if sum(map(len, measured)) >= _ROWS_MEASURED:
                    total = _added(total, measure(*self._together(data, measured, logits)))
                    logits, measured = [], []
        if measured:
            total = _added(total, measure(*self._together(data, measured, logits)))
        if self._world_size > 1:
            totals: list[Any] = [None] * self._world_size
            torch.distributed.all_gather_object(totals, total)
            total = functools.reduce(_added, totals)
        return total

    def _logits(self, data: TokenRows, rows: np.ndarray) -> np.ndarray:
        """float32 [W, C] of all windows of these rows (int64), row by row."""
        windows, device = data.windows_of(rows), next(self._model.parameters()).device
        lengths_W = data.window_lengths[windows]
        found_WC = np.empty((len(windows), len(self._labels)), np.float32)
        # From the last to the first: micro_batches reverses equal lengths, and rows of one window stay in their order.
        for places in micro_batches(np.arange(len(windows))[::-1], lengths_W, self._max_tokens):
            batch = data.batch(windows[places], self._pad_id).to(device)
            logits_BC = logits_of(
                self._model, batch.input_ids_BL, batch.attention_mask_BL, batch.token_types_BL, bf16=self._bf16
            )
            found_WC[places] = logits_BC.cpu().numpy()
        return found_WC

    def _together(
        self, data: TokenRows, rows: Sequence[np.ndarray], logits: Sequence[np.ndarray]
    ) -> tuple[RowLogits, np.ndarray]:
        """(logits, targets) of several groups of rows."""
        rows_B = np.concatenate(rows)
        lengths_W = data.window_lengths[data.windows_of(rows_B)]
        scored = RowLogits(self._task, np.concatenate(logits), lengths_W, data.windows_of_row[rows_B], rows_B)
        return scored, data.targets[rows_B]


def _added(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
