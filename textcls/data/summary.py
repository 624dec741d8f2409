"""What is known of rows without holding them: counts that add up block by block, and a few examples.

In: counts of one block. Out: their sums, and percentiles of token lengths. Pure; not here: counting the rows of a block
(row_tables.py), where every row went (output/account.py).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from textcls.data.spellings import Spellings

EXAMPLES = 3
"""Rejects kept for each reason; rejects.parquet holds all of them."""


@dataclass
class RowSummary:
    """Counts of one block of rows, or of several added up.

    Attributes:
        rows: clean rows.
        outside_where: rows that `data.where` or `data.where_not` leaves out; they do not count as read.
        reasons: rejects by reason.
        examples: reason -> its first rejects, each with `row_id`, `column`, `reason` and `value`.
        labels: clean rows by label name.
        label_numbers: clean rows by number of label names.
        companions: label name -> the other names that every clean row with it has as well.
        spellings: rows by spelling of the cells that settings name.
        decided: rows by decision that they met, named as in `decisions.decided`.
        masked: clean rows by kind of personal data that they hold, such as "email".
        excluded: rows by number of the entry of `data.exclude` that they met.
        nearly_excluded: rows by number of the entry whose key they have in another spelling.
        token_histogram: int64 [L], clean rows by number of tokens before the cut.
        text_histograms: the same for each text of a pair, without special tokens; empty for one text.
        unknown: tokens of the clean rows, after the cut, that stand for something that the vocabulary lacks.
        windows: windows of the clean rows; None if long texts are not read as windows.
        digests: sha256 of the clean rows of each block, in order.
    """

    rows: int = 0
    outside_where: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    label_numbers: Counter[int] = field(default_factory=Counter)
    companions: dict[str, frozenset[str]] = field(default_factory=dict)
    spellings: Spellings = field(default_factory=Spellings)
    decided: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    excluded: Counter[str] = field(default_factory=Counter)
    nearly_excluded: Counter[str] = field(default_factory=Counter)
    token_histogram: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    text_histograms: list[np.ndarray] = field(default_factory=list)
    unknown: int = 0
    windows: int | None = None
    digests: list[bytes] = field(default_factory=list)

    def add(self, other: "RowSummary") -> None:
        """Adds the summary of a later block."""
        self.rows += other.rows
        self.outside_where += other.outside_where
        self.reasons += other.reasons
        for reason, examples in other.examples.items():
            self.examples[reason] = (self.examples.get(reason, []) + examples)[:EXAMPLES]
        self.labels += other.labels
        self.label_numbers += other.label_numbers
        for name, others in other.companions.items():
            self.companions[name] = self.companions.get(name, others) & others
        self.spellings.add(other.spellings)
        self.decided += other.decided
        self.masked += other.masked
        self.excluded += other.excluded
        self.nearly_excluded += other.nearly_excluded
        self.token_histogram = _added(self.token_histogram, other.token_histogram)
        texts = zip_longest(self.text_histograms, other.text_histograms, fillvalue=histogram(()))
        self.text_histograms = [_added(own, new) for own, new in texts]
        self.unknown += other.unknown
        if other.windows is not None:
            self.windows = (self.windows or 0) + other.windows
        self.digests += other.digests

    def add_label(self, names: Sequence[str], rows: int) -> None:
        """Counts clean rows that have these label names."""
        self.labels.update(dict.fromkeys(names, rows))
        self.label_numbers[len(names)] += rows
        for name in names:
            others = frozenset(names) - {name}
            self.companions[name] = self.companions.get(name, others) & others

    @property
    def rejects(self) -> int:
        """Rejected rows."""
        return self.reasons.total()

    @property
    def read(self) -> int:
        """Rows read: clean rows and rejects."""
        return self.rows + self.rejects

    def token_lengths(self, max_tokens: int) -> dict[str, Any]:
        """Percentiles of the number of tokens before the cut, the share of rows that the cut shortens, and the share of
        unknown tokens among those that are kept.

        For pairs, `texts` has the percentiles of each text. Where long texts are read as windows, nothing is cut, and
        `windows` is the number of windows.

        Args:
            max_tokens: the limit to which rows are cut.
        """
        cut = int(self.token_histogram[max_tokens + 1 :].sum()) if self.windows is None else 0
        return {
            "max_tokens": max_tokens,
            "percentiles": _percentiles(self.token_histogram),
            "truncated_rows": cut,
            "truncated_fraction": cut / max(self.rows, 1),
            "unknown_fraction": self.unknown_fraction(max_tokens if cut else None),
            **({"texts": [*map(_percentiles, self.text_histograms)]} if self.text_histograms else {}),
            **({} if self.windows is None else {"windows": self.windows}),
        }

    def unknown_fraction(self, max_tokens: int | None) -> float:
        """The share of unknown tokens among those of all rows.

        Args:
            max_tokens: the limit to which rows are cut; None if they are not.
        """
        lengths = np.arange(len(self.token_histogram))
        kept = lengths if max_tokens is None else np.minimum(lengths, max_tokens)
        return self.unknown / max(int(self.token_histogram @ kept), 1)


def histogram(tokens: Sequence[int] | np.ndarray) -> np.ndarray:
    """int64 [L]: how many rows have each number of tokens."""
    return np.bincount(np.asarray(tokens, np.int64), minlength=1).astype(np.int64)


def _added(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    bins = np.zeros(max(len(one), len(other)), np.int64)
    bins[: len(one)] += one
    bins[: len(other)] += other
    return bins


def _percentiles(bins: np.ndarray) -> dict[str, int]:
    running = np.cumsum(bins)
    return {str(p): int(np.searchsorted(running, p / 100 * running[-1])) for p in (50, 90, 95, 99, 100)}
