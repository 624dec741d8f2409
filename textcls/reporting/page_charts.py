"""The charts of the report's page: learning curves, reliability, and what abstaining would give.

In: a `Report`. Out: charts; none where the report has no such numbers. Not here: their geometry (charts.py).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from textcls.reporting.charts import Chart, Point, Series, Table, table, thinned
from textcls.reporting.report import Report
from textcls.reporting.task_scores import TaskScores
from textcls.reporting.terminal import BASELINE, MODEL, number

_Style = Literal["model", "other", "plain"]

_MOST_DOTS = 40
# Score -> name and style, in the order of drawing; most runs choose the checkpoint by the last one.
_VALIDATION_SCORES: tuple[tuple[str, str, _Style], ...] = (
    ("accuracy", "accuracy", "other"),
    ("micro_f1", "micro F1", "other"),
    ("macro_f1", "macro F1", "model"),
)


def training_charts(report: Report) -> list[Chart]:
    """The loss and the validation scores by step."""
    return [*_loss(report), *_validation_scores(report)]


def calibration_charts(report: Report) -> list[Chart]:
    """The reliability diagram, and accuracy by the share of rows that are answered."""
    return [*_reliability(report), *_coverage(report)]


# --- training --------------------------------------------------------------------------------------------------------


def _loss(report: Report) -> Iterator[Chart]:
    train = thinned([(float(step), loss) for step, loss in report.curve if math.isfinite(loss)])
    validation = _points(report, "loss")
    series = [Series("training", "plain", train, dots=False)] if train else []
    series += [_over_epochs("validation", "model", validation)] if validation else []
    if series:
        cells = [(step, number(loss), "-") for step, loss in train] + [
            (step, "-", number(loss)) for step, loss in validation
        ]
        rows = [[f"{step:,.0f}", *losses] for step, *losses in sorted(cells)]
        yield Chart(
            name="loss",
            title="Loss by step",
            description=_ends("Training loss", train) + _ends("Validation loss", validation) + _kept(report),
            x_label="step",
            y_label="loss",
            series=series,
            table=table(["step", "training loss", "validation loss"], rows),
            best_x=report.best.step if report.best else None,
        )


def _validation_scores(report: Report) -> Iterator[Chart]:
    found = [(name, style, _points(report, key)) for key, name, style in _VALIDATION_SCORES]
    found = [one for one in found if one[2]]
    if not found:
        return
    named = {name for name, _, _ in found}
    rows = [
        [f"{epoch.step:,}", *(number(epoch.score(key)) for key, name, _ in _VALIDATION_SCORES if name in named)]
        for epoch in report.history
    ]
    yield Chart(
        name="scores",
        title="Validation scores by step",
        description="".join(_ends(name[0].upper() + name[1:], points) for name, _, points in found) + _kept(report),
        x_label="step",
        y_label="score",
        series=[_over_epochs(name, style, points) for name, style, points in found],
        table=table(["step", *(name for name, _, _ in found)], rows),
        best_x=report.best.step if report.best else None,
    )


def _points(report: Report, key: str) -> list[Point]:
    """(step, a score of the validation split) of the epochs that have it."""
    found = [(float(epoch.step), epoch.score(key)) for epoch in report.history]
    return [(step, value) for step, value in found if value is not None and math.isfinite(value)]


def _over_epochs(name: str, style: _Style, points: Sequence[Point]) -> Series:
    return Series(name, style, thinned(points), dots=len(points) <= _MOST_DOTS)


def _ends(name: str, points: Sequence[Point]) -> str:
    if not points:
        return ""
    (first_step, first), (last_step, last) = points[0], points[-1]
    if len(points) == 1:
        return f"{name}: {first:.3f} at step {first_step:,.0f}. "
    return f"{name}: {first:.3f} at step {first_step:,.0f}, {last:.3f} at step {last_step:,.0f}. "


def _kept(report: Report) -> str:
    return f"Step {report.best.step:,} became the bundle; a dotted line marks it." if report.best else ""


# --- calibration -----------------------------------------------------------------------------------------------------


def _sides(report: Report) -> list[tuple[str, _Style, TaskScores]]:
    """The baseline and the model, in the order of drawing."""
    sides: list[tuple[str, _Style, TaskScores | None]] = [
        (BASELINE, "other", report.scored_baseline()),
        (MODEL, "model", report.test),
    ]
    return [(name, style, side) for name, style, side in sides if side]


def _reliability(report: Report) -> Iterator[Chart]:
    test = report.test
    if not test.reliability:
        return
    of_rows = sum(one.rows for one in test.reliability) <= test.rows
    asked, unit, result = (
        ("confidence", "rows", "accuracy") if of_rows else ("probability", "answers", "share with the label")
    )
    series, rows = [], []
    for name, style, side in _sides(report):
        bins = side.reliability
        whole = max(sum(one.rows for one in bins), 1)
        if bins:
            points = [(one.confidence, one.accuracy) for one in bins]
            series.append(Series(name, style, points, [one.rows / whole for one in bins]))
        for one in bins:
            figures = [f"{one.rows:,}", number(one.confidence, 3), number(one.accuracy, 3)]
            rows.append([f"{one.low:.2f} to {one.high:.2f}", name, *figures])
    yield Chart(
        name="reliability",
        title=f"Reliability: is a {asked} of 80 % right 80 % of the time?",
        description="Points on the dotted diagonal are perfectly calibrated; the area of a point is its share of the "
        f"{unit}. Expected calibration error: {number(test.ece, 3)}.",
        x_label=asked,
        y_label=result,
        series=series,
        table=Table([asked, "of", unit, f"mean {asked}", result], rows),
        unit=True,
        diagonal=True,
    )


def _coverage(report: Report) -> Iterator[Chart]:
    if len(report.test.coverage) < 2:
        return
    series, rows = [], []
    for name, style, side in _sides(report):
        points = sorted((one.coverage, one.accuracy) for one in side.coverage)
        if points:
            series.append(Series(name, style, points, dots=len(points) <= _MOST_DOTS))
        for one in side.coverage:
            rows.append([number(one.confidence, 3), name, f"{one.coverage:.1%}", number(one.accuracy, 3)])
    whole = "; ".join(f"{one.name} {one.points[-1][1]:.3f}" for one in series)
    yield Chart(
        name="coverage",
        title="Accuracy if only the surest rows are answered",
        description=f"From right to left, the least sure rows are left unanswered. Accuracy of all rows: {whole}.",
        x_label="share of the rows that are answered",
        y_label="accuracy of the answers",
        series=series,
        table=Table(["confidence from", "of", "answered", "accuracy"], rows),
    )
