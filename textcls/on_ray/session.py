"""A connection to Ray: to the cluster that a job was submitted to, or to a local Ray.

In: the environment. Out: a connected driver that Ctrl-C interrupts. Not here: what runs on it, whether the cluster can
be joined (cluster.py), private names of Ray (internals.py).
"""

import errno
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import textcls
from textcls.errors import InputError, RayStartError, StorageError, own_error
from textcls.on_ray import internals
from textcls.on_ray.cluster import answering_head, attached, ensure_own_token

# Attempts to start a local Ray. Ray gives its node 30 s, which a busy machine may exceed.
_STARTS = 3


@contextmanager
def ray_session(*, verbose: bool = False, address: str = "") -> Iterator[None]:
    """Joins the cluster that RAY_ADDRESS names, or starts a local Ray of all CPUs that ends with the block.

    Args:
        verbose: show Ray's own log lines, its workers' included. They are in Ray's session directory in any case.
        address: `own_address` of the process that started this one, to join its Ray as another driver.

    Raises:
        InputError: the cluster cannot be joined.
        StorageError: Ray cannot write where it keeps its files.
        RayStartError: the machine is too busy to start Ray.
    """
    import ray

    if ray.is_initialized():  # a notebook or a test that keeps its own session
        with _own_errors():
            yield
        return
    internals.set_driver_defaults()
    level = logging.INFO if verbose else logging.ERROR
    logging.getLogger("ray").setLevel(level)
    if address:
        internals.enable_existing_token()
        where: dict[str, Any] = {"address": address}
    elif attached():
        where = {"address": answering_head()}
    else:
        ensure_own_token()
        where = {"address": "local", "include_dashboard": False}
    # `ray job submit --working-dir` brings the code to other machines.
    code = internals.job_config(Path(textcls.__file__).parent.parent)
    _start(lambda: ray.init(logging_level=level, log_to_driver=verbose, job_config=code, **where))
    logging.getLogger("ray.train").setLevel(level)
    # Ray Data logs an error of a task as a fault of Ray's, with Ray's own stack, and then raises it.
    logging.getLogger("ray.data").setLevel(level if verbose else logging.CRITICAL)
    # SIGTERM acts like Ctrl-C: Ray's own handler ends in a crash report.
    if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _own_errors():
            yield
    finally:
        ray.shutdown()


def own_node() -> str:
    """Id of the node of the cluster that this process runs on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def own_address() -> str:
    """HOST:PORT of the head of the Ray that this process is connected to, a local one included."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def _start(init: Callable[[], object]) -> None:
    """Starts or joins Ray; retries a start that timed out."""
    import ray

    for starts_left in reversed(range(_STARTS)):
        try:
            init()
            return
        except Exception as error:
            ray.shutdown()
            if starts_left and "timed out during startup" in str(error):
                continue
            if (refusal := _refusal(error)) is None:
                raise
            raise refusal from error


def _refusal(error: Exception) -> InputError | StorageError | RayStartError | None:
    """The error for a Ray that did not start or join, if the user can do something about it; otherwise None."""
    messages = [str(one).strip() for one in (error, error.__cause__) if one]
    if "timed out during startup" in messages[0]:
        return RayStartError(
            f"Ray did not start on this machine in {_STARTS} attempts of 30 s",
            todo="run the command again when less else is running here; `--verbose` shows Ray's log",
        )
    if attached() and (found := next((text for text in messages if "Version mismatch" in text), "")):
        return InputError(
            f"RAY_ADDRESS is {os.environ['RAY_ADDRESS']}: {' '.join(found.split())}",
            expected="the cluster's versions of Ray and Python",
            todo="install them here, or hand the job to the cluster with `ray job submit`",
        )
    if attached() and isinstance(error, (ConnectionError, RuntimeError)):
        return InputError(
            f"RAY_ADDRESS is {os.environ['RAY_ADDRESS']}: the cluster was found and not joined: {': '.join(messages)}",
            expected="a node of the cluster on this machine",
            todo="`ray start --address HEAD:PORT` makes this machine one; or `ray job submit` from anywhere",
        )
    if isinstance(error, PermissionError) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EROFS):
        return StorageError(
            f"Ray cannot write its files: {error}",
            todo="set RAY_TMPDIR to a short path of a directory that this user may write, with some GB free",
        )
    return None


@contextmanager
def _own_errors() -> Iterator[None]:
    """Unwraps an error of ours that a task raised and Ray wrapped."""
    try:
        yield
    except Exception as error:
        own = own_error(error)
        if own is None or own is error:
            raise
        raise own from None
