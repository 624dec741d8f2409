"""The words of a text, as people read it, and which tokens each consists of.

In: a text as it was written, and the span of it that each token stands for. Out: the words, as spans of that text, and
the word of each token. Pure. Not here: tokenizing (tokenizer.py).

Words are found in the text itself and not in its tokens, so that they are the same for every tokenizer: runs of letters
and digits, with what joins them (don't, well-made, 10/10); single characters of the scripts that are written without
spaces, like Chinese; other signs, equal ones in a row together (!!!). Combining marks and the parts of an emoji stay
with the character before them. Where a token covers several words, as pieces of Chinese text do, they count as one.
What is masked, an identifier or its placeholder, is a word of its own, whatever its neighbours are.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import regex

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_RUN = rf"[[\p{{L}}\p{{M}}\p{{N}}_\u200c\u200d]--[{_UNSPACED}]]+"
_MARKS = r"[\p{M}\u200c\u200d]*"
_WORD = regex.compile(
    rf"[{_UNSPACED}]{_MARKS}|{_RUN}(?:(?:['’-]|(?<=\p{{N}})[.,:/](?=\p{{N}})){_RUN})*|(?![\s\x1c-\x1f])(\X)\1*",
    regex.V1,
)
_UNSPACED_ONLY = regex.compile(rf"(?:[{_UNSPACED}]{_MARKS})+", regex.V1)


class TextSpan(NamedTuple):
    """A part of an input.

    Attributes:
        text: index of the text among the input's segments: 0, or 1 for the second of a pair.
        start: code points of this text before the part.
        end: code points of this text up to the end of the part.
        masked: whether the model reads it as a placeholder: an identifier, or a placeholder that the text has.
    """

    text: int
    start: int
    end: int
    masked: bool = False


def words_of(segments: Sequence[str], tokens: Iterable[TextSpan]) -> tuple[list[TextSpan], dict[TextSpan, int]]:
    """(the words that have tokens, in order; the index of its word for each token).

    A token of white space alone belongs to the word after it.

    Args:
        segments: the texts of an input, as they were written.
        tokens: what each token stands for, in any order; equal spans are one token.
    """
    by_text: list[list[TextSpan]] = [[] for _ in segments]
    for token in set(tokens):
        by_text[token.text].append(token)
    words: list[TextSpan] = []
    word_of: dict[TextSpan, int] = {}
    for text, (written, own) in enumerate(zip(segments, by_text, strict=True)):
        masked = {(token.start, token.end) for token in own if token.masked}
        spans = _divided(written, sorted(masked))
        if not own or not spans:
            continue
        covered = {token: _covered(written, token, spans) for token in own}
        # Number of the group of each word: a token that covers several words joins them.
        joined = {word for first, last in covered.values() for word in range(first + 1, last + 1)}
        group, groups = -1, []
        for word in range(len(spans)):
            group += word not in joined
            groups.append(group)
        used = sorted({groups[first] for first, _ in covered.values()})
        place_of = {group: len(words) + place for place, group in enumerate(used)}
        for group in used:
            first, last = bisect_left(groups, group), bisect_right(groups, group) - 1
            words.append(TextSpan(text, spans[first][0], spans[last][1], first == last and spans[first] in masked))
        word_of |= {token: place_of[groups[first]] for token, (first, _) in covered.items()}
    return words, word_of


def _divided(written: str, masked: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(start, end) of all words of a text, in order, of which those that are masked are known."""
    spans: list[tuple[int, int]] = []
    place = 0
    for start, end in masked:
        spans += [found.span() for found in _WORD.finditer(written, place, start)]
        spans.append((start, end))
        place = end
    return spans + [found.span() for found in _WORD.finditer(written, place)]


def _covered(written: str, token: TextSpan, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(first, last) of the words that a token covers; at least one."""
    part = written[token.start : token.end]
    start = token.start + len(part) - len(part.lstrip())
    end = max(token.start + len(part.rstrip()), start)
    first = min(bisect_right(spans, start, key=lambda span: span[1]), len(spans) - 1)
    last = bisect_left(spans, end, key=lambda span: span[0]) - 1
    return first, max(first, last)


def runs_without_spaces(segments: Sequence[str], words: Sequence[TextSpan], keys: Sequence[object]) -> list[range]:
    """The words as they are shown: neighbours with equal keys in text that is written without spaces are one.

    Args:
        segments: the texts of an input, as they were written.
        words: from `words_of`.
        keys: of each word, like the sign of its effect.
    """

    def unspaced(word: TextSpan) -> bool:
        return _UNSPACED_ONLY.fullmatch(segments[word.text], word.start, word.end) is not None

    if not words:
        return []
    breaks = [
        i + 1
        for i, (one, other) in enumerate(pairwise(words))
        if (one.text, one.end) != (other.text, other.start)
        or keys[i] != keys[i + 1]
        or not (unspaced(one) and unspaced(other))
    ]
    return [range(start, stop) for start, stop in pairwise([0, *breaks, len(words)])]
