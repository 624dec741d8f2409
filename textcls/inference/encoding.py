"""Inputs -> what the model sees of them, or why it cannot see them.

In: a prepared tokenizer, the text settings, inputs. Out: an `Encoded` for each input, in the order given.
Not here: token ids in general (text/tokenizer.py), running the model (classifier.py, embeddings.py).
"""

import threading
from collections.abc import Sequence
from typing import NamedTuple

from textcls.text.text_input import TextInput
from textcls.text.tokenizer import InputTokenizer
from textcls.text.tokenizer_files import TokenizerFiles
from textcls.text.words import TextSpan

_NO_TOKEN = "has no character that the model knows; a word is needed"


class ItemError(NamedTuple):
    """Why one text has no scores; its neighbours are not affected.

    Attributes:
        code: `empty_text`, `not_unicode`, `text_too_long`, or in serving `scoring_failed`; `pair_needed` or
            `pair_not_taken` if the bundle reads the other kind of input.
        message: what was found and what was expected.
    """

    code: str
    message: str


class Encoded(NamedTuple):
    """One text as the model sees it.

    Attributes:
        windows: token ids of each window; one window unless the bundle's `text.on_long` is `windows`; none on an error.
        tokens: tokens of the whole text, before any cut, special tokens included.
        truncated: whether some of them are in no window.
        error: why it cannot be scored, or None.
        second: for a pair, the place in its window from which on tokens have type 1; None if the model reads no types.
        text_tokens: for a pair, the tokens of each text before any cut, without special tokens.
        unknown: tokens of the windows that stand for something that the vocabulary lacks, each counted once.
    """

    windows: Sequence[Sequence[int]]
    tokens: int
    truncated: bool
    error: ItemError | None = None
    second: int | None = None
    text_tokens: tuple[int, int] = (0, 0)
    unknown: int = 0

    @property
    def cost(self) -> int:
        """Tokens that the model runs for it."""
        return sum(map(len, self.windows))


class InputEncoder:
    """Encodes inputs by the text settings, each by itself: one that cannot be used spoils no other. Thread-safe.

    Args:
        files: the tokenizer.
        on_long: `TextSpec.on_long`.
        pairs: whether an input is a pair of texts.
    """

    def __init__(self, files: TokenizerFiles, *, on_long: str, pairs: bool) -> None:
        self.max_tokens, self.pairs = files.max_tokens, pairs
        self._on_long = on_long
        self.tokenizer = InputTokenizer(files, on_long=on_long, of_pairs=pairs)
        self._lock = threading.Lock()

    def __call__(self, inputs: Sequence[TextInput | str]) -> list[Encoded]:
        """Inputs as the model sees them, in the order given."""
        read = [TextInput(one) if isinstance(one, str) else one for one in inputs]
        outcomes: list[Encoded | None] = [_unusable(one, pairs=self.pairs) for one in read]
        usable = [i for i, outcome in enumerate(outcomes) if outcome is None]
        of_usable = self._encoded_pairs if self.pairs else self._encoded_texts
        for i, outcome in zip(usable, of_usable([read[i] for i in usable]), strict=True):
            outcomes[i] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def spans(self, inputs: Sequence[TextInput]) -> list[list[list[TextSpan | None]]]:
        """What each token of inputs without an error stands for; see `InputTokenizer.spans`."""
        with self._lock:
            return self.tokenizer.spans(inputs)

    def _encoded_texts(self, inputs: Sequence[TextInput]) -> list[Encoded]:
        with self._lock:
            windows, counts = self.tokenizer.windows(inputs)
        return [self._encoded(parts, count) for parts, count in zip(windows, counts.tolist(), strict=True)]

    def _encoded_pairs(self, inputs: Sequence[TextInput]) -> list[Encoded]:
        with self._lock:
            pairs = self.tokenizer.pairs(inputs)
        texts = zip(pairs.first_counts.tolist(), pairs.second_counts.tolist(), strict=True)
        seconds = [None] * len(inputs) if pairs.seconds is None else pairs.seconds.tolist()
        encoded = []
        for ids, count, second, each in zip(pairs.ids, pairs.counts.tolist(), seconds, texts, strict=True):
            one = self._encoded([ids], count) if all(each) else _failed("empty_text", f"a text of the pair {_NO_TOKEN}")
            encoded.append(one._replace(second=second, text_tokens=each))
        return encoded

    def _encoded(self, parts: list[list[int]], count: int) -> Encoded:
        if count <= self.tokenizer.special_tokens:
            return _failed("empty_text", f"the text {_NO_TOKEN}")
        truncated = count > self.max_tokens and self._on_long != "windows"
        if truncated and self._on_long == "error":
            message = f"the text has {count} tokens; at most {self.max_tokens} are taken"
            return Encoded((), count, False, ItemError("text_too_long", message))
        seen = parts[:1] if truncated else parts
        return Encoded(seen, count, truncated, unknown=self.tokenizer.unknown(seen))


def _unusable(one: object, *, pairs: bool) -> Encoded | None:
    if not isinstance(one, TextInput):
        return _failed("not_unicode", f"a text is needed, not {type(one).__name__}")
    if pairs and not one.is_pair:
        return _failed("pair_needed", "one text, and the bundle reads pairs; TextInput(text, text_pair) is needed")
    if not pairs and one.is_pair:
        return _failed("pair_not_taken", "a pair of texts, and the bundle reads one text; TextInput(text) is needed")
    if one.is_blank:
        which = "a text of the pair" if pairs else "the text"
        return _failed("empty_text", f"{which} is empty or white space; a word is needed")
    for segment in one.segments:
        try:
            segment.encode()
        except UnicodeEncodeError as error:
            found = f"character {error.start} is half of a surrogate pair"
            return _failed("not_unicode", f"{found}; valid Unicode is needed")
    return None


def _failed(code: str, message: str) -> Encoded:
    return Encoded((), 0, False, ItemError(code, message))
