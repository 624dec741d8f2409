"""Embeddings -> the rows nearest to others: exact, block by block.

In: float32 arrays of embeddings. Out: for each query the k rows with the largest cosine, and the cosines. Pure numpy.
Not here: embeddings themselves (embeddings.py), texts that are nearly the same letter by letter
(text/near_duplicates.py).

Shapes: Q queries, N rows, E hidden size.
"""

import numpy as np

# Numbers of a block of cosines: 32 MB.
_BLOCK = 2**23
# Rows of a block.
_ROWS = 2**13


def nearest(queries_QE: np.ndarray, rows_NE: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, cosines): int64 and float32 [Q, k], from the nearest row on; of equal ones the first row comes first.

    Where there are not enough rows, the row is -1 and the cosine NaN. Rows and queries of NaN have no neighbours.

    Args:
        queries_QE: embeddings to find neighbours of.
        rows_NE: embeddings that the neighbours are chosen from.
        k: how many to find.
    """
    best, cosines = np.full((len(queries_QE), k), -1, np.int64), np.full((len(queries_QE), k), -np.inf)
    directions_NE = unit_length(rows_NE)
    step = max(1, _BLOCK // _ROWS)
    for start in range(0, len(queries_QE), step):
        some = slice(start, start + step)
        directions_SE = unit_length(queries_QE[some])
        for first in range(0, len(rows_NE), _ROWS):
            near_SR = directions_SE @ directions_NE[first : first + _ROWS].T
            _keep_best(best[some], cosines[some], near_SR, first)
    best[np.isneginf(cosines)] = -1
    cosines[np.isneginf(cosines)] = np.nan
    return best, cosines.astype(np.float32)


def _keep_best(best_Sk: np.ndarray, cosines_Sk: np.ndarray, near_SR: np.ndarray, first: int) -> None:
    """Merges a block of cosines, whose first row is `first`, into the best so far, in place."""
    k = best_Sk.shape[1]
    found_Sk = _nearest_of_block(near_SR, k)
    cosines = np.concatenate([cosines_Sk, np.take_along_axis(near_SR, found_Sk, 1)], axis=1)
    rows = np.concatenate([best_Sk, first + found_Sk], axis=1)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]  # NaN last, after the places that are free
    best_Sk[:], cosines_Sk[:] = np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1)


def _nearest_of_block(near_SR: np.ndarray, k: int) -> np.ndarray:
    """int64 [S, at most k]: the places of the k largest cosines of a block, ascending; of equal ones the first."""
    if near_SR.shape[1] <= k:
        return np.broadcast_to(np.arange(near_SR.shape[1]), near_SR.shape)
    away_SR = -near_SR
    found_Sk = np.argpartition(away_SR, k - 1, axis=1)[:, :k]  # a twentieth of the time of sorting the block
    last_S1 = np.take_along_axis(away_SR, found_Sk, 1).max(axis=1, keepdims=True)
    tied = np.flatnonzero((away_SR <= last_S1).sum(axis=1) != k)  # of equal ones it may have taken any
    found_Sk[tied] = np.argsort(away_SR[tied], axis=1, kind="stable")[:, :k]
    return np.sort(found_Sk, axis=1)


def unit_length(rows_NE: np.ndarray) -> np.ndarray:
    """float32 [N, E]: the rows, each divided by its length."""
    lengths_N1 = np.linalg.norm(rows_NE, axis=1, keepdims=True)
    return np.asarray(rows_NE / np.maximum(lengths_N1, np.finfo(np.float32).tiny), np.float32)
