"""Keys and texts of clients stand nowhere: not in output, results, logs of Ray, nor in lists of processes. The service
serves a sealed bundle."""

import os
import shutil
import signal
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyrage
import pytest

from textcls import storage
from textcls.bundle import load_bundle
from textcls.sealed_directory import seal_directory

from .conftest import BOUND_S, CHECKOUT, Running, as_csv, free_port, reviews, write_recipe

SECRETS = {
    name: f"canary{os.urandom(12).hex()}"
    for name in ("AWS_SECRET_ACCESS_KEY", "TEXTCLS_KEY", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN")
}
# The one in a file opens the bundle, the one in the environment opens nothing.
IDENTITY, OTHER = (pyrage.x25519.Identity.generate() for _ in range(2))
SECRETS["TEXTCLS_AGE_IDENTITY"] = str(OTHER)
WRONG_KEY, TEXT = (f"canary{os.urandom(12).hex()}" for _ in range(2))
EVERY = [*SECRETS.values(), str(IDENTITY), WRONG_KEY, TEXT]


@contextmanager
def listed(running: Running) -> Iterator[list[str]]:
    """The command lines of a process and all that it starts, looked at again and again."""
    seen: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            for pid in running.relatives():
                with suppress(OSError):
                    seen.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join(BOUND_S)


def files_in(bucket: str) -> Iterator[bytes]:
    """The content of every object."""
    from pyarrow import fs

    store, path = storage.filesystem(bucket)
    for info in store.get_file_info(fs.FileSelector(path, recursive=True)):
        if info.is_file:
            yield info.path.encode() + store.open_input_file(info.path).read()


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="keys-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.name.startswith("replica_") else []


def _asks(url: str, key: str, body: bytes | None = None) -> int:
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def test_no_key_and_no_client_s_text_is_left_anywhere(
    s3: str, tiny_model_dir: Path, tmp_path: Path, shell: dict[str, str], ray_folder: Path
) -> None:
    write_recipe(tmp_path, tiny_model_dir, csv=f"{s3}/reviews.csv")
    storage.write_bytes(f"{s3}/reviews.csv", as_csv(reviews(120)).encode())
    own = {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
    mlflow = {
        "MLFLOW_TRACKING_URI": (tmp_path / "mlflow").as_uri(),
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }
    folders = {"RAY_TMPDIR": str(ray_folder), "TMPDIR": str(ray_folder), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    env = shell | own | mlflow | folders | SECRETS
    found: list[bytes] = []

    train = [sys.executable, CHECKOUT / "jobs" / "train.py", "--recipe", "recipe.yaml", "--out", f"{s3}/run"]
    train += ["--encrypt-to", str(IDENTITY.to_public())]
    running = Running([*train, "--verbose", "--set", "train.epochs=1"], cwd=tmp_path, env=env)
    try:
        with listed(running) as lines:
            ended = running.ended()
    finally:
        running.kill()
    assert ended.status == 0, ended
    found += [ended.out.encode(), ended.err.encode(), *(line.encode() for line in lines)]

    bundle = load_bundle(f"{s3}/run/bundle", cache=str(tmp_path / "cache"))
    seal_directory(bundle.directory, f"{s3}/bundle.age", [str(IDENTITY.to_public())])
    port = free_port()
    serve = [sys.executable, CHECKOUT / "jobs" / "serve.py", "--bundle", f"{s3}/bundle.age", "--port", port]
    (tmp_path / "key.txt").write_text(str(IDENTITY))
    key = ["--verbose", "--set", "serve.api_key_from=env:TEXTCLS_KEY", "--identity-file", "key.txt"]
    running, url = Running([*serve, *key], cwd=tmp_path, env=env), f"http://127.0.0.1:{port}"

    def ready() -> bool:
        with suppress(OSError):
            return _asks(f"{url}/ready", "") == 200
        return False

    try:
        with listed(running) as lines:
            running.until(ready)
            body = f'{{"inputs": ["{TEXT}"]}}'.encode()
            assert _asks(f"{url}/predict", SECRETS["TEXTCLS_KEY"], body) == 200
            assert _asks(f"{url}/predict", WRONG_KEY, body) == 401
            assert _asks(f"{url}/predict", SECRETS["TEXTCLS_KEY"], body[:-1]) == 400
            # Ray writes a replica's lines a thousand at a time.
            assert {_asks(f"{url}/info", WRONG_KEY) for _ in range(1100)} == {401}
            running.signal(signal.SIGTERM)
            ended = running.ended()
    finally:
        running.kill()
    found += [ended.out.encode(), ended.err.encode(), *(line.encode() for line in lines)]
    assert any(b"serve.api_key_from=env:TEXTCLS_KEY" in line for line in found), "the lists of processes were seen"

    found += files_in(s3)
    assert list(ray_folder.glob("textcls-opened-*/model.safetensors")) == [], "an opened bundle is gone"
    logs = [path for path in ray_folder.rglob("*") if path.is_file()]
    assert any("401" in line and "/predict" in line for path in logs for line in _lines(path)), "logs were seen"
    for path in [*logs, *(path for path in (tmp_path / "mlflow").rglob("*") if path.is_file())]:
        found.append(f"{path}: ".encode() + path.read_bytes())
    leaks = [content[:200] for content in found for secret in EVERY if secret.encode() in content]
    assert leaks == []
