"""The label cells of a row -> label names: one name, several in a cell, or a column of 0 and 1 for each name.

In: the cells, and `data.labels_in` with its settings. Out: names after `data.label_map`, or why the row is a reject.
Pure. Not here: how many names a row may have (single_label.py, multi_label.py), which columns they are (data/rows.py).
"""

import ast
import json
from collections.abc import Callable, Sequence

from textcls.settings.data import DataSpec
from textcls.tasks.labels import is_blank
from textcls.tasks.task import ReadLabel

NamesReader = Callable[[tuple[str, ...]], tuple[tuple[str, ...], ReadLabel]]
"""Cells -> (names after the label map, each once, in order of appearance; what else is known, with an empty label)."""

_KNOWN_CELLS = dict.fromkeys(("1", "1.0", "true", "yes", "y", "t"), True) | dict.fromkeys(
    ("0", "0.0", "false", "no", "n", "f"), False
)
_OPENING, _CLOSING = "[({", "])}"


def names_reader(data: DataSpec) -> NamesReader:
    """Reads label cells by `data.labels_in`, `data.label_map` and `data.labels`."""
    label_map, known = dict(data.label_map), frozenset(data.labels) if data.labels is not None else None

    meanings = meaning_of_cells(data)

    def mapped(written: Sequence[str], place: int = 0) -> tuple[tuple[str, ...], ReadLabel]:
        names = tuple(name for name in dict.fromkeys(label_map.get(n, n) for n in written) if not is_blank(name))
        found = ReadLabel("", written=tuple(written), place=place)
        if known is not None and not known.issuperset(names):
            return names, found._replace(label=next(n for n in names if n not in known), reason="unknown_label")
        return names, found

    def one(cells: tuple[str, ...]) -> tuple[tuple[str, ...], ReadLabel]:
        name = label_map.get(cells[0], cells[0])
        if is_blank(name):
            return (), ReadLabel(name, "missing_label", written=cells)
        return mapped(cells)

    def in_cell(cells: tuple[str, ...]) -> tuple[tuple[str, ...], ReadLabel]:
        return mapped(names_in_cell(cells[0], data.label_delimiter))

    def in_columns(cells: tuple[str, ...]) -> tuple[tuple[str, ...], ReadLabel]:
        written = []
        for place, (cell, column) in enumerate(zip(cells, data.label_columns, strict=True)):
            has = meanings.get(word := plain_cell(cell))
            if has is None:
                return (), ReadLabel("", "not_yes_or_no" if word else "missing_label", place, (cell,))
            if has:
                written.append(column)
        names, found = mapped(written)
        if found.reason:
            unknown = (label_map.get(column, column) == found.label for column in data.label_columns)
            return names, found._replace(place=list(unknown).index(True))
        return names, found

    return {"one": one, "cell": in_cell, "columns": in_columns}[data.labels_in]


def meaning_of_cells(data: DataSpec) -> dict[str, bool]:
    """Plain cell of a label column -> whether the row has the label."""
    return _KNOWN_CELLS | {plain_cell(cell): has for cell, has in data.label_cells.items()}


def plain_cell(cell: str) -> str:
    """A cell of a label column without the blanks and the case that do not change its meaning."""
    return cell.strip().lower()


def names_in_cell(cell: str, delimiter: str) -> list[str]:
    """The names in a cell, each once, in order: the items of a JSON or Python list, else what the delimiter divides.

    Blanks around a name do not count, and nothing between two delimiters is no name.
    """
    text = cell.strip()
    names = _listed(text) if text[:1] in _OPENING and text[-1:] in _CLOSING else None
    if names is None:
        names = [part.strip() for part in (text.split(delimiter) if delimiter != " " else text.split())]
    return [name for name in dict.fromkeys(names) if not is_blank(name)]


def _listed(text: str) -> list[str] | None:
    """The items of a list of names or whole numbers as JSON, Python or a set spell it; None if it is no such list."""
    for parse in (json.loads, ast.literal_eval):  # literal_eval takes literals alone, and runs nothing
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(found, (list, tuple, set)) and all(type(item) in (str, int) for item in found):
            return sorted(map(str, found)) if isinstance(found, set) else [str(item).strip() for item in found]
    return None
