"""The account of rows: where every row that was read went, in `rows.json`, every reject, in `rejects.parquet`, and rows
with equal texts and different labels, in `conflicts.parquet`. The latter two are encrypted if there are recipients.

In: counts, and tables of rows. Out: the files in an --out, and the account as one line for the user.
Not here: counting rows (data/summary.py), what makes a row a reject (data/rows.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from textcls import encryption, storage
from textcls.encryption import NO_KEYS, Keys
from textcls.output.json_files import write_json
from textcls.settings.mask_names import KINDS

ACCOUNT = "rows.json"
REJECTS = "rejects.parquet"
CONFLICTS = "conflicts.parquet"
_OF_ROWS = (REJECTS, CONFLICTS)
FILES = frozenset((ACCOUNT, *_OF_ROWS, *(name + encryption.SUFFIX for name in _OF_ROWS)))

REJECT_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),
        ("column", pa.string()),
        ("reason", pa.string()),
        ("value", pa.string()),
    ]
)
CONFLICT_SCHEMA = pa.schema(
    [
        ("text", pa.int64()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("label", pa.string()),
        ("used", pa.string()),
    ]
)
"""`text` is a number that rows of the same text share, `used` the label that is used for the row."""


@dataclass(frozen=True)
class Account:
    """Where the rows went.

    Attributes:
        read: rows read.
        outcomes: what became of them -> number of rows, such as train, val, test, rejects and duplicates. Every row has
            exactly one outcome.
        outside_where: rows that `data.where` or `data.where_not` leaves out; they do not count as read.
        reject_reasons: rejects by reason.
        masked_rows: kind of personal data that is masked -> rows that hold one, duplicates included.
        placeholders: split -> kind -> what the model reads in place of one; in all rows of the split, after the cut.
    """

    read: int
    outcomes: Mapping[str, int]
    outside_where: int
    reject_reasons: Mapping[str, int]
    masked_rows: Mapping[str, int] = field(default_factory=dict)
    placeholders: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def is_balanced(self) -> bool:
        """Whether the outcomes add up to the rows read."""
        return self.read == sum(self.outcomes.values())

    def __str__(self) -> str:
        parts = (f"{outcome} {rows:,}" for outcome, rows in self.outcomes.items())
        return f"{self.read:,} = {' + '.join(parts)}"

    def as_json(self) -> dict[str, Any]:
        """The content of rows.json, ready for JSON."""
        return {
            "read": self.read,
            **self.outcomes,
            "outside_where": self.outside_where,
            "reject_reasons": dict(self.reject_reasons),
            **({"masked": self._masked()} if self.masked_rows else {}),
        }

    def _masked(self) -> dict[str, Any]:
        placeholders = {split: dict(found) for split, found in self.placeholders.items()}
        return {"rows": dict(self.masked_rows)} | ({"placeholders": placeholders} if placeholders else {})

    @property
    def masked_line(self) -> str:
        """What was masked, for the user; "" where nothing is."""
        if not self.masked_rows:
            return ""
        held = [f"{kind} in {rows:,} rows" for kind, rows in self.masked_rows.items() if rows]
        if not held:
            return f"masked: no row holds any {', '.join(self.masked_rows)}"
        totals = [f"{split} {sum(found.values()):,}" for split, found in self.placeholders.items()]
        return f"masked: {', '.join(held)}" + (f"; placeholders: {', '.join(totals)}" if totals else "")


def unused_patterns(account: Account) -> list[str]:
    """A warning for each pattern of the user's own that no row holds: it may be mistyped."""
    return [
        f"no row holds any {name}: check the pattern text.mask_patterns.{name}"
        for name, rows in account.masked_rows.items()
        if not rows and name not in KINDS
    ]


def write_account(out: str, account: Account, **details: Any) -> None:
    """Writes OUT/rows.json, whole or not at all.

    Args:
        out: URI of a claimed --out.
        account: where the rows went.
        **details: more keys, ready for JSON.
    """
    write_json(out, ACCOUNT, account.as_json() | details)


def write_rejects(out: str, tables: Iterable[pa.Table], keys: Keys = NO_KEYS) -> None:
    """Writes OUT/rejects.parquet, whole or not at all, table by table; it is written even if no row was rejected.

    Args:
        out: URI of a claimed --out.
        tables: of `REJECT_SCHEMA`.
        keys: the recipients, if the file is to be encrypted.
    """
    _write(out, REJECTS, REJECT_SCHEMA, tables, keys)
    for name in _OF_ROWS:
        _delete_other_form(out, name, keys)


def write_conflicts(out: str, tables: Iterable[pa.Table], keys: Keys = NO_KEYS) -> None:
    """Writes OUT/conflicts.parquet, whole or not at all, table by table.

    Args:
        out: URI of a claimed --out.
        tables: of `CONFLICT_SCHEMA`.
        keys: the recipients, if the file is to be encrypted.
    """
    _write(out, CONFLICTS, CONFLICT_SCHEMA, tables, keys)


def _write(out: str, name: str, schema: pa.Schema, tables: Iterable[pa.Table], keys: Keys) -> None:
    uri = storage.join(out, keys.name(name))
    with encryption.written_whole(uri, keys.recipients) as file, pq.ParquetWriter(file, schema) as writer:
        for table in tables:
            writer.write_table(table)


def _delete_other_form(out: str, name: str, keys: Keys) -> None:
    """Deletes the plain file where files are encrypted, or the other way round: an earlier job may have left it."""
    other = storage.join(out, name if keys.recipients else name + encryption.SUFFIX)
    if storage.exists(other):
        storage.delete_file(other)
