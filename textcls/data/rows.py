"""A CSV record -> a clean row, a reject with a reason, or None if the row filters leave it out. Pure.

In: the fields of a record and its line. Out: its `TextInput`, `CleanRow`, `Reject` or None. Not here: reading files
(csv_shards.py), duplicates and splits (split.py), what a label cell means (tasks/).

A reject quotes its cell masked, as `text.mask` says: before it is cut, so that no part of an identifier is left.
"""

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from textcls.data.csv_layout import Layout, header_again, header_reordered, is_total, plain_name
from textcls.data.csv_records import CellTooLong, Fields
from textcls.data.decisions import TO_LABEL_COLUMNS, Decisions, decided, unescaped
from textcls.data.exclusion import Exclusion
from textcls.data.spellings import Spellings, count_into
from textcls.errors import DataError
from textcls.plain_text import visible
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.tasks.task import LabelReader, ReadLabel, Task
from textcls.text.held_kinds import HeldKinds
from textcls.text.masks import masker_of
from textcls.text.normalizer import normalizer_of
from textcls.text.text_input import TextInput

_SHOWN_CHARS = 120
# Different label cells that a cleaner caches.
_LABELS_KEPT = 4096
# The number of blanks, quotes and byte order marks that a repeated header may have around a name.
_NAME_PADDING = 8


class Reason(StrEnum):
    """Why a row is a reject, with an `explanation` of one line."""

    explanation: str

    MISSING_TEXT = "missing_text", "every text column, or one of data.pair, is empty or white space"
    MISSING_LABEL = "missing_label", "the label is empty, white space or invisible characters alone"
    UNKNOWN_LABEL = "unknown_label", "the label, after data.label_map, is not among data.labels"
    SEVERAL_LABELS = "several_labels", "several label columns hold 1, and data.task takes one label a row"
    NOT_YES_OR_NO = "not_yes_or_no", "a label column holds something other than 0 or 1, true or false, yes or no"
    CONFLICTING_LABELS = "conflicting_labels", "the text has other labels in other rows, and data.on_conflict is reject"
    PERSONAL_LABEL = "personal_label", "the label holds what text.mask masks; data.labels or data.label_map can name it"
    DROPPED_BY_DECISION = "dropped_by_decision", "data.decisions says drop about this text with this label"
    EXCLUDED = "excluded", "data.exclude takes out this text or this key; what the row holds is not repeated"
    UNDECODABLE = "undecodable", "a cell that is needed holds bytes that data.encoding does not have"
    RAGGED_ROW = "ragged_row", "the row has more or fewer fields than the header or, without one, the first row"
    CELL_TOO_LONG = "cell_too_long", "a cell is longer than data.max_cell_chars"
    REPEATED_HEADER = "repeated_header", "the row repeats the header"
    TOTAL_LINE = "total_line", "the row is a total below the table: a word like Total, no label or no text"

    def __new__(cls, value: str, explanation: str) -> "Reason":
        reason = str.__new__(cls, value)
        reason._value_ = value
        reason.explanation = explanation
        return reason


_MAY_BE_TOTAL = frozenset((Reason.MISSING_TEXT, Reason.MISSING_LABEL, Reason.RAGGED_ROW))


class CleanRow(NamedTuple):
    """A row that can be trained on or evaluated.

    Attributes:
        line: 1-based number of the record's first physical line.
        input: what the model reads.
        label: what the label cells say after `label_map`, as the task spells it: for a single label, its name.
        key: `TextInput.key`, 16 bytes, equal for duplicates; does not depend on the seed.
    """

    line: int
    input: TextInput
    label: str
    key: bytes


class Reject(NamedTuple):
    """A row that cannot be used.

    Attributes:
        line: 1-based number of the record's first physical line.
        column: the column at fault; empty if the whole row is.
        reason: a `Reason`.
        value: the content found there, masked, printable, at most 120 characters.
    """

    line: int
    column: str
    reason: str
    value: str


class TextReader:
    """Reads the input of a row: alike for training, evaluation and prediction, with or without a label column.

    Args:
        layout: positions of the columns.
        data: names of the columns.
        text: what is masked in the cells that a reject quotes.

    Attributes:
        plain: a cell as the user wrote it: in a to_label.csv, one like a formula has an apostrophe in front.
    """

    def __init__(self, layout: Layout, data: DataSpec, text: TextSpec | None = None) -> None:
        self._mask = masker_of(text or TextSpec())
        position = dict(zip(data.columns, layout.positions, strict=True))
        self._width = layout.width
        self._texts = [(column, position[column]) for column in data.input_columns]
        self._only_text = self._texts[0][1] if len(self._texts) == 1 else None
        self._is_pair = data.pair is not None
        self._layout = layout
        self._is_escaped = set(TO_LABEL_COLUMNS) <= set(layout.header)
        self.plain: Callable[[str], str] = unescaped if self._is_escaped else str
        # Only rows whose first used cell is a column name are compared with the header: this is faster.
        self._probe = layout.positions[0]
        self._names = frozenset(map(plain_name, layout.header))
        self._longest_name = max(map(len, self._names)) + _NAME_PADDING if layout.header else -1

    def no_row(self, line: int, fields: Fields) -> Reject | None:
        """The reject for a record that is not a row with a field for each column; None for a row.

        Raises:
            DataError: the record is a second header with its columns in another order.
        """
        if isinstance(fields, CellTooLong):
            return Reject(line, "", Reason.CELL_TOO_LONG, fields.value)
        if len(fields) != self._width:
            return Reject(line, "", Reason.RAGGED_ROW, f"{len(fields)} fields, expected {self._width}")
        probe = fields[self._probe]
        if len(probe) <= self._longest_name and plain_name(probe) in self._names:
            if header_again(fields, self._layout):
                return Reject(line, "", Reason.REPEATED_HEADER, self.shown(", ".join(fields)))
            if header_reordered(fields, self._layout):
                raise _reordered(line, [*map(self._mask, fields)], self._layout)
        return None

    def input(self, line: int, fields: Sequence[str]) -> TextInput | Reject:
        """The text columns joined by a space, or the pair, otherwise as written; a reject if a text is missing.

        Args:
            line: line of the record.
            fields: of a record for which `no_row` returns None.
        """
        if self._is_escaped:
            fields = [self.plain(cell) for cell in fields]
        if self._is_pair:
            return self._pair(line, fields)
        only = self._only_text
        text = fields[only] if only is not None else " ".join([fields[position] for _, position in self._texts])
        found = TextInput(text)
        if found.is_blank:
            return Reject(line, self._texts[0][0], Reason.MISSING_TEXT, self.shown(text))
        if _is_undecodable(text):
            column, position = next(place for place in self._texts if _is_undecodable(fields[place[1]]))
            return Reject(line, column, Reason.UNDECODABLE, self.shown(fields[position]))
        return found

    def _pair(self, line: int, fields: Sequence[str]) -> TextInput | Reject:
        for column, position in self._texts:
            if not fields[position].strip():
                return Reject(line, column, Reason.MISSING_TEXT, self.shown(fields[position]))
            if _is_undecodable(fields[position]):
                return Reject(line, column, Reason.UNDECODABLE, self.shown(fields[position]))
        return TextInput(*(fields[position] for _, position in self._texts))

    def shown(self, cell: str) -> str:
        """A cell as a reject quotes it."""
        return shown(cell, self._mask)


class RowCleaner:
    """Callable: (line, fields) -> clean row, reject, or None if `where` or `where_not` leaves the row out.

    Args:
        layout: positions of the columns.
        data: names of the columns, row filters, labels.
        text: the normalizer, which decides about duplicates; what is masked.
        task: reads the label cells.
        group_by: `split.group_by`.
        decisions: of the files of `data.decisions`.
        exclusion: of the files of `data.exclude`.

    Attributes:
        spellings: counts of the cells that settings list by value, over the rows so far.
        decided: decisions, named as in `decisions.decided` -> rows so far that met them.
        masked: kinds of `text.mask` and `text.mask_patterns` -> clean rows so far that hold one.
        excluded: numbers of entries of the exclusion -> rows so far that met them.
        nearly_excluded: numbers of entries -> rows so far whose key is another spelling of theirs.
    """

    def __init__(
        self,
        layout: Layout,
        data: DataSpec,
        text: TextSpec,
        task: Task,
        *,
        group_by: str = "none",
        decisions: Sequence[Decisions] = (),
        exclusion: Exclusion | None = None,
    ) -> None:
        position = dict(zip(data.columns, layout.positions, strict=True))
        self._data, self._group_by = data, group_by
        self._normalize, self._held = normalizer_of(text), HeldKinds(text)
        self.masked: Counter[str] = Counter()
        self._decisions = decisions
        self.decided: Counter[str] = Counter()
        self._exclusion, self._key = exclusion, position[data.exclude_by] if data.exclude_by is not None else None
        self.excluded: Counter[str] = Counter()
        self.nearly_excluded: Counter[str] = Counter()
        self._reader = TextReader(layout, data, text)
        self._shown, self._mask = self._reader.shown, masker_of(text)
        self._labels = [position[column] for column in data.read_label_columns]
        # (column, position, values, whether a row with one of them is kept)
        self._where = [
            (column, position[column], frozenset(values), kept)
            for named, kept in ((data.where, True), (data.where_not, False))
            for column, values in named.items()
        ]
        self.spellings = Spellings(labels=Counter(dict.fromkeys(data.label_map, 0)))
        for column, _, values, _ in self._where:
            self.spellings.where.setdefault(column, Counter()).update(dict.fromkeys(values, 0))
        self._read_label = lru_cache(maxsize=_LABELS_KEPT)(_label_reader(data, text, task))
        self._names_labels = bool(data.label_map) or data.labels is not None

    def __call__(self, line: int, fields: Fields) -> CleanRow | Reject | None:
        """The outcome of a record."""
        row = self._outcome(line, fields)
        if isinstance(row, Reject) and row.reason in _MAY_BE_TOTAL and is_total(fields):
            return Reject(line, "", Reason.TOTAL_LINE, self._shown(", ".join(fields)))
        return row

    def _outcome(self, line: int, fields: Fields) -> CleanRow | Reject | None:
        if (reject := self._reader.no_row(line, fields)) or isinstance(fields, CellTooLong):
            return reject
        for column, position, values, kept in self._where:
            cell = fields[position]
            if kept and cell not in values and _is_undecodable(cell):
                return Reject(line, column, Reason.UNDECODABLE, self._shown(cell))
            self._count(self.spellings.where[column], cell)
            if (cell in values) is not kept:
                return None

        found = self._reader.input(line, fields)
        # First of all: no other reject may repeat what is to be forgotten.
        if self._exclusion is not None and self._is_excluded(self._exclusion, fields, found):
            return Reject(line, "", Reason.EXCLUDED, "")
        if isinstance(found, Reject):
            return found

        label = self._read_label(tuple([self._reader.plain(fields[position]) for position in self._labels]))
        if self._names_labels:
            for name in label.written:
                self._count(self.spellings.labels, name)
        reason = label.reason
        if reason != Reason.MISSING_LABEL and _is_undecodable(label.label):
            reason = Reason.UNDECODABLE
        if reason:
            cell = self._shown(fields[self._labels[label.place]])
            return Reject(line, self._data.read_label_columns[label.place], reason, cell)
        used = label.label
        if self._decisions:
            after, met = decided(self._decisions, found, used)
            self.decided.update(met)
            if after is None:
                cell = self._shown(fields[self._labels[label.place]])
                return Reject(line, self._data.read_label_columns[label.place], Reason.DROPPED_BY_DECISION, cell)
            used = after
        key = found.key(self._held, self._group_by)
        self.masked.update(self._held.taken())
        return CleanRow(line, found, used, key)

    def _is_excluded(self, exclusion: Exclusion, fields: Sequence[str], one: TextInput | Reject) -> bool:
        """Whether a row meets an entry; counts the entries that it meets."""
        cell = "" if self._key is None else fields[self._key]
        by_text = None if isinstance(one, Reject) else exclusion.by_text(one, self._normalize)
        met = [number for number in (exclusion.by_key(cell), by_text) if number is not None]
        self.excluded.update(map(str, met))
        if not met:
            self.nearly_excluded.update(map(str, exclusion.nearly(cell)))
        return bool(met)

    def _count(self, total: Counter[str], cell: str) -> None:
        """Counts a cell for messages; one that holds an identifier only if the settings name it."""
        if cell in total or self._mask(cell) == cell:
            count_into(total, cell)


def _label_reader(data: DataSpec, text: TextSpec, task: Task) -> LabelReader:
    """The task's reader of label cells, but for labels that hold an identifier and that no setting names.

    They would become names of classes, which the bundle and everything that is written hold unmasked.
    """
    read, mask = task.label_reader(data), masker_of(text)
    named = {*data.label_map.values(), *(data.labels or ()), *data.label_columns}

    def label_of(cells: tuple[str, ...]) -> ReadLabel:
        found = read(cells)
        if not found.reason and any(name not in named and mask(name) != name for name in task.names_in(found.label)):
            return found._replace(reason=str(Reason.PERSONAL_LABEL))
        return found

    return label_of


def _reordered(line: int, fields: Sequence[str], layout: Layout) -> DataError:
    return DataError(
        f"{layout.uri}:{line}: a second header, in another order: {', '.join(fields)}",
        expected=f"the columns in one order, {', '.join(layout.header)}, or a file for each",
        todo=cut_in_two(layout.uri, line),
    )


def cut_in_two(uri: str, line: int) -> str:
    """The advice for a file that consists of two, the second of which begins with its header at a line."""
    quoted, first, second = (shlex.quote(name) for name in (uri, f"{uri}.1.csv", f"{uri}.2.csv"))
    return (
        f"cut the file there and name both parts: head -n {line - 1} {quoted} > {first}; "
        f"tail -n +{line} {quoted} > {second}"
    )


def _is_undecodable(cell: str) -> bool:
    """Whether a cell has lone surrogates, which stand for bytes that could not be decoded."""
    if cell.isascii():
        return False
    try:
        cell.encode()
    except UnicodeEncodeError:
        return True
    return False


def shown(cell: str, mask: Callable[[str], str] = str) -> str:
    """A cell, masked, as one printable line of at most 120 characters.

    A byte that could not be decoded appears as \\xNN.
    """
    return visible(mask(cell), _SHOWN_CHARS)
