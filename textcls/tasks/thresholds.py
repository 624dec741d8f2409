"""The probability from which on a row is given a label, chosen on validation rows.

In: counts of rows by label and score, from multi_label_metrics.py. Out: a threshold for each label. Pure numpy.
Not here: confidence thresholds of one label a row (calibration.py).

A label with few rows would get a threshold that fits these rows and no others (Lipton, Elkan, Naryanaswamy 2014): below
20 rows it gets the threshold that is best for all labels together.

Shapes: C labels, B bins of a score.
"""

from collections.abc import Callable

import numpy as np

from textcls.tasks.metrics import ratio
from textcls.tasks.multi_label_metrics import BIN_EDGES

FEW_ROWS = 20
"""A label with fewer validation rows has no threshold and no temperature of its own."""
_DEFAULT = 0.5
_DECIMALS = 9


def best_f1(binned_2CB: np.ndarray) -> np.ndarray:
    """float64 [C]: the thresholds with the best F1 of each label; one half without any rows.

    Where neighbouring thresholds are equally good, the middle one is chosen: it is farthest from rows on both sides.

    Args:
        binned_2CB: int64 [2, C, B], rows, and rows that have the label, by score.
    """
    return _chosen(binned_2CB, _best_f1)


def for_precision(binned_2CB: np.ndarray, min_precision: float) -> np.ndarray:
    """float64 [C]: the lowest thresholds from which on this share of the rows has the label; 1 where there is none."""
    return _chosen(binned_2CB, lambda of_label_2B: _lowest(of_label_2B, min_precision))


def surely_none_below(binned_2B: np.ndarray, min_precision: float) -> float:
    """The highest score such that of the rows whose highest score is below it, this share has no label; 0 if none is.

    Args:
        binned_2B: int64 [2, B], rows, and rows without a label, by their highest score.
        min_precision: the share.
    """
    rows, without = binned_2B.cumsum(axis=1)
    holds = np.flatnonzero((rows > 0) & (without >= min_precision * rows))
    if not holds.size:
        return 0.0
    return 1.0 if holds[-1] == len(BIN_EDGES) - 1 else round(float(BIN_EDGES[holds[-1] + 1]), _DECIMALS)


def hits_and_given(binned_2CB: np.ndarray, chosen_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [C] rows that have a label and are given it, int64 [C] rows that are given it), to a bin's width."""
    at_C = np.searchsorted(BIN_EDGES, chosen_C - 10**-_DECIMALS, side="left")
    is_given_CB = np.arange(len(BIN_EDGES)) >= at_C[:, None]
    given, hits = (binned_2CB * is_given_CB).sum(axis=2)
    return hits, given


def _chosen(binned_2CB: np.ndarray, choose: Callable[[np.ndarray], float]) -> np.ndarray:
    for_all = choose(binned_2CB.sum(axis=1))
    own = [choose(binned_2CB[:, c]) for c in range(binned_2CB.shape[1])]
    return np.where(binned_2CB[1].sum(axis=1) >= FEW_ROWS, own, for_all)


def _best_f1(of_label_2B: np.ndarray) -> float:
    given, hits = of_label_2B[:, ::-1].cumsum(axis=1)[:, ::-1]
    if not hits[0]:
        return _DEFAULT
    f1 = ratio(2 * hits, given + hits[0])
    first = int(f1.argmax())
    after = np.flatnonzero(f1[first:] != f1[first])
    last = first + (int(after[0]) - 1 if after.size else len(f1) - 1 - first)
    return round(float(BIN_EDGES[(first + last + 1) // 2]), _DECIMALS)


def _lowest(of_label_2B: np.ndarray, min_precision: float) -> float:
    given, hits = of_label_2B[:, ::-1].cumsum(axis=1)[:, ::-1]
    holds = np.flatnonzero((given > 0) & (hits >= min_precision * given))
    return round(float(BIN_EDGES[holds[0]]), _DECIMALS) if holds.size else 1.0
