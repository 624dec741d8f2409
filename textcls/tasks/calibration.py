"""Probabilities that match observed frequencies, and the threshold below which a classifier abstains.

In: logits, confidences and true label ids of validation rows, piece by piece, in any process. Out: arrays that add up
over the pieces; from their sums one temperature (Guo et al. 2017, section 4.2) and one threshold. Pure numpy.
Not here: dividing a head's weights by the temperature (modeling/build.py), scoring (inference/).
"""

import numpy as np

TEMPERATURES = np.geomspace(0.1, 10, 101)
"""Temperatures that are tried, 5 % apart."""
CONFIDENCE_STEPS = 2000
"""Thresholds are multiples of 1/2000."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 [N, C]: probabilities of logits [N, C]."""
    found = np.array(logits, np.float64)
    found -= found.max(axis=1, keepdims=True, initial=-np.inf)
    np.exp(found, out=found)
    found /= found.sum(axis=1, keepdims=True)
    return found


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 []: the sum over rows of -ln p(true label).

    Args:
        probabilities: float64 [N, C].
        labels: int [N], true label ids.
    """
    loss: np.ndarray = row_log_losses(probabilities, labels).sum()
    return loss


def row_log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 [N]: -ln p(true label) of each row; arguments as of `log_loss`."""
    of_truth = probabilities[np.arange(len(labels)), labels]
    losses: np.ndarray = -np.log(np.maximum(of_truth, np.finfo(np.float64).tiny))
    return losses


def best_temperature(losses: np.ndarray) -> float:
    """What to divide logits by so that the summed loss is least; four decimals, 1.0 if there are no rows.

    Args:
        losses: float64 [101], sums of `log_loss` at each of `TEMPERATURES`.
    """
    if not losses.any():
        return 1.0
    best = int(np.clip(losses.argmin(), 1, len(TEMPERATURES) - 2))
    # The lowest point of the parabola through three neighbours is exact to about 1e-4.
    before, here, after = losses[best - 1 : best + 2]
    bend = before - 2 * here + after
    shift = float(np.clip((before - after) / (2 * bend), -1, 1)) if bend > 0 else 0.0
    return round(float(TEMPERATURES[best] * (TEMPERATURES[1] / TEMPERATURES[0]) ** shift), 4)


def confidence_counts(confidence: np.ndarray, is_right: np.ndarray) -> np.ndarray:
    """int64 [2, 2000]: rows, and rows answered rightly, by the confidence of the answer.

    Args:
        confidence: float [N], calibrated.
        is_right: bool [N], whether the answer is the true one.
    """
    steps = np.clip((confidence * CONFIDENCE_STEPS).astype(np.int64), 0, CONFIDENCE_STEPS - 1)
    return np.stack([np.bincount(kept, minlength=CONFIDENCE_STEPS) for kept in (steps, steps[is_right])])


def lowest_threshold(counts: np.ndarray, min_precision: float) -> float:
    """The lowest confidence from which on at least this share of the answers is right; 1.0 if there is none.

    Args:
        counts: [2, 2000], summed `confidence_counts`.
        min_precision: wanted share of right answers among those given.
    """
    answered, right = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    holds = np.flatnonzero((answered > 0) & (right >= min_precision * answered))
    return float(holds[0] / CONFIDENCE_STEPS) if holds.size else 1.0
