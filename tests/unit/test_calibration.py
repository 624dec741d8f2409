"""The laws of textcls/tasks/calibration.py: sums over pieces, the temperature that was put in, thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from textcls.tasks.calibration import (
    TEMPERATURES,
    best_temperature,
    confidence_counts,
    log_loss,
    lowest_threshold,
    softmax,
)

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, rows: int, classes: int, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too sure by a factor, and labels drawn from the true probabilities."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(rows, classes)) * 2
    below = softmax(logits).cumsum(axis=1) < draw.random((rows, 1))
    return logits * temperature, np.minimum(below.sum(axis=1), classes - 1)


def temperature_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.array([log_loss(softmax(logits / temperature), labels) for temperature in TEMPERATURES])


def counted(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    p = softmax(logits)
    return confidence_counts(p.max(axis=1), p.argmax(axis=1) == labels)


@given(seeds, st.integers(0, 60), st.integers(2, 5), st.integers(1, 5))
@settings(deadline=None, max_examples=50)
def test_pieces_add_up_to_the_whole(seed: int, rows: int, classes: int, parts: int) -> None:
    logits, labels = drawn(seed, rows, classes)
    pieces = np.array_split(np.random.default_rng(seed).permutation(rows), parts)
    for measure in (temperature_losses, counted):
        summed = sum(measure(logits[piece], labels[piece]) for piece in pieces)
        np.testing.assert_allclose(summed, measure(logits, labels), rtol=1e-9)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7, 6.0])
def test_the_temperature_that_was_put_in_comes_out(temperature: float) -> None:
    logits, labels = drawn(1, 40_000, 3, temperature)
    assert best_temperature(temperature_losses(logits, labels)) == pytest.approx(temperature, rel=0.03)


@given(seeds, st.integers(20, 300), st.integers(2, 5), st.floats(0.3, 4))
@settings(deadline=None, max_examples=40)
def test_the_temperature_is_that_of_the_least_loss(seed: int, rows: int, classes: int, factor: float) -> None:
    logits, labels = drawn(seed, rows, classes, factor)

    def loss(t: float) -> float:
        return -float(log_softmax(logits / t, axis=1)[np.arange(rows), labels].mean())

    found = best_temperature(temperature_losses(logits, labels))
    least = minimize_scalar(loss, bounds=(TEMPERATURES[0], TEMPERATURES[-1]), method="bounded").fun
    assert loss(found) <= least + 1e-6


def test_without_rows_nothing_is_changed() -> None:
    assert best_temperature(temperature_losses(np.empty((0, 3)), np.empty(0, np.int64))) == 1.0


@given(seeds, st.integers(1, 200), st.integers(2, 4), st.floats(0.3, 0.99))
@settings(deadline=None, max_examples=80)
def test_answers_from_the_threshold_on_are_right_as_often_as_wanted(
    seed: int, rows: int, classes: int, wanted: float
) -> None:
    logits, labels = drawn(seed, rows, classes)
    p = softmax(logits)
    right = p.argmax(axis=1) == labels
    threshold = lowest_threshold(counted(logits, labels), wanted)
    levels = np.unique(np.floor(p.max(axis=1) * 2000) / 2000)
    fit = [level for level in levels if right[p.max(axis=1) >= level].mean() >= wanted]
    if threshold == 1:
        assert not fit
        return
    assert right[p.max(axis=1) >= threshold].mean() >= wanted
    assert threshold <= fit[0] + 1e-9
