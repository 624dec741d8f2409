"""What predict and explain encrypt: the same files as without, readable by the recipients and by no one else.

The jobs run whole, but without Ray: this process is the only actor.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tests.unit.test_predict_to_label import pool_of, reviews
from textcls import encryption
from textcls.age_keys import IDENTITY, IDENTITY_FILE
from textcls.batch import embedding_pool, explain
from textcls.batch import predict as job
from textcls.batch.actor_pool import PoolSize
from textcls.batch.explanation_rows import Explaining
from textcls.batch.settings import predict_settings
from textcls.batch.to_label import RankSpec
from textcls.data.csv_shards import run_here
from textcls.encryption import Keys
from textcls.errors import RunDirError
from textcls.inference.classifier import Classifier

Job = Callable[..., list[str]]
SECRET = pyrage.x25519.Identity.generate()
KEYS = Keys((str(SECRET.to_public()),))
SHARDS = "data.shard_bytes=1500"
# Words of the rows, and bytes of every page and Parquet file.
PLAIN = (b"moving", b"the film", b"caf\xc3\xa9", b"<html", b"PAR1")


@pytest.fixture(scope="module")
def classifier(tiny_bundle: Path) -> Classifier:
    return Classifier.load(str(tiny_bundle), threads=1)


@pytest.fixture(autouse=True)
def in_this_process(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (job, embedding_pool):
        monkeypatch.setattr(module, "run_on_pool", pool_of(classifier))
        monkeypatch.setattr(module, "plan_pool", lambda scale, *, items: PoolSize(max(1, items), False, 1, 0))
    monkeypatch.setattr(job, "run_on_ray", run_here)
    monkeypatch.setattr(job, "ray_session", lambda **_: nullcontext())
    monkeypatch.delenv(IDENTITY, raising=False)
    monkeypatch.delenv(IDENTITY_FILE, raising=False)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))


@pytest.fixture
def run(classifier: Classifier, tmp_path: Path) -> Job:
    """Runs `predict` or, with `explaining`, `explain` on 60 rows; returns the lines for the user."""
    csv = reviews(tmp_path / "r.csv", 60, seed=5)

    def ran(
        out: Path, *, killed_at: str = "nothing", explaining: Explaining | None = None, **options: Any
    ) -> list[str]:
        lines: list[str] = []

        def say(line: str) -> None:
            lines.append(line)
            if line.startswith(killed_at):
                raise KeyboardInterrupt

        spec = predict_settings(classifier.bundle, [str(csv)], [SHARDS])
        if explaining is not None:
            explain.explain_rows(classifier.bundle, spec, str(out), explaining, say=say, **options)
        else:
            options = {"suffix": "parquet", "all_scores": False} | options
            job.predict(classifier.bundle, spec, str(out), say=say, **options)
        return lines

    return ran


def files_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def opened(out: Path, *secrets: Any) -> dict[str, bytes]:
    """Name as a plain file -> plaintext of each encrypted file."""
    paths = [path for path in sorted(out.rglob("*.age")) if path.is_file()]
    read = {path: encryption.read_bytes(str(path), secrets or [SECRET]) for path in paths}
    return {str(path.relative_to(out)).removesuffix(".age"): content for path, content in read.items()}


def plain_leaks(*places: Path) -> list[str]:
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(word in path.read_bytes() for word in PLAIN)]


@pytest.mark.parametrize("options", [{"suffix": "csv", "csv_encoding": "utf-8-sig"}, {"rank": RankSpec(20)}])
def test_predictions_are_the_same_files_but_encrypted(run: Job, tmp_path: Path, options: dict[str, Any]) -> None:
    run(tmp_path / "plain", **options)
    run(tmp_path / "out", keys=KEYS, **options)
    plain, manifest = files_of(tmp_path / "plain"), json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert opened(tmp_path / "out") == {name: plain[name] for name in plain if name != "predictions.json"}
    assert len(plain) > 4
    assert {name for name in files_of(tmp_path / "out") if not name.endswith(".age")} == {"predictions.json"}
    assert plain_leaks(tmp_path / "out", tmp_path / "temporary") == []
    assert len(plain_leaks(tmp_path / "plain")) == len(plain) - 1, "the same search finds plain files"
    assert manifest["encrypt_to"] == list(KEYS.recipients)
    assert all((tmp_path / "out" / part["name"]).is_file() for part in manifest["files"])


def test_explanations_and_their_page_are_encrypted(run: Job, tmp_path: Path) -> None:
    run(tmp_path / "plain", explaining=Explaining(rows=40))
    run(tmp_path / "out", explaining=Explaining(rows=40), keys=KEYS)
    plain, found = files_of(tmp_path / "plain"), opened(tmp_path / "out")
    assert found == {name: plain[name] for name in plain if name != "predictions.json"}
    assert b"moving" in found["explanations.html"]
    assert plain_leaks(tmp_path / "out", tmp_path / "temporary") == []


@pytest.mark.parametrize("kind", [{"rank": RankSpec(20)}, {"explaining": Explaining(rows=40)}])
def test_an_interrupted_job_continues_and_leaves_no_plaintext_at_any_moment(
    run: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(whole, **kind)
    real, parts = job.run_on_pool, 0

    def dies(*arguments: Any, **more: Any) -> Any:
        for found in real(*arguments, **more):
            yield found
            raise KeyboardInterrupt

    def interrupted() -> None:
        nonlocal parts
        with monkeypatch.context() as patch:
            patch.setattr(job, "run_on_pool", dies)
            with pytest.raises(KeyboardInterrupt):
                run(out, keys=KEYS, **kind)
        parts = len(list((out / "parts").iterdir()))
        assert plain_leaks(out, tmp_path / "temporary") == []

    interrupted()
    assert parts == 1
    (out / "parts" / "part-00001.parquet.age.0a1b2c3d.tmp").write_bytes(b"half a part")
    # What only the dead process could have read again is computed again.
    said = run(out, keys=KEYS, **kind)
    assert any(line.startswith("  continuing: 0 of ") for line in said)
    plain = files_of(whole)
    assert opened(out) == {name: plain[name] for name in plain if name != "predictions.json"}

    out = tmp_path / "with an identity"
    interrupted()
    monkeypatch.setenv(IDENTITY, str(SECRET))
    said = run(out, keys=KEYS, **kind)
    assert any(line.startswith("  continuing: 1 of ") for line in said)
    assert opened(out) == {name: plain[name] for name in plain if name != "predictions.json"}


def test_plain_predict_keeps_its_parts_without_an_identity(
    run: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = job.run_on_pool

    def dies(*arguments: Any, **more: Any) -> Any:
        yield next(real(*arguments, **more))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "run_on_pool", dies)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", keys=KEYS)
    (kept,) = (tmp_path / "out" / "parts").iterdir()
    before = kept.read_bytes()
    assert any(line.startswith("  continuing: 1 of ") for line in run(tmp_path / "out", keys=KEYS))
    assert kept.read_bytes() == before


def other_recipients() -> Sequence[Keys]:
    other = str(pyrage.x25519.Identity.generate().to_public())
    return (Keys(), Keys((other,)), Keys((*KEYS.recipients, other)))


@pytest.mark.parametrize("begun", ["encrypted", "plain"])
def test_a_job_continues_with_its_own_recipients_alone(
    run: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: str
) -> None:
    first, others = (KEYS, other_recipients()) if begun == "encrypted" else (Keys(), other_recipients()[1:])
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", keys=first, killed_at="predicting")
    before = files_of(tmp_path / "out")
    for keys in others:
        with pytest.raises(RunDirError, match="encrypt_to was") as refused:
            run(tmp_path / "out", keys=keys)
        assert "give the same command" in refused.value.todo
    assert files_of(tmp_path / "out") == before
    run(tmp_path / "out", keys=first)
    assert os.path.exists(tmp_path / "out" / "predictions.json")
