"""Out-of-sample probabilities -> rows in the order in which their labels are worth a look.

In: for each row the probabilities of a model that has not seen it, and its target. Out: `AuditedRows`, the largest loss
of the given label first, and what they say of the labels as a whole. Pure. Not here: where the probabilities come from
(held_out.py, regression.py), files (sheet.py).

Sorting by the out-of-sample loss of a fine-tuned model finds more label errors in text than confident learning
(Chong, Hong, Manning 2022, "Detecting Label Errors by Using Pre-Trained Language Models").
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import numpy as np

from textcls.tasks.metrics import wilson_interval
from textcls.tasks.task import Task

_PAIRS_LISTED = 20
_HARD_TO_TELL = 0.3
_FEWEST_ROWS = 5


@dataclass(frozen=True, eq=False)
class AuditedRows:
    """Rows with the verdict of a model that has not seen them; each array is [N].

    Attributes:
        row_id: int64, see `data/row_tables.py`.
        fold: int16, from 1: the fold that held the row out.
        label: objects, the given label as the task spells it.
        suggested: objects, the label that the model finds more probable than the given one; otherwise the given one.
        p_given: float64, probability of the given label.
        p_suggested: float64, probability of the suggested label.
        margin: float64, p_given less the probability of the best other label; below 0 if another is suggested.
        loss: float64, -ln p_given.
        value: float64, right answers that the row brings to others, see value.py; NaN before `with_values`.
    """

    row_id: np.ndarray
    fold: np.ndarray
    label: np.ndarray
    suggested: np.ndarray
    p_given: np.ndarray
    p_suggested: np.ndarray
    margin: np.ndarray
    loss: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.row_id)

    @property
    def differs(self) -> np.ndarray:
        """bool [N]: where the model suggests another label."""
        return self.margin < 0

    def take(self, rows: np.ndarray) -> "AuditedRows":
        """The rows at these places, or where a mask is true, in that order."""
        return AuditedRows(*(getattr(self, field.name)[rows] for field in fields(self)))

    def with_values(self, row_id: np.ndarray, value: np.ndarray) -> "AuditedRows":
        """The rows with their values, which are given for at least these ids, in any order."""
        return replace(self, value=value[places_of(self.row_id, row_id)])


def places_of(wanted: np.ndarray, row_id: np.ndarray) -> np.ndarray:
    """int64 [N]: where each of N wanted ids is in `row_id`, which holds all of them, each once, in any order."""
    order = np.argsort(row_id)
    found: np.ndarray = order[np.searchsorted(row_id[order], wanted)]
    return found


def audited(
    task: Task, names: Sequence[str], row_id: np.ndarray, probabilities: np.ndarray, targets: np.ndarray, fold: Any
) -> AuditedRows:
    """The verdicts on N rows.

    Args:
        task: what is predicted.
        names: label names in id order.
        row_id: int64 [N].
        probabilities: float [N, C] of a model that has not seen the rows.
        targets: [N, *T], the given labels.
        fold: which fold held them out, one number or [N].
    """
    loss = task.row_losses(probabilities, targets)
    other = task.best_other(probabilities, targets)
    p_given, p_other = np.exp(-loss), np.exp(-task.row_losses(probabilities, other))
    label = np.array([*task.decode(targets, names), None], object)[:-1]  # never an array of characters
    suggested = np.array([*task.decode(other, names), None], object)[:-1]
    margin = p_given - p_other
    suggested[margin >= 0] = label[margin >= 0]
    folds = np.broadcast_to(np.asarray(fold, np.int16), len(loss))
    return AuditedRows(
        row_id, folds, label, suggested, p_given, np.maximum(p_given, p_other), margin, loss, np.full(len(loss), np.nan)
    )


def ranked(rows: AuditedRows) -> AuditedRows:
    """The rows from the largest loss on; rows with equal losses in the order of the files."""
    return rows.take(np.lexsort((rows.row_id, -rows.loss)))


def suspect(rows: AuditedRows) -> np.ndarray:
    """bool [N]: rows whose suggested label is as probable as it is, on average, in rows that are given it.

    The criterion of confident learning (Northcutt, Jiang, Chuang 2021): it allows for a model that is more sure of some
    labels than of others. A label that no row has is compared with the average over all rows. It is an upper estimate:
    a model that is often wrong suspects many right labels.
    """
    if not len(rows):
        return np.zeros(0, bool)
    given, place = np.unique(rows.label.astype(str), return_inverse=True)
    usual = np.bincount(place, rows.p_given) / np.bincount(place)
    by_label = dict(zip(given.tolist(), usual.tolist(), strict=True))
    overall = float(rows.p_given.mean())
    needed = np.array([by_label.get(label, overall) for label in rows.suggested.tolist()])
    found: np.ndarray = rows.differs & (rows.p_suggested >= needed)
    return found


def agreement(rows: AuditedRows) -> dict[str, Any]:
    """How often the models agree with the labels, beside what knowing nothing about the texts gives.

    Returns:
        `share`, of the rows whose label is the most probable one; `low` and `high`, its 95 % interval;
        `most_common_label` and its `most_common_share`; `better_than_most_common`, whether the share is surely greater.
    """
    agreed = len(rows) - int(rows.differs.sum())
    low, high = wilson_interval(agreed, len(rows))
    (label, number), *_ = [*Counter(rows.label.tolist()).most_common(1), ("", 0)]
    usual = number / max(len(rows), 1)
    return {
        "share": agreed / max(len(rows), 1),
        "low": low,
        "high": high,
        "most_common_label": label,
        "most_common_share": usual,
        "better_than_most_common": low > usual,
    }


def confused_pairs(rows: AuditedRows, task: Task) -> list[dict[str, Any]]:
    """Pairs of label names that the model takes for each other, the most confused first.

    Returns:
        Of each pair: `labels`; `rows`, how many rows have exactly one of the two; `first_as_second` and
        `second_as_first`, in how many of these one takes the place of the other; `confused`, the smaller share of the
        two directions; `hard_to_tell_apart`, whether this is 30 % or more. Two labels that mean the same reach 50 %.
    """
    taken: Counter[tuple[str, str]] = Counter()
    having: Counter[str] = Counter()
    for (label, suggested), number in Counter(zip(rows.label.tolist(), rows.suggested.tolist(), strict=True)).items():
        given, found = set(task.names_in(label)), set(task.names_in(suggested))
        having.update(dict.fromkeys(given, number))
        taken.update(dict.fromkeys(product(given - found, found - given), number))
    pairs: list[tuple[float, dict[str, Any]]] = []
    for one, other in sorted({(min(both), max(both)) for both in taken}):
        there, back = taken[one, other], taken[other, one]
        if min(having[one], having[other]) < _FEWEST_ROWS or not (there and back):
            continue
        share = min(there / having[one], back / having[other])
        pair = {
            "labels": [one, other],
            "rows": having[one] + having[other],
            "first_as_second": there,
            "second_as_first": back,
            "confused": round(share, 4),
            "hard_to_tell_apart": share >= _HARD_TO_TELL,
        }
        pairs.append((-share, pair))
    return [pair for _, pair in sorted(pairs, key=lambda one: (one[0], one[1]["labels"]))[:_PAIRS_LISTED]]
