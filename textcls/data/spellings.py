"""How cells are spelled that settings name, and what is most likely spelled otherwise than it is meant.

In: data settings; rows by spelling of labels and of the columns that `data.where` names. Out: sentences for the user,
and the `--set` that does what they say. Pure.
Not here: what makes two names one (tasks/labels.py), what stops a run (checks.py).
"""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from textcls.settings.recipe import DataSpec
from textcls.settings.yaml_text import escaped, set_option
from textcls.tasks.labels import Twins, differences, folded, in_latin, is_blank, is_missing_word, merged_map, twins

# Of more groups, labels or values the first few are shown.
_MOST_SHOWN = 10
# Of a column with more, or longer, different cells only those that the settings name are counted.
_MOST_SPELLINGS = 1000
_LONGEST_SPELLING = 200
# Stands in an advised label map for what the user is to choose.
_CHOSEN = "LABEL"


@dataclass
class Spellings:
    """How often cells are spelled as some settings name them, and what else stands beside them.

    Attributes:
        where: column of `data.where` or `data.where_not` -> rows by cell, over all rows.
        labels: rows by label as written, over the rows whose label counts.
    """

    where: dict[str, Counter[str]] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Spellings") -> None:
        """Adds the counts of other rows; what is named keeps its zero."""
        for column, cells in other.where.items():
            for cell, number in cells.items():
                count_into(self.where.setdefault(column, Counter()), cell, number)
        for cell, number in other.labels.items():
            count_into(self.labels, cell, number)


def count_into(total: Counter[str], cell: str, number: int = 1) -> None:
    """Counts a cell; one that is new, only while a message can have use for it. One that is named stands at 0."""
    if cell in total or not number or (len(total) < _MOST_SPELLINGS and len(cell) <= _LONGEST_SPELLING):
        total[cell] += number


def spelling_warnings(data: DataSpec, counts: Mapping[str, int], spellings: Spellings) -> list[str]:
    """What is most likely spelled in another way than it is meant, one sentence each.

    Args:
        data: the settings the rows were read with.
        counts: clean rows by label name.
        spellings: how the cells are spelled that the settings name.
    """
    found = [*_unmet_where(data, spellings)]
    told, label_map, targets = [], dict(data.label_map), dict[str, str]()
    for key in _unmet_keys(data, spellings):
        near = _near(key, _unmapped(data, spellings))
        told.append(f"data.label_map: no row has the label {shown(key)}" + (f"; {near[1]}" if near else ""))
        name = label_map.pop(key)
        if near:
            targets[near[0]] = name
    own_labels = data.labels is not None
    for one in twins({} if own_labels else counts, data.label_map):
        if not set(one.names) <= set(targets):
            told.append(_twins_told(one, counts))
            targets |= dict.fromkeys(one.names, one.target)
    for name, latin in _in_two_scripts({} if own_labels else counts, data).items():
        if name not in targets:
            told.append(_scripts_told(name, latin, counts))
            targets[name] = targets.get(latin, latin)
    for written, name in _known_by_another_spelling(data, spellings).items():
        if written not in targets:
            (named_one,) = _with_rows([written], spellings.labels)
            told.append(f"label {named_one} is not among the labels; it may be {shown(name)}")
            targets[written] = name
    found += told[:_MOST_SHOWN] + (
        [f"and {len(told) - _MOST_SHOWN:,} more such labels"] if len(told) > _MOST_SHOWN else []
    )
    if targets:
        advised = set_option("data.label_map", merged_map(label_map, targets))
        found.append(f"if labels that look alike are the same, map them: {advised}")
    words = [name for name in counts if is_missing_word(name) and name not in data.label_map.values()]
    if words and not own_labels:
        found.append(
            f"labels that look like missing values: {first_few(_with_rows(words, counts))}; to leave these rows out: "
            f"{leaving_out(data, words)}; if these are real classes, list every label in data.labels"
        )
    return found


def _twins_told(found: Twins, counts: Mapping[str, int]) -> str:
    named = " and ".join(_with_rows(found.names, counts))
    if found.key:
        return f"label {named} may be {shown(found.key)}, which data.label_map leads to {shown(found.target)}"
    if len(found.names) == 1:
        return f"label {named} holds blanks at an end or invisible characters; without them it is {shown(found.target)}"
    return f"labels {named} differ only in {differences(found.names)}"


def _in_two_scripts(counts: Mapping[str, int], data: DataSpec) -> dict[str, str]:
    """Label name with letters of another script among Latin ones -> the name it looks like, a found one if any."""
    found = {folded(name): name for name in sorted(counts, key=lambda name: (counts[name], name))}
    mixed = {name: in_latin(name) for name in counts if name not in data.label_map.values()}
    return {name: found.get(folded(latin), latin) for name, latin in mixed.items() if latin != name}


def _scripts_told(name: str, latin: str, counts: Mapping[str, int]) -> str:
    (with_rows,) = _with_rows([name], counts)
    strange = [one for one, other in zip(name, in_latin(name), strict=True) if one != other]
    letters = first_few(f"{unicodedata.name(char)} (U+{ord(char):04X})" for char in dict.fromkeys(strange))
    return f"label {with_rows} holds {letters} among Latin letters; it may be {shown(latin)}"


def _with_rows(names: Iterable[str], counts: Mapping[str, int]) -> list[str]:
    return [f"{shown(name)} ({counts[name]:,} row{'s' if counts[name] != 1 else ''})" for name in names]


def _unmet_keys(data: DataSpec, spellings: Spellings) -> list[str]:
    """Keys of the label map that no label is spelled as, if labels were read at all."""
    return [key for key in data.label_map if spellings.labels.total() and not spellings.labels[key]]


def _unmapped(data: DataSpec, spellings: Spellings) -> Counter[str]:
    """Labels as written that neither the label map nor `data.labels` names, by rows."""
    known = {*data.label_map, *(data.labels or ())}
    return Counter({label: rows for label, rows in spellings.labels.items() if rows and label not in known})


def _known_by_another_spelling(data: DataSpec, spellings: Spellings) -> dict[str, str]:
    """Label as written, not among `data.labels` -> the label that it is another spelling of."""
    if data.labels is None:
        return {}
    meant = {folded(name): name for name in data.labels}
    meant |= {folded(key): name for key, name in data.label_map.items() if name in data.labels}
    found = {label: meant.get(folded(label)) for label in _unmapped(data, spellings)}
    return {label: name for label, name in found.items() if name is not None}


def unknown_advice(data: DataSpec, reasons: Mapping[str, int], spellings: Spellings | None) -> str:
    """What to do about labels that are not among `data.labels`, if most rejects have one; otherwise empty."""
    if spellings is None or data.labels is None or max(reasons, key=lambda reason: reasons[reason]) != "unknown_label":
        return ""
    if known := _known_by_another_spelling(data, spellings):
        advised = set_option("data.label_map", merged_map(data.label_map, known))
        return f"map the labels that are only spelled in another way: {advised}"
    unknown = [label for label in _unmapped(data, spellings) if not is_blank(label)]
    if not any(rows and data.label_map.get(label, label) in data.labels for label, rows in spellings.labels.items()):
        # Without the rows of the unknown labels, none would be left.
        led = {**data.label_map, **dict.fromkeys(unknown[:_MOST_SHOWN], _CHOSEN)}
        more = f", and {len(unknown) - _MOST_SHOWN:,} more labels likewise" if len(unknown) > _MOST_SHOWN else ""
        return (
            f"choose a label for each, where {_CHOSEN} stands: {set_option('data.label_map', led)}{more}; "
            f"{_CHOSEN} is to be one of {named(data.labels)}"
            if unknown
            else ""
        )
    return (
        f"map the labels {named(unknown)} to {named(data.labels)} with data.label_map, "
        f"or leave those rows out: {leaving_out(data, unknown)}"
    )


def _unmet_where(data: DataSpec, spellings: Spellings) -> list[str]:
    """Values of `where` and `where_not` that no row has."""
    found = []
    for setting, named in (("where", data.where), ("where_not", data.where_not)):
        corrected, near_ones = {column: list(values) for column, values in named.items()}, False
        told = []
        for column, values in named.items():
            cells = spellings.where.get(column, Counter())
            for value in values:
                if cells[value] or not cells.total():
                    continue
                near = _near(value, Counter({cell: n for cell, n in cells.items() if n and cell not in values}))
                told.append(
                    f"data.{setting}: no row has {shown(column)} {shown(value)}" + (f"; {near[1]}" if near else "")
                )
                corrected[column].remove(value)
                if near:
                    corrected[column].append(near[0])
                    near_ones = True
        if told:
            kept = {column: values for column, values in corrected.items() if values}
            found += told[:_MOST_SHOWN]
            found += [f"if that is meant: {set_option(f'data.{setting}', kept)}"] if near_ones else []
    return found


def _near(value: str, cells: Counter[str]) -> tuple[str, str] | None:
    """(the cell that is most likely meant by a value, words for it), if there is one."""
    fold = folded(value)
    alike = [cell for cell, _ in cells.most_common() if folded(cell) == fold]
    # A number that differs by a digit is another number.
    close = [] if value.isdecimal() else difflib.get_close_matches(value, list(cells), n=1, cutoff=0.8)
    for cell in (*alike, *close):
        return cell, f"{cells[cell]:,} have {shown(cell)}"
    return None


def cells_found(data: DataSpec, spellings: Spellings) -> str:
    """What stands in the columns of the filters."""
    return "; ".join(
        f"{column} holds {first_few(_with_rows([cell for cell, rows in cells.most_common() if rows], cells))}"
        for column, cells in spellings.where.items()
        if cells.total()
    )


def where_that_matches(data: DataSpec, spellings: Spellings) -> str:
    """The --set under which some rows match."""
    for told in reversed(_unmet_where(data, spellings)):
        if "--set" in told:
            return told
    filters = [f"data.{name}" for name, named in (("where", data.where), ("where_not", data.where_not)) if named]
    return f"correct the column or the values; all rows are taken with {' '.join(set_option(f, {}) for f in filters)}"


def leaving_out(data: DataSpec, labels: Iterable[str]) -> str:
    """The --set that leaves out the rows of some labels as written."""
    values = dict.fromkeys((*data.where_not.get(data.label_column, ()), *labels))
    return set_option("data.where_not", {**data.where_not, data.label_column: list(values)})


def without_labels(data: DataSpec, labels: Sequence[str]) -> str:
    """The --set that leaves out labels and their rows."""
    written = [key for key, name in data.label_map.items() if name in labels]
    options = [leaving_out(data, [*written, *(name for name in labels if name not in data.label_map)])]
    if written:
        kept = {key: name for key, name in data.label_map.items() if name not in labels}
        options.append(set_option("data.label_map", kept))
    if data.labels is not None:
        options.append(set_option("data.labels", [name for name in data.labels if name not in labels]))
    return " ".join(options)


def named(names: Iterable[str]) -> str:
    """The first few names, as a sentence shows them."""
    return first_few(map(shown, names))


def first_few(words: Iterable[str]) -> str:
    """The first few, and how many more there are."""
    found = list(words)
    return ", ".join(found[:_MOST_SHOWN]) + (
        f" and {len(found) - _MOST_SHOWN:,} more" if len(found) > _MOST_SHOWN else ""
    )


def shown(name: str) -> str:
    """A name in quotes, with escapes for what cannot be seen."""
    return f"'{escaped(name if len(name) <= 80 else name[:79] + '…')}'"
