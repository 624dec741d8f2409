"""95 % confidence intervals of F1, from the hits and misses of labels.

In: the scores of a label, or of all labels. Out: intervals. Not here: intervals of shares of rows, which the task
computes (tasks/metrics.py).
"""

import math

from textcls.reporting.task_scores import LabelScores, Proportion, TaskScores
from textcls.tasks.metrics import wilson_interval


def f1_interval(scores: LabelScores) -> Proportion:
    """F1 of a label that rows have.

    F1 is 2J / (1 + J), where J is the share of hits among the rows that have the label or are predicted to: Wilson's
    interval of J gives one of F1.
    """
    hits, missed, added = scores.hits()
    low, high = (2 * share / (1 + share) for share in wilson_interval(hits, hits + missed + added))
    return Proportion(value=2 * hits / (2 * hits + missed + added), low=low, high=high)


def macro_f1_interval(scores: TaskScores) -> Proportion | None:
    """Macro F1; None if the task has no such score.

    The intervals of the labels add up as Zou and Donner (2008) combine intervals.
    """
    labels = [one for one in scores.per_class.values() if one.support]
    if scores.macro_f1 is None or not labels:
        return None
    below = above = 0.0
    for f1 in map(f1_interval, labels):
        assert f1.value is not None
        below, above = below + (f1.value - f1.low) ** 2, above + (f1.high - f1.value) ** 2
    count = scores.macro_labels or len(scores.per_class)
    value = scores.macro_f1
    low, high = value - math.sqrt(below) / count, value + math.sqrt(above) / count
    return Proportion(value=value, low=max(0.0, low), high=min(1.0, high))
