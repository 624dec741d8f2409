"""The service on this machine, on a local Ray, until SIGTERM or Ctrl-C.

In: a bundle's URI, a `ServeSpec`, an address. Out: a service at that address with hot reload on SIGHUP; it has ended
when `run_service` returns. Not here: a service on a cluster (cluster/serve.yaml), the replicas (app.py).

Ray's fast path is enabled before Ray starts: HAProxy (haproxy.py) forwards a connection directly to a replica, and a
replica answers on its main event loop, which the batcher keeps free. Only the public address is a TCP port; everything
behind it is a Unix socket in a folder of this start, so that several services can run on one machine.
"""

import json
import logging
import os
import queue
import signal
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from textcls import storage
from textcls.bundle import Bundle, load_bundle, precision_asked
from textcls.errors import InputError, ServeError
from textcls.on_ray import internals
from textcls.on_ray.cluster import attached
from textcls.on_ray.session import ray_session
from textcls.serving.deployment import NAME, read_key
from textcls.serving.local import haproxy
from textcls.settings.serve import ServeSpec

_APP = "textcls"
_START_S = 300.0
# Time limit of in-flight requests during shutdown. Ray kills a replica after 20 s.
_DRAIN_S = 60.0
# HAProxy forwards the last responses in this time.
_FLUSH_S = 0.1
_END_S = 15.0


def run_service(
    bundle: str,
    spec: ServeSpec,
    *,
    host: str,
    port: int,
    say: Callable[[str], None],
    tls: haproxy.Tls | None = None,
    identity_file: str = "",
    verbose: bool = False,
) -> None:
    """Serves a bundle until Ctrl-C or SIGTERM; on SIGHUP loads the bundle that `bundle` names then.

    Args:
        bundle: a URI; a local one may be a symbolic link.
        spec: settings.
        host: address to listen on.
        port: port to listen on.
        say: takes lines for people.
        tls: certificate and key, to serve HTTPS only; None for HTTP.
        identity_file: of the secret key that opens a sealed bundle; "": the environment names it.
        verbose: show Ray's own log lines.

    Raises:
        InputError: the bundle, the key or the certificate does not exist, the port is in use, RAY_ADDRESS is set, or
            the system is not Linux.
        ServeError: the service did not start.
        KeyboardInterrupt: interrupted before it was ready.
    """
    if sys.platform != "linux":
        raise InputError(
            f"serve does not run on {sys.platform}: HAProxy, through which it answers, comes for Linux alone",
            todo="serve from a Linux container, like that of cluster/Dockerfile; predict runs here, too",
        )
    if attached():
        todo = "unset RAY_ADDRESS, or on the cluster: serve deploy cluster/serve.yaml"
        raise InputError("RAY_ADDRESS names a cluster, and this job starts a local Ray", todo=todo)
    first = _resolved(bundle)
    loaded = load_bundle(first, identity_file=identity_file)  # a bad bundle is refused before Ray starts
    _refuse_a_taken_port(host, port)
    if tls is not None:
        _refuse_a_bad_certificate(tls)
    # Not in TMPDIR, whose path may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="textcls-", dir="/tmp") as folder:
        internals.set_serve_environment(haproxy.environment(Path(folder), spec, host=host, port=port, tls=tls))
        if not spec.gpu_share and precision_asked(loaded, spec.precision) == "bf16":
            # Imported here because it takes seconds, and otherwise only replicas need it.
            from textcls.inference.classifier import precision_note

            if note := precision_note(loaded, spec.precision, "cpu"):
                say(note)
        loaded = replace(loaded, opened=None)  # replicas open a sealed bundle for themselves
        key = read_key(spec.api_key_from)
        with ray_session(verbose=verbose), _hangups() as hangups, _serve(Path(folder), host, port, verbose):
            _deploy(first, loaded, spec, 0, serving=first, interface={})
            _wait_until_ready(Path(folder))
            scheme = "http" if tls is None else "https"
            say(f"serving {first} on {scheme}://{host}:{port}; SIGHUP loads {bundle} anew, Ctrl-C ends")
            try:
                _follow(Path(folder), hangups, bundle, loaded, spec, key, say)
            except KeyboardInterrupt:
                say("ending: requests in flight are answered first, new ones get 503")
                _drain()


def _follow(
    folder: Path,
    hangups: "queue.SimpleQueue[None]",
    bundle: str,
    first: Bundle,
    spec: ServeSpec,
    key: str | None,
    say: Callable[[str], None],
) -> None:
    """Loads the bundle again on each SIGHUP and prints the result; never returns."""
    loads, serving = 0, first.uri
    interface: dict[str, Any] = {"labels": list(first.manifest.labels), "pairs": first.manifest.pairs}
    while True:
        hangups.get()
        loads += 1
        uri = _resolved(bundle)
        _deploy(uri, first, spec, loads, serving=serving, interface=interface)
        _wait_until_loaded()
        infos = haproxy.ask_replicas(folder, "/info", key)
        say(f"load {loads}: {outcome_of([info['last_load_failed'] for info in infos], uri, serving)}")
        if infos and not any(info["last_load_failed"] for info in infos):
            serving, interface = uri, {name: infos[0][name] for name in interface}


def outcome_of(problems: Sequence[str | None], uri: str, serving: str) -> str:
    """The result of a hot reload, in one line.

    Args:
        problems: why each replica refused the bundle; None for a replica that loaded it.
        uri: the bundle to load.
        serving: the bundle before.
    """
    refused = [one for one in problems if one]
    if not problems:
        return f"no replica has reported the result for {uri}; see GET /info"
    if not refused:
        return f"now serving {uri}"
    took = len(problems) - len(refused)
    who = f" {took} of {len(problems)} replicas loaded it, the others are" if took else ""
    return f"refused: {' '.join(refused[0].split())};{who} still serving {serving}"


def _wait_until_loaded() -> None:
    """Waits until every replica has loaded its bundle or refused it."""
    from ray import serve

    given_up = time.monotonic() + _START_S
    while time.monotonic() < given_up:
        state = serve.status().applications.get(_APP)
        if state is not None and state.status == "RUNNING":
            return
        time.sleep(0.05)  # Ray has no notification for this


def _resolved(bundle: str) -> str:
    """The URI of a bundle with symbolic links resolved, so that replicas that start later load the same one."""
    uri = storage.absolute(bundle)
    return uri if storage.is_remote(uri) else os.path.realpath(uri)


@contextmanager
def _hangups() -> Iterator["queue.SimpleQueue[None]"]:
    """A queue that receives one item per SIGHUP."""
    arrived: queue.SimpleQueue[None] = queue.SimpleQueue()

    def handler(number: int, frame: FrameType | None) -> None:
        arrived.put(None)

    before = signal.signal(signal.SIGHUP, handler)
    try:
        yield arrived
    finally:
        signal.signal(signal.SIGHUP, before)


def _refuse_a_taken_port(host: str, port: int) -> None:
    if not 0 < port < 2**16:
        raise InputError(f"--port {port}", expected="1 to 65535")
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            todo="name a free port with --port, or an address of this machine with --host",
        ) from None


def _refuse_a_bad_certificate(tls: haproxy.Tls) -> None:
    try:
        # `password=bytes` refuses a key with a password; without it, OpenSSL would prompt for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key, password=bytes)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--tls-cert {tls.cert} with --tls-key {tls.key}: {error}",
            expected="PEM files: the certificate with its intermediates; its key, without a password",
        ) from None


@contextmanager
def _serve(folder: Path, host: str, port: int, verbose: bool) -> Iterator[None]:
    """Starts Ray Serve without an application; ends it on exit."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.INFO if verbose else logging.ERROR)
    try:
        try:
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": host, "port": port},
                # The service logs each request itself.
                logging_config={"encoding": "JSON", "enable_access_log": False},
            )
        except Exception:
            _raise_haproxy_failure(folder)
            raise
        yield
    finally:
        _end()


def _drain() -> None:
    """Removes the application: HAProxy rejects new requests, and replicas end after their in-flight requests."""
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    _get_global_client().deploy_apps(ServeDeploySchema(applications=[]))
    given_up = time.monotonic() + _DRAIN_S
    while time.monotonic() < given_up and _APP in serve.status().applications:
        time.sleep(0.05)
    time.sleep(_FLUSH_S)


def _end() -> None:
    """Ends Ray Serve; not with `serve.shutdown`, after which Ray logs a failed task each time."""
    import ray
    from ray.serve.context import _get_global_client

    with suppress(Exception):  # Serve did not start, or has already ended
        ray.get(_get_global_client()._controller.graceful_shutdown.remote(wait=False))
        given_up = time.monotonic() + _END_S
        while time.monotonic() < given_up and ray.util.list_named_actors(all_namespaces=True):
            time.sleep(0.05)


def _deploy(
    bundle: str, first: Bundle, spec: ServeSpec, loads: int, *, serving: str, interface: Mapping[str, Any]
) -> None:
    """Deploys the application, as `serve deploy` does.

    Args:
        bundle: the bundle to load.
        first: the bundle with which the application was started.
        spec: settings.
        loads: number of this load.
        serving: fallback of a replica that starts meanwhile and cannot use `bundle`.
        interface: the `labels` that `bundle` must have, and whether it reads `pairs`; empty for any.
    """
    # If only user_config changes, replicas keep running; serve.run would replace them each time.
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    user_config = {"bundle": bundle, "loads": loads, "serving": serving, **interface}
    application = {
        "name": _APP,
        "route_prefix": "/",
        "import_path": "textcls.serving.app:app",
        "args": {
            "bundle": first.uri,
            "serve": spec.model_dump(mode="json"),
            "identity_file": first.identity_file,
        },
        "deployments": [{"name": NAME, "user_config": user_config}],
    }
    client = _get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": [application]}))


def _wait_until_ready(folder: Path) -> None:
    """Waits until a replica of this service answers through HAProxy, which then also listens at the public address."""
    from ray import serve

    given_up = time.monotonic() + _START_S
    while time.monotonic() < given_up:
        if haproxy.answers(folder, "/ready"):
            (folder / haproxy.SERVED).touch()
            return
        _raise_haproxy_failure(folder)
        state = serve.status().applications.get(_APP)
        if state is not None and state.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise ServeError(f"the service did not start: {state.message.strip()}", todo="--verbose shows Ray's log")
        time.sleep(0.1)  # the server is another process, which can only be polled
    raise ServeError(f"the service did not start within {_START_S:g} s", todo="--verbose shows Ray's log")


def _raise_haproxy_failure(folder: Path) -> None:
    failed = folder / haproxy.FAILED
    if failed.exists():
        raise haproxy.failure(json.loads(failed.read_text()))
