"""The arithmetic of jobs/bench/privacy_attack.py, on scores whose answers are known."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from jobs.bench.membership import auc, best_epsilon, found_at, least_epsilon, right_guesses


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("decimals", [12, 1])  # with one, most scores are ties
def test_the_area_is_that_of_scikit_learn_and_so_is_the_share_that_is_found(
    draw: np.random.Generator, decimals: int
) -> None:
    members, others = draw.normal(0.7, 1, 300).round(decimals), draw.normal(0, 1, 500).round(decimals)
    truth, scores = np.repeat([1, 0], [300, 500]), np.concatenate([members, others])
    area, low, high = auc(members, others)
    assert area == pytest.approx(roc_auc_score(truth, scores))
    assert low < area < high
    false_alarms, found, _ = roc_curve(truth, scores, drop_intermediate=False)
    for share in (0.01, 0.1, 0.5):
        assert found_at(members, others, share) == pytest.approx(found[false_alarms <= share].max())


def test_without_an_allowed_false_alarm_a_member_must_surpass_all_others(draw: np.random.Generator) -> None:
    others = draw.normal(size=99)
    members = np.array([others.max(), others.max() + 1])
    assert found_at(members, others, 0.01) == 0.5


def test_the_interval_of_the_area_holds_the_truth_as_often_as_it_says(draw: np.random.Generator) -> None:
    true = 0.5 * (1 + math.erf(0.7 / 2))  # of two normal distributions, 0.7 apart
    inside = 0
    for _ in range(400):
        _, low, high = auc(draw.normal(0.7, 1, 100), draw.normal(0, 1, 100))
        inside += low <= true <= high
    assert 0.92 <= inside / 400 <= 0.98


def test_guesses_are_made_about_the_highest_and_the_lowest_scores() -> None:
    scores, trained_on = np.array([5.0, 1.0, 4.0, 2.0, 3.0]), np.array([True, False, False, True, True])
    assert [right_guesses(scores, trained_on, guesses) for guesses in (2, 4)] == [2, 2]


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_randomized_response_proves_nearly_its_epsilon_and_hardly_ever_more(
    draw: np.random.Generator, epsilon: float
) -> None:
    """Randomized response (Warner 1965) reports a bit as it is with probability e^epsilon / (1 + e^epsilon).

    Its epsilon is known exactly.
    """
    rows, wrong, found = 4_000, 0, 0.0
    for _ in range(40):
        trained_on = draw.integers(2, size=rows).astype(bool)
        truly = draw.random(rows) < 1 / (1 + math.exp(-epsilon))
        scores = np.where(truly, trained_on, ~trained_on) + draw.random(rows) / 2
        found = best_epsilon(scores, trained_on, 0.0, 0.05, (1.0,))
        wrong += found > epsilon
    assert wrong <= 6  # 5 % of 40 are 2; more than 6 have a probability of 0.3 %
    assert 0.8 * epsilon < found < 1.1 * epsilon


def test_scores_that_know_nothing_prove_nothing(draw: np.random.Generator) -> None:
    proven = 0
    for _ in range(60):
        trained_on = draw.integers(2, size=500).astype(bool)
        proven += best_epsilon(draw.normal(size=500), trained_on, 1e-5, 0.05, (0.05, 0.2, 1.0)) > 0
    assert proven <= 8  # 5 % of 60 are 3


def test_the_bound_is_that_of_clopper_and_pearson_and_delta_lowers_it() -> None:
    from scipy.stats import beta

    low = beta.ppf(0.05, 90, 11)  # 90 right guesses of 100
    pure = least_epsilon(100, 100, 90, 0.0, 0.05)
    assert pure == pytest.approx(math.log(low / (1 - low)), abs=1e-3)
    bounds = [least_epsilon(100, 100, 90, delta, 0.05) for delta in (0.0, 1e-4, 1e-3, 1e-2)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[-1]
    assert least_epsilon(100, 100, 55, 0.0, 0.05) == 0.0


def test_with_all_rows_revealed_by_delta_no_epsilon_is_proven() -> None:
    """A mechanism that is exact with probability delta, and else silent, is (0, delta)-private."""
    assert least_epsilon(100, 100, 100, 0.5, 0.05) == 0.0
    assert least_epsilon(100, 100, 100, 0.0, 0.05) == pytest.approx(math.log(0.05**0.01 / (1 - 0.05**0.01)), abs=1e-3)
