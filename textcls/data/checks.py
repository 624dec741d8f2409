"""Is this data fit to train on? And if it is, what should the user still know?

In: counts. Out: a `DataError`, or warnings as sentences; a `--set` in either does what the sentence says. Pure.
Not here: reading, printing, cells that are spelled otherwise than they are meant (spellings.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from textcls.data import spellings as spelled
from textcls.data.spellings import Spellings
from textcls.data.split import cut_points
from textcls.errors import DataError
from textcls.settings.recipe import DataSpec, SplitSpec
from textcls.settings.yaml_text import set_option
from textcls.tasks.labels import ABSTAIN, merged_map

_FEW_ROWS = 10
_MANY_LABELS = 1000


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
    listed: bool = True,
) -> None:
    """Stops a run whose rows cannot be trained on.

    Args:
        data: the settings the rows were read with.
        read: rows read.
        outside_where: rows that `where` left out.
        reasons: rejects by reason.
        examples: a few rejects, as one line each.
        labels: label names of the clean rows.
        remedy: what to do about the rejects of a reason, as in remedies.py; empty if nothing but correcting them.
        spellings: how the cells are spelled that the settings name.
        listed: whether there is a rejects.parquet.

    Raises:
        DataError: no rows, every row a reject, too many rejects, one single label, a label for (almost) every row.
    """
    rejects = sum(reasons.values())
    shown = "".join(f"\n    {example}" for example in examples)
    most = ", ".join(f"{n:,} {reason}" for reason, n in sorted(reasons.items(), key=lambda item: -item[1]))
    most_common = max(reasons, key=lambda reason: reasons[reason], default="")
    if read == 0:
        if outside_where:
            raise DataError(
                f"none of the {outside_where:,} rows matches {_where(data)}",
                expected=spelled.cells_found(data, spellings or Spellings()),
                todo=spelled.where_that_matches(data, spellings or Spellings()),
            )
        raise DataError("the files hold a header and no row", expected="at least a few rows of each label")
    if rejects == read:
        raise DataError(
            f"every one of the {read:,} rows is a reject ({most}):{shown}",
            todo=remedy(most_common)
            or spelled.unknown_advice(data, reasons, spellings)
            or "check data.delimiter, data.text_columns and data.label_column against these rows",
        )
    if rejects > data.max_reject_fraction * read:
        correct = "correct them; rejects.parquet lists each" if listed else "correct them"
        raise DataError(
            f"{rejects:,} of {read:,} rows ({rejects / read:.1%}) are rejects ({most}):{shown}",
            expected=f"at most {data.max_reject_fraction:.1%} (data.max_reject_fraction)",
            todo=(remedy(most_common) or spelled.unknown_advice(data, reasons, spellings) or correct)
            + f"; if they may go: {set_option('data.max_reject_fraction', _fraction_above(rejects / read))}",
        )
    if len(labels) == 1:
        raise DataError(
            f"all {read - rejects:,} rows have one label, {spelled.shown(labels[0])}",
            expected="two or more labels",
            todo="check data.label_column, data.label_map and data.where",
        )
    if len(labels) > _MANY_LABELS and len(labels) > (read - rejects) / 2:
        raise DataError(
            f"column {data.label_column!r} holds {len(labels):,} different labels in {read - rejects:,} rows, "
            f"like {', '.join(repr(label[:40]) for label in list(labels)[:3])}",
            expected="a few labels, many rows each",
            todo="is it an id, a number or a text? set data.label_column",
        )


def refuse_empty_splits(
    data: DataSpec, split: SplitSpec, labels: Sequence[str], class_counts: Mapping[str, Sequence[int]]
) -> None:
    """Stops a run in which some label has nothing to learn from, or a split has no row at all.

    Args:
        data: the settings the rows were read with.
        split: the shares they were divided by.
        labels: label names.
        class_counts: split name -> rows of each class, in id order.

    Raises:
        DataError: names the labels, or the split.
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


def _larger_shares(split: SplitSpec, class_sizes: np.ndarray) -> str:
    """The --set under which each split has a row; empty if there is none.

    Args:
        split: the shares.
        class_sizes: int64 [C], rows by class.
    """
    larger = [hundredths / 100 for hundredths in range(5, 100, 5)]
    for val, test in product([split.val, *larger], [split.test, *larger]):
        cuts = cut_points(class_sizes, split.model_copy(update={"val": val, "test": test}))
        if val + test < 1 and cuts[:, 0].any() and (cuts[:, 1] > cuts[:, 0]).any():
            changed = {"val": val} if val != split.val else {}
            changed |= {"test": test} if test != split.test else {}
            return " ".join(set_option(f"split.{name}", share) for name, share in changed.items())
    return ""


def refuse_reserved(data: DataSpec, labels: Sequence[str], min_precision: float | None) -> None:
    """Stops a run of which an answer `abstain` would mean two things.

    Args:
        data: the settings the rows were read with.
        labels: label names.
        min_precision: `calibration.min_precision`.

    Raises:
        DataError: there is a label `abstain`, and the classifier may abstain.
    """
    if min_precision is None or ABSTAIN not in labels:
        return
    other = ABSTAIN + "ed"
    while other in labels:
        other += "_"
    renamed = [set_option("data.label_map", merged_map(data.label_map, {ABSTAIN: other}))]
    if data.labels is not None:
        renamed.append(set_option("data.labels", [other if name == ABSTAIN else name for name in data.labels]))
    raise DataError(
        f"a label is called {ABSTAIN!r}, which with calibration.min_precision is the answer to a text that is "
        "not sure enough",
        todo=f"rename the label: {' '.join(renamed)}; or always answer: "
        f"{set_option('calibration.min_precision', None)}",
    )


def warnings(
    data: DataSpec,
    labels: Sequence[str],
    counts: Mapping[str, int],
    conflicts: tuple[int, Sequence[str]],
    tokens: Mapping[str, Any],
    spellings: Spellings | None = None,
    on_long: str = "truncate",
) -> list[str]:
    """What the user should know though the run goes on, one sentence each.

    Args:
        data: the settings the rows were read with.
        labels: label names.
        counts: clean rows by label name.
        conflicts: (number of texts under two labels, places of the first few).
        tokens: length statistics, from `RowSummary.token_lengths`.
        spellings: how the cells are spelled that the settings name.
        on_long: `text.on_long`.
    """
    found = spelled.spelling_warnings(data, counts, spellings or Spellings())
    if rare := [
        f"{spelled.shown(label)} ({counts.get(label, 0)})" for label in labels if counts.get(label, 0) < _FEW_ROWS
    ]:
        found.append(f"fewer than {_FEW_ROWS} rows: {spelled.first_few(rare)}; expect little of them")
    number, places = conflicts
    if number:
        found.append(f"{number:,} texts stand under two labels, the first at {', '.join(places)}")
    if tokens["truncated_fraction"] > 0.1:
        found.append(
            f"{tokens['truncated_fraction']:.0%} of the rows exceed text.max_tokens {tokens['max_tokens']} and "
            "are cut in training; a higher limit, up to the model's own, sees more and costs more"
            + (
                f"; {set_option('text.on_long', 'windows')} scores all of a text in use"
                if on_long == "truncate"
                else ""
            )
        )
    return found


def _where(data: DataSpec) -> str:
    """The filters as the user reads them."""
    named = [f"data.where {column} in {list(values)}" for column, values in data.where.items()]
    return " and ".join(
        named + [f"data.where_not {column} in {list(values)}" for column, values in data.where_not.items()]
    )


def _fraction_above(share: float) -> float:
    """The share, rounded up to three digits behind the point."""
    return min(1.0, math.ceil(share * 1000) / 1000)
