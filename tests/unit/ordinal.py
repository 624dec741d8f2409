"""A task that is no part of textcls: its labels are the steps of a scale.

A row's target is one yes or no for each step: whether the row reaches it. The network learns these by binary
cross-entropy, and the answer is the last step whose probability to be reached is one half or more (Frank and Hall 2001,
"A Simple Approach to Ordinal Classification").
"""

import csv
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textcls.tasks.calibration import confidence_counts
from textcls.tasks.metrics import Counts, summarise
from textcls.tasks.single_label import SingleLabel
from textcls.tasks.task import HeadlineMetric

STEPS = ("1", "2", "3", "10")
# With these the tiny model learns `write_ratings` in seconds.
SETTINGS = (
    *("train.select_by=loss", "train.epochs=8", "train.rows_per_step=8", "train.learning_rate=0.003"),
    *("model.dropout=0", "calibration.min_precision=0.95"),
)


@dataclass(frozen=True)
class OrdinalCounts:
    """Counts of exact answers, and by how many steps the answers miss in all."""

    exact: Counts
    missed_steps: int

    @property
    def rows(self) -> int:
        return self.exact.rows

    def __add__(self, other: "OrdinalCounts") -> "OrdinalCounts":
        return OrdinalCounts(self.exact + other.exact, self.missed_steps + other.missed_steps)


@dataclass(frozen=True)
class Ordinal(SingleLabel):
    """Reads, words and shows answers as a task of one label a row; learns, decides and measures in its own way."""

    name: str = "ordinal"
    problem_type: str = "multi_label_classification"
    function_to_apply: str = "sigmoid"

    @property
    def headline_metrics(self) -> Mapping[str, HeadlineMetric]:
        return {
            "mean_missed_steps": HeadlineMetric("missed steps", -1),
            "accuracy": HeadlineMetric("accuracy", +1),
            "loss": HeadlineMetric("loss", -1),
        }

    def encode(self, labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
        step = super().encode(labels, names)
        return (np.arange(len(names)) <= step[:, None]).astype(np.float32)

    def decode(self, targets: np.ndarray, names: Sequence[str]) -> Sequence[str]:
        return super().decode(_step_of(targets), names)

    def label_rows(self, targets: np.ndarray, classes: int) -> np.ndarray:
        return super().label_rows(_step_of(targets), classes)

    def baseline_targets(self, targets: np.ndarray) -> np.ndarray:
        return _step_of(targets)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        reached = 1 / (1 + np.exp(-logits.astype(np.float64)))
        reached[:, 0] = 1
        reached = np.minimum.accumulate(reached, axis=1)
        return reached - np.pad(reached[:, 1:], ((0, 0), (0, 1)))

    def decide(self, probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            is_sure = self.confidence(probabilities) >= thresholds[0]
        return np.where(is_sure, self._steps(probabilities), -1).astype(np.int32)

    def _steps(self, probabilities: np.ndarray) -> np.ndarray:
        reached = probabilities[:, ::-1].cumsum(axis=1)[:, ::-1]
        return (reached[:, 1:] >= 0.5).sum(axis=1)

    def confidence(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities[np.arange(len(probabilities)), self._steps(probabilities)]

    def answer(
        self, probabilities: np.ndarray, decision: Any, names: Sequence[str], limit: int | None
    ) -> dict[str, Any]:
        score = float(self.confidence(probabilities[None])[0])
        return super().answer(probabilities, decision, names, limit) | {"score": score}

    def counts(self, probabilities: np.ndarray, targets: np.ndarray, thresholds: np.ndarray | None = None) -> Any:
        found, truth = self._steps(probabilities), _step_of(targets)
        threshold = 0.0 if thresholds is None else thresholds[0]
        exact = Counts.of(probabilities, truth, threshold=threshold, predicted=found)
        return OrdinalCounts(exact, int(np.abs(found - truth).sum()))

    def summarise(self, counts: Any, names: Sequence[str]) -> dict[str, Any]:
        return summarise(counts.exact, names) | {"mean_missed_steps": counts.missed_steps / max(counts.rows, 1)}

    def headline(self, summary: Mapping[str, Any]) -> dict[str, float]:
        of_one_label = super().headline(summary)
        return {"mean_missed_steps": summary["mean_missed_steps"]} | {
            name: of_one_label[name] for name in ("accuracy", "loss", "ece")
        }

    def log_losses(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return super().log_losses(probabilities, _step_of(targets))

    def row_losses(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return super().row_losses(probabilities, _step_of(targets))

    def best_other(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        steps = super().best_other(probabilities, _step_of(targets))
        return (np.arange(probabilities.shape[1]) <= steps[:, None]).astype(np.float32)

    def threshold_counts(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        is_right = self._steps(probabilities) == _step_of(targets)
        return confidence_counts(self.confidence(probabilities), is_right)


def _step_of(targets: np.ndarray) -> np.ndarray:
    return targets.sum(axis=1).astype(np.int64) - 1


ORDINAL = Ordinal()


def write_ratings(path: Path, rows: int, seed: int = 0) -> Path:
    """Reviews of which two words tell the step, but for one in ten."""
    chance = random.Random(seed)
    words = dict(zip(STEPS, ("awful", "boring", "moving", "wonderful"), strict=True))
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("text", "label"))
        for i in range(rows):
            step = chance.choice(STEPS)
            text = f"the film was {words[step]} and its plot {words[step]}, no {i}"
            table.writerow((text, step if i % 10 else chance.choice(STEPS)))
    return path
