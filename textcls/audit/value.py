"""What each labelled row is worth to its neighbours: the right answers that it brings, or takes, as a training row.

In: embeddings, folds and labels of rows. Out: a number for each row; below 0, the rows around it would be answered
better without it. Pure. Not here: embeddings (held_out.py), the order of the rows, which does not depend on it
(ranking.py).

The value of a row is its Shapley value in a game that is solved exactly: the rows of all other folds are the players,
and what they earn are the answers that the K nearest of them give (Jia et al. 2019, "Efficient Task-Specific Data
Valuation for Nearest Neighbor Algorithms", theorem 1). For one judged row whose i-th nearest row has the advantage a_i:

    value_i = value_(i+1) + (a_i - a_(i+1)) / K * min(K, i) / i,   and value = a = 0 after the last row

The advantage of a row is the share of its label decisions that are those of the judged row, less that share among all
players: where fewer than K neighbours are left, the places that are free count as guessed. So values add up to what the
nearest neighbours know beyond how common each label is, and 0 is what a row at random brings.

Only the nearest 100 rows are looked at (theorem 2): one farther away has a value of less than 0.01, which counts as 0,
and no value is wrong by more than that. A row has its values summed over all judged rows that it is near to.

Shapes: N rows, J judged rows, M nearest rows, L label decisions of a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from textcls.inference.neighbours import nearest

NEIGHBOURS = 5
"""K: neighbours whose labels answer for a row."""
WORTH_COUNTING = 0.01
"""Rows beyond the nearest 1 / 0.01 have a smaller value than this for a judged row."""
MOST_JUDGED = 20_000
"""Rows whose answers are looked at; of more rows, so many at even distances in the order of the files."""
HURTS = -1.0
"""A row with this value or less costs other rows one right answer or more."""


@dataclass(frozen=True, eq=False)
class RowValues:
    """What rows are worth.

    Attributes:
        value: float64 [N], right answers about rows of other folds that each row brings; below 0: that it takes.
        judged: how many rows were asked about.
        known: the share of what guessing leaves open that the nearest neighbours answer rightly; 0: they know nothing.
    """

    value: np.ndarray
    judged: int
    known: float

    def summary(self) -> dict[str, Any]:
        """What audit.json says of them."""
        return {"judged": self.judged, "hurt": int((self.value <= HURTS).sum()), "known": self.known}


def row_values(
    row_id: np.ndarray,
    embeddings: np.ndarray,
    decisions: np.ndarray,
    folds: np.ndarray,
    *,
    neighbours: int = NEIGHBOURS,
    most_judged: int = MOST_JUDGED,
) -> RowValues:
    """The value of each of N rows, in the order given; another order of the rows changes none.

    The sum is what `neighbours` nearest rows answer rightly beyond guessing, of all N rows.

    Args:
        row_id: int64 [N], all different.
        embeddings: float32 [N, E].
        decisions: [N] or [N, L], what the label of each row decides, such as `Task.baseline_targets`.
        folds: int [N].
        neighbours: K.
        most_judged: rows whose answers are looked at; of more, their values are scaled to all rows.
    """
    order = np.argsort(row_id)
    found, number, open_after_guessing = np.zeros(len(row_id)), 0, 0.0
    nearest_rows = max(neighbours, round(1 / WORTH_COUNTING))
    codes_NL = _codes(decisions[order])
    for judged, players, weight in _games(folds[order], most_judged):
        places_JM, _ = nearest(embeddings[order[judged]], embeddings[order[players]], nearest_rows)
        present_JM = places_JM >= 0
        agreement_JM = np.zeros(places_JM.shape)
        guessed_J = np.zeros(len(judged))
        for code_N in codes_NL.T:
            own_J, of_players = code_N[judged], code_N[players]
            agreement_JM += of_players[places_JM] == own_J[:, None]
            guessed_J += np.bincount(of_players, minlength=code_N.max() + 1)[own_J] / len(players)
        advantage_JM = np.where(present_JM, agreement_JM - guessed_J[:, None], 0.0) / codes_NL.shape[1]
        number += len(judged)
        open_after_guessing += weight * float((1 - guessed_J / codes_NL.shape[1]).sum())
        of_judged_JM = shapley(advantage_JM, neighbours)
        of_players = np.bincount(places_JM[present_JM], of_judged_JM[present_JM], len(players))
        found[order[players]] += weight * of_players
    return RowValues(found, number, float(found.sum()) / open_after_guessing if open_after_guessing else 0.0)


def shapley(advantage_JM: np.ndarray, neighbours: int) -> np.ndarray:
    """float64 [J, M]: the values of the rows near to J judged rows, by the formula above.

    Args:
        advantage_JM: float64, from the nearest row on; 0 where there is none.
        neighbours: K, at most M.
    """
    place_M = np.arange(1, advantage_JM.shape[1] + 1)
    steps_JM = -np.diff(advantage_JM, axis=1, append=0.0) * np.minimum(neighbours, place_M) / (neighbours * place_M)
    summed: np.ndarray = np.cumsum(steps_JM[:, ::-1], axis=1)[:, ::-1]
    return summed


def _codes(decisions: np.ndarray) -> np.ndarray:
    """int32 [N, L]: the decisions as whole numbers from 0 on."""
    rows_NL = decisions.reshape(len(decisions), -1)
    codes = [np.unique(column, return_inverse=True)[1].reshape(-1).astype(np.int32) for column in rows_NL.T]
    return np.stack(codes, axis=1)


def _games(folds: np.ndarray, most_judged: int) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """(places of the judged rows of a fold, places of all rows of other folds, rows that each judged one stands for)"""
    for fold in np.unique(folds).tolist():
        inside, players = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        number = max(1, len(inside) * most_judged // len(folds)) if len(folds) > most_judged else len(inside)
        judged = inside[np.arange(number) * len(inside) // number]
        if len(players):
            yield judged, players, len(inside) / number
