"""What scored rows add up to beyond the scores: rows and right answers of each slice, and the rows worth reading.

In: rows with the numbers of their slices, probabilities and targets. Out: `RowFindings`, whose sum over any parts of
the rows, in any order, is that of the whole. Pure numpy. Not here: what divides rows (groups.py), which slices are
surely worse (summary.py), which file and line a row is (data/row_findings.py).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from textcls.errors import one_line
from textcls.slices.groups import CONFIDENCE, CodedRows, Group, SlicePlan, confidence_codes
from textcls.tasks.task import Task

MOST_EXAMPLES = 10
"""Rows of each kind that are worth reading."""


class Candidate(NamedTuple):
    """A row that may be worth reading.

    Attributes:
        row_id: where it is.
        score: how sure the answer is.
        labels: what the row has.
        predicted: what it is given.
    """

    row_id: int
    score: float
    labels: tuple[str, ...]
    predicted: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RowFindings:
    """What a set of scored rows adds up to; `+` gives the findings of both sets.

    Attributes:
        counts: int64 [2, K], rows and right answers of each slice, those of a group together, labels last.
        total: int64 [2], rows and right answers.
        mistakes: the wrong answers with the highest scores, by falling score; of equal ones the first row.
        unsure: the right answers with the lowest scores, by rising score; of equal ones the first row.
    """

    counts: np.ndarray
    total: np.ndarray
    mistakes: tuple[Candidate, ...]
    unsure: tuple[Candidate, ...]

    @property
    def examples(self) -> tuple[Candidate, ...]:
        """The rows worth reading, in the order of `Report.examples`."""
        return (*self.mistakes, *self.unsure)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.counts + other.counts,
            self.total + other.total,
            _first((*self.mistakes, *other.mistakes), -1),
            _first((*self.unsure, *other.unsure), +1),
        )


@dataclass(frozen=True, eq=False)
class Studied:
    """Findings that add up, or why there are none: they must not fail the scores that they are made beside.

    Attributes:
        findings: of all rows so far; None if finding some failed.
        error: why.
    """

    findings: RowFindings | None
    error: str = ""

    @classmethod
    def of(cls, find: Callable[[], RowFindings]) -> Self:
        """What a function finds, or the error that it raises."""
        try:
            return cls(find())
        except Exception as error:
            return cls(None, one_line(error))

    def found(self) -> RowFindings:
        """The findings.

        Raises:
            RuntimeError: there are none.
        """
        if self.findings is None:
            raise RuntimeError(self.error)
        return self.findings

    def __add__(self, other: Self) -> Self:
        if self.findings is None or other.findings is None:
            return self if self.findings is None else other
        return type(self)(self.findings + other.findings)


def _first(candidates: Iterable[Candidate], sign: int) -> tuple[Candidate, ...]:
    return tuple(sorted(candidates, key=lambda one: (sign * one.score, one.row_id))[:MOST_EXAMPLES])


@dataclass(frozen=True)
class RowStudy:
    """Finds what scored rows add up to; the same in training and in evaluation.

    Attributes:
        task: what is predicted.
        labels: label names in id order.
        plan: which slices there are.
    """

    task: Task
    labels: tuple[str, ...]
    plan: SlicePlan

    @property
    def groups(self) -> tuple[Group, ...]:
        """What rows are divided by, in the order of `RowFindings.counts`."""
        return (*self.plan.groups, CONFIDENCE, Group("label", self.labels))

    def no_rows(self) -> RowFindings:
        """The findings of no rows."""
        names = len(self.labels)
        rows = CodedRows(np.empty(0, np.int64), np.empty((len(self.plan.groups), 0), np.int16))
        return self(rows, np.empty((0, names)), self.task.encode((), self.labels), self.task.default_thresholds(names))

    def __call__(
        self, rows: CodedRows, probabilities: np.ndarray, targets: np.ndarray, thresholds: np.ndarray
    ) -> RowFindings:
        """The findings of N scored rows.

        Args:
            rows: their slices.
            probabilities: float [N, C], none of them NaN.
            targets: [N, *T], as the task encodes them.
            thresholds: float64 [K], of the classifier.
        """
        task = self.task
        right = task.right(probabilities, targets, thresholds)
        confidence = task.confidence(probabilities)
        before = [*self.plan.groups, CONFIDENCE]
        codes = np.vstack([rows.codes, confidence_codes(confidence)])
        ends = np.cumsum([len(group.values) for group in before])
        places = codes + (ends - [len(group.values) for group in before])[:, None]
        counts = [
            np.concatenate(
                [
                    np.bincount(places[:, kept].ravel(), minlength=ends[-1]),
                    task.label_rows(targets[kept], len(self.labels)),
                ]
            )
            for kept in (slice(None), right)
        ]

        def candidates(kept: np.ndarray, sign: int) -> tuple[Candidate, ...]:
            of_kept = np.flatnonzero(kept)
            best = of_kept[np.lexsort((rows.row_id[of_kept], sign * confidence[of_kept]))[:MOST_EXAMPLES]]
            return tuple(
                map(
                    Candidate,
                    rows.row_id[best].tolist(),
                    confidence[best].tolist(),
                    task.names_had(targets[best], self.labels),
                    task.names_given(probabilities[best], thresholds, self.labels),
                )
            )

        total = np.array([len(right), right.sum()], np.int64)
        return RowFindings(np.stack(counts).astype(np.int64), total, candidates(~right, -1), candidates(right, +1))
