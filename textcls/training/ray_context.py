"""A worker of Ray Train as the `WorkerContext` of the training loop.

In: the handle of the run's `Coordinator`, where the attempt's checkpoints go. Out: a context whose checkpoints Ray
Train keeps, and whose progress and events reach the driver. Not here: the loop (loop.py), what the driver does with a
worker's posts (attempts.py).
"""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed

from textcls import storage
from textcls.directories import put_directory
from textcls.errors import TrainingError
from textcls.on_ray import internals
from textcls.on_ray.session import own_node
from textcls.progress import POLL_S, StepProgress
from textcls.tracking.events import Event
from textcls.tracking.ray_metrics import StepMetrics
from textcls.training import checkpoint

# How often rank 0 asks the coordinator whether to stop.
_ASK_EVERY_S = 1.0
# Ranks that wait for the same peer report their timeouts within this time of each other.
_TIMEOUTS_TOGETHER_S = 3.0


class RayContext:
    """This process as a worker of Ray Train; registered with the coordinator. See `WorkerContext`.

    Args:
        coordinator: handle of the run's `Coordinator` actor.
        run_id: names the run among Ray's metrics.
        attempt_uri: where Ray Train keeps this attempt's checkpoints.
        resume_uri: checkpoint of an earlier attempt to resume from, or "".
        hang_timeout_s: how long a rank waits for its peers.
    """

    def __init__(
        self, coordinator: Any, *, run_id: str, attempt_uri: str, resume_uri: str, hang_timeout_s: float
    ) -> None:
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        self._coordinator, self._hang_timeout_s = coordinator, hang_timeout_s
        self._attempt_uri, self._resume_uri = attempt_uri, resume_uri
        ray.get(coordinator.register.remote(self.rank, self.world_size, own_node()))
        self._metrics = StepMetrics(run_id, self.rank, self.report_line)
        self._posted_at = self._asked_at = float("-inf")
        self._stop, self._question = False, None
        self.staging_prefix = _staging_prefix(attempt_uri)
        if self.rank == 0:
            # What workers of this run left that were killed.
            for left in Path(tempfile.gettempdir()).glob(f"{self.staging_prefix}*"):
                shutil.rmtree(left, ignore_errors=True)

    # Ranks

    def wrap(self, model: Any) -> Any:
        """Wrapped for data parallelism if there are several ranks."""
        return ray.train.torch.prepare_model(model, parallel_strategy_kwargs={"gradient_as_bucket_view": True})

    def sum_over_ranks(self, values: torch.Tensor) -> None:
        """Replaces `values` by their sum over all ranks."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)

    def should_stop(self) -> bool:
        """The coordinator's latest answer. Rank 0 asks again after a second, and no call waits for an answer."""
        now = time.monotonic()
        if self.rank == 0 and self._question is None and now - self._asked_at >= _ASK_EVERY_S:
            self._question, self._asked_at = self._coordinator.should_stop.remote(), now
        if self._question is not None and ray.wait([self._question], timeout=0)[0]:
            self._stop, self._question = ray.get(self._question), None
        return self._stop

    def peer_timeout(self, error: RuntimeError) -> TrainingError | None:
        """The error that names the ranks for which this one has waited in vain, if that is what `error` means."""
        if self.world_size == 1 or "timed out" not in str(error).lower():
            return None
        ray.get(self._coordinator.report_timeout.remote(self.rank))
        time.sleep(_TIMEOUTS_TOGETHER_S)  # until the others have reported theirs
        waited = ray.get(self._coordinator.report_timeout.remote(self.rank))
        hung = sorted(set(range(self.world_size)) - waited)
        ranks = f"rank{'s' if len(hung) > 1 else ''} {', '.join(map(str, hung))}" if hung else "a rank"
        return TrainingError(f"{ranks} did not answer for {self._hang_timeout_s:g} s")

    # Checkpoints

    @contextmanager
    def latest_checkpoint(self) -> Iterator[str | None]:
        """Ray Train's latest checkpoint of this attempt, else an earlier attempt's, else None."""
        latest = ray.train.get_checkpoint()
        # Not Ray's copy of a remote one: everyone on the node could read the secret of private training in it.
        if uri := self.checkpoint_uri(_step_of(latest.path)) if latest else self._resume_uri:
            with checkpoint.local_copy(uri) as directory:
                yield directory
        else:
            yield None

    def checkpoint_uri(self, step: int) -> str:
        """In the attempt's directory."""
        return storage.join(self._attempt_uri, _directory_of(step))

    def save_checkpoint(self, write: Callable[[str], None], *, step: int, score: float) -> None:
        """Has rank 0 write the files, and Ray Train upload them on a thread."""
        staged = None
        if self.rank == 0:
            directory = tempfile.mkdtemp(prefix=self.staging_prefix)
            write(directory)
            staged = ray.train.Checkpoint.from_directory(directory)
        ray.train.report(
            {"score": score, "step": step},
            checkpoint=staged,
            checkpoint_dir_name=_directory_of(step),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=self._upload,
            delete_local_checkpoint_after_upload=True,
        )

    def _upload(self, staged: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
        """Copies a checkpoint to the attempt's directory; if a kill or a full disk interrupts, no manifest is there."""
        target = storage.join(self._attempt_uri, name)
        # A restarted worker repeats steps, with the same result.
        if not storage.exists(storage.join(target, checkpoint.MANIFEST)):
            started = time.perf_counter()
            put_directory(staged.path, target, last=checkpoint.MANIFEST, owner_only=(checkpoint.KEY,))
            seconds = round(time.perf_counter() - started, 3)
            self.report_event("checkpoint_saved", step=_step_of(name), seconds=seconds)
        return internals.reported_checkpoint(name)

    def wait_for_checkpoints(self) -> None:
        """Returns once every upload has ended."""
        ray.train.get_all_reported_checkpoints()

    # What the driver shows and records

    def report_progress(self, progress: StepProgress) -> None:
        """Posts the progress, if the last post is old enough or this is the last step."""
        now = time.monotonic()
        if self.rank == 0 and (now - self._posted_at >= POLL_S or progress.done >= progress.total):
            self._posted_at = now
            self._coordinator.post_progress.remote(progress)

    def report_line(self, line: str) -> None:
        """Posts a line worth keeping, such as an epoch's validation."""
        if self.rank == 0:
            self._coordinator.post_progress.remote(None, line)

    def report_event(self, name: str, **values: Any) -> None:
        """Posts an event for the driver's journal."""
        if self.rank == 0:
            self._coordinator.post_event.remote(Event(name, values))

    def record_step(self, seconds: float, speed: Mapping[str, float]) -> None:
        """Exports the step through Ray's metrics."""
        self._metrics.record(seconds, speed)


def _staging_prefix(attempt_uri: str) -> str:
    """How the names of a run's checkpoints start in the temporary directory, before they are uploaded."""
    run = attempt_uri.rpartition("/")[0]
    return f"textcls-checkpoint-{hashlib.sha256(run.encode()).hexdigest()[:12]}-"


def _directory_of(step: int) -> str:
    return f"step-{step:08d}"


def _step_of(directory: str) -> int:
    return int(directory.rpartition("-")[2])
