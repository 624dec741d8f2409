"""Finds labels and filter values that are probably misspelled, in the settings or in the data.

In: data settings; row counts by spelling of labels and of the columns in `data.where`. Out: sentences for the user, and
the `--set` that corrects them. Pure.
Not here: which names are equal (tasks/labels.py), which findings stop a run (checks.py).
"""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from textcls.settings.data import DataSpec
from textcls.settings.yaml_text import escaped, set_option
from textcls.tasks.labels import Twins, differences, folded, in_latin, is_blank, is_missing_word, merged_map, twins

# The most groups, labels or values in a message.
_MOST_SHOWN = 10
# Of a column with more, or longer, distinct cells only those in the settings are counted.
_MOST_SPELLINGS = 1000
_LONGEST_SPELLING = 200
# Placeholder in an advised label map, to be replaced by the user.
_CHOSEN = "LABEL"


@dataclass
class Spellings:
    """Row counts by the spelling of cells in the columns of the filters and of the label.

    Attributes:
        where: column of `data.where` or `data.where_not` -> rows by cell, over all rows.
        labels: rows by label as written, over the rows that pass the filters.
    """

    where: dict[str, Counter[str]] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Spellings") -> None:
        """Adds the counts of other rows; cells in the settings stay, even with a count of 0."""
        for column, cells in other.where.items():
            for cell, number in cells.items():
                count_into(self.where.setdefault(column, Counter()), cell, number)
        for cell, number in other.labels.items():
            count_into(self.labels, cell, number)


def count_into(total: Counter[str], cell: str, number: int = 1) -> None:
    """Counts a cell. A new cell is only counted while a message could show it; cells in the settings start at 0."""
    if cell in total or not number or (len(total) < _MOST_SPELLINGS and len(cell) <= _LONGEST_SPELLING):
        total[cell] += number


def spelling_warnings(data: DataSpec, counts: Mapping[str, int], spellings: Spellings) -> list[str]:
    """Probable misspellings, one sentence each.

    Args:
        data: the settings with which the rows were read.
        counts: clean rows by label name.
        spellings: row counts by spelling.
    """
    warnings = [*_unmet_where(data, spellings)]
    of_labels, label_map, targets = [], dict(data.label_map), dict[str, str]()
    for key in _unmet_keys(data, spellings):
        near = _near(key, _unmapped(data, spellings))
        of_labels.append(f"data.label_map: no row has the label {quoted(key)}" + (f"; {near[1]}" if near else ""))
        name = label_map.pop(key)
        if near:
            targets[near[0]] = name
    own_labels = data.labels is not None
    for one in twins({} if own_labels else counts, data.label_map):
        if not set(one.names) <= set(targets):
            of_labels.append(_twins_warning(one, counts))
            targets |= dict.fromkeys(one.names, one.target)
    for name, latin in _in_two_scripts({} if own_labels else counts, data).items():
        if name not in targets:
            of_labels.append(_scripts_warning(name, latin, counts))
            targets[name] = targets.get(latin, latin)
    for written, name in _known_by_another_spelling(data, spellings).items():
        if written not in targets:
            (named_one,) = _with_rows([written], spellings.labels)
            of_labels.append(f"label {named_one} is not among the labels; it may be {quoted(name)}")
            targets[written] = name
    more = len(of_labels) - _MOST_SHOWN
    warnings += of_labels[:_MOST_SHOWN] + ([f"and {more:,} more such labels"] if more > 0 else [])
    if targets:
        advised = set_option("data.label_map", merged_map(label_map, targets))
        warnings.append(f"if labels that look alike are the same, map them: {advised}")
    words = [name for name in counts if is_missing_word(name) and name not in data.label_map.values()]
    if words and not own_labels:
        warnings.append(
            f"labels that look like missing values: {first_few(_with_rows(words, counts))}; to skip {_skipped(data)}: "
            f"{leaving_out(data, words)}; if these are real classes, list every label in data.labels"
        )
    return warnings


def _twins_warning(found: Twins, counts: Mapping[str, int]) -> str:
    names = " and ".join(_with_rows(found.names, counts))
    if found.key:
        return f"label {names} may be {quoted(found.key)}, which data.label_map maps to {quoted(found.target)}"
    if len(found.names) == 1:
        return f"label {names} has blanks at an end or invisible characters; without them it is {quoted(found.target)}"
    return f"labels {names} differ only in {differences(found.names)}"


def _in_two_scripts(counts: Mapping[str, int], data: DataSpec) -> dict[str, str]:
    """Label name with letters of another script among Latin ones -> the Latin name it looks like."""
    found = {folded(name): name for name in sorted(counts, key=lambda name: (counts[name], name))}
    mixed = {name: in_latin(name) for name in counts if name not in data.label_map.values()}
    return {name: found.get(folded(latin), latin) for name, latin in mixed.items() if latin != name}


def _scripts_warning(name: str, latin: str, counts: Mapping[str, int]) -> str:
    (with_rows,) = _with_rows([name], counts)
    strange = [one for one, other in zip(name, in_latin(name), strict=True) if one != other]
    letters = first_few(f"{unicodedata.name(char)} (U+{ord(char):04X})" for char in dict.fromkeys(strange))
    return f"label {with_rows} has {letters} among Latin letters; it may be {quoted(latin)}"


def _with_rows(names: Iterable[str], counts: Mapping[str, int]) -> list[str]:
    return [f"{quoted(name)} ({counts[name]:,} row{'s' if counts[name] != 1 else ''})" for name in names]


def _unmet_keys(data: DataSpec, spellings: Spellings) -> list[str]:
    """Keys of the label map that match no label, if labels were read."""
    return [key for key in data.label_map if spellings.labels.total() and not spellings.labels[key]]


def _unmapped(data: DataSpec, spellings: Spellings) -> Counter[str]:
    """Row counts of labels, as written, that are in neither the label map nor `data.labels`."""
    known = {*data.label_map, *(data.labels or ())}
    return Counter({label: rows for label, rows in spellings.labels.items() if rows and label not in known})


def _known_by_another_spelling(data: DataSpec, spellings: Spellings) -> dict[str, str]:
    """Label as written, not in `data.labels` -> the label in `data.labels` that differs only in spelling."""
    if data.labels is None:
        return {}
    meant = {folded(name): name for name in data.labels}
    meant |= {folded(key): name for key, name in data.label_map.items() if name in data.labels}
    found = {label: meant.get(folded(label)) for label in _unmapped(data, spellings)}
    return {label: name for label, name in found.items() if name is not None}


def unknown_advice(data: DataSpec, reasons: Mapping[str, int], spellings: Spellings | None) -> str:
    """The advice if most rejects have a label that is not in `data.labels`; otherwise empty."""
    if spellings is None or data.labels is None or max(reasons, key=lambda reason: reasons[reason]) != "unknown_label":
        return ""
    if known := _known_by_another_spelling(data, spellings):
        advised = set_option("data.label_map", merged_map(data.label_map, known))
        return f"map the labels that differ only in spelling: {advised}"
    unknown = [label for label in _unmapped(data, spellings) if not is_blank(label)]
    if not any(rows and data.label_map.get(label, label) in data.labels for label, rows in spellings.labels.items()):
        # Without the rows of the unknown labels, none would be left.
        led = {**data.label_map, **dict.fromkeys(unknown[:_MOST_SHOWN], _CHOSEN)}
        more = f", and {len(unknown) - _MOST_SHOWN:,} more labels" if len(unknown) > _MOST_SHOWN else ""
        return (
            f"map each label to one of yours, in place of {_CHOSEN}: {set_option('data.label_map', led)}{more}; "
            f"each {_CHOSEN} must be one of {named(data.labels)}"
            if unknown
            else ""
        )
    return (
        f"map the labels {named(unknown)} to {named(data.labels)} with data.label_map, "
        f"or skip {_skipped(data)}: {leaving_out(data, unknown)}"
    )


def _unmet_where(data: DataSpec, spellings: Spellings) -> list[str]:
    """Warnings of values of `where` and `where_not` that no row has."""
    warnings = []
    for setting, named in (("where", data.where), ("where_not", data.where_not)):
        corrected, near_ones = {column: list(values) for column, values in named.items()}, False
        of_setting = []
        for column, values in named.items():
            cells = spellings.where.get(column, Counter())
            for value in values:
                if cells[value] or not cells.total():
                    continue
                near = _near(value, Counter({cell: n for cell, n in cells.items() if n and cell not in values}))
                of_setting.append(
                    f"data.{setting}: no row has {quoted(column)} {quoted(value)}" + (f"; {near[1]}" if near else "")
                )
                corrected[column].remove(value)
                if near:
                    corrected[column].append(near[0])
                    near_ones = True
        if of_setting:
            kept = {column: values for column, values in corrected.items() if values}
            warnings += of_setting[:_MOST_SHOWN]
            warnings += [f"to use the spelling in the data: {set_option(f'data.{setting}', kept)}"] if near_ones else []
    return warnings


def _near(value: str, cells: Counter[str]) -> tuple[str, str] | None:
    """(the cell that most probably corresponds to a value, a phrase about it); None if there is none."""
    fold = folded(value)
    alike = [cell for cell, _ in cells.most_common() if folded(cell) == fold]
    # A number that differs by a digit is another number.
    close = [] if value.isdecimal() else difflib.get_close_matches(value, list(cells), n=1, cutoff=0.8)
    for cell in (*alike, *close):
        return cell, f"{cells[cell]:,} have {quoted(cell)}"
    return None


def cells_found(data: DataSpec, spellings: Spellings) -> str:
    """The most frequent cells in the columns of the filters."""
    return "; ".join(
        f"{column} has {first_few(_with_rows([cell for cell, rows in cells.most_common() if rows], cells))}"
        for column, cells in spellings.where.items()
        if cells.total()
    )


def where_that_matches(data: DataSpec, spellings: Spellings) -> str:
    """The --set with which some rows pass the filters."""
    for warning in reversed(_unmet_where(data, spellings)):
        if "--set" in warning:
            return warning
    filters = [f"data.{name}" for name, named in (("where", data.where), ("where_not", data.where_not)) if named]
    return f"correct the column or the values; to use all rows: {' '.join(set_option(f, {}) for f in filters)}"


def _skipped(data: DataSpec) -> str:
    return "these rows" if data.labels_in == "one" else "these labels"


def leaving_out(data: DataSpec, labels: Iterable[str]) -> str:
    """The --set that skips the rows of some labels, as written; of rows with several, these labels alone."""
    if data.labels_in != "one":
        return set_option("data.label_map", data.label_map | dict.fromkeys(labels, ""))
    values = dict.fromkeys((*data.where_not.get(data.label_column, ()), *labels))
    return set_option("data.where_not", {**data.where_not, data.label_column: list(values)})


def without_labels(data: DataSpec, labels: Sequence[str]) -> str:
    """The --set that removes labels and skips their rows, or reads the rows without these labels."""
    if data.labels_in != "one":
        names = [name for name in data.labels or () if name not in labels]
        columns = [name for name in data.label_columns if data.label_map.get(name, name) not in labels]
        written = [key for key, name in data.label_map.items() if name in labels]
        written += [name for name in labels if name not in data.label_map]
        options = [set_option("data.label_columns", columns) if columns else leaving_out(data, written)]
        return " ".join(options + ([set_option("data.labels", names)] if data.labels is not None else []))
    written = [key for key, name in data.label_map.items() if name in labels]
    options = [leaving_out(data, [*written, *(name for name in labels if name not in data.label_map)])]
    if written:
        kept = {key: name for key, name in data.label_map.items() if name not in labels}
        options.append(set_option("data.label_map", kept))
    if data.labels is not None:
        options.append(set_option("data.labels", [name for name in data.labels if name not in labels]))
    return " ".join(options)


def named(names: Iterable[str]) -> str:
    """The first few names in quotes, separated by commas."""
    return first_few(map(quoted, names))


def first_few(words: Iterable[str]) -> str:
    """The first few words, separated by commas, and the number of the others."""
    listed = list(words)
    more = len(listed) - _MOST_SHOWN
    return ", ".join(listed[:_MOST_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def quoted(name: str) -> str:
    """A name in quotes, with escapes for invisible characters."""
    return f"'{escaped(name if len(name) <= 80 else name[:79] + '…')}'"
