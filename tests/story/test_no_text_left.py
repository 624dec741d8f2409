"""With masks and encryption, no identifier of a person and no text is left anywhere: not in output, results,
checkpoints, logs of Ray, nor among temporary files. The run is killed and resumed."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from textcls import encryption

from .conftest import CHECKOUT, OFTEN, Ended, Running, reviews, write_recipe

SECRET = pyrage.x25519.Identity.generate()
RECIPIENT = str(SECRET.to_public())
MASK = "text.mask=[email, phone, url, ip, card, number]"


def identifiers() -> list[str]:
    """50 of five kinds; none is a real person's."""
    found = []
    for i in range(10):
        found += [f"someone.{i}q@example.com", f"+1 202 555 01{i + 20}", f"https://example.com/user-{i}q"]
        found += [f"198.51.100.{i + 130}", f"411111111111{_with_check_digit(f'{i + 370:03d}')}"]
    return found


def _with_check_digit(digits: str) -> str:
    """The last four digits of a card number that begins with 411111111111."""
    for last in "0123456789":
        numbers = [int(one) for one in reversed(f"411111111111{digits}{last}")]
        if sum(numbers[::2]) % 10 == sum(sum(divmod(2 * one, 10)) for one in numbers[1::2]) * 9 % 10:
            return digits + last
    raise AssertionError(digits)


PLANTED = identifiers()
# In no other place than the texts: words of ours, and what makes each of them different.
WORDS = [f"zq7f{i:04d}" for i in range(200)]


@pytest.fixture
def scratch_of_this_story() -> Iterator[Path]:
    """Where Ray and tempfile put their files; a short path, for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="left-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def home(tmp_path: Path, tiny_model_dir: Path) -> Path:
    """A folder with a recipe, and in a folder of its own a CSV whose texts hold the identifiers, rejects included."""
    (tmp_path / "inputs").mkdir()
    write_recipe(tmp_path, tiny_model_dir, csv="inputs/reviews.csv")
    rows = [(f"{WORDS[i]} {PLANTED[i % 50]} {text}", label) for i, (text, label) in enumerate(reviews(200))]
    lines = ["text,label", *(f"{text},{label}" for text, label in rows)]
    lines += [f"{PLANTED[0]} of no label,", f"{PLANTED[1]},positive,too many cells"]
    (tmp_path / "inputs" / "reviews.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def leaks(ended: list[Ended], *places: Path) -> list[str]:
    """Where identifiers or texts are, other than in the inputs."""
    found = {f"{stream} {i}": getattr(one, stream).encode() for i, one in enumerate(ended) for stream in ("out", "err")}
    for place in places:
        for path in place.rglob("*"):
            if path.is_file() and path.parent.name != "inputs":
                found[str(path)] = path.read_bytes()
    searched = [one.encode() for one in [*PLANTED, *WORDS]]
    return [f"{name}: {word!r}" for name, content in found.items() for word in searched if word in content]


def test_nothing_that_a_person_wrote_is_left_but_encrypted(
    home: Path, shell: dict[str, str], scratch_of_this_story: Path
) -> None:
    scratch = scratch_of_this_story
    env = shell | {"RAY_TMPDIR": str(scratch), "TMPDIR": str(scratch), "XDG_CACHE_HOME": str(home / "cache")}
    ended: list[Ended] = []

    def start(command: str, *arguments: str) -> Running:
        job = [sys.executable, CHECKOUT / "jobs" / f"{command}.py", *arguments, "--encrypt-to", RECIPIENT]
        return Running(job, cwd=home, env=env)

    def done(running: Running, status: int) -> None:
        try:
            ended.append(running.ended())
            assert ended[-1].status == status, ended[-1]
        finally:
            running.kill()

    train = ["--recipe", "recipe.yaml", "--out", "run", "--verbose", *OFTEN]
    train += ["--set", MASK, "--set", "report.texts=true", "--set", "data.max_reject_fraction=0.5"]
    running = start("train", *train)
    try:
        running.until(lambda: any((home / "run" / "training").glob("attempt-*/step-*/checkpoint.json")))
        running.signal(signal.SIGKILL)
    finally:
        done(running, -signal.SIGKILL)
    assert leaks(ended, home, scratch) == []
    done(start("train", *train, "--resume"), 0)
    bundle = ["--bundle", "run/bundle", "--csv", "inputs/reviews.csv", "--verbose"]
    done(start("predict", *bundle, "--out", "predicted", "--rank-by", "uncertainty", "--rank-rows", "20"), 0)
    done(start("explain", *bundle, "--out", "explained", "--rows", "20"), 0)
    assert leaks(ended, home, scratch) == []

    encrypted = sorted(path.relative_to(home) for path in home.rglob("*.age"))
    assert [str(path) for path in encrypted] == [
        *("explained/explanations.html.age", "explained/parts/part-00000.parquet.age"),
        *("predicted/parts/part-00000.parquet.age", "predicted/to_label.csv.age"),
        *("run/rejects.parquet.age", "run/report.html.age", "run/report.json.age"),
    ]
    content = {str(path): encryption.read_bytes(str(home / path), [SECRET]) for path in encrypted}
    holds = {name: any(word.encode() in inside for word in WORDS) for name, inside in content.items()}
    assert all(holds[name] for name in ("predicted/to_label.csv.age", "run/report.json.age")), holds
    assert os.listdir(scratch), "Ray's logs were looked at"
