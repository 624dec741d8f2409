"""What the training loop needs of the process and the cluster that it runs in.

In: nothing; a protocol. Out: `WorkerContext`. Not here: the one of Ray Train (ray_context.py). The tests have one
without a cluster, so each law of the loop is a test of one process.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from textcls.progress import StepProgress

UNSCORED = -1e30
"""The score of a checkpoint that is not the best so far: below any metric, so that it is never kept as the best."""


class WorkerContext(Protocol):
    """One worker of a training run.

    Attributes:
        rank: 0 to `world_size` - 1.
        world_size: how many workers share each global batch.
        device: where this worker computes.
    """

    rank: int
    world_size: int
    device: torch.device

    def wrap(self, model: Any) -> Any:
        """The module that averages gradients over the ranks; the same module if there is one rank."""

    def sum_over_ranks(self, values: torch.Tensor) -> None:
        """Replaces `values` by the sum over all ranks. Every rank has to call it."""

    def should_stop(self) -> bool:
        """Whether the driver has requested a stop, as far as this rank knows; never waits."""

    def latest_checkpoint(self) -> AbstractContextManager[str | None]:
        """A local directory with the checkpoint to resume from; None if the run starts from the pretrained model."""

    def checkpoint_uri(self, step: int) -> str:
        """Where the checkpoint of a step is saved."""

    def save_checkpoint(self, write: Callable[[str], None], *, step: int, score: float) -> None:
        """Saves a checkpoint at `checkpoint_uri(step)`, while training goes on. Every rank has to call it.

        Args:
            write: writes the files into an empty local directory; called on rank 0 alone, before this returns.
            step: optimizer steps done.
            score: the checkpoint with the highest score is kept, besides the latest.
        """

    def wait_for_checkpoints(self) -> None:
        """Returns once every checkpoint is where it is saved. Every rank has to call it."""

    def report_progress(self, progress: StepProgress) -> None:
        """Has the driver show the progress; on rank 0, and at most twice a second."""

    def report_line(self, line: str) -> None:
        """Has the driver show a line; on rank 0."""

    def report_event(self, name: str, **values: Any) -> None:
        """Has the driver record an event; on rank 0."""

    def record_step(self, seconds: float, speed: Mapping[str, float]) -> None:
        """Exports the duration of a step of this rank, and the latest speed of all ranks ({} before the first)."""
