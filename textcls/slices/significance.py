"""Which slices are surely worse than the rest of the rows.

In: rows and right answers of slices and of all rows. Out: p-values, and which of many are significant. Pure numpy.
Not here: counting (findings.py).
"""

import math
from collections.abc import Sequence

import numpy as np

FALSE_DISCOVERY_RATE = 0.05
"""The share of slices said to be worse that may be so by chance, on average."""
LEAST_ROWS = 30
"""Slices with fewer rows are not tested."""

# Terms of a tail that are this many standard deviations from the mean are nothing in floats.
_FAR = 40


def worse_p_value(rows: int, right: int, all_rows: int, all_right: int) -> float:
    """How likely a slice has at least as many wrong answers by chance: Fisher's exact test, one-sided (Fisher 1922).

    The slice is compared with all other rows: the number of its wrong answers follows the hypergeometric distribution
    if they are spread over all rows at random. Exact for few wrong answers, where a normal approximation is not.

    Args:
        rows: of the slice.
        right: of these.
        all_rows: of all rows, those of the slice included.
        all_right: of all rows.
    """
    wrong, all_wrong = rows - right, all_rows - all_right
    least, most = max(0, rows - all_right), min(rows, all_wrong)
    if wrong <= least:
        return 1.0
    mean, spread = rows * all_wrong / all_rows, _FAR * (1 + math.sqrt(rows) / 2)
    if wrong < mean - spread:
        return 1.0
    # From one term to the next the probability changes by a simple ratio.
    k = np.arange(wrong, min(most, max(wrong, math.ceil(mean)) + math.ceil(spread)), dtype=np.float64)
    ratios = (all_wrong - k) * (rows - k) / ((k + 1) * (all_right - rows + k + 1))
    terms = np.exp(_log_probability(wrong, rows, all_rows, all_wrong) + np.append(0.0, np.cumsum(np.log(ratios))))
    return min(1.0, float(terms.sum()))


def _log_probability(wrong: int, rows: int, all_rows: int, all_wrong: int) -> float:
    """ln of the probability that `rows` of all rows, drawn at random, have this many wrong answers."""
    return (
        _log_choices(all_wrong, wrong) + _log_choices(all_rows - all_wrong, rows - wrong) - _log_choices(all_rows, rows)
    )


def _log_choices(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def significant(p_values: Sequence[float], rate: float = FALSE_DISCOVERY_RATE) -> list[bool]:
    """Which of these tests are significant at a false discovery rate (Benjamini and Hochberg 1995)."""
    tests = len(p_values)
    ordered = sorted(p_values)
    passed = [p for rank, p in enumerate(ordered, 1) if p <= rate * rank / tests]
    return [bool(passed) and p <= passed[-1] for p in p_values]
