"""The rows of a split with what the report shows of them beside their scores: slices and examples.

In: token tables with the facts of their rows; probabilities of some of the rows. Out: findings that add up over
workers. Not here: scoring (split_scoring.py), what is found (slices/).
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from textcls.data.row_findings import coded_rows
from textcls.settings.recipe import TextSpec
from textcls.slices.findings import RowStudy, Studied
from textcls.slices.groups import CodedRows


class StudiedRows:
    """Rows of a split, addressed by position as in `TokenRows`.

    Args:
        tables: the token tables of the split, with `row_id`, `tokens` and the cells of `report.slices`.
        study: finds what scored rows add up to.
        text: the settings, which say what is truncated.
    """

    def __init__(self, tables: Sequence[Any], study: RowStudy, text: TextSpec) -> None:
        self._tables, self._study, self._text = tables, study, text

    def __call__(
        self, rows_B: np.ndarray, probabilities_BC: np.ndarray, targets_B: np.ndarray, thresholds: np.ndarray
    ) -> Studied:
        """The findings of the rows at these positions (int [B]), or why there are none."""
        return Studied.of(lambda: self._study(self._coded.take(rows_B), probabilities_BC, targets_B, thresholds))

    @cached_property
    def _coded(self) -> CodedRows:
        parts = []
        for table in self._tables:
            tokens = table["tokens"].to_numpy()
            truncated = (tokens > self._text.max_tokens) & (self._text.on_long != "windows")
            parts.append(coded_rows(table, self._study.plan, tokens, truncated))
        return CodedRows(
            np.concatenate([part.row_id for part in parts]), np.concatenate([part.codes for part in parts], axis=1)
        )
