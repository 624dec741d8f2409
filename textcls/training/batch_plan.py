"""Which rows make up each training step, the same on every worker and for any number of workers.

In: the length of every training row in tokens, a seed and an epoch. Out: the epoch's batches, as row numbers, each row
exactly once; a worker's share of a batch; the parts in which it runs that share. Pure numpy.
Not here: reading the rows (loop.py), padding them (token_rows.py).

    shuffle all rows ─▶ megabatches of ~50 batches, each sorted by length ─▶ cut into batches ─▶ shuffle the batches

Rows of like length share a batch, so little is padded; a megabatch is small enough that batches stay a matter of
chance.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """The batches of one epoch, in the order of the steps: `plan[step]`, `len(plan)`, iteration.

    All batches hold `rows_per_step` rows but at most one, which holds what is left over. Batches are views: the whole
    plan is one array, 8 bytes a row.

    Attributes:
        rows: int64 [N], every row number once; consecutive runs of `rows_per_step` are the batches.
        batch_of_step: int64 [S], which of these runs each step uses.
        rows_per_step: rows of a batch, over all workers together.
    """

    rows: np.ndarray
    batch_of_step: np.ndarray
    rows_per_step: int

    def __len__(self) -> int:
        return len(self.batch_of_step)

    def __getitem__(self, step: int) -> np.ndarray:
        """int64 [rows of the batch]: the row numbers of a step, from the shortest row to the longest.

        Raises:
            IndexError: the epoch has no such step.
        """
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of an epoch of {len(self)} steps")
        start = int(self.batch_of_step[step]) * self.rows_per_step
        return self.rows[start : start + self.rows_per_step]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[step] for step in range(len(self)))


def steps_per_epoch(rows: int, rows_per_step: int) -> int:
    """Batches that so many rows make, the short one included."""
    return -(-rows // rows_per_step)


def epoch_batches(lengths: np.ndarray, seed: int, epoch: int, rows_per_step: int, megabatch: int = 50) -> EpochPlan:
    """The plan of an epoch; a function of its arguments and nothing else.

    Args:
        lengths: int [N], tokens of each row as the model sees it: after the cut or in all windows, special tokens
            included.
        seed: any integer >= 0.
        epoch: from 0; another epoch, another order.
        rows_per_step: rows of a batch, over all workers together.
        megabatch: batches that are sorted together. More of them pad less and mix less.
    """
    steps = steps_per_epoch(len(lengths), rows_per_step)
    # NumPy promises that a bit generator's raw stream never changes, but not so `permutation` (NEP 19). A run that is
    # resumed under another NumPy must find the same batches.
    bits = np.random.Philox(np.random.SeedSequence([seed, epoch]))
    rows = np.argsort(bits.random_raw(len(lengths)), kind="stable")
    batch_of_step = np.argsort(bits.random_raw(steps), kind="stable")

    # Megabatches of equal size rather than full ones and a remainder: a small one would pad more.
    megabatches = max(1, round(steps / megabatch))
    edges = np.arange(megabatches + 1) * steps // megabatches * rows_per_step
    for start, stop in itertools.pairwise(edges):
        sorted_together = rows[start:stop]
        sorted_together[:] = sorted_together[np.argsort(lengths[sorted_together], kind="stable")]
    rows.flags.writeable = False
    return EpochPlan(rows, batch_of_step, rows_per_step)


def share_of(batch: np.ndarray, lengths: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """int64 [about batch / world_size]: the rows of a batch that one worker takes; empty if there are too few.

    The shares of all ranks are the batch. They differ by at most one row, and by at most the tokens of its longest
    row: rows are dealt from the longest to the shortest, there and back (0 1 2 2 1 0 0 1 ...).
    """
    assert 0 <= rank < world_size, f"rank {rank} of {world_size} workers"
    by_length = batch[np.argsort(lengths[batch], kind="stable")[::-1]]
    there, back = by_length[rank :: 2 * world_size], by_length[2 * world_size - 1 - rank :: 2 * world_size]
    return np.concatenate([there, back])


def padding_ratio(batches: Iterable[np.ndarray], lengths: np.ndarray) -> float:
    """Padded / real tokens of batches that are each padded to their longest row; 1.0 means nothing is wasted."""
    padded = real = 0
    for batch in batches:
        if len(batch):
            of_batch = lengths[batch]
            padded += len(batch) * int(of_batch.max())
            real += int(of_batch.sum())
    return padded / real if real else 1.0
