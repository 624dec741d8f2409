"""The service on a real socket, in this process and without Ray."""

import asyncio
import http.client
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from textcls.inference.classifier import Classifier
from textcls.serving.api import Api
from textcls.serving.scorer import Scorer
from textcls.settings.serve import ServeSpec

BOUND_S = 60.0


@dataclass(frozen=True)
class Reply:
    """An answer: its status, headers in lower case, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Service:
    """Where it listens, and what it is made of."""

    port: int
    scorer: Scorer
    loop: asyncio.AbstractEventLoop
    log: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, content: Any = None, *, method: str = "", **headers: str) -> Reply:
        """Sends JSON, or bytes as they are."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND_S)
        body = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        known = {"content-type": "application/json"} if body is not None else {}
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, known | named)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine on the service's own event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(BOUND_S)


class _Lines:
    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def log(self, level: int, line: str) -> None:
        self.lines.append(line)


@contextmanager
def service_of(
    bundle: Path | None, spec: ServeSpec | None = None, *, key: str | None = None, identity_file: str = ""
) -> Iterator[Service]:
    """Serves until the end of the block."""
    spec = spec or ServeSpec()
    started, found = threading.Event(), []

    async def serve() -> None:
        scorer, lines = Scorer(spec, threads=1, identity_file=identity_file), []
        if bundle is not None:
            await scorer.load(str(bundle))
        api = Api(scorer, spec, version="0", key=key, log=_Lines(lines))  # type: ignore[arg-type]
        server = uvicorn.Server(uvicorn.Config(api, "127.0.0.1", 0, log_level="error", access_log=False))
        task = asyncio.create_task(server.serve())
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        found.append((Service(port, scorer, asyncio.get_running_loop(), lines), server))
        started.set()
        await task
        await scorer.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(BOUND_S), "the service did not start"
    service, server = found[0]
    try:
        yield service
    finally:
        server.should_exit = True
        thread.join(BOUND_S)


@pytest.fixture(scope="session")
def service(tiny_bundle: Path) -> Iterator[Service]:
    """The tiny bundle, with limits small enough to meet."""
    limits = ServeSpec(
        max_texts_per_request=16, max_queued_texts=64, max_chars_per_text=2000, max_body_bytes=50_000, body_timeout_s=1
    )
    with service_of(tiny_bundle, limits) as running:
        yield running


@pytest.fixture(scope="session")
def classifier(tiny_bundle: Path) -> Classifier:
    """The tiny bundle, asked directly."""
    return Classifier.load(str(tiny_bundle), device="cpu", precision="fp32")
