"""The placeholders of masks as tokens: one token each, in any tokenizer.

In: a tokenizer whose normalizer masks. Out: the same with the placeholders' tokens; encoded texts, and which part of a
text each placeholder stands for. Not here: the steps that mask (mask_steps.py), the rows of new tokens in the
embeddings (modeling/build.py).

Usual added tokens are found before the normalizer, where no text has a placeholder yet. These are found after it, in
what it makes of their names, such as "[email]". A placeholder that a user types is the same token, and says no more.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from textcls.errors import ModelError
from textcls.settings.recipe import TextSpec
from textcls.text.mask_steps import MaskSteps, as_normalizers, flat, form_steps, found_in, is_mask
from textcls.text.masks import mask_kinds

# A placeholder alone, between letters, between words, in text without spaces, and beside another.
_AROUND = ("{0}", "a{0}a", "a {0} a", "中{0}中", "{0}{0}", " {0}.")

# What it may begin with: NFKC makes the first of the others.
_OPENING = "[\uff3b\ufe47"


def without_masks(normalizer: Any) -> Any:
    """A normalizer without the steps that mask, as a bundle has them that is trained again; None for None."""
    from tokenizers import normalizers

    if not isinstance(normalizer, normalizers.Sequence):
        return normalizer
    steps = [without_masks(step) for step in flat(normalizer)]
    return normalizers.Sequence([step for step in steps if not is_mask(json.loads(step.__getstate__()))])


def add_placeholders(backend: Any, spec: TextSpec, directory: str) -> tuple[int, ...]:
    """Adds a token for each placeholder of the text settings; returns the ids of those that the vocabulary lacked.

    Args:
        backend: the tokenizer, with the normalizer that masks.
        spec: text settings.
        directory: of the pretrained model, for messages.

    Raises:
        ModelError: the tokenizer cannot have such tokens.
    """
    from tokenizers import AddedToken

    placeholders = [kind.placeholder for kind in mask_kinds(spec)]
    before = backend.get_vocab_size(with_added_tokens=True)
    new = [one for one in dict.fromkeys(placeholders) if backend.token_to_id(one) is None]
    # White space before it belongs to the token, as before RoBERTa's <mask>: no tokenizer makes a token of it.
    backend.add_tokens([AddedToken(one, normalized=True, special=False, lstrip=True) for one in placeholders])
    for placeholder in placeholders:
        _check(backend, placeholder, directory)
    assert backend.get_vocab_size(with_added_tokens=True) == before + len(new)
    return tuple(backend.token_to_id(one) for one in new)


def placeholder_ids(spec: TextSpec, tokenizer_json: str | None) -> dict[str, int]:
    """Kind that is masked -> token id of its placeholder, or -1 without a `tokenizer.json`."""
    kinds = mask_kinds(spec)
    added = json.loads(tokenizer_json)["added_tokens"] if kinds and tokenizer_json is not None else []
    ids = {token["content"]: int(token["id"]) for token in added}
    return {kind.name: ids.get(kind.placeholder, -1) for kind in kinds}


def _check(backend: Any, placeholder: str, directory: str) -> None:
    own, name = backend.token_to_id(placeholder), placeholder[1:-1]
    texts = [(around.format(placeholder), around.count("{0}")) for around in _AROUND]
    for text, times in (*texts, (f"{name} {name.lower()}", 0)):
        found = backend.encode(text, add_special_tokens=False)
        if found.ids.count(own) != times:
            raise ModelError(
                f"{directory}: its tokenizer makes {found.tokens} of {text!r}, in which {placeholder} "
                f"{'stands for what is masked' if times else 'does not occur'}",
                expected="a tokenizer whose normalizer leaves brackets, capital or small letters and _ as they are",
                todo="choose another model.pretrained, or --set text.mask=[] and mask the texts before",
            )


def typed_from(text: str, start: int, end: int) -> int:
    """Where a placeholder that a text itself has begins, in code points.

    Args:
        text: as it was written.
        start: where its token begins, as a tokenizer says: with the white space before it, or with the character before
            it in a script without spaces.
        end: where its token ends.
    """
    return max(start, *(text.rfind(bracket, start, end) for bracket in _OPENING))


class MaskedEncoding:
    """Encodes texts as a tokenizer does whose normalizer masks, in less time; a tokenizer that does not, as it is.

    The steps that mask are taken from the tokenizer. A text goes through those that may change it, and then through the
    rest of the normalizer as any other. Added tokens that are found before the normalizer divide a text, so that an
    identifier is not sought across them: a text with one of these goes through the normalizer as it was.

    Args:
        tokenizer: of a `tokenizer.json`; nothing else may encode texts with it.

    Attributes:
        placeholder_ids: of the tokens that stand for what is masked.
    """

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import normalizers

        self._tokenizer = tokenizer
        self._masks: MaskSteps | None = None
        self.placeholder_ids: frozenset[int] = frozenset()
        if (found := found_in(tokenizer.normalizer)) is None:
            return
        self._masks, rest = found
        added = tokenizer.get_added_tokens_decoder()
        self._undivided = [token for token in added.values() if not token.normalized]
        self._divides = re.compile("|".join(re.escape(token.content) for token in self._undivided) or "(?!)")
        placeholders = {step.placeholder for step in self._masks.steps}
        self.placeholder_ids = frozenset(id_ for id_, token in added.items() if token.content in placeholders)
        self._finders: dict[int, Any] = {}
        self._whole = tokenizer.normalizer
        self._rest = normalizers.Sequence([*form_steps(self._masks.form), *rest])
        tokenizer.normalizer = self._rest

    def fast(self, texts: Sequence[str], **options: Any) -> list[Any]:
        """As `encode_batch_fast` of the tokenizer, which does not say where a token comes from."""
        if self._masks is None:
            return list(self._tokenizer.encode_batch_fast(texts, **options))
        taken, divides = self._masks.taken, self._divides.search
        needed = [self._masks.needed(text) for text in texts]
        masked = [taken(places, text) if places else text for places, text in zip(needed, texts, strict=True)]
        encoded = list(self._tokenizer.encode_batch_fast(masked, **options))
        # NFKC makes such a token of full-width characters, which the normalizer by itself does too late.
        divided = [i for i, places in enumerate(needed) if places and (divides(texts[i]) or divides(masked[i]))]
        if divided:
            again = self._by_itself(self._tokenizer.encode_batch_fast, [texts[i] for i in divided], options)
            for i, one in zip(divided, again, strict=True):
                encoded[i] = one
        return encoded

    def located(self, texts: Sequence[str], **options: Any) -> list[Any]:
        """As `encode_batch` of the tokenizer."""
        return self._by_itself(self._tokenizer.encode_batch, texts, options)

    def _by_itself(self, encode: Any, texts: Sequence[str], options: dict[str, Any]) -> list[Any]:
        if self._masks is None:
            return list(encode(texts, **options))
        self._tokenizer.normalizer = self._whole
        try:
            return list(encode(texts, **options))
        finally:
            self._tokenizer.normalizer = self._rest

    def origins(self, text: str) -> dict[int, int]:
        """End of each part of a text that is masked -> its start, in code points.

        A tokenizer says of a placeholder only where the last character of what it replaced ends.
        """
        if (masks := self._masks) is None:
            return {}
        found: dict[int, int] = {}
        for place in masks.needed(text):
            matches = self._finder(masks, place).encode(text)
            found |= {end: start for (start, end), id_ in zip(matches.offsets, matches.ids, strict=True) if id_ == 0}
        return found

    def _finder(self, masks: MaskSteps, place: int) -> Any:
        """A tokenizer whose tokens with id 0 are what a step replaces."""
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

        if place not in self._finders:
            finder = Tokenizer(models.WordLevel({"?": 0}, "?"))
            finder.normalizer = normalizers.Sequence([*form_steps(masks.form), *as_normalizers(masks.steps[:place])])
            finder.pre_tokenizer = pre_tokenizers.Split(Regex(masks.steps[place].pattern), "removed", invert=True)
            finder.add_tokens(self._undivided)
            self._finders[place] = finder
        return self._finders[place]
