"""The scores of a report as the page shows them: beside the baseline's, by label, and by pairs of labels.

In: a `Report`. Out: rows of tables, bounded, as values for the template. Not here: the other parts of the page
(page.py, page_charts.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textcls.plain_text import visible
from textcls.reporting.intervals import f1_interval, macro_f1_interval
from textcls.reporting.report import Report
from textcls.reporting.task_scores import LabelScores, Proportion, TaskScores
from textcls.reporting.terminal import MOST_CLASSES, SCORES

LOWER_IS_BETTER = frozenset({"hamming_loss", "log_loss", "ece"})
MEANINGS: Mapping[str, str] = {
    "accuracy": "share of the rows whose label is right",
    "micro_f1": "F1 of all labels and rows taken together",
    "macro_f1": "mean over the labels of F1, the harmonic mean of precision and recall",
    "weighted_f1": "the same mean, weighted by the rows of each label",
    "map": "mean over the labels of the area under the precision-recall curve",
    "lrap": "of the labels ranked at least as high as a right one, the share that is right",
    "subset_accuracy": "share of the rows with exactly the right labels",
    "hamming_loss": "share of wrong answers among all rows and labels; lower is better",
    "log_loss": "mean of -log(probability of the truth); lower is better",
    "ece": "mean distance between how sure answers are and how often they are right; lower is better",
}
"""Score -> what it is, for readers who do not compute such scores every day."""

_HEADLINES = ("accuracy", "macro_f1", "micro_f1", "map", "subset_accuracy", "ece")
_MOST_HEADLINES = 4
_NAME_CHARS = 120
_LISTED_LABELS, _FOLDED_LABELS = MOST_CLASSES, 80
_LISTED_PAIRS, _FOLDED_PAIRS = 10, 40


@dataclass(frozen=True)
class Score:
    """A score of the classifier, and the baseline's.

    Attributes:
        name: in words.
        meaning: what it is; empty if that is not known.
        value: the classifier's; None if it could not be computed.
        interval: 95 %, where it is known.
        other: the baseline's value.
        other_interval: of the baseline.
        lower_is_better: whether a lower score is better.
    """

    name: str
    meaning: str
    value: float | None
    interval: Proportion | None = None
    other: float | None = None
    other_interval: Proportion | None = None
    lower_is_better: bool = False

    @property
    def difference(self) -> str | None:
        """How much better or worse than the baseline; None if there is nothing to compare."""
        if self.value is None or self.other is None:
            return None
        gain = self.other - self.value if self.lower_is_better else self.value - self.other
        if abs(gain) < 0.00005:
            return "equal"
        return f"{abs(gain):.4f} {'better' if gain > 0 else 'worse'}"


@dataclass(frozen=True)
class LabelRow:
    """A label in the table of labels."""

    name: str
    scores: LabelScores
    interval: Proportion | None
    baseline_f1: float | None


@dataclass(frozen=True)
class Bounded:
    """A list that a page can hold: the first part is shown, the second one unfolds, the rest is counted."""

    shown: list[Any]
    folded: list[Any]
    left_out: int

    @classmethod
    def of(cls, items: list[Any], shown: int, folded: int) -> "Bounded":
        """The items in their order."""
        rest = items[shown : shown + folded]
        return cls(items[:shown], rest, len(items) - len(items[:shown]) - len(rest))

    @property
    def total(self) -> int:
        """Of all items."""
        return len(self.shown) + len(self.folded) + self.left_out


def scores_of(report: Report) -> list[Score]:
    """The scores of the test rows in the order of the terminal's table, those that only this task has at the end."""
    test, baseline = report.test, report.scored_baseline()
    return [*_known(test, baseline), *_added(test, baseline)]


def _known(test: TaskScores, baseline: TaskScores | None) -> Iterator[Score]:
    for key, name in SCORES:
        if key not in test.model_fields_set:
            continue
        if key == "macro_f1" and test.macro_labels is not None and test.macro_labels < len(test.per_class):
            name += f" of {test.macro_labels} labels"
        value, interval = _value(test, key)
        other, other_interval = _value(baseline, key) if baseline else (None, None)
        yield Score(name, MEANINGS.get(key, ""), value, interval, other, other_interval, key in LOWER_IS_BETTER)


def _added(test: TaskScores, baseline: TaskScores | None) -> Iterator[Score]:
    others = baseline.other_scores() if baseline else {}
    for key, value in test.other_scores().items():
        yield Score(key.replace("_", " "), "", value, other=others.get(key))


def headlines(report: Report) -> list[Score]:
    """The few scores that the page shows large."""
    test, baseline = report.test, report.scored_baseline()
    found = {key: name for key, name in SCORES if key in test.model_fields_set}
    chosen = [key for key in _HEADLINES if key in found and _value(test, key)[0] is not None][:_MOST_HEADLINES]
    return [score for key in chosen for score in _known(test, baseline) if score.name.startswith(found[key])]


def _value(scores: TaskScores, key: str) -> tuple[float | None, Proportion | None]:
    """(a score, its interval)."""
    found = getattr(scores, key)
    if isinstance(found, Proportion):
        return found.value, found if found.value is not None else None
    return found, macro_f1_interval(scores) if key == "macro_f1" and found is not None else None


def labels_of(report: Report) -> Bounded:
    """The labels by rising F1: those that need attention come first. Labels without rows come last."""
    test, baseline = report.test, report.scored_baseline()
    others = baseline.per_class if baseline else {}
    rows = [
        LabelRow(
            visible(name, _NAME_CHARS),
            one,
            f1_interval(one) if one.support else None,
            others[name].f1 if name in others else None,
        )
        for name, one in test.per_class.items()
    ]
    rows.sort(key=lambda row: (not row.scores.support, row.scores.f1))
    return Bounded.of(rows, _LISTED_LABELS, _FOLDED_LABELS)


def confused_pairs(report: Report) -> Bounded:
    """(true label, predicted label, rows, share of the true label's rows) by falling rows."""
    confusion = report.test.confusion
    pairs = confusion.most_confused(len(confusion.pairs)) if confusion else []
    named = [(_name(true), _name(predicted), rows, share) for true, predicted, rows, share in pairs]
    return Bounded.of(named, _LISTED_PAIRS, _FOLDED_PAIRS)


def wrong_labels(report: Report) -> Bounded:
    """(label, its rows, rows that lack it in the answer, rows that have it in the answer alone), the most wrong first.

    Only of a task where a row has several labels.
    """
    if not report.test.co_occurrence:
        return Bounded([], [], 0)
    found = [(_name(name), one.support, *one.hits()[1:]) for name, one in report.test.per_class.items()]
    found = [row for row in found if row[2] + row[3]]
    found.sort(key=lambda row: -(row[2] + row[3]))
    return Bounded.of(found, _LISTED_PAIRS, _FOLDED_PAIRS)


def misjudged_pairs(report: Report) -> Bounded:
    """(label, label, rows that have both, rows for which both are predicted), the greatest difference first."""
    together = report.test.co_occurrence
    pairs = together.most_misjudged(len(together.pairs)) if together else []
    named = [(_name(first), _name(second), true, predicted) for first, second, true, predicted in pairs]
    return Bounded.of(named, _LISTED_PAIRS, _FOLDED_PAIRS)


@dataclass(frozen=True)
class Matrix:
    """A small matrix of labels.

    Attributes:
        names: of the labels.
        cells: for each row of the matrix, (share from 0 to 1 or None, rows or None) of each column.
    """

    names: list[str]
    cells: Sequence[Sequence[tuple[float | None, int | None]]]


def confusion_matrix(report: Report) -> Matrix | None:
    """Rows by true and predicted label, as share of the true label; None for more than 20 labels."""
    confusion = report.test.confusion
    if not confusion or len(confusion.labels) > MOST_CLASSES:
        return None
    rows, support = confusion.matrix(MOST_CLASSES)
    share = rows / np.maximum(support[:, None], 1)
    cells = [[(float(share[i, j]), int(rows[i, j])) for j in range(len(support))] for i in range(len(support))]
    return Matrix([_name(name) for name in confusion.labels], cells)


def co_occurrence_matrix(report: Report) -> Matrix | None:
    """Shares of the rarer label's rows: below the diagonal as they are, above it as predicted; None for over 20."""
    together = report.test.co_occurrence
    if not together or len(together.labels) > MOST_CLASSES:
        return None
    share = together.matrix(MOST_CLASSES)
    cells = [[(float(value) if np.isfinite(value) else None, None) for value in row] for row in share]
    return Matrix([_name(name) for name in together.labels], cells)


def _name(label: str) -> str:
    return visible(label, _NAME_CHARS)
