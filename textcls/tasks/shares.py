"""How many rows of each label go to each split, so that every label name keeps the asked shares.

In: the number of rows with each label, where a label may be a set of names. Out: cut points; where each label begins
among folds. Pure numpy.
Not here: which rows they are: these are ordered by a hash of their text (data/split.py).

Shapes: U different labels, C label names.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import product

import numpy as np

from textcls.settings.recipe import SplitSpec


def rounded_shares(rows: np.ndarray, spec: SplitSpec) -> np.ndarray:
    """int64 [U, 2]: of the rows with each label, those before the first number are test, before the second val.

    Each split gets its share to within one row, and each label keeps at least one training row.

    Args:
        rows: int64 [U], rows with each label.
        spec: the shares.
    """
    test_end = np.floor(rows * spec.test + 0.5)
    val_end = np.floor(rows * (spec.test + spec.val) + 0.5)
    most = np.maximum(rows - 1, 0)
    cuts: np.ndarray = np.minimum(np.stack([test_end, val_end], axis=1), most[:, None]).astype(np.int64)
    return cuts


def stratified_shares(
    label_sets: Sequence[Sequence[str]], rows: np.ndarray, spec: SplitSpec, names: Sequence[str]
) -> np.ndarray:
    """int64 [U, 2]: cut points as in `rounded_shares`, with which each label name keeps the shares.

    A set of names with n rows gets floor(n x share) rows of each split; what is left of it, at most two rows, goes
    where its names lack rows most. The sets are taken in the order of their rarest name, so that names with few rows
    come out to within a row, and those with many absorb what is left over: the idea of iterative stratification
    (Sechidis, Tsoumakas, Vlahavas 2011), on sets instead of rows. The order depends on nothing but sets and seed. A
    set takes 0.05 ms.

    Args:
        label_sets: U different sets of names, in any fixed order.
        rows: int64 [U], rows with each set.
        spec: the shares and the seed.
        names: the C label names.
    """
    members, totals = _members(label_sets, rows, names)  # rows with no label keep the shares as well
    shares = np.array([spec.test, spec.val, 1 - spec.test - spec.val])
    # (names, splits): rows above the share so far, per row of the name, so that one point weighs the same everywhere.
    surplus = np.zeros((len(totals), 3))
    counts = np.zeros((len(members), 3), np.int64)
    left = totals.copy()
    trained = np.zeros(len(totals), np.int64)
    for i in _rarest_first(label_sets, members, totals, spec.seed):
        member, n = members[i], int(rows[i])
        left[member] -= n
        # Without a training row so far and no other set to give one, a name must get one here.
        needs_training = bool(((trained[member] == 0) & (left[member] == 0)).any())
        counts[i] = _best_counts(n, shares, surplus[member], totals[member], needs_training=needs_training)
        surplus[member] += (counts[i] - n * shares) / totals[member][:, None]
        trained[member] += counts[i, 2]
    cuts: np.ndarray = counts[:, :2].cumsum(axis=1)
    return cuts


def fold_offsets(
    label_sets: Sequence[Sequence[str]], rows: np.ndarray, folds: int, names: Sequence[str], seed: int
) -> np.ndarray:
    """int64 [U]: the row at place p of a label is in fold (p + offset) % folds; -1: its rows are in no fold.

    Each fold gets the whole part of its share of every label; what is left goes where the names of the label have the
    fewest rows, so that names with few rows are spread over the folds. A name whose rows would all be in one fold could
    not be learned without them: the labels that contain it are in none.

    Args:
        label_sets: U different sets of names, in any fixed order.
        rows: int64 [U], rows with each set.
        folds: their number.
        names: the C label names.
        seed: decides between sets that are alike.
    """
    members, totals = _members(label_sets, rows, names)
    held, sizes = np.zeros((len(totals), folds)), np.zeros(folds)
    offsets = np.zeros(len(members), np.int64)
    for i in _rarest_first(label_sets, members, totals, seed):
        whole, left = divmod(int(rows[i]), folds)
        # What each fold would hold of the set's names, if it took the first of the rows that are left.
        crowded = (held[members[i]] / np.maximum(totals[members[i]], 1)[:, None]).sum(axis=0)
        windows = (np.arange(folds)[:, None] + np.arange(left)) % folds
        begin = int(np.lexsort((sizes[windows].sum(axis=1), crowded[windows].sum(axis=1).round(9)))[0])
        added = np.full(folds, whole)
        added[windows[begin]] += 1
        offsets[i] = begin
        held[members[i]] += added
        sizes += added
    in_one = {name for name in range(len(names)) if totals[name] and held[name].max() == totals[name]}
    alone = [any(name in in_one for name in member.tolist()) for member in members]
    return np.where(alone, -1, offsets)


def _members(
    label_sets: Sequence[Sequence[str]], rows: np.ndarray, names: Sequence[str]
) -> tuple[list[np.ndarray], np.ndarray]:
    """(the ids of the names of each set, float64 [C + 1] rows of each name); the empty set has a place of its own."""
    id_of = {name: i for i, name in enumerate(names)}
    members = [np.array([id_of[name] for name in one] or [len(names)], np.int64) for one in label_sets]
    totals = np.zeros(len(names) + 1)
    for member, n in zip(members, rows.tolist(), strict=True):
        totals[member] += n
    return members, totals


def _best_counts(
    n: int, shares: np.ndarray, surplus: np.ndarray, totals: np.ndarray, *, needs_training: bool
) -> np.ndarray:
    """int64 [3]: test, val and train rows of one set of n rows: floor or one more of each, whatever leaves the least
    squared surplus over its names."""
    whole = np.floor(n * shares + 1e-9).astype(np.int64)
    options = []
    for extra in product((0, 1), repeat=2):
        test, val = whole[0] + extra[0], whole[1] + extra[1]
        train = n - test - val
        if train >= int(needs_training):
            options.append((test, val, train))
    if not options:  # needs_training, and a share of train so small that its floor is 0
        return np.array([min(whole[0], n - 1), 0, n - min(whole[0], n - 1)], np.int64)
    found = np.array(options, np.int64)
    after = surplus[None] + ((found - n * shares)[:, None, :] / totals[None, :, None])
    best: np.ndarray = found[int((after**2).sum(axis=(1, 2)).argmin())]
    return best


def _rarest_first(
    label_sets: Sequence[Sequence[str]], members: Sequence[np.ndarray], totals: np.ndarray, seed: int
) -> list[int]:
    """Places of the sets, by the rows of their rarest name; sets that are equal in this by a hash of their names."""

    def key(i: int) -> tuple[float, int, bytes]:
        rarest = int(members[i][totals[members[i]].argmin()])
        spelled = "\0".join(label_sets[i]).encode()
        return float(totals[rarest]), rarest, blake2b(spelled, digest_size=8, salt=seed.to_bytes(8, "little")).digest()

    return sorted(range(len(members)), key=key)
