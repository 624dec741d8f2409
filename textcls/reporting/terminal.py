"""What a person reads after a run: tables for the terminal or a log.

In: the content of report.json, a plain dict; what is missing from it is left out. Out: rich renderables, plain text.
Not here: the picture (picture.py), computing the numbers (tasks/metrics.py) and gathering them (training/run.py).

    test        metrics.summarise               baseline   the same, with rows_used and seconds; or {error}
    curve       [(step, mean training loss)]    history    validation: [{step, loss, accuracy, macro_f1, ece}]
    best        {step}, the one that was kept   tokens     {percentiles {"50": n}, truncated_fraction}
    speed       {seconds, rows_per_s, tokens_per_s}        padding_ratio
    title       what the rows are; left out: the test split
    calibration {temperature, ece_before, ece_after, threshold, min_precision}
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from textcls.plain_text import visible

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

Report = Mapping[str, Any]

MODEL, BASELINE = "fine-tuned", "TF-IDF baseline"
PLAIN_WIDTH = 100
"""Columns of a log, which has no width of its own."""
MOST_CLASSES = 20
"""As many labels are shown one by one; of more, the worst are."""

_WORST_CLASSES = 10
_WORST_PAIRS = 5


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

    test, baseline = report["test"], baseline_of(report)
    parts: list[Table | Text] = [_overall(report.get("title", "Test split"), test, baseline)]
    parts.append(_by_class(test, baseline))
    if pairs := confused_pairs(test["confusion"], _WORST_PAIRS):
        parts.append(_pairs(pairs))
    parts.extend(Text(f"  {line}", "dim") for line in _costs(report))
    return Group(*parts)


def confused_pairs(confusion: Report, most: int) -> list[tuple[str, str, int, float]]:
    """(true label, predicted label, rows, share of the true label's rows) of the pairs with most rows, in order."""
    names, (pairs, support) = confusion["labels"], _pairs_and_support(confusion)
    wrong = pairs[pairs[:, 0] != pairs[:, 1]]
    worst = wrong[np.argsort(-wrong[:, 2], kind="stable")[:most]].tolist()
    return [(names[true], names[predicted], rows, rows / int(support[true])) for true, predicted, rows in worst]


def confusion_matrix(confusion: Report, most: int) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [n, n] rows by true and predicted label id, int64 [n] rows by true label id).

    Of more than `most` labels, neighbours share one of the n = `most` places.
    """
    pairs, support = _pairs_and_support(confusion)
    labels = len(support)
    places = min(labels, most)
    place = np.arange(labels) * places // max(labels, 1)
    matrix, rows = np.zeros((places, places), np.int64), np.zeros(places, np.int64)
    np.add.at(matrix, (place[pairs[:, 0]], place[pairs[:, 1]]), pairs[:, 2])
    np.add.at(rows, place, support)
    return matrix, rows


def _pairs_and_support(confusion: Report) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [K, 3] of true label id, predicted label id, rows; int64 [C] rows of each label)."""
    if "pairs" in confusion:
        return np.array(confusion["pairs"], np.int64).reshape(-1, 3), np.array(confusion["support"], np.int64)
    matrix = np.array(confusion["matrix"], np.int64)  # as reports once held it
    true, predicted = matrix.nonzero()
    return np.stack([true, predicted, matrix[true, predicted]], axis=1), matrix.sum(axis=1)


def baseline_of(report: Report) -> Report | None:
    """The baseline's numbers; None if there is none, or if it failed."""
    found: Report = report.get("baseline") or {}
    return found if "per_class" in found else None


def _overall(title: str, test: Report, baseline: Report | None) -> "Table":
    columns, sides = [("", "left"), (MODEL, "right")], [test]
    if baseline:
        columns, sides = [*columns, (BASELINE, "right")], [test, baseline]
    table = _table(f"{title}: {test['rows']:,} rows", *columns)

    def row(name: str, values: Iterator[str]) -> None:
        table.add_row(name, *values)

    row("accuracy", (number(side["accuracy"]["value"]) for side in sides))
    row("  95 % interval", (f"{number(s['accuracy']['low'])} to {number(s['accuracy']['high'])}" for s in sides))
    for key, name in (("macro_f1", "macro F1"), ("weighted_f1", "weighted F1"), ("log_loss", "log loss (nats)")):
        row(name, (number(side[key]) for side in sides))
    row("calibration error (ECE)", (number(side["ece"]) for side in sides))
    return table


def _by_class(test: Report, baseline: Report | None) -> "Table":
    per_class = test["per_class"]
    shown, title = list(per_class), "By label"
    if len(shown) > MOST_CLASSES:
        shown = sorted(shown, key=lambda name: float(per_class[name]["f1"]))[:_WORST_CLASSES]
        title = f"By label: the {_WORST_CLASSES} of {len(per_class)} with the lowest F1"
    figures = [(name, "right") for name in ("precision", "recall", "F1", "rows")]
    table = _table(title, ("label", "left"), *figures, *([("baseline F1", "right")] if baseline else []))
    for name in shown:
        one = per_class[name]
        cells = [number(one["precision"]), number(one["recall"]), number(one["f1"]), f"{one['support']:,}"]
        if baseline:
            cells.append(number(baseline["per_class"].get(name, {}).get("f1")))
        table.add_row(_text(name), *cells)
    return table


def _pairs(pairs: Sequence[tuple[str, str, int, float]]) -> "Table":
    columns = [("true label", "left"), ("predicted", "left"), ("rows", "right"), ("of true label", "right")]
    table = _table("Most confused", *columns)
    for true, predicted, rows, share in pairs:
        table.add_row(_text(true), _text(predicted), f"{rows:,}", f"{share:.1%}")
    return table


def _costs(report: Report) -> Iterator[str]:
    if calibration := report.get("calibration"):
        if calibration["ece_before"] is not None:
            yield (
                f"calibrated by temperature {calibration['temperature']:.2f}: ECE on the validation split "
                f"{calibration['ece_before']:.3f} -> {calibration['ece_after']:.3f}"
            )
        if calibration["min_precision"] is not None:
            answered = report["test"]["answered"]
            yield (
                f"abstains below {calibration['threshold']:.3f}, for {calibration['min_precision']:.1%} right answers: "
                f"answers {answered['coverage']:.1%} of the test rows, {number(answered['accuracy'])} of them rightly"
            )
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
        yield f"{BASELINE}: {visible(baseline['error'])}"
    elif "rows_used" in baseline:
        yield f"{BASELINE}: trained on {baseline['rows_used']:,} rows in {baseline['seconds']:.1f} s"


def _table(title: str, *columns: tuple[str, str]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=_text(title, "bold"), box=box.SIMPLE, title_justify="left")
    for name, justify in columns:
        # Where space is short a label gives way, a figure never does.
        if justify == "right":
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(name)
    return table


def number(value: float | None, digits: int = 4) -> str:
    """A figure to so many decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def _text(name: str, style: str = "") -> "Text":
    """A label as it is: no [markup], no :emoji: codes."""
    from rich.text import Text

    return Text(visible(name), style, overflow="ellipsis", no_wrap=True)
