"""Label names <-> ids.

In: the label names found in the data or given by the recipe. Out: one fixed order of names; an id is a place in it.
Not here: mapping a CSV's spelling to a name (data/rows.py).
"""

from collections.abc import Iterable


def label_order(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the order of their ids: numbers by value, otherwise by code point. Never by order of appearance."""
    unique = sorted(set(names))
    if unique and all(name.isascii() and name.isdecimal() for name in unique):
        unique.sort(key=int)
    return tuple(unique)


def lookalikes(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ only by case or spaces, which are most often one label spelt twice."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault("".join(name.casefold().split()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
