"""Inputs whose tokens are known by the word of the user's own text that they belong to, so that words can be left out.

In: a classifier and inputs. Out: `Located` inputs, and what the model reads of one without some of its words.
Not here: what a word is (text/words.py), what its absence changes (explain.py, faithfulness.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from textcls.inference.classifier import Classifier
from textcls.inference.encoding import Encoded, ItemError
from textcls.text.text_input import TextInput
from textcls.text.words import TextSpan, words_of


@dataclass(frozen=True)
class Located:
    """An input that the model can score, as tokens and as words.

    Attributes:
        segments: its texts, as they were written.
        encoded: what the model reads.
        words: the words that the model reads at least a part of, in order.
        unseen: for each text that was cut, the span of the words of which the model reads nothing.
        word_of: for each token of each window, the index of its word; None for special tokens.
    """

    segments: tuple[str, ...]
    encoded: Encoded
    words: tuple[TextSpan, ...]
    unseen: tuple[TextSpan, ...]
    word_of: tuple[tuple[int | None, ...], ...]

    def windows_without(self, words: Iterable[int]) -> dict[int, Encoded]:
        """Index of each window that has some of these words -> the window as an input of its own, without them.

        Their tokens are deleted. The tokens of the other words stay as they are, and none moves in from another window
        or from what was cut.
        """
        left_out, found = set(words), {}
        for index, (ids, of_token) in enumerate(zip(self.encoded.windows, self.word_of, strict=True)):
            kept = [place for place, word in enumerate(of_token) if word not in left_out]
            if len(kept) < len(ids):
                second = self.encoded.second
                if second is not None:
                    second = sum(place < second for place in kept)
                found[index] = Encoded(([ids[place] for place in kept],), len(kept), False, second=second)
        return found

    def without(self, words: Iterable[int]) -> Encoded:
        """What the model reads of the input without these words; see `windows_without`."""
        changed = self.windows_without(words)
        windows = [
            changed[index].windows[0] if index in changed else ids for index, ids in enumerate(self.encoded.windows)
        ]
        second = changed[0].second if 0 in changed else self.encoded.second
        return self.encoded._replace(windows=windows, second=second)


def locate(classifier: Classifier, inputs: Sequence[TextInput | str]) -> list[Located | ItemError]:
    """Inputs with their words, in the order given; or why one cannot be scored.

    Args:
        classifier: encodes them.
        inputs: as `Classifier.scores` takes them.
    """
    read = [TextInput(one) if isinstance(one, str) else one for one in inputs]
    encoded = classifier.encode(read)
    usable = [i for i, one in enumerate(encoded) if one.error is None]
    found: list[Located | ItemError | None] = [one.error for one in encoded]
    for i, parts in zip(usable, classifier.spans([read[i] for i in usable]), strict=True):
        found[i] = _located(read[i].segments, encoded[i], parts)
    return [one for one in found if one is not None]


def _located(segments: tuple[str, ...], encoded: Encoded, parts: Sequence[Sequence[TextSpan | None]]) -> Located:
    windows = parts[: len(encoded.windows)]
    assert [len(ids) for ids in encoded.windows] == [len(part) for part in windows], "the same tokens"
    every, word_of = words_of(segments, (span for part in parts for span in part if span is not None))
    seen = sorted({word_of[span] for part in windows for span in part if span is not None})
    place_of = {word: place for place, word in enumerate(seen)}
    unseen = []
    for text in range(len(segments)):
        lost = [word for i, word in enumerate(every) if i not in place_of and word.text == text]
        if lost:
            unseen.append(TextSpan(text, lost[0].start, lost[-1].end))
    return Located(
        segments,
        encoded,
        tuple(every[word] for word in seen),
        tuple(unseen),
        tuple(tuple(None if span is None else place_of[word_of[span]] for span in part) for part in windows),
    )
