"""Which split each row belongs to, as a function of its text.

In: for each row a 128-bit key of its normalized text, its stratum and a row id. Out: a split code for each row. Pure
numpy. Not here: hashing texts (rows.py), the stratum of a row (tasks/), Ray (split_blocks.py).

A stratum is the rows with one label. They are ordered by a hash of the key and the seed: the first are test, the next
val, the rest train, as many as the task's cut points say. So the split of a text does not depend on the order or the
layout of the files, and the shares are exact. Rows with equal keys form a group, which always stays in one split.

The work is cut into hash ranges, so that no process holds all rows of a stratum: `tally` each range, add up the
stratum sizes of the ranges, compute the cut points once, then `assign` each range, given the stratum sizes of the
ranges before it. Strata are numbered from 0 to S - 1.
"""

from dataclasses import dataclass

import numpy as np

from textcls.data.folds import Fold

TRAIN, VAL, TEST, DUPLICATE, REJECT = range(5)
SPLITS = ("train", "val", "test", "duplicates", "rejects")


def shuffle_hash(key_hi: np.ndarray, seed: int) -> np.ndarray:
    """uint64 [N]: hashes that put rows into a pseudorandom order. Equal keys give equal hashes.

    The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection, so different keys have different hashes.

    Args:
        key_hi: uint64 [N], the high halves of the keys.
        seed: another seed gives another order.
    """
    with np.errstate(over="ignore"):
        x = key_hi.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def range_of(hashes: np.ndarray, ranges: int) -> np.ndarray:
    """int64 [N], 0 <= i < ranges: the hash range of each hash. Ranges are consecutive and equally wide."""
    found: np.ndarray = ((hashes >> np.uint64(32)) * np.uint64(ranges) >> np.uint64(32)).astype(np.int64)
    return found


@dataclass(frozen=True)
class Tally:
    """The groups of equal text in one hash range, in the order of their hash.

    Attributes:
        group_of_row: int64 [N], the group of each row.
        first: bool [N], whether a row is the first of its group in file order.
        stratum: int32 [G], the stratum of each group; the smallest if its rows have several.
        weight: int64 [G], how many rows of the group count: 1, or all of them if duplicates are kept.
        conflicts: int64 [K], for each group whose rows have several strata, the index of its first row in the input.
        keep_all: whether duplicates are kept.
        rejected: bool [G], groups of which no row is used; None: there are none.
        cluster: int64 [G], ascending from 0: groups with the same number stay in one split; None: each may be in any.
    """

    group_of_row: np.ndarray
    first: np.ndarray
    stratum: np.ndarray
    weight: np.ndarray
    conflicts: np.ndarray
    keep_all: bool
    rejected: np.ndarray | None = None
    cluster: np.ndarray | None = None

    def stratum_sizes(self, strata: int) -> np.ndarray:
        """int64 [S]: rows that count in each stratum."""
        stratum, weight = self.units()
        return np.bincount(stratum, weight, minlength=strata).astype(np.int64)

    def units(self) -> tuple[np.ndarray, np.ndarray]:
        """(stratum, weight) of what goes to one split whole: groups, or clusters of groups.

        A cluster counts in the stratum of the first of its groups, in the order of their hash.
        """
        if self.cluster is None:
            return self.stratum, self.weight
        weight = np.bincount(self.cluster, self.weight).astype(np.int64)
        counting = np.flatnonzero(self.weight)
        clusters, first = np.unique(self.cluster[counting], return_index=True)
        stratum = np.zeros(len(weight), self.stratum.dtype)
        stratum[clusters] = self.stratum[counting[first]]
        return stratum, weight


def tally(
    hashes: np.ndarray,
    key_lo: np.ndarray,
    stratum: np.ndarray,
    row_id: np.ndarray,
    *,
    keep_all: bool,
    by_hash: bool = False,
) -> Tally:
    """Groups the rows of one hash range by text.

    Args:
        hashes: uint64 [N], `shuffle_hash` of the high halves of the keys.
        key_lo: uint64 [N], the low halves of the keys.
        stratum: int32 [N].
        row_id: int64 [N], ordered as the files are; decides which of equal rows is the first.
        keep_all: whether duplicates are kept.
        by_hash: whether groups of one hash stay in one split: the high half of a key then stands for what they share.
    """
    rows = len(hashes)
    order = np.lexsort((row_id, key_lo, hashes))
    sorted_hash, sorted_lo, sorted_stratum = hashes[order], key_lo[order], stratum[order]
    starts = np.ones(rows, bool)
    starts[1:] = (sorted_hash[1:] != sorted_hash[:-1]) | (sorted_lo[1:] != sorted_lo[:-1])
    first_at = np.flatnonzero(starts)

    group_of_row = np.empty(rows, np.int64)
    group_of_row[order] = np.cumsum(starts) - 1
    first = np.zeros(rows, bool)
    first[order[first_at]] = True
    if rows:
        smallest = np.minimum.reduceat(sorted_stratum, first_at)
        largest = np.maximum.reduceat(sorted_stratum, first_at)
        sizes = np.diff(np.append(first_at, rows))
    else:
        smallest = largest = np.empty(0, np.int32)
        sizes = np.empty(0, np.int64)
    weight = sizes.astype(np.int64) if keep_all else np.ones(len(first_at), np.int64)
    conflicts = order[first_at[smallest != largest]]
    cluster = np.unique(sorted_hash[first_at], return_inverse=True)[1] if by_hash else None
    return Tally(group_of_row, first, smallest, weight, conflicts, keep_all, cluster=cluster)


def assign(tally: Tally, before: np.ndarray, cuts: np.ndarray, fold: Fold | None = None) -> np.ndarray:
    """int8 [N]: TRAIN, VAL, TEST, DUPLICATE or REJECT for each row of a hash range, in input order.

    Args:
        tally: of the range.
        before: int64 [S], rows of each stratum that count in the ranges before this one.
        cuts: int64 [S, 2], from `Task.cut_points` of the stratum sizes over all ranges; with a fold, of the rows that
            it does not hold.
        fold: the rows that are test, whatever the cut points say.
    """
    stratum, weight = tally.units()
    by_stratum = np.argsort(stratum, kind="stable")
    running = np.cumsum(weight[by_stratum]) - weight[by_stratum]
    stratum_start = np.searchsorted(stratum[by_stratum], np.arange(len(before)))
    offset = np.append(running, 0)[stratum_start]
    position = np.empty(len(stratum), np.int64)
    position[by_stratum] = running - offset[stratum[by_stratum]] + before[stratum[by_stratum]]
    # What has several rows goes to the split that its middle row falls into.
    position += (weight - 1) // 2

    split = np.full(len(stratum), TRAIN, np.int8)
    if fold is None:
        split[position < cuts[stratum, 1]] = VAL
        split[position < cuts[stratum, 0]] = TEST
    else:
        split[position - fold.before(position, stratum) < cuts[stratum, 1]] = VAL
        split[fold.holds(position, stratum)] = TEST
    of_group = split if tally.cluster is None else split[tally.cluster]
    of_row: np.ndarray = of_group[tally.group_of_row]
    if not tally.keep_all:
        of_row[~tally.first] = DUPLICATE
    if tally.rejected is not None:
        of_row[tally.rejected[tally.group_of_row]] = REJECT
    return of_row
