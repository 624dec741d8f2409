"""The result of a run as one picture: the training curves, and the scores of the classifier.

In: a `Report`; parts that it does not have are left out. Out: PNG bytes.
Not here: the tables (terminal.py), computing the numbers (tasks/metrics.py).
"""

import io
import logging
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from textcls.plain_text import visible
from textcls.reporting.drawing import BLUE, FAINT, INK, ORANGE, QUIET, quiet, title
from textcls.reporting.label_matrix import draw_co_occurrence, draw_confusion
from textcls.reporting.label_names import DrawnNames
from textcls.reporting.report import Report
from textcls.reporting.task_scores import TaskScores
from textcls.reporting.terminal import BASELINE, MODEL, MOST_CLASSES, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PNG_SIZE = (1800, 1440)
"""Pixels of the picture, width by height."""

# In one line of the picture's width.
_VERDICT_CHARS = 165
_NO_FONT = (
    "Escapes such as \\u597d: no font of this machine has the character. Debian's fonts-noto-cjk has Chinese, Japanese "
    "and Korean, fonts-noto-core most scripts, fonts-symbola emoji."
)


def draw_report(report: Report) -> bytes:
    """PNG, 1800 x 1440: training curves, confusion or co-occurrence of labels, reliability diagram, F1 by label."""
    # Without a home directory matplotlib warns about its cache.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dpi = 120
    figure = Figure(figsize=(PNG_SIZE[0] / dpi, PNG_SIZE[1] / dpi), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    test, baseline = report.test, report.scored_baseline()
    names = DrawnNames.of(list(test.per_class))
    bottom = 0.065 + _draw_key(figure, names, _labels_in_words(test))
    grid = figure.add_gridspec(2, 2, left=0.075, right=0.965, top=0.89, bottom=bottom, wspace=0.3, hspace=0.4)
    _draw_headline(figure, report, names)
    _draw_training(figure, grid[0, 0], report)
    if test.confusion:
        draw_confusion(figure.add_subplot(grid[0, 1]), test.confusion, names)
    elif test.co_occurrence:
        draw_co_occurrence(figure.add_subplot(grid[0, 1]), test.co_occurrence, names)
    _draw_reliability(figure.add_subplot(grid[1, 0]), test, baseline)
    if test.per_class:
        _draw_f1(figure.add_subplot(grid[1, 1]), test, baseline, names)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi)
    return png.getvalue()


def _draw_headline(figure: "Figure", report: Report, names: DrawnNames) -> None:
    """The scores, and below them what they mean."""
    figure.text(0.075, 0.96, _headline(report), fontsize=15, fontweight="bold", color=INK)
    if verdict := report.verdict:
        style: dict[str, Any] = {"fontsize": 10.5, "color": INK, "parse_math": False, "va": "top"}
        sentence = textwrap.shorten(visible(names.drawable(verdict.sentence)), _VERDICT_CHARS, placeholder=" …")
        figure.text(0.075, 0.947, sentence, fontfamily=names.families, **style)


def _headline(report: Report) -> str:
    test, baseline = report.test, report.scored_baseline()
    rows = f"{test.rows:,} test rows"
    if test.accuracy is None:
        if test.macro_f1 is None:
            return rows
        text = f"Macro F1 {number(test.macro_f1, 3)}"
        return f"{text}{_beside(baseline.macro_f1 if baseline else None)}, on {rows}"
    text = f"Accuracy {number(test.accuracy.value, 3)} ({test.accuracy.low:.3f} to {test.accuracy.high:.3f})"
    return f"{text}{_beside(baseline.accuracy.value if baseline and baseline.accuracy else None)}, on {rows}"


def _beside(of_baseline: float | None) -> str:
    return "" if of_baseline is None else f", {BASELINE} {number(of_baseline, 3)}"


def _draw_training(figure: "Figure", cell: Any, report: Report) -> None:
    upper, lower = cell.subgridspec(2, 1, hspace=0.28)
    loss = figure.add_subplot(upper)
    score = figure.add_subplot(lower, sharex=loss)

    def validation(key: str) -> list[tuple[float, float]]:
        points = [(epoch.step, epoch.score(key)) for epoch in report.history]
        return [(step, value) for step, value in points if value is not None]

    best = report.best.step if report.best else None
    title(loss, "Training" if best is None else f"Training; step {best:,} was kept")
    if best is not None:
        for axes in (loss, score):
            axes.axvline(best, color=FAINT, linewidth=6, zorder=0)
    _draw_curves(loss, [(report.curve, "train", QUIET), (validation("loss"), "validation", BLUE)])
    others = [(validation(key), name, QUIET) for key, name in (("accuracy", "accuracy"), ("micro_f1", "micro F1"))]
    _draw_curves(score, [*others, (validation("macro_f1"), "macro F1", BLUE)])
    loss.set_ylabel("loss")
    loss.tick_params(labelbottom=False)
    score.set_ylabel("validation score")
    score.set_xlabel("step")


def _draw_curves(axes: "Axes", curves: Sequence[tuple[Sequence[tuple[float, float]], str, str]]) -> None:
    from matplotlib.ticker import MaxNLocator

    ends = []
    for points, name, colour in curves:
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=colour, linewidth=1.8, marker="o", markersize=4 if len(points) < 30 else 0)
            ends.append((steps[-1], values[-1], name, colour))
    quiet(axes)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _label_ends(axes, ends)


def _label_ends(axes: "Axes", ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names curves at their ends rather than in a legend, pushed apart where the ends are close."""
    low, high = axes.get_ylim()
    least = (high - low) * 0.1
    heights = [y for _, y, _, _ in ends]
    if len(heights) == 2 and abs(heights[0] - heights[1]) < least:
        middle, sign = sum(heights) / 2, 1 if heights[0] >= heights[1] else -1
        heights = [middle + sign * least / 2, middle - sign * least / 2]
    for (x, _, name, colour), height in zip(ends, heights, strict=True):
        style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "color": colour, "fontsize": 9}
        axes.annotate(name, (x, height), xytext=(7, 0), annotation_clip=False, **style)


def _draw_reliability(axes: "Axes", test: TaskScores, baseline: TaskScores | None) -> None:
    of_rows = sum(one.rows for one in test.reliability) <= test.rows
    asked, unit = ("confidence", "rows") if of_rows else ("probability", "answers")
    title(axes, f"Reliability: is a {asked} of 80 % right 80 % of the time?")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.5, zorder=1)
    axes.text(0.02, 0.045, "perfectly calibrated", color=QUIET, fontsize=9, rotation=45, rotation_mode="anchor")
    sides = [(baseline, BASELINE, ORANGE, 0.16), (test, MODEL, BLUE, 0.08)]
    for side, name, colour, height in sides:
        if side is None or side.ece is None:
            continue
        bins = side.reliability
        x, y = [one.confidence for one in bins], [one.accuracy for one in bins]
        whole = max(sum(one.rows for one in bins), 1)
        area = [8 + 500 * one.rows / whole for one in bins]
        axes.plot(x, y, color=colour, linewidth=1.2, alpha=0.6, zorder=2)
        axes.scatter(x, y, s=area, color=colour, alpha=0.75, linewidth=0, zorder=3)
        axes.text(0.97, height, f"{name}: ECE {side.ece:.3f}", color=colour, fontsize=10, ha="right")
    axes.text(0.97, 0.02, f"area of a dot: its share of the {unit}", color=QUIET, fontsize=9, ha="right")
    axes.set(
        xlim=(0, 1.03),
        ylim=(-0.03, 1.05),
        xlabel=asked,
        ylabel="accuracy" if of_rows else "share of rows that have the label",
        aspect="equal",
        anchor="W",
    )
    quiet(axes)


def _draw_f1(axes: "Axes", test: TaskScores, baseline: TaskScores | None, names: DrawnNames) -> None:
    by_f1 = _by_f1(test)
    labels = [list(test.per_class)[i] for i in by_f1]
    model = np.array([test.per_class[label].f1 for label in labels])
    other = None
    if baseline:
        found = baseline.per_class
        other = np.array([found[name].f1 if name in found else np.nan for name in labels])
    at = np.arange(len(labels))
    many = len(labels) > MOST_CLASSES
    size = 14 if many else 60
    if other is not None:
        axes.hlines(at, np.fmin(model, other), np.fmax(model, other), color=FAINT, linewidth=1.2 if many else 3)
        axes.scatter(other, at, s=size, color=ORANGE, linewidth=0, zorder=2)
    axes.scatter(model, at, s=size, color=BLUE, linewidth=0, zorder=3)
    drawn = [names.names[i] for i in by_f1]
    ticks = [0, -1] if many else slice(None)
    axes.set_yticks(at[ticks], np.array(drawn)[ticks], parse_math=False, fontfamily=names.families)
    if not many:
        for values, offset, colour in ((model, 8, BLUE), (other, -15, ORANGE)):
            for y, x in enumerate([] if values is None or len(labels) > 8 else values):
                style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 9, "color": colour}
                axes.annotate(number(x, 3), (x, y), xytext=(0, offset), **style)
    axes.set(xlabel="F1 on the test split", ylim=(-0.7, len(labels) - 0.3))
    title(axes, f"F1 of {len(labels)} labels" if many else "F1 by label")
    axes.text(1, 1.025, f"● {MODEL}", color=BLUE, fontsize=10, ha="right", transform=axes.transAxes)
    if baseline:
        axes.text(0.76, 1.025, f"● {BASELINE}", color=ORANGE, fontsize=10, ha="right", transform=axes.transAxes)
    quiet(axes)
    axes.spines["left"].set_visible(False)


def _by_f1(test: TaskScores) -> list[int]:
    """Label ids by rising F1."""
    f1 = [one.f1 for one in test.per_class.values()]
    return sorted(range(len(f1)), key=lambda i: f1[i])


def _labels_in_words(test: TaskScores) -> list[int]:
    """Ids of the labels whose names the picture shows: all of them, or of many the first and the last by F1."""
    by_f1 = _by_f1(test)
    return sorted(by_f1) if len(by_f1) <= MOST_CLASSES else [by_f1[0], by_f1[-1]]


def _draw_key(figure: "Figure", names: DrawnNames, shown: Sequence[int]) -> float:
    """Writes the whole names of labels that are shown in short at the foot; the height it takes, of the figure's 1."""
    lines = [f"#{i}  {names.key[i]}" for i in shown if i in names.key]
    if not lines:
        return 0.0
    line, columns = 0.0155, 3
    rows = -(-len(lines) // columns)
    style: dict[str, Any] = {"fontsize": 8.5, "color": INK, "va": "top", "parse_math": False}
    top = 0.018 + line * (rows + bool(names.missing))
    for i, text in enumerate(lines):
        x, y = 0.075 + 0.3 * (i // rows), top - line * (i % rows)
        figure.text(x, y, text, fontfamily=names.families, **style)
    if names.missing:
        figure.text(0.075, top - line * rows, _NO_FONT, **style | {"color": QUIET})
    return 0.02 + line * (rows + bool(names.missing))
