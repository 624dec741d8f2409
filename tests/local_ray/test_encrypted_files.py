"""Texts of people in the files of audit, train and evaluate: encrypted, and otherwise nowhere."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyrage
import pytest
import ray

from tests.local_ray.conftest import WARM, small_recipe
from textcls import encryption
from textcls.age_keys import IDENTITY, IDENTITY_FILE
from textcls.audit.run import AuditOptions, audit
from textcls.batch.evaluate import evaluate
from textcls.batch.predict import predict
from textcls.batch.settings import evaluate_settings, predict_settings
from textcls.batch.to_label import RankSpec
from textcls.bundle import load_bundle
from textcls.encryption import Keys
from textcls.errors import InputError
from textcls.sealed_directory import seal_directory
from textcls.training.run import dry_run, train

SECRET = pyrage.x25519.Identity.generate()
KEYS = Keys((str(SECRET.to_public()),))
# In every text there is one such word of its own.
PLANTED = re.compile(rb"zq7f\d{5}")
LABELS = ("negative", "positive")


def silent(line: str) -> None:
    """Takes no notice."""


@pytest.fixture(autouse=True)
def no_identity_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(IDENTITY, raising=False)
    monkeypatch.delenv(IDENTITY_FILE, raising=False)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """200 texts, one of them twice with both labels, and a reject."""
    words = {"positive": "great moving wonderful", "negative": "awful boring bad"}
    rows = [(f"zq7f{i:05d} the film was {words[LABELS[i % 2]]}", LABELS[i % 2]) for i in range(200)]
    rows += [(rows[20][0], LABELS[1])]
    found = tmp_path / "reviews.csv"
    with found.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    found.write_bytes(found.read_bytes() + b"zq7f00999 has a broken byte \xff,positive\n")
    return found


def planted_in(*places: Path) -> dict[str, int]:
    """Name -> planted words of each file that holds any."""
    files = [path for place in places for path in place.rglob("*") if path.is_file() and path.suffix != ".csv"]
    found = {str(path): len(set(PLANTED.findall(path.read_bytes()))) for path in files}
    return {name: number for name, number in found.items() if number}


def logs_of_ray() -> Path:
    return Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"


def opened(path: Path) -> bytes:
    return encryption.read_bytes(str(path), [SECRET])


def names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir() if path.is_file()}


def test_an_audit_its_decisions_and_the_run_that_follows_them_leave_no_text(
    path: Path, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(tiny_model_dir, path, "train.epochs=1", "report.texts=true")
    out = tmp_path / "audit"
    found = audit(recipe, str(out), AuditOptions(2, quick=True, rows=40, keys=KEYS), resume=False, say=silent)
    assert names(out) == {"audit.csv.age", "audit.json", "audit.parquet", "settings.json"}
    assert json.loads((out / "settings.json").read_text())["encrypt_to"] == list(KEYS.recipients)
    rows = list(csv.DictReader(io.StringIO(opened(out / "audit.csv.age").decode(), newline="")))
    assert found["listed"] == len(rows) == 40
    assert PLANTED.match(rows[0]["text"].encode())

    rows[0]["decision"] = "drop"
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    encryption.write_bytes(str(out / "audit.csv.age"), text.getvalue().encode(), KEYS.recipients)
    data = recipe.data.model_copy(update={"decisions": (str(out / "audit.csv.age"),)})
    decided = recipe.model_copy(update={"data": data})
    with pytest.raises(InputError, match="there is no identity to open it"):
        train(decided, str(tmp_path / "run"), resume=False, say=silent, keys=KEYS)
    monkeypatch.setenv(IDENTITY, str(SECRET))
    dry_run(decided, say=silent, out=str(tmp_path / "run"))
    assert planted_in(tmp_path / "run") == {str(tmp_path / "run" / "rejects.parquet"): 1}
    report = train(decided, str(tmp_path / "run"), resume=False, say=silent, keys=KEYS)

    assert names(tmp_path / "run") == {
        *("conflicts.parquet.age", "rejects.parquet.age", "report.html.age", "report.json.age"),
        *("events.jsonl", "report.html", "report.json", "report.png", "rows.json", "run.json"),
    }
    rejects = pq.read_table(pa.BufferReader(opened(tmp_path / "run" / "rejects.parquet.age"))).to_pydict()
    assert sorted(rejects["reason"]) == ["dropped_by_decision", "undecodable"]
    whole = json.loads(opened(tmp_path / "run" / "report.json.age"))
    plain = json.loads((tmp_path / "run" / "report.json").read_text())
    assert whole == json.loads(json.dumps(report.content()))
    assert all(one["texts"] and one["words"] for one in whole["examples"])
    assert plain == whole | {
        "examples": [
            {key: value for key, value in one.items() if key not in ("texts", "words", "explained")}
            for one in whole["examples"]
        ]
    }
    assert PLANTED.search(opened(tmp_path / "run" / "report.html.age"))
    assert load_bundle(str(tmp_path / "run" / "bundle")).manifest.labels == LABELS
    assert planted_in(tmp_path, logs_of_ray()) == {}


def test_actors_open_a_sealed_bundle_and_predict_what_the_bundle_itself_predicts(
    path: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "key.txt").write_text(str(SECRET))
    seal_directory(str(tiny_bundle), str(tmp_path / "b.age"), KEYS.recipients)
    found = {}
    for name, bundle in {
        "plain": load_bundle(str(tiny_bundle)),
        "sealed": load_bundle(str(tmp_path / "b.age"), identity_file=str(tmp_path / "key.txt")),
    }.items():
        spec = predict_settings(bundle, [str(path)], ["scale.workers=1", "scale.cpus_per_worker=1"])
        with WARM.pool():
            predict(bundle, spec, str(tmp_path / name), suffix="csv", all_scores=True, rank=RankSpec(20), say=silent)
        found[name] = [(tmp_path / name / file).read_bytes() for file in ("parts/part-00000.csv", "to_label.csv")]
    assert found["sealed"] == found["plain"]
    with pytest.raises(InputError, match="there is no identity to open it"), WARM.pool():
        # An actor that is on another node, say, where no identity is.
        predict(replace(bundle, identity_file=""), spec, str(tmp_path / "x"), suffix="csv", all_scores=True, say=silent)


def test_an_evaluation_leaves_no_text(path: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    settings = ("scale.workers=1", "scale.cpus_per_worker=1", "report.texts=true")
    bundle = load_bundle(str(tiny_bundle))
    label_map = 'data.label_map={"negative": bad, "positive": good}'

    def evaluated(out: Path, **options: Any) -> None:
        spec = evaluate_settings(bundle, [str(path)], [*settings, label_map])
        with WARM.pool():
            evaluate(bundle, spec, str(out), say=silent, **options)

    evaluated(tmp_path / "plain")
    assert planted_in(tmp_path / "plain").keys() == {
        str(tmp_path / "plain" / name) for name in ("rejects.parquet", "report.html", "report.json")
    }
    evaluated(tmp_path / "out", keys=KEYS)
    plain = names(tmp_path / "plain")
    assert names(tmp_path / "out") == plain - {"rejects.parquet"} | {
        f"{name}.age" for name in ("rejects.parquet", "report.html", "report.json")
    }
    assert opened(tmp_path / "out" / "rejects.parquet.age") == (tmp_path / "plain" / "rejects.parquet").read_bytes()
    assert planted_in(tmp_path / "out", tmp_path / "temporary", logs_of_ray()) == {}
