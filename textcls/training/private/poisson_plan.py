"""Which rows make up each step of private training: each row takes part by a draw of its own.

In: the budget, the run's secret and an epoch. Out: the epoch's batches, as row numbers, on every worker the same.
Not here: the draws (randomness.py); a worker's share of a batch (batch_plan.py), which is that of any training.

The accountant's bound holds for this sampling alone. Batches therefore differ in size, and may be empty; a row is used
once an epoch on average. They are not sorted by length either: each is whole, and micro_batches sorts it.
"""

from dataclasses import dataclass

import numpy as np

from textcls.training.private.budget import Budget
from textcls.training.private.randomness import sampled


@dataclass(frozen=True, eq=False)
class PoissonPlan:
    """The batches of one epoch, in the order of the steps; see `EpochPlan`, in whose place it is.

    Attributes:
        budget: the rate of sampling, and the number of rows.
        key: the run's secret.
        first_step: number of the first step of the epoch.
        steps: of the epoch.
    """

    budget: Budget
    key: bytes
    first_step: int
    steps: int

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> np.ndarray:
        """int64 [rows of the batch]: the row numbers of a step, ascending.

        Raises:
            IndexError: the epoch has no such step.
        """
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of an epoch of {self.steps} steps")
        return sampled(self.key, self.first_step + step, self.budget.rows, self.budget.sampling_rate)
