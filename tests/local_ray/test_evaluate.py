"""Evaluation is training's own test result, the classifier's own scores, and an account of every row."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray

from tests.conftest import save_tiny_bundle
from tests.local_ray.conftest import prepared_data, small_recipe, write_reviews
from textcls.batch.evaluate import evaluate
from textcls.batch.rebundle import rebundle
from textcls.batch.settings import changed_text, evaluate_settings
from textcls.bundle import load_bundle
from textcls.errors import DataError, RunDirError
from textcls.inference.classifier import Classifier
from textcls.manifest import Calibration, Origin
from textcls.on_ray.session import ray_session
from textcls.output.lock import locked
from textcls.tasks.metrics import Counts, summarise
from textcls.training.run import train

ONE_CPU = ("scale.workers=1", "scale.cpus_per_worker=1")


def evaluated(bundle: Path, csv: Path, out: Path, *overrides: str, said: list[str] | None = None) -> dict[str, Any]:
    found = load_bundle(str(bundle))
    spec = evaluate_settings(found, [str(csv)], [*ONE_CPU, *overrides])
    with ray_session():
        report = evaluate(found, spec, str(out), say=(said if said is not None else []).append)
    return report.content()


def write_labelled(path: Path, rows: Sequence[tuple[str, ...]], *others: str) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label", *others), *rows])
    return path


def with_channels(path: Path, channels: list[str]) -> Path:
    """The rows of a CSV with one more column, `channel`, in turn."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*header, "channel"])
        table.writerows([*row, channels[i % len(channels)]] for i, row in enumerate(rows))
    return path


def assert_same(one: Any, other: Any) -> None:
    """The same result, figures to within float rounding."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-5)
    else:
        assert one == other


@pytest.mark.parametrize("texts", [(), ("text.on_long=windows", "text.max_tokens=8")], ids=["short", "windows"])
def test_the_rows_of_training_s_test_split_give_training_s_test_result(
    tiny_model_dir: Path, tmp_path: Path, texts: tuple[str, ...]
) -> None:
    shown = ("report.slices=channel", "report.texts=true", "report.explain_rows=1000000")
    settings = ("calibration.min_precision=0.99", *shown, *texts)
    csv_file = with_channels(write_reviews(tmp_path / "r.csv", 243), ["mail", "chat", ""])
    recipe = small_recipe(tiny_model_dir, csv_file, *settings)
    report = train(recipe, str(tmp_path / "run"), resume=False, say=lambda line: None).content()

    prepared = prepared_data(recipe)
    inputs = [text for table in ray.get(prepared.inputs["test"]) for text in table["text"].to_pylist()]
    ids = [label for table in ray.get(prepared.blocks["test"]) for label in table["target"].to_pylist()]
    channels = [cell for table in ray.get(prepared.blocks["test"]) for cell in table["slice_0"].to_pylist()]
    rows = [
        (text, prepared.labels[label_id], channel)
        for text, label_id, channel in zip(inputs, ids, channels, strict=True)
    ]
    assert prepared.tokens.get("windows", 243) > 243 or not texts
    assert 0 < len(rows) < 243
    path = write_labelled(tmp_path / "t.csv", rows, "channel")
    found = evaluated(tmp_path / "run" / "bundle", path, tmp_path / "out", *shown, "data.shard_bytes=3000")
    assert_same(found["test"], report["test"])
    assert_same(found["slices"], report["slices"])
    slices = {(one["by"], one["value"]): one["rows"] for one in found["slices"]["slices"]}
    assert [slices["column channel", name] for name in ("(empty)", "chat", "mail")] == [
        channels.count(cell) for cell in ("", "chat", "mail")
    ]
    assert found["slices"]["overall"] == found["test"]["accuracy"]
    with csv_file.open(newline="") as file:
        text_at = {}
        for row in (table := csv.reader(file)):
            text_at[table.line_num - row[0].count("\n")] = row[0]
    for one, other in zip(found["examples"], report["examples"], strict=True):
        assert_same({**one, "file": "", "line": 0}, {**other, "file": "", "line": 0})
        assert (one["file"], other["file"]) == (str(path), str(csv_file))
        assert (text_at[other["line"]],) == tuple(other["texts"]) == tuple(one["texts"])
        assert len(one["words"]) > 1
        assert one["explained"] in one["predicted"]
    assert found["faithfulness"]["explanations"] == report["faithfulness"]["explanations"] > len(rows) / 2
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == json.loads(json.dumps(report))
    assert found["calibration"] == report["calibration"]


def test_a_bundle_made_of_another_is_that_one_with_its_long_texts_as_windows(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    words = ("bad", "good", "so so")
    rows = [(f"a {words[i % 3]} film {'really ' * (i % 80)}", words[i % 3]) for i in range(60)]
    path = write_labelled(tmp_path / "l.csv", rows)
    old = load_bundle(str(save_tiny_bundle(tiny_model_dir, tmp_path / "old")))
    text, overrides = changed_text(old, ["text.on_long=windows", *ONE_CPU])
    with ray_session():
        spec = evaluate_settings(old, [str(path)], overrides)
        report = rebundle(old, text, spec, str(tmp_path / "new"), say=lambda line: None)

    new = load_bundle(str(tmp_path / "new" / "bundle"))
    assert new.manifest.origin == Origin(digest=old.digest, changed={"text.on_long": "truncate"}, files=(str(path),))
    assert new.manifest.files == old.manifest.files
    assert (report.bundle.uri, report.bundle.digest) == (new.uri, new.digest) != (old.uri, old.digest)
    expected = save_tiny_bundle(tiny_model_dir, tmp_path / "expected", on_long="windows")
    found = evaluated(expected, path, tmp_path / "evaluated")
    assert_same(report.content()["test"], found["test"])
    assert new.manifest.metrics["accuracy"] == report.content()["test"]["accuracy"]
    assert report.content()["tokens"]["truncated_rows"] == 0
    texts = [row[0] for row in rows]
    scores, of_expected = (Classifier.load(uri).scores(texts) for uri in (new.uri, str(expected)))
    np.testing.assert_array_equal(scores.probabilities, of_expected.probabilities)
    with pytest.raises(RunDirError, match="holds a finished bundle"):
        rebundle(old, text, spec, str(tmp_path / "new"), say=lambda line: None)


def test_evaluation_counts_the_classifier_s_scores_of_every_row_duplicates_too(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    bundle = save_tiny_bundle(tiny_model_dir, tmp_path / "unsure", calibration=Calibration(threshold=0.6))
    words = ("bad", "good", "so so")
    rows = [(f"a {words[i % 2]} film {'really ' * (i % 40)}", words[i % 3]) for i in range(120)]
    rows += rows[:15]
    path = write_labelled(tmp_path / "l.csv", rows)
    found = evaluated(bundle, path, tmp_path / "out", "data.shard_bytes=300", "scale.workers=2")
    scores = Classifier.load(str(bundle)).scores([text for text, _ in rows])
    ids = np.array([words.index(label) for _, label in rows])
    expected = summarise(Counts.of(scores.probabilities, ids, threshold=0.6), words)
    assert_same(found["test"], json.loads(json.dumps(expected)))
    assert found["test"]["answered"]["rows"] == sum(not scores.abstained(i) for i in range(len(scores))) == 0
    assert found["rows"]["evaluated"] == 135
    assert found["tokens"]["truncated_rows"] == int(scores.truncated.sum()) > 0
    assert found["tokens"]["percentiles"]["100"] == int(scores.tokens.max())


def test_every_row_is_accounted_for_whether_reading_or_the_classifier_refuses_it(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    bundle = save_tiny_bundle(tiny_model_dir, tmp_path / "strict", on_long="error")
    rows = [("a good film", "good"), ("a bad film", "bad")] * 20
    odd = [("", "good"), ("film", ""), ("film", "spam"), ("film " * 50, "good"), ("\x01", "bad")]
    path, said = write_labelled(tmp_path / "l.csv", rows + odd), []
    found = evaluated(bundle, path, tmp_path / "out", "data.max_reject_fraction=0.2", said=said)
    assert found["rows"] == {
        "read": 45,
        "evaluated": 40,
        "rejects": 5,
        "outside_where": 0,
        "reject_reasons": dict.fromkeys(
            ("missing_text", "missing_label", "unknown_label", "text_too_long", "empty_text"), 1
        ),
    }
    assert json.loads((tmp_path / "out" / "rows.json").read_text()) == found["rows"]
    rejects = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    assert {(row["line"], row["reason"]) for row in rejects} == {
        *((42, "missing_text"), (43, "missing_label"), (44, "unknown_label"), (45, "text_too_long"), (46, "empty_text"))
    }
    assert "  45 = evaluated 40 + rejects 5" in said
    assert found["test"]["rows"] == 40


def test_a_second_evaluation_is_refused_while_the_first_runs(tiny_bundle: Path, tmp_path: Path) -> None:
    path, out = write_labelled(tmp_path / "l.csv", [("a film", "good"), ("another", "bad")]), tmp_path / "out"
    with (
        locked(str(out)),
        pytest.raises(RunDirError, match="another job is writing there"),
    ):
        evaluated(tiny_bundle, path, out)


def test_a_picture_or_a_page_that_cannot_be_made_costs_a_line_and_no_row_that_can_be_scored_is_no_report(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = save_tiny_bundle(tiny_model_dir, tmp_path / "strict", on_long="error")
    long = write_labelled(tmp_path / "l.csv", [("film " * 50, "good"), ("film " * 60, "bad")])
    with pytest.raises(DataError, match="none of the 2 rows could be scored: 2 text_too_long"):
        evaluated(bundle, long, tmp_path / "out")
    short, said = write_labelled(tmp_path / "s.csv", [("a film", "good"), ("another", "bad")]), list[str]()
    for make in ("draw_report", "report_page"):
        monkeypatch.setattr(f"textcls.batch.evaluate.{make}", lambda report: 1 / 0)
    evaluated(bundle, short, tmp_path / "out", said=said)
    for name in ("report.png", "report.html"):
        assert f"  {name} failed; the job continues without it: ZeroDivisionError: division by zero" in said
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [
        "rejects.parquet",
        "report.json",
        "rows.json",
    ]


def test_rows_that_cannot_be_evaluated_stop_it_before_scoring_and_leave_the_account(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    path = write_labelled(tmp_path / "l.csv", [("a film", "good"), ("another", "spam")])
    with pytest.raises(DataError, match=r"1 of 2 rows .* are rejects \(1 unknown_label\)"):
        evaluated(tiny_bundle, path, tmp_path / "out")
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["rejects.parquet", "rows.json"]
    evaluated(tiny_bundle, path, tmp_path / "out", "data.label_map={spam: bad}")
    with pytest.raises(RunDirError, match="holds a finished report"):
        evaluated(tiny_bundle, path, tmp_path / "out")
