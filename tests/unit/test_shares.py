"""Several labels a row: each label keeps the shares of the splits, as with iterative stratification, by hash alone."""

import numpy as np
import pytest
from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

from textcls.data import split
from textcls.settings.recipe import SplitSpec
from textcls.tasks.multi_label import MULTI_LABEL
from textcls.tasks.shares import stratified_shares

# (rows, labels, labels of a row on average, how unequal the labels are)
MATRICES = [(2000, 8, 1.3, 1.0), (3000, 28, 1.2, 1.5), (1500, 20, 4.0, 0.5), (5000, 100, 2.0, 1.2), (800, 6, 0.7, 0.8)]
SPEC = SplitSpec(val=0.1, test=0.2, seed=42)


def drawn(seed: int, rows: int, labels: int, mean: float, unequal: float) -> np.ndarray:
    """bool [rows, labels]: labels that come together, some of them rare."""
    draw = np.random.default_rng(seed)
    weight = (np.arange(labels) + 1.0) ** -unequal
    share = np.minimum(weight / weight.sum() * mean, 0.7)
    topic = draw.normal(size=(rows, 3)) @ draw.normal(size=(3, labels))
    return draw.random((rows, labels)) < np.clip(share * np.exp(0.5 * topic), 0, 0.95)


def split_of(matrix: np.ndarray, spec: SplitSpec = SPEC) -> np.ndarray:
    """int8 [rows]: the split of each row, whose key is its number, as data/split_blocks.py computes it."""
    names = [f"label {i:03}" for i in range(matrix.shape[1])]
    label = [MULTI_LABEL.label_of([names[i] for i in np.flatnonzero(row)]) for row in matrix]
    labels = sorted(set(label))
    place = {one: i for i, one in enumerate(labels)}
    codes = np.array([place[one] for one in label], np.int32)
    hashes = split.shuffle_hash(np.arange(len(matrix), dtype=np.uint64), spec.seed)
    tally = split.tally(hashes, np.zeros(len(matrix), np.uint64), codes, np.arange(len(matrix)), keep_all=False)
    cuts = MULTI_LABEL.cut_points(labels, tally.stratum_sizes(len(labels)), names, spec)
    return split.assign(tally, np.zeros(len(labels), np.int64), cuts)


def worst(matrix: np.ndarray, chosen: np.ndarray, share: float) -> float:
    """The largest distance from the share, in rows beyond the nearest whole one or in points if that is less."""
    of_label = matrix.sum(axis=0)
    frequent = of_label >= 20
    taken = matrix[chosen].sum(axis=0)[frequent]
    apart = np.abs(taken - of_label[frequent] * share)
    return float(np.minimum(apart, 100 * apart / of_label[frequent]).max())


@pytest.mark.parametrize(("number", "shape"), enumerate(MATRICES))
def test_each_label_keeps_its_shares_within_a_point_or_a_row_as_iterative_stratification_does(
    number: int, shape: tuple[int, int, float, float]
) -> None:
    matrix = drawn(number, *shape)
    codes = split_of(matrix)
    for code, share in ((split.TEST, SPEC.test), (split.VAL, SPEC.val)):
        assert worst(matrix, codes == code, share) <= 1
        assert abs((codes == code).mean() - share) < 0.01
    theirs = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=SPEC.test, random_state=0)
    _, test = next(theirs.split(np.zeros(len(matrix)), matrix.astype(int)))
    chosen = np.isin(np.arange(len(matrix)), test)
    assert worst(matrix, codes == split.TEST, SPEC.test) <= worst(matrix, chosen, SPEC.test) + 0.5


def test_the_split_does_not_depend_on_the_order_of_the_rows() -> None:
    matrix = drawn(1, *MATRICES[1])
    names = [f"label {i:03}" for i in range(matrix.shape[1])]
    sets = [MULTI_LABEL.label_of([names[i] for i in np.flatnonzero(row)]) for row in matrix]
    labels, rows = np.unique(sets, return_counts=True)
    shuffled = np.random.default_rng(0).permutation(len(labels))
    whole = MULTI_LABEL.cut_points(labels.tolist(), rows, names, SPEC)
    other = MULTI_LABEL.cut_points(labels[shuffled].tolist(), rows[shuffled], names, SPEC)
    np.testing.assert_array_equal(whole[shuffled], other)
    assert (MULTI_LABEL.cut_points(labels.tolist(), rows, names, SPEC.model_copy(update={"seed": 1})) != whole).any()


@pytest.mark.parametrize("test", [0.2, 0.5, 0.89])
def test_every_label_keeps_a_training_row(test: float) -> None:
    spec = SplitSpec(val=0.1, test=test)
    for rows in (1, 2, 3, 5):
        sets = [("a", "rare"), ("a",), ("b", "a"), ("b", "c"), ()]
        cuts = stratified_shares(sets, np.array([rows, 50, 40, rows, 9]), spec, ("a", "b", "c", "rare"))
        train = np.array([rows, 50, 40, rows, 9]) - cuts[:, 1]
        assert (cuts >= 0).all()
        assert (np.diff(cuts, axis=1) >= 0).all()
        assert (train >= 0).all()
        assert train[0] >= 1
        assert train[3] >= 1
