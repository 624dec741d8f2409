"""What the scores of a classifier with several labels a row are worth, from counts that add up.

In: a probability, a yes or no, and a decision for each label of each row. Out: `MultiLabelCounts`, which any process
can count and any other can add; from their sum the numbers of a report. Pure numpy.
Not here: which decisions are made (multi_label.py), metrics of one label a row (metrics.py).

Shapes: N rows, C labels, B = 1000 bins of a score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from textcls.tasks.metrics import CONFIDENCE_BINS, ratio, reliability, wilson_interval

_HIGHEST_LOGIT = 10.0
BIN_EDGES = np.append(0.0, 1 / (1 + np.exp(-np.linspace(-_HIGHEST_LOGIT, _HIGHEST_LOGIT, 1001)[1:-1])))
"""float64 [B]: the lowest probability of each bin. All but the first are equally wide in logits, so
that the low scores of rare labels are distinct: from 0.00005 up, in steps of 2 %."""
MOST_PAIRS = 10_000
"""Pairs of labels that a summary holds, at most."""
_SMALLEST_PROBABILITY = 1e-12


def bins_of(probabilities: np.ndarray) -> np.ndarray:
    """int64, of the same shape: the bin of each probability."""
    found: np.ndarray = np.searchsorted(BIN_EDGES, probabilities, side="right") - 1
    return found


def binned(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """int64 [2, C, B]: rows, and rows that have the label, by label and bin of its probability.

    Args:
        probabilities: float [N, C].
        targets: bool [N, C].
    """
    classes, bins = probabilities.shape[1], len(BIN_EDGES)
    places = np.arange(classes) * bins + bins_of(probabilities)
    counts = [np.bincount(found.ravel(), minlength=classes * bins) for found in (places, places[targets])]
    return np.stack(counts).reshape(2, classes, bins)


@dataclass(frozen=True, eq=False)
class MultiLabelCounts:
    """What a set of scored rows adds up to; `+` gives the counts of both sets.

    Attributes:
        rows: number of rows.
        hits: int64 [C], rows that have a label and are given it.
        given: int64 [C], rows that are given a label.
        thresholds: float64 [C], those that the decisions were made with.
        binned: int64 [2, C, B], see `binned`: precision, recall and average precision follow from it.
        exact: rows that are given exactly the labels that they have.
        ranking: sum over rows with a label of the label ranking average precision.
        ranked_rows: rows with a label.
        loss: float64 [C], sum over rows of the binary log loss.
        without: int64 [2], rows that have no label, and rows that are answered with no label.
        answered: rows that are answered, rather than abstained from.
        answered_exact: those of them that are given exactly the labels that they have.
        pairs: int64 [K], i x C + j of pairs of labels i < j that some row has or is given both of, ascending.
        pair_rows: int64 [2, K], rows that have both labels, and rows that are given both.
        bin_rows: int64 [15], decisions (one for each row and label) by the probability of the label.
        bin_hits: int64 [15], those of them where the row has the label.
        bin_confidence: float64 [15], sum of their probabilities.
    """

    rows: int
    hits: np.ndarray
    given: np.ndarray
    thresholds: np.ndarray
    binned: np.ndarray
    exact: int
    ranking: float
    ranked_rows: int
    loss: np.ndarray
    without: np.ndarray
    answered: int
    answered_exact: int
    pairs: np.ndarray
    pair_rows: np.ndarray
    bin_rows: np.ndarray
    bin_hits: np.ndarray
    bin_confidence: np.ndarray

    @classmethod
    def of(
        cls,
        probabilities: np.ndarray,
        targets: np.ndarray,
        given: np.ndarray,
        abstained: np.ndarray,
        thresholds: np.ndarray,
    ) -> Self:
        """The counts of these rows.

        Args:
            probabilities: float [N, C].
            targets: float or bool [N, C], which labels the rows have.
            given: bool [N, C], which labels they are given.
            abstained: bool [N], rows without an answer.
            thresholds: float64 [C], with which the labels were given.

        Raises:
            ValueError: probabilities that are none: a model whose weights are no longer finite.
        """
        p, has = np.asarray(probabilities, np.float64), np.asarray(targets) > 0.5
        if p.shape != has.shape or p.ndim != 2:
            raise ValueError(f"probabilities {p.shape} and targets {has.shape} are not [N, C] both")
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError(
                f"{int((~((p >= 0) & (p <= 1))).any(axis=1).sum())} of {len(p)} rows are not probabilities. NaN means "
                "that the model's weights are no longer finite."
            )
        exact = (given == has).all(axis=1)
        bins = np.clip(np.ceil(p * CONFIDENCE_BINS).astype(np.int64) - 1, 0, CONFIDENCE_BINS - 1)
        pairs, pair_rows = _pairs(has, given)
        return cls(
            rows=len(p),
            hits=(given & has).sum(axis=0, dtype=np.int64),
            given=given.sum(axis=0, dtype=np.int64),
            thresholds=thresholds,
            binned=binned(p, has),
            exact=int(exact.sum()),
            ranking=_ranking(p, has),
            ranked_rows=int(has.any(axis=1).sum()),
            loss=log_losses(p, has),
            without=np.array([(~has.any(axis=1)).sum(), (~given.any(axis=1) & ~abstained).sum()], np.int64),
            answered=int((~abstained).sum()),
            answered_exact=int((exact & ~abstained).sum()),
            pairs=pairs,
            pair_rows=pair_rows,
            bin_rows=np.bincount(bins.ravel(), minlength=CONFIDENCE_BINS).astype(np.int64),
            bin_hits=np.bincount(bins[has], minlength=CONFIDENCE_BINS).astype(np.int64),
            bin_confidence=np.bincount(bins.ravel(), p.ravel(), minlength=CONFIDENCE_BINS),
        )

    def __add__(self, other: Self) -> Self:
        assert len(self.hits) == len(other.hits), f"counts of {len(self.hits)} and of {len(other.hits)} labels"
        pairs, place = np.unique(np.concatenate([self.pairs, other.pairs]), return_inverse=True)
        pair_rows = np.zeros((2, len(pairs)), np.int64)
        np.add.at(pair_rows.T, place, np.concatenate([self.pair_rows, other.pair_rows], axis=1).T)
        return type(self)(
            rows=self.rows + other.rows,
            hits=self.hits + other.hits,
            given=self.given + other.given,
            thresholds=self.thresholds if self.rows else other.thresholds,
            binned=self.binned + other.binned,
            exact=self.exact + other.exact,
            ranking=self.ranking + other.ranking,
            ranked_rows=self.ranked_rows + other.ranked_rows,
            loss=self.loss + other.loss,
            without=self.without + other.without,
            answered=self.answered + other.answered,
            answered_exact=self.answered_exact + other.answered_exact,
            pairs=pairs,
            pair_rows=pair_rows,
            bin_rows=self.bin_rows + other.bin_rows,
            bin_hits=self.bin_hits + other.bin_hits,
            bin_confidence=self.bin_confidence + other.bin_confidence,
        )

    @property
    def support(self) -> np.ndarray:
        """int64 [C]: rows that have each label."""
        found: np.ndarray = self.binned[1].sum(axis=1)
        return found


def log_losses(probabilities: np.ndarray, has: np.ndarray) -> np.ndarray:
    """float64 [C]: the binary log loss of each label in nats, summed over rows.

    Args:
        probabilities: float64 [N, C].
        has: bool [N, C].
    """
    found: np.ndarray = cell_losses(probabilities, has).sum(axis=0)
    return found


def cell_losses(probabilities: np.ndarray, has: np.ndarray) -> np.ndarray:
    """float64 [N, C]: the binary log loss of each row and label in nats; arguments as of `log_losses`."""
    of_truth = np.where(has, probabilities, 1 - probabilities)
    found: np.ndarray = -np.log(np.maximum(of_truth, _SMALLEST_PROBABILITY))
    return found


def _ranking(p: np.ndarray, has: np.ndarray) -> float:
    """The label ranking average precision summed over rows with a label: for each label that a row has, the share of
    its labels among those that rank as high or higher (Tsoumakas, Katakis, Vlahavas 2010, section 7.3)."""
    total = 0.0
    for row in np.flatnonzero(has.any(axis=1)):
        scores, own = p[row], p[row][has[row]]
        rank = len(scores) - np.searchsorted(np.sort(scores), own, side="left")
        rank_of_own = len(own) - np.searchsorted(np.sort(own), own, side="left")
        total += float((rank_of_own / rank).mean())
    return total


def _pairs(has: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [K] pairs i x C + j with i < j, int64 [2, K] rows that have both, and rows that are given both)."""
    classes = has.shape[1]
    found = [_pairs_of(labels, classes) for labels in (has, given)]
    pairs, place = np.unique(np.concatenate(found), return_inverse=True)
    which = np.repeat([0, 1], [len(one) for one in found])
    rows = np.zeros((2, len(pairs)), np.int64)
    np.add.at(rows, (which, place), 1)
    return pairs, rows


def _pairs_of(labels: np.ndarray, classes: int) -> np.ndarray:
    """int64: i x C + j of each pair of labels i < j of each row; labels are bool [N, C]."""
    found = [np.empty(0, np.int64)]
    for row in np.flatnonzero(labels.sum(axis=1) > 1):
        ids = np.flatnonzero(labels[row])
        first, second = np.triu_indices(len(ids), k=1)
        found.append(ids[first] * classes + ids[second])
    return np.concatenate(found)


def summarise(counts: MultiLabelCounts, labels: Sequence[str]) -> dict[str, Any]:
    """The numbers that counts stand for, ready for JSON.

    Precision, recall and F1 are scikit-learn's with `zero_division=0`. A label without rows has no recall: macro F1 and
    mean average precision leave it out, and `macro_labels` says how many labels they are the mean of. Average precision
    is that of scikit-learn on scores in 1,000 bins.

    Args:
        counts: of a model with as many labels.
        labels: label names in the order of their ids.

    Returns:
        `rows`; `micro_f1`; `macro_f1`; `macro_labels`; `subset_accuracy` {value, low, high}: the share of rows that are
        given exactly their labels, with a 95 % Wilson score interval; `hamming_loss`; `lrap`; `map`; `log_loss` in nats
        a label; `ece` over all decisions, one for each row and label; `per_class` {label: {precision, recall, f1,
        support, predicted, ap, threshold}}; `co_occurrence` {labels, support, pairs, other_pairs}, see
        `_co_occurrence`;
        `reliability`, the bins that hold decisions; `answered` {rows, coverage, accuracy}; `no_label` {true,
        predicted}.
    """
    assert len(labels) == len(counts.hits), f"{len(labels)} labels for counts of {len(counts.hits)}"
    rows, support = counts.rows, counts.support
    precision, recall = ratio(counts.hits, counts.given), ratio(counts.hits, support)
    f1, ap = ratio(2 * counts.hits, support + counts.given), average_precision(counts.binned)
    has_rows = support > 0
    wrong = int((support + counts.given - 2 * counts.hits).sum())
    per_class = zip(
        labels,
        *(values.tolist() for values in (precision, recall, f1, support, counts.given, ap, counts.thresholds)),
        strict=True,
    )
    low, high = wilson_interval(counts.exact, rows)
    return {
        "rows": rows,
        "micro_f1": float(ratio(2 * counts.hits.sum(), (support + counts.given).sum())),
        "macro_f1": float(f1[has_rows].mean()) if has_rows.any() else None,
        "macro_labels": int(has_rows.sum()),
        "subset_accuracy": {"value": counts.exact / rows if rows else None, "low": low, "high": high},
        "hamming_loss": wrong / (rows * len(labels)) if rows else None,
        "lrap": counts.ranking / counts.ranked_rows if counts.ranked_rows else None,
        "map": float(ap[has_rows].mean()) if has_rows.any() else None,
        "log_loss": float(counts.loss.sum()) / (rows * len(labels)) if rows else None,
        "ece": float(np.abs(counts.bin_hits - counts.bin_confidence).sum() / (rows * len(labels))) if rows else None,
        "per_class": {
            label: {"precision": p, "recall": r, "f1": f, "support": s, "predicted": n}
            | {"ap": a if s else None, "threshold": t}
            for label, p, r, f, s, n, a, t in per_class
        },
        "co_occurrence": _co_occurrence(counts, labels),
        "reliability": reliability(counts.bin_rows, counts.bin_confidence, counts.bin_hits),
        "answered": {
            "rows": counts.answered,
            "coverage": counts.answered / rows if rows else None,
            "accuracy": counts.answered_exact / counts.answered if counts.answered else None,
        },
        "no_label": {"true": int(counts.without[0]), "predicted": int(counts.without[1])},
    }


def average_precision(binned_2CB: np.ndarray) -> np.ndarray:
    """float64 [C]: precision averaged over the rows that have a label, from the highest scores down; 0 without any.

    Args:
        binned_2CB: int64 [2, C, B], see `binned`.
    """
    above, hits = binned_2CB[..., ::-1].cumsum(axis=-1)
    found: np.ndarray = ratio((ratio(hits, above) * binned_2CB[1][:, ::-1]).sum(axis=-1), binned_2CB[1].sum(axis=-1))
    return found


def _co_occurrence(counts: MultiLabelCounts, labels: Sequence[str]) -> dict[str, Any]:
    """Which labels come together, in a size that grows with the labels and not with their square.

    Returns:
        `labels`; `support`, the rows of each; `pairs` [[label id, larger label id, rows that have both, rows that are
        given both], ...] by falling sum of the two: the 10,000 with most rows; `other_pairs`, how many are left out.
    """
    first, second = np.divmod(counts.pairs, max(len(labels), 1))
    kept = np.argsort(-counts.pair_rows.sum(axis=0), kind="stable")[:MOST_PAIRS]
    pairs = np.stack([first[kept], second[kept], *counts.pair_rows[:, kept]], axis=1)
    return {
        "labels": list(labels),
        "support": counts.support.tolist(),
        "pairs": pairs.tolist(),
        "other_pairs": len(counts.pairs) - len(kept),
    }
