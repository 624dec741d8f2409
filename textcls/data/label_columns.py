"""The columns of 0 and 1 that `data.label_columns` names, some of them by pattern.

In: files and settings. Out: settings with the names that the header has. Not here: reading the cells
(tasks/label_cells.py).
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from textcls.data.csv_head import read_layout
from textcls.data.input_files import InputFile
from textcls.errors import DataError
from textcls.settings.recipe import DataSpec

_PATTERN = frozenset("*?[")


def with_label_columns(files: Sequence[InputFile], data: DataSpec) -> DataSpec:
    """The settings with the columns that patterns match in the header of the first file; without patterns, unchanged.

    A column whose name is the pattern itself is that column. Columns of text and of the filters are never matched.

    Raises:
        DataError: a pattern matches no column.
    """
    if data.labels_in != "columns" or not data.header or not any(map(_PATTERN.intersection, data.label_columns)):
        return data
    plain = tuple(name for name in data.label_columns if not _PATTERN.intersection(name))
    without = data.model_copy(update={"label_columns": plain})
    header = read_layout(files[0], without).header
    others = [name for name in header if name not in {*data.text_columns, *data.where, *data.where_not}]
    found: list[str] = []
    for name in data.label_columns:
        matched = [name] if name in header or name in plain else [one for one in others if fnmatchcase(one, name)]
        if not matched:
            raise DataError(
                f"{files[0].uri}: no column matches {name!r} of data.label_columns",
                expected=f"a pattern for some of the columns {', '.join(map(repr, others))}",
                todo="correct the pattern, or name the columns",
            )
        found += matched
    return data.model_copy(update={"label_columns": tuple(dict.fromkeys(found))})


def named_by_columns(data: DataSpec) -> list[str]:
    """The label names that columns stand for: also those that no row has."""
    return [data.label_map.get(name, name) for name in data.label_columns]
