"""The pretrained model on the node of a worker.

In: the model as the driver found it. Out: a directory on this node with the same files, byte for byte.
Not here: finding it by name (modeling/pretrained.py). A worker never does: on its node the name may mean another model.

If the files are not at the driver's path on this node, Ray transfers them from the driver's node, once per node, into
the cache; their directory is named by the hash of their content.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from textcls import storage
from textcls.errors import ModelError
from textcls.modeling.pretrained import Pretrained, cache_root, hashes

# The most bytes of a file that the object store holds at a time.
_PIECE_BYTES = 64 * 2**20


def model_here(model: Pretrained, driver_node: str) -> str:
    """A directory on this node that holds the model's files; every byte of them has been checked.

    Args:
        model: as the driver found it.
        driver_node: Ray's id of the driver's node.

    Raises:
        ModelError: the files have changed since the driver found them.
        StorageError: the cache cannot be written.
    """
    if _holds(model.directory, model):
        return model.directory
    copy = os.path.join(cache_root(), model.digest[:32])
    with _locked(copy):
        if _holds(copy, model):
            return copy
        pieces = ray.remote(_piece).options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(driver_node, soft=False)
        )
        for name in model.files:
            path = os.path.join(model.directory, name)
            with storage.written_whole(os.path.join(copy, name)) as out:
                start = 0
                while piece := ray.get(pieces.remote(path, start, _PIECE_BYTES)):
                    out.write(piece)
                    start += len(piece)
        if not _holds(copy, model):
            raise ModelError(
                f"{model.name}: the files in {model.directory} have changed since the run looked at them",
                expected="a model that stays as it is while workers start",
                todo="let what writes there end, and start the run again",
            )
    return copy


def _holds(directory: str, model: Pretrained) -> bool:
    return hashes(directory) == model.files


def _piece(path: str, start: int, size: int) -> Any:
    """Up to `size` bytes of a file from `start` on; runs on the driver's node."""
    with storage.explained(path), open(path, "rb") as file:
        file.seek(start)
        return file.read(size)


@contextmanager
def _locked(copy: str) -> Iterator[None]:
    """Lets one worker of a node in at a time."""
    with storage.explained(copy):
        os.makedirs(copy, exist_ok=True)
        lock = os.open(f"{copy}.lock", os.O_RDWR | os.O_CREAT)
    try:
        with suppress(OSError):  # a file system without locks: the copies are equal
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
