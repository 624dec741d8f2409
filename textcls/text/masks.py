"""The kinds of personal data that are masked, and masking for people.

In: a `TextSpec`; a text. Out: the kinds that are masked, in the order in which they are replaced; the text with a
placeholder in place of each value. Not here: the patterns themselves (mask_shapes.py) and their check digits
(mask_checks.py); masking for the model, which is a part of the tokenizer (normalizer.py).

The model and people read different things. For the model, whatever has the shape of an identifier is masked: a number
that is masked in vain costs little, one that is seen may be remembered. People read files to find mistakes, where a
number that is no identifier should stay: there the check digits decide, for kinds that have any.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import regex

from textcls.settings.mask_patterns import placeholder_of, portable
from textcls.settings.recipe import TextSpec
from textcls.text import mask_checks, mask_shapes
from textcls.text.invisible import Joined, holds_invisible, pattern_within
from textcls.text.mask_needs import NEEDS, Searches, digits_in

PSEUDONYM_DIGITS = 16
"""Hexadecimal digits of a keyed pseudonym, such as `[EMAIL:0123456789abcdef]`, which `textcls mask --keyed` writes."""

BEFORE_OWN = ("url", "email", "iban")
"""Kinds that are replaced before own patterns: a pattern such as `E\\d{6}` would find its own in the midst of them."""

_PSEUDONYM = regex.compile(rf"(\[[A-Z][A-Z0-9_]*:[0-9a-f]{{{PSEUDONYM_DIGITS}}}\])")
_PRIVATE_USE = range(0xE000, 0xF900)


@dataclass(frozen=True)
class MaskKind:
    """One kind of personal data.

    Attributes:
        name: as in `text.mask` or `text.mask_patterns`.
        placeholder: what replaces a value, such as `[EMAIL]`.
        pattern: a regular expression with the same meaning in Oniguruma (`tokenizers.Regex`) and in `regex`.
        confirmed: whether the check digits of a value are right; None for a kind without any.
    """

    name: str
    placeholder: str
    pattern: str
    confirmed: Callable[[str], bool] | None = None

    @property
    def pseudonym(self) -> str:
        """The pattern of its keyed pseudonyms, which the model reads as its placeholder."""
        return rf"\[{self.placeholder[1:-1]}:[0-9a-f]{{{PSEUDONYM_DIGITS}}}\]"


def _kind(name: str, pattern: str, confirmed: Callable[[str], bool] | None = None) -> MaskKind:
    return MaskKind(name, placeholder_of(name), pattern, confirmed)


# In the order in which they are replaced: what could be taken for a part of something else comes after it.
KINDS: dict[str, MaskKind] = {
    kind.name: kind
    for kind in (
        _kind("url", mask_shapes.URL),
        _kind("email", mask_shapes.EMAIL),
        _kind("iban", mask_shapes.IBAN, mask_checks.is_iban),
        _kind("ip", mask_shapes.IP),
        _kind("cn_id", mask_shapes.CN_ID, mask_checks.is_cn_id),
        _kind("card", mask_shapes.CARD, mask_checks.is_card),
        _kind("cn_mobile", mask_shapes.CN_MOBILE),
        _kind("phone", mask_shapes.PHONE),
        _kind("cn_plate", mask_shapes.CN_PLATE),
        _kind("passport", mask_shapes.PASSPORT),
        _kind("number", mask_shapes.NUMBER),
    )
}


def mask_kinds(spec: TextSpec) -> tuple[MaskKind, ...]:
    """The kinds that the settings mask, in the order of replacement.

    Own patterns come after what they could tear, `BEFORE_OWN`, and before all other kinds; `number` is the last. One
    that could tear a placeholder of these comes before them.
    """
    kinds = [kind for kind in KINDS.values() if kind.name in spec.mask]
    first = [kind for kind in kinds if kind.name in BEFORE_OWN]
    own = [_kind(name, portable(pattern)) for name, pattern in spec.mask_patterns.items()]
    early = [kind for kind in own if any(regex.search(kind.pattern, one.placeholder) for one in first)]
    return (*early, *first, *(kind for kind in own if kind not in early), *kinds[len(first) :])


class Masker:
    """Callable: text -> the text masked for people.

    A kind with check digits is masked only where they are right. What they are wrong for may still be of another kind,
    such as `number`. Invisible characters within a value are replaced with it; all others stay.

    Args:
        kinds: what is masked, in the order of replacement.
    """

    def __init__(self, kinds: Sequence[MaskKind]) -> None:
        # For each kind: its pattern, and searches for what it needs; None if that is not known.
        self._steps = [(kind, regex.compile(kind.pattern), _searches(kind)) for kind in kinds]
        self._within = regex.compile(pattern_within(tuple(kind.pattern for kind in kinds)))

    def __call__(self, text: str) -> str:
        """The text with a placeholder in place of each value; keyed pseudonyms stay."""
        return self._substituted(text, lambda kind, value: kind.placeholder)

    def counts(self, text: str) -> dict[str, int]:
        """Name of a kind -> the values of it in the text; kinds without a value are left out."""
        found: dict[str, int] = {}

        def counted(kind: MaskKind, value: str) -> str:
            found[kind.name] = found.get(kind.name, 0) + 1
            return kind.placeholder

        self._substituted(text, counted)
        return found

    def replaced(self, text: str, by: Callable[[MaskKind, str], str]) -> str:
        """The text with something else in place of each value.

        What is masked does not depend on it: no kind looks into what has replaced another one.

        Args:
            text: any text.
            by: what replaces a value of a kind; the value has no invisible characters.
        """
        mark = next(char for char in map(chr, _PRIVATE_USE) if char not in text)
        values: dict[str, list[str]] = {}

        def marked(kind: MaskKind, value: str) -> str:
            name = f"{kind.placeholder[:-1]}{mark}]"
            values.setdefault(name, []).append(by(kind, value))
            return name

        masked = self._substituted(text, marked)
        for name, of_kind in values.items():  # in the order of the text, as they were found
            parts = masked.split(name)
            masked = "".join(part + value for part, value in zip(parts, [*of_kind, ""], strict=True))
        return masked

    def _substituted(self, text: str, by: Callable[[MaskKind, str], str]) -> str:
        if not self._steps:
            return text
        # Pseudonyms stay: no kind finds a number in one.
        parts = _PSEUDONYM.split(text)
        return "".join(part if place % 2 else self._of_part(part, by) for place, part in enumerate(parts))

    def _of_part(self, text: str, by: Callable[[MaskKind, str], str]) -> str:
        joined = Joined(text, self._within) if holds_invisible(text) else None
        text = text if joined is None else joined.text
        digits, ascii_only = digits_in(text), text.isascii()  # placeholders have none, and are in ASCII
        for kind, pattern, needed in self._steps:
            if needed and not any(digits >= one.digits and one.found(text, ascii_only=ascii_only) for one in needed):
                continue

            def replaced(match: "regex.Match[str]", kind: MaskKind = kind) -> str:
                value: str = match[0]
                return by(kind, value) if kind.confirmed is None or kind.confirmed(value) else value

            text = pattern.sub(replaced, text) if joined is None else joined.sub(pattern, replaced)
        return text if joined is None else joined.restored()


def _searches(kind: MaskKind) -> list[Searches] | None:
    """What a text needs for a kind to match; None for a pattern of one's own, which needs nothing that is known."""
    return [Searches.of(one) for one in NEEDS[kind.name]] if KINDS.get(kind.name) == kind else None


@functools.lru_cache(maxsize=8)
def masker_of(spec: TextSpec) -> Masker:
    """The masker of the settings, built once per process. It changes nothing where nothing is masked."""
    return Masker(mask_kinds(spec))
