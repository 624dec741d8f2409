"""What the model reads for one row of a CSV file or one item of a request: one type from the row to the tokenizer.

In: the text columns of a row, or an item of a request. Out: a `TextInput`: its segments for the tokenizer, its key for
duplicates and the split, its size for queues. Not here: which columns are read (data/rows.py), the JSON of requests
(serving/request_schema.py), token ids (tokenizer.py).

Only this class, the tokenizer and the places that make inputs name the texts of a pair. Tables have a column for each
field that their inputs use; all other code goes through `segments`.
"""

from collections.abc import Callable
from hashlib import blake2b, sha256
from typing import NamedTuple

from textcls.text.normalizer import TextNormalizer


class TextInput(NamedTuple):
    """The text or the pair of texts that the model classifies.

    Attributes:
        text: as it was written, not normalized.
        text_pair: the second text of a pair; None for one text.
    """

    text: str
    text_pair: str | None = None

    @property
    def is_pair(self) -> bool:
        """Whether this is a pair of texts."""
        return self.text_pair is not None

    @property
    def segments(self) -> tuple[str, ...]:
        """The texts that the tokenizer encodes as segments of one sequence, in order."""
        return (self.text,) if self.text_pair is None else (self.text, self.text_pair)

    @property
    def chars(self) -> int:
        """Characters of all segments."""
        return sum(map(len, self.segments))

    @property
    def is_blank(self) -> bool:
        """Whether a segment is empty or white space."""
        return not all(map(str.strip, self.segments))

    def changed(self, change: Callable[[str], str]) -> "TextInput":
        """The input with each of its texts changed, such as masked."""
        return TextInput(*map(change, self.segments))

    def key(self, normalize: Callable[[str], str], group_by: str = "none") -> bytes:
        """A hash of 16 bytes, equal for inputs that are duplicates: these never straddle two splits.

        Of a pair that is grouped by its first or second text (`a` or `b`), the first 8 bytes are a hash of that text.

        Two inputs are duplicates if their segments are equal, in order, after normalizing and with each run of white
        space as one space, which BERT's tokenizers do not distinguish.

        Raises:
            UnicodeEncodeError: a segment holds half of a surrogate pair.
        """
        words = self._words(normalize)
        if group_by == "none":
            return blake2b(words.encode(), digest_size=16).digest()
        shared = words.split("\n")["ab".index(group_by)]
        return b"".join(blake2b(part.encode(), digest_size=8).digest() for part in (shared, words))

    def digest(self, normalize: TextNormalizer) -> str:
        """sha256 in hex, equal for inputs that are duplicates; unlike `key`, it is written to files.

        Raises:
            UnicodeEncodeError: a segment holds half of a surrogate pair.
        """
        return sha256(self._words(normalize).encode()).hexdigest()

    def _words(self, normalize: Callable[[str], str]) -> str:
        """What duplicates have in common: a line for each segment, which itself holds no line break any more."""
        return "\n".join([" ".join(normalize(segment).split()) for segment in self.segments])
