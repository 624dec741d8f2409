"""The decisions of a person about rows with doubtful labels: `data.decisions`, an audit.csv that was filled in.

In: a CSV with the columns of an audit, and the task. Out: `Decisions`, which say for a row whether it stays, goes or
has another label. Not here: making the file (audit/sheet.py), what becomes of a row (rows.py).

A decision is about a text with a label, not about a place: its `row` is a hash of both. So it holds whatever the files
are called, in whatever order their rows are, and for every row with this text and label. Once the text or the label in
the CSV has changed, the decision matches nothing, and the job says so.

A cell that a spreadsheet would take for a formula begins with an apostrophe in the file.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from textcls import age_keys, encryption, storage
from textcls.encryption import NO_KEYS, Keys
from textcls.errors import DataError
from textcls.settings.data import DataSpec
from textcls.tasks.task import Task
from textcls.text.text_input import TextInput

FILE, LINE, LABEL, SUGGESTED, DECISION, ROW = "file", "line", "label", "suggested", "decision", "row"
KEEP, DROP = "keep", "drop"
RELABEL = "relabel"
TO_LABEL_COLUMNS = ("rank", "file", "line", "why", "margin", "predicted")
"""The columns of a to_label.csv that are not the user's; a file with all of them has cells as `escaped` writes them."""

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r]")
_DELIMITERS = (",", ";", "\t")
_SHOWN = 5
_NAMES_SHOWN = 10


def escaped(cell: str) -> str:
    """The cell so that no spreadsheet takes it for a formula; `unescaped` gives it back."""
    return "'" + cell if _FORMULA.match(cell) else cell


def unescaped(cell: str) -> str:
    """What `escaped` was given."""
    return cell[1:] if _ESCAPED.match(cell) else cell


def row_mark(one: TextInput, label: str) -> str:
    """A name for the rows with this very input and label; it begins with letters, so no program reads it as a number.

    Args:
        one: as written, not normalized.
        label: as the task spells it, before any decision.
    """
    content = json.dumps([label, *one.segments]).encode()
    return f"row-{blake2b(content, digest_size=8).hexdigest()}"


class Decision(NamedTuple):
    """What a person decided about a text with a label.

    Attributes:
        line: 1-based line of the decision in its file.
        about: FILE:LINE of the row, as it was when the audit was made.
        word: `keep`, `drop`, or the cell that names another label.
        label: the other label, as the task spells it; "" for `keep` and `drop`.
    """

    line: int
    about: str
    word: str
    label: str = ""


@dataclass(frozen=True)
class Decisions:
    """The decisions of one file.

    Attributes:
        uri: of the file.
        by_row: `row_mark` -> decision; rows that are kept as they are included.
        known: the label names that the file holds, apart from its decisions.
    """

    uri: str
    by_row: Mapping[str, Decision]
    known: frozenset[str]


def decided(files: Sequence[Decisions], one: TextInput, label: str) -> tuple[str | None, list[str]]:
    """(the label of a row after the decisions of all files, or None to drop it; the decisions that it met).

    Args:
        files: later ones decide about the labels that earlier ones gave.
        one: what the model reads.
        label: as the task spells it.

    Returns:
        A decision is named by the place of its file and its mark, as in `0 row-0123456789abcdef`.
    """
    met = []
    for place, file in enumerate(files):
        mark = row_mark(one, label)
        if (found := file.by_row.get(mark)) is not None:
            met.append(f"{place} {mark}")
            if found.word == DROP:
                return None, met
            label = found.label or label
    return label, met


def read_decisions(data: DataSpec, task: Task, keys: Keys = NO_KEYS) -> tuple[Decisions, ...]:
    """The decisions of all files of `data.decisions`.

    Args:
        data: names the files, and how label cells are read.
        task: what is predicted.
        keys: where the identity for encrypted files is.

    Raises:
        DataError: a file is missing or has not the columns of an audit, or a decision cannot be read.
        InputError: no identity opens an encrypted file.
    """
    is_needed = any(map(encryption.is_encrypted, data.decisions))
    opened_by = age_keys.identities(keys.identity_file) if is_needed else []
    return tuple(_read(storage.absolute(uri), data, task, opened_by) for uri in data.decisions)


def rows_decided(files: Sequence[Decisions], met: Mapping[str, int]) -> dict[str, int]:
    """Rows by what was decided about them: `keep`, `drop`, `relabel`; nothing where there are no decisions.

    Args:
        files: the decisions.
        met: decisions, named as in `decided` -> rows that met them.
    """
    found = dict.fromkeys((KEEP, DROP, RELABEL), 0) if files else {}
    for place, file in enumerate(files):
        for mark, decision in file.by_row.items():
            found[RELABEL if decision.label else decision.word] += met.get(f"{place} {mark}", 0)
    return found


def refuse_unmet(
    files: Sequence[Decisions], met: Mapping[str, int], labels: Mapping[str, int], data: DataSpec, task: Task
) -> None:
    """Stops a run whose decisions are about rows that are not there, or name a label that no row has.

    Args:
        files: the decisions.
        met: decisions, named as in `decided` -> rows that met them.
        labels: rows that can be used, by label name, after the decisions.
        data: the settings that the rows were read with.
        task: what is predicted.

    Raises:
        DataError: it names files and lines.
    """
    given = Counter(labels)
    for place, file in enumerate(files):
        for mark, decision in file.by_row.items():
            if decision.label:
                given.subtract(dict.fromkeys(task.names_in(decision.label), met.get(f"{place} {mark}", 0)))
    known = {name for name, rows in given.items() if rows > 0}.union(data.labels or (), *(f.known for f in files))
    wrong, missing = [], []
    for place, file in enumerate(files):
        for mark, decision in file.by_row.items():
            if decision.label and not known.issuperset(task.names_in(decision.label)):
                wrong.append(f"{file.uri}:{decision.line}: {decision.word!r}")
            if not met.get(f"{place} {mark}"):
                missing.append(f"{file.uri}:{decision.line}, about {decision.about}")
    if wrong:
        raise _unknown(wrong, known)
    if missing:
        number = "1 decision is" if len(missing) == 1 else f"{len(missing):,} decisions are"
        raise DataError(
            f"{number} about rows that are not among those read (any more):" + _listed(missing),
            expected="rows with the very text and label that the audit has seen",
            todo="restore the rows, or the data.csv, data.where and data.where_not that the audit had; or delete these "
            "lines of data.decisions, which are no longer needed if the rows were corrected in the CSV files or are "
            "taken out by data.exclude",
        )


def _unknown(wrong: Sequence[str], known: Iterable[str]) -> DataError:
    names = ", ".join(sorted(known)[:_NAMES_SHOWN])
    number = "1 decision" if len(wrong) == 1 else f"{len(wrong):,} decisions"
    return DataError(
        f"{number} cannot be used:" + _listed(wrong),
        expected=f"{KEEP}, {DROP}, an empty cell, or a label" + (f", such as {names}" if names else ""),
        todo='correct these lines; a label with the name keep or drop is written as ["keep"]',
    )


def _listed(places: Sequence[str]) -> str:
    more = f"\n    and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else ""
    return "".join(f"\n    {place}" for place in places[:_SHOWN]) + more


def _read(uri: str, data: DataSpec, task: Task, opened_by: Sequence[Any]) -> Decisions:
    if not storage.exists(uri):
        raise DataError(
            f"data.decisions: {uri}: no such file", todo="name the audit.csv with your decisions, or leave it out"
        )
    read_label = _label_reader(data, task)
    by_row: dict[str, Decision] = {}
    known: set[str] = set(data.labels or ())
    wrong: list[str] = []
    for line, cells in _rows(uri, encryption.read_bytes(uri, opened_by)):
        for name in (LABEL, SUGGESTED):
            if seen := read_label(unescaped(cells[name])):
                known.update(task.names_in(seen))
        cell = unescaped(cells[DECISION]).strip()
        word = cell.casefold() if cell.casefold() in (KEEP, DROP) else cell
        label = None if word in ("", KEEP, DROP) else read_label(cell)
        if word not in ("", KEEP, DROP) and label is None:
            wrong.append(f"{uri}:{line}: {cell!r}")
        elif word:
            mark, about = cells[ROW].strip(), f"{unescaped(cells[FILE])}:{cells[LINE]}"
            found = by_row.setdefault(mark, Decision(line, about, word, label or ""))
            if (found.label or found.word) != (label or word):
                wrong.append(f"{uri}:{line}: {cell!r}, but {found.word!r} about the same text in line {found.line}")
    if wrong:
        raise _unknown(wrong, known)
    return Decisions(uri, by_row, frozenset(known))


def _label_reader(data: DataSpec, task: Task) -> Callable[[str], str | None]:
    """Reads a label of one cell, in the spelling of the label cells or as a JSON list of names; None if it is none."""
    in_one_cell = {"labels_in": "cell", "label_columns": ()} if data.labels_in == "columns" else {}
    read = task.label_reader(data.model_copy(update=in_one_cell))

    def label(cell: str) -> str | None:
        names = _json_names(cell)
        if names is None:
            found = read((cell,))
            return None if found.reason else found.label
        if data.labels is not None and not set(data.labels).issuperset(names):
            return None
        try:
            return task.label_of(names)
        except ValueError:  # not as many names as a row has
            return None

    return label


def _json_names(cell: str) -> list[str] | None:
    """The names of a JSON list; None if the cell is no such list."""
    try:
        found = json.loads(cell) if cell.startswith("[") else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(name, str) for name in found) else None


def _rows(uri: str, content: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, column -> cell) of each record; whatever delimiter the spreadsheet wrote."""
    try:
        yield from _records(uri, content.decode("utf-8-sig"))
    except csv.Error as error:  # such as a quote that is never closed in a large file
        raise DataError(
            f"data.decisions: {uri} is no CSV file: {error}",
            todo="name the audit.csv that `textcls audit` wrote, with your decisions",
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"data.decisions: {uri} is not UTF-8: {error.reason} at byte {error.start}",
            todo="save it as `CSV UTF-8` in the spreadsheet",
        ) from error


def _records(uri: str, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    needed = (FILE, LINE, LABEL, SUGGESTED, DECISION, ROW)
    missing: Sequence[str] = needed
    for delimiter in _DELIMITERS:
        records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        header = [name.strip() for name in next(records, [])]
        if set(needed) <= set(header):
            break
        missing = min(missing, [name for name in needed if name not in header], key=len)
    else:
        raise DataError(
            f"data.decisions: {uri} lacks columns of an audit.csv: {', '.join(missing)}",
            expected=f"a header with {', '.join(needed)}",
            todo="name the audit.csv that `textcls audit` wrote, with its header and its columns",
        )
    end = records.line_num
    for cells in records:
        line, end = end + 1, records.line_num
        if any(cells):
            yield line, dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=False))
