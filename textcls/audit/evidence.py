"""What speaks for or against the label of a row: the same text with another label, and the most similar other texts.

In: the rows to list, all audited rows and their embeddings. Out: lines for audit.csv. Not here: how a line is written
(sheet.py), which rows are listed (run.py).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import ray

from textcls.audit.held_out import EmbeddedRows, HeldOut
from textcls.audit.ranking import AuditedRows
from textcls.audit.sheet import NUMBERS, SheetRow
from textcls.data.read import ReadRows
from textcls.data.row_tables import file_and_line, inputs_of
from textcls.inference.neighbours import nearest
from textcls.plain_text import visible
from textcls.text.text_input import TextInput

_NEIGHBOURS = 3
_SHOWN_CHARS = 100
_SHOWN_ROWS = 5


def sheet_rows(
    listed: AuditedRows, rows: AuditedRows, folds: Sequence[HeldOut], near: EmbeddedRows, read: ReadRows
) -> Iterator[SheetRow]:
    """The lines of audit.csv, in the order of `listed`.

    Args:
        listed: the rows to list.
        rows: all rows.
        folds: their tables hold the texts.
        near: embeddings of the rows.
        read: names the files.
    """
    label_of = dict(zip(rows.row_id.tolist(), rows.label.tolist(), strict=True))
    neighbours = _neighbours(listed.row_id, near)
    needed = np.unique(np.concatenate([listed.row_id, *neighbours.values()]).astype(np.int64))
    inputs, same_text = _inputs(needed, folds), _other_labels(folds[0], read)

    def similar(row_id: int) -> str:
        others = [one for one in neighbours.get(row_id, np.empty(0, np.int64)).tolist() if one in label_of]
        return "; ".join(f"{read.location(one)} ({label_of[one]}): {_shown(inputs[one])}" for one in others)

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
            evidence={"same_text": same_text.get(row_id, ""), "similar": similar(row_id)},
            input=inputs[row_id],
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


def _inputs(row_ids: np.ndarray, folds: Sequence[HeldOut]) -> dict[int, TextInput]:
    """Row -> its input; one table at a time is held."""
    found: dict[int, TextInput] = {}
    for fold in folds:
        for ref in fold.tables:
            table = ray.get(ref)
            table = table.filter(np.isin(table["row_id"].to_numpy(), row_ids))
            found |= dict(zip(table["row_id"].to_pylist(), inputs_of(table), strict=True))
    return found


def _other_labels(fold: HeldOut, read: ReadRows) -> dict[int, str]:
    """Row that is used -> the rows of the same text with other labels."""
    by_text: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
    for ref in fold.data.conflict_tables:
        table = ray.get(ref)
        for text, row, label in zip(*(table[name].to_pylist() for name in ("text", "row_id", "label")), strict=True):
            by_text[text].append((row, label))
    found = {}
    for rows in by_text.values():
        for row, label in rows:
            others = [f"{read.location(other)} ({own})" for other, own in rows if own != label]
            more = f" and {len(others) - _SHOWN_ROWS:,} more" if len(others) > _SHOWN_ROWS else ""
            found[row] = "; ".join(others[:_SHOWN_ROWS]) + more
    return found


def _shown(one: TextInput) -> str:
    return visible(" / ".join(one.segments), _SHOWN_CHARS)
