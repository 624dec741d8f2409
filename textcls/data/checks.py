"""Can a job use these rows? And if so, what should the user still know?

In: counts. Out: a `DataError`, or warnings as sentences. Each `--set` in them does what the sentence says. Pure.
Not here: reading, printing, cells that are spelled differently from what a setting names (spellings.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, NoReturn

import numpy as np

from textcls.data import spellings as spelled
from textcls.data.label_columns import several_labels_warnings
from textcls.data.rows import Reason
from textcls.data.spellings import Spellings
from textcls.errors import DataError
from textcls.reporting.verdict import MANY_UNKNOWN
from textcls.settings.data import DataSpec
from textcls.settings.recipe import SplitSpec
from textcls.settings.yaml_text import set_option
from textcls.tasks.labels import merged_map
from textcls.tasks.shares import rounded_shares
from textcls.tasks.task import Task

_FEW_ROWS = 10
_CONFLICTS_BECOME = {
    "first": "the label of the first row is used (data.on_conflict)",
    "union": "each has the labels of all its rows (data.on_conflict)",
    "reject": "none of their rows is used (data.on_conflict)",
}
_MANY_LABELS = 1000
_INTENDED = (Reason.DROPPED_BY_DECISION, Reason.EXCLUDED)


def refuse_unfit(
    data: DataSpec,
    *,
    read: int,
    outside_where: int,
    reasons: Mapping[str, int],
    examples: Sequence[str],
    labels: Sequence[str],
    remedy: Callable[[str], str] = lambda reason: "",
    spellings: Spellings | None = None,
    label_rows: Mapping[str, int] | None = None,
    listed: bool = True,
) -> None:
    """Stops a job whose rows are unusable.

    Args:
        data: the settings that the rows were read with.
        read: rows read.
        outside_where: rows that `data.where` or `data.where_not` leaves out.
        reasons: rejects by reason.
        examples: a few rejects, one line each.
        labels: label names of the clean rows.
        remedy: reason of rejects -> what to do about them, as in remedies.py; "" if only correcting the rows helps.
        spellings: rows by spelling of the cells that settings name.
        label_rows: clean rows by label name; left out: every row has each label.
        listed: whether the job has written a rejects.parquet.

    Raises:
        DataError: no rows, only rejects, too many rejects, a single label, or almost as many labels as rows.
    """
    spellings = spellings or Spellings()
    if read == 0:
        _refuse_no_rows(data, outside_where, spellings)
    rejects = _unintended(reasons)
    if rejects > data.max_reject_fraction * read or sum(reasons.values()) == read:
        others = {reason: rows for reason, rows in reasons.items() if reason not in _INTENDED}
        if not others and reasons.get(Reason.EXCLUDED):
            _refuse_all_excluded(data, read, reasons)
        most_common = max(others or reasons, key=lambda reason: reasons[reason])
        advice = remedy(most_common) or spelled.unknown_advice(data, reasons, spellings)
        if len(labels) == 1 and most_common == Reason.MISSING_LABEL and data.labels_in == "one":
            named = f"if an empty cell is another label: {_named_if_empty(data, labels[0])}"
            advice = f"{advice}; {named}" if advice else named
        _refuse_rejects(data, read, reasons, examples, advice, listed=listed, enough_labels=len(labels) > 1)
    clean = read - sum(reasons.values())
    _refuse_labels(data, clean, labels, clean if label_rows is None else sum(label_rows.values()))


def _unintended(reasons: Mapping[str, int]) -> int:
    """Rejects, but for the rows that a person has decided to drop or to forget."""
    return sum(reasons.values()) - sum(reasons.get(reason, 0) for reason in _INTENDED)


def _refuse_all_excluded(data: DataSpec, read: int, reasons: Mapping[str, int]) -> NoReturn:
    """Stops a job that is to use none of its rows."""
    raise DataError(
        f"data.exclude takes out {reasons[Reason.EXCLUDED]:,} of {read:,} rows, and data.decisions drops the others"
        if reasons.get(Reason.DROPPED_BY_DECISION)
        else f"data.exclude takes out all {read:,} rows",
        expected="rows that are left to learn from",
        todo="check the files of data.exclude" + " and the column of data.exclude_by" * (data.exclude_by is not None),
    )


def _refuse_no_rows(data: DataSpec, outside_where: int, spellings: Spellings) -> NoReturn:
    """Stops a job that has read no row."""
    if outside_where:
        raise DataError(
            f"none of the {outside_where:,} rows matches {_where(data)}",
            expected=spelled.cells_found(data, spellings),
            todo=spelled.where_that_matches(data, spellings),
        )
    raise DataError("the files hold a header and no row", expected="at least a few rows of each label")


def _named_if_empty(data: DataSpec, label: str) -> str:
    """The --set that gives an empty cell a label of its own, beside the only one."""
    return set_option("data.label_map", {**data.label_map, "": f"no {label}"})


def _refuse_rejects(
    data: DataSpec,
    read: int,
    reasons: Mapping[str, int],
    examples: Sequence[str],
    advice: str,
    *,
    listed: bool,
    enough_labels: bool,
) -> NoReturn:
    """Stops a job with too many rejects, or with nothing else."""
    every = sum(reasons.values()) == read
    rejects = read if every else _unintended(reasons)
    by_reason = ", ".join(f"{n:,} {reason}" for reason, n in sorted(reasons.items(), key=lambda item: -item[1]))
    first = "".join(f"\n    {example}" for example in examples)
    if every:
        raise DataError(
            f"every one of the {read:,} rows is a reject ({by_reason}):{first}",
            todo=advice or f"check data.delimiter, {data.input_setting} and {data.label_setting} against these rows",
        )
    correct = "correct them; rejects.parquet lists each" if listed else "correct them"
    raise DataError(
        f"{rejects:,} of {read:,} rows ({rejects / read:.1%}) are rejects ({by_reason}):{first}",
        expected=f"at most {data.max_reject_fraction:.1%} (data.max_reject_fraction)",
        todo=(advice or correct)
        # With one label alone the rows that are left would be refused as well.
        + f"; to go on without them: {set_option('data.max_reject_fraction', _fraction_above(rejects / read))}"
        * enough_labels,
    )


def _refuse_labels(data: DataSpec, clean: int, labels: Sequence[str], labelled: int) -> None:
    """Stops a job whose clean rows have one label only or none, or almost as many as there are rows.

    Args:
        data: the settings that the rows were read with.
        clean: clean rows.
        labels: label names.
        labelled: rows that have the label, if there is one only.
    """
    if not labels:
        raise DataError(
            f"none of the {clean:,} rows has a label",
            expected="two or more labels, some rows each",
            todo="check data.label_column, data.label_delimiter and data.where",
        )
    if len(labels) == 1 and data.label_columns:
        column = {"data.label_column": data.label_columns[0], "data.labels_in": "one", "data.label_columns": []}
        raise DataError(
            f"there is one label column, {spelled.quoted(data.label_columns[0])}",
            expected="two or more label columns",
            todo="name more columns, or predict whether it is 0 or 1: "
            + " ".join(set_option(key, value) for key, value in column.items()),
        )
    if len(labels) == 1 and labelled < clean:
        one_of_two = {"data.task": "auto", "data.labels_in": "one"}
        raise DataError(
            f"{labelled:,} of {clean:,} rows have the only label, {spelled.quoted(labels[0])}; the others have none",
            expected="two or more label names",
            todo="to predict whether a text has it or, with an empty cell, not: "
            + " ".join(
                [*(set_option(key, value) for key, value in one_of_two.items()), _named_if_empty(data, labels[0])]
            ),
        )
    if len(labels) == 1:
        raise DataError(
            f"all {clean:,} rows have one label, {spelled.quoted(labels[0])}",
            expected="two or more labels",
            todo="check data.label_column, data.label_map and data.where",
        )
    if len(labels) > _MANY_LABELS and len(labels) > clean / 2:
        raise DataError(
            f"column {data.label_column!r} holds {len(labels):,} different labels in {clean:,} rows, "
            f"like {', '.join(repr(label[:40]) for label in list(labels)[:3])}",
            expected="a few labels, many rows each",
            todo="it may be an id, a number or a text: set data.label_column",
        )


def refuse_empty_splits(
    data: DataSpec, split: SplitSpec, labels: Sequence[str], class_counts: Mapping[str, Sequence[int]]
) -> None:
    """Stops a run in which a label has no training rows, or a split has no rows.

    Args:
        data: the settings that the rows were read with.
        split: the shares of the splits.
        labels: label names in id order.
        class_counts: split name -> rows of each class, in id order.

    Raises:
        DataError: it names the labels, or the split.
    """
    if empty := [label for label, count in zip(labels, class_counts["train"], strict=True) if count == 0]:
        raise DataError(
            f"no training rows for {spelled.named(empty)}",
            expected="at least one row of each label to train on",
            todo=f"add rows, or leave the label out: {spelled.without_labels(data, empty)}",
        )
    for name, counts in class_counts.items():
        if sum(counts) == 0:
            larger = _larger_shares(split, np.sum(list(class_counts.values()), axis=0))
            raise DataError(
                f"{sum(class_counts['train']):,} rows in all are too few: split.{name} gets none of them",
                todo="add rows" + (f", or {larger}" if larger else ""),
            )


def refuse_conflicts(data: DataSpec, read: int, reasons: Mapping[str, int]) -> None:
    """Stops a run of which too many rows are rejects once those with conflicting labels are.

    Args:
        data: the settings that the rows were read with.
        read: rows read.
        reasons: rejects by reason.

    Raises:
        DataError: their share is above `data.max_reject_fraction`.
    """
    rejects, conflicting = _unintended(reasons), reasons.get(Reason.CONFLICTING_LABELS, 0)
    if conflicting and rejects > data.max_reject_fraction * read:
        enough = set_option("data.max_reject_fraction", _fraction_above(rejects / read))
        raise DataError(
            f"{rejects:,} of {read:,} rows ({rejects / read:.1%}) are rejects, {conflicting:,} of them because their "
            "text has other labels in other rows",
            expected=f"at most {data.max_reject_fraction:.1%} (data.max_reject_fraction)",
            todo=f"correct them; conflicts.parquet lists each; to train without them: {enough}; to use the label of "
            f"the first of these rows: {set_option('data.on_conflict', 'first')}",
        )


def _larger_shares(split: SplitSpec, class_sizes: np.ndarray) -> str:
    """The --set options with which every split has rows; "" if there are none.

    Args:
        split: the shares.
        class_sizes: int64 [C], rows of each class.
    """
    larger = [hundredths / 100 for hundredths in range(5, 100, 5)]
    for val, test in product([split.val, *larger], [split.test, *larger]):
        cuts = rounded_shares(class_sizes, split.model_copy(update={"val": val, "test": test}))
        if val + test < 1 and cuts[:, 0].any() and (cuts[:, 1] > cuts[:, 0]).any():
            changed = {"val": val} if val != split.val else {}
            changed |= {"test": test} if test != split.test else {}
            return " ".join(set_option(f"split.{name}", share) for name, share in changed.items())
    return ""


def refuse_reserved(data: DataSpec, task: Task, labels: Sequence[str], min_precision: float | None) -> None:
    """Stops a run in which a label has the name of an answer that is no label.

    Args:
        data: the settings that the rows were read with.
        task: what is predicted; knows these names.
        labels: label names.
        min_precision: `calibration.min_precision`.

    Raises:
        DataError: it names the label, what its name means as a prediction, and the setting that renames it.
    """
    abstains = min_precision is not None
    reserved = {name: meaning for name, meaning in task.reserved_names(abstains).items() if name in labels}
    if not reserved:
        return
    others = {name: _free_name(f"label {name}", labels) for name in reserved}
    renamed = [set_option("data.label_map", merged_map(data.label_map, others))]
    if data.labels is not None:
        renamed.append(set_option("data.labels", [others.get(name, name) for name in data.labels]))
    todo = f"rename the label: {' '.join(renamed)}"
    if abstains and not any(name in labels for name in task.reserved_names(False)):
        todo += f"; or never abstain: {set_option('calibration.min_precision', None)}"
    named = ", and a label ".join(f"has the name {name!r}, which {meaning}" for name, meaning in reserved.items())
    raise DataError(f"a label {named}", todo=todo)


def _free_name(name: str, labels: Sequence[str]) -> str:
    """The name, with an underscore for each label that has it already."""
    while name in labels:
        name += "_"
    return name


def warnings(
    data: DataSpec,
    labels: Sequence[str],
    counts: Mapping[str, int],
    conflicts: tuple[int, Sequence[str]],
    tokens: Mapping[str, Any],
    spellings: Spellings | None = None,
) -> list[str]:
    """What the user should know about rows that can be used, one sentence each.

    Args:
        data: the settings that the rows were read with.
        labels: label names.
        counts: clean rows by label name.
        conflicts: (number of texts that have several labels, FILE:LINE of the first few).
        tokens: statistics of token lengths, from `RowSummary.token_lengths`.
        spellings: rows by spelling of the cells that settings name.
    """
    found = spelled.spelling_warnings(data, counts, spellings or Spellings()) + several_labels_warnings(data, counts)
    if rare := [
        f"{spelled.quoted(label)} ({counts.get(label, 0)})" for label in labels if counts.get(label, 0) < _FEW_ROWS
    ]:
        found.append(f"fewer than {_FEW_ROWS} rows: {spelled.first_few(rare)}; expect low scores for them")
    number, locations = conflicts
    if number:
        found.append(
            f"{number:,} texts have several labels, the first at {', '.join(locations)}; "
            f"{_CONFLICTS_BECOME[data.on_conflict]}"
        )
    if tokens.get("unknown_fraction", 0.0) >= MANY_UNKNOWN:
        found.append(
            f"{tokens['unknown_fraction']:.0%} of the tokens are [UNK], which the model's vocabulary lacks; choose a "
            "model.pretrained whose vocabulary has the language of the texts"
        )
    return found


def _where(data: DataSpec) -> str:
    """The filters, for messages."""
    named = [f"data.where {column} in {list(values)}" for column, values in data.where.items()]
    return " and ".join(
        named + [f"data.where_not {column} in {list(values)}" for column, values in data.where_not.items()]
    )


def _fraction_above(share: float) -> float:
    """The share, rounded up to three decimals."""
    return min(1.0, math.ceil(share * 1000) / 1000)
