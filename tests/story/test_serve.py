"""`jobs/serve.py` as an operator and clients live it: start, requests, another bundle, a dead replica, the end."""

import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import save_tiny_bundle
from tests.story.conftest import BOUND_S, CHECKOUT, Running, free_port, wait_until
from textcls.bundle import load_bundle
from textcls.inference.classifier import Classifier
from textcls.settings.serve import ServeSpec

KEY = "a key for this test"
TEXTS = ["the film was great", "its plot was really dull", "great " * 100, "naïve"]
CLIENTS = 4
QUEUED = 256
HUGGING_FACE = """
import json, sys
from huggingface_hub import InferenceClient
client = InferenceClient(sys.argv[1], token=sys.argv[3])
print(json.dumps([(one.label, one.score) for one in client.text_classification(sys.argv[2])]))
"""


class Service:
    """A running `jobs/serve.py` whose bundle is a symbolic link."""

    def __init__(self, link: Path, shell: dict[str, str], *more: str, key: str = KEY) -> None:
        self.link, self.port, self.key = link, free_port(), key
        command = [sys.executable, CHECKOUT / "jobs" / "serve.py", "--bundle", link, "--port", self.port]
        settings = ["--set", "serve.api_key_from=env:SERVE_KEY", "--set", "serve.precision=fp32", *more]
        self.running = Running([*command, *settings], cwd=link.parent, env=shell | {"SERVE_KEY": key})
        self.url = f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, content: Any = None, *, key: str = "") -> tuple[int, Any]:
        """(status, what the answer's JSON holds)."""
        body = None if content is None else json.dumps(content).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {key or self.key}"}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers), timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read())

    def ready(self) -> bool:
        with suppress(OSError, ValueError):
            return self.ask("/ready")[0] == 200
        return False

    def loads(self, bundle: Path) -> None:
        """Points the link to another bundle, in one step, and says so."""
        new = self.link.with_name("new")
        new.symlink_to(bundle)
        os.replace(new, self.link)
        self.running.signal(signal.SIGHUP)

    def replicas(self) -> list[int]:
        """Their pids."""
        return [pid for pid, name in self.running.relatives().items() if name.startswith("ray::ServeRepli")]

    def replica(self) -> int:
        """The pid of the one replica."""
        (pid,) = self.replicas()
        return pid


class Load:
    """Clients that ask one after the other until the end of the block; each answer's bundle, and what went wrong.

    Attributes:
        digests: of the bundle of each answer.
        broken: requests without an answer of the service.
        wrong: all the others: (status, answer).
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.digests, self.broken, self.wrong = [], [], []  # type: list[str], list[str], list[Any]
        self._over = threading.Event()
        self._clients = ThreadPoolExecutor(CLIENTS)

    def __enter__(self) -> "Load":
        for _ in range(CLIENTS):
            self._clients.submit(self._ask)
        return self

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                status, answer = self.service.ask("/predict", {"inputs": TEXTS[0]})
            except Exception as error:
                self.broken.append(repr(error))
                continue
            if status == 200:
                self.digests.append(answer["model"]["digest"])
            else:
                self.wrong.append((status, answer))

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._clients.shutdown()


@pytest.fixture(scope="module")
def bundles(tiny_model_dir: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four bundles, and a damaged one."""
    folder = tmp_path_factory.mktemp("served")
    made = {"first": tiny_bundle}
    for seed, name in enumerate(["second", "damaged", "third", "fourth"], 1):
        made[name] = save_tiny_bundle(tiny_model_dir, folder / name, seed=seed)
    weights = made["damaged"] / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    return made


@pytest.fixture(scope="module")
def service(
    bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, shell: dict[str, str]
) -> Iterator[Service]:
    link = tmp_path_factory.mktemp("operator") / "current"
    link.symlink_to(bundles["first"])
    service = Service(link, shell, "--set", f"serve.max_queued_texts={QUEUED}")
    try:
        service.running.until(service.ready)
        yield service
    finally:
        service.running.kill()


# The tests of one service, in the order in which its life goes.


def test_the_service_gives_the_classifier_s_scores(service: Service, bundles: dict[str, Path]) -> None:
    scores = Classifier.load(str(bundles["first"]), device="cpu", precision="fp32").scores(TEXTS)
    status, answer = service.ask("/predict", {"inputs": TEXTS})
    assert status == 200
    for row, prediction in enumerate(answer["predictions"]):
        assert prediction["label"] == scores.label(row)
        assert prediction["tokens"] == scores.tokens[row]
        assert prediction["truncated"] == bool(scores.truncated[row])
        expected = dict(scores.ranked(row, None))
        found = {one["label"]: one["score"] for one in prediction["scores"]}
        assert list(found) == list(expected)
        np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=1e-5)


def test_hugging_face_s_client_works_unmodified(service: Service) -> None:
    # In a process of its own: this one sets HF_HUB_OFFLINE.
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-c", HUGGING_FACE, service.url, TEXTS[0], KEY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BOUND_S)
    assert done.returncode == 0, done.stderr
    _, answer = service.ask("/predict", {"inputs": TEXTS[0]})
    expected = [(one["label"], pytest.approx(one["score"], abs=1e-5)) for one in answer["predictions"][0]["scores"]]
    assert [tuple(one) for one in json.loads(done.stdout)] == expected


def test_a_wrong_key_is_refused_and_readiness_needs_none(service: Service) -> None:
    assert service.ask("/predict", {"inputs": TEXTS[0]}, key="another")[0] == 401
    assert service.ask("/ready", key="another")[0] == 200


def test_what_piles_up_before_a_replica_is_refused_without_it_while_health_is_told(service: Service) -> None:
    most = ServeSpec(max_queued_texts=QUEUED).max_requests
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 99\r\n\r\n".encode()

    def asked_beside_too_many() -> list[tuple[int, Any]]:
        with ExitStack() as waiting:
            for _ in range(most + 1):
                client = waiting.enter_context(socket.create_connection(("127.0.0.1", service.port)))
                client.sendall(head)  # and nothing of the body: the request stays in progress
            return [service.ask("/predict", {"inputs": "x"}), service.ask("/health")]

    # More than once, perhaps: HAProxy's next generation, with settings that name the replica, begins to count anew.
    for _ in range(20):
        (status, refused), (health, _) = asked_beside_too_many()
        if status == 429:
            break
    message = "more is waiting than can be answered soon; come back later"
    assert refused["error"] == {"code": "overloaded", "message": message}
    assert health == 200
    wait_until(lambda: service.ask("/predict", {"inputs": "x"})[0] == 200)


def test_another_bundle_is_taken_up_under_load_and_a_damaged_one_is_not(
    service: Service, bundles: dict[str, Path]
) -> None:
    before = service.ask("/info")[1]["model"]["digest"]
    with Load(service) as load:
        wait_until(lambda: before in load.digests)
        service.loads(bundles["second"])
        wait_until(lambda: load.digests[-1:] != [before] or bool(load.wrong or load.broken))
        after = service.ask("/info")[1]["model"]["digest"]
        service.loads(bundles["damaged"])
        wait_until(lambda: bool(service.ask("/info")[1]["last_load_failed"]))
        asked = len(load.digests)
        wait_until(lambda: len(load.digests) > asked + CLIENTS)
    assert load.wrong + load.broken == []
    assert set(load.digests) == {before, after}
    assert before != after
    info = service.ask("/info")[1]
    assert info["model"]["digest"] == after
    assert "damaged" in info["last_load_failed"]
    service.loads(bundles["second"])
    wait_until(lambda: not service.ask("/info")[1]["last_load_failed"])


def test_the_only_replica_dies_under_load_and_later_requests_wait_for_the_next_one(service: Service) -> None:
    died = service.replica()
    with Load(service) as load:
        wait_until(lambda: bool(load.digests))
        os.kill(died, signal.SIGKILL)
        wait_until(lambda: died not in service.running.relatives())
        asked = len(load.digests)
        wait_until(lambda: len(load.digests) > asked + 2 * CLIENTS)
    # Those in progress when it died: with no other replica to ask, not every one of them can be helped.
    assert len(load.broken + load.wrong) <= CLIENTS
    assert service.replica() != died


# A second service on the machine, and everything that goes wrong at once.

FAULTS = 200
CHAOS_TEXTS = [*TEXTS, *(f"{text} {other}" for text in TEXTS for other in TEXTS)]


class Chaos:
    """Clients that ask at random until so many faults have happened: bad items, callers that go away, dead replicas.

    Args:
        service: with two replicas.
        expected: for each bundle that it may serve, by digest, label and score of each text.
        kills: how many replicas die.

    Attributes:
        faults: bad items sent and calls given up, so far.
        answered: requests that were answered in full, and rightly.
        refused: answers of ours that say why not, by status.
        broken: connections closed without an answer, and answers of Ray's own proxy, which is no JSON.
        wrong: any other answer, and requests that hung.
    """

    def __init__(self, service: Service, expected: dict[str, dict[str, tuple[str, float]]], kills: int) -> None:
        self.service, self.expected, self.kills = service, expected, kills
        self.faults, self.answered = 0, 0
        self.refused, self.broken, self.wrong = [], [], []  # type: list[int], list[str], list[Any]

    def run(self, clients: int, beside: Callable[[int], None]) -> None:
        """Returns when there have been enough faults, dead replicas among them; `beside` after each of these."""
        over = threading.Event()
        with ThreadPoolExecutor(clients) as pool:
            done = [pool.submit(self._client, seed, over) for seed in range(clients)]
            try:
                for kill in range(self.kills):
                    wait_until(lambda: len(self.service.replicas()) == 2 and self.service.ready())
                    answered = self.answered
                    os.kill(self.service.replicas()[kill % 2], signal.SIGKILL)
                    beside(kill)
                    wait_until(lambda before=answered: self.answered > before + 2 * clients)  # type: ignore[misc]
                wait_until(lambda: self.faults + self.kills >= FAULTS)
            finally:
                over.set()
        for one in done:
            one.result()

    def _client(self, seed: int, over: threading.Event) -> None:
        chance = random.Random(seed)
        while not over.is_set():
            texts = [chance.choice(CHAOS_TEXTS) for _ in range(chance.randint(1, 5))]
            kind = chance.choices(["good", "bad item", "gone"], [4, 1, 1])[0]
            if kind == "bad item":
                texts[chance.randrange(len(texts))] = chance.choice(["", " \n", "\ud800"])
            self.faults += kind != "good"
            if kind == "gone":
                self._give_up(texts, chance.random() * 0.02)
            else:
                self._ask(texts)

    def _ask(self, texts: list[str]) -> None:
        try:
            status, answer = self.service.ask("/predict", {"inputs": texts})
        except (ConnectionError, ValueError) as error:
            self.broken.append(repr(error))
            return
        except Exception as error:
            self.wrong.append(repr(error))
            return
        if status != 200:
            (self.refused if set(answer) == {"error"} and status in (429, 503) else self.wrong).append(status)
            return
        expected = self.expected.get(answer["model"]["digest"])
        if expected is None:
            self.wrong.append(answer["model"])
            return
        for text, found in zip(texts, answer["predictions"], strict=True):
            label, score = expected.get(text, ("", 0.0))
            right = found["label"] == label and abs(found["score"] - score) < 1e-5 if label else "error" in found
            if not right:
                self.wrong.append((text, found))
        self.answered += 1

    def _give_up(self, texts: list[str], after_s: float) -> None:
        body = json.dumps({"inputs": texts}).encode()
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.service.key}\r\n"
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.service.port), timeout=10) as caller:
            caller.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(after_s)  # the moment at which it goes away is a matter of chance


def test_two_services_with_dead_replicas_and_hot_reloads_never_answer_for_each_other_and_faults_harm_nobody_else(
    service: Service, bundles: dict[str, Path], tmp_path: Path, shell: dict[str, str], full: bool
) -> None:
    kills, expected = 5 if full else 2, {}
    for name in ("third", "fourth"):
        classifier = Classifier.load(str(bundles[name]), device="cpu", precision="fp32")
        scores = classifier.scores(CHAOS_TEXTS)
        expected[classifier.bundle.digest] = {
            text: (str(scores.label(row)), scores.confidence(row)) for row, text in enumerate(CHAOS_TEXTS)
        }
    link = tmp_path / "current"
    link.symlink_to(bundles["third"])
    two = [part for name in ("min", "max") for part in ("--set", f"serve.{name}_replicas=2")]
    second = Service(link, shell, *two, "--set", "serve.cpus_per_replica=0.5", key="another service's key")

    def beside(kill: int) -> None:
        """The first service's only replica dies, too, and both load another bundle."""
        os.kill(service.replica(), signal.SIGKILL)
        second.loads(bundles[("fourth", "third")[kill % 2]])
        service.loads(bundles[("first", "second")[kill % 2]])
        wait_until(lambda: len(service.replicas()) == 1 and service.ready())

    try:
        with Load(service) as load:
            second.running.until(second.ready)
            chaos = Chaos(second, expected, kills)
            chaos.run(CLIENTS, beside)
        assert chaos.wrong == []
        # Only a request that was in progress when its replica died may be without an answer of ours.
        assert len(chaos.broken) <= kills * CLIENTS, chaos.broken
        assert chaos.answered > FAULTS
        own = {load_bundle(str(bundles[name])).digest for name in ("first", "second")}
        assert set(load.digests) <= own
        assert {status for status, _ in load.wrong} <= {503}, load.wrong
        assert len(load.broken) <= kills * CLIENTS, load.broken
        # Full service again: both replicas, and nobody is refused.
        wait_until(lambda: len(second.replicas()) == 2)
        assert second.ask("/predict", {"inputs": CHAOS_TEXTS})[0] == 200
    finally:
        second.running.kill()


IN_FLIGHT = QUEUED // 2  # so many texts are taken however slow the machine is


def test_sigterm_answers_every_request_in_flight_ends_with_status_0_and_leaves_nothing(service: Service) -> None:
    body = json.dumps({"inputs": TEXTS[0]})
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    clients = [http.client.HTTPConnection("127.0.0.1", service.port, timeout=60) for _ in range(IN_FLIGHT)]
    for client in clients:
        client.request("GET", "/health")  # so that the connection is one that is kept
        client.getresponse().read()
    for client in clients:
        client.request("POST", "/predict", body, headers)
    service.running.signal(signal.SIGTERM)
    answers = [client.getresponse() for client in clients]
    assert [answer.status for answer in answers] == [200] * IN_FLIGHT
    assert all("predictions" in json.loads(answer.read()) for answer in answers)
    ended = service.running.ended()
    assert ended.status == 0, ended
    # Not before the end: Ray itself tells of the replicas that earlier tests killed.
    _, _, told = ended.out.partition("\nending: ")
    assert told.count("\n") == 1, ended
    assert ended.err == "", ended
    assert f" on {service.url}" in ended.out
    # What became of each hot reload was told, too.
    assert re.search(r"^load 1: now serving \S+/second$", ended.out, re.MULTILINE), ended.out
    assert re.search(r"^load 2: refused: \S+/damaged.* still serving \S+/second$", ended.out, re.MULTILINE), ended.out
    assert service.running.relatives() == {}
    with pytest.raises(OSError, match="refused"):
        service.ask("/ready")
