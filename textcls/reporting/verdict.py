"""What the figures of a report mean: the sentence that a careful colleague would say about them.

In: a `Report`. Out: a `Verdict`: the finding that matters most, and at most two others, or None where nothing can be
said. Equal reports have equal verdicts. Pure; not here: computing the figures (tasks/), showing them (terminal.py,
picture.py).

Scores are compared by their 95 % confidence intervals: the accuracy if the task has one, and macro F1. The findings, by
falling importance:

    one answer for every row · worse than the baseline · not distinguishable from it · labels that are never predicted
    correctly · tokens that the vocabulary lacks · better than the baseline · a slice that is surely worse · too few
    rows · still improving
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from textcls.plain_text import visible
from textcls.reporting.intervals import macro_f1_interval
from textcls.reporting.report import Report, SliceScores, TokenLengths, Verdict
from textcls.reporting.task_scores import TaskScores
from textcls.settings.yaml_text import set_option

MANY_UNKNOWN = 0.05
"""Share of unknown tokens from which on it is worth a warning."""

# An interval that is wider than ten points tells little.
_WIDE = 0.1
# The last epoch is an improvement if its score is better by this share of itself.
_GAIN = 0.01
_MOST_NOTES, _MOST_NAMES, _NAME_CHARS, _SLICE_CHARS = 2, 3, 30, 80
_BASELINE = "the TF-IDF baseline"


def verdict_of(report: Report, *, own_test: TaskScores | None = None) -> Verdict | None:
    """The verdict on a report; None if it holds nothing to judge by.

    Args:
        report: of a training run or an evaluation.
        own_test: of an evaluation: the scores of the bundle on the test split of its own training run.
    """
    found = list(_findings(report, own_test)) if report.test.rows else []
    return Verdict(sentence=found[0], notes=tuple(found[1 : 1 + _MOST_NOTES])) if found else None


def judged(report: Report, *, own_test: TaskScores | None = None) -> Report:
    """The report with its verdict, if there is one; see `verdict_of`."""
    verdict = verdict_of(report, own_test=own_test)
    return report if verdict is None else report.model_copy(update={"verdict": verdict})


def without_slices(report: Report, kept: SliceScores) -> Report:
    """The report with some of its slices alone; its verdict names no other one."""
    changed: dict[str, Any] = {"slices": kept}
    said = _worse_slice(report.slices) if report.slices else None
    if report.verdict and said:
        sentences = (report.verdict.sentence, *report.verdict.notes)
        left = [one if one != said else _worse_slice(kept) for one in sentences]
        told = [one for one in left if one]
        changed["verdict"] = Verdict(sentence=told[0], notes=tuple(told[1:])) if told else None
    return report.model_copy(update=changed)


def _findings(report: Report, own_test: TaskScores | None) -> Iterator[str]:
    """The findings as sentences, the most important one first."""
    test = report.test
    one_answer = _one_answer(test)
    if one_answer:
        yield one_answer
    compared = _compared(test, own_test or report.scored_baseline(), own=own_test is not None)
    if compared and not compared.good:
        yield compared.sentence
    if not one_answer and (never := _never_right(test)):
        yield never
    if report.tokens and (unknown := _unknown(report.tokens, trained=report.bundle is None)):
        yield unknown
    if compared and compared.good:
        yield compared.sentence
    if report.slices and (worse := _worse_slice(report.slices)):
        yield worse
    if not (compared and compared.few) and (few := _too_few(test)):
        yield few
    if improving := _still_improving(report):
        yield improving


def _one_answer(test: TaskScores) -> str | None:
    """Whether every row has the same answer though the rows differ."""
    rows = test.rows
    if test.no_label and test.no_label.predicted == rows > test.no_label.true:
        return f"No label is predicted for any of the {rows:,} rows."
    confusion = test.confusion
    if confusion is None or confusion.other_rows or sum(number > 0 for number in confusion.support) < 2:
        return None
    predicted = {label for _, label, number in confusion.pairs if number}
    if len(predicted) != 1:
        return None
    return f"The model predicts one label only: {_shown(confusion.labels[predicted.pop()])} for each of {rows:,} rows."


def _never_right(test: TaskScores) -> str | None:
    """Labels that rows have and that no such row is predicted to have."""
    with_rows = {name: one for name, one in test.per_class.items() if one.support}
    never = [name for name, one in with_rows.items() if not one.recall]
    if not never or len(with_rows) < 2:
        return None
    rows = sum(with_rows[name].support for name in never)
    subject = "1 label is" if len(never) == 1 else f"{len(never)} labels are"
    return f"{subject} never predicted correctly: {_listed(never)}, with {rows:,} rows in all."


def _worse_slice(slices: SliceScores) -> str | None:
    """The worst of the slices that are surely worse than the other rows."""
    worse = slices.surely_worse()
    if not worse:
        return None
    worst, metric = worse[0], slices.metric
    subject = visible(worst.words, _SLICE_CHARS)
    found = f"{subject[0].upper()}{subject[1:]} are answered worse than the others: {metric} "
    found += f"{worst.share.value or 0.0:.3f} in {worst.rows:,} rows, {slices.overall.value or 0.0:.3f} over all"
    others = {1: "", 2: "; so is 1 more slice"}
    return f"{found}{others.get(len(worse), f'; so are {len(worse) - 1} more slices')}."


def _unknown(tokens: TokenLengths, *, trained: bool) -> str | None:
    if (tokens.unknown_fraction or 0) < MANY_UNKNOWN:
        return None
    found = f"{tokens.unknown_fraction:.0%} of the tokens are [UNK], unknown to the model's vocabulary"
    advice = "choose a model.pretrained whose vocabulary has the language of the texts"
    return f"{found}: {advice}." if trained else f"{found}: a model of another language may suit these texts."


def _still_improving(report: Report) -> str | None:
    """Whether the last epoch has the best validation score, by more than a trifle, and training stopped there."""
    history, best = report.history, report.best
    if len(history) < 2 or best is None or best.select_by is None or report.stopped_early:
        return None
    values = [epoch.score(best.select_by) for epoch in history]
    *before, last = [value for value in values if value is not None]
    if len(before) + 1 < len(history) or best.step != history[-1].step:
        return None
    closest = min(before, key=lambda value: abs(value - last))
    if abs(closest - last) < _GAIN * abs(last):
        return None
    epochs = len(history)
    more = set_option("train.epochs", epochs + max(1, round(epochs / 2)))
    words = best.select_by.replace("_", " ").replace(" f1", " F1")
    return (
        f"The validation score was still improving in the last epoch ({words} {closest:.3f} -> {last:.3f}): a new run "
        f"with {more} may be better."
    )


# --- comparing -------------------------------------------------------------------------------------------------------


class _Interval(NamedTuple):
    """A score and its 95 % confidence interval."""

    name: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def against(self, other: "_Interval") -> int:
        """+1 if this score is greater beyond chance, -1 if it is less, 0 if the difference may be chance.

        The interval of the difference is Newcombe's (1998, method 10), for independent samples. Two classifiers on the
        same rows differ by less chance than that, so it errs on the side of not telling.
        """
        difference = self.value - other.value
        if difference - math.hypot(self.value - self.low, other.high - other.value) > 0:
            return 1
        return -1 if difference + math.hypot(self.high - self.value, other.value - other.low) < 0 else 0


class _Comparison(NamedTuple):
    """A sentence, whether it is good news, and whether it says that there are too few rows."""

    sentence: str
    good: bool
    few: bool = False


def _compared(test: TaskScores, other: TaskScores | None, *, own: bool) -> _Comparison | None:
    """The scores beside the baseline's, or beside those of the bundle's own test split."""
    both_sides = zip(_intervals(test), _intervals(other), strict=True) if other else ()
    pairs = [(mine, theirs) for mine, theirs in both_sides if mine and theirs]
    if not pairs:
        return None
    of_whom = "on the test split of the bundle's own training" if own else _BASELINE
    than = f"than {of_whom}"
    signs = [mine.against(theirs) for mine, theirs in pairs]
    if 1 in signs and -1 in signs:
        told = (
            f"{'better' if sign > 0 else 'worse'} by {_both(*pair)}" for sign, pair in zip(signs, pairs, strict=True)
        )
        return _Comparison(f"Partly better, partly worse {than}: {'; '.join(told)}.", good=False)
    sign, (mine, theirs) = next(((s, pair) for s, pair in zip(signs, pairs, strict=True) if s), (0, pairs[0]))
    if sign:
        return _Comparison(f"Clearly {'better' if sign > 0 else 'worse'} {than}: {_both(mine, theirs)}.", good=sign > 0)
    if _is_wide(mine):
        question = "as good as " if own else "better than "
        found = f"Too few rows ({test.rows:,}) to tell whether it is {question}{of_whom}: {_both(mine, theirs)}."
        return _Comparison(found, good=False, few=True)
    if own:
        return _Comparison(f"As good as {of_whom}: {_both(mine, theirs)}.", good=True)
    return _Comparison(f"Not distinguishable from {of_whom}: {_both(mine, theirs)}.", good=False)


def _both(mine: _Interval, theirs: _Interval) -> str:
    return f"{mine}, against {theirs.value:.3f}"


def _too_few(test: TaskScores) -> str | None:
    found = next((one for one in _intervals(test) if one), None)
    if found is None or not _is_wide(found):
        return None
    low, high = f"{found.low:.2f}", f"{found.high:.2f}"
    return f"{test.rows:,} rows are too few to tell more: the {found.name} lies between {low} and {high}."


def _is_wide(found: _Interval) -> bool:
    return found.high - found.low > _WIDE


def _intervals(scores: TaskScores) -> tuple[_Interval | None, _Interval | None]:
    """(accuracy, macro F1), None where the task has no such score."""
    share = scores.accuracy
    accuracy = None
    if share and share.value is not None:
        accuracy = _Interval("accuracy", share.value, share.low, share.high)
    f1 = macro_f1_interval(scores)
    return accuracy, _Interval("macro F1", f1.value, f1.low, f1.high) if f1 and f1.value is not None else None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(_shown, names[:_MOST_NAMES]))
    others = len(names) - _MOST_NAMES
    return f"{shown} and {others} more" if others > 0 else shown


def _shown(name: str) -> str:
    return f"'{visible(name, _NAME_CHARS)}'"
