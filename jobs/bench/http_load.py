"""Compares the HTTP service under load with LitServe and FastAPI: `python jobs/bench/http_load.py --bundle DIR`

Each server is started in turn for several rounds, and receives requests from one client process on the same machine
(aiohttp, keep-alive connections). Each round gives a ratio. Loads: one client with one short text (p50); 64 clients
with one text each; for textcls also 8 clients with 32 texts each, compared with the bare Classifier in a process of its
own; and, with --overload, an open loop at three times the throughput of 64 clients. The summary counts rejected
requests: textcls must reject none of the 64 clients with one text and of the 8 with 32, on any machine.

Every answer is checked: the label must equal the Classifier's if its probability there is 0.6 or more.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import aiohttp
import numpy as np
import psutil

from jobs.bench.demo_rows import sample_texts

_HERE = Path(__file__).resolve().parent
_SURE = 0.6
_START_S = 120.0


@dataclass
class Load:
    """The responses to a load.

    Attributes:
        seconds: from the first request to the last response.
        taken_s: latency of each response with scores.
        rejected_s: latency of each 429.
        texts: number of scored texts.
        wrong: number of labels that differ from the Classifier's.
        failures: other statuses and broken connections, by kind.
    """

    seconds: float = 0.0
    taken_s: list[float] = field(default_factory=list)
    rejected_s: list[float] = field(default_factory=list)
    texts: int = 0
    wrong: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def requests_per_s(self) -> float:
        """Number of responses with scores."""
        return len(self.taken_s) / self.seconds

    def describe(self) -> str:
        """Throughput, latencies and errors in one line."""
        line = f"{self.requests_per_s:.1f} requests/s, {self.texts / self.seconds:.1f} texts/s, "
        line += " ".join(f"p{q} {1e3 * percentile(self.taken_s, q):.1f} ms" for q in (50, 95, 99))
        if self.rejected_s:
            line += f"; {len(self.rejected_s):,} rejected, p99 {1e3 * percentile(self.rejected_s, 99):.1f} ms"
        if self.failures:
            line += f"; FAILED {dict(self.failures)}"
        if self.wrong:
            line += f"; {self.wrong} WRONG"
        return line


def percentile(seconds: Sequence[float], q: float) -> float:
    """A percentile; NaN of no values."""
    return float(np.percentile(seconds, q)) if seconds else float("nan")


@dataclass(frozen=True)
class Server:
    """A server to compare.

    Attributes:
        name: its name in the output.
        command: starts it; the port is appended.
        field: field of the request body with the text or texts.
    """

    name: str
    command: tuple[str, ...]
    field: str

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Runs the server in a session of its own; yields its URL."""
        with socket.socket() as free, tempfile.TemporaryFile("w+") as log:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
            free.close()
            process = subprocess.Popen(
                [*self.command, "--port", str(port)], stdout=log, stderr=log, start_new_session=True
            )
            try:
                asyncio.run(self._ready(f"http://127.0.0.1:{port}", process, log))
                yield f"http://127.0.0.1:{port}"
            finally:
                # SIGTERM to this process alone: it stops its own children, and needs time for that.
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)

    async def _ready(self, url: str, process: subprocess.Popen[bytes], log: Any) -> None:
        given_up = time.monotonic() + _START_S
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < given_up and process.poll() is None:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with session.post(f"{url}/predict", json={self.field: "a good film"}) as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.2)
        log.seek(0)
        raise SystemExit(f"{self.name} did not start:\n{log.read()[-3000:]}")


class Client:
    """Sends requests to one server, and checks the responses.

    Args:
        url: URL of the server.
        server: the server.
        texts: texts to send, in order, repeatedly.
        expected: the Classifier's (label, probability) of each text.
    """

    def __init__(self, url: str, server: Server, texts: Sequence[str], expected: Sequence[tuple[str, float]]) -> None:
        self.url, self.server, self.texts, self.expected = f"{url}/predict", server, texts, expected
        self._next = 0

    async def send(self, session: aiohttp.ClientSession, load: Load, texts: int | None = None) -> None:
        """Sends one request, with one text or a list of `texts` texts."""
        indices = [(self._next + i) % len(self.texts) for i in range(texts or 1)]
        self._next += len(indices)
        content: Any = [self.texts[index] for index in indices] if texts else self.texts[indices[0]]
        body = json.dumps({self.server.field: content})
        began = time.perf_counter()
        try:
            async with session.post(self.url, data=body, headers={"Content-Type": "application/json"}) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            load.failures[type(error).__name__] += 1
            return
        took = time.perf_counter() - began
        if answer.status == 429:
            load.rejected_s.append(took)
        elif answer.status != 200:
            load.failures[str(answer.status)] += 1
        else:
            load.taken_s.append(took)
            load.texts += len(indices)
            found = json.loads(content)
            labels = [one["label"] for one in found.get("predictions", [found])]
            sure = [
                (self.expected[index][0], label)
                for index, label in zip(indices, labels, strict=True)
                if self.expected[index][1] >= _SURE
            ]
            load.wrong += sum(one != other for one, other in sure)

    def closed(self, clients: int, seconds: float, texts: int | None = None) -> Load:
        """Closed loop: each client sends its next request after the response; after a 429 it waits 50 ms."""
        load = Load()

        async def one(session: aiohttp.ClientSession, ends: float) -> None:
            while time.perf_counter() < ends:
                refused = len(load.rejected_s)
                await self.send(session, load, texts)
                if len(load.rejected_s) > refused:
                    await asyncio.sleep(0.05)

        async def run() -> None:
            async with _session() as session:
                began = time.perf_counter()
                await asyncio.gather(*(one(session, began + seconds) for _ in range(clients)))
                load.seconds = time.perf_counter() - began

        asyncio.run(run())
        return load

    def open(self, rate: float, seconds: float) -> Load:
        """Open loop: requests arrive as a Poisson process of that rate, independently of the responses."""
        load, gaps = Load(), np.random.default_rng(0).exponential(1 / rate, int(rate * seconds))

        async def run() -> None:
            async with _session() as session, asyncio.TaskGroup() as tasks:
                began = time.perf_counter()
                for moment in np.cumsum(gaps):
                    await asyncio.sleep(max(0.0, began + moment - time.perf_counter()))
                    tasks.create_task(self.send(session, load))
            load.seconds = time.perf_counter() - began

        asyncio.run(run())
        return load


@contextlib.asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        yield session


def main() -> None:
    """Prints each round, then medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, help="a bundle, such as runs/quickstart/bundle")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="seconds of each load")
    parser.add_argument("--servers", nargs="+", default=["textcls", "litserve", "fastapi"])
    parser.add_argument("--overload", action="store_true", help="also 60 s at three times the throughput of 64 clients")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="passed on to serve.py")
    parser.add_argument("--expect", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.expect:
        print(json.dumps(_expected(arguments.bundle, arguments.expect)))
        return
    texts = sample_texts("rotten_tomatoes", 2048)
    expected = _in_a_process(arguments.bundle, len(texts))["labels"]
    servers = {server.name: server for server in _servers(arguments.bundle, arguments.overrides)}
    found: dict[tuple[str, str], list[float]] = {}
    refused: Counter[tuple[str, str]] = Counter()

    def note(server: str, what: str, value: float) -> None:
        found.setdefault((server, what), []).append(value)

    for round_ in range(arguments.rounds):
        bare = _in_a_process(arguments.bundle, len(texts))["rows_per_s"]
        note("Classifier", "rows_per_s", bare)
        print(f"round {round_ + 1}: bare Classifier {bare:.1f} rows/s", flush=True)
        for name in arguments.servers:
            with servers[name].running() as url:
                client = Client(url, servers[name], texts, expected)
                client.closed(64, 3.0)
                for what, load in _loads(client, name, arguments.seconds):
                    print(f"  {name}, {what}: {load.describe()}", flush=True)
                    note(name, what, load.texts / load.seconds if "clients" in what else percentile(load.taken_s, 50))
                    refused[name, what] += len(load.rejected_s)
    _summarise(found, arguments.servers)
    print("rejected: " + ", ".join(f"{count:,} ({name}, {what})" for (name, what), count in refused.items()))
    if arguments.overload:
        rate = statistics.median(found["textcls", "64 clients"])
        with servers["textcls"].running() as url:
            _overload(Client(url, servers["textcls"], texts, expected), rate)


def _servers(bundle: str, overrides: Sequence[str]) -> list[Server]:
    sets = [part for override in overrides for part in ("--set", override)]
    return [
        Server("textcls", (sys.executable, str(_HERE.parent / "serve.py"), "--bundle", bundle, *sets), "inputs"),
        Server("litserve", (sys.executable, str(_HERE / "litserve_peer.py"), "--bundle", bundle), "text"),
        Server("fastapi", (sys.executable, str(_HERE / "fastapi_peer.py"), "--bundle", bundle), "text"),
    ]


def _loads(client: Client, name: str, seconds: float) -> Iterator[tuple[str, Load]]:
    yield "one client", client.closed(1, seconds / 3)
    yield "64 clients", client.closed(64, seconds)
    if name == "textcls":
        yield "8 clients x 32 texts", client.closed(8, seconds, texts=32)


def _summarise(found: dict[tuple[str, str], list[float]], servers: Sequence[str]) -> None:
    def ratio(one: tuple[str, str], other: tuple[str, str]) -> str:
        ratios = [a / b for a, b in zip(found[one], found[other], strict=True)]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

    unit: Callable[[str, float], str] = lambda what, v: f"{v:.1f}/s" if "one" not in what else f"{1e3 * v:.1f} ms"  # noqa: E731
    for (name, what), values in found.items():
        print(
            f"{name}, {what}: median {unit(what, statistics.median(values))} "
            f"({unit(what, min(values))} to {unit(what, max(values))})"
        )
    for peer in servers[1:]:
        print(f"64 clients, textcls / {peer}: {ratio(('textcls', '64 clients'), (peer, '64 clients'))}")
        print(f"one client, p50, textcls / {peer}: {ratio(('textcls', 'one client'), (peer, 'one client'))}")
    print(
        "8 clients x 32 texts / bare Classifier: "
        f"{ratio(('textcls', '8 clients x 32 texts'), ('Classifier', 'rows_per_s'))}"
    )


def _overload(client: Client, rate: float) -> None:
    """Sends three times the sustained rate for a minute, and then an ordinary load."""
    client.closed(64, 3.0)
    replicas = [p for p in psutil.process_iter(["name", "cmdline"]) if "ServeReplica" in " ".join(p.info["cmdline"])]
    memory: Callable[[], float] = lambda: sum(p.memory_info().rss for p in replicas) / 2**20  # noqa: E731
    before, used = client.closed(64, 15.0), [memory()]
    print(f"before: {before.describe()}; replica {used[0]:.0f} MiB", flush=True)
    for _ in range(4):
        load = client.open(3 * rate, 15.0)
        used.append(memory())
        print(f"{3 * rate:.0f} arrivals/s: {load.describe()}; replica {used[-1]:.0f} MiB", flush=True)
    after = client.closed(64, 15.0)
    print(f"after: {after.describe()}; replica {memory():.0f} MiB")
    print(f"after / before: {after.requests_per_s / before.requests_per_s:.2f}")


def _in_a_process(bundle: str, texts: int) -> dict[str, Any]:
    """The Classifier's labels of the texts, and its speed, measured in a process of its own."""
    command = [sys.executable, __file__, "--bundle", bundle, "--expect", str(texts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _expected(bundle: str, most: int) -> dict[str, Any]:
    from textcls.inference.classifier import Classifier

    texts = sample_texts("rotten_tomatoes", most)
    classifier = Classifier.load(bundle, threads=os.cpu_count())
    classifier.warm_up()
    began = time.perf_counter()
    scores = classifier.scores(texts)
    rows_per_s = len(texts) / (time.perf_counter() - began)
    labels = [(scores.label(i), scores.confidence(i)) for i in range(len(texts))]
    return {"rows_per_s": rows_per_s, "labels": labels}


if __name__ == "__main__":
    main()
