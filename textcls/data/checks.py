"""Is this data fit to train on? And if it is, what should the user still know?

In: counts. Out: a `DataError`, or warnings as sentences. Pure; not here: reading, printing.
"""

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from textcls.errors import DataError
from textcls.labels import lookalikes
from textcls.recipe import DataSpec

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
                f"none of the {outside_where:,} rows matches data.where {_where(data)}",
                todo="check the column and its values; --set data.where={} takes all rows",
            )
        raise DataError("the files hold a header and no row", expected="at least a few rows of each label")
    if rejects == read:
        raise DataError(
            f"every one of the {read:,} rows is a reject ({most}):{shown}",
            todo=remedy(most_common)
            or "check data.delimiter, data.text_columns and data.label_column against these rows",
        )
    if rejects > data.max_reject_fraction * read:
        raise DataError(
            f"{rejects:,} of {read:,} rows ({rejects / read:.1%}) are rejects ({most}):{shown}",
            expected=f"at most {data.max_reject_fraction:.1%} (data.max_reject_fraction)",
            todo=f"{remedy(most_common) or 'correct them; rejects.parquet lists each'}; if they may go: "
            f"--set data.max_reject_fraction={min(1.0, math.ceil(rejects / read * 1000) / 1000)}",
        )
    if len(labels) == 1:
        raise DataError(
            f"all {read - rejects:,} rows have one label, {labels[0]!r}",
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


def refuse_empty_splits(labels: Sequence[str], class_counts: Mapping[str, Sequence[int]]) -> None:
    """Stops a run in which some label has nothing to learn from, or a split has no row at all.

    Args:
        labels: label names.
        class_counts: split name -> rows of each class, in id order.

    Raises:
        DataError: names the labels, or the split.
    """
    if empty := [label for label, count in zip(labels, class_counts["train"], strict=True) if count == 0]:
        raise DataError(
            f"no training rows for {', '.join(map(repr, empty))}",
            expected="at least one row of each label to train on",
            todo="add rows, or take the label out of data.labels",
        )
    for split, counts in class_counts.items():
        if sum(counts) == 0:
            raise DataError(
                f"{sum(class_counts['train']):,} rows in all are too few: split.{split} gets none of them",
                todo=f"add rows, or raise split.{split}",
            )


def warnings(
    labels: Sequence[str], counts: Mapping[str, int], conflicts: tuple[int, Sequence[str]], tokens: Mapping[str, Any]
) -> list[str]:
    """What the user should know though the run goes on, one sentence each.

    Args:
        labels: label names.
        counts: clean rows by label name.
        conflicts: (number of texts under two labels, places of the first few).
        tokens: length statistics, from `BlockSummary.tokens`.
    """
    found = [
        f"labels {' and '.join(map(repr, group))} differ only by case or spaces; "
        f"if they are one, map them: --set {_label_map(group)}"
        for group in lookalikes(labels)
    ]
    if rare := [f"{label!r} ({counts.get(label, 0)})" for label in labels if counts.get(label, 0) < _FEW_ROWS]:
        shown = ", ".join(rare[:10]) + (f" and {len(rare) - 10} more" if len(rare) > 10 else "")
        found.append(f"fewer than {_FEW_ROWS} rows: {shown}; expect little of them")
    number, places = conflicts
    if number:
        found.append(f"{number:,} texts stand under two labels, the first at {', '.join(places)}")
    if tokens["truncated_fraction"] > 0.1:
        found.append(
            f"{tokens['truncated_fraction']:.0%} of the rows are longer than text.max_tokens {tokens['max_tokens']} "
            "and are cut; a higher limit sees more and costs more"
        )
    return found


def _where(data: DataSpec) -> str:
    return ", ".join(f"{column} in {list(values)}" for column, values in data.where.items())


def _label_map(group: Sequence[str]) -> str:
    """A --set that maps a group of names to its last one, quoted for a shell; JSON is YAML."""
    content = json.dumps(dict.fromkeys(group[:-1], group[-1]), ensure_ascii=False)
    return shlex.quote(f"data.label_map={content}")
