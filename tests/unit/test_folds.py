"""`split.fold`: every row is tested once, by a function of its text, and every label is learned without each fold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from textcls.data import split
from textcls.data.folds import Fold, index_and_count
from textcls.settings.recipe import SplitSpec
from textcls.tasks.shares import fold_offsets, rounded_shares, stratified_shares

SEED = 3


def codes_of(keys, labels, fold, folds, *, ranges=1, names=None):
    """int8 [N]: the split of rows given as (integer key, label id) where one fold is held out; labels are sets."""
    keys, labels = np.asarray(keys, np.uint64), np.asarray(labels, np.int32)
    sets = [(str(i),) for i in range(int(labels.max()) + 1)] if names is None else names
    different = sorted({name for one in sets for name in one})
    hashes = split.shuffle_hash(keys, SEED)
    members = [np.flatnonzero(split.range_of(hashes, ranges) == i) for i in range(ranges)]
    row_ids = np.arange(len(keys))
    tallies = [
        split.tally(hashes[m], np.zeros(len(m), np.uint64), labels[m], row_ids[m], keep_all=False) for m in members
    ]
    sizes = np.stack([t.stratum_sizes(len(sets)) for t in tallies])
    held = Fold(fold, folds, fold_offsets(sets, sizes.sum(axis=0), folds, different, SEED))
    spec = SplitSpec(seed=SEED).model_copy(update={"test": 0.0})
    others = held.others(sizes.sum(axis=0))
    cuts = rounded_shares(others, spec) if names is None else stratified_shares(sets, others, spec, different)
    before = np.cumsum(sizes, axis=0) - sizes
    codes = np.full(len(keys), -1, np.int8)
    for i, (m, t) in enumerate(zip(members, tallies, strict=True)):
        codes[m] = split.assign(t, before[i], cuts, held)
    return codes


ROWS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), min_size=8, max_size=120)


@given(ROWS, st.integers(2, 6))
def test_every_text_is_in_one_fold_unless_its_label_has_no_other(rows, folds):
    keys, labels = zip(*rows, strict=True)
    codes = np.stack([codes_of(keys, labels, fold, folds) for fold in range(folds)])
    tested = (codes == split.TEST).sum(axis=0)
    kept = codes[0] != split.DUPLICATE
    first_label = np.array([min(b for a, b in rows if a == key) for key in keys])
    for label in set(labels):
        of_label = kept & (first_label == label)
        assert (tested[of_label] == (of_label.sum() > 1)).all()
    assert (tested[~kept] == 0).all()


@given(ROWS, st.integers(2, 6), st.randoms(), st.integers(2, 5))
def test_a_fold_does_not_depend_on_the_order_of_rows_nor_on_hash_ranges(rows, folds, random, ranges):
    shuffled = random.sample(rows, len(rows))

    def split_of_key(rows, ranges):
        keys, labels = zip(*rows, strict=True)
        codes = codes_of(keys, [*labels[:-1], labels[-1]], 1, folds, ranges=ranges)
        return {key: code for key, code in zip(keys, codes, strict=True) if code != split.DUPLICATE}

    if max(label for _, label in rows) == 3:
        assert split_of_key(rows, 1) == split_of_key(shuffled, ranges)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=6), st.integers(2, 7))
def test_folds_hold_their_share_of_each_label_and_training_keeps_a_row_of_it(sizes, folds):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    all_codes = [codes_of(np.arange(len(labels)), labels, fold, folds) for fold in range(folds)]
    for label, size in enumerate(sizes):
        tested = [int((codes[labels == label] == split.TEST).sum()) for codes in all_codes]
        assert max(tested) - min(tested) <= 1
        assert sum(tested) == (size if size > 1 else 0)
        for codes, held in zip(all_codes, tested, strict=True):
            of_label = codes[labels == label]
            assert (of_label == split.TRAIN).sum() >= 1
            if size - held >= 10:
                assert abs((of_label == split.VAL).sum() - 0.1 * (size - held)) <= 1


def test_folds_of_few_rows_a_label_are_of_one_size():
    labels = np.repeat(np.arange(40), 3)
    sizes = [int((codes_of(np.arange(120), labels, fold, 5) == split.TEST).sum()) for fold in range(5)]
    assert sizes == [24] * 5


@pytest.mark.parametrize("seed", range(5))
def test_names_in_rare_sets_are_learned_without_any_fold(seed):
    draw = np.random.default_rng(seed)
    chosen = [tuple(sorted({f"{draw.integers(12)}" for _ in range(draw.integers(0, 4))})) for _ in range(60)]
    sets = sorted(set(chosen))
    labels = np.array([sets.index(one) for one in chosen])
    folds = [codes_of(np.arange(60), labels, fold, 4, names=sets) for fold in range(4)]
    tested = sum((codes == split.TEST).astype(int) for codes in folds)
    assert set(tested.tolist()) <= {0, 1}
    assert tested.sum() > 50
    for codes in folds:
        trained = {name for row in np.flatnonzero(codes == split.TRAIN) for name in chosen[row]}
        assert trained == {name for one in chosen for name in one}


def test_a_name_whose_rows_would_all_be_in_one_fold_is_never_held_out():
    """`x` stands twice, each time beside a name of its own: both rows could begin the first fold."""
    sets = [("a",), ("a", "b", "x"), ("a", "c", "x")]
    offsets = fold_offsets(sets, np.array([10, 1, 1]), 2, ("a", "b", "c", "x"), 0)
    assert offsets.tolist()[1:] == [-1, -1]  # b and c have no other row


def test_a_fold_is_written_as_k_of_n():
    assert index_and_count(SplitSpec(fold="2/5")) == (1, 5)
    assert index_and_count(SplitSpec()) is None
    assert "fold" not in SplitSpec().model_dump()


@pytest.mark.parametrize("value", ["0/5", "6/5", "1/1", "2", "1/5000", "-1/5", "1/ 5"])
def test_what_is_no_fold_is_refused(value):
    with pytest.raises(ValidationError):
        SplitSpec(fold=value)
