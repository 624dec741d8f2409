"""Law 3: the split is a function of the text, and exact. `pytest tests/unit/test_split.py`"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcls.data import split
from textcls.settings.recipe import SplitSpec
from textcls.tasks.multi_label import MULTI_LABEL
from textcls.tasks.shares import rounded_shares
from textcls.tasks.single_label import SINGLE_LABEL

# Task -> (names, the labels that up to four different numbers stand for); a split of pairs differs by its keys alone.
LABELS = {
    SINGLE_LABEL: ("abcd", [SINGLE_LABEL.label_of(name) for name in "abcd"]),
    MULTI_LABEL: ("abc", [MULTI_LABEL.label_of(names) for names in ("a", "", "ab", "bc")]),
}
of_each_task = pytest.mark.parametrize("task", LABELS, ids=lambda task: task.name)


def split_codes(keys, labels, spec, task=None, *, ranges=1, keep_all=False, row_ids=None, classes=None):
    """Split codes of rows given as (integer key, number of a label), computed in so many hash ranges."""
    keys = np.asarray(keys, np.uint64)
    labels = np.asarray(labels, np.int32)
    row_ids = np.arange(len(keys)) if row_ids is None else row_ids
    classes = len(LABELS[task][1]) if task else classes or int(labels.max(initial=0)) + 1
    hashes = split.shuffle_hash(keys, spec.seed)
    range_of_row = split.range_of(hashes, ranges)
    members = [np.flatnonzero(range_of_row == i) for i in range(ranges)]
    tallies = [
        split.tally(hashes[m], np.zeros(len(m), np.uint64), labels[m], row_ids[m], keep_all=keep_all) for m in members
    ]
    sizes = np.stack([t.stratum_sizes(classes) for t in tallies])
    if task:
        names, strata = LABELS[task]
        rows, cuts = sizes.sum(axis=0), np.zeros((classes, 2), np.int64)
        found = np.flatnonzero(rows)
        cuts[found] = task.cut_points([strata[i] for i in found], rows[found], names, spec)
    else:
        cuts = rounded_shares(sizes.sum(axis=0), spec)
    before = np.cumsum(sizes, axis=0) - sizes
    codes = np.full(len(keys), -1, np.int8)
    for p, (m, t) in enumerate(zip(members, tallies, strict=True)):
        codes[m] = split.assign(t, before[p], cuts)
    return codes


rows = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=120)
specs = st.builds(
    SplitSpec, val=st.sampled_from([0.05, 0.1, 0.25]), test=st.sampled_from([0.1, 0.2, 0.5]), seed=st.integers(0, 5)
)


@of_each_task
@given(rows, specs, st.integers(2, 9))
def test_any_number_of_hash_ranges_gives_the_same_split(task, rows, spec, ranges):
    keys, labels = zip(*rows, strict=True)
    assert (split_codes(keys, labels, spec, task) == split_codes(keys, labels, spec, task, ranges=ranges)).all()


@of_each_task
@given(rows, specs, st.randoms(), st.booleans())
def test_split_does_not_depend_on_row_order(task, rows, spec, random, keep_all):
    shuffled = random.sample(rows, len(rows))

    def split_of_key(rows):
        keys, labels = zip(*rows, strict=True)
        codes = split_codes(keys, labels, spec, task, keep_all=keep_all)
        return {key: code for key, code in zip(keys, codes, strict=True) if code != split.DUPLICATE}

    assert split_of_key(rows) == split_of_key(shuffled)


@of_each_task
@given(rows, specs)
def test_equal_texts_never_straddle_splits_even_under_two_labels(task, rows, spec):
    keys, labels = zip(*rows, strict=True)
    codes = split_codes(keys, labels, spec, task, keep_all=True)
    for key in set(keys):
        assert len({c for k, c in zip(keys, codes, strict=True) if k == key}) == 1


@of_each_task
@given(rows, specs)
def test_keep_first_keeps_exactly_the_first_row_of_each_text(task, rows, spec):
    keys, labels = zip(*rows, strict=True)
    kept = split_codes(keys, labels, spec, task) != split.DUPLICATE
    assert kept.tolist() == [key not in keys[:i] for i, key in enumerate(keys)]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8), specs)
def test_each_class_keeps_its_shares_to_within_one_row(class_sizes, spec):
    labels = np.repeat(np.arange(len(class_sizes)), class_sizes)
    codes = split_codes(np.arange(len(labels)), labels, spec, ranges=3)
    for label, size in enumerate(class_sizes):
        counts = np.bincount(codes[labels == label], minlength=3)
        assert counts[split.TRAIN] >= 1
        if size >= 10:  # below, the row that training keeps may cost another split its share
            assert abs(counts[split.TEST] - size * spec.test) <= 1
            assert abs(counts[split.VAL] - size * spec.val) <= 1


def test_another_seed_is_another_split_of_the_same_sizes():
    labels = np.zeros(1000, np.int32)
    one, two = (split_codes(np.arange(1000), labels, SplitSpec(seed=seed)) for seed in (1, 2))
    assert (np.bincount(one) == np.bincount(two)).all()
    assert (one != two).mean() > 0.2


def test_neighbouring_keys_are_spread_evenly():
    """0.2 of 10,000 consecutive keys, in each tenth of them: 6 standard deviations are 76 rows of 200."""
    codes = split_codes(np.arange(10_000), np.zeros(10_000, np.int32), SplitSpec())
    for tenth in np.split(codes == split.TEST, 10):
        assert abs(int(tenth.sum()) - 200) < 76


def test_conflicting_labels_are_found():
    tally = split.tally(
        np.array([5, 7, 5, 7], np.uint64), np.zeros(4, np.uint64), np.array([0, 1, 2, 1]), np.arange(4), keep_all=False
    )
    assert tally.conflicts.tolist() == [0]


def test_keys_that_share_a_hash_half_are_different_texts():
    codes = split.tally(
        np.array([5, 5], np.uint64), np.array([1, 2], np.uint64), np.zeros(2, np.int32), np.arange(2), keep_all=False
    )
    assert codes.first.all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_tiny_class_trains_before_it_tests(size):
    cuts = rounded_shares(np.array([size]), SplitSpec(val=0.4, test=0.5))
    assert cuts.max() <= size - 1


# --- pairs that share a text ------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=150), specs)
def test_rows_of_one_hash_stay_in_one_split_and_duplicates_are_those_of_the_whole_key(pairs, spec):
    shared, other, labels = (np.array(column) for column in zip(*pairs, strict=True))
    hashes = split.shuffle_hash(shared.astype(np.uint64), spec.seed)
    t = split.tally(
        hashes, other.astype(np.uint64), labels.astype(np.int32), np.arange(len(pairs)), keep_all=False, by_hash=True
    )
    sizes = t.stratum_sizes(3)
    codes = split.assign(t, np.zeros(3, np.int64), rounded_shares(sizes, spec))
    for one in set(shared.tolist()):
        assert len({code for code in codes[shared == one] if code != split.DUPLICATE}) == 1
    assert (codes != split.DUPLICATE).sum() == len({(a, b) for a, b, _ in pairs}) == sizes.sum()


def test_shares_of_groups_come_as_near_as_their_sizes_allow():
    draw = np.random.default_rng(0)
    shared, labels = draw.integers(0, 1500, 6000), draw.integers(0, 2, 6000)
    hashes, other = split.shuffle_hash(shared.astype(np.uint64), 42), np.arange(6000, dtype=np.uint64)
    t = split.tally(hashes, other, labels.astype(np.int32), np.arange(6000), keep_all=False, by_hash=True)
    codes = split.assign(t, np.zeros(2, np.int64), rounded_shares(t.stratum_sizes(2), SplitSpec()))
    for label in (0, 1):
        assert abs((codes[labels == label] == split.TEST).mean() - 0.2) < 0.03
        assert abs((codes[labels == label] == split.VAL).mean() - 0.1) < 0.03
