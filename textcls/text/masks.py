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

from textcls.settings.mask_patterns import placeholder_of
from textcls.settings.recipe import TextSpec
from textcls.text import mask_checks, mask_shapes


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


def _kind(name: str, pattern: str, confirmed: Callable[[str], bool] | None = None) -> MaskKind:
    return MaskKind(name, placeholder_of(name), pattern, confirmed)


# In the order in which they are replaced: what could be taken for a part of something else comes after it.
KINDS: dict[str, MaskKind] = {
    kind.name: kind
    for kind in (
        _kind("url", mask_shapes.URL),
        _kind("email", mask_shapes.EMAIL),
        _kind("ip", mask_shapes.IP),
        _kind("iban", mask_shapes.IBAN, mask_checks.is_iban),
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
    """The kinds that the settings mask, in the order of replacement: own patterns first, `number` last."""
    own = (_kind(name, pattern) for name, pattern in spec.mask_patterns.items())
    return (*own, *(kind for kind in KINDS.values() if kind.name in spec.mask))


class Masker:
    """Callable: text -> the text masked for people.

    A kind with check digits is masked only where they are right. What they are wrong for may still be of another kind,
    such as `number`.

    Args:
        kinds: what is masked, in the order of replacement.
    """

    def __init__(self, kinds: Sequence[MaskKind]) -> None:
        self._steps = [(kind, regex.compile(kind.pattern)) for kind in kinds]

    def __call__(self, text: str) -> str:
        """The text with a placeholder in place of each value."""
        return self._masked(text, {})

    def counts(self, text: str) -> dict[str, int]:
        """Name of a kind -> the values of it in the text; kinds without a value are left out."""
        found: dict[str, int] = {}
        self._masked(text, found)
        return found

    def _masked(self, text: str, found: dict[str, int]) -> str:
        for kind, pattern in self._steps:

            def replaced(match: "regex.Match[str]", kind: MaskKind = kind) -> str:
                value: str = match[0]
                if kind.confirmed is not None and not kind.confirmed(value):
                    return value
                found[kind.name] = found.get(kind.name, 0) + 1
                return kind.placeholder

            text = pattern.sub(replaced, text)
        return text


@functools.lru_cache(maxsize=8)
def masker_of(spec: TextSpec) -> Masker:
    """The masker of the settings, built once per process. It changes nothing where nothing is masked."""
    return Masker(mask_kinds(spec))
