"""The columns of `report.slices`: their names among the columns of the data, their cells among the rows.

In: settings; fields of a record; tables of rows. Out: settings that read these columns too; cells; `RowFacts`. Pure.
Not here: what divides rows into slices (slices/groups.py), a plan over all blocks (row_findings.py).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from textcls.settings.data import DataSpec
from textcls.slices.groups import RowFacts


class SlicedDataSpec(DataSpec):
    """How to read rows together with the cells of `report.slices`, which change nothing about a row."""

    slices: tuple[str, ...] = ()
    """Names of the columns or, without a header, their positions."""

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """The columns of `report.slices`."""
        return self.slices


def with_slices(data: DataSpec, slices: Sequence[str]) -> DataSpec:
    """The settings, with which rows are read with the cells of these columns."""
    if not slices:
        return data
    # Not validated again: settings that were completed since would be refused.
    return SlicedDataSpec.model_construct(data.model_fields_set, **dict(data), slices=tuple(slices))


def slice_fields(data: DataSpec) -> list[str]:
    """The columns of a table of rows that hold the cells of `DataSpec.slice_columns`, in order."""
    return [f"slice_{i}" for i, _ in enumerate(data.slice_columns)]


def is_slice(field: str) -> bool:
    """Whether a column of a table of rows is one of `slice_fields`."""
    return field.startswith("slice_")


def facts_of(table: pa.Table, tokens: np.ndarray, truncated: np.ndarray, file: np.ndarray) -> RowFacts:
    """The facts of the clean rows of a table.

    Args:
        table: with `row_id` and the cells of the slices, if there are any.
        tokens: int32 [N], before any cut.
        truncated: bool [N].
        file: int64 [N], index of the file of each row.
    """
    cells: list[Any] = [table[name] for name in table.column_names if is_slice(name)]
    return RowFacts(table["row_id"].to_numpy(), file, tokens, truncated, cells)
