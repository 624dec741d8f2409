"""A text with the words that speak for or against a label, as parts that a page can mark.

In: the texts of an input, and the effect of each of its words. Out: parts in the order of the text, and the words by
falling effect. Not here: computing effects (inference/), HTML (pages/words.html).

A long text with many words would make a page that no browser opens: only the strongest words are marked, and what is
far from all of them is left out, with its length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

MOST_MARKED = 40
"""Words of a text that are marked."""
MOST_LISTED = 15
"""Words that the table below a text lists."""

LEAST_EFFECT = 0.1
"""Of the strongest word, for it to be marked as such: this much on the logit moves a score of 0.5 to 0.525."""

_STEPS = 4
# Characters that are shown around a marked word, and at the beginning of a text.
_AROUND = 100
_LONGEST_WORD = 200


class Span(Protocol):
    """A place in a text."""

    @property
    def text(self) -> int:
        """Which text of the input: 0, or 1 for the second of a pair."""

    @property
    def start(self) -> int:
        """Where it begins in that text, in code points."""

    @property
    def end(self) -> int:
        """Where it ends."""


class HasEffect(Span, Protocol):
    """The effect of one word on the logit of a label."""

    @property
    def effect(self) -> float:
        """On the logit; a positive effect speaks for the label."""


@dataclass(frozen=True)
class Part:
    """A piece of a text.

    Attributes:
        text: the characters; of a part that is left out, none.
        effect: on the logit of the label; None if the piece is no word with an effect.
        step: 0 to 4, by the strength of the effect beside the strongest one, or `LEAST_EFFECT` if that is weaker; the
            page does not mark a word of step 0.
        score_without: the label's probability without this word, if it was computed.
        left_out: characters that are not shown here.
        unread: whether the model did not read it.
    """

    text: str
    effect: float | None = None
    step: int = 0
    score_without: float | None = None
    left_out: int = 0
    unread: bool = False


def marked(texts: Sequence[str], words: Sequence[HasEffect], unseen: Sequence[Span] = ()) -> list[list[Part]]:
    """The parts of each text, in order; words that lie outside their text, or overlap another, are not marked.

    Args:
        texts: of an input.
        words: that have an effect.
        unseen: the ends of texts that the model did not read.
    """
    strongest, most = _strongest(texts, words, MOST_MARKED)
    found = []
    for i, text in enumerate(texts):
        own = sorted((word for word in strongest if word.text == i), key=lambda word: word.start)
        read = min((max(span.start, 0) for span in unseen if span.text == i), default=len(text))
        found.append([*_parts(text[:read], own, most), *_unread(text[read:])])
    return found


def ranked(texts: Sequence[str], words: Sequence[HasEffect]) -> list[Part]:
    """The words with the strongest effects, the strongest one first; none that lies outside its text."""
    strongest, most = _strongest(texts, words, MOST_LISTED)
    return [_part(texts[word.text], word, most) for word in strongest]


def _strongest(texts: Sequence[str], words: Sequence[HasEffect], number: int) -> tuple[list[HasEffect], float]:
    """(so many words by falling strength, the greatest strength); a text may have been cut, and its words not.

    Below `LEAST_EFFECT` the greatest is this: what is next to nothing must not look as if it had decided the answer.
    """
    inside = [
        word
        for word in words
        if word.effect and word.text < len(texts) and 0 <= word.start < word.end <= len(texts[word.text])
    ]
    found = sorted(inside, key=lambda word: -abs(word.effect))[:number]
    return found, max(LEAST_EFFECT, abs(found[0].effect) if found else 0.0)


def _parts(text: str, words: Sequence[HasEffect], most: float) -> Iterator[Part]:
    at = 0
    for word in words:
        if word.start < at:
            continue
        yield from _between(text[at : word.start], begins=at == 0, ends=False)
        yield _part(text, word, most)
        at = word.end
    yield from _between(text[at:], begins=at == 0, ends=True)


def _unread(text: str) -> Iterator[Part]:
    """The end of a text that the model did not read: whole if it is short, else its beginning."""
    shown = len(text) if len(text) <= 2 * _AROUND else _AROUND
    if text:
        yield Part(text[:shown], unread=True)
    if shown < len(text):
        yield Part("", left_out=len(text) - shown, unread=True)


def _between(text: str, *, begins: bool, ends: bool) -> Iterator[Part]:
    """What lies between two marked words: whole if it is short, else its ends."""
    head, tail = 2 * _AROUND if begins else _AROUND, 0 if ends else _AROUND
    if len(text) <= head + tail + _AROUND:
        if text:
            yield Part(text)
        return
    yield Part(text[:head])
    yield Part("", left_out=len(text) - head - tail)
    if tail:
        yield Part(text[-tail:])


def _part(text: str, word: HasEffect, most: float) -> Part:
    shown = text[word.start : word.end]
    if len(shown) > _LONGEST_WORD:
        shown = shown[:_LONGEST_WORD] + "…"
    return Part(shown, word.effect, round(_STEPS * abs(word.effect) / most), getattr(word, "score_without", None))
