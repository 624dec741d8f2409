"""One of k folds of the rows as the test split: `split.fold`.

In: the sizes of strata, and for each stratum the fold that its first row is in. Out: which places of a stratum the fold
holds, and the places of its other rows among themselves. Pure numpy. Not here: the order of a stratum (split.py), which
fold a stratum begins in (tasks/shares.py).

The places of a stratum are in the k folds in turn, so every row is in exactly one, and each fold holds 1/k of a stratum
to within one row. The places are those of the hash by which rows are split: a fold is a function of the texts too.
"""

from dataclasses import dataclass

import numpy as np

from textcls.settings.recipe import SplitSpec


@dataclass(frozen=True, eq=False)
class Fold:
    """A fold of S strata.

    Attributes:
        index: which one, from 0.
        count: how many there are.
        offsets: int64 [S], the fold of the first row of each stratum; -1: no fold ever holds a row of it.
    """

    index: int
    count: int
    offsets: np.ndarray

    def holds(self, position: np.ndarray, stratum: np.ndarray) -> np.ndarray:
        """bool [N]: whether the fold holds the rows at these places of these strata."""
        offset = self.offsets[stratum]
        found: np.ndarray = (offset >= 0) & ((position + offset) % self.count == self.index)
        return found

    def before(self, position: np.ndarray, stratum: np.ndarray) -> np.ndarray:
        """int64 [N]: how many rows of the stratum the fold holds before each of these places."""
        offset = self.offsets[stratum]
        first = (self.index - offset) % self.count
        found: np.ndarray = np.where(offset >= 0, np.maximum(-(-(position - first) // self.count), 0), 0)
        return found

    def others(self, sizes: np.ndarray) -> np.ndarray:
        """int64 [S]: rows of each stratum that the fold does not hold."""
        found: np.ndarray = sizes - self.before(sizes, np.arange(len(sizes)))
        return found


def index_and_count(spec: SplitSpec) -> tuple[int, int] | None:
    """(which fold, from 0; of how many) of `split.fold`; None without it."""
    if spec.fold is None:
        return None
    number, _, count = spec.fold.partition("/")
    return int(number) - 1, int(count)
