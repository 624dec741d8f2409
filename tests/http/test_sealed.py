"""A service of a sealed bundle answers as one of the bundle itself, reloads, and names no key."""

import asyncio
from pathlib import Path

import pyrage
import pytest

from tests.conftest import save_tiny_bundle
from tests.http.conftest import BOUND_S, Service, service_of
from textcls.age_keys import IDENTITY, IDENTITY_FILE
from textcls.errors import InputError
from textcls.sealed_directory import seal_directory

SECRET = pyrage.x25519.Identity.generate()
TEXTS = ["the film was really great", "its plot was awful", "fine!"]


@pytest.fixture
def identity_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in (IDENTITY, IDENTITY_FILE):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "key.txt"
    path.write_text(f"# a comment\n{SECRET}\n")
    return str(path)


def sealed(bundle: Path, path: Path) -> Path:
    seal_directory(str(bundle), str(path), [str(SECRET.to_public())])
    return path


def load(service: Service, uri: Path) -> str:
    """What the service says of a hot reload."""
    asyncio.run_coroutine_threadsafe(service.scorer.load(str(uri)), service.loop).result(BOUND_S)
    return service.scorer.problem


def test_a_sealed_bundle_answers_as_the_bundle_itself_and_is_replaced_by_another(
    service: Service, tiny_bundle: Path, tiny_model_dir: Path, tmp_path: Path, identity_file: str
) -> None:
    first = sealed(tiny_bundle, tmp_path / "first.age")
    second = sealed(save_tiny_bundle(tiny_model_dir, tmp_path / "other", seed=1), tmp_path / "second.age")
    with service_of(first, identity_file=identity_file) as other:
        body = {"inputs": TEXTS}
        expected = service.ask("/predict", body).json["predictions"]
        assert other.ask("/predict", body).json["predictions"] == expected
        explained = [one.ask("/explain", {"text": TEXTS[0]}).json["explanations"] for one in (service, other)]
        assert explained[0] == explained[1]
        assert other.ask("/predict", body).json["model"] == service.ask("/predict", body).json["model"]
        assert load(other, second) == ""
        changed = other.ask("/predict", body).json["predictions"]
        assert changed != expected

        damaged = tmp_path / "damaged.age"
        damaged.write_bytes(first.read_bytes()[:-1])
        assert "damaged, incomplete or no file of age" in load(other, damaged)
        assert other.ask("/predict", body).json["predictions"] == changed, "the bundle before still serves"
        answers = [other.ask(path).body for path in ("/info", "/metrics", "/ready")]
        assert not any(
            str(SECRET).encode() in content for content in [*answers, *(line.encode() for line in other.log)]
        )


def test_a_replica_without_an_identity_refuses_a_sealed_bundle(
    service: Service, tiny_bundle: Path, tmp_path: Path, identity_file: str
) -> None:
    path = sealed(tiny_bundle, tmp_path / "b.age")
    with service_of(tiny_bundle) as running:
        problem = load(running, path)
        assert "there is no identity to open it" in problem
        assert IDENTITY_FILE in problem
    with pytest.raises(InputError, match="no identity"):
        asyncio.run(_first(path))


async def _first(path: Path) -> None:
    from textcls.serving.scorer import Scorer
    from textcls.settings.serve import ServeSpec

    scorer = Scorer(ServeSpec(), threads=1)
    try:
        await scorer.load(str(path))
    finally:
        await scorer.close()
