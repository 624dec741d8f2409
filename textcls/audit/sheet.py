"""Rows to look at -> audit.csv, a table with an empty column `decision` to fill in.

In: audited rows, their places and texts, and what speaks for another label. Out: CSV bytes that a spreadsheet opens as
text, never as formulas. Pure. Not here: which rows (ranking.py), reading decisions back (data/decisions.py).
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from textcls.data.decisions import DECISION, FILE, LABEL, LINE, ROW, SUGGESTED, escaped
from textcls.plain_text import visible
from textcls.text.text_input import TextInput

_TEXT_CHARS = 1000


class SheetRow(NamedTuple):
    """A line of the sheet.

    Attributes:
        file: URI of the file of the row.
        line: 1-based line of its record.
        label: the given label, as the task spells it.
        suggested: the label that the model finds most probable.
        numbers: of the columns `NUMBERS`.
        fold: which fold held the row out, from 1.
        evidence: name of a column -> what is known, such as rows of the same text with another label.
        input: what the model reads, masked.
        mark: `row_mark` of the row as it is in the CSV.
    """

    file: str
    line: int
    label: str
    suggested: str
    numbers: Sequence[float]
    fold: int
    evidence: Mapping[str, str]
    input: TextInput
    mark: str


NUMBERS = ("p_given", "p_suggested", "margin", "loss", "value")
EVIDENCE = ("same_text", "nearly_same", "similar")


def sheet(rows: Iterable[SheetRow], *, encoding: str = "utf-8", inputs: Sequence[str] = ("text",)) -> bytes:
    """The content of audit.csv, the first row the one that is most worth a look.

    Args:
        rows: in the order of their rank.
        encoding: `utf-8`, or `utf-8-sig` for Excel.
        inputs: a name for each segment of an input.
    """
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\r\n")
    table.writerow(
        ["rank", FILE, LINE, LABEL, SUGGESTED, DECISION, *NUMBERS, "fold", *EVIDENCE, *inputs, ROW],
    )
    for rank, row in enumerate(rows, 1):
        numbers = [f"{number:.4f}" for _, number in zip(NUMBERS, row.numbers, strict=True)]
        evidence = [escaped(row.evidence.get(name, "")) for name in EVIDENCE]
        texts = [escaped(visible(text, _TEXT_CHARS)) for text in row.input.segments]
        shown = [escaped(cell) for cell in (row.label, row.suggested)]
        table.writerow([rank, escaped(row.file), row.line, *shown, "", *numbers, row.fold, *evidence, *texts, row.mark])
    # Undecodable bytes are rejects, so every text can be encoded.
    return file.getvalue().encode(encoding)
