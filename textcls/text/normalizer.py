"""The one normalizer of texts: hashing, duplicates, the split, the baseline and the model all use this object.

In: a `TextSpec`. Out: a `tokenizers` normalizer, which `prepare_tokenizer` writes into `tokenizer.json`, and a callable
that applies the same object to single texts. Not here: the pretrained tokenizer's own normalizer, which follows this
one in `tokenizer.json`; when two rows are duplicates (text_input.py).
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from textcls.settings.recipe import TextSpec
from textcls.text.mask_steps import as_normalizers, flat, form_steps, found_in, steps_of

# Characters that are probed: the Basic Multilingual Plane beyond ASCII, without the surrogates, and the emoji.
_PROBED = (range(0x80, 0xD800), range(0xE000, 0x10000), range(0x1F000, 0x20000))
_LAST_MARK = "\u0345"  # of the highest combining class: every other mark moves before it
_UNASSIGNED = "Cn"  # in Python's version of Unicode
_CAPITAL_SIGMA = "Σ"  # str.lower() makes ς of it at the end of a word, and σ elsewhere


def build_normalizer(spec: TextSpec) -> Any:
    """The `tokenizers.normalizers.Sequence` of the text settings; it has no step if they ask for none.

    Masks come after the Unicode form, which makes digits of other characters, and before the lower case, which takes
    from some identifiers what they are known by.
    """
    from tokenizers import normalizers

    lowercase = [normalizers.Lowercase()] if spec.lowercase else []
    return normalizers.Sequence([*form_steps(spec.unicode_form), *as_normalizers(steps_of(spec)), *lowercase])


class TextNormalizer:
    """Callable: text -> normalized text, exactly as the `tokenizers` normalizer gives it.

    The normalizer itself takes 40 to 60 us for 1,000 characters, because it records where each character came from.
    Python's own functions take 0.6 us for ASCII and 8 us for other text, the check included. They run where they
    cannot differ, as probed on the normalizer itself: on texts of characters that both treat alike. The two know
    different versions of Unicode, and differ on a final sigma. All other texts go through the normalizer. Of its steps
    that mask, a text goes through those that may change it, and then on as any other text.

    Args:
        normalizer: a `tokenizers.normalizers.Sequence`.
    """

    def __init__(self, normalizer: Any) -> None:
        from tokenizers import normalizers

        masks = found_in(normalizer)
        self._mask: Callable[[str], str] = str
        if masks is not None:
            masking, rest = masks
            self._mask = masking
            normalizer = normalizers.Sequence([*form_steps(masking.form), *rest])
        self._normalize: Callable[[str], str] = normalizer.normalize_str
        steps = _python_steps(normalizer)
        self._by_python = _composed(steps or [])
        agrees = (self._by_python(one) == self._normalize(one) for one in map(chr, range(128)))
        self._ascii_agrees = steps is not None and all(agrees)

    def __call__(self, text: str) -> str:
        """The normalized text.

        Raises:
            UnicodeEncodeError: the text holds half of a surrogate pair.
        """
        text = self._mask(text)
        if self._ascii_agrees and (text.isascii() or self._agreeing.fullmatch(text)):
            return self._by_python(text)
        return self._normalize(text)

    @functools.cached_property
    def _agreeing(self) -> re.Pattern[str]:
        """Matches texts on which Python's functions cannot differ; probing takes 0.1 s, once per process."""
        characters = [one for one in map(chr, chain(*_PROBED)) if unicodedata.category(one) != _UNASSIGNED]
        # Each after a mark, so that a version of Unicode shows which does not know it as a mark; and with its partner.
        probes = [*(_LAST_MARK + one for one in characters), *_composing_pairs()]
        lines = "\n".join(probes)  # one call for all: no step acts across the ends of lines
        found, expected = (of(lines).split("\n") for of in (self._by_python, self._normalize))
        differing = {_CAPITAL_SIGMA}.union(*(p for p, by, to in zip(probes, found, expected, strict=True) if by != to))
        agreeing = [ord(one) for one in characters if one not in differing]
        return re.compile(f"[\\x00-\\x7f{_character_ranges(agreeing)}]*")


def _composed(steps: Sequence[Callable[[str], str]]) -> Callable[[str], str]:
    """One function that takes the steps in order."""
    if not steps:
        return str
    *earlier, last = steps
    if not earlier:
        return last
    first = _composed(earlier)
    return lambda text: last(first(text))


def _python_steps(normalizer: Any) -> list[Callable[[str], str]] | None:
    """Python's functions for the steps of a normalizer; None if a step has none."""
    from tokenizers import normalizers

    known: dict[type, Callable[[str], str]] = {
        normalizers.NFC: functools.partial(unicodedata.normalize, "NFC"),
        normalizers.NFKC: functools.partial(unicodedata.normalize, "NFKC"),
        normalizers.Lowercase: str.lower,
    }
    found = [known.get(type(step)) for step in flat(normalizer)]
    return [step for step in found if step is not None] if None not in found else None


def _composing_pairs() -> list[str]:
    """The pairs of characters that may compose to one, after the Unicode Character Database."""
    parts = [unicodedata.decomposition(chr(code)).split() for code in chain(*_PROBED)]
    return [chr(int(one[0], 16)) + chr(int(one[1], 16)) for one in parts if len(one) == 2 and one[0][0] != "<"]


def _character_ranges(codes: Sequence[int]) -> str:
    """Ascending code points as the inside of a character class of a regular expression."""
    starts = [code for code, before in zip(codes, (-1, *codes), strict=False) if code != before + 1]
    ends = [code for code, after in zip(codes, (*codes[1:], -1), strict=True) if code != after - 1]
    return "".join(f"\\U{start:08x}-\\U{end:08x}" for start, end in zip(starts, ends, strict=True))


@functools.lru_cache(maxsize=8)
def normalizer_of(spec: TextSpec) -> TextNormalizer:
    """The normalizer of the text settings, built and probed once per process."""
    return TextNormalizer(build_normalizer(spec))
