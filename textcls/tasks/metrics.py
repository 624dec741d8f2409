"""How good a classifier of one label a row is, from counts that add up.

In: probabilities and true label ids, piece by piece, in any process. Out: `Counts`, whose sum over the pieces is that
of the whole, and `summarise`, which turns them into accuracy, F1 and calibration ready for JSON. Pure numpy.
Not here: running a model (inference/classifier.py), showing the numbers (reporting/).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

CONFIDENCE_BINS = 15
"""Equal-width bins of the calibration error, as many as Guo et al. (2017) use."""

MOST_PAIRS = 10_000
"""Pairs of different labels that a summary holds, at most."""

_SMALLEST_PROBABILITY = 1e-12
_Z_95 = 1.959963984540054  # the normal distribution's 0.975 quantile


@dataclass(frozen=True, eq=False)
class Counts:
    """What a set of scored rows adds up to; `+` gives the counts of both sets.

    Whole numbers add exactly, so neither order nor partition matters; the two sums of floats add up to rounding.
    Unless a task decides otherwise, the predicted label is the most probable one, of equal ones that with the smallest
    id; its probability is the confidence. Bin m of M holds confidences in (m/M, (m+1)/M].

    Attributes:
        classes: number of labels C.
        pairs: int64 [K], true label id x C + predicted label id of each pair that has rows, ascending. At most one a
            row: C x C numbers would be 50 MB for 2,500 labels.
        pair_rows: int64 [K], rows of each pair.
        loss: sum over rows of -ln p(true label).
        bin_rows: int64 [15], rows by confidence.
        bin_correct: int64 [15], those of them whose prediction is right.
        bin_confidence: float64 [15], sum of their confidences.
        answered: rows whose confidence reaches the threshold they were counted with; all rows if it is 0.
        answered_correct: those of them whose prediction is right.
    """

    classes: int
    pairs: np.ndarray
    pair_rows: np.ndarray
    loss: float
    bin_rows: np.ndarray
    bin_correct: np.ndarray
    bin_confidence: np.ndarray
    answered: int
    answered_correct: int

    @classmethod
    def zero(cls, classes: int) -> Self:
        """The counts of no rows."""
        return cls.of(np.empty((0, classes)), np.empty(0, np.int64))

    @classmethod
    def of(
        cls,
        probabilities: np.ndarray,
        labels: np.ndarray,
        *,
        threshold: float = 0.0,
        predicted: np.ndarray | None = None,
    ) -> Self:
        """The counts of these rows.

        Args:
            probabilities: float [N, C], each row sums to 1.
            labels: int [N], true label ids.
            threshold: a less confident row counts as not answered.
            predicted: int [N], predicted label ids. Left out: the most probable label of each row.

        Raises:
            ValueError: probabilities that are none, or label ids the probabilities have no column for: our own bug, or
                a model whose weights are no longer finite.
        """
        p = np.asarray(probabilities, np.float64)
        labels = np.asarray(labels, np.int64)
        _check(p, labels)
        rows, classes = p.shape
        predicted = p.argmax(axis=1) if predicted is None else np.asarray(predicted, np.int64)
        confidence = p[np.arange(rows), predicted]
        of_truth = np.clip(p[np.arange(rows), labels], _SMALLEST_PROBABILITY, 1.0)
        bins = np.clip(np.ceil(confidence * CONFIDENCE_BINS).astype(np.int64) - 1, 0, CONFIDENCE_BINS - 1)
        pairs, pair_rows = np.unique(labels * classes + predicted, return_counts=True)
        return cls(
            classes=classes,
            pairs=pairs,
            pair_rows=pair_rows,
            loss=float(-np.log(of_truth).sum()),
            bin_rows=np.bincount(bins, minlength=CONFIDENCE_BINS).astype(np.int64),
            bin_correct=np.bincount(bins[predicted == labels], minlength=CONFIDENCE_BINS).astype(np.int64),
            bin_confidence=np.bincount(bins, confidence, minlength=CONFIDENCE_BINS),
            answered=int((confidence >= threshold).sum()),
            answered_correct=int(((confidence >= threshold) & (predicted == labels)).sum()),
        )

    def __add__(self, other: Self) -> Self:
        assert self.classes == other.classes, f"counts of {self.classes} and of {other.classes} labels"
        pairs, place = np.unique(np.concatenate([self.pairs, other.pairs]), return_inverse=True)
        pair_rows = np.zeros(len(pairs), np.int64)
        np.add.at(pair_rows, place, np.concatenate([self.pair_rows, other.pair_rows]))
        return type(self)(
            self.classes,
            pairs,
            pair_rows,
            self.loss + other.loss,
            self.bin_rows + other.bin_rows,
            self.bin_correct + other.bin_correct,
            self.bin_confidence + other.bin_confidence,
            self.answered + other.answered,
            self.answered_correct + other.answered_correct,
        )

    @property
    def rows(self) -> int:
        """Number of rows counted."""
        return int(self.pair_rows.sum())

    @property
    def confusion(self) -> np.ndarray:
        """int64 [C, C]: rows by true label id (first axis) and predicted label id; for few labels."""
        dense = np.zeros(self.classes**2, np.int64)
        dense[self.pairs] = self.pair_rows
        return dense.reshape(self.classes, self.classes)


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
        nats; `ece`, the expected calibration error; `per_class` {label: {precision, recall, f1, support, predicted}};
        `confusion` {labels, support, pairs, other_rows}, see `_confusion`; `reliability`, the confidence bins that hold
        rows, each {low, high, rows, confidence, accuracy}; `coverage`, accuracy above each confidence threshold,
        [{confidence, coverage, accuracy}]; `answered` {rows, coverage, accuracy} with the threshold in use.
    """
    assert len(labels) == counts.classes, f"{len(labels)} labels for counts of {counts.classes} classes"
    true_K, predicted_K = np.divmod(counts.pairs, counts.classes)
    hits, support, predicted = (np.zeros(counts.classes, np.int64) for _ in range(3))
    np.add.at(support, true_K, counts.pair_rows)
    np.add.at(predicted, predicted_K, counts.pair_rows)
    is_right_K = true_K == predicted_K
    hits[true_K[is_right_K]] = counts.pair_rows[is_right_K]
    precision, recall = ratio(hits, predicted), ratio(hits, support)
    f1 = ratio(2 * hits, support + predicted)
    rows, right = counts.rows, int(hits.sum())
    low, high = wilson_interval(right, rows)
    per_class = zip(labels, *(values.tolist() for values in (precision, recall, f1, support, predicted)), strict=True)
    return {
        "rows": rows,
        "accuracy": {"value": right / rows if rows else None, "low": low, "high": high},
        "macro_f1": float(f1.mean()),
        "weighted_f1": float(ratio((f1 * support).sum(), np.asarray(rows))),
        "log_loss": counts.loss / rows if rows else None,
        "ece": _calibration_error(counts) if rows else None,
        "per_class": {
            label: {"precision": p, "recall": r, "f1": f, "support": s, "predicted": n}
            for label, p, r, f, s, n in per_class
        },
        "confusion": _confusion(counts, labels, support),
        "reliability": reliability(counts.bin_rows, counts.bin_confidence, counts.bin_correct),
        "coverage": _coverage(counts),
        "answered": {
            "rows": counts.answered,
            "coverage": counts.answered / rows if rows else None,
            "accuracy": counts.answered_correct / counts.answered if counts.answered else None,
        },
    }


def _confusion(counts: Counts, labels: Sequence[str], support: np.ndarray) -> dict[str, Any]:
    """Which labels are taken for which, in a size that grows with the labels and not with their square.

    Returns:
        `labels`; `support`, the rows of each; `pairs` [[true label id, predicted label id, rows], ...] by falling rows,
        without those of no rows: every label with itself, and of the others the 10,000 with most rows, which is all of
        up to 100 labels; `other_rows`, the rows of those left out.
    """
    true_K, predicted_K = np.divmod(counts.pairs, counts.classes)
    by_rows = np.argsort(-counts.pair_rows, kind="stable")
    is_wrong = (true_K != predicted_K)[by_rows]
    kept = by_rows[~is_wrong | (is_wrong.cumsum() <= MOST_PAIRS)]
    pairs = np.stack([true_K[kept], predicted_K[kept], counts.pair_rows[kept]], axis=1)
    return {
        "labels": list(labels),
        "support": support.tolist(),
        "pairs": pairs.tolist(),
        "other_rows": counts.rows - int(counts.pair_rows[kept].sum()),
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


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
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


def reliability(rows: np.ndarray, confidence: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """The confidence bins that hold rows, each {low, high, rows, confidence, accuracy}.

    Args:
        rows: int64 [15], rows by confidence.
        confidence: float64 [15], sum of their confidences.
        right: int64 [15], those of them that are right.
    """
    return [
        {
            "low": m / CONFIDENCE_BINS,
            "high": (m + 1) / CONFIDENCE_BINS,
            "rows": int(rows[m]),
            "confidence": float(confidence[m] / rows[m]),
            "accuracy": float(right[m] / rows[m]),
        }
        for m in np.flatnonzero(rows).tolist()
    ]
