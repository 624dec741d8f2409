"""The result of a run as one HTML page that can be mailed, printed and read without a network: report.html.

In: a `Report`; parts that it does not have are left out. Out: HTML as a string, see `page_template.py`, of at most
400 KB. Equal reports give equal pages. Not here: the template (pages/report.html), computing the numbers (tasks/).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from textcls.plain_text import visible
from textcls.reporting import page_scores
from textcls.reporting.marked_words import marked, ranked
from textcls.reporting.page_charts import calibration_charts, training_charts
from textcls.reporting.page_scores import Bounded
from textcls.reporting.page_template import MOST_BYTES, template
from textcls.reporting.report import ExampleRow, NoBaseline, Report, Slice
from textcls.reporting.terminal import BASELINE, MODEL, calibration_lines
from textcls.settings.recipe import Recipe

_MANY_CUT = 0.05
# Slices of one group that are shown without being asked for: up to ten ranges, the empty cells and the other values.
_MOST_OF_GROUP = 12
# What rows are grouped by, for people who do not know the unit.
_BY = {"length": "length in tokens"}
_MOST_SLICES, _MOST_FILES, _MOST_KINDS, _MOST_SETTINGS = 120, 20, 50, 250
# Of each kind, as many as the page has room for.
_EXAMPLES = (20, 10, 5, 2, 0)
_VALUE_CHARS, _NAME_CHARS, _TEXT_CHARS = 200, 80, 2_000


def report_page(report: Report) -> str:
    """The page of a report; encode it as UTF-8.

    Texts of rows are what can make it too large: as many are shown as fit.
    """
    for most_examples in _EXAMPLES:
        page = _page(report, most_examples)
        if len(page.encode()) <= MOST_BYTES:
            break
    return page


def _page(report: Report, most_examples: int) -> str:
    settings = list(_settings(report.recipe or {}))
    return template("report.html").render(
        report=report,
        title=_title(report),
        facts=list(_facts(report)),
        warnings=list(_warnings(report)),
        headlines=page_scores.headlines(report),
        scores=page_scores.scores_of(report),
        model=MODEL,
        baseline=BASELINE,
        has_baseline=report.scored_baseline() is not None,
        labels=page_scores.labels_of(report),
        label_figures=_label_figures(report),
        confused=page_scores.confused_pairs(report),
        confusion_matrix=page_scores.confusion_matrix(report),
        wrong_labels=page_scores.wrong_labels(report),
        misjudged=page_scores.misjudged_pairs(report),
        co_occurrence_matrix=page_scores.co_occurrence_matrix(report),
        calibration=list(calibration_lines(report.calibration, report.test)) if report.calibration else [],
        calibration_charts=calibration_charts(report),
        slices=_slices(report),
        examples=list(_examples(report, most_examples)),
        training_charts=training_charts(report),
        costs=list(_costs(report)),
        account=list(_account(report.rows)),
        reject_reasons=_reasons(report.rows),
        outside_where=report.rows.get("outside_where"),
        masked=_masked(report.rows),
        lengths=_lengths(report),
        files=Bounded.of([visible(file, _VALUE_CHARS) for file in report.files], _MOST_FILES, 0),
        changed=Bounded.of(_changed(settings), _MOST_SETTINGS, 0),
        settings=Bounded.of(settings, _MOST_SETTINGS, 0),
    )


def _title(report: Report) -> str:
    return "Training report" if report.bundle is None else "Evaluation report"


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    """(name, value) for the head of the page."""
    pretrained = (report.recipe or {}).get("model", {}).get("pretrained")
    if pretrained:
        yield "model", str(pretrained)
    if report.bundle:
        yield "bundle", report.bundle.uri
    sources = report.files or (report.recipe or {}).get("data", {}).get("csv") or ()
    if sources:
        named = ", ".join(visible(str(source), _NAME_CHARS) for source in sources[:3])
        yield "data", named + (f" and {len(sources) - 3:,} more" if len(sources) > 3 else "")
    yield "scored", f"{report.title}, {report.test.rows:,} rows"
    if report.test.per_class:
        yield "labels", f"{len(report.test.per_class):,}"
    if report.written_at:
        yield "written", datetime.fromtimestamp(report.written_at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _warnings(report: Report) -> Iterator[str]:
    """What a reader should know before the figures."""
    if report.verdict:
        yield from report.verdict.notes
    if report.tokens and report.tokens.truncated_fraction >= _MANY_CUT:
        yield f"{report.tokens.truncated_fraction:.0%} of the rows are longer than the limit and were cut."
    if isinstance(report.baseline, NoBaseline):
        yield f"{BASELINE}: {visible(report.baseline.error, _VALUE_CHARS)}"


def _label_figures(report: Report) -> list[tuple[str, str]]:
    """(column, attribute) of the scores that only some tasks have."""
    columns = (("average precision", "ap"), ("threshold", "threshold"))
    return [
        (name, key)
        for name, key in columns
        if any(getattr(one, key) is not None for one in report.test.per_class.values())
    ]


def _slices(report: Report) -> Bounded:
    """The slices, those that are surely worse first; groups of many, such as 77 labels, unfold."""
    found = list(report.slices.slices) if report.slices else []
    of_group = Counter(one.by for one in found)

    def part(one: Slice) -> int:
        return 0 if one.worse else 1 if of_group[one.by] <= _MOST_OF_GROUP else 2

    named = [
        one.model_copy(
            update={"by": visible(_BY.get(one.by, one.by), _NAME_CHARS), "value": visible(one.value, _NAME_CHARS)}
        )
        for one in sorted(found, key=part)
    ]
    shown = min(sum(part(one) < 2 for one in found), _MOST_SLICES)
    return Bounded.of(named, shown, _MOST_SLICES - shown)


def _examples(report: Report, most: int) -> Iterator[dict[str, Any]]:
    """The rows worth reading, by kind."""
    for kind, title in (("confident_mistake", "Most confident mistakes"), ("unsure_right", "Least sure right answers")):
        found = [one for one in report.examples if one.kind == kind]
        if found:
            rows = Bounded.of([_example(one) for one in found], most, 0)
            yield {"title": title, "rows": rows, "with_texts": any(one.texts for one in found)}


def _example(row: ExampleRow) -> dict[str, Any]:
    texts, words = [text[:_TEXT_CHARS] for text in row.texts or ()], row.words or ()
    return {
        "file": visible(row.file, _VALUE_CHARS),
        "line": row.line,
        "labels": [visible(label, _VALUE_CHARS) for label in row.labels],
        "predicted": [visible(label, _VALUE_CHARS) for label in row.predicted],
        "score": row.score,
        "texts": marked(texts, words),
        "ranked": ranked(texts, words),
        "words": len(words),
        "explained": None if row.explained is None else visible(row.explained, _VALUE_CHARS),
    }


def _costs(report: Report) -> Iterator[tuple[str, str]]:
    """(name, value) of what the training took."""
    if speed := report.speed:
        on = [f"{speed.workers} workers" if (speed.workers or 1) > 1 else "", speed.device or "", speed.precision or ""]
        yield "training", f"{speed.seconds:,.0f} s" + (f" on {', '.join(filter(None, on))}" if any(on) else "")
        yield "speed", f"{speed.rows_per_s:,.0f} rows/s, {speed.tokens_per_s:,.0f} tokens/s"
    if report.padding_ratio:
        yield "padding", f"{report.padding_ratio - 1:.1%} on top of the real tokens"
    if report.stopped_early:
        yield "stopped", "early: the validation score no longer improved"
    baseline = report.scored_baseline()
    if baseline and baseline.rows_used is not None:
        yield BASELINE, f"trained on {baseline.rows_used:,} rows in {baseline.seconds or 0.0:.1f} s"


def _account(rows: Mapping[str, Any]) -> Iterator[tuple[str, int, float | None]]:
    """(outcome, rows, share of the rows read)."""
    read = rows.get("read")
    for name, number in rows.items():
        if type(number) is int and name not in ("read", "outside_where"):
            yield name.replace("_", " "), number, number / read if read else None


def _reasons(rows: Mapping[str, Any]) -> Bounded:
    """(reason, rejected rows), the most frequent first."""
    reasons = rows.get("reject_reasons")
    found = sorted(reasons.items(), key=lambda item: -item[1]) if isinstance(reasons, Mapping) else []
    return Bounded.of([(visible(str(reason), _VALUE_CHARS), number) for reason, number in found], _MOST_FILES, 0)


def _masked(rows: Mapping[str, Any]) -> dict[str, Any] | None:
    """The splits in which placeholders were counted, and by kind of personal data (kind, rows that hold it,
    placeholders in each of these splits); None where nothing is masked."""
    if not isinstance(masked := rows.get("masked"), Mapping):
        return None
    placeholders = masked.get("placeholders", {})
    kinds = [
        (visible(str(kind), _NAME_CHARS), held, [found.get(kind, 0) for found in placeholders.values()])
        for kind, held in masked.get("rows", {}).items()
    ]
    return {"splits": list(placeholders), "kinds": Bounded.of(kinds, _MOST_KINDS, 0)}


def _lengths(report: Report) -> list[tuple[str, Mapping[str, int]]]:
    """(of what, percentile -> tokens)."""
    if not report.tokens:
        return []
    of_texts = zip(("first text", "second text"), report.tokens.texts, strict=False)
    return [("row", report.tokens.percentiles), *of_texts]


def _settings(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(section.key, value) of every setting."""
    for name, value in recipe.items():
        if isinstance(value, Mapping) and value:
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield visible(f"{prefix}{name}", _NAME_CHARS), visible(_plain(value), _VALUE_CHARS)


def _changed(settings: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The settings that are not the defaults of this version of textcls."""
    defaults = set(_settings(Recipe().model_dump(mode="json")))
    return [setting for setting in settings if setting not in defaults]


def _plain(value: Any) -> str:
    """A setting as people write it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "(none)"
    return "(none)" if value is None or value == {} else str(value)
