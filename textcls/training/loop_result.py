"""What the fine-tuning loop returns, to the worker and to the driver.

In: the loop at its end. Out: a `TrainOutcome`, or `Stopped`. Not here: the loop (loop.py), the weights themselves,
which lie in the best checkpoint (checkpoint.py).
"""

from dataclasses import dataclass

from textcls.manifest import Calibration
from textcls.slices.findings import Studied
from textcls.tasks.task import RowCounts
from textcls.training import checkpoint


@dataclass(frozen=True)
class TrainOutcome:
    """What a loop that came to the end of the recipe returns.

    Attributes:
        state: after the last step.
        test: test counts of the best checkpoint, calibrated.
        studied: slices and examples of the same rows; None if they were not asked for.
        calibration: fitted on the validation split.
        head: name of the layer that the temperature is folded into.
        bf16: whether matrix products ran in bfloat16.
        world_size: workers that finished the run.
        device: "cpu" or the GPU's name.
        first_step_at: Unix time at which this process had done its first optimizer step, or None.
    """

    state: checkpoint.TrainingState
    test: RowCounts
    calibration: Calibration
    head: str
    bf16: bool
    world_size: int
    device: str
    first_step_at: float | None
    studied: Studied | None = None


@dataclass(frozen=True)
class Stopped:
    """What a loop returns that was asked to stop.

    Attributes:
        step: of the checkpoint to resume from.
    """

    step: int
