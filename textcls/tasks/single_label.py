"""The task in which each row has exactly one label.

In: label cells, logits. Out: what the protocol in task.py asks for. A target is a label id (int32), probabilities are
the softmax of the logits, the decision is the most probable label or, below a threshold, to abstain. Not here: the
numbers of a summary (metrics.py), temperature and threshold (calibration.py), which other tasks use as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textcls.settings.recipe import DataSpec
from textcls.tasks import calibration, metrics
from textcls.tasks.labels import ABSTAIN, is_blank
from textcls.tasks.task import HeadlineMetric, LabelReader, ranked

_ABSTAINED = -1


@dataclass(frozen=True)
class SingleLabel:
    """One label a row; see `Task` for what each method promises."""

    name: str = "single_label"
    problem_type: str = "single_label_classification"
    function_to_apply: str = "softmax"

    @property
    def headline_metrics(self) -> Mapping[str, HeadlineMetric]:
        """Macro F1 comes first: it is the default of `train.select_by`."""
        return {
            "macro_f1": HeadlineMetric("macro F1", +1),
            "accuracy": HeadlineMetric("accuracy", +1),
            "loss": HeadlineMetric("loss", -1),
        }

    @property
    def answer_columns(self) -> Sequence[tuple[str, type]]:
        """The label or `abstain`, and the probability of the most probable label."""
        return (("label", str), ("score", np.float32))

    # --- rows --------------------------------------------------------------------------------------------------------

    def label_reader(self, data: DataSpec) -> LabelReader:
        """A label is the cell's label name, after `data.label_map`."""
        label_map = dict(data.label_map)
        known = frozenset(data.labels) if data.labels is not None else None

        def read(cell: str, /) -> tuple[str, str]:
            label = label_map.get(cell, cell)
            if is_blank(label):
                return label, "missing_label"
            return label, "unknown_label" if known is not None and label not in known else ""

        return read

    def names_in(self, label: str) -> Sequence[str]:
        """The label itself."""
        return (label,)

    def encode(self, labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """int32 [U]: label ids."""
        id_of = {name: i for i, name in enumerate(names)}
        return np.array([id_of[label] for label in labels], np.int32)

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """The label ids."""
        return targets.astype(np.int32, copy=False)

    def label_rows(self, targets: np.ndarray, classes: int) -> np.ndarray:
        """int64 [C]: rows of each label."""
        return np.bincount(targets, minlength=classes).astype(np.int64)

    def baseline_classes(self, targets: np.ndarray) -> np.ndarray:
        """The label ids."""
        return targets.astype(np.int64, copy=False)

    # --- answers -----------------------------------------------------------------------------------------------------

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float64 [N, C], each row sums to 1."""
        return calibration.softmax(logits)

    def decide(self, probabilities: np.ndarray, threshold: float) -> np.ndarray:
        """int32 [N]: the most probable label, of equal ones the smallest id; -1 where it is below the threshold."""
        with np.errstate(invalid="ignore"):
            is_sure = probabilities.max(axis=1) >= threshold
        return np.where(is_sure, probabilities.argmax(axis=1), _ABSTAINED).astype(np.int32)

    def abstained(self, decisions: np.ndarray) -> np.ndarray:
        """bool [N]."""
        found: np.ndarray = decisions == _ABSTAINED
        return found

    def words(self, decision: Any, names: Sequence[str]) -> str:
        """The label name, or `abstain`."""
        return ABSTAIN if decision == _ABSTAINED else names[decision]

    def confidence(self, probabilities: np.ndarray) -> np.ndarray:
        """float [N]: the probability of the most probable label."""
        found: np.ndarray = probabilities.max(axis=1)
        return found

    def answer(
        self, probabilities: np.ndarray, decision: Any, names: Sequence[str], most: int | None
    ) -> dict[str, Any]:
        """{label, score, scores}: the label or `abstain`, and the probability of the most probable label."""
        scores = [{"label": label, "score": score} for label, score in ranked(probabilities, names, most)]
        return {"label": self.words(decision, names), "score": float(probabilities.max()), "scores": scores}

    def answer_cells(
        self, probabilities: np.ndarray, decisions: np.ndarray, names: Sequence[str]
    ) -> Sequence[np.ndarray]:
        """Label names as objects, confidences as they are."""
        # The last place is that of -1.
        words = np.array([*names, ABSTAIN], object)
        return words[decisions], self.confidence(probabilities)

    def answer_rows(self, decisions: np.ndarray, names: Sequence[str]) -> Mapping[str, int]:
        """Label name or `abstain` -> rows."""
        found, rows = np.unique(decisions, return_counts=True)
        return {self.words(one, names): n for one, n in zip(found.tolist(), rows.tolist(), strict=True)}

    # --- measures ----------------------------------------------------------------------------------------------------

    def counts(self, probabilities: np.ndarray, targets: np.ndarray, threshold: float = 0.0) -> metrics.Counts:
        """See `metrics.Counts.of`."""
        return metrics.Counts.of(probabilities, targets, threshold=threshold)

    def summarise(self, counts: Any, names: Sequence[str]) -> dict[str, Any]:
        """See `metrics.summarise`."""
        return metrics.summarise(counts, names)

    def headline(self, summary: Mapping[str, Any]) -> dict[str, float]:
        """Macro F1, accuracy, log loss in nats, calibration error."""
        return {
            "macro_f1": summary["macro_f1"],
            "accuracy": summary["accuracy"]["value"],
            "loss": summary["log_loss"],
            "ece": summary["ece"],
        }

    def temperature_losses(self, logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """See `calibration.temperature_losses`."""
        return calibration.temperature_losses(logits, targets)

    def confidence_counts(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """A row is answered rightly if its most probable label is its label."""
        return calibration.confidence_counts(self.confidence(probabilities), probabilities.argmax(axis=1) == targets)


SINGLE_LABEL = SingleLabel()
