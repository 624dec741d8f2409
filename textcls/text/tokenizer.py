"""Inputs -> token ids: the one definition that training, batch jobs and HTTP use, through the files of a bundle.

In: the files of a tokenizer; inputs. Out: token ids, and their number before truncation. Not here: the files
(tokenizer_files.py), the normalizer (normalizer.py), the layout of a pair (pair_frame.py), padding
(modeling/batching.py), reading CSV (data/rows.py).
"""

import functools
import os
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from textcls.text.pair_frame import EncodedPairs, PairFrame, longest_first
from textcls.text.placeholders import MaskedEncoding, typed_from
from textcls.text.text_input import TextInput
from textcls.text.tokenizer_files import TokenizerFiles
from textcls.text.windows import overlap_of
from textcls.text.words import TextSpan

# A prime number: samples take their ordinary tokens from all parts of the vocabulary.
_STRIDE = 7919
# A character for private use: no vocabulary has it.
_UNKNOWN = "\U000f1234"
# Texts of which any tokenizer knows one.
_PROBES = ("a", "1", ".", "中")


class InputTokenizer:
    """Turns inputs into token ids.

    Not thread-safe: the Rust tokenizer refuses concurrent calls.

    Args:
        files: the tokenizer, from `prepare_tokenizer` or a bundle.
        on_long: `TextSpec.on_long`; the windows of a long text overlap only if they are all used.
        of_pairs: whether inputs are pairs; decides what `sample` and `special_tokens` are.
    """

    def __init__(self, files: TokenizerFiles, *, on_long: str = "truncate", of_pairs: bool = False) -> None:
        from tokenizers import Tokenizer

        overlap = overlap_of(files.max_tokens) if on_long == "windows" else 0
        self._tokenizer = Tokenizer.from_str(files.tokenizer_json)
        self._encode = MaskedEncoding(self._tokenizer)
        self._tokenizer.enable_truncation(files.max_tokens, stride=overlap)
        self._overlap = overlap
        self.of_pairs = of_pairs
        self.special_tokens = int(self._tokenizer.num_special_tokens_to_add(of_pairs))
        self._repeated = self.special_tokens + overlap
        self.max_tokens = files.max_tokens
        self._special_ids = {files.pad_id, *self._tokenizer.get_added_tokens_decoder()}
        self.padding_token = str(self._tokenizer.id_to_token(files.pad_id))
        self._token_types = files.token_types
        self.unknown_id = _unknown_id(self._tokenizer)

    def __call__(self, inputs: Sequence[TextInput]) -> tuple[list[list[int]], np.ndarray]:
        """(token ids, token counts) of inputs, in order.

        Token ids hold at most `max_tokens`, special tokens included, without padding. A token count (int32) is the
        number before the cut: the input was truncated if the count is above `max_tokens`.
        """
        encoded = self._encoded(inputs)
        return [one.ids for one in encoded], self._counts(encoded)

    def windows(self, inputs: Sequence[TextInput]) -> tuple[list[list[list[int]]], np.ndarray]:
        """(token ids of each window, token counts) of inputs, in order; an input within the limit is one window."""
        encoded = self._encoded(inputs)
        return [[part.ids for part in (one, *one.overflowing)] for one in encoded], self._counts(encoded)

    def unknown(self, windows: Sequence[Sequence[int]]) -> int:
        """How many tokens of an input's windows stand for something that the vocabulary lacks, each counted once.

        Texts as bytes, as RoBERTa's kind reads them, have no such tokens.
        """
        if self.unknown_id is None:
            return 0
        # A further window begins with a special token and the tokens that it shares with the one before.
        found = [ids if i == 0 else ids[1 + self._overlap :] for i, ids in enumerate(windows)]
        return sum(ids.count(self.unknown_id) for ids in found)

    def pairs(self, inputs: Sequence[TextInput]) -> EncodedPairs:
        """Pairs of texts, in order, each cut to `max_tokens` as `longest_first` says.

        Raises:
            ValueError: see `frame`.
        """
        frame, pairs = self.frame, len(inputs)
        first_texts, second_texts = [one.segments[0] for one in inputs], [one.segments[1] for one in inputs]
        texts = self._uncut_ids([*first_texts, *second_texts])
        counts = np.fromiter(map(len, texts), np.int32, 2 * pairs).reshape(2, pairs)
        ids, seconds = [], []
        for first_ids, second_ids in zip(texts[:pairs], texts[pairs:], strict=True):
            first, second = longest_first(len(first_ids), len(second_ids), self.max_tokens - frame.special_tokens)
            ids.append(frame.around(first_ids[:first], second_ids[:second]))
            seconds.append(frame.second(first, second))
        return EncodedPairs(
            ids,
            np.array(seconds, np.int32) if self._token_types else None,
            counts.sum(axis=0, dtype=np.int32) + np.int32(frame.special_tokens),
            *counts,
        )

    def spans(self, inputs: Sequence[TextInput]) -> list[list[list[TextSpan | None]]]:
        """What each token of inputs stands for, in the texts as they were written; None for special tokens.

        The parts of an input are those of `windows`. Of a pair they are the tokens that `pairs` keeps, and the tokens
        of both texts that it cuts.

        Raises:
            ValueError: see `frame`.
        """
        if not self.of_pairs:
            single = [one.text for one in inputs]
            encoded = self._encode.located(single)
            return [self._spans_of(0, *both) for both in zip(single, encoded, strict=True)]
        frame = self.frame
        segments = [segment for one in inputs for segment in one.segments]
        uncut = zip(segments, self._uncut(segments, self._encode.located), strict=True)
        texts = [self._spans_of(i % 2, *both)[0] for i, both in enumerate(uncut)]
        parts = []
        for first, second in zip(texts[::2], texts[1::2], strict=True):
            kept = longest_first(len(first), len(second), self.max_tokens - frame.special_tokens)
            ends = ([None] * len(frame.before), [None] * len(frame.between), [None] * len(frame.after))
            seen = [*ends[0], *first[: kept[0]], *ends[1], *second[: kept[1]], *ends[2]]
            parts.append([seen, [*first[kept[0] :], *second[kept[1] :]]])
        return parts

    @functools.cached_property
    def frame(self) -> PairFrame:
        """What the tokenizer puts around the texts of a pair.

        Raises:
            ValueError: it does more than that, or gives other token types than BERT's.
        """
        for word in _PROBES:
            pair = self._tokenizer.encode(word, word)
            if {0, 1} <= set(pair.sequence_ids):
                return PairFrame.of(pair.ids, pair.sequence_ids, pair.type_ids)
        raise ValueError(f"it finds no token in any of the texts {', '.join(_PROBES)}")

    def sample(self, length: int) -> list[int]:
        """Token ids of an artificial input: the special tokens of every input, and ordinary tokens between them.

        The tokens are taken by id, because no word is sure to be in the vocabulary.

        Args:
            length: the number of token ids, more than `special_tokens`; for pairs by at least 2.
        """
        ordinary = self._ordinary_ids
        within = [ordinary[i * _STRIDE % len(ordinary)] for i in range(length - self.special_tokens)]
        if self.of_pairs:
            first = len(within) // 2
            return self.frame.around(within[:first], within[first:])
        frame = self._tokenizer.encode("").ids
        return [*frame[:1], *within, *frame[1:]]

    def sample_second(self, length: int) -> int | None:
        """The place in `sample(length)` from which on tokens have type 1; None if the model reads no types."""
        if not self.of_pairs or not self._token_types:
            return None
        within = length - self.special_tokens
        return self.frame.second(within // 2, within - within // 2)

    @functools.cached_property
    def _ordinary_ids(self) -> list[int]:
        """Ids of all tokens that are not special, ascending."""
        known = set(self._tokenizer.get_vocab(with_added_tokens=True).values())
        return sorted(known - self._special_ids) or sorted(known)

    @property
    def highest_id(self) -> int:
        """The highest token id of the vocabulary."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def _encoded(self, inputs: Sequence[TextInput]) -> Sequence[Any]:
        return self._encode.fast([one.text for one in inputs])

    def _uncut_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of whole texts, each by itself, without special tokens."""
        return [one.ids for one in self._uncut(texts, self._encode.fast)]

    def _uncut(self, texts: Sequence[str], encode: Any) -> list[Any]:
        """Whole texts as a method of `MaskedEncoding` encodes them, each by itself, without special tokens."""
        self._tokenizer.no_truncation()
        try:
            return list(encode(texts, add_special_tokens=False))
        finally:
            self._tokenizer.enable_truncation(self.max_tokens, stride=self._overlap)

    def _spans_of(self, index: int, text: str, encoded: Any) -> list[list[TextSpan | None]]:
        """What the tokens of each window of a text stand for, if they are of the text, which has this index."""
        parts, masked = (encoded, *encoded.overflowing), self._encode.placeholder_ids
        origins = {} if masked.isdisjoint(chain.from_iterable(one.ids for one in parts)) else self._encode.origins(text)

        def span(id_: int, ends: tuple[int, int], own: int | None) -> TextSpan | None:
            if own is None:
                return None
            start, end = ends
            if id_ not in masked:
                return TextSpan(index, start, end)
            return TextSpan(index, origins[end] if end in origins else typed_from(text, start, end), end, masked=True)

        return [list(map(span, one.ids, one.offsets, one.sequence_ids)) for one in parts]

    def _counts(self, encoded: Sequence[Any]) -> np.ndarray:
        return np.fromiter(
            (len(one.ids) + sum(len(rest.ids) - self._repeated for rest in one.overflowing) for one in encoded),
            np.int32,
            len(encoded),
        )


def _unknown_id(tokenizer: Any) -> int | None:
    """The id that stands for what the vocabulary lacks; None if every text is spelled in known tokens."""
    try:
        found = tokenizer.model.tokenize(_UNKNOWN)
    except Exception:  # tokenizers raises bare Exception where a vocabulary of whole words has no such token
        return None
    # Several tokens spell the bytes of the character.
    return int(found[0].id) if len(found) == 1 else None


@functools.lru_cache(maxsize=2)
def tokenizer_of(files: TokenizerFiles, on_long: str = "truncate") -> InputTokenizer:
    """The tokenizer of these files, built once per process (parsing takes 0.1 s)."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # Ray runs a task on each core
    return InputTokenizer(files, on_long=on_long)
