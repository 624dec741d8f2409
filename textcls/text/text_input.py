"""What the model reads for one row of a CSV file or one item of a request: one type from the row to the tokenizer.

In: the text columns of a row, or an item of a request. Out: a `TextInput`: its segments for the tokenizer, its key for
duplicates and the split, its size for queues. Not here: which columns are read (data/rows.py), the JSON of requests
(serving/schema.py), token ids (tokenizer.py).

Only this class names the texts of an input. Tables have one column for each of its fields; all other code goes through
`segments`, so that a pair of texts is a second field here, and in the places that make inputs.
"""

from hashlib import blake2b
from typing import NamedTuple

from textcls.text.normalizer import TextNormalizer


class TextInput(NamedTuple):
    """The text that the model classifies.

    Attributes:
        text: as it was written, not normalized.
    """

    text: str

    @property
    def segments(self) -> tuple[str, ...]:
        """The texts that the tokenizer encodes as segments of one sequence, in order."""
        return (self.text,)

    @property
    def chars(self) -> int:
        """Characters of all segments."""
        return sum(map(len, self.segments))

    @property
    def is_blank(self) -> bool:
        """Whether a segment is empty or white space."""
        return not all(map(str.strip, self.segments))

    def key(self, normalize: TextNormalizer) -> bytes:
        """A hash of 16 bytes, equal for inputs that are duplicates: these never straddle two splits.

        Two inputs are duplicates if their segments are equal, in order, after normalizing and with each run of white
        space as one space, which BERT's tokenizers do not distinguish.

        Raises:
            UnicodeEncodeError: a segment holds half of a surrogate pair.
        """
        # No segment holds a line break any more.
        words = "\n".join([" ".join(normalize(segment).split()) for segment in self.segments])
        return blake2b(words.encode(), digest_size=16).digest()
