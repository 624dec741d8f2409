"""A report whose examples have texts -> encrypted files with all of it, and the report that the plain files may hold.

In: a report and recipients. Out: report.json.age and report.html.age; the same report without texts. Not here: the
plain files (the jobs that write them), encrypting (encryption.py).
"""

from textcls import encryption, storage
from textcls.encryption import Keys
from textcls.plain_text import json_text
from textcls.reporting.page import report_page
from textcls.reporting.report import ExampleRow, Report

NAMES = frozenset(name + encryption.SUFFIX for name in ("report.json", "report.html"))
_OF_TEXTS = {"texts", "words", "explained"}


def for_all(report: Report, keys: Keys) -> Report:
    """The report that plain files may hold: without recipients the report itself, else without texts."""
    if not keys.recipients:
        return report
    rows = [one.model_dump(exclude_unset=True, exclude=_OF_TEXTS) for one in report.examples]
    return report.model_copy(update={"examples": tuple(map(ExampleRow.model_validate, rows))} if rows else {})


def write_with_texts(report: Report, uri: str, keys: Keys) -> None:
    """Writes the whole report encrypted, if there are recipients and the report has texts.

    Args:
        report: as it was made.
        uri: of a claimed --out.
        keys: the recipients.
    """
    if not keys.recipients or not any(one.texts for one in report.examples):
        return
    content = {"report.json": json_text(report.content(), indent=1) + "\n", "report.html": report_page(report)}
    for name, text in content.items():
        encryption.write_bytes(storage.join(uri, keys.name(name)), text.encode(), keys.recipients)
