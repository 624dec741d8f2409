"""What the plain report may say while the other one is encrypted: nothing that is a cell of the CSV."""

import json
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pyrage
import pytest

from tests.unit.test_report_page import full_report, proportion, slice_of
from tests.unit.test_reports import TWO
from textcls import encryption
from textcls.batch import evaluate
from textcls.encryption import NO_KEYS, Keys
from textcls.reporting.picture import draw_report
from textcls.reporting.report import Report
from textcls.reporting.verdict import judged
from textcls.training import results

SECRET = pyrage.x25519.Identity.generate()
KEYS = Keys((str(SECRET.to_public()),))
CELL, FILES = "cell-of-a-row-7f3a", ("report.json", "report.html", "report.png")


def report_with_cells(*others: dict[str, Any]) -> Report:
    content = full_report(TWO) | {"history": [], "baseline": None}
    del content["baseline"]
    found = [slice_of("column channel", CELL, 0.5, worse=True), *others]
    content["slices"] = {"metric": "accuracy", "overall": proportion(0.8), "slices": found}
    return judged(Report.model_validate(content))


def written(out: Path, report: Report, job: str, keys: Keys) -> dict[str, bytes]:
    """The files of a job's report."""
    out.mkdir()
    if job == "train":
        run: Any = Some(uri=str(out), keys=keys)
        results._leave_report(lambda: report, run, print)
    else:
        evaluate.write_report(report, str(out), keys, print)
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("job", ["train", "evaluate"])
def test_values_of_columns_are_in_the_encrypted_report_alone(tmp_path: Path, job: str) -> None:
    report = report_with_cells(slice_of("length", "1 to 16", 0.6, worse=True))
    assert report.verdict
    assert CELL in report.verdict.model_dump_json()
    plain = written(tmp_path / "plain", report, job, NO_KEYS)
    assert sorted(plain) == sorted(FILES)
    assert all(CELL.encode() in plain[name] for name in FILES[:2])

    found = written(tmp_path / "out", report, job, KEYS)
    assert sorted(found) == sorted([*FILES, "report.html.age", "report.json.age"])
    assert not [name for name, content in found.items() if CELL.encode() in content]
    for name in FILES[:2]:
        assert encryption.read_bytes(str(tmp_path / "out" / f"{name}.age"), [SECRET]) == plain[name]
    stored = json.loads(found["report.json"])
    assert [one["by"] for one in stored["slices"]["slices"]] == ["length"]
    assert list(stored["slices"]["left_out"]) == ["column channel"]
    assert "cells of the CSV: see report.html.age" in found["report.html"].decode()
    assert found["report.png"] == draw_report(Report.model_validate(stored))


def test_a_verdict_on_nothing_but_a_value_of_a_column_is_left_out(tmp_path: Path) -> None:
    alone = report_with_cells()
    assert alone.slices
    of_cells = alone.model_copy(update={"verdict": judged(alone).verdict})
    stored = json.loads(written(tmp_path / "out", of_cells, "evaluate", KEYS)["report.json"])
    assert CELL not in json.dumps(stored)
    assert stored["slices"]["slices"] == []
