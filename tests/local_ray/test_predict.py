"""Every row exactly once, in order, with the classifier's scores, whatever works on it and whatever breaks."""

import codecs
import csv
import io
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from tests.conftest import save_tiny_bundle
from tests.local_ray.conftest import WARM, write_reviews
from textcls.batch.actor_pool import PoolSize, run_on_pool
from textcls.batch.explain import explain_rows
from textcls.batch.explanation_rows import Explaining
from textcls.batch.predict import predict
from textcls.batch.settings import predict_settings
from textcls.bundle import load_bundle
from textcls.data.rows import Reason
from textcls.errors import DataError, RunDirError, ScoringError
from textcls.inference.classifier import Classifier
from textcls.manifest import Calibration
from textcls.on_ray.session import ray_session

CASES = Path(__file__).parents[1] / "csv"
ONE_CPU = ("scale.workers=1", "scale.cpus_per_worker=1")


def predicted(bundle: Path, csv: Path | list[Path], out: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    """The manifest of the predictions for a CSV; what the user was told is `said`."""
    found = load_bundle(str(bundle))
    files = [str(path) for path in (csv if isinstance(csv, list) else [csv])]
    spec = predict_settings(found, files, [*ONE_CPU, *overrides])
    options = {"suffix": "parquet", "all_scores": True, "say": lambda line: None} | options
    with WARM.pool():
        return predict(found, spec, str(out), **options)


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The predictions in the order of the parts."""
    return [row for part in sorted((out / "parts").iterdir()) for row in pq.read_table(part).to_pylist()]


def files_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def classifier(tiny_bundle: Path) -> Classifier:
    return Classifier.load(str(tiny_bundle), threads=1)


def nasty(path: Path) -> Path:
    """Every kind of row, some of them many times."""
    path.write_bytes(
        b"\xef\xbb\xbftext;label;note\r\n"
        + b"".join(
            b'"a %s film,\r\nnumber %d";%s;""\r\n' % (word, i, word) for i in range(60) for word in (b"good", b"bad")
        )
        + b";no text;1\r\n"
        + b"   ;blank;1\r\n"
        + b"too;many;fields;here\r\n\r\n\r\n"
        + b"short\r\n"
        + b"broken \xff bytes;x;\xfe\r\n"
        + b"fine;x;\xfe\r\n"
        + b"nul \0 inside;x;\0\r\n"
        + b'a "bare" quote;x;y\r\n'
        + b"%s;long;y\r\n" % (b"film " * 100)
        + "café 街 🎬;x;é\r\n".encode()
        + b'"unclosed;x;y\r\nlast'
    )
    return path


def test_every_row_is_predicted_once_in_order_with_the_classifier_s_scores(
    tiny_bundle: Path, classifier: Classifier, tmp_path: Path
) -> None:
    path = nasty(tmp_path / "n.csv")
    manifest = predicted(tiny_bundle, path, tmp_path / "out", "data.shard_bytes=500")
    rows = rows_of(tmp_path / "out")
    with path.open(newline="", errors="surrogateescape", encoding="utf-8-sig") as file:
        _, *records = [record for record in csv.reader(file, delimiter=";") if record]
    assert len(rows) == manifest["rows"] == len(records)
    assert len(manifest["files"]) > 3
    lines = [row["line"] for row in rows]
    assert lines == sorted(set(lines))

    scores = classifier.scores([record[0] for record in records])
    for i, (row, record) in enumerate(zip(rows, records, strict=True)):
        if row["error"] == Reason.RAGGED_ROW:
            assert len(record) != 3
            assert (row["text"], row["input_label"], row["note"]) == (None, None, None)
            continue
        spelt = [cell.encode(errors="surrogateescape").decode(errors="backslashreplace") for cell in record]
        assert [row["text"], row["input_label"], row["note"]] == spelt
        assert (row["error"] is None) == (scores.errors[i] is None)
        assert row["label"] == scores.label(i)
        if row["error"] is None:
            found = [row["score_bad"], row["score_good"], row["score_so so"]]
            bound = 1e-5 if classifier.precision == "fp32" else 0.02
            np.testing.assert_allclose(found, scores.probabilities[i], atol=bound)
            assert row["score"] == max(found)
            assert (row["tokens"], row["truncated"]) == (scores.tokens[i], scores.truncated[i])
    errors = [row["error"] for row in rows if row["error"]]
    assert errors == ["missing_text", "missing_text", "ragged_row", "ragged_row", "undecodable", "ragged_row"]
    assert manifest["errors"] == {"missing_text": 2, "ragged_row": 3, "undecodable": 1}
    assert sum(manifest["labels"].values()) + sum(manifest["errors"].values()) == len(rows)
    assert manifest["truncated"] == 1


@pytest.mark.parametrize(
    ("names", "encoding", "quoting"),
    [
        (["utf_16.csv"], "utf-16", "minimal"),
        (["latin_1.csv"], "latin-1", "minimal"),
        (["quotes_that_mean_nothing.csv"], "utf-8", "none"),
        (None, "utf-8", "minimal"),
    ],
)
def test_every_record_of_a_nasty_csv_is_one_row(
    tiny_bundle: Path, tmp_path: Path, names: list[str] | None, encoding: str, quoting: str
) -> None:
    others = {"utf_16.csv", "latin_1.csv", "quotes_that_mean_nothing.csv"}
    paths = [path for path in sorted(CASES.glob("*.csv")) if (path.name in names if names else path.name not in others)]
    settings = (f"data.encoding={encoding}", f"data.quoting={quoting}", "data.max_cell_chars=1000")
    manifest = predicted(tiny_bundle, paths, tmp_path / "out", *settings, "data.shard_bytes=40")
    found = Counter(row["file"] for row in rows_of(tmp_path / "out"))
    assert found.total() == manifest["rows"]
    for path in paths:
        text = path.read_bytes().decode("utf-8-sig" if encoding == "utf-8" else encoding, "surrogateescape")
        kind = csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL
        skip = path.stem == "blanks_before_quotes"
        reader = csv.reader(io.StringIO(text, newline=""), quoting=kind, skipinitialspace=skip)
        records = [record for record in reader if record]
        assert found[str(path)] == len(records) - 1, path.name


def test_workers_and_formats_change_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    paths = [write_reviews(tmp_path / f"{i}.csv", 80, seed=i) for i in range(3)]
    shards = "data.shard_bytes=1500"
    predicted(tiny_bundle, paths, tmp_path / "one", shards)
    predicted(tiny_bundle, paths, tmp_path / "two", shards, "scale.workers=2")
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
    assert [row["file"] for row in rows_of(tmp_path / "one")] == [str(path) for path in paths for _ in range(80)]

    predicted(tiny_bundle, paths, tmp_path / "csv", shards, suffix="csv", csv_encoding="utf-8-sig")
    found = []
    for part in sorted((tmp_path / "csv" / "parts").iterdir()):
        assert part.read_bytes().startswith(codecs.BOM_UTF8), "each part is a file of its own"
        with part.open(newline="", encoding="utf-8-sig") as file:
            found += list(csv.DictReader(file))
    parquet = rows_of(tmp_path / "one")
    assert [row["text"] for row in found] == [row["text"] for row in parquet]
    assert [row["label"] for row in found] == [row["label"] for row in parquet]
    assert [np.float32(row["score"]) for row in found] == [np.float32(row["score"]) for row in parquet]


def test_a_text_that_the_bundle_is_not_sure_of_is_an_abstention(tiny_model_dir: Path, tmp_path: Path) -> None:
    bundle = save_tiny_bundle(tiny_model_dir, tmp_path / "unsure", calibration=Calibration(threshold=0.9))
    manifest = predicted(bundle, write_reviews(tmp_path / "r.csv", 5), tmp_path / "out")
    assert manifest["labels"] == {"abstain": 5}
    assert all(row["label"] == "abstain" and 0.3 < row["score"] < 0.9 for row in rows_of(tmp_path / "out"))


def test_a_job_goes_on_with_the_parts_that_are_missing_and_ends_the_same(tiny_bundle: Path, tmp_path: Path) -> None:
    path = write_reviews(tmp_path / "r.csv", 200)
    settings = ("data.shard_bytes=1500",)
    predicted(tiny_bundle, path, tmp_path / "whole", *settings)
    out, said = tmp_path / "out", []

    def broken_off(line: str) -> None:
        if line.startswith("predicting"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predicted(tiny_bundle, path, out, *settings, say=broken_off)
    whole = files_of(tmp_path / "whole")
    names = [name for name in whole if name.startswith("parts/")]
    for name in names[::2]:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"finished before: not done again")
        record = '{"rows": 7, "labels": {"bad": 7}, "errors": {}, "truncated": 0, "precision": "fp32"}'
        (out / "progress" / f"{Path(name).stem}.json").write_text(record)
    manifest = predicted(tiny_bundle, path, out, *settings, say=said.append)
    found = files_of(out)
    assert f"  continuing: {len(names[::2])} of {len(names)} parts are finished" in said
    assert {found[name] for name in names[::2]} == {b"finished before: not done again"}
    assert [found[name] for name in names[1::2]] == [whole[name] for name in names[1::2]]
    assert manifest["rows"] == 7 * len(names[::2]) + sum(file["rows"] for file in manifest["files"][1::2])
    with pytest.raises(RunDirError, match="holds finished predictions"):
        predicted(tiny_bundle, path, out, *settings)


def test_a_missing_text_column_is_told_and_nothing_is_left_to_clear_away(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("review,label\na,b\n")
    with pytest.raises(DataError, match=r"(?s)no column 'text'.*--set data.text_columns="), ray_session():
        predicted(tiny_bundle, path, tmp_path / "out")
    predicted(tiny_bundle, path, tmp_path / "out", "data.text_columns=review")
    assert [row["review"] for row in rows_of(tmp_path / "out")] == ["a"]


def test_input_without_rows_gives_predictions_without_rows(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("text,label\n")
    assert predicted(tiny_bundle, path, tmp_path / "out")["rows"] == 0
    assert pq.read_table(tmp_path / "out" / "parts").column_names[:2] == ["text", "input_label"]


def test_a_second_job_is_refused_and_the_first_notices_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    path, out, refused = write_reviews(tmp_path / "r.csv", 40), tmp_path / "out", []

    def begins_another(line: str) -> None:
        if line.startswith("predicting"):
            writing = out / "parts" / "part-00000.parquet.0a1b2c3d.tmp"
            writing.parent.mkdir()
            writing.write_text("what the first job is writing")
            with pytest.raises(RunDirError, match="another job is writing there") as error:
                predicted(tiny_bundle, path, out)
            refused.append(error.value.exit_status)
            writing.unlink()  # it was not swept away

    predicted(tiny_bundle, path, out, say=begins_another)
    assert refused == [2]
    assert len(rows_of(out)) == 40


def test_where_no_row_can_be_scored_the_parts_say_why_and_the_todo_leads_on(tiny_bundle: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "r.csv", tmp_path / "out"
    path.write_bytes(b"text\n" + "caf\xe9 cr\xe8me\n".encode("latin-1") * 30)
    with pytest.raises(DataError, match="none of the 30 rows could be scored: 30 undecodable") as refused:
        predicted(tiny_bundle, path, out)
    assert "--set data.encoding=cp1252" in refused.value.todo
    assert [row["error"] for row in rows_of(out)] == ["undecodable"] * 30
    assert json.loads((out / "refused.json").read_text())["errors"] == {"undecodable": 30}
    assert not (out / "predictions.json").exists()
    said: list[str] = []
    predicted(tiny_bundle, [path, write_reviews(tmp_path / "good.csv", 5)], tmp_path / "both", say=said.append)
    assert f"  warning: no row of {path} could be scored: 30 undecodable" in said
    predicted(tiny_bundle, path, out, "data.encoding=cp1252")
    assert {row["text"] for row in rows_of(out)} == {"caf\xe9 cr\xe8me"}
    assert sorted(entry.name for entry in out.iterdir()) == ["parts", "predictions.json"]


# --- workers ---------------------------------------------------------------------------------------------------------


def _counting(die_at: dict[int, Path], deaths: int = 1) -> Any:
    """Work that counts to an item, and dies in the middle of some items as often as it may.

    A closure: workers cannot import this module, so it travels by value.
    """

    def work(classifier: Any, item: int) -> Generator[int, None, int]:
        for step in range(item):
            if step == 2 and item in die_at and len(list(die_at[item].iterdir())) < deaths:
                (die_at[item] / f"{os.getpid()}").write_text("died")
                os.kill(os.getpid(), signal.SIGKILL)
            yield 1
        return item * item

    return work


def test_a_worker_that_dies_is_replaced_and_its_item_done_again(tiny_bundle: Path, tmp_path: Path) -> None:
    rows: list[int] = []
    workers = PoolSize(2, False, 1, max_failures=3)
    items = [4, 5, 3, 0, 6]
    bundle = load_bundle(str(tiny_bundle))
    found = dict(run_on_pool(_counting({5: tmp_path}), items, workers, bundle, on_rows=rows.append))
    assert found == {i: item * item for i, item in enumerate(items)}
    assert len(list(tmp_path.iterdir())) == 1
    assert sum(rows) == sum(items)


def test_workers_that_die_too_often_end_the_job(tiny_bundle: Path, tmp_path: Path) -> None:
    WARM.close()
    workers = PoolSize(1, False, 1, max_failures=1)
    work = _counting({5: tmp_path}, deaths=9)
    with pytest.raises(ScoringError, match="died more than 1 times") as caught:
        list(run_on_pool(work, [4, 5], workers, load_bundle(str(tiny_bundle)), on_rows=lambda rows: None))
    assert len(list(tmp_path.iterdir())) == 2
    # They give their CPUs back while the error is still held.
    until = time.monotonic() + 60
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < until, caught
        time.sleep(0.1)  # Ray tells nobody when resources come back


def test_an_error_of_ours_comes_out_of_a_worker_as_it_was(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut_short.csv"
    path.write_bytes(("text,label\n" + "review,b\n" * 2000).encode("utf-16") + b"\x00\xd8\x00\x00")
    with pytest.raises(DataError) as caught, ray_session():
        predicted(tiny_bundle, path, tmp_path / "out", "data.encoding=utf-16")
    assert type(caught.value) is DataError
    assert str(caught.value).startswith(f"{path}, after line")
    assert not list((tmp_path / "out").glob("parts/*"))


def test_memory_holds_blocks_and_not_the_part(tiny_bundle: Path, tmp_path: Path) -> None:
    """A part of many blocks is written block by block: its row groups are the blocks."""
    path = write_reviews(tmp_path / "r.csv", 5000)
    predicted(tiny_bundle, path, tmp_path / "out")
    (part,) = (tmp_path / "out" / "parts").iterdir()
    file = pq.ParquetFile(part)
    assert file.metadata.num_row_groups == 3
    assert pa.concat_tables([file.read()]).num_rows == 5000


def test_explaining_predicts_the_first_rows_as_predicting_does_and_makes_a_page(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    path = nasty(tmp_path / "n.csv")
    predicted(tiny_bundle, path, tmp_path / "predicted", "data.shard_bytes=500", all_scores=False)
    bundle = load_bundle(str(tiny_bundle))
    spec = predict_settings(bundle, [str(path)], [*ONE_CPU, "data.shard_bytes=500"])
    for rows, expected in ((50, rows_of(tmp_path / "predicted")[:50]), (None, rows_of(tmp_path / "predicted"))):
        out = tmp_path / f"explained-{rows}"
        with WARM.pool():
            manifest = explain_rows(bundle, spec, str(out), Explaining(rows=rows), say=lambda line: None)
        found = rows_of(out)
        assert len(found) == manifest["rows"] == len(expected)
        for row, other in zip(found, expected, strict=True):
            explanations = row.pop("explanations")
            row.pop("texts")
            # The rows are scored in other batches.
            assert row.pop("score") == pytest.approx(other.pop("score"), abs=1e-6)
            assert row == other
            assert (explanations is None) == (row["error"] is not None)
            assert explanations is None or [one["label"] for one in explanations] == [row["label"]]
        assert "<!doctype html>" in (out / "explanations.html").read_text(encoding="utf-8").lower()
