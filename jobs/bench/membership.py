"""How well scores tell the rows that a model was trained on from others; what that says about epsilon.

In: a score for each row, higher for those that look trained on. Out: the area under the ROC curve, the share of members
that is found at a rate of false alarms, a lower bound of epsilon. Pure.
Not here: training and scoring (privacy_attack.py).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binom, rankdata


def auc(members: np.ndarray, others: np.ndarray) -> tuple[float, float, float]:
    """The area under the ROC curve and its 95 % interval, after DeLong et al. 1988; ties count half.

    Args:
        members: float [M], scores of rows that were trained on.
        others: float [N], scores of rows that were not.
    """
    ranks = rankdata(np.concatenate([members, others]))
    # Of each row, the share of the other kind that it surpasses.
    above = (ranks[: len(members)] - rankdata(members)) / len(others)
    below = 1 - (ranks[len(members) :] - rankdata(others)) / len(members)
    area = float(above.mean())
    error = math.sqrt(float(above.var(ddof=1)) / len(members) + float(below.var(ddof=1)) / len(others))
    return area, max(0.0, area - 1.96 * error), min(1.0, area + 1.96 * error)


def found_at(members: np.ndarray, others: np.ndarray, false_alarms: float) -> float:
    """The share of members above a threshold that at most this share of the others exceeds.

    Args:
        members: float [M].
        others: float [N].
        false_alarms: such as 0.01; of fewer others than its inverse, none exceeds the threshold.
    """
    allowed = int(false_alarms * len(others))
    threshold = np.sort(others)[len(others) - 1 - allowed]
    return float((members > threshold).mean())


def right_guesses(scores: np.ndarray, trained_on: np.ndarray, guesses: int) -> int:
    """How many guesses are right, if half of them call the highest scores trained on and half the lowest not.

    Args:
        scores: float [M].
        trained_on: bool [M].
        guesses: their number, even, at most M.
    """
    order = np.argsort(scores, kind="stable")
    half = guesses // 2
    return int(trained_on[order[len(order) - half :]].sum() + (~trained_on[order[:half]]).sum())


def least_epsilon(rows: int, guesses: int, right: int, delta: float, doubt: float) -> float:
    """The lower bound of epsilon that guesses about the rows of one training prove; 0.0 if they prove none.

    Each row was trained on or not by a fair coin of its own. Of (epsilon, delta)-private training, the number of right
    guesses is at most that of coins that fall right with probability e^epsilon / (1 + e^epsilon), but for delta: the
    bound is that of Clopper and Pearson for such coins, with the correction for delta of Steinke, Nasr and Jagielski
    2023 (Privacy Auditing with One (1) Training Run, theorem 5.2).

    Args:
        rows: about which could be guessed.
        guesses: made.
        right: of them.
        delta: of the guarantee; 0 for pure differential privacy.
        doubt: probability by which the bound may be wrong, such as 0.05.
    """
    if _probability(rows, guesses, right, 0.0, delta) > doubt:
        return 0.0
    low, high = 0.0, 50.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if _probability(rows, guesses, right, middle, delta) < doubt else (low, middle)
    return low


def best_epsilon(
    scores: np.ndarray, trained_on: np.ndarray, delta: float, doubt: float, shares: Sequence[float]
) -> float:
    """The largest lower bound of epsilon over several numbers of guesses, each with its part of the doubt.

    Args:
        scores: float [M].
        trained_on: bool [M], by a fair coin each.
        delta: of the guarantee.
        doubt: probability by which the bound may be wrong.
        shares: of the rows that are guessed about; fixed before the scores are known.
    """
    rows = len(scores)
    numbers = [max(2, 2 * int(share * rows / 2)) for share in shares]
    return max(
        least_epsilon(rows, n, right_guesses(scores, trained_on, n), delta, doubt / len(shares)) for n in numbers
    )


def _probability(rows: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """The most that the probability of so many right guesses can be under (epsilon, delta)."""
    fair = 1 / (1 + math.exp(-epsilon))
    # Right guesses that are too few by 1, 2 ...: delta can lift that many at most.
    short = np.cumsum(binom.pmf(right - np.arange(1, right + 1), guesses, fair))
    lifted = float((short / np.arange(1, right + 1)).max(initial=0.0))
    return min(1.0, float(binom.sf(right - 1, guesses, fair)) + 2 * rows * delta * lifted)
