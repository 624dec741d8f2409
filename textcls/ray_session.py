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
    # SIGTERM is like Ctrl-C: Ray's own handler of it ends in a crash report.
    if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _own_errors():
            yield
    finally:
        ray.shutdown()


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
