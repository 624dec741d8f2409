"""The rows of a training run after the split, as training and its report read them.

In: what `split_rows` finds. Out: blocks, counts and facts of each split, and the account of all rows. Not here: how
they are found (split_blocks.py).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textcls.data.rows import Reason
from textcls.data.summary import RowSummary
from textcls.manifest import Excluded
from textcls.output.account import Account
from textcls.slices.groups import SlicePlan
from textcls.tasks.task import Task


@dataclass(frozen=True)
class PreparedData:
    """The rows of every split, tokenized, and what training needs to know of them.

    Attributes:
        task: what is predicted.
        labels: label names in id order.
        blocks: split name -> object references of tables (`row_tokens.TOKEN_COLUMNS`, target: as the task encodes it;
            of the test split also `row_id`, `tokens` and the cells of `report.slices`).
        inputs: split name -> object references of tables for `row_tables.inputs_of`, rows as in `blocks`.
        class_counts: split name -> rows that have each label name, in id order.
        account: where every row went.
        tokens: percentiles of token lengths, and the share of truncated rows.
        conflicts: (number of texts that have several labels, FILE:LINE of the first few).
        conflict_tables: object references of tables of `conflicts.SCHEMA`.
        fingerprint: of the rows, see `ReadRows.fingerprint`.
        files: URI of each CSV file, by index.
        slices: the slices of the test split.
        excluded: what `data.exclude` took out.
    """

    task: Task
    labels: tuple[str, ...]
    blocks: dict[str, list[Any]]
    inputs: dict[str, list[Any]]
    class_counts: dict[str, list[int]]
    account: Account
    tokens: dict[str, Any]
    conflicts: tuple[int, list[str]]
    conflict_tables: list[Any]
    fingerprint: str
    files: tuple[str, ...]
    slices: SlicePlan
    excluded: Excluded | None = None

    def rows_by_label(self) -> dict[str, dict[str, int]]:
        """Label name -> split name -> rows."""
        return {
            label: dict(zip(self.class_counts, rows, strict=True))
            for label, *rows in zip(self.labels, *self.class_counts.values(), strict=True)
        }


def training_account(
    summary: RowSummary,
    rows_by_split: Sequence[int] = (0, 0, 0, 0, 0),
    masked_rows: Mapping[str, int] | None = None,
    placeholders: Mapping[str, Mapping[str, int]] | None = None,
) -> Account:
    """Where the rows of a training run went.

    Args:
        summary: counts of the rows that were read.
        rows_by_split: rows by split code; all 0 before the rows are split.
        masked_rows: as of `Account`.
        placeholders: as of `Account`; None before the rows are split.
    """
    train, val, test, duplicates, rejects = map(int, rows_by_split)
    reasons = summary.reasons + Counter({str(Reason.CONFLICTING_LABELS): rejects})
    outcomes = {"train": train, "val": val, "test": test, "rejects": reasons.total(), "duplicates": duplicates}
    return Account(summary.read, outcomes, summary.outside_where, dict(reasons), masked_rows or {}, placeholders or {})
