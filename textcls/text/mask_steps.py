"""Masking as a part of the tokenizer: steps of its normalizer, and which of them a text needs.

In: text settings, or the normalizer of a `tokenizer.json`. Out: the steps that replace identifiers by placeholders, and
`MaskSteps`, which takes them where they can change a text. Not here: the patterns (masks.py), the other steps
(normalizer.py), placeholders as tokens (placeholders.py).

The steps take half as long as the rest of a tokenizer. Most texts hold few digits, no @ and no address, and few of the
patterns can match in them: `MaskSteps` takes only the steps of these. What a pattern needs is known for the kinds of
masks.py alone, by the very pattern; a step with any other pattern is always taken.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from textcls.settings.recipe import TextSpec
from textcls.text.invisible import holds_invisible, is_pattern_within, pattern_within
from textcls.text.mask_needs import NEEDS, Needs, Searches, digits_in
from textcls.text.masks import KINDS, PSEUDONYM_DIGITS, mask_kinds

_PSEUDONYMS = re.compile(r"\(\?<=\\\[[A-Z_|\\\[]+\):\[0-9a-f\]\{16\}\(\?=\\\]\)")
_PLACEHOLDER = re.compile(r"\[[A-Z_]+\]")
_KELVIN = "\u212a"


_NONE = (Needs(),)
_OF_PSEUDONYMS = (Needs(0, (":[0-9a-f]{16}",)),)


class MaskStep(NamedTuple):
    """A step of a normalizer that masks.

    Attributes:
        pattern: what it replaces, for Oniguruma.
        placeholder: by what; "" for invisible characters and the digits of keyed pseudonyms.
    """

    pattern: str
    placeholder: str


def form_steps(form: str) -> list[Any]:
    """The step for `TextSpec.unicode_form`; none for "none"."""
    from tokenizers import normalizers

    forms = {"NFC": normalizers.NFC, "NFKC": normalizers.NFKC}
    return [forms[form]()] if form in forms else []


def steps_of(spec: TextSpec) -> list[MaskStep]:
    """The steps of the text settings, in order.

    The first removes invisible characters within identifiers, the second makes placeholders of keyed pseudonyms.
    """
    kinds = mask_kinds(spec)
    if not kinds:
        return []
    # All in one step, and before any kind finds a number in a pseudonym: only its digits go.
    before = "|".join(rf"\[{kind.placeholder[1:-1]}" for kind in kinds)
    pseudonyms = MaskStep(rf"(?<={before}):[0-9a-f]{{{PSEUDONYM_DIGITS}}}(?=\])", "")
    within = MaskStep(pattern_within(tuple(kind.pattern for kind in kinds)), "")
    return [within, pseudonyms, *(MaskStep(kind.pattern, kind.placeholder) for kind in kinds)]


def as_normalizers(steps: Sequence[MaskStep]) -> list[Any]:
    """The steps as the tokenizers library takes them."""
    from tokenizers import Regex, normalizers

    return [normalizers.Replace(Regex(step.pattern), step.placeholder) for step in steps]


def found_in(normalizer: Any) -> tuple["MaskSteps", list[Any]] | None:
    """(the steps that mask, the steps after them) of a normalizer that `prepare_tokenizer` or `build_normalizer` made.

    None if it masks nothing.
    """
    steps = flat(normalizer)
    content = [json.loads(step.__getstate__()) for step in steps]
    form = content[0]["type"] if content and content[0]["type"] in ("NFC", "NFKC") else "none"
    first = last = len(form_steps(form))
    while last < len(steps) and is_mask(content[last]):
        last += 1
    if first == last:
        return None
    masks = [MaskStep(one["pattern"]["Regex"], one["content"]) for one in content[first:last]]
    return MaskSteps(form, masks), steps[last:]


def flat(normalizer: Any) -> list[Any]:
    """The steps of a normalizer, or the normalizer itself as the only one; [] for None."""
    from tokenizers import normalizers

    if isinstance(normalizer, normalizers.Sequence):
        return [normalizer[i] for i in range(len(normalizer))]
    return [] if normalizer is None else [normalizer]


def is_mask(content: dict[str, Any]) -> bool:
    """Whether a step, as `tokenizer.json` has it, is one of `steps_of`."""
    if content["type"] != "Replace" or (pattern := content["pattern"].get("Regex")) is None:
        return False
    placeholder: str = content["content"]
    if placeholder:
        return _PLACEHOLDER.fullmatch(placeholder) is not None
    return is_pattern_within(pattern) or _PSEUDONYMS.fullmatch(pattern) is not None


class MaskSteps:
    """Callable: text -> text with placeholders.

    It begins with the Unicode form if it takes a step, and with it gives what the normalizer does after its last step
    that masks; what follows that in the normalizer makes the same of both.

    Args:
        form: `TextSpec.unicode_form`, the step before them.
        steps: in order.

    Attributes:
        form: as given.
        steps: as given.
    """

    def __init__(self, form: str, steps: Sequence[MaskStep]) -> None:
        known = {KINDS[name].pattern: needs for name, needs in NEEDS.items()}
        known |= {step.pattern: _OF_PSEUDONYMS for step in steps if _PSEUDONYMS.fullmatch(step.pattern)}
        self.form, self.steps = form, tuple(steps)
        self._needs = [[Searches.of(one) for one in known.get(step.pattern, _NONE)] for step in steps]
        self._every = tuple(range(len(self.steps)))
        # Bundles of earlier versions remove no invisible characters.
        self._within = tuple(place for place in self._every if is_pattern_within(self.steps[place].pattern))
        self._normalizers: dict[tuple[int, ...], Any] = {}

    def __call__(self, text: str) -> str:
        """The text with placeholders; the text itself if no step can change it."""
        places = self.needed(text)
        return self.taken(places, text) if places else text

    def needed(self, text: str) -> tuple[int, ...]:
        """The places of the steps that may change a text, ascending."""
        if self._within and holds_invisible(text):
            joined = self.taken(self._within, text)
            if joined != text:
                return tuple(sorted({*self._within, *self._that_may_match(joined)}))
        return self._that_may_match(text)

    def _that_may_match(self, text: str) -> tuple[int, ...]:
        digits, ascii_only = digits_in(text), text.isascii()
        # NFKC makes digits, letters and signs of other characters, NFC one letter of one other.
        if not ascii_only and (self.form == "NFKC" or _KELVIN in text):
            return self._every
        return tuple(
            place
            for place, needs in enumerate(self._needs)
            if place not in self._within
            and any(digits >= one.digits and one.found(text, ascii_only=ascii_only) for one in needs)
        )

    def taken(self, places: tuple[int, ...], text: str) -> str:
        """The text after the Unicode form and the steps at these places."""
        if (normalizer := self._normalizers.get(places)) is None:
            normalizer = self._normalizers[places] = self._normalizer(places)
        masked: str = normalizer.normalize_str(text)
        return masked

    def _normalizer(self, places: Sequence[int]) -> Any:
        from tokenizers import normalizers

        steps = as_normalizers([self.steps[place] for place in places])
        return normalizers.Sequence([*form_steps(self.form), *steps])
