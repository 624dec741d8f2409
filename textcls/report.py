"""What a person reads after a run: a table for the terminal or a log, and a picture.

In: the content of report.json, a plain dict; what is missing from it is left out. Out: rich renderables, plain text,
PNG bytes. Not here: computing the numbers (metrics.py) and gathering them (training/trainer.py).

    test        metrics.summarise               baseline   the same, with rows_used and seconds; or {error}
    curve       [(step, mean training loss)]    history    validation: [{step, loss, accuracy, macro_f1}]
    best        {step}, the one that was kept   tokens     {percentiles {"50": n}, truncated_fraction}
    speed       {seconds, rows_per_s, tokens_per_s}        padding_ratio
"""

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

Report = Mapping[str, Any]

MODEL, BASELINE = "fine-tuned", "TF-IDF baseline"
PLAIN_WIDTH = 100
"""Columns of a log, which has no width of its own."""
PNG_SIZE = (1800, 1440)
"""Pixels of the picture, width by height."""

_MOST_CLASSES = 20  # tabulated and named in full; of more, the worst are
_WORST_CLASSES = 10
_WORST_PAIRS = 5
_INK, _QUIET, _FAINT = "#222222", "#767676", "#dddddd"
_BLUE, _ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito (2008): told apart by colour-blind readers and in print


# ---------------------------------------------------------------------------------------------------------- the table


def print_report(report: Report, file: TextIO) -> None:
    """Writes the tables: in colour to a terminal, else as plain text of 100 columns that any encoding can hold."""
    from rich.console import Console

    terminal = file.isatty()
    # Told, not guessed: rich would look at FORCE_COLOR, COLUMNS and Jupyter, and a log is a log.
    console = Console(
        file=file,
        force_terminal=terminal,
        force_jupyter=False,
        width=None if terminal else PLAIN_WIDTH,
    )
    with console.capture() as capture:
        console.print(result_table(report))
    encoding = file.encoding or "utf-8"
    # A label may hold characters the log's encoding does not.
    lines = (line.rstrip() for line in capture.get().encode(encoding, "backslashreplace").decode(encoding).split("\n"))
    file.write("\n".join(lines))


def result_table(report: Report) -> "Group":
    """The test result beside the baseline's, the labels (of many, the worst), the most confused pairs, the cost."""
    from rich.console import Group
    from rich.text import Text

    test, baseline = report["test"], _baseline(report)
    parts: list[Table | Text] = [_overall(test, baseline)]
    parts.append(_by_class(test, baseline))
    if pairs := confused_pairs(test["confusion"], _WORST_PAIRS):
        parts.append(_pairs(pairs))
    parts.extend(Text(f"  {line}", "dim") for line in _costs(report))
    return Group(*parts)


def confused_pairs(confusion: Report, most: int) -> list[tuple[str, str, int, float]]:
    """(true label, predicted label, rows, share of the true label's rows) of the pairs with most rows, in order."""
    names, matrix = confusion["labels"], np.array(confusion["matrix"], np.int64)
    support = matrix.sum(axis=1)
    wrong = matrix - np.diag(np.diagonal(matrix))
    found = []
    for place in np.argsort(-wrong.ravel(), kind="stable")[:most]:
        true, predicted = divmod(int(place), len(names))
        if rows := int(wrong[true, predicted]):
            found.append((names[true], names[predicted], rows, rows / int(support[true])))
    return found


def _baseline(report: Report) -> Report | None:
    found: Report = report.get("baseline") or {}
    return found if "per_class" in found else None


def _overall(test: Report, baseline: Report | None) -> "Table":
    table = _table(f"Test split: {test['rows']:,} rows", ("", "left"), (MODEL, "right"), (BASELINE, "right"))

    def row(name: str, values: Iterator[str]) -> None:
        table.add_row(name, next(values), next(values) if baseline else "-")

    sides = [test, baseline] if baseline else [test]
    row("accuracy", (_number(side["accuracy"]["value"]) for side in sides))
    row("  95 % interval", (f"{_number(s['accuracy']['low'])} to {_number(s['accuracy']['high'])}" for s in sides))
    for key, name in (("macro_f1", "macro F1"), ("weighted_f1", "weighted F1"), ("log_loss", "log loss (nats)")):
        row(name, (_number(side[key]) for side in sides))
    row("calibration error (ECE)", (_number(side["ece"]) for side in sides))
    return table


def _by_class(test: Report, baseline: Report | None) -> "Table":
    per_class = test["per_class"]
    shown, title = list(per_class), "By label"
    if len(shown) > _MOST_CLASSES:
        shown = sorted(shown, key=lambda name: float(per_class[name]["f1"]))[:_WORST_CLASSES]
        title = f"By label: the {_WORST_CLASSES} of {len(per_class)} with the lowest F1"
    figures = [(name, "right") for name in ("precision", "recall", "F1", "rows")]
    table = _table(title, ("label", "left"), *figures, *([("baseline F1", "right")] if baseline else []))
    for name in shown:
        one = per_class[name]
        cells = [_number(one["precision"]), _number(one["recall"]), _number(one["f1"]), f"{one['support']:,}"]
        if baseline:
            cells.append(_number(baseline["per_class"].get(name, {}).get("f1")))
        table.add_row(_text(name), *cells)
    return table


def _pairs(pairs: Sequence[tuple[str, str, int, float]]) -> "Table":
    columns = [("true label", "left"), ("predicted", "left"), ("rows", "right"), ("of true label", "right")]
    table = _table("Most confused", *columns)
    for true, predicted, rows, share in pairs:
        table.add_row(_text(true), _text(predicted), f"{rows:,}", f"{share:.1%}")
    return table


def _costs(report: Report) -> Iterator[str]:
    if tokens := report.get("tokens"):
        parts = [f"{'longest' if at == '100' else at + ' %'} {n:,.0f}" for at, n in tokens["percentiles"].items()]
        yield f"tokens per row: {', '.join(parts)}; {tokens['truncated_fraction']:.1%} of the rows were cut"
    if speed := report.get("speed"):
        line = f"trained in {speed['seconds']:,.0f} s: {speed['rows_per_s']:,.0f} rows/s, "
        yield line + f"{speed['tokens_per_s']:,.0f} tokens/s"
    if padding := report.get("padding_ratio"):
        yield f"padding: {padding - 1:.1%} on top of the real tokens"
    baseline = report.get("baseline") or {}
    if "error" in baseline:
        yield f"{BASELINE}: {_visible(baseline['error'])}"
    elif "rows_used" in baseline:
        yield f"{BASELINE}: trained on {baseline['rows_used']:,} rows in {baseline['seconds']:.1f} s"


def _table(title: str, *columns: tuple[str, str]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE, title_justify="left", title_style="bold")
    for name, justify in columns:
        # Where space is short a label gives way, a figure never does.
        if justify == "right":
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(name)
    return table


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _text(name: str) -> "Text":
    """A label as it is: no [markup], no :emoji: codes."""
    from rich.text import Text

    return Text(_visible(name), overflow="ellipsis", no_wrap=True)


def _visible(text: str) -> str:
    """Control characters as escapes, so that a label can neither break a line nor command the terminal."""
    joiner = "\u200d"  # holds an emoji of several together
    return "".join(c if c.isprintable() or c == joiner else c.encode("unicode_escape").decode() for c in text)


# -------------------------------------------------------------------------------------------------------- the picture


def draw_report(report: Report) -> bytes:
    """PNG, 1800 x 1440: training curves, confusion matrix, reliability diagram and F1 by label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dpi = 120
    figure = Figure(figsize=(PNG_SIZE[0] / dpi, PNG_SIZE[1] / dpi), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, left=0.075, right=0.965, top=0.89, bottom=0.065, wspace=0.3, hspace=0.4)
    figure.text(0.075, 0.955, _headline(report), fontsize=15, fontweight="bold", color=_INK)
    _draw_training(figure, grid[0, 0], report)
    _draw_confusion(figure.add_subplot(grid[0, 1]), report["test"]["confusion"])
    _draw_reliability(figure.add_subplot(grid[1, 0]), report["test"], _baseline(report))
    _draw_f1(figure.add_subplot(grid[1, 1]), report["test"], _baseline(report))
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi)
    return png.getvalue()


def _headline(report: Report) -> str:
    accuracy, baseline = report["test"]["accuracy"], _baseline(report)
    text = f"Accuracy {_number(accuracy['value'], 3)} ({accuracy['low']:.3f} to {accuracy['high']:.3f})"
    if baseline:
        text += f", {BASELINE} {_number(baseline['accuracy']['value'], 3)}"
    return f"{text}, on {report['test']['rows']:,} test rows"


def _draw_training(figure: "Figure", place: Any, report: Report) -> None:
    upper, lower = place.subgridspec(2, 1, hspace=0.28)
    loss = figure.add_subplot(upper)
    score = figure.add_subplot(lower, sharex=loss)

    def validation(key: str) -> list[tuple[float, float]]:
        return [(one["step"], one[key]) for one in report.get("history") or [] if one.get(key) is not None]

    best = (report.get("best") or {}).get("step")
    _title(loss, "Training" if best is None else f"Training; step {best:,} was kept")
    if best is not None:
        for axes in (loss, score):
            axes.axvline(best, color=_FAINT, linewidth=6, zorder=0)
    _draw_curves(loss, [(report.get("curve") or [], "train", _QUIET), (validation("loss"), "validation", _BLUE)])
    _draw_curves(score, [(validation("accuracy"), "accuracy", _QUIET), (validation("macro_f1"), "macro F1", _BLUE)])
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
    _quiet(axes)
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


def _draw_confusion(axes: "Axes", confusion: Report) -> None:
    from matplotlib.colors import PowerNorm

    matrix = np.array(confusion["matrix"], np.float64)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    classes = len(matrix)
    many = classes > _MOST_CLASSES
    # Among many labels each confusion is rare: the square root makes 1 % visible.
    axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5 if many else 1.0, vmin=0, vmax=1))
    axes.set_xlabel("predicted label")
    axes.set_ylabel("true label")
    axes.tick_params(length=0, labelsize=9, colors=_INK)
    for side in axes.spines.values():
        side.set_color(_FAINT)
    if many:
        _title(axes, f"Confusion of {classes} labels, as share of the true label")
        axes.set(xlabel="predicted label id", ylabel="true label id")
        return
    _title(axes, "Confusion, in % of the true label")
    names = [_drawable(name, label_id) for label_id, name in enumerate(confusion["labels"])]
    steep = classes > 4 or max(map(len, names)) > 14
    slope: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if steep else {}
    axes.set_xticks(range(classes), names, parse_math=False, **slope)
    axes.set_yticks(range(classes), names, parse_math=False)
    size = 13 if classes <= 3 else 10 if classes <= 12 else 6.5
    for true, predicted in itertools.product(range(classes), repeat=2):
        value = share[true, predicted]
        if classes <= 8:
            text = f"{value:.1%}\n{int(matrix[true, predicted]):,}"
        else:
            text = f"{100 * value:.0f}" if value >= 0.005 else ""
        axes.text(
            predicted, true, text, ha="center", va="center", fontsize=size, color="white" if value > 0.6 else _INK
        )


def _draw_reliability(axes: "Axes", test: Report, baseline: Report | None) -> None:
    _title(axes, "Reliability: is a confidence of 80 % right 80 % of the time?")
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1.5, zorder=1)
    axes.text(0.02, 0.045, "perfectly calibrated", color=_QUIET, fontsize=9, rotation=45, rotation_mode="anchor")
    sides = [(baseline, BASELINE, _ORANGE, 0.16), (test, MODEL, _BLUE, 0.08)]
    for side, name, colour, height in sides:
        if side is None or side["ece"] is None:
            continue
        bins = side["reliability"]
        x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        area = [8 + 500 * b["rows"] / side["rows"] for b in bins]
        axes.plot(x, y, color=colour, linewidth=1.2, alpha=0.6, zorder=2)
        axes.scatter(x, y, s=area, color=colour, alpha=0.75, linewidth=0, zorder=3)
        axes.text(0.97, height, f"{name}: ECE {side['ece']:.3f}", color=colour, fontsize=10, ha="right")
    axes.text(0.97, 0.02, "area of a dot: its share of the rows", color=_QUIET, fontsize=9, ha="right")
    axes.set(xlim=(0, 1.03), ylim=(-0.03, 1.05), xlabel="confidence", ylabel="accuracy", aspect="equal", anchor="W")
    _quiet(axes)


def _draw_f1(axes: "Axes", test: Report, baseline: Report | None) -> None:
    label_id = {name: n for n, name in enumerate(test["per_class"])}
    names = sorted(label_id, key=lambda name: float(test["per_class"][name]["f1"]))
    model = np.array([test["per_class"][name]["f1"] for name in names])
    other = np.array([baseline["per_class"].get(name, {}).get("f1", np.nan) for name in names]) if baseline else None
    at = np.arange(len(names))
    many = len(names) > _MOST_CLASSES
    size = 14 if many else 60
    if other is not None:
        axes.hlines(at, np.fmin(model, other), np.fmax(model, other), color=_FAINT, linewidth=1.2 if many else 3)
        axes.scatter(other, at, s=size, color=_ORANGE, linewidth=0, zorder=2)
    axes.scatter(model, at, s=size, color=_BLUE, linewidth=0, zorder=3)
    drawable = [_drawable(name, label_id[name]) for name in names]
    if many:
        axes.set_yticks([at[0], at[-1]], [drawable[0], drawable[-1]], parse_math=False)
    else:
        axes.set_yticks(at, drawable, parse_math=False)
        for values, offset, colour in ((model, 8, _BLUE), (other, -15, _ORANGE)):
            for y, x in enumerate([] if values is None or len(names) > 8 else values):
                style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 9, "color": colour}
                axes.annotate(_number(x, 3), (x, y), xytext=(0, offset), **style)
    axes.set(xlabel="F1 on the test split", ylim=(-0.7, len(names) - 0.3))
    _title(axes, f"F1 of {len(names)} labels" if many else "F1 by label")
    axes.text(1, 1.025, f"● {MODEL}", color=_BLUE, fontsize=10, ha="right", transform=axes.transAxes)
    if baseline:
        axes.text(0.76, 1.025, f"● {BASELINE}", color=_ORANGE, fontsize=10, ha="right", transform=axes.transAxes)
    _quiet(axes)
    axes.spines["left"].set_visible(False)


def _title(axes: "Axes", text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11, fontweight="bold", color=_INK, pad=10)


def _quiet(axes: "Axes") -> None:
    """Only the lines that carry a scale."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)
    axes.tick_params(length=0, labelsize=9, colors=_INK)
    axes.grid(color="#f0f0f0", linewidth=0.8)
    axes.set_axisbelow(True)


def _drawable(name: str, label_id: int) -> str:
    """The name without what matplotlib's own font has no glyph for, at most 18 characters; #id if nothing is left."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    kept = " ".join("".join(c for c in _visible(name) if font.get_char_index(ord(c))).split())
    if not kept:
        return f"#{label_id}"
    return kept if len(kept) <= 18 else kept[:17] + "…"
