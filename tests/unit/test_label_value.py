"""The values of rows are Shapley values: equal to those of all subsets, where there are few enough to try them all."""

from itertools import combinations
from math import factorial

import numpy as np
import pytest

from textcls.audit.value import NEIGHBOURS, WORTH_COUNTING, row_values

DRAW = np.random.default_rng


def rows(number: int, labels: int, folds: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ids, embeddings, labels and folds, drawn at random."""
    draw = DRAW(seed)
    row_id = draw.permutation(10 * number)[:number]
    embeddings = draw.normal(size=(number, 6)).astype(np.float32)
    return row_id, embeddings, draw.integers(0, labels, number), np.arange(number) % folds + 1


def clusters(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of three labels that are far from each other."""
    row_id, embeddings, labels, folds = rows(number, 3, 5)
    return row_id, 0.1 * embeddings + np.eye(6, dtype=np.float32)[labels], labels, folds


def values(*arguments: np.ndarray, **options: int) -> np.ndarray:
    """The values alone."""
    return row_values(*arguments, **options).value


def by_all_subsets(embeddings: np.ndarray, decisions: np.ndarray, folds: np.ndarray, neighbours: int) -> np.ndarray:
    """The Shapley value by its definition, of what the nearest neighbours among a subset answer rightly."""
    decisions = decisions.reshape(len(decisions), -1)
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = np.zeros(len(folds))
    for judged in range(len(folds)):
        players = np.flatnonzero(folds != folds[judged])
        agreement = (decisions[players] == decisions[judged]).mean(axis=1)
        cosines = directions[players] @ directions[judged]

        def earned(subset: tuple[int, ...], agreement: np.ndarray = agreement, cosines: np.ndarray = cosines) -> float:
            chosen = sorted(subset, key=lambda one: -cosines[one])[:neighbours]
            free = neighbours - len(chosen)
            return float((agreement[chosen].sum() + free * agreement.mean()) / neighbours)

        everyone = range(len(players))
        for player in everyone:
            others = [other for other in everyone if other != player]
            for size in range(len(players)):
                weight = factorial(size) * factorial(len(players) - size - 1) / factorial(len(players))
                for subset in combinations(others, size):
                    found[players[player]] += weight * (earned((*subset, player)) - earned(subset))
    return found


@pytest.mark.parametrize("neighbours", [1, 3, 5, 12])
@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_all_subsets(neighbours: int, seed: int) -> None:
    row_id, embeddings, labels, folds = rows(12, 3, 3, seed)
    found = values(row_id, embeddings, labels, folds, neighbours=neighbours)
    assert found == pytest.approx(by_all_subsets(embeddings, labels, folds, neighbours), abs=1e-9)


def test_values_of_several_labels_are_those_of_all_subsets() -> None:
    row_id, embeddings, _, folds = rows(11, 2, 3)
    sets = DRAW(7).integers(0, 2, (11, 4))
    found = values(row_id, embeddings, sets, folds, neighbours=3)
    assert found == pytest.approx(by_all_subsets(embeddings, sets, folds, 3), abs=1e-9)


@pytest.mark.parametrize("number", [9, 60, 700])
def test_values_add_up_to_what_the_neighbours_know_beyond_guessing(number: int) -> None:
    row_id, embeddings, labels, folds = rows(number, 3, 4)
    right = 0.0
    for judged in range(number):
        players = np.flatnonzero(folds != folds[judged])
        directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        nearest = players[np.argsort(-directions[players] @ directions[judged])[:NEIGHBOURS]]
        right += (labels[nearest] == labels[judged]).mean() - (labels[players] == labels[judged]).mean()
    assert values(row_id, embeddings, labels, folds).sum() == pytest.approx(right, abs=1e-6)


def test_what_is_left_out_of_a_value_is_less_than_a_hundredth_for_each_judged_row() -> None:
    row_id, embeddings, labels, folds = rows(700, 3, 2)
    (judged,), players = np.flatnonzero(folds == 1)[:1], np.flatnonzero(folds == 2)
    own = np.r_[judged, players]
    found = values(row_id[own], embeddings[own], labels[own], folds[own])[1:]
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    order = np.argsort(-directions[players] @ directions[judged])
    advantage = (labels[players] == labels[judged])[order] - (labels[players] == labels[judged]).mean()
    # Theorem 1 of Jia et al., from the last of all rows on.
    exact = np.zeros(len(players))
    exact[-1] = advantage[-1] / len(players)
    for i in range(len(players) - 1, 0, -1):
        step = (advantage[i - 1] - advantage[i]) / NEIGHBOURS * min(NEIGHBOURS, i) / i
        exact[i - 1] = exact[i] + step
    assert np.abs(found[order] - exact).max() < WORTH_COUNTING
    assert (found[order][round(1 / WORTH_COUNTING) :] == 0).all()


def test_a_wrong_label_among_clear_ones_has_the_lowest_value() -> None:
    row_id, embeddings, labels, folds = clusters(150)
    for wrong in (3, 77, 149):
        changed = labels.copy()
        changed[wrong] = (changed[wrong] + 1) % 3
        found = values(row_id, embeddings, changed, folds)
        assert found.argmin() == wrong
        assert found[wrong] < -0.5
        assert np.median(found) > 0.5
        sets = np.eye(3, dtype=int)[changed]
        assert values(row_id, embeddings, sets, folds).argmin() == wrong


def test_the_order_of_rows_changes_no_value_even_among_equal_embeddings() -> None:
    row_id, embeddings, labels, folds = rows(300, 3, 4)
    embeddings[100:] = embeddings[:200]
    found = values(row_id, embeddings, labels, folds, most_judged=120)
    other = DRAW(1).permutation(300)
    assert (
        values(row_id[other], embeddings[other], labels[other], folds[other], most_judged=120) == found[other]
    ).all()


def test_a_row_is_judged_by_rows_of_other_folds_alone() -> None:
    row_id, embeddings, labels, folds = clusters(60)
    assert (values(row_id, embeddings, labels, np.ones(60, int)) == 0).all()
    # The neighbours of the last row that have its own fold know its label; all others call it by another one.
    alone = np.r_[folds, [9] * 4]
    near = np.r_[embeddings, embeddings[:1], embeddings[:1] + 1e-3, embeddings[:1] + 2e-3, embeddings[:1] - 1e-3]
    found = values(np.arange(64), near, np.r_[labels, [7] * 4], alone)
    assert (found[60:] < 0).all()


def test_the_share_that_neighbours_know_says_whether_values_mean_anything() -> None:
    row_id, embeddings, labels, folds = clusters(300)
    clear = row_values(row_id, embeddings, labels, folds)
    assert clear.known == pytest.approx(1)
    assert clear.summary() == {"judged": 300, "hurt": 0, "known": clear.known}
    changed = labels.copy()
    changed[:9] = (changed[:9] + 1) % 3
    some = row_values(row_id, embeddings, changed, folds)
    assert some.summary()["hurt"] == (some.value <= -1).sum() > 3
    assert set(np.flatnonzero(some.value <= -1)) <= set(range(9))
    assert some.known < clear.known
    drawn = row_values(row_id, embeddings, DRAW(5).integers(0, 3, 300), folds)
    assert abs(drawn.known) < 0.1


def test_of_many_rows_so_many_are_judged_and_stand_for_all() -> None:
    row_id, embeddings, labels, folds = clusters(1_000)
    every, some = values(row_id, embeddings, labels, folds), values(row_id, embeddings, labels, folds, most_judged=300)
    assert some.sum() == pytest.approx(every.sum(), rel=0.02)  # every row is answered rightly
    assert np.corrcoef(every, some)[0, 1] > 0.7
    assert (some != every).any()
    assert row_values(row_id, embeddings, labels, folds, most_judged=300).judged == 300
