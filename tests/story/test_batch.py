"""A bundle in use: a report on labelled rows, and predictions that are complete, whatever happened on the way."""

import csv
import json
import os
import pty
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from textcls import storage
from textcls.directories import put_directory
from textcls.inference.classifier import Classifier

from .conftest import CHECKOUT, Cluster, Command, Ended, Running, as_csv, reviews, wait_until

# Small parts, so that a kill meets many of them; one thread, so that numbers do not depend on the machine.
INBOX = ("--bundle", "bundle", "--csv", "inbox.csv")
PARTS = ["--set", "data.shard_bytes=2000", "--set", "scale.cpus_per_worker=1", "--set", "scale.workers=1"]


class Analyst:
    """Someone in a directory with a bundle and `inbox.csv`, who starts jobs; they join a running cluster."""

    def __init__(self, home: Path, shell: dict[str, str]) -> None:
        self.home, self.shell = home, shell

    def starts(self, job: str, *arguments: Any, **streams: Any) -> Running:
        command = [sys.executable, CHECKOUT / "jobs" / f"{job}.py"]
        return Running([*command, *INBOX, *arguments], cwd=self.home, env=self.shell, **streams)

    def runs(self, job: str, *arguments: Any) -> Ended:
        running = self.starts(job, *arguments)
        try:
            return running.ended()
        finally:
            running.kill()


@pytest.fixture
def desk(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A directory with a bundle and `inbox.csv`."""
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    rows = [(text, "good" if label == "positive" else "bad") for text, label in reviews(3000)]
    content = as_csv(rows).replace("\n", "\r\n", 50) + '"two\nlines",good\na comma, too many,bad\n,good\n'
    (tmp_path / "inbox.csv").write_text(content, newline="")
    return tmp_path


@pytest.fixture
def analyst(desk: Path, cluster: Cluster, shell: dict[str, str]) -> Analyst:
    return Analyst(desk, shell | {"RAY_ADDRESS": cluster.address})


def files_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_predictions_hold_every_row_with_what_the_classifier_says(analyst: Analyst) -> None:
    ended = analyst.runs("predict", "--out", "out", "--format", "csv").calmly(0)
    assert ended.err == ""
    assert "3,003 rows = labels (bad " in ended.out
    assert "errors (missing_text 1, ragged_row 1)" in ended.out
    assert "column 'label' of the CSV is 'input_label' in the predictions" in ended.out
    found = []
    for part in sorted((analyst.home / "out" / "parts").iterdir()):
        with part.open(newline="", encoding="utf-8") as file:
            found += list(csv.DictReader(file))
    with (analyst.home / "inbox.csv").open(newline="") as file:
        _, *records = csv.reader(file)
    assert [row["text"] for row in found[:3001]] == [record[0] for record in records[:3001]]
    assert [row["error"] for row in found[3000:]] == ["", "ragged_row", "missing_text"]
    scores = Classifier.load(str(analyst.home / "bundle")).scores([record[0] for record in records[:3001]])
    assert [row["label"] for row in found[:3001]] == [scores.label(i) for i in range(3001)]
    manifest = json.loads((analyst.home / "out" / "predictions.json").read_text())
    assert manifest["rows"] == 3003
    assert {file["name"] for file in manifest["files"]} == {
        f"parts/{path.name}" for path in (analyst.home / "out" / "parts").iterdir()
    }


def test_killed_job_goes_on_and_ends_as_if_nothing_had_happened(analyst: Analyst, on_cluster: Command) -> None:
    on_cluster("predict", analyst.home, *INBOX, "--out", "whole", *PARTS).calmly(0)
    out = analyst.home / "out"
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        finished = len(list(out.glob("progress/part-*.json")))
        running = analyst.starts("predict", "--out", "out", *PARTS)
        try:
            running.until(lambda least=finished + 3: len(list(out.glob("progress/part-*.json"))) >= least)
            running.signal(number)
            ended = running.ended()
            wait_until(lambda: not running.relatives())  # noqa: B023
        finally:
            running.kill()
        assert ended.status == status
        assert not (out / "predictions.json").exists()
    assert ended.err == "\ninterrupted; the same command continues out\n"

    done = [out / "parts" / f"{path.stem}.parquet" for path in out.glob("progress/part-*.json")]
    assert 6 <= len(done) < len(list((analyst.home / "whole" / "parts").iterdir()))
    times = {path: path.stat().st_mtime_ns for path in done}
    refused = on_cluster("predict", analyst.home, *INBOX, "--out", "out", *PARTS, "--all-scores").calmly(2)
    assert "holds predictions of another job: all_scores was false, now true" in refused.err
    ended = on_cluster("predict", analyst.home, *INBOX, "--out", "out", *PARTS).calmly(0)
    assert f"continuing: {len(done)} of " in ended.out
    assert {path: path.stat().st_mtime_ns for path in done} == times
    assert files_of(out) == files_of(analyst.home / "whole")

    refused = on_cluster("predict", analyst.home, *INBOX, "--out", "out", *PARTS).calmly(2)
    assert "out holds finished predictions" in refused.err


def test_evaluation_leaves_a_report_and_the_account(analyst: Analyst, on_cluster: Command) -> None:
    ended = analyst.runs("evaluate", "--out", "out").calmly(0)
    assert ended.err == ""
    assert "read 3,003 rows from 1 file" in ended.out
    assert "3,003 = evaluated 3,001 + rejects 2" in ended.out
    assert "Evaluation: 3,001 rows" in ended.out
    out = analyst.home / "out"
    assert sorted(os.listdir(out)) == ["rejects.parquet", "report.html", "report.json", "report.png", "rows.json"]
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    rejects = pq.read_table(out / "rejects.parquet").to_pylist()
    assert [(row["line"], row["reason"]) for row in rejects] == [(3004, "ragged_row"), (3005, "missing_text")]
    # The report counts what a prediction of the same rows says.
    on_cluster("predict", analyst.home, *INBOX, "--out", "predictions").calmly(0)
    parts = [pq.read_table(part) for part in sorted((analyst.home / "predictions" / "parts").iterdir())]
    rows = [row for part in parts for row in part.to_pylist() if row["label"] is not None]
    right = sum(row["label"] == row["input_label"] for row in rows)
    report = json.loads((out / "report.json").read_text())
    assert report["test"]["rows"] == len(rows)
    assert report["test"]["accuracy"]["value"] == pytest.approx(right / len(rows))


@pytest.mark.parametrize("job", ["predict", "evaluate"])
def test_input_that_cannot_be_used_is_told_before_ray_starts(desk: Path, without_ray: Command, job: str) -> None:
    (desk / "photos").mkdir()
    (desk / "photos" / "cat.png").write_bytes(b"miaow")
    for arguments, phrase in (
        (["--out", "photos"], "cat.png"),
        (["--out", "out", "--csv", "inbex.csv"], "inbox.csv?"),
        (["--out", "out", "--set", "text.max_tokens=9"], "the bundle determines how texts are scored"),
        (["--out", "out", "--bundle", "photos"], "has no bundle.json"),
    ):
        assert phrase in without_ray(job, desk, *INBOX, *arguments).calmly(2).err
    weights = desk / "bundle" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert f"{weights} is damaged" in without_ray(job, desk, *INBOX, "--out", "out").calmly(2).err
    assert not (desk / "out").exists()
    assert os.listdir(desk / "photos") == ["cat.png"]


def test_terminal_shows_a_bar_with_rate_and_time_left(analyst: Analyst) -> None:
    shown, terminal = pty.openpty()
    user = Analyst(analyst.home, analyst.shell | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"})
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    running = user.starts("predict", "--out", "out", *PARTS, **streams)
    os.close(terminal)
    try:
        seen = b"".join(_all_of(shown)).decode()
        assert running.process.wait(60) == 0, seen
    finally:
        running.kill()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert re.search(r"predicting .*[\d,]+ of about [\d,]+ rows · [\d,.]+ rows/s · \d+:\d\d left", text)
    assert "Traceback" not in text


def _all_of(shown: int) -> Iterator[bytes]:
    """Everything that is written to a terminal until its last writer leaves."""
    try:
        while piece := os.read(shown, 65536):
            yield piece
    except OSError:  # how Linux says that nobody writes any more
        pass
    os.close(shown)


def test_bundle_rows_and_predictions_live_in_a_bucket(
    s3: str, analyst: Analyst, tmp_path: Path, without_ray: Command
) -> None:
    put_directory(str(analyst.home / "bundle"), f"{s3}/bundle", last="bundle.json")
    storage.write_bytes(f"{s3}/inbox/a.csv", (analyst.home / "inbox.csv").read_bytes())
    cloud = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    shell = {name: value for name, value in analyst.shell.items() if name != "RAY_ADDRESS"}
    user = Analyst(analyst.home, shell | cloud | {"XDG_CACHE_HOME": str(tmp_path / "cache")})
    where = ["--bundle", f"{s3}/bundle", "--csv", f"{s3}/inbox/*.csv", "--out", f"{s3}/out"]
    user.runs("predict", *where, *PARTS).calmly(0)
    assert storage.names_in(f"{s3}/out") == ["parts", "predictions.json"]
    manifest = json.loads(storage.read_bytes(f"{s3}/out/predictions.json"))
    assert manifest["rows"] == 3003
    assert len(storage.names_in(f"{s3}/out/parts")) == len(manifest["files"]) > 20
    assert "holds finished predictions" in without_ray("predict", analyst.home, *where, *PARTS).calmly(2).err
