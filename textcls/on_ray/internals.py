"""Every private name of Ray that this package uses, and every environment variable by which it configures Ray.

In: values that Ray offers no public parameter for, questions that it offers no public function for. Out: answers, and
Ray configured. Not here: what the public interface can do; variables that users set and Ray reads by itself
(RAY_ADDRESS, RAY_AUTH_MODE, ...).

Each name is pinned by a test in tests/unit/test_internals.py, which fails with the name when a release of Ray drops or
changes it. Ray is imported inside the functions: the driver of a service loads neither Ray Train nor torch.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

# --- Ray Core --------------------------------------------------------------------------------------------------------


def set_driver_defaults() -> None:
    """Sets what a driver of this package wants of Ray, unless the user has set it. Before `ray.init`.

    Ray offers no parameter for either variable.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # How often Ray Train's controller polls its workers; the default of 2 s would be a large part of a short run.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.3")


def set_auth_token(token: str) -> None:
    """Sets the token of a local Ray. Ray reads it from this variable or from a file, never from a parameter."""
    os.environ["RAY_AUTH_TOKEN"] = token


def enable_existing_token() -> None:
    """Switches token authentication on if a token exists and RAY_AUTH_MODE is unset; Ray does so for `auto` alone.

    A cluster without authentication accepts a driver with a token.

    Raises:
        ray.exceptions.AuthenticationError: the token cannot be read.
    """
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def head_address(address: str) -> str | None:
    """HOST:PORT of a cluster's head, given what a user writes; None if `auto` finds no running Ray.

    Raises:
        ConnectionError: `auto`, and several clusters or none are found.
        ValueError: no address.
        OSError: a host name that cannot be resolved.
    """
    from ray._private import services

    found: str | None = services.canonicalize_bootstrap_address(address)
    return found


def head_channel(address: str) -> Any:
    """A gRPC channel to a head, with the certificates and the token that Ray's own channels use.

    Raises:
        OSError: a file of the certificate cannot be read.
        RuntimeError: the certificate cannot be used.
    """
    from ray._private.grpc_utils import init_grpc_channel

    return init_grpc_channel(address, options=[("grpc.enable_http_proxy", 0)])


def request_cluster_id(channel: Any, timeout_s: float) -> None:
    """Requests the id of the cluster from its head: the first request of any driver.

    Raises:
        grpc.RpcError: the head did not answer, or refused.
    """
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    head = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
    head.GetClusterId(gcs_service_pb2.GetClusterIdRequest(), timeout=timeout_s)


def job_config(code: Path) -> Any:
    """A `JobConfig` whose workers find modules in `code` too.

    Ray passes the script's directory (jobs/) and the working directory on; textcls lies in neither if the job starts
    from elsewhere. A `runtime_env` with PYTHONPATH would do the same, but no worker could be started in advance.
    """
    from ray.job_config import JobConfig

    return JobConfig(_py_driver_sys_path=[str(code)])


def free_resources() -> dict[str, dict[str, float]]:
    """Node id -> resource -> what is free now, of each node that is alive."""
    from ray._private import state

    free: dict[str, dict[str, float]] = state.available_resources_per_node()
    return free


def draining_nodes() -> set[str]:
    """Ids of the nodes that are being drained: before a preemption, or because an operator asked for it."""
    from ray._private import state

    return set(state.state.get_draining_nodes())


def max_resources() -> dict[str, float]:
    """Resource -> how much the cluster's autoscaler may reach; empty without an autoscaler."""
    from ray._private import state

    return state.state.get_max_resources_from_cluster_config() or {}


# --- Ray Train -------------------------------------------------------------------------------------------------------


def set_worker_timeouts(*, start_s: float, hang_s: float) -> None:
    """Sets how long Ray Train waits for its workers. Before `trainer.fit`, which copies the variables to its actors.

    Args:
        start_s: for the workers' resources and processes.
        hang_s: for the answer of a worker, and for all ranks to report the same checkpoint.
    """
    os.environ |= {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(start_s),
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(hang_s),
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(hang_s),
    }


def end_at_once(trainer: Any) -> Any:
    """The same `TorchTrainer`, which ends with its training and leaves Ctrl-C to Python.

    Ray Train's own handler of SIGINT takes up to ten seconds, exits without a message, and when training is over it
    stays and swallows the first two signals. One of its callbacks asks the dashboard for the controller's state, and
    waits 10 s where there is no dashboard. Another one starts a process for each group of workers that hands out
    datasets, although none was given: it takes two CPU seconds of imports while the workers start.
    """
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

    default_callbacks = trainer._create_default_callbacks

    def callbacks() -> list[Any]:
        quick = PlacementGroupCleanerCallback(get_actor_timeout_s=1)
        kept = [one for one in default_callbacks() if trainer.datasets or not isinstance(one, DatasetsCallback)]
        return [quick if isinstance(one, PlacementGroupCleanerCallback) else one for one in kept]

    trainer._create_default_callbacks = callbacks
    trainer._register_sigint_handler = lambda controller: None
    return trainer


def is_start_timeout(error: BaseException) -> bool:
    """Whether workers could not be started within the time that `set_worker_timeouts` allows."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    return isinstance(error, WorkerGroupStartupTimeoutError)


def is_hang(error: BaseException) -> bool:
    """Whether a worker did not answer Ray Train within the time that `set_worker_timeouts` allows."""
    from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError

    return isinstance(error, WorkerHealthCheckTimeoutError)


def reported_checkpoint(name: str) -> Any:
    """The `ray.train.Checkpoint` in directory `name` of this worker's run, as Ray Train addresses it.

    An upload function has to return one that lies in the run's own storage.
    """
    import ray.train

    storage = ray.train.get_context().get_storage()
    return ray.train.Checkpoint(f"{storage.experiment_fs_path}/{name}", filesystem=storage.storage_filesystem)


# --- Ray Serve -------------------------------------------------------------------------------------------------------

_HAPROXY_SETTINGS = "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"


def set_serve_environment(variables: Mapping[str, str]) -> None:
    """Sets what `serve_environment` returns. Before the first import of `ray.serve`, which reads it only then."""
    os.environ |= variables


def serve_environment(folder: Path, *, haproxy: Path, threads: int, on_listen: str) -> dict[str, str]:
    """The variables by which Ray Serve starts HAProxy for the service of one machine.

    Args:
        folder: for HAProxy's files and sockets.
        haproxy: the program that Ray starts as HAProxy.
        threads: HAProxy's.
        on_listen: `module:function` that each process calls before it listens.
    """
    return {
        # The address of this Ray is the loopback one, and its own servers listen there alone.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # A larger buffer keeps back a thousand lines of the log, and loses them when a replica ends.
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
        # How long a replica that ends stays reachable: HAProxy forwards the requests that it has read meanwhile.
        # With 0.1 s, 82 to 200 of 500 requests in flight at SIGTERM got 503; with 1 s all are answered.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # Scoring a text twice does no harm: in-flight requests of a failed replica are retried on another one.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        # A replica that refuses a connection is dead. With none left, Ray's proxy queues requests until there is one.
        "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(threads),
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": on_listen,
        # Names of sockets: 3*.sock are replicas'.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": "8500",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": "30000",
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": "31000",
        # Ray's proxy reaches a replica as an actor, not through a port.
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "0",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(haproxy),
        _HAPROXY_SETTINGS: str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }


def serve_folder() -> Path:
    """The folder that `serve_environment` was called with, in any process of the service."""
    return Path(os.environ[_HAPROXY_SETTINGS]).parent


def replace_serve_sockets(sockets: ModuleType, add_grpc_port: Callable[[Any, str], int]) -> None:
    """Replaces what Ray Serve listens with in this process.

    Args:
        sockets: used in place of the module `socket` where a server of HTTP is started.
        add_grpc_port: (server, address) -> port; used where the gRPC server between deployments is started.
    """
    from ray.serve._private import http_util, replica

    http_util.socket = sockets
    replica.add_port_to_grpc_server = add_grpc_port
