"""What speaks for or against the label of a row: the same text with another label, copies of it, similar texts.

In: the rows to list, all audited rows and their embeddings. Out: lines for audit.csv. Not here: how a line is written
(sheet.py), which rows are listed (run.py).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from textcls.audit.held_out import EmbeddedRows
from textcls.audit.ranking import AuditedRows
from textcls.audit.sheet import NUMBERS, SheetRow
from textcls.data.decisions import row_mark
from textcls.data.read import ReadRows
from textcls.data.row_tables import file_and_line
from textcls.inference.neighbours import nearest
from textcls.plain_text import visible
from textcls.settings.recipe import TextSpec
from textcls.text.masks import masker_of
from textcls.text.near_duplicates import Shingles, near_pairs
from textcls.text.normalizer import normalizer_of
from textcls.text.text_input import TextInput

_NEIGHBOURS = 3
_SHOWN_CHARS = 100
_SHOWN_ROWS = 5


@dataclass(frozen=True, eq=False)
class Copies:
    """Which of N rows have a text that is nearly the same as another's: 60 bytes a row, however many copies it has.

    Attributes:
        row_id: int64 [N], ascending.
        nearest: int64 [N, 5], the rows with the most similar texts, the most similar first; -1 where there are fewer.
        number: int32 [N], rows with nearly the same text; of more than 51 copies of one text not all are found.
        with_another_label: bool [N], whether one of them has another label.
        outside: int64 [N], of a row inside: the most similar of them that is not; otherwise -1.
    """

    row_id: np.ndarray
    nearest: np.ndarray
    number: np.ndarray
    with_another_label: np.ndarray
    outside: np.ndarray

    def of(self, row_id: int) -> tuple[list[int], int]:
        """(the most similar rows, how many there are in all) of a row."""
        place = int(np.searchsorted(self.row_id, row_id))
        number = int(self.number[place])
        return self.nearest[place, :number].tolist(), number

    @property
    def across(self) -> dict[int, int]:
        """Row inside -> the most similar row outside; rows without one are left out."""
        found = self.outside >= 0
        return dict(zip(self.row_id[found].tolist(), self.outside[found].tolist(), strict=True))


def sheet_rows(
    listed: AuditedRows,
    rows: AuditedRows,
    near: EmbeddedRows,
    copies: Copies,
    conflict_tables: Sequence[Any],
    read: ReadRows,
    text: TextSpec,
) -> Iterator[SheetRow]:
    """The lines of audit.csv, in the order of `listed`.

    Args:
        listed: the rows to list.
        rows: all rows.
        near: texts and embeddings of all rows.
        copies: from `nearly_same`.
        conflict_tables: as of `PreparedData`.
        read: names the files.
        text: says what is masked in the texts.
    """
    mask = masker_of(text)
    label_of = dict(zip(rows.row_id.tolist(), rows.label.tolist(), strict=True))
    neighbours = _neighbours(listed.row_id, near)
    inputs = dict(zip(near.row_id.tolist(), near.inputs, strict=True))
    same_text = _other_labels(conflict_tables, read)

    def places(row_id: int) -> str:
        nearest, number = copies.of(row_id)
        return _first_few([f"{read.location(one)} ({label_of[one]})" for one in nearest if one in label_of], number)

    def similar(row_id: int) -> str:
        others = [one for one in neighbours.get(row_id, np.empty(0, np.int64)).tolist() if one in label_of]
        return "; ".join(
            f"{read.location(one)} ({label_of[one]}): {_shown(inputs[one].changed(mask))}" for one in others
        )

    for place in range(len(listed)):
        row_id = int(listed.row_id[place])
        file, line = file_and_line(row_id)
        yield SheetRow(
            file=read.files[file],
            line=line,
            label=listed.label[place],
            suggested=listed.suggested[place],
            numbers=[float(getattr(listed, name)[place]) for name in NUMBERS],
            fold=int(listed.fold[place]),
            evidence={
                "same_text": same_text.get(row_id, ""),
                "nearly_same": places(row_id),
                "similar": similar(row_id),
            },
            input=inputs[row_id].changed(mask),
            mark=row_mark(inputs[row_id], listed.label[place]),
        )


def _neighbours(row_ids: np.ndarray, near: EmbeddedRows) -> dict[int, np.ndarray]:
    """Row -> int64, the rows of other folds with the most similar texts: what its model has learned from."""
    found: dict[int, np.ndarray] = {}
    for fold in np.unique(near.fold).tolist():
        asked = np.flatnonzero((near.fold == fold) & np.isin(near.row_id, row_ids))
        others = np.flatnonzero(near.fold != fold)
        places, _ = nearest(near.embeddings[asked], near.embeddings[others], _NEIGHBOURS)
        for row, of_row in zip(near.row_id[asked].tolist(), places, strict=True):
            found[row] = near.row_id[others][of_row[of_row >= 0]]
    return found


def nearly_same(near: EmbeddedRows, rows: AuditedRows, text: TextSpec, inside: Sequence[int]) -> Copies:
    """The rows whose text is nearly the same; see text/near_duplicates.py.

    Args:
        near: all rows.
        rows: the same, with their labels.
        text: text settings, whose normalizer decides what is equal.
        inside: rows of which copies among all others are wanted, such as those of the test split.
    """
    order = np.argsort(near.row_id)
    row_id = near.row_id[order]
    shingles = Shingles.of([near.inputs[place] for place in order.tolist()], normalizer_of(text))
    _, codes = np.unique(rows.label.astype(str), return_inverse=True)
    code = np.full(len(row_id), -1)
    code[np.searchsorted(row_id, rows.row_id)] = codes
    is_inside = np.isin(row_id, np.asarray(inside, np.int64))
    nearest, outside = np.full((len(row_id), _SHOWN_ROWS), -1, np.int64), np.full(len(row_id), -1, np.int64)
    number, other_label = np.zeros(len(row_id), np.int32), np.zeros(len(row_id), bool)
    for unordered in near_pairs(shingles):
        by_similarity = np.lexsort((unordered[1], -unordered[2], unordered[0]))
        row, other = unordered[0][by_similarity], unordered[1][by_similarity]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        few = place < _SHOWN_ROWS
        nearest[row[few], place[few]] = row_id[other[few]]
        np.add.at(number, row, 1)
        other_label[row[code[row] != code[other]]] = True
        leaves = np.flatnonzero(is_inside[row] & ~is_inside[other])[::-1]  # the most similar last: it stays
        outside[row[leaves]] = row_id[other[leaves]]
    return Copies(row_id, nearest, number, other_label, outside)


def _other_labels(conflict_tables: Sequence[Any], read: ReadRows) -> dict[int, str]:
    """Row that is used -> the rows of the same text with other labels."""
    by_text: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
    for ref in conflict_tables:
        table = ray.get(ref)
        for text, row, label in zip(*(table[name].to_pylist() for name in ("text", "row_id", "label")), strict=True):
            by_text[text].append((row, label))
    found = {}
    for rows in by_text.values():
        for row, label in rows:
            others = [f"{read.location(other)} ({own})" for other, own in rows if own != label]
            found[row] = _first_few(others, len(others))
    return found


def _first_few(rows: Sequence[str], number: int) -> str:
    """The first of so many rows."""
    more = f" and {number - _SHOWN_ROWS:,} more" if number > _SHOWN_ROWS else ""
    return "; ".join(rows[:_SHOWN_ROWS]) + more


def _shown(one: TextInput) -> str:
    return visible(" / ".join(one.segments), _SHOWN_CHARS)
