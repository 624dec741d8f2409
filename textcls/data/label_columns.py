"""Where labels are: columns that `data.label_columns` names by pattern, and cells that look like several labels.

In: files, settings, rows by label. Out: settings with the names that the header has; warnings. Not here: reading the
cells (tasks/label_cells.py).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from textcls.data.csv_head import read_layout
from textcls.data.input_files import InputFile
from textcls.data.spellings import quoted
from textcls.errors import DataError
from textcls.settings.recipe import DataSpec
from textcls.settings.yaml_text import set_option
from textcls.tasks.label_cells import names_in_cell

_PATTERN = frozenset("*?[")
# From this share of the rows on, cells that a delimiter divides are many.
_MANY = 0.02


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


def several_labels_warnings(data: DataSpec, counts: Mapping[str, int]) -> list[str]:
    """A warning if many labels look like several labels in one cell: a delimiter in them, whose parts recur.

    Args:
        data: the settings that the rows were read with.
        counts: clean rows by label name.
    """
    if data.labels_in == "columns":
        return []
    tried = [one for one in ("|", ";", ",") if data.labels_in == "one" or one != data.label_delimiter]
    for delimiter in tried:
        divided = {name: names_in_cell(name, delimiter) for name in counts}
        several = [name for name, parts in divided.items() if len(parts) > 1]
        parts = {part for name in several for part in divided[name]}
        holding = Counter(part for of_name in divided.values() for part in of_name)
        recurring = sum(holding[part] > 1 for part in parts)
        rows = sum(counts[name] for name in several)
        if rows >= max(2, _MANY * sum(counts.values())) and 2 * recurring > len(parts):
            example = max(several, key=lambda name: (counts[name], name))
            settings = {"data.labels_in": "cell", "data.label_delimiter": delimiter}
            options = " ".join(set_option(key, value) for key, value in settings.items())
            found = f"{rows:,} rows have a label like {quoted(example)}, which looks like several labels in one cell"
            return [f"{found}; to read them as such: {options}"]
    return []
