"""The result of a run as tables for a terminal or a log.

In: a `Report`; parts that it does not have are left out. Out: rich tables, or plain text. Not here: the picture
(picture.py), computing the numbers (tasks/metrics.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from textcls.plain_text import visible
from textcls.reporting.report import Baseline, CalibrationSummary, NoBaseline, Report, Slice, SliceScores
from textcls.reporting.task_scores import CoOccurrence, Proportion, TaskScores

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

MODEL, BASELINE = "fine-tuned", "TF-IDF baseline"
PLAIN_WIDTH = 100
"""Columns of a log, which has no width of its own."""
MOST_CLASSES = 20
"""Up to this number of labels, all are listed; of more, only the worst."""
SOME_UNKNOWN = 0.001
"""Share of unknown tokens that is worth a word."""

SCORES = (
    ("accuracy", "accuracy"),
    ("micro_f1", "micro F1"),
    ("macro_f1", "macro F1"),
    ("weighted_f1", "weighted F1"),
    ("map", "mean average precision"),
    ("lrap", "label ranking average precision"),
    ("subset_accuracy", "subset accuracy"),
    ("hamming_loss", "Hamming loss"),
    ("log_loss", "log loss (nats)"),
    ("ece", "calibration error (ECE)"),
)
"""(score, its name in the table), in order."""
_WORST_CLASSES = 10
_WORST_PAIRS = 5
_WORST_SLICES = 5


def print_report(report: Report, file: TextIO) -> None:
    """Writes the tables: in colour to a terminal, else as plain text of 100 columns that any encoding can hold."""
    from rich.console import Console

    terminal = file.isatty()
    # Explicit, since rich would otherwise follow FORCE_COLOR, COLUMNS and Jupyter even in a log.
    console = Console(
        file=file,
        force_terminal=terminal,
        force_jupyter=False,
        width=None if terminal else PLAIN_WIDTH,
    )
    with console.capture() as capture:
        console.print(result_table(report))
    encoding = file.encoding or "utf-8"
    # A label may hold characters that the log's encoding lacks.
    lines = (line.rstrip() for line in capture.get().encode(encoding, "backslashreplace").decode(encoding).split("\n"))
    file.write("\n".join(lines))


def result_table(report: Report) -> "Group":
    """The scores beside the baseline's, the labels (of many, the worst), the most confused pairs, costs, verdict."""
    from rich.console import Group
    from rich.text import Text

    test, baseline = report.test, report.scored_baseline()
    parts: list[Table | Text] = [_overall(report.title, test, baseline)]
    if test.per_class:
        parts.append(_by_class(test, baseline))
    if test.confusion and (pairs := test.confusion.most_confused(_WORST_PAIRS)):
        parts.append(_pairs(pairs))
    if test.co_occurrence:
        parts += [*_missed(test), *_together(test.co_occurrence)]
    if report.slices and (worse := report.slices.surely_worse()):
        parts.append(_slices(report.slices, worse))
    parts.extend(Text(f"  {line}", "dim") for line in (*_rows_to_read(report), *_costs(report)))
    if verdict := report.verdict:
        parts += [Text(""), Text(visible(verdict.sentence), "bold"), *map(Text, map(visible, verdict.notes))]
    return Group(*parts)


def _overall(title: str, test: TaskScores, baseline: Baseline | None) -> "Table":
    columns, sides = [("", "left"), (MODEL, "right")], [test]
    if baseline:
        columns, sides = [*columns, (BASELINE, "right")], [test, baseline]
    table = _table(f"{title}: {test.rows:,} rows", *columns)
    for key, name in SCORES:
        if key not in test.model_fields_set:
            continue
        if key == "macro_f1" and test.macro_labels is not None and test.macro_labels < len(test.per_class):
            name += f" of {test.macro_labels} labels"
        found = [getattr(side, key) for side in sides]
        table.add_row(name, *(number(one.value if isinstance(one, Proportion) else one) for one in found))
        if isinstance(found[0], Proportion):
            intervals = (f"{number(share.low)} to {number(share.high)}" if share else "-" for share in found)
            table.add_row("  95 % interval", *intervals)
    for key in test.other_scores():
        table.add_row(_text(key.replace("_", " ")), *(number(side.other_scores().get(key)) for side in sides))
    return table


def _by_class(test: TaskScores, baseline: Baseline | None) -> "Table":
    per_class = test.per_class
    shown, title = list(per_class), "By label"
    if len(shown) > MOST_CLASSES:
        shown = sorted(shown, key=lambda name: per_class[name].f1)[:_WORST_CLASSES]
        title = f"By label: the {_WORST_CLASSES} of {len(per_class)} with the lowest F1"
    figures = [(name, "right") for name in ("precision", "recall", "F1", "rows")]
    more = [
        (word, key)
        for word, key in (("AP", "ap"), ("threshold", "threshold"))
        if any(key in one.model_fields_set for one in per_class.values())
    ]
    figures += [(word, "right") for word, _ in more]
    table = _table(title, ("label", "left"), *figures, *([("baseline F1", "right")] if baseline else []))
    for name in shown:
        one = per_class[name]
        cells = [number(one.precision), number(one.recall), number(one.f1), f"{one.support:,}"]
        cells += [number(getattr(one, key)) for _, key in more]
        if baseline:
            other = baseline.per_class.get(name)
            cells.append(number(other.f1 if other else None))
        table.add_row(_text(name), *cells)
    return table


def _pairs(pairs: Sequence[tuple[str, str, int, float]]) -> "Table":
    columns = [("true label", "left"), ("predicted", "left"), ("rows", "right"), ("of true label", "right")]
    table = _table("Most confused", *columns)
    for true, predicted, rows, share in pairs:
        table.add_row(_text(true), _text(predicted), f"{rows:,}", f"{share:.1%}")
    return table


def _missed(test: TaskScores) -> Iterator["Table"]:
    """The labels with most wrong answers."""
    counts = {name: one.hits() for name, one in test.per_class.items()}
    worst = sorted(counts, key=lambda name: -sum(counts[name][1:]))[:_WORST_PAIRS]
    worst = [name for name in worst if sum(counts[name][1:])]
    if worst:
        table = _table(
            "Most often wrong", ("label", "left"), *((name, "right") for name in ("rows", "missed", "added"))
        )
        for name in worst:
            _, missed, added = counts[name]
            table.add_row(_text(name), f"{test.per_class[name].support:,}", f"{missed:,}", f"{added:,}")
        yield table


def _together(co_occurrence: CoOccurrence) -> Iterator["Table"]:
    """The pairs of labels that are predicted together more or less often than they occur together."""
    if pairs := co_occurrence.most_misjudged(_WORST_PAIRS):
        columns = [("label", "left"), ("with", "left"), ("rows", "right"), ("predicted", "right")]
        table = _table("Together too often or too seldom", *columns)
        for first, second, rows, predicted in pairs:
            table.add_row(_text(first), _text(second), f"{rows:,}", f"{predicted:,}")
        yield table


def _slices(slices: SliceScores, worse: Sequence[Slice]) -> "Table":
    """The slices that are surely worse than all other rows."""
    title = "Surely worse than the rest" + (f": {_WORST_SLICES} of {len(worse)}" if len(worse) > _WORST_SLICES else "")
    columns = [(name, "right") for name in ("rows", slices.metric, "95 % interval")]
    table = _table(title, ("slice", "left"), *columns)
    listed = [(one.words, f"{one.rows:,}", one.share) for one in worse[:_WORST_SLICES]]
    for words, rows, share in (*listed, ("all rows", "", slices.overall)):
        table.add_row(_text(words), rows, number(share.value), f"{number(share.low)} to {number(share.high)}")
    return table


def _rows_to_read(report: Report) -> Iterator[str]:
    if report.slices and report.slices.tested and not report.slices.surely_worse():
        yield f"none of {report.slices.tested:,} slices of the rows is surely worse than the rest"
    mistakes = [one for one in report.examples if one.kind == "confident_mistake"]
    unsure = len(report.examples) - len(mistakes)
    if report.examples:
        yield f"worth reading, in the report: confident mistakes ({len(mistakes)}), unsure right answers ({unsure})"
    if mistakes:
        worst = mistakes[0]
        labels, predicted = (visible(", ".join(names)) or "no label" for names in (worst.labels, worst.predicted))
        yield f"the most confident mistake: {visible(worst.file)}:{worst.line}, {labels} taken for {predicted}"


def _costs(report: Report) -> Iterator[str]:
    if (none := report.test.no_label) and (none.true or none.predicted):
        yield f"rows without a label: {none.true:,}; predicted to have none: {none.predicted:,}"
    if report.calibration:
        yield from calibration_lines(report.calibration, report.test)
    if tokens := report.tokens:
        unknown = tokens.unknown_fraction or 0.0
        yield (
            f"tokens per row: {_lengths(tokens.percentiles)}; {tokens.truncated_fraction:.1%} of the rows were cut"
            + (f"; {unknown:.1%} of the tokens are [UNK]" if unknown >= SOME_UNKNOWN else "")
        )
        for which, percentiles in zip(("first", "second"), tokens.texts, strict=False):
            yield f"tokens of the {which} text: {_lengths(percentiles)}"
    if tested := report.faithfulness:
        yield (
            f"explanations: without the words that they name first, a score falls by {tested.comprehensiveness:.2f} "
            f"({tested.random_comprehensiveness:.2f} in random order), with these alone by {tested.sufficiency:.2f} "
            f"({tested.random_sufficiency:.2f}); means of {tested.explanations:,} explanations"
        )
    if private := report.privacy:
        bound = f"epsilon {private.epsilon:.2f}, delta {private.delta:.2g} for each {private.unit}"
        yield f"privacy: {bound} of the training; the report lists what this does not cover"
        yield from private.other_runs
    if speed := report.speed:
        yield f"trained in {speed.seconds:,.0f} s: {speed.rows_per_s:,.0f} rows/s, {speed.tokens_per_s:,.0f} tokens/s"
    if report.padding_ratio:
        yield f"padding: {report.padding_ratio - 1:.1%} on top of the real tokens"
    baseline = report.baseline
    if isinstance(baseline, NoBaseline):
        yield f"{BASELINE}: {visible(baseline.error)}"
    elif baseline and baseline.rows_used is not None:
        yield f"{BASELINE}: trained on {baseline.rows_used:,} rows in {baseline.seconds or 0.0:.1f} s"


def calibration_lines(calibration: CalibrationSummary, test: TaskScores) -> Iterator[str]:
    """How scores were calibrated, and which rows are answered."""
    if calibration.ece_before is not None:
        temperature = f"temperature {calibration.temperature:.2f}"
        if of_labels := calibration.temperatures:
            low, high = f"{min(of_labels):.2f}", f"{max(of_labels):.2f}"
            temperature = f"a temperature for each label, {low} to {high}" if low != high else f"temperature {low}"
        yield (
            f"calibrated by {temperature}: ECE on the validation split "
            f"{number(calibration.ece_before, 3)} -> {number(calibration.ece_after, 3)}"
        )
    answered = test.answered
    if answered is None or answered.coverage is None:
        return
    if calibration.thresholds:
        if answered.coverage < 1:
            yield (
                f"abstains where no label is sure and absence is not either: answers {answered.coverage:.1%} of the "
                f"test rows, {number(answered.accuracy)} of them with exactly their labels"
            )
    elif calibration.min_precision is not None:
        yield (
            f"abstains below {calibration.threshold:.3f}, for {calibration.min_precision:.1%} right answers: "
            f"answers {answered.coverage:.1%} of the test rows, {number(answered.accuracy)} of them rightly"
        )


def _table(title: str, *columns: tuple[str, str]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=_text(title, "bold"), box=box.SIMPLE, title_justify="left")
    for name, justify in columns:
        # Where space is short, labels are cut and figures are not.
        if justify == "right":
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(name)
    return table


def number(value: float | None, digits: int = 4) -> str:
    """The value with this number of decimals; a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def _text(name: str, style: str = "") -> "Text":
    """A label as it is, without rich's [markup] and :emoji: codes."""
    from rich.text import Text

    return Text(visible(name), style, overflow="ellipsis", no_wrap=True)


def _lengths(percentiles: Mapping[str, int]) -> str:
    return ", ".join(f"{'longest' if at == '100' else at + ' %'} {n:,.0f}" for at, n in percentiles.items())
