"""`predict --rank-by uncertainty`: the same predictions, and beside them the same rows to label, whatever the parts.

The job runs whole, but without Ray: this process is the only actor.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from textcls.batch import embedding_pool
from textcls.batch import predict as job
from textcls.batch.actor_pool import PoolSize
from textcls.batch.settings import predict_settings
from textcls.batch.to_label import RankSpec
from textcls.bundle import Bundle, load_bundle
from textcls.data.csv_shards import run_here
from textcls.errors import DataError, RunDirError
from textcls.inference.classifier import Classifier
from textcls.tasks.single_label import SINGLE_LABEL

Predict = Callable[..., dict[str, Any]]
SHARDS = "data.shard_bytes=1500"


@pytest.fixture(scope="module")
def classifier(tiny_bundle: Path) -> Classifier:
    return Classifier.load(str(tiny_bundle), threads=1)


def pool_of(classifier: Classifier) -> Callable[..., Iterator[tuple[int, Any]]]:
    """In place of `run_on_pool`."""

    def run_on_pool(work: Any, items: Sequence[Any], *_: Any, on_rows: Any) -> Iterator[tuple[int, Any]]:
        for position in reversed(range(len(items))):
            steps = work(classifier, items[position])
            while True:
                try:
                    on_rows(next(steps))
                except StopIteration as end:
                    yield position, end.value
                    break

    return run_on_pool


@pytest.fixture
def predict(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Runs the job on CSV files; the lines for the user go to `say`."""

    for module in (job, embedding_pool):
        monkeypatch.setattr(module, "run_on_pool", pool_of(classifier))
        monkeypatch.setattr(module, "plan_pool", lambda scale, *, items: PoolSize(max(1, items), False, 1, 0))
    monkeypatch.setattr(job, "run_on_ray", run_here)
    monkeypatch.setattr(job, "ray_session", lambda **_: nullcontext())
    monkeypatch.setattr(embedding_pool, "_INPUTS_OF_AN_ACTOR", 40)

    def predicted(csv: Sequence[Path], out: Path, *overrides: str, **options: Any) -> dict[str, Any]:
        bundle: Bundle = classifier.bundle
        spec = predict_settings(bundle, [str(path) for path in csv], overrides)
        options = {"suffix": "parquet", "all_scores": False, "say": lambda line: None} | options
        return job.predict(bundle, spec, str(out), **options)

    return predicted


def reviews(path: Path, rows: int, seed: int) -> Path:
    """A CSV of different reviews, some of which have no text or too many cells."""
    chance = np.random.default_rng(seed)
    words = ["great", "moving", "fine", "awful", "boring", "dull", "the film", "its plot", "=was", "really", "café"]
    lines = [f'"{" ".join(chance.choice(words, chance.integers(4, 25)))} {seed} {i * 7919}",x' for i in range(rows)]
    path.write_text("\n".join(["text,note", ",no text", *lines, "too,many,cells"]) + "\n", encoding="utf-8")
    return path


def files_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def sheet_of(out: Path) -> list[dict[str, str]]:
    text = (out / "to_label.csv").read_bytes().decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_rows_to_label_stand_beside_the_same_predictions(
    predict: Predict, classifier: Classifier, tmp_path: Path
) -> None:
    files = [reviews(tmp_path / f"{i}.csv", 70, seed=i) for i in range(2)]
    predict(files, tmp_path / "plain", SHARDS)
    manifest = predict(files, tmp_path / "out", SHARDS, rank=RankSpec(20))
    assert manifest["to_label"] == {"random": 2, "uncertain": 18}
    assert manifest["errors"] == {"missing_text": 2, "ragged_row": 2}
    plain, out = files_of(tmp_path / "plain"), files_of(tmp_path / "out")
    assert out.keys() == {*plain, "to_label.csv"}
    assert all(out[name] == plain[name] for name in plain if name.startswith("parts/"))
    assert len(plain) > 4

    rows = sheet_of(tmp_path / "out")
    assert list(rows[0]) == ["rank", "file", "line", "why", "margin", "predicted", "text", "label"]
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 21)]
    assert {row["label"] for row in rows} == {""}
    parts = [row for part in sorted((tmp_path / "out" / "parts").iterdir()) for row in pq.read_table(part).to_pylist()]
    text_at = {(row["file"], row["line"]): row["text"] for row in parts if row["error"] is None}
    texts = [text_at[row["file"], int(row["line"])] for row in rows]
    assert [row["text"].removeprefix("'") for row in rows] == texts
    scores = classifier.scores(texts)
    margins = SINGLE_LABEL.margins(scores.probabilities, classifier.thresholds)
    np.testing.assert_allclose([float(row["margin"]) for row in rows], margins, atol=1e-4)
    assert [row["predicted"] for row in rows] == [scores.label(i) for i in range(len(rows))]

    predict(files[::-1], tmp_path / "backwards", rank=RankSpec(20), suffix="csv", csv_encoding="utf-8-sig")
    backwards = sheet_of(tmp_path / "backwards")
    assert [row["text"] for row in backwards] == [row["text"] for row in rows]
    assert (tmp_path / "backwards" / "to_label.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_a_job_that_was_interrupted_while_it_chose_rows_ends_the_same(predict: Predict, tmp_path: Path) -> None:
    files, rank = [reviews(tmp_path / "r.csv", 100, seed=5)], RankSpec(15)
    predict(files, tmp_path / "whole", SHARDS, rank=rank)

    def killed(line: str) -> None:
        if line.startswith("embedding"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(files, tmp_path / "out", SHARDS, rank=rank, say=killed)
    with pytest.raises(RunDirError, match="rank_rows was 15, now 16"):
        predict(files, tmp_path / "out", SHARDS, rank=RankSpec(16))
    said: list[str] = []
    predict(files, tmp_path / "out", SHARDS, rank=rank, say=said.append)
    assert not any(line.startswith("predicting") for line in said), "every part was finished"
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_pool_without_a_usable_row_has_no_rows_to_label(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("text\n \n")
    with pytest.raises(DataError, match="none of the 1 rows could be scored"):
        predict([tmp_path / "r.csv"], tmp_path / "out", rank=RankSpec(15))
    assert not (tmp_path / "out" / "to_label.csv").exists()


def test_a_bundle_of_pairs_has_both_texts_to_label(
    pair_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predict: Predict
) -> None:
    pairs = Classifier.load(str(pair_bundle), threads=1)
    monkeypatch.setattr(job, "run_on_pool", pool_of(pairs))
    (tmp_path / "p.csv").write_text("question,answer\na film?,great\n,nothing\nawful?,no\n")
    bundle = load_bundle(str(pair_bundle))
    spec = predict_settings(bundle, [str(tmp_path / "p.csv")], ())
    out = tmp_path / "out"
    job.predict(bundle, spec, str(out), suffix="parquet", all_scores=False, rank=RankSpec(9), say=print)
    assert sorted((row["question"], row["answer"]) for row in sheet_of(out)) == [("a film?", "great"), ("awful?", "no")]
