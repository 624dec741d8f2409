"""Where labels are: columns that `data.label_columns` names by pattern, and cells that look like several labels.

In: files, settings, rows by label. Out: settings with the names that the header has; warnings. Not here: reading the
cells (tasks/label_cells.py).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from textcls.data.csv_head import read_layout
from textcls.data.input_files import InputFile
from textcls.data.spellings import first_few, named, quoted
from textcls.errors import DataError
from textcls.settings.data import DataSpec
from textcls.settings.yaml_text import set_option
from textcls.tasks.label_cells import meaning_of_cells, names_in_cell
from textcls.tasks.labels import is_blank

_PATTERN = frozenset("*?[")
# From this share of the rows on, cells that a delimiter divides are many.
_MANY = 0.02
# In no label: a cell that has several names with it is a list.
_NO_DELIMITER = "\0"
# Rows from which on labels that always occur together are no coincidence.
_OFTEN = 10
# Cells that a message shows of a column.
_FEW_CELLS = 3


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
    others = [name for name in header if name not in {*data.input_columns, *data.where, *data.where_not}]
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
    names = (data.label_map.get(name, name) for name in data.label_columns)
    return [name for name in names if not is_blank(name)]


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
            if all(len(names_in_cell(name, _NO_DELIMITER)) > 1 for name in several):
                del settings["data.label_delimiter"]  # lists are read without one
            options = " ".join(set_option(key, value) for key, value in settings.items())
            found = f"{rows:,} rows have a label like {quoted(example)}, which looks like several labels in one cell"
            return [f"{found}; to read them as such: {options}"]
    return []


def together_warnings(data: DataSpec, counts: Mapping[str, int], companions: Mapping[str, frozenset[str]]) -> list[str]:
    """A warning of labels that all rows have together or not at all, as the halves of a name that holds the delimiter.

    Args:
        data: the settings that the rows were read with.
        counts: clean rows by label name.
        companions: label name -> the other names that every row with it has as well.
    """
    groups = []
    for name in sorted(companions):
        group = sorted([name, *(other for other in companions[name] if name in companions[other])])
        if group[0] == name and len(group) > 1 and counts[name] >= _OFTEN:
            groups.append(f"{' and '.join(map(quoted, group))} ({counts[name]:,} rows)")
    if not groups:
        return []
    found = f"labels that occur together in each of their rows, so that nothing tells them apart: {first_few(groups)}"
    if data.labels_in != "cell":
        return [found]
    part = f"if {quoted(data.label_delimiter)} is part of a name, set another data.label_delimiter"
    return [f"{found}; {part} or, where each row has one label: {set_option('data.labels_in', 'one')}"]


def label_cells_advice(data: DataSpec, cells: Mapping[str, Counter[str]]) -> str:
    """What to do about cells of label columns that are neither yes nor no; "" if only correcting them helps.

    Args:
        data: the settings that the rows were read with.
        cells: label column -> rows by plain cell, of a few rows.
    """
    meanings = meaning_of_cells(data)
    unknown = {column: Counter({c: n for c, n in of.items() if c not in meanings}) for column, of in cells.items()}
    holding = Counter(cell for of_column in unknown.values() for cell in of_column if cell)
    strange = [
        column
        for column, of_column in unknown.items()
        if any(of_column) and all(holding[cell] == 1 for cell in of_column if cell)
        if 2 * (of_column.total() - of_column[""]) >= cells[column].total()
    ]
    if strange and len(strange) < len(cells):
        rest = [column for column in cells if column not in strange]
        held = first_few(quoted(cell) for cell in list(unknown[strange[0]])[:_FEW_CELLS])
        return (
            f"column {quoted(strange[0])} of data.label_columns holds {held}, neither 0 nor 1; if "
            f"{'it is no label' if len(strange) == 1 else f'{named(strange)} are no labels'}: "
            f"{set_option('data.label_columns', rest)}"
        )
    total = sum(unknown.values(), Counter[str]())
    words = sorted((cell for cell in total if cell), key=lambda cell: (total[cell], cell))
    if len(words) > 2 or not total:
        return ""
    known = {meanings[cell] for of_column in cells.values() for cell in of_column if cell in meanings}
    # Of two words the rarer one means yes; a single one means what no other cell says.
    says = dict(zip(words, (True, False) if len(words) == 2 else (True not in known,), strict=False))
    if "" in total:
        says[""] = False
    told = " and ".join(f"{'an empty cell' if not c else f'a cell {quoted(c)}'} means {int(says[c])}" for c in says)
    merged = {cell: int(has) for cell, has in (data.label_cells | says).items()}
    fill = "fill in the empty cells of the label columns; or, " if not words and False in known else ""
    return f"{fill}if in data.label_columns {told}: {set_option('data.label_cells', merged)}"
