"""Invisible characters within identifiers, such as a zero-width space in the middle of a card number.

In: the patterns of what is masked; a text. Out: a pattern that finds invisible characters between characters of
identifiers; the text without these, in which values are replaced as if it were the text itself. Not here: the step of
the tokenizer that removes them (mask_steps.py).

Between letters, digits and signs of identifiers they are not seen, and say nothing. Elsewhere they do: in Persian and
Hindi they shape words, and they join emoji. So they are removed nowhere else.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

from textcls.settings.pattern_tree import Chars, Look, Node, parsed, parts_of

# Of Unicode 17: the category Cf, such as soft hyphens and marks of direction; what else DerivedCoreProperties.txt lists
# as Default_Ignorable_Code_Point, such as variation selectors; and control characters that are no white space. BERT's
# normalizer deletes most of them, so that its model reads what is on both sides as one.
_RANGES = (
    *((0x00, 0x08), (0x0E, 0x1F), (0x7F, 0x84), (0x86, 0x9F), (0xAD, 0xAD), (0x34F, 0x34F), (0x600, 0x605)),
    *((0x61C, 0x61C), (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2), (0x115F, 0x1160)),
    *((0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164)),
    *((0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB), (0x110BD, 0x110BD), (0x110CD, 0x110CD)),
    *((0x13430, 0x1343F), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
)
INVISIBLE = str(Chars(_RANGES))
"""A character class, the same in Oniguruma, `regex` and `re`."""

_BRACKETS = ((0x5B, 0x5B), (0x5D, 0x5D))  # a placeholder counts as the value that it stands for
_PRINTED = (0x20, 0x7E)
# To Cyrillic; Latin and Greek with marks; full width: scripts of which nothing invisible shapes the words.
_WITHOUT_SHAPES = (range(0x531), range(0x1D00, 0x2070), range(0xFF01, 0xFF5F))
_ALEF, _KO_KAI = 0x627, 0xE01  # letters of Arabic and Thai, of which it does
_MOST_OF_A_SCRIPT = 3000
_JAMO = range(0x1100, 0x1200)  # Unicode's normal forms compose these, and marks, with what precedes them
_ANY = re.compile(INVISIBLE)
_SEEN = bytes(code for code in range(0x80) if not _ANY.match(chr(code)))
_ASCII = re.compile(r"[\x00-\x7f]+")
_WITHIN = re.compile(r"(\[[^\]]+\])\(\?<=\[.+\]\1\)\(\?>\1\*\)\(\?=\[.+\]\)", re.DOTALL)


@functools.lru_cache(maxsize=8)
def pattern_within(patterns: tuple[str, ...]) -> str:
    """The pattern of invisible characters between two characters that can be part of what these patterns match.

    Of sets that do not list their characters, such as `\\w`, `.` and `[^@]`, those of ASCII count, and all digits. Of
    the letters of all scripts, which addresses can consist of, those of Latin, Greek and Cyrillic count.
    """
    sets = [one for pattern in patterns for one in _consumed(parsed(pattern))]
    ranges = {pair for one in sets if not one.negated for pair in _of_scripts_without_shapes(one.ranges)}
    unlisted = any(one.negated or one.categories for one in sets)
    more = (*_BRACKETS, *((_PRINTED,) if unlisted else ()), *_without_marks(ranges))
    ids = parsed(str(Chars(more, ("\\d",) if unlisted else ())))  # which merges the ranges
    # In this order Oniguruma skips to the first invisible character; none is read twice, however many there are.
    return f"{INVISIBLE}(?<={ids}{INVISIBLE})(?>{INVISIBLE}*)(?={ids})"


def is_pattern_within(pattern: str) -> bool:
    """Whether a pattern is one of `pattern_within`, perhaps of another version of textcls."""
    return _WITHIN.fullmatch(pattern) is not None


def holds_invisible(text: str) -> bool:
    """Whether a text holds an invisible character; takes 2 us for 1,000 characters of English, 25 of Chinese."""
    if text.encode("ascii", "ignore").translate(None, _SEEN):
        return True
    return not text.isascii() and _ANY.search(_ASCII.sub("", text)) is not None


class Joined:
    """A text without the invisible characters within identifiers.

    Args:
        text: any text.
        within: the compiled `pattern_within`.

    Attributes:
        text: the text without them, and with what `sub` has replaced.
    """

    def __init__(self, text: str, within: Any) -> None:
        self._original = text
        removed = {place for match in within.finditer(text) for place in range(*match.span())}
        # Of each character: start and end in the original.
        self._spans = [(place, place + 1) for place in range(len(text)) if place not in removed]
        self.text = "".join(text[start] for start, _ in self._spans)

    def sub(self, pattern: Any, by: Callable[[Any], str]) -> str:
        """Replaces the matches of a compiled pattern, as `pattern.sub` does; returns the new text."""
        parts, spans, last = list[str](), list[tuple[int, int]](), 0
        for match in pattern.finditer(self.text):
            replaced = by(match)
            if replaced == match[0]:
                continue
            start, end = self._spans[match.start()][0], self._spans[match.end() - 1][1]
            parts += [self.text[last : match.start()], replaced]
            spans += [*self._spans[last : match.start()], *[(start, start)] * (len(replaced) - 1), (start, end)]
            last = match.end()
        self.text = "".join([*parts, self.text[last:]])
        self._spans = [*spans, *self._spans[last:]]
        return self.text

    def restored(self) -> str:
        """The text with the invisible characters again that are in no replaced value."""
        parts, place = list[str](), 0
        for char, (start, end) in zip(self.text, self._spans, strict=True):
            parts += [self._original[place:start], char]
            place = max(place, end)
        return "".join([*parts, self._original[place:]])


def _consumed(node: Node) -> Iterator[Chars]:
    """The sets of characters that a pattern matches, without those of look-arounds."""
    if isinstance(node, Chars):
        yield node
    elif not isinstance(node, Look):
        for part in parts_of(node):
            yield from _consumed(part)


def _of_scripts_without_shapes(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """The ranges of a set; of the letters of all scripts, those of which nothing invisible shapes the words."""
    shaped = any(first <= one <= last for first, last in ranges for one in (_ALEF, _KO_KAI))
    if not shaped or sum(last - first for first, last in ranges) < _MOST_OF_A_SCRIPT:
        return ranges
    return tuple(pair for pair in ranges if any(pair[0] in block for block in _WITHOUT_SHAPES))


def _without_marks(ranges: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges without what is invisible itself, and without what is composed with the character before."""
    for first, last in ranges:
        kept = [code for code in range(first, last + 1) if _stands_alone(code)]
        starts = [code for code, before in zip(kept, [-1, *kept], strict=False) if code != before + 1]
        ends = [code for code, after in zip(kept, [*kept[1:], -1], strict=False) if code != after - 1]
        yield from zip(starts, ends, strict=True)


def _stands_alone(code: int) -> bool:
    char = chr(code)
    return unicodedata.category(char)[0] != "M" and code not in _JAMO and _ANY.match(char) is None
