"""Where every row went: counts that blocks add up to, and law 1.

In: counts of blocks. Out: their sums, and the account a run writes. Pure numpy; not here: counting (pipeline.py).
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from textcls.data.spellings import Spellings

# Rejects shown per reason; all of them are in rejects.parquet.
EXAMPLES = 3


@dataclass(frozen=True)
class Account:
    """Law 1: read = train + val + test + rejects + duplicates, to the row."""

    read: int
    train: int
    val: int
    test: int
    rejects: int
    duplicates: int
    outside_where: int
    reject_reasons: dict[str, int]

    def balances(self) -> bool:
        """Whether every row read is somewhere."""
        return self.read == self.train + self.val + self.test + self.rejects + self.duplicates


@dataclass
class BlockSummary:
    """What one block, or several added up, hold: counts and a few examples, never rows."""

    rows: int = 0
    outside_where: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    spellings: Spellings = field(default_factory=Spellings)
    token_histogram: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    digests: list[bytes] = field(default_factory=list)

    def add(self, other: "BlockSummary") -> None:
        """Adds the counts of a later block."""
        self.rows += other.rows
        self.outside_where += other.outside_where
        self.reasons += other.reasons
        for reason, examples in other.examples.items():
            self.examples[reason] = (self.examples.get(reason, []) + examples)[:EXAMPLES]
        self.labels += other.labels
        self.spellings.add(other.spellings)
        bins = np.zeros(max(len(self.token_histogram), len(other.token_histogram)), np.int64)
        bins[: len(self.token_histogram)] += self.token_histogram
        bins[: len(other.token_histogram)] += other.token_histogram
        self.token_histogram = bins
        self.digests += other.digests

    @property
    def rejects(self) -> int:
        """Rows that were read and refused."""
        return self.reasons.total()

    @property
    def read(self) -> int:
        """Rows that matched `where`, or could not be matched against it."""
        return self.rows + self.rejects

    def tokens(self, max_tokens: int) -> dict[str, Any]:
        """Token-length percentiles before the cut, and the share of rows that the cut shortens."""
        running = np.cumsum(self.token_histogram)
        ranks = {str(p): int(np.searchsorted(running, p / 100 * running[-1])) for p in (50, 90, 95, 99, 100)}
        cut = int(self.token_histogram[max_tokens + 1 :].sum())
        return {
            "max_tokens": max_tokens,
            "percentiles": ranks,
            "truncated_rows": cut,
            "truncated_fraction": cut / max(self.rows, 1),
        }
