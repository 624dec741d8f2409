"""A connection to Ray: the cluster a job was submitted to, or a Ray of this machine's own.

In: the environment. Out: a connected driver that Ctrl-C interrupts. Not here: what runs on it.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import textcls
from textcls.errors import own_error


def attached() -> bool:
    """Whether this process belongs to a running cluster (`ray job submit` and `RAY_ADDRESS=auto` say so)."""
    return bool(os.environ.get("RAY_ADDRESS"))


@contextmanager
def ray_session(*, verbose: bool = False) -> Iterator[None]:
    """Joins the cluster that RAY_ADDRESS names, or starts a local Ray of all CPUs that ends with the block.

    Args:
        verbose: show Ray's own log lines, its workers' included. They are in Ray's session directory in any case.
    """
    import ray
    from ray.job_config import JobConfig

    if ray.is_initialized():  # a notebook or a test that keeps its own session
        with _own_errors():
            yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # The controller looks at its workers this often; the default of 2 s would be a large part of a short run.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.3")
    level = logging.INFO if verbose else logging.ERROR
    where = {} if attached() else {"address": "local", "include_dashboard": False}
    # Ray tells its workers of the script's directory (jobs/) and the working directory; textcls lies in neither when
    # the job is started from elsewhere. `ray job submit --working-dir` brings it to other machines.
    code = JobConfig(_py_driver_sys_path=[str(Path(textcls.__file__).parent.parent)])
    ray.init(logging_level=level, log_to_driver=verbose, job_config=code, **where)
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(level)
    try:
        with interruptible(), _own_errors():
            yield
    finally:
        ray.shutdown()


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes Ctrl-C and SIGTERM raise KeyboardInterrupt in the block, and again after another library's handlers.

    Ray's handler of SIGTERM ends in a crash report. Ray Train's of SIGINT exits without a word, and once training is
    over it swallows the first two Ctrl-C. A block around Ray Train therefore restores them.
    """
    _raise_on_signals()
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        _raise_on_signals()


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raises an error of ours as it was, where a task raised it and Ray wrapped it."""
    try:
        yield
    except Exception as error:
        own = own_error(error)
        if own is None or own is error:
            raise
        raise own from None


def _raise_on_signals() -> None:
    if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
