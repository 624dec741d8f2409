"""What speaks for or against the label of a row: the same text with another label, copies of it, similar texts.

In: the rows to list, all audited rows and their embeddings. Out: lines for audit.csv. Not here: how a line is written
(sheet.py), which rows are listed (run.py).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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


def sheet_rows(
    listed: AuditedRows,
    rows: AuditedRows,
    near: EmbeddedRows,
    copies: Mapping[int, Sequence[int]],
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

    def places(others: Iterable[int]) -> str:
        known = [f"{read.location(one)} ({label_of[one]})" for one in others if one in label_of]
        return _first_few(known)

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
                "nearly_same": places(copies.get(row_id, ())),
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


def nearly_same(near: EmbeddedRows, text: TextSpec) -> dict[int, list[int]]:
    """Row -> the rows whose text is nearly the same, the most similar first; see text/near_duplicates.py.

    Args:
        near: all rows.
        text: text settings, whose normalizer decides what is equal.
    """
    shingles = Shingles.of(near.inputs, normalizer_of(text))
    found: defaultdict[int, list[int]] = defaultdict(list)
    for rows, others, similarity in near_pairs(shingles):
        for place in np.lexsort((others, -similarity, rows)).tolist():
            found[int(near.row_id[rows[place]])].append(int(near.row_id[others[place]]))
    return dict(found)


def nearly_same_across(copies: Mapping[int, Sequence[int]], inside: Collection[int]) -> dict[int, list[int]]:
    """Row inside -> the rows outside whose text is nearly the same; rows without one are left out.

    Args:
        copies: from `nearly_same`.
        inside: for example the rows of the test split.
    """
    kept = set(inside)
    across = {row: [one for one in of if one not in kept] for row, of in copies.items() if row in kept}
    return {row: of for row, of in across.items() if of}


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
            found[row] = _first_few([f"{read.location(other)} ({own})" for other, own in rows if own != label])
    return found


def _first_few(rows: Sequence[str]) -> str:
    more = f" and {len(rows) - _SHOWN_ROWS:,} more" if len(rows) > _SHOWN_ROWS else ""
    return "; ".join(rows[:_SHOWN_ROWS]) + more


def _shown(one: TextInput) -> str:
    return visible(" / ".join(one.segments), _SHOWN_CHARS)
