"""The task in which each row has exactly one label.

In: label cells, logits. Out: what the protocol in task.py asks for. A target is a label id (int32), probabilities are
the softmax of the logits, the decision is the most probable label or, below a threshold, to abstain. Not here: the
numbers of a summary (metrics.py), temperature and threshold (calibration.py), which other tasks use as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textcls.settings.data import DataSpec
from textcls.settings.recipe import CalibrationSpec, SplitSpec
from textcls.tasks import calibration, metrics
from textcls.tasks.label_cells import names_reader
from textcls.tasks.labels import ABSTAIN, ABSTAIN_MEANS
from textcls.tasks.shares import rounded_shares
from textcls.tasks.task import HeadlineMetric, LabelReader, ReadLabel, ranked

_ABSTAINED = -1


@dataclass(frozen=True)
class SingleLabel:
    """One label a row; see `Task` for what each method promises."""

    name: str = "single_label"
    problem_type: str = "single_label_classification"
    function_to_apply: str = "softmax"
    scores_in_answer: bool = False
    share_of_right: str = "accuracy"

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

    def reserved_names(self, abstains: bool) -> Mapping[str, str]:
        """`abstain`, in a classifier that does."""
        return {ABSTAIN: ABSTAIN_MEANS} if abstains else {}

    def label_reader(self, data: DataSpec) -> LabelReader:
        """A label is the one name that the cells have, after `data.label_map`."""
        read_names = names_reader(data)

        def read(cells: tuple[str, ...], /) -> ReadLabel:
            names, found = read_names(cells)
            if found.reason:
                return found
            if len(names) != 1:
                return found._replace(reason="several_labels" if names else "missing_label")
            return found._replace(label=names[0])

        return read

    def names_in(self, label: str) -> Sequence[str]:
        """The label itself."""
        return (label,)

    def label_of(self, names: Sequence[str]) -> str:
        """The one name."""
        (name,) = names
        return name

    def encode(self, labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """int32 [U]: label ids."""
        id_of = {name: i for i, name in enumerate(names)}
        return np.array([id_of[label] for label in labels], np.int32)

    def decode(self, targets: np.ndarray, names: Sequence[str]) -> Sequence[str]:
        """Label names."""
        return [names[target] for target in targets.tolist()]

    def merge(self, labels: Sequence[str]) -> str:
        """Never called: a row cannot have two labels, so the settings refuse `union`."""
        raise NotImplementedError

    def cut_points(self, labels: Sequence[str], rows: np.ndarray, names: Sequence[str], spec: SplitSpec) -> np.ndarray:
        """int64 [U, 2]: see `rounded_shares`."""
        return rounded_shares(rows, spec)

    def label_rows(self, targets: np.ndarray, classes: int) -> np.ndarray:
        """int64 [C]: rows of each label."""
        return np.bincount(targets, minlength=classes).astype(np.int64)

    def baseline_targets(self, targets: np.ndarray) -> np.ndarray:
        """The label ids."""
        return targets.astype(np.int64, copy=False)

    # --- answers -----------------------------------------------------------------------------------------------------

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float64 [N, C], each row sums to 1."""
        return calibration.softmax(logits)

    def default_thresholds(self, classes: int) -> np.ndarray:
        """float64 [1]: 0, the confidence below which the answer is to abstain."""
        return np.zeros(1)

    def decide(self, probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """int32 [N]: the most probable label, of equal ones the smallest id; -1 where it is below the threshold."""
        with np.errstate(invalid="ignore"):
            is_sure = probabilities.max(axis=1) >= thresholds[0]
        return np.where(is_sure, probabilities.argmax(axis=1), _ABSTAINED).astype(np.int32)

    def thresholds_as_json(self, thresholds: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        """{abstain_below}: the confidence below which the answer is to abstain."""
        return {"abstain_below": float(thresholds[0])}

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

    def margins(self, probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """float [N]: the highest probability less the second highest."""
        highest_N2 = np.sort(np.pad(probabilities, ((0, 0), (1, 0))), axis=1)[:, -2:]
        found: np.ndarray = highest_N2[:, 1] - highest_N2[:, 0]
        return found

    def answer(
        self, probabilities: np.ndarray, decision: Any, names: Sequence[str], limit: int | None
    ) -> dict[str, Any]:
        """{label, score, scores}: the label or `abstain`, and the probability of the most probable label."""
        scores = [{"label": label, "score": score} for label, score in ranked(probabilities, names, limit)]
        return {"label": self.words(decision, names), "score": float(probabilities.max()), "scores": scores}

    def answer_cells(
        self, probabilities: np.ndarray, decisions: np.ndarray, names: Sequence[str]
    ) -> Sequence[np.ndarray]:
        """Label names as objects, confidences as they are."""
        # The last place is that of -1.
        words = np.array([*names, ABSTAIN], object)
        return words[decisions], self.confidence(probabilities)

    def names_had(self, targets: np.ndarray, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The one name of each row."""
        return [(names[i],) for i in self.baseline_targets(targets).tolist()]

    def names_given(
        self, probabilities: np.ndarray, thresholds: np.ndarray, names: Sequence[str]
    ) -> list[tuple[str, ...]]:
        """The one name that each row is given where nothing is abstained from."""
        decisions = self.decide(probabilities, self.default_thresholds(len(names)))
        return [(names[i],) for i in decisions.tolist()]

    def answer_rows(self, decisions: np.ndarray, names: Sequence[str]) -> Mapping[str, int]:
        """Label name or `abstain` -> rows."""
        found, rows = np.unique(decisions, return_counts=True)
        return {self.words(one, names): n for one, n in zip(found.tolist(), rows.tolist(), strict=True)}

    # --- measures ----------------------------------------------------------------------------------------------------

    def counts(
        self, probabilities: np.ndarray, targets: np.ndarray, thresholds: np.ndarray | None = None
    ) -> metrics.Counts:
        """See `metrics.Counts.of`."""
        return metrics.Counts.of(probabilities, targets, threshold=0.0 if thresholds is None else thresholds[0])

    def right(self, probabilities: np.ndarray, targets: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """bool [N]: where the decision is the label, if nothing is abstained from."""
        decisions = self.decide(probabilities, self.default_thresholds(probabilities.shape[1]))
        found: np.ndarray = decisions == self.baseline_targets(targets)
        return found

    def at_best_thresholds(self, counts: Any) -> Any:
        """The counts: a threshold decides which rows are answered, and metrics are of all rows."""
        return counts

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

    def log_losses(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """float64 []: see `calibration.log_loss`."""
        return calibration.log_loss(probabilities, targets)

    def row_losses(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """float64 [N]: see `calibration.row_log_losses`."""
        return calibration.row_log_losses(probabilities, targets)

    def best_other(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """int32 [N]: the most probable other label."""
        others = np.array(probabilities, np.float64)
        others[np.arange(len(targets)), targets] = -1.0
        found: np.ndarray = others.argmax(axis=1).astype(np.int32)
        return found

    def temperatures(self, losses: np.ndarray, label_rows: np.ndarray) -> float:
        """See `calibration.best_temperature`."""
        return calibration.best_temperature(losses)

    def threshold_counts(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """int64 [2, 2000]: a row is answered rightly if its most probable label is its label."""
        return calibration.confidence_counts(self.confidence(probabilities), probabilities.argmax(axis=1) == targets)

    def choose_thresholds(self, counts: np.ndarray, spec: CalibrationSpec) -> np.ndarray:
        """float64 [1]: see `calibration.lowest_threshold`."""
        if spec.min_precision is None:
            return self.default_thresholds(0)
        return np.array([calibration.lowest_threshold(counts, spec.min_precision)])


SINGLE_LABEL = SingleLabel()
