"""Which split each row belongs to, as a function of its text.

In: per row a 128-bit key of the normalised text, a label id and its place in the files. Out: a split code per row.
Pure numpy; not here: hashing (rows.py), Ray (pipeline.py).

Rows are ordered within their class by a hash of key and seed; the first share is test, the next val, the rest train.
So a text's split does not depend on the order or the layout of the files, and the shares are exact to a row.

Rows with equal keys form one group, which is never divided. The work is done in parts by hash range: `tally` a part,
add up the parts' class sizes, `cut_points` once, `assign` each part given the sizes before it. No part holds a class.
"""

from dataclasses import dataclass

import numpy as np

from textcls.settings.recipe import SplitSpec

TRAIN, VAL, TEST, DUPLICATE = range(4)
SPLITS = ("train", "val", "test", "duplicates")


def shuffle_hash(key_hi: np.ndarray, seed: int) -> np.ndarray:
    """uint64 [N] that order rows by chance; equal keys give equal hashes, another seed another order.

    The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection, so different keys stay different.
    """
    with np.errstate(over="ignore"):
        x = key_hi.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def part_of(hashes: np.ndarray, parts: int) -> np.ndarray:
    """The part, 0 <= part < parts, that each hash falls into; parts are consecutive hash ranges."""
    part: np.ndarray = ((hashes >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)).astype(np.int64)
    return part


@dataclass(frozen=True)
class Tally:
    """The groups of equal text of one part, in the order of their hash.

    Attributes:
        group_of_row: int64 [N], the group each row belongs to.
        first: bool [N], whether a row is the first of its group in file order.
        label: int32 [G], the group's label id; the smallest, if its rows disagree.
        weight: int64 [G], the rows that count: 1, or all of them if duplicates are kept.
        conflicts: int64 [K], positions (in the input) of the first rows of groups whose rows disagree on the label.
        keep_all: whether duplicates are kept.
    """

    group_of_row: np.ndarray
    first: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    conflicts: np.ndarray
    keep_all: bool

    def class_sizes(self, classes: int) -> np.ndarray:
        """int64 [C]: rows that count, by class."""
        return np.bincount(self.label, self.weight, minlength=classes).astype(np.int64)


def tally(hashes: np.ndarray, key_lo: np.ndarray, label: np.ndarray, place: np.ndarray, *, keep_all: bool) -> Tally:
    """Groups the rows of one part by text.

    Args:
        hashes: uint64 [N], `shuffle_hash` of the keys' high halves.
        key_lo: uint64 [N], the keys' low halves.
        label: int32 [N], label ids.
        place: int64 [N], file order; decides which of equal rows is the first.
        keep_all: whether duplicates are kept.
    """
    rows = len(hashes)
    order = np.lexsort((place, key_lo, hashes))
    sorted_hash, sorted_lo, sorted_label = hashes[order], key_lo[order], label[order]
    starts = np.ones(rows, bool)
    starts[1:] = (sorted_hash[1:] != sorted_hash[:-1]) | (sorted_lo[1:] != sorted_lo[:-1])
    first_at = np.flatnonzero(starts)

    group_of_row = np.empty(rows, np.int64)
    group_of_row[order] = np.cumsum(starts) - 1
    first = np.zeros(rows, bool)
    first[order[first_at]] = True
    if rows:
        smallest = np.minimum.reduceat(sorted_label, first_at)
        largest = np.maximum.reduceat(sorted_label, first_at)
        sizes = np.diff(np.append(first_at, rows))
    else:
        smallest = largest = np.empty(0, np.int32)
        sizes = np.empty(0, np.int64)
    weight = sizes.astype(np.int64) if keep_all else np.ones(len(first_at), np.int64)
    return Tally(group_of_row, first, smallest, weight, order[first_at[smallest != largest]], keep_all)


def cut_points(class_sizes: np.ndarray, spec: SplitSpec) -> np.ndarray:
    """int64 [C, 2]: in each class, rows before the first number are test, before the second val, the others train.

    Each split has its share to within one row; a class always keeps at least one row to train on.
    """
    test_end = np.floor(class_sizes * spec.test + 0.5)
    val_end = np.floor(class_sizes * (spec.test + spec.val) + 0.5)
    most = np.maximum(class_sizes - 1, 0)
    cuts: np.ndarray = np.minimum(np.stack([test_end, val_end], axis=1), most[:, None]).astype(np.int64)
    return cuts


def assign(part: Tally, before: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """int8 [N]: TRAIN, VAL, TEST or DUPLICATE for each row of a part, in input order.

    Args:
        part: the tally.
        before: int64 [C], rows that count in the parts before this one, by class.
        cuts: int64 [C, 2], from `cut_points` of the sum over all parts.
    """
    by_class = np.argsort(part.label, kind="stable")
    running = np.cumsum(part.weight[by_class]) - part.weight[by_class]
    class_start = np.searchsorted(part.label[by_class], np.arange(len(before)))
    offset = np.append(running, 0)[class_start]
    position = np.empty(len(part.label), np.int64)
    position[by_class] = running - offset[part.label[by_class]] + before[part.label[by_class]]
    # A group of several rows goes to the split that holds its middle.
    position += (part.weight - 1) // 2

    split = np.full(len(part.label), TRAIN, np.int8)
    split[position < cuts[part.label, 1]] = VAL
    split[position < cuts[part.label, 0]] = TEST
    of_row: np.ndarray = split[part.group_of_row]
    if not part.keep_all:
        of_row[~part.first] = DUPLICATE
    return of_row
