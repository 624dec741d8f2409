"""The nearest rows are those of a comparison with every row."""

import numpy as np
import pytest

from textcls.inference import neighbours
from textcls.inference.neighbours import nearest


def embeddings(rows: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(rows, 12)).astype(np.float32)
    return found * np.random.default_rng(seed + 1).uniform(0.1, 9, (rows, 1)).astype(np.float32)


@pytest.mark.parametrize("block", [1, 7, 2**13])
def test_the_nearest_rows_are_those_of_a_comparison_with_every_row(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_ROWS", block)
    monkeypatch.setattr(neighbours, "_BLOCK", 5 * block)
    rows, queries = embeddings(40, 3), embeddings(17, 8)
    found, cosines = nearest(queries, rows, 4)
    every = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in rows] for a in queries])
    assert found.tolist() == np.argsort(-every, axis=1, kind="stable")[:, :4].tolist()
    np.testing.assert_allclose(cosines, np.take_along_axis(every, found, 1), atol=1e-6)


def test_of_many_equal_rows_the_first_are_taken_from_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_ROWS", 16)
    rows = np.eye(5, dtype=np.float32)[np.random.default_rng(0).integers(0, 5, 100)]  # cosines of exactly 0 and 1
    found, _ = nearest(rows[:20], rows, 13)
    assert found.tolist() == np.argsort(-(rows[:20] @ rows.T), axis=1, kind="stable")[:, :13].tolist()


def test_of_equal_rows_the_first_comes_first_and_what_has_no_embedding_has_no_neighbour() -> None:
    row, nothing = np.array([1.0, 2.0], np.float32), np.array([np.nan, np.nan], np.float32)
    found, cosines = nearest(np.stack([row, nothing]), np.stack([nothing, -row, row, 3 * row]), 4)
    assert found.tolist() == [[2, 3, 1, -1], [-1, -1, -1, -1]]
    assert np.isnan(cosines[0, 3])
    assert np.isnan(cosines[1]).all()
    assert nearest(row[None], np.empty((0, 2), np.float32), 2)[0].tolist() == [[-1, -1]]
