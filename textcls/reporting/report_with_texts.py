"""A report with cells of the CSV -> encrypted files with all of it, and the report that the plain files may hold.

In: a report and recipients. Out: report.json.age and report.html.age; the same report without texts of examples and
without the slices by a column, whose values are cells. Not here: the plain files (the jobs that write them),
encrypting (encryption.py).
"""

from textcls import encryption, storage
from textcls.encryption import Keys
from textcls.plain_text import json_text
from textcls.reporting.page import report_page
from textcls.reporting.report import ExampleRow, Report, SliceScores
from textcls.reporting.verdict import without_slices

NAMES = frozenset(name + encryption.SUFFIX for name in ("report.json", "report.html"))
_OF_TEXTS = {"texts", "words", "explained"}


def for_all(report: Report, keys: Keys) -> Report:
    """The report that plain files may hold: without recipients the report itself, else without cells of the CSV."""
    if not keys.recipients:
        return report
    rows = [one.model_dump(exclude_unset=True, exclude=_OF_TEXTS) for one in report.examples]
    if rows:
        report = report.model_copy(update={"examples": tuple(map(ExampleRow.model_validate, rows))})
    if report.slices is not None and _has_columns(report):
        report = without_slices(report, _without_columns(report.slices))
    return report


def _has_columns(report: Report) -> bool:
    return report.slices is not None and any(one.of_column for one in report.slices.slices)


def _without_columns(slices: SliceScores) -> SliceScores:
    of_columns = dict.fromkeys(one.by for one in slices.slices if one.of_column)
    return slices.model_copy(
        update={
            "slices": tuple(one for one in slices.slices if not one.of_column),
            "left_out": dict.fromkeys(of_columns, "Its values are cells of the CSV: see report.html.age."),
        }
    )


def write_with_texts(report: Report, uri: str, keys: Keys) -> None:
    """Writes the whole report encrypted, if there are recipients and the report has texts or slices by a column.

    Args:
        report: as it was made.
        uri: of a claimed --out.
        keys: the recipients.
    """
    if not keys.recipients or not (_has_columns(report) or any(one.texts for one in report.examples)):
        return
    content = {"report.json": json_text(report.content(), indent=1) + "\n", "report.html": report_page(report)}
    for name, text in content.items():
        encryption.write_bytes(storage.join(uri, keys.name(name)), text.encode(), keys.recipients)
