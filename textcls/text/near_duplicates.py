"""Texts -> texts that are nearly the same: copies with a typo, another ending, a word more or less.

In: inputs. Out: pairs of rows whose similarity reaches a threshold, block by block. The similarity is Jaccard's: the
shingles that both have, as a share of those that either has; a shingle is 5 characters in a row. Pure numpy and scipy.
Not here: equal inputs (text_input.py), inputs that mean the same in other words (inference/neighbours.py).

Rows that share a band of their MinHash signatures are compared (Broder 1997; Leskovec, Rajaraman, Ullman 2014, chapter
3): of pairs with a similarity of 0.7, 99.6 % share one of 20 bands of 4, and of pairs with 0.8 all but one in 30,000.
Signatures take time in proportion to the characters. Of the rows that share a band, one is compared with the 50 before
it and the 50 after it: 10,000 rows of one template would be 100 million pairs.

Measured with edits planted in 300 of 8,530 short film reviews (a typo, a word less, another word, a few words before
or after, no punctuation, a fifth cut off): of these copies 78 to 100 % are found, depending on the edit, and of the 36
million pairs of reviews the only one found is a copy. A cosine of embeddings of at least 0.9 finds 43 to 94 %, and
takes "a charming romantic comedy" for a copy of "a witty, low-key romantic comedy".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np

from textcls.text.normalizer import TextNormalizer
from textcls.text.text_input import TextInput

THRESHOLD = 0.7
"""The similarity from which on texts count as nearly the same."""

_CHARS = 5
# Characters that are shingled at a time.
_BLOCK_CHARS = 2**22
# Pairs of rows that may be similar, and shingles of such rows, that are looked at at a time.
_BLOCK_PAIRS, _BLOCK_SHINGLES = 2**20, 2**23
# Bits of the hash of a shingle.
_BITS = 30
_BANDS, _IN_A_BAND = 20, 4
# Of the rows that share a band, those farther from each other are not compared.
_MOST_APART = 50


@dataclass(frozen=True, eq=False)
class Shingles:
    """The sets of shingles of N rows; 4 bytes for each character of the texts.

    Attributes:
        starts: int64 [N + 1], where the shingles of each row begin.
        hashes: int32, the shingles of all rows, row by row, ascending and each once in a row.
    """

    starts: np.ndarray
    hashes: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, inputs: Sequence[TextInput], normalize: TextNormalizer) -> Self:
        """The shingles of inputs after normalizing, with each run of white space as one space."""
        texts = ["\n".join([" ".join(normalize(one).split()) for one in each.segments]) for each in inputs]
        sizes, hashes = [np.zeros(1, np.int64)], [np.empty(0, np.int32)]
        for block in _blocks(texts):
            rows, found = _shingled(block)
            hashes.append(found)
            sizes.append(np.bincount(rows, minlength=len(block)).astype(np.int64))
        return cls(np.cumsum(np.concatenate(sizes)), np.concatenate(hashes))

    @property
    def sizes(self) -> np.ndarray:
        """int64 [N]: shingles of each row."""
        return np.diff(self.starts)


def near_pairs(rows: Shingles, threshold: float = THRESHOLD) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (row, other row, similarity) of pairs that are at least that similar; each pair twice, either way round.

    The arrays are int64, int64 and float64 [P], by ascending row and other row; no row is in two blocks. The similarity
    is exact.

    Args:
        rows: the sets. Of more than 51 rows that share a band only pairs of those near to each other are found.
        threshold: at most 1; below 0.6 pairs are missed.
    """
    row_at, bands = _bands(rows)
    by_band = np.argsort(bands, kind="stable")
    other_at, ordered = row_at[by_band], bands[by_band]
    place_of = np.argsort(by_band)
    first = np.maximum(np.searchsorted(ordered, bands, "left"), place_of - _MOST_APART)
    meeting = np.minimum(np.searchsorted(ordered, bands, "right"), place_of + _MOST_APART + 1) - first
    sizes, matrix = rows.sizes, _matrix(rows)
    for some in _runs(meeting):
        times = meeting[some]
        place = np.repeat(first[some] - (np.cumsum(times) - times), times) + np.arange(times.sum())
        row, other = np.repeat(row_at[some], times), other_at[place]
        smaller, larger = np.minimum(sizes[row], sizes[other]), np.maximum(sizes[row], sizes[other])
        possible = (smaller >= threshold * larger) & (row != other)
        row, other = np.divmod(_sorted_once(row[possible] * len(rows) + other[possible]), max(len(rows), 1))
        shared = _shared(matrix, row, other)
        similarity = shared / (sizes[row] + sizes[other] - shared)
        near = similarity >= threshold
        yield row[near], other[near], similarity[near]


def repeats(rows: Shingles, threshold: float = THRESHOLD) -> np.ndarray:
    """bool [N]: whether a row is nearly the same as one before it."""
    repeated = np.zeros(len(rows), bool)
    for later, earlier, _ in near_pairs(rows, threshold):
        repeated[later[earlier < later]] = True
    return repeated


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in order, so many at a time that their characters fit into memory."""
    start, chars = 0, 0
    for end, text in enumerate(texts):
        chars += len(text)
        if chars >= _BLOCK_CHARS:
            yield texts[start : end + 1]
            start, chars = end + 1, 0
    if start < len(texts):
        yield texts[start:]


def _shingled(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(row, hash) of each shingle of each text, ordered by both. A text shorter than a shingle is one shingle."""
    padded = [text.ljust(_CHARS, "\0") for text in texts]
    lengths = np.fromiter(map(len, padded), np.int64, len(padded))
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    rows = np.repeat(np.arange(len(padded)), lengths)
    mixed = np.zeros(len(points) - _CHARS + 1, np.uint64)
    for place in range(_CHARS):
        mixed = _mixed(mixed + points[place : len(points) - _CHARS + 1 + place])
    inside = rows[: len(mixed)] == rows[_CHARS - 1 :]
    hashes = (mixed[inside] >> np.uint64(64 - _BITS)).astype(np.int64)
    both = _sorted_once((rows[: len(mixed)][inside] << _BITS) | hashes)
    return both >> _BITS, (both & (2**_BITS - 1)).astype(np.int32)


def _sorted_once(numbers: np.ndarray) -> np.ndarray:
    """The different numbers, ascending. numpy's `unique` hashes them first, which takes ten times as long."""
    ascending = np.sort(numbers)
    different = np.ones(len(ascending), bool)
    different[1:] = ascending[1:] != ascending[:-1]
    return ascending[different]


def _mixed(numbers: Any) -> Any:
    """uint64 numbers, of which each bit depends on all bits of the ones given (the finaliser of splitmix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _bands(rows: Shingles) -> tuple[np.ndarray, np.ndarray]:
    """(row, band) of each band of each row, by ascending row: int64 and uint64 [N * bands]."""
    if not len(rows):
        return np.empty(0, np.int64), np.empty(0, np.uint64)
    bands = np.empty((len(rows), _BANDS), np.uint64)
    hashes = rows.hashes.astype(np.uint32)
    for band in range(_BANDS):
        together = np.full(len(rows), band, np.uint64)
        for place in range(_IN_A_BAND):
            # An odd factor permutes the numbers of 32 bits.
            (factor,) = _mixed(np.array([band * _IN_A_BAND + place], np.uint64) + np.uint64(1)) | np.uint64(1)
            smallest = np.minimum.reduceat(hashes * factor.astype(np.uint32), rows.starts[:-1])
            together = _mixed(together + smallest)
        bands[:, band] = together
    return np.repeat(np.arange(len(rows)), _BANDS), bands.ravel()


def _runs(meeting: np.ndarray) -> Iterator[slice]:
    """Slices of the bands of whole rows, with a bounded number of pairs each (but at least one row)."""
    ends = np.cumsum(meeting.reshape(-1, _BANDS).sum(axis=1))
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK_PAIRS, "right")))
        yield slice(start * _BANDS, stop * _BANDS)
        start = stop


def _matrix(rows: Shingles) -> Any:
    """A sparse matrix with a 1 in the column of each shingle of each row."""
    from scipy.sparse import csr_matrix

    ones = np.ones(len(rows.hashes), np.int32)
    return csr_matrix((ones, rows.hashes, rows.starts), shape=(len(rows), 2**_BITS))


def _shared(matrix: Any, row: np.ndarray, other: np.ndarray) -> np.ndarray:
    """int64 [P]: how many shingles each row shares with the other one."""
    sizes = np.diff(matrix.indptr)[row] + np.diff(matrix.indptr)[other]
    part = np.cumsum(sizes) // _BLOCK_SHINGLES
    edges = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(row)]
    found = [
        np.asarray(matrix[row[start:end]].multiply(matrix[other[start:end]]).sum(axis=1), np.int64).ravel()
        for start, end in pairwise(edges)
    ]
    return np.concatenate(found)
