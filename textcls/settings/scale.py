"""How many processes train or score: the section `scale` of a recipe.

In: plain values. Out: a checked `ScaleSpec`. Not here: what a cluster has room for (training/scaling.py,
batch/actor_pool.py).
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from textcls.settings.spec import Spec, at_least


class ScaleSpec(Spec):
    """How many processes train or score. Never changes what is learned, except for float rounding."""

    workers: Annotated[int | tuple[int, int] | Literal["auto"], at_least(1)] = "auto"
    """Training processes. `auto`: one per GPU, or one CPU process. `[2, 8]`: as many of 2 to 8 as there is room for."""
    use_gpu: bool | Literal["auto"] = "auto"
    """`auto`: if the cluster has a GPU."""
    cpus_per_worker: Annotated[int | Literal["auto"], at_least(1)] = "auto"
    """CPUs, and threads, of a worker. `auto`: all CPUs of a node, or one for a worker with a GPU."""
    max_failures: int = Field(3, ge=0)
    """The run gives up after more worker failures than this; each restart resumes from the last checkpoint. Preemption
    does not count."""
    hang_timeout_s: float = Field(600.0, ge=1)
    """A worker that does not respond to its peers or to Ray for this long is restarted as if it had died. A shorter
    timeout ends a hang sooner, but must exceed the longest step: with steps of 90 s, 60 would restart healthy
    workers."""
    start_timeout_s: float = Field(600.0, ge=1)
    """How long to wait for CPUs and GPUs that other jobs use, or that an autoscaler has yet to start."""
    resize_after_s: float = Field(60.0, ge=1)
    """With a range of workers: how long there must be room for more before the run rescales. A rescale costs a restart
    of some 10 s: with 60, nodes that stay for less than a minute cause none."""

    @field_validator("workers")
    @classmethod
    def _a_range(cls, value: int | tuple[int, int] | str) -> int | tuple[int, int] | str:
        if isinstance(value, tuple) and not 1 <= value[0] < value[1]:
            raise ValueError("expected a range that begins with 1 or more and ends with a larger number")
        return value

    @property
    def max_workers(self) -> int | None:
        """The most workers that may train; None for `auto`, which depends on the cluster."""
        return self.workers[1] if isinstance(self.workers, tuple) else self.workers if self.workers != "auto" else None
