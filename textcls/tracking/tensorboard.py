"""Events as the curves of TensorBoard, in OUT/tensorboard.

In: events. Out: an event file for each start of the run; object storage gets it after each epoch. Not here: which
numbers are drawn (`Event.scalars`).
"""

import glob
import os
import secrets
import tempfile
from collections.abc import Sequence
from typing import Any

from textcls import storage
from textcls.tracking.events import STEP_METRICS, Event


class TensorBoard:
    """The sink that writes TensorBoard's event files.

    Args:
        uri: the run's directory.
    """

    name = "TensorBoard"

    def __init__(self, uri: str) -> None:
        self._uri = storage.join(uri, "tensorboard")
        self._writer: Any = None
        self._staging: tempfile.TemporaryDirectory[str] | None = None

    def write(self, events: Sequence[Event]) -> None:
        """Adds a point to each chart; the first point creates the file."""
        from tensorboardX.proto.event_pb2 import Event as Record
        from tensorboardX.summary import scalar

        drawn = [event for event in events if event.scalars()]
        if not drawn:
            return
        if self._writer is None:
            self._writer = self._open()
        with storage.explained(self._uri):
            for event in drawn:
                for chart, value in event.scalars().items():
                    step = event.values["step"]
                    record = Record(step=step, wall_time=event.time, summary=scalar(chart, value))
                    self._writer.write_event(record)
            self._writer.flush()
        if any(event.name != STEP_METRICS for event in drawn):
            self._upload()

    def close(self, error: str) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.close()
            self._upload()
            if self._staging:
                self._staging.cleanup()

    def _open(self) -> Any:
        """A writer; TensorBoard keeps a growing file open, so a local one is written in place."""
        from tensorboardX.event_file_writer import EventsWriter

        if storage.is_remote(self._uri):
            self._staging = tempfile.TemporaryDirectory(prefix="textcls-tensorboard-")
        directory = self._staging.name if self._staging else self._uri
        with storage.explained(directory):
            os.makedirs(directory, exist_ok=True)
            return EventsWriter(os.path.join(directory, "events"), f".{secrets.token_hex(4)}")

    def _upload(self) -> None:
        if self._staging:
            for path in glob.glob(os.path.join(self._staging.name, "*")):
                storage.write_bytes(storage.join(self._uri, os.path.basename(path)), storage.read_bytes(path))
