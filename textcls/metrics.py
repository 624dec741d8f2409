"""How good a classifier is, from counts that add up.

In: probabilities and true label ids, piece by piece, in any process. Out: `Counts`, which add to the counts of all
pieces, and `summarise`, which turns them into accuracy, F1 and calibration ready for JSON. Pure numpy.
Not here: running a model (inference/classifier.py) and showing the numbers (report.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

CONFIDENCE_BINS = 15
"""Equal-width bins of the calibration error, as many as Guo et al. (2017) use."""

_SMALLEST_PROBABILITY = 1e-12
_Z_95 = 1.959963984540054  # the normal distribution's 0.975 quantile


@dataclass(frozen=True, eq=False)
class Counts:
    """What a set of scored rows adds up to; `+` gives the counts of both sets.

    Whole numbers add exactly, so neither order nor partition matters; the two sums of floats add up to rounding.
    The predicted label is the most probable one, of equal ones that with the smallest id; its probability is the
    confidence. Bin m of M holds confidences in (m/M, (m+1)/M].

    Attributes:
        confusion: int64 [C, C], rows by true label id (first axis) and predicted label id (second).
        loss: sum over rows of -ln p(true label).
        bin_rows: int64 [15], rows by confidence.
        bin_correct: int64 [15], those of them whose prediction is right.
        bin_confidence: float64 [15], sum of their confidences.
        answered: rows whose confidence reaches the threshold they were counted with; all rows if it is 0.
        answered_correct: those of them whose prediction is right.
    """

    confusion: np.ndarray
    loss: float
    bin_rows: np.ndarray
    bin_correct: np.ndarray
    bin_confidence: np.ndarray
    answered: int
    answered_correct: int

    @classmethod
    def zero(cls, classes: int) -> Self:
        """The counts of no rows."""
        return cls.from_vector(np.zeros(classes * classes + 3 + 3 * CONFIDENCE_BINS), classes)

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: np.ndarray, *, threshold: float = 0.0) -> Self:
        """The counts of these rows.

        Args:
            probabilities: float [N, C], each row sums to 1.
            labels: int [N], true label ids.
            threshold: a less confident row counts as not answered.

        Raises:
            ValueError: probabilities that are none, or label ids the probabilities have no column for: our own bug, or
                a model whose weights are no longer finite.
        """
        p = np.asarray(probabilities, np.float64)
        labels = np.asarray(labels, np.int64)
        _check(p, labels)
        rows, classes = p.shape
        predicted = p.argmax(axis=1)
        confidence = p[np.arange(rows), predicted]
        of_truth = np.clip(p[np.arange(rows), labels], _SMALLEST_PROBABILITY, 1.0)
        bins = np.clip(np.ceil(confidence * CONFIDENCE_BINS).astype(np.int64) - 1, 0, CONFIDENCE_BINS - 1)
        pairs = np.bincount(labels * classes + predicted, minlength=classes * classes)
        return cls(
            confusion=pairs.astype(np.int64).reshape(classes, classes),
            loss=float(-np.log(of_truth).sum()),
            bin_rows=np.bincount(bins, minlength=CONFIDENCE_BINS).astype(np.int64),
            bin_correct=np.bincount(bins[predicted == labels], minlength=CONFIDENCE_BINS).astype(np.int64),
            bin_confidence=np.bincount(bins, confidence, minlength=CONFIDENCE_BINS),
            answered=int((confidence >= threshold).sum()),
            answered_correct=int(((confidence >= threshold) & (predicted == labels)).sum()),
        )

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.confusion + other.confusion,
            self.loss + other.loss,
            self.bin_rows + other.bin_rows,
            self.bin_correct + other.bin_correct,
            self.bin_confidence + other.bin_confidence,
            self.answered + other.answered,
            self.answered_correct + other.answered_correct,
        )

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.confusion)

    @property
    def rows(self) -> int:
        """Number of rows counted."""
        return int(self.confusion.sum())

    def to_vector(self) -> np.ndarray:
        """float64 [C * C + 48]: workers may sum these vectors instead of their counts.

        Exact as long as no count reaches 2**53.
        """
        answered = [self.answered, self.answered_correct]
        parts = (self.confusion.ravel(), [self.loss], self.bin_rows, self.bin_correct, self.bin_confidence, answered)
        return np.concatenate([np.asarray(part, np.float64) for part in parts])

    @classmethod
    def from_vector(cls, vector: np.ndarray, classes: int) -> Self:
        """The counts behind a vector or a sum of vectors."""
        ends = np.cumsum([classes * classes, 1, CONFIDENCE_BINS, CONFIDENCE_BINS, CONFIDENCE_BINS, 2])
        assert vector.shape == (ends[-1],), f"a vector of {vector.shape} does not hold counts of {classes} classes"
        confusion, loss, bin_rows, bin_correct, bin_confidence, answered = np.split(
            np.asarray(vector, np.float64), ends[:-1]
        )
        return cls(
            np.rint(confusion).astype(np.int64).reshape(classes, classes),
            float(loss[0]),
            np.rint(bin_rows).astype(np.int64),
            np.rint(bin_correct).astype(np.int64),
            bin_confidence.copy(),
            *np.rint(answered).astype(int).tolist(),
        )


def _check(p: np.ndarray, labels: np.ndarray) -> None:
    if p.ndim != 2 or labels.shape != p.shape[:1]:
        raise ValueError(f"probabilities {p.shape} and labels {labels.shape} are not [N, C] and [N]")
    # Sums as loose as bfloat16 rounding; NaN fails every comparison.
    bad = ~((p >= 0).all(axis=1) & (np.abs(p.sum(axis=1) - 1) < 0.02))
    if bad.any():
        first = int(bad.argmax())
        raise ValueError(
            f"{int(bad.sum())} of {len(p)} rows are not probabilities that sum to 1; the first, row {first}: "
            f"{p[first, :5].tolist()}. NaN means that the model's weights are no longer finite."
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < p.shape[1]:
        raise ValueError(f"label ids {labels.min()} to {labels.max()} where 0 to {p.shape[1] - 1} are possible")


def summarise(counts: Counts, labels: Sequence[str]) -> dict[str, Any]:
    """The numbers that counts stand for, ready for JSON.

    F1, precision and recall are scikit-learn's with `labels=all, zero_division=0`: a label that is never predicted or
    has no rows has 0, and macro F1 is the mean over all labels. Without any row, accuracy, log loss and calibration
    error are None.

    Args:
        counts: of a model with as many classes as labels.
        labels: label names in the order of their ids.

    Returns:
        `rows`; `accuracy` {value, low, high}, a 95 % Wilson score interval; `macro_f1`; `weighted_f1`; `log_loss` in
        nats; `ece`, the expected calibration error; `per_class` {label: {precision, recall, f1, support}}; `confusion`
        {labels, matrix}, true by predicted; `reliability`, the confidence bins that hold rows, each {low, high, rows,
        confidence, accuracy}; `coverage`, what would be answered from a confidence on, [{confidence, coverage,
        accuracy}]; `answered` {rows, coverage, accuracy} with the threshold in use.
    """
    assert len(labels) == counts.classes, f"{len(labels)} labels for counts of {counts.classes} classes"
    hits = np.diagonal(counts.confusion)
    support, predicted = counts.confusion.sum(axis=1), counts.confusion.sum(axis=0)
    precision, recall = _ratio(hits, predicted), _ratio(hits, support)
    f1 = _ratio(2 * hits, support + predicted)
    rows, right = counts.rows, int(hits.sum())
    low, high = wilson_interval(right, rows)
    per_class = zip(labels, precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), strict=True)
    return {
        "rows": rows,
        "accuracy": {"value": right / rows if rows else None, "low": low, "high": high},
        "macro_f1": float(f1.mean()),
        "weighted_f1": float(_ratio((f1 * support).sum(), np.asarray(rows))),
        "log_loss": counts.loss / rows if rows else None,
        "ece": _calibration_error(counts) if rows else None,
        "per_class": {label: {"precision": p, "recall": r, "f1": f, "support": s} for label, p, r, f, s in per_class},
        "confusion": {"labels": list(labels), "matrix": counts.confusion.tolist()},
        "reliability": _reliability(counts),
        "coverage": _coverage(counts),
        "answered": {
            "rows": counts.answered,
            "coverage": counts.answered / rows if rows else None,
            "accuracy": counts.answered_correct / counts.answered if counts.answered else None,
        },
    }


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927): honest for few trials and near 0 and 1."""
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, _Z_95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    reach = _Z_95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    # The ends are exactly 0 and 1 at the extremes; floats miss them by a hair, and the share must lie inside.
    return max(0.0, min(middle - reach, share)), min(1.0, max(middle + reach, share))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where there is nothing to divide by."""
    quotient = np.zeros(np.shape(whole))
    np.divide(part, whole, out=quotient, where=whole > 0)
    return quotient


def _calibration_error(counts: Counts) -> float:
    """|accuracy - confidence| averaged over the bins by rows: the ECE of Guo et al. (2017), equation 3."""
    return float(np.abs(counts.bin_correct - counts.bin_confidence).sum() / counts.rows)


def _coverage(counts: Counts) -> list[dict[str, float]]:
    """From the lower edge of each confidence bin on: the share of rows answered, and of right ones among them."""
    answered, right = counts.bin_rows[::-1].cumsum()[::-1], counts.bin_correct[::-1].cumsum()[::-1]
    return [
        {
            "confidence": m / CONFIDENCE_BINS,
            "coverage": float(answered[m] / counts.rows),
            "accuracy": float(right[m] / answered[m]),
        }
        for m in range(CONFIDENCE_BINS)
        if counts.bin_rows[m]
    ]


def _reliability(counts: Counts) -> list[dict[str, Any]]:
    return [
        {
            "low": m / CONFIDENCE_BINS,
            "high": (m + 1) / CONFIDENCE_BINS,
            "rows": int(rows),
            "confidence": float(counts.bin_confidence[m] / rows),
            "accuracy": float(counts.bin_correct[m] / rows),
        }
        for m, rows in enumerate(counts.bin_rows)
        if rows
    ]
