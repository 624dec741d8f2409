"""Explanations of predictions as one HTML page.

In: rows with their texts and, for each, the explanations of its labels. Out: HTML as a string, see `page_template.py`.
Not here: computing explanations (inference/explain.py), which words are marked (marked_words.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from textcls.reporting.marked_words import LEAST_EFFECT, HasEffect, Span, marked, ranked
from textcls.reporting.page_template import MOST_BYTES, template

# For the head of the page, its style included, and what stands below the rows.
_FRAME_BYTES = 40_000
_MOST_LABELS = 10


class LabelExplanation(Protocol):
    """Why one label has its score: `inference.explain.Explanation` is one."""

    @property
    def label(self) -> str:
        """The label that is explained."""

    @property
    def method(self) -> str:
        """ "leave_one_out" or "integrated_gradients"."""

    @property
    def score(self) -> float:
        """The label's probability."""

    @property
    def logit(self) -> float:
        """The label's logit."""

    @property
    def words(self) -> Sequence[HasEffect]:
        """The words with their effects on the logit."""

    @property
    def unseen(self) -> Sequence[Span]:
        """What the model did not read."""

    @property
    def rest(self) -> float:
        """The effect of what is no word: [CLS] and [SEP]."""

    @property
    def remainder(self) -> float | None:
        """What the method could not assign to any token."""


@dataclass(frozen=True)
class ExplainedRow:
    """A row of the page.

    Attributes:
        file: name of the file the row is from.
        line: line number in it.
        texts: the user's own text, or both texts of a pair.
        explanations: one for each label that was asked for.
        truth: the labels of the row in the file; None if the file has no labels.
        error: why there is no explanation.
        unknown_tokens: how many of the tokens that the model read stand for something that its vocabulary lacks.
    """

    file: str
    line: int
    texts: Sequence[str]
    explanations: Sequence[LabelExplanation] = ()
    truth: Sequence[str] | None = None
    error: str | None = None
    unknown_tokens: int = 0


def explanation_page(
    rows: Iterable[ExplainedRow], *, title: str, about: Sequence[tuple[str, str]] = (), total_rows: int | None = None
) -> str:
    """A page of at most 400 KB that marks the words of each text that speak for or against its label.

    The page marks the 40 strongest words of a text by colour, underline and weight, shows each word's change in score
    where the pointer rests, and lists the 15 strongest ones in a table. Rows that would make it too large are left out
    from the end, and it says how many. Equal arguments give the same bytes: encode the result as UTF-8.

    Args:
        rows: in the order of the page; taken only until the page is full.
        title: of the page, such as "Explanations of runs/a/bundle".
        about: facts for the head of the page, such as ("method", "leave one word out").
        total_rows: rows there are in all, which may be more than `rows` yields. Left out: the number of `rows`.
    """
    one_row = template("words.html").module.row  # type: ignore[attr-defined]  # a macro of the template
    blocks: list[str] = []
    size, taken, full = _FRAME_BYTES, 0, False
    for row in rows:
        taken += 1
        if full:
            if total_rows is not None:
                break
            continue
        block = one_row(_row(row, len(blocks)))
        size += len(block.encode())
        full = size > MOST_BYTES
        if not full:
            blocks.append(block)
    left_out = max((taken if total_rows is None else total_rows) - len(blocks), 0)
    return template("explanations.html").render(title=title, about=about, blocks=blocks, left_out=left_out)


def _row(row: ExplainedRow, place: int) -> dict[str, Any]:
    """A row as the template reads it."""
    shown = row.explanations[:_MOST_LABELS]
    return {
        "id": f"row-{place + 1}",
        "file": row.file,
        "line": row.line,
        "truth": row.truth,
        "error": row.error,
        "unknown_tokens": row.unknown_tokens,
        "texts": [] if shown else marked(row.texts, ()),
        "explanations": [_explanation(row, one) for one in shown],
        "labels_left_out": len(row.explanations) - len(shown),
    }


def _explanation(row: ExplainedRow, one: LabelExplanation) -> dict[str, Any]:
    return {
        "label": one.label,
        "score": one.score,
        "logit": one.logit,
        "rest": one.rest,
        "remainder": one.remainder,
        "of_gradients": one.method == "integrated_gradients",
        "texts": marked(row.texts, one.words, one.unseen),
        "unread": sum(span.end - span.start for span in one.unseen),
        "ranked": ranked(row.texts, one.words),
        "words": len(one.words),
        "weak": strongest
        if 0 < (strongest := max((abs(w.effect) for w in one.words), default=0)) < LEAST_EFFECT
        else None,
    }
