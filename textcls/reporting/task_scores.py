"""The part of a report that the task fills: how good a classifier is on some rows.

In: numbers that a task has computed. Out: `TaskScores`, and the confusions in it as lists and matrices.
Not here: computing the numbers (tasks/), the rest of a report (report.py).
"""

import numpy as np
from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of a report. Keys that this version of textcls does not know are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Proportion(Part):
    """A share of rows and its 95 % confidence interval; the value is None without rows."""

    value: float | None
    low: float
    high: float


class LabelScores(Part):
    """How well one label is recognized."""

    precision: float
    recall: float
    f1: float
    support: int
    """Rows that have this label."""
    predicted: int | None = None
    """Rows that are predicted to have it; None in reports of earlier versions."""
    ap: float | None = None
    """Average precision: the area under the precision-recall curve."""
    threshold: float | None = None
    """The label is predicted from this probability on."""

    def hits(self) -> tuple[int, int, int]:
        """Rows of the label that are found, those that are missed, and other rows that are predicted to have it.

        Where `predicted` is missing, the third number is 0 for a label without a hit: its precision is 0, however often
        it is predicted.
        """
        hits = round(self.recall * self.support)
        if self.predicted is not None:
            return hits, self.support - hits, self.predicted - hits
        return hits, self.support - hits, round(hits / self.precision) - hits if hits else 0


class Confusion(Part):
    """Which labels are predicted for which. Only pairs with rows: the size does not grow with the square of labels."""

    labels: tuple[str, ...]
    """Label names by label id."""
    support: tuple[int, ...]
    """Rows of each label."""
    pairs: tuple[tuple[int, int, int], ...]
    """(true label id, predicted label id, rows), by falling rows."""
    other_rows: int = 0
    """Rows of pairs that are not listed."""

    def most_confused(self, max_pairs: int) -> list[tuple[str, str, int, float]]:
        """(true label, predicted label, rows, share of the true label's rows) of the pairs with most rows, in order."""
        pairs = np.array(self.pairs, np.int64).reshape(-1, 3)
        wrong = pairs[pairs[:, 0] != pairs[:, 1]]
        worst = wrong[np.argsort(-wrong[:, 2], kind="stable")[:max_pairs]].tolist()
        names, support = self.labels, self.support
        return [(names[true], names[predicted], rows, rows / support[true]) for true, predicted, rows in worst]

    def matrix(self, max_cells: int) -> tuple[np.ndarray, np.ndarray]:
        """(int64 [n, n] rows by true and predicted label id, int64 [n] rows by true label id).

        Of more than `max_cells` labels, neighbours share one of the n = `max_cells` cells.
        """
        pairs, labels = np.array(self.pairs, np.int64).reshape(-1, 3), len(self.support)
        cells = min(labels, max_cells)
        cell_of = np.arange(labels) * cells // max(labels, 1)
        matrix, rows = np.zeros((cells, cells), np.int64), np.zeros(cells, np.int64)
        np.add.at(matrix, (cell_of[pairs[:, 0]], cell_of[pairs[:, 1]]), pairs[:, 2])
        np.add.at(rows, cell_of, np.array(self.support, np.int64))
        return matrix, rows


class CoOccurrence(Part):
    """Which labels occur in the same rows, and which are predicted for the same rows. Only pairs with rows."""

    labels: tuple[str, ...]
    """Label names by label id."""
    support: tuple[int, ...]
    """Rows that have each label."""
    pairs: tuple[tuple[int, int, int, int], ...]
    """(label id, greater label id, rows that have both, rows for which both are predicted)."""
    other_pairs: int = 0
    """Pairs with rows that are not listed."""

    def most_misjudged(self, max_pairs: int) -> list[tuple[str, str, int, int]]:
        """(label, label, rows that have both, rows for which both are predicted) where these differ most, in order."""
        pairs = np.array(self.pairs, np.int64).reshape(-1, 4)
        gap = np.abs(pairs[:, 2] - pairs[:, 3])
        worst = np.argsort(-gap, kind="stable")[:max_pairs]
        names = self.labels
        return [
            (names[i], names[j], true, predicted) for i, j, true, predicted in pairs[worst[gap[worst] > 0]].tolist()
        ]

    def matrix(self, max_cells: int) -> np.ndarray:
        """float64 [n, n]: the rows of pairs of labels, as a share of the rows that have the rarer of the two.

        Below the diagonal are the rows that have both labels, above it those for which both are predicted, which may be
        more than all. The diagonal, and pairs with a label that no row has, are NaN. Of more than `max_cells` labels,
        neighbours share one of the n = `max_cells` cells.
        """
        pairs, labels = np.array(self.pairs, np.int64).reshape(-1, 4), len(self.support)
        cells = min(labels, max_cells)
        cell_of = np.arange(labels) * cells // max(labels, 1)
        first, second = cell_of[pairs[:, 0]], cell_of[pairs[:, 1]]
        both, rows = np.zeros((cells, cells)), np.zeros(cells)
        apart = first != second
        np.add.at(both, (second[apart], first[apart]), pairs[apart, 2])
        np.add.at(both, (first[apart], second[apart]), pairs[apart, 3])
        np.add.at(rows, cell_of, np.array(self.support, np.float64))
        rarer = np.minimum(rows[:, None], rows)
        np.fill_diagonal(rarer, 0)
        return np.divide(both, rarer, out=np.full_like(both, np.nan), where=rarer > 0)


class NoLabel(Part):
    """Rows without any label."""

    true: int
    predicted: int


class ReliabilityBin(Part):
    """Answers whose confidence lies in (low, high]: one a row, or one for each label of a row."""

    low: float
    high: float
    rows: int
    confidence: float
    """Mean confidence of these rows."""
    accuracy: float


class CoveragePoint(Part):
    """What answering only from this confidence on would give."""

    confidence: float
    coverage: float
    """Share of the rows that would be answered."""
    accuracy: float


class Answered(Part):
    """The rows that the classifier answers at its threshold, rather than abstaining."""

    rows: int
    coverage: float | None
    accuracy: float | None


class TaskScores(Part):
    """How good a classifier is on some rows, as its task measures it.

    Only `rows` belongs to every task. A task leaves out what it has no such thing as, and adds scores of its own:
    every other key that holds a number is listed beside the known ones.
    """

    rows: int
    accuracy: Proportion | None = None
    subset_accuracy: Proportion | None = None
    """Rows whose labels are all right, and none too many."""
    micro_f1: float | None = None
    macro_f1: float | None = None
    macro_labels: int | None = None
    """Labels with rows, if the mean runs over these alone."""
    weighted_f1: float | None = None
    hamming_loss: float | None = None
    """Share of wrong answers among all rows and labels."""
    lrap: float | None = None
    """Label ranking average precision (Schapire and Singer 2000)."""
    map: float | None = None
    """Mean over labels of the average precision."""
    log_loss: float | None = None
    """In nats per row."""
    ece: float | None = None
    """Expected calibration error (Guo et al. 2017)."""
    per_class: dict[str, LabelScores] = {}
    """By label name, in the order of label ids."""
    confusion: Confusion | None = None
    co_occurrence: CoOccurrence | None = None
    no_label: NoLabel | None = None
    reliability: tuple[ReliabilityBin, ...] = ()
    """Bins that hold rows, by rising confidence."""
    coverage: tuple[CoveragePoint, ...] = ()
    answered: Answered | None = None

    def other_scores(self) -> dict[str, float]:
        """The numbers that the task added."""
        extra = self.model_extra or {}
        return {name: value for name, value in extra.items() if type(value) in (int, float)}
