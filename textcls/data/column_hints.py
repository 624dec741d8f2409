"""Which columns a file may have been meant to be read by, from its header and its first rows. Pure.

In: names of columns, first rows, settings. Out: the `--set` for each missing column, other ways to read the columns, a
note. Not here: how the header is found (csv_layout.py), label columns that were asked for (label_columns.py).
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

from textcls.data.spellings import named, quoted
from textcls.settings.data import DataSpec
from textcls.settings.yaml_text import set_option
from textcls.tasks.label_cells import meaning_of_cells, plain_cell

# Labels of 0 and 1 beside the label column from which on they are worth a note: a single one is often a flag.
_MANY_FLAGS = 2
# A column of texts has cells of this many characters and words, on average.
_TEXT_CHARS, _TEXT_WORDS = 20, 3


def column_hints(missing: Sequence[str], fields: Sequence[str], rows: Sequence[Sequence[str]], data: DataSpec) -> str:
    """The --set with the closest column in place of each missing one, and other settings that may be meant.

    Args:
        missing: columns that the settings name.
        fields: the header.
        rows: the first rows.
        data: the settings.
    """
    names = {name.strip().lower(): name for name in reversed(fields)}
    unused = [name for name in dict.fromkeys(fields) if name not in data.columns]
    only = unused[0] if len(unused) == 1 == len(missing) else "NAME"

    def closest(column: str) -> str:
        close = difflib.get_close_matches(column.strip().lower(), names, n=1)
        return names[close[0]] if close else only

    hints = _closest_columns(missing, data, closest)
    if set(missing) & set(data.slice_columns):
        hints.append(set_option("report.slices", list(_slices_there(fields, unused, data))))
    others = []
    if data.label_column in missing and len(flags := flag_columns(unused, fields, rows, data)) > 1:
        others.append(f"if {named(flags)} are labels of 0 and 1: {flags_option(flags, fields)}")
    if data.pair is None and set(missing) & set(data.text_columns):
        texts = [name for name in unused if _holds_texts(_cells(name, fields, rows))]
        if len(texts) == 2:
            pair = f"--set data.text_columns=null {set_option('data.pair', texts)}"
            others.append(f"if {quoted(texts[0])} and {quoted(texts[1])} are pairs of texts: {pair}")
    return "; ".join([" ".join(hints), *others])


def _closest_columns(missing: Sequence[str], data: DataSpec, closest: Callable[[str], str]) -> list[str]:
    hints = []
    if set(missing) & set(data.input_columns):
        texts = [closest(column) if column in missing else column for column in data.input_columns]
        hints.append(set_option(data.input_setting, texts if len(texts) > 1 else texts[0]))
    if data.label_column in missing:
        hints.append(set_option("data.label_column", closest(data.label_column)))
    if data.exclude_by in missing:
        hints.append(set_option("data.exclude_by", closest(str(data.exclude_by))))
    for setting, filters in (("data.where", data.where), ("data.where_not", data.where_not)):
        if set(missing) & set(filters):
            corrected = {closest(column) if column in missing else column: values for column, values in filters.items()}
            hints.append(
                set_option(setting, {column: values for column, values in corrected.items() if column != "NAME"})
            )
    return hints


def _slices_there(fields: Sequence[str], unused: Sequence[str], data: DataSpec) -> Iterator[str]:
    """The columns of `report.slices`, with the closest unused column for a missing one; without it if none is close."""
    names = {name.strip().lower(): name for name in reversed(unused)}
    for column in data.slice_columns:
        if column in fields:
            yield column
        elif close := difflib.get_close_matches(column.strip().lower(), names, n=1):
            yield names.pop(close[0])


def flags_note(fields: Sequence[str], rows: Sequence[Sequence[str]], data: DataSpec) -> str:
    """A note if the label column is one of several columns of 0 and 1; otherwise empty."""
    if data.labels_in != "one" or data.label_column not in data.columns:
        return ""
    others = [name for name in fields if name not in data.columns]
    flags = flag_columns((data.label_column, *others), fields, rows, data)
    if flags[:1] != [data.label_column] or len(flags) <= _MANY_FLAGS:
        return ""
    return (
        f"column {quoted(data.label_column)} is the label and holds 0 and 1, as do {named(flags[1:])}; to predict "
        f"all of them: {flags_option([name for name in fields if name in flags], fields)}"
    )


def flag_columns(
    names: Sequence[str], fields: Sequence[str], rows: Sequence[Sequence[str]], data: DataSpec
) -> list[str]:
    """Those of the columns whose first cells are all yes, no or empty, and not all empty."""
    meanings = meaning_of_cells(data)

    def is_flag(name: str) -> bool:
        cells = {plain_cell(cell) for cell in _cells(name, fields, rows)} - {""}
        return bool(cells) and cells <= meanings.keys()

    return [name for name in names if is_flag(name)]


def flags_option(flags: Sequence[str], fields: Sequence[str]) -> str:
    """The --set that reads these columns as labels: by a pattern if they are all that begin alike."""
    first, last = min(flags), max(flags)
    prefix = "".join(char for char, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    alike = [name for name in fields if name.startswith(prefix)]
    columns = [f"{prefix}*"] if prefix and not set(prefix) & set("*?[") and alike == list(flags) else flags
    return f"{set_option('data.labels_in', 'columns')} {set_option('data.label_columns', columns)}"


def _cells(name: str, fields: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    position = list(fields).index(name)
    return [row[position] for row in rows if len(row) == len(fields)]


def _holds_texts(cells: Sequence[str]) -> bool:
    words = sum(len(cell.split()) for cell in cells)
    return bool(cells) and words >= _TEXT_WORDS * len(cells) and sum(map(len, cells)) >= _TEXT_CHARS * len(cells)
