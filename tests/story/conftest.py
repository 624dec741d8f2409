"""Stories run the real jobs in processes of their own, from a directory of the user's, with Ray on this machine."""

import fcntl
import importlib
import json
import os
import pickle
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from tests.conftest import s3_variables
from tests.story.machines import Machine, Network
from textcls.on_ray.session import ray_session

CHECKOUT = Path(__file__).resolve().parents[2]
# Far above what is needed: minutes at most on a machine that others keep busy.
BOUND_S = 900
NOISE = re.compile(r"Traceback|ray::|\(pid=|site-packages|WARNING|ERROR|SIGTERM|Warning:|\bNone\b")


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit status and what it printed."""

    status: int
    out: str
    err: str

    def calmly(self, status: int) -> "Ended":
        """Itself, if it ended with this status, without a traceback, another program's log lines or a line twice."""
        assert self.status == status, f"exit {self.status}\n{self.out}\n{self.err}"
        for stream in (self.out, self.err):
            assert not NOISE.search(stream), stream
            lines = [line for line in stream.splitlines() if line.strip(" ─")]
            assert len(set(lines)) == len(lines), stream
        return self


def wait_until(happened: Callable[[], bool], *, pause_s: float = 0.02) -> None:
    """Looks again and again whether something has happened."""
    given_up, pause = time.monotonic() + BOUND_S, threading.Event()
    while not happened():
        assert time.monotonic() < given_up, "it did not happen"
        pause.wait(pause_s)


class Running:
    """A process with a session of its own, so that everything it starts can be told from the rest of the machine."""

    def __init__(self, command: list[Any], *, cwd: Path, env: dict[str, str], **streams: Any) -> None:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        self.process = subprocess.Popen(
            [str(part) for part in command], cwd=cwd, env=env, start_new_session=True, **streams
        )

    def ended(self) -> Ended:
        """Waits for the end."""
        out, err = self.process.communicate(timeout=BOUND_S)
        return Ended(self.process.returncode, (out or b"").decode(), (err or b"").decode())

    def until(self, happened: Callable[[], bool]) -> None:
        """Waits until something has happened, which the process must live to see."""
        wait_until(lambda: happened() or self.process.poll() is not None)
        assert self.process.poll() is None, self.ended()

    def relatives(self) -> dict[int, str]:
        """Pid -> name of every living process that it started, directly or not, itself included."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                name, _, fields = entry.read_text().partition("(")[2].rpartition(")")
                state, _, _, session, *_ = fields.split()
                if int(session) == self.process.pid and state != "Z":
                    found[int(entry.parent.name)] = name
        return found

    def signal(self, number: int, *, group: bool = False) -> None:
        """Sends a signal to the process, or to its group as a terminal does."""
        (os.killpg if group else os.kill)(self.process.pid, number)

    def kill(self) -> None:
        """Ends it and everything it started."""
        for pid in self.relatives():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """Where Ray and tempfile put their files. Its path is short: Ray's sockets lie in it."""
    directory = Path(tempfile.mkdtemp(prefix="story-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def shell(scratch: Path) -> dict[str, str]:
    """A new user's environment: nothing that keeps Ray or transformers quiet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TOKENIZERS_"))}
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(scratch),
        # As in tests/conftest.py; not in stories whose nodes are drained.
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "TMPDIR": str(scratch),
    }


def ray_sessions(shell: dict[str, str]) -> set[str]:
    """The sessions that Ray has begun in this shell so far."""
    return {path.name for path in Path(shell["RAY_TMPDIR"]).glob("ray/session_*")}


def train_command(*arguments: Any) -> list[Any]:
    return [sys.executable, CHECKOUT / "jobs" / "train.py", *arguments]


@dataclass(frozen=True)
class User:
    """Someone in a directory with `recipe.yaml`, who trains.

    Attributes:
        home: the directory.
        shell: environment variables.
    """

    home: Path
    shell: dict[str, str]

    def starts(self, *arguments: Any, **streams: Any) -> Running:
        return Running(train_command("--recipe", "recipe.yaml", *arguments), cwd=self.home, env=self.shell, **streams)

    def trains(self, *arguments: Any) -> Ended:
        running = self.starts(*arguments)
        try:
            return running.ended()
        finally:
            running.kill()

    def csv(self, name: str, content: str | bytes) -> Path:
        path = self.home / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


# A run that lasts long enough to be met by a fault; checkpoints change nothing of what is learned.
OFTEN = ("--set", "train.checkpoint_every_steps=10")


def write_recipe(folder: Path, model: Path, **data: Any) -> None:
    """A recipe that trains the tiny model in seconds."""
    recipe = {
        "data": data,
        "text": {"max_tokens": 32},
        "model": {"pretrained": str(model)},
        "train": {
            "epochs": 2,
            "rows_per_step": 1,
            "learning_rate": 0.001,
            "precision": "fp32",
            # Ray Train takes about three checkpoints a second: every tenth step's would be most of such a run.
            "checkpoint_every_steps": 50,
        },
        # One thread: on a busy machine two wait for each other.
        "scale": {"cpus_per_worker": 1},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def reviews(rows: int) -> list[tuple[str, str]]:
    """Different short reviews and their labels, which their words give away."""
    chance = random.Random(0)
    words = {"positive": ["great", "moving", "wonderful", "fine"], "negative": ["awful", "boring", "bad", "dull"]}
    made = []
    for i in range(rows):
        label = chance.choice(list(words))
        choice = [*words[label], "the film", "its plot", "was", "really"]
        made.append((" ".join(chance.choice(choice) for _ in range(chance.randint(3, 12))) + f" {i}", label))
    return made


def as_csv(rows: list[tuple[str, str]]) -> str:
    return "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)


@pytest.fixture
def user(tmp_path: Path, tiny_model_dir: Path, shell: dict[str, str]) -> User:
    """A user with 300 reviews and a Ray of their own."""
    write_recipe(tmp_path, tiny_model_dir, csv="reviews.csv")
    user = User(tmp_path, shell)
    user.csv("reviews.csv", as_csv(reviews(300)))
    return user


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster of one node with two CPUs: where to connect, to submit jobs, to read metrics; its processes."""

    address: str
    dashboard: str
    metrics: str
    node: Running


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority of our own, and what it gave to this machine."""

    authority: Path
    cert: Path
    key: Path


def certificates(folder: Path, address: str = "127.0.0.1") -> Certificates:
    """New ones, for localhost and an address, good for a day."""
    made = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    own = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    authority = ["-keyout", folder / "ca-key.pem", "-out", made.authority, "-subj", "/CN=authority"]
    given = ["-CA", made.authority, "-CAkey", folder / "ca-key.pem", "-keyout", made.key, "-out", made.cert]
    names = ["-subj", "/CN=localhost", "-addext", f"subjectAltName=DNS:localhost,IP:{address}"]
    leaf = [*names, "-addext", "basicConstraints=critical,CA:FALSE"]
    for words in ([*own, *authority], [*own, *given, *leaf]):
        subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=60)
    return made


def free_port() -> int:
    """A port of the loopback address on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def cluster(scratch: Path, shell: dict[str, str]) -> Iterator[Cluster]:
    port, dashboard, agent, metrics = (free_port() for _ in range(4))
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"),
        *(f"--port={port}", "--node-ip-address=127.0.0.1", f"--dashboard-agent-listen-port={agent}"),
        *("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *("--object-store-memory=200000000", "--disable-usage-stats", f"--metrics-export-port={metrics}"),
    ]
    # A tiny run is over before Ray would export its metrics for the first time.
    env = shell | {"RAY_metrics_report_interval_ms": "500"}
    with open(scratch / "cluster.log", "wb") as log:
        node = Running(command, cwd=scratch, env=env, stdout=log, stderr=log)
    urls = (f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{metrics}/metrics")
    found = Cluster(f"127.0.0.1:{port}", *urls, node)

    def answers() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{found.dashboard}/api/jobs/", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    try:
        node.until(answers)
        yield found
    finally:
        node.kill()


@pytest.fixture(scope="session")
def working_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout without what git ignores."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=CHECKOUT, capture_output=True, check=True, timeout=60).stdout.decode()
    copy = tmp_path_factory.mktemp("checkout")
    for name in filter(None, names.split("\0")):
        if (CHECKOUT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CHECKOUT / name, copy / name)
    return copy


@pytest.fixture
def cluster_user(user: User, cluster: Cluster) -> User:
    """A user with 300 reviews whose jobs join a running cluster, which takes seconds less than starting one."""
    return User(user.home, user.shell | {"RAY_ADDRESS": cluster.address})


class Command(Protocol):
    """Runs a command of textcls in this process: a process of its own takes seconds for its imports."""

    def __call__(self, job: str, home: Path, *arguments: Any) -> Ended: ...


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(job: str, home: Path, *arguments: Any) -> Ended:
        main = importlib.import_module(f"textcls.commands.{job}").main
        with monkeypatch.context() as patch:
            patch.chdir(home)
            capsys.readouterr()
            status = main([str(argument) for argument in arguments])
        return Ended(status, *capsys.readouterr())

    return run


@pytest.fixture
def without_ray(here: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command that must end before it starts or joins a Ray."""
    import ray

    def starts(*_: object, **__: object) -> None:
        raise AssertionError("Ray starts")

    monkeypatch.setattr(ray, "init", starts)
    monkeypatch.setattr(ray, "is_initialized", starts)
    return here


@pytest.fixture(scope="module")
def driver(cluster: Cluster) -> Iterator[None]:
    """This process is a driver of the cluster."""
    import ray

    assert not ray.is_initialized(), "another Ray of this process would be used in place of the cluster"
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster.address)
        with ray_session():
            yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def on_cluster(driver: None, here: Command, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command that uses the cluster."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    return here


# Asks in a process on one of the nodes: status, or 0 if nobody answers, and content.
ASK = """
import sys, urllib.error, urllib.request
url, content, *headers = sys.argv[1:]
request = urllib.request.Request(url, content.encode() or None, dict(header.split(": ", 1) for header in headers))
try:
    with urllib.request.urlopen(request, timeout=60) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as refused:
    print(refused.code, refused.read().decode())
except OSError as error:
    print(0, error)
"""


@dataclass(frozen=True)
class Nodes:
    """A cluster of three machines that asks for a token, and its operator.

    Attributes:
        head: it has no CPU for work; the dashboard and the jobs API listen on its loopback address.
        workers: they have one CPU each.
        checkout: the operator's own, without what git ignores.
        shell: the operator's environment; HOME holds .textcls.
        bucket: name of a bucket that all of them reach.
    """

    head: Machine
    workers: tuple[Machine, ...]
    checkout: Path
    shell: dict[str, str]
    bucket: str

    @property
    def token(self) -> str:
        return (Path(self.shell["HOME"]) / ".textcls" / "auth_token").read_text()

    def operator(self, command: str) -> Ended:
        """Runs a line of the operator's shell at the head's end of the tunnel that `ray dashboard` makes."""
        running = Running(self.head.inside("bash", "-c", command), cwd=self.checkout, env=self.shell)
        try:
            return running.ended()
        finally:
            running.kill()

    def asks(self, machine: Machine, url: str, *headers: str, content: str = "") -> tuple[int, str]:
        """(status, content) of the answer to a request made on a machine; status 0 if nobody answers."""
        command = machine.inside(sys.executable, "-c", ASK, url, content, *headers)
        done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=True)
        status, _, answer = done.stdout.partition(" ")
        return int(status), answer

    def dashboard(self, path: str) -> Any:
        """What the dashboard's API tells who has the token."""
        url = f"http://127.0.0.1:8265{path}"
        status, answer = self.asks(self.head, url, f"authorization: Bearer {self.token}")
        return json.loads(answer) if status == 200 else None

    def ids(self, *, workers_only: bool = False) -> set[str]:
        """Ids of the nodes that live."""
        answer = self.dashboard("/api/v0/nodes?limit=100")
        alive = [node for node in answer["data"]["result"]["result"] if node["state"] == "ALIVE"] if answer else []
        return {node["node_id"] for node in alive if not (workers_only and node["is_head_node"])}


def _start_node(machine: Machine, role: str, scratch: Path, env: dict[str, str], options: str) -> Running:
    """Starts Ray as cluster/ray-aws-gpu.yaml does, with its secrets at another place, and smaller."""
    commands = yaml.safe_load((CHECKOUT / "cluster" / "ray-aws-gpu.yaml").read_text())[f"{role}_start_ray_commands"]
    command = commands[-1].replace("/home/ray/secrets", env["SECRETS"])
    place = scratch / machine.address
    place.mkdir()
    command = command.replace("--autoscaling-config=~/ray_bootstrap_config.yaml", "").strip()
    small = f"--block --disable-usage-stats --object-store-memory=150000000 --temp-dir={place / 'ray'} {options}"
    env = env | {"TMPDIR": str(place), "RAY_TMPDIR": str(place), "XDG_CACHE_HOME": str(place / "cache")}
    with open(place / "log", "wb") as log:
        return Running(machine.inside("bash", "-c", f"{command} {small}"), cwd=place, env=env, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def bucket(s3_server: str) -> Iterator[str]:
    """Name of a new bucket, with the environment that leads there."""
    import boto3

    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_variables(s3_server).items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="company")
        yield "company"


@contextmanager
def _s3_on(machine: Machine) -> Iterator[str]:
    """URL, on a machine, of an S3 server with the content of the one in this process."""
    store = DomainDispatcherApplication(create_backend_app)
    with machine.listens(5000) as port:
        address = (machine.address, 5000)
        server = make_server(*address, store, True, request_handler=MotoRequestHandler, fd=port.fileno())
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{machine.address}:5000"
        finally:
            server.shutdown()
            server.server_close()


@pytest.fixture(scope="module")
def nodes(
    scratch: Path, shell: dict[str, str], working_dir: Path, bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nodes]:
    home = tmp_path_factory.mktemp("operator")
    checkout, secrets = shutil.copytree(working_dir, home / "textcls"), home / ".textcls"
    secrets.mkdir(mode=0o700)
    for name in ("auth_token", "serve_key"):
        (secrets / name).write_text(random.Random(name).randbytes(32).hex())
    everywhere = shell | {"PATH": f"{Path(sys.executable).parent}:{shell['PATH']}", "RAY_AUTH_MODE": "token"}
    everywhere["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "1"
    with Network(3) as network, _s3_on(network.outside) as s3_url:
        head, *workers = network.machines
        operator = everywhere | {"HOME": str(home), "BUCKET": bucket}
        found = Nodes(head, tuple(workers), checkout, operator, bucket)
        env = everywhere | s3_variables(s3_url) | {"RAY_AUTH_TOKEN_PATH": str(secrets / "auth_token")}
        # In place of a name service: by this machine's name gloo would find an address that these machines have not.
        env |= {"SECRETS": str(secrets), "RAY_HEAD_IP": head.address, "GLOO_SOCKET_IFNAME": "eth0"}
        first = _start_node(head, "head", scratch, env, "")
        first.until(lambda: len(found.ids()) == 1)
        others = [_start_node(worker, "worker", scratch, env, "--num-cpus=1") for worker in workers]
        for other in others:
            other.until(lambda: len(found.ids()) == 3)
        yield found


def step_of(out: Path) -> int:
    """Step of the latest complete checkpoint in an --out; 0 before the first."""
    return max((int(path.parent.name[5:]) for path in out.glob("training/*/step-????????/checkpoint.json")), default=0)


def weights_of(out: Path) -> bytes:
    return (out / "bundle" / "model.safetensors").read_bytes()


@dataclass(frozen=True)
class FirstRun:
    """A user's first run, from the start to the end in one go.

    Attributes:
        user: whose.
        out: its --out.
        csv: what it read.
        ended: how it ended.
        rejects: (line, column, reason, value) of every row that cannot be used, in file order.
        duplicates: rows whose text stands in the file before.
        outside_where: rows that the recipe does not ask for.
        clean: rows to learn from.
        temporary: what it left among the machine's temporary files.
    """

    user: User
    out: Path
    csv: Path
    ended: Ended
    rejects: list[tuple[int, str, str, str]]
    duplicates: int
    outside_where: int
    clean: int
    temporary: set[Path]

    @property
    def weights(self) -> bytes:
        return weights_of(self.out)


@pytest.fixture(scope="session")
def first_run(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model_dir: Path,
    shell: dict[str, str],
    scratch: Path,
) -> FirstRun:
    """A run over a CSV with everything that happens to rows; other stories end with the same weights.

    It is made once, and each parallel test process has a copy of its directory.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if hasattr(request.config, "workerinput") else base) / "first run"
    shared.mkdir(exist_ok=True)
    with open(shared / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "made").exists():
            (shared / "home").mkdir()
            made = _make_first_run(User(shared / "home", shell), tiny_model_dir, scratch)
            (shared / "made").write_bytes(pickle.dumps(made))
    run: FirstRun = pickle.loads((shared / "made").read_bytes())  # written above, by a process of this test session
    home = Path(shutil.copytree(shared / "home", tmp_path_factory.mktemp("first run") / "home"))
    return replace(run, user=User(home, shell), out=home / "out")


def _make_first_run(user: User, tiny_model_dir: Path, scratch: Path) -> FirstRun:
    write_recipe(user.home, tiny_model_dir, csv="reviews.csv", where={"source": "web"}, labels=["negative", "positive"])
    good = [f"web,{text},{label}\n" for text, label in reviews(600)]
    twice = [row.replace("web,", "web, ").replace("great", "GREAT") for row in good[100:110]]
    outside = [f"mail,{text},{label}\n" for text, label in reviews(20)]
    lines = ["source,text,label\n", *good, 'web,"fine\nin two lines",positive\n', *twice, *outside]
    start = len("".join(lines).splitlines()) + 1
    content = "".join(lines).encode() + (
        b"web,,positive\n"
        b"web,great but unlabelled,\n"
        b"web,buy this now,spam\n"
        b"web,a comma, too many,negative\n"
        b"web,a dull caf\xe9,negative\n"
    )
    rejects = [
        (start, "text", "missing_text", ""),
        (start + 1, "label", "missing_label", ""),
        (start + 2, "label", "unknown_label", "spam"),
        (start + 3, "", "ragged_row", "4 fields, expected 3"),
        (start + 4, "text", "undecodable", r"a dull caf\xe9"),
    ]
    csv, out = user.csv("reviews.csv", content), user.home / "out"
    before = set(scratch.glob("textcls-*"))
    ended = user.trains("--out", "out")
    left = set(scratch.glob("textcls-*")) - before
    return FirstRun(user, out, csv, ended, rejects, len(twice), len(outside), len(good) + 1, left)
