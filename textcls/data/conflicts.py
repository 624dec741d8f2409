"""Rows with equal inputs and different labels: which label is used, as `data.on_conflict` has it.

In: the tally of a hash range, and the label of each row. Out: the tally with one stratum for each group, the rows whose
label changes, and a table of all rows in conflict. Pure. Not here: which rows are equal (split.py), Ray
(split_blocks.py), what a union is (tasks/).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textcls.data.row_tables import file_and_line
from textcls.data.rows import Reason
from textcls.data.split import Tally
from textcls.output.account import CONFLICT_SCHEMA, REJECT_SCHEMA
from textcls.tasks.task import Task

REJECTED = "(rejected)"
"""In place of the label that is used for a row in conflict: none."""

SCHEMA = pa.schema([("text", pa.int64()), ("row_id", pa.int64()), ("label", pa.string()), ("used", pa.string())])
"""Rows in conflict: `text` is the row id of the first row of the same text."""


@dataclass(frozen=True, eq=False)
class Resolved:
    """A tally whose conflicts are resolved.

    Attributes:
        tally: strata are places in `labels`; rejected groups are marked.
        labels: the labels of the groups.
        relabelled: row of the range -> its label, where it changes.
        table: of `SCHEMA`, in row order.
    """

    tally: Tally
    labels: tuple[str, ...]
    relabelled: Mapping[int, str]
    table: pa.Table


def resolve(
    tally: Tally, labels: Sequence[str], label_of_row: np.ndarray, row_id: np.ndarray, task: Task, on_conflict: str
) -> Resolved:
    """The tally with one label for each group.

    Args:
        tally: of the rows of a hash range; the stratum of a row is the place of its label.
        labels: the different labels of the range.
        label_of_row: int32 [N], places in `labels`.
        row_id: int64 [N], ordered as the files are.
        task: merges labels.
        on_conflict: `first`, `union` or `reject`.
    """
    stratum, rejected = tally.stratum.copy(), np.zeros(len(tally.stratum), bool)
    places = {label: place for place, label in enumerate(labels)}
    relabelled: dict[int, str] = {}
    found: list[tuple[int, int, str, str]] = []
    for rows in _rows_in_conflict(tally):
        group, own = int(tally.group_of_row[rows[0]]), [labels[place] for place in label_of_row[rows].tolist()]
        first = int(row_id[rows].argmin())
        used = own if tally.keep_all else [own[first]] * len(own)
        if on_conflict == "union":
            merged = task.merge(own)
            stratum[group] = places.setdefault(merged, len(places))
            used = [merged] * len(own)
            relabelled |= {row: merged for row, label in zip(rows.tolist(), own, strict=True) if label != merged}
        elif on_conflict == "reject":
            rejected[group], used = True, [REJECTED] * len(own)
        text = int(row_id[rows[first]])
        found += [(text, int(row_id[row]), label, new) for row, label, new in zip(rows, own, used, strict=True)]
    columns = zip(*sorted(found), strict=True) if found else ([], [], [], [])
    table = pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA
    )
    weight = np.where(rejected, 0, tally.weight)
    resolved = replace(tally, stratum=stratum, weight=weight, rejected=rejected)
    return Resolved(resolved, tuple(places), relabelled, table)


def _rows_in_conflict(tally: Tally) -> list[np.ndarray]:
    """The rows of each group that has several labels, in the order of the range."""
    groups = tally.group_of_row[tally.conflicts]
    in_conflict = np.flatnonzero(np.isin(tally.group_of_row, groups))
    by_group = in_conflict[np.argsort(tally.group_of_row[in_conflict], kind="stable")]
    return np.split(by_group, np.flatnonzero(np.diff(tally.group_of_row[by_group])) + 1) if len(by_group) else []


def located(table: pa.Table, files: Sequence[str]) -> pa.Table:
    """A table of `SCHEMA` as conflicts.parquet has it.

    Args:
        table: rows in conflict.
        files: URI of each file, by index.
    """
    places = [file_and_line(row_id) for row_id in table["row_id"].to_pylist()]
    columns = [table["text"], [files[file] for file, _ in places], [line for _, line in places]]
    columns += [table["label"], table["used"]]
    return pa.table([pa.array(c) if isinstance(c, list) else c for c in columns], schema=CONFLICT_SCHEMA)


def rejects(table: pa.Table, files: Sequence[str], column: str) -> pa.Table:
    """The rejected rows of a table of `SCHEMA`, as rejects.parquet has them.

    Args:
        table: rows in conflict.
        files: URI of each file, by index.
        column: the label column.
    """
    found = located(table.filter(pc.equal(table["used"], REJECTED)), files)
    rows = len(found)
    columns = [found["file"], found["line"], [column] * rows, [str(Reason.CONFLICTING_LABELS)] * rows, found["label"]]
    arrays = [pa.array(c, pa.string()) if isinstance(c, list) else c for c in columns]
    return pa.table(arrays, schema=REJECT_SCHEMA)
