"""How the token ids of two texts become those of a pair: special tokens around them, token types, and the cut.

In: an encoded pair, as the tokenizers library gives it; later, the token ids of two texts. Out: the token ids of the
pair, and the place from which on they have token type 1. Pure. Not here: the tokenizer (tokenizer.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class EncodedPairs(NamedTuple):
    """N pairs of texts as token ids.

    Attributes:
        ids: at most `max_tokens` for each pair, special tokens included, without padding.
        seconds: int32 [N], the place in the ids from which on tokens have type 1; None if the model reads no types.
        counts: int32 [N], tokens of both texts before the cut, special tokens included.
        first_counts: int32 [N], tokens of the first text before the cut, without special tokens.
        second_counts: int32 [N], the same of the second text.
    """

    ids: list[list[int]]
    seconds: np.ndarray | None
    counts: np.ndarray
    first_counts: np.ndarray
    second_counts: np.ndarray


@dataclass(frozen=True)
class PairFrame:
    """The special tokens of a pair, in the order: before, first text, between, second text, after.

    Attributes:
        before: ids before the first text.
        between: ids between the texts.
        after: ids after the second text.
        first_type: how many tokens of `between` belong to the first text; None if all tokens have type 0.
    """

    before: list[int]
    between: list[int]
    after: list[int]
    first_type: int | None

    @classmethod
    def of(cls, ids: list[int], of_text: list[int | None], types: list[int]) -> "PairFrame":
        """The frame of an encoded pair of texts.

        Args:
            ids: of its tokens.
            of_text: for each, the index of its text; None for special tokens.
            types: for each, its token type.

        Raises:
            ValueError: see `InputTokenizer.frame`.
        """
        places = [i for text in (0, 1) for i, found in enumerate(of_text) if found == text]
        start, end = of_text.index(0), len(of_text) - of_text[::-1].index(0)
        second, after = of_text.index(1), len(of_text) - of_text[::-1].index(1)
        if places != [*range(start, end), *range(second, after)] or end > second:
            raise ValueError("it does not put the first text of a pair before the second")
        typed = types.index(1) if 1 in types else None
        expected = [0] * len(types) if typed is None else [0] * typed + [1] * (len(types) - typed)
        if types != expected or (typed is not None and not end <= typed <= second):
            raise ValueError(f"it gives the tokens of a pair the types {types}, not 0 in one part and 1 in the other")
        return cls(ids[:start], ids[end:second], ids[after:], None if typed is None else typed - end)

    @property
    def special_tokens(self) -> int:
        """How many tokens of a pair are of no text."""
        return len(self.before) + len(self.between) + len(self.after)

    def around(self, first: Sequence[int], second: Sequence[int]) -> list[int]:
        """The token ids of a pair, from those of its texts."""
        return [*self.before, *first, *self.between, *second, *self.after]

    def second(self, first: int, second: int) -> int:
        """The place from which on tokens have type 1, from the number of tokens of each text; the end without one."""
        if self.first_type is None:
            return first + second + self.special_tokens
        return len(self.before) + first + self.first_type


def longest_first(first: int, second: int, most: int) -> tuple[int, int]:
    """(tokens of the first, of the second text) that are kept of a pair: the longer one is cut until both are equal.

    As `truncate_encodings` of the tokenizers library, which transformers calls. 100 and 30 tokens with a limit of 60
    keep 30 and 30; 100 and 10 keep 50 and 10.

    Args:
        first: tokens of the first text.
        second: tokens of the second text.
        most: the limit for both.
    """
    if first + second <= most:
        return first, second
    shorter = min(first, second)
    longer = most - shorter
    if longer < shorter:
        shorter, longer = most // 2, most - most // 2
    return (longer, shorter) if first > second else (shorter, longer)
