"""The slices of a report: rows, share of right answers, interval, and whether a slice is surely worse than the rest.

In: what was studied, and the sum of its findings. Out: plain values, ready for `SliceScores` of reporting/report.py.
Not here: the test (significance.py).

Slices by confidence and by label are shown and not tested. A lower confidence is meant to come with fewer right
answers, so that a test would only confirm that scores mean something. The share of a label is its recall, which a
classifier trades for precision and for the recall of other labels; the table of labels shows both sides. Neither is
known before the answer or without the right label, so nobody can act on it beforehand.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from textcls.slices.findings import RowFindings, RowStudy
from textcls.slices.significance import LEAST_ROWS, significant, worse_p_value
from textcls.tasks.metrics import wilson_interval

_MOST_LABELS = 100
_OFTEN_ALIKE = frozenset(("length", "truncated", "file"))
_NOT_TESTED = {
    "confidence": "A lower confidence is meant to come with fewer right answers.",
    "label": "The share of a label is its recall, which is traded for precision: see the table of labels.",
}


def summarise_slices(study: RowStudy, findings: RowFindings) -> dict[str, Any]:
    """`metric`, `overall`, `slices`, `not_tested`, as in `SliceScores`.

    Slices without rows are left out, and so is what divides the rows into one slice, unless it was asked for. Of more
    than 100 labels, those with the lowest shares are listed.
    """
    all_rows, all_right = findings.total.tolist()
    slices: list[dict[str, Any]] = []
    p_values: list[float] = []
    for by, value, rows, right in _counted(study, findings):
        found: dict[str, Any] = {"by": by, "value": value, "rows": rows, "share": _proportion(right, rows)}
        if by not in _NOT_TESTED and LEAST_ROWS <= rows < all_rows:
            found["p_value"] = worse_p_value(rows, right, all_rows, all_right)
            p_values.append(found["p_value"])
        slices.append(found)
    is_worse = iter(significant(p_values))
    for found in slices:
        if "p_value" in found:
            found["worse"] = next(is_worse)
    shown = {found["by"] for found in slices}
    return {
        "metric": study.task.share_of_right.replace("_", " "),
        "overall": _proportion(all_right, all_rows),
        "slices": slices,
        "not_tested": {by: why for by, why in _NOT_TESTED.items() if by in shown},
    }


def _proportion(right: int, rows: int) -> dict[str, float | None]:
    low, high = wilson_interval(right, rows)
    return {"value": right / rows if rows else None, "low": low, "high": high}


def _counted(study: RowStudy, findings: RowFindings) -> Iterator[tuple[str, str, int, int]]:
    """(by, value, rows, right answers) of the slices that are listed."""
    first = 0
    for group in study.groups:
        rows, right = findings.counts[:, first : first + len(group.values)]
        first += len(group.values)
        listed = np.flatnonzero(rows)
        if group.by in _OFTEN_ALIKE and len(listed) < 2:
            continue
        if group.by == "label" and len(listed) > _MOST_LABELS:
            listed = np.sort(listed[np.argsort(right[listed] / rows[listed], kind="stable")[:_MOST_LABELS]])
        for number in listed.tolist():
            yield group.by, group.values[number], int(rows[number]), int(right[number])
