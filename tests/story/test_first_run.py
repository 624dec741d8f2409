"""The first run of a new user: what it prints, what it leaves, and that the bundle works."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from textcls.bundle import load_bundle

from .conftest import BOUND_S, Command, FirstRun


def test_first_run_ends_well_and_prints_its_account(first_run: FirstRun) -> None:
    ended = first_run.ended.calmly(0)
    assert ended.err == ""
    read = first_run.clean + first_run.duplicates + len(first_run.rejects)
    assert f"read {read:,} rows from 1 file" in ended.out
    assert f"{first_run.outside_where} others are outside data.where" in ended.out
    assert f"+ rejects {len(first_run.rejects)} + duplicates {first_run.duplicates}\n" in ended.out
    assert "bundle: out/bundle" in ended.out


def test_first_run_leaves_results_and_nothing_else(first_run: FirstRun) -> None:
    assert sorted(os.listdir(first_run.out)) == [
        *("bundle", "events.jsonl", "rejects.parquet", "report.html", "report.json", "report.png", "rows.json"),
        "run.json",
        "tensorboard",
    ]
    assert (first_run.out / "report.png").read_bytes().startswith(b"\x89PNG")
    assert not first_run.temporary


def test_every_row_is_accounted_for(first_run: FirstRun) -> None:
    rows = json.loads((first_run.out / "rows.json").read_text())
    assert rows["train"] + rows["val"] + rows["test"] == first_run.clean
    assert rows["duplicates"] == first_run.duplicates
    assert rows["rejects"] == len(first_run.rejects)
    assert rows["outside_where"] == first_run.outside_where
    assert rows["read"] == first_run.clean + rows["duplicates"] + rows["rejects"]
    assert rows["reject_reasons"] == {reason: 1 for _, _, reason, _ in first_run.rejects}
    assert {
        name: sum(rows["labels"][label][name] for label in rows["labels"]) for name in ("train", "val", "test")
    } == {name: rows[name] for name in ("train", "val", "test")}


def test_rejects_name_file_line_column_reason_and_value(first_run: FirstRun) -> None:
    table = pq.read_table(first_run.out / "rejects.parquet")
    assert set(table["file"].to_pylist()) == {str(first_run.csv)}
    columns = (table[name].to_pylist() for name in ("line", "column", "reason", "value"))
    assert list(zip(*columns, strict=True)) == first_run.rejects


def test_report_gives_the_test_accuracy_with_its_interval(first_run: FirstRun) -> None:
    report = json.loads((first_run.out / "report.json").read_text())
    accuracy = report["test"]["accuracy"]
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert accuracy["value"] > 0.9, "the words give the labels away"


def test_bundle_is_a_model_directory_for_transformers(first_run: FirstRun, tmp_path: Path) -> None:
    assert load_bundle(str(first_run.out / "bundle")).manifest.labels == ("negative", "positive")
    script = (
        "import sys; from transformers import pipeline\n"
        "scored = pipeline('text-classification', sys.argv[1])(['great, really wonderful', 'Awful and BORING'])\n"
        "print(*(score['label'] for score in scored))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(first_run.out / "bundle")],
        cwd=tmp_path,
        env=first_run.user.shell,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
    )
    assert done.stdout.split() == ["positive", "negative"], done.stderr


def test_finished_run_is_neither_written_over_nor_continued(first_run: FirstRun, without_ray: Command) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in (first_run.out, *first_run.out.rglob("*"))
        }

    before = state()
    for again in ((), ("--resume",)):
        train = ("--recipe", "recipe.yaml", "--out", "out", *again)
        ended = without_ray("train", first_run.user.home, *train).calmly(2)
        assert "holds a finished run" in ended.err
        assert str(first_run.out / "bundle") in ended.err
    assert state() == before
