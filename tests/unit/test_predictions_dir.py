"""A prediction's directory: who may write there, and what counts as finished."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from textcls import storage
from textcls.batch.predictions_dir import PredictionsDir
from textcls.errors import RunDirError
from textcls.output import lock

IDENTITY = {"bundle": "b" * 64, "files": {"/a.csv": {"place": 0, "size_bytes": 7}}, "all_scores": False}


def claim(out: Any, **changed: Any) -> PredictionsDir:
    return PredictionsDir.claim(str(out), IDENTITY | changed, suffix="csv")


def finish_part(target: PredictionsDir, index: int) -> None:
    storage.write_bytes(target.part_uri(index), b"rows")
    target.write_record(index, {"rows": index})


def files_in(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


def test_a_new_directory_is_taken_and_says_whose_it_is(tmp_path: Path) -> None:
    target = claim(tmp_path / "new" / "out")
    assert (target.resumed, target.records()) == (False, {})
    job = json.loads((tmp_path / "new/out/progress/job.json").read_text())
    assert job == {"format_version": 2, **IDENTITY}


def test_the_same_job_goes_on_with_the_parts_that_are_finished(tmp_path: Path) -> None:
    for index in (0, 2):
        finish_part(claim(tmp_path), index)
    storage.write_bytes(claim(tmp_path).part_uri(1), b"written, but its record is not")
    again = claim(tmp_path)
    assert again.resumed
    assert again.records() == {0: {"rows": 0}, 2: {"rows": 2}}


def test_a_part_that_was_removed_is_done_again(tmp_path: Path) -> None:
    finish_part(claim(tmp_path), 0)
    (tmp_path / "parts" / "part-00000.csv").unlink()
    assert claim(tmp_path).records() == {}


def test_what_a_killed_process_was_writing_is_swept_away(tmp_path: Path) -> None:
    finish_part(claim(tmp_path), 0)
    for folder in ("parts", "progress"):
        (tmp_path / folder / "part-00001.0a1b2c3d.tmp").write_text("half a p")
    claim(tmp_path)
    assert files_in(tmp_path) == ["parts/part-00000.csv", "progress/job.json", "progress/part-00000.json"]


def test_a_finished_directory_holds_parts_and_a_manifest_and_is_never_taken_again(tmp_path: Path) -> None:
    target = claim(tmp_path)
    finish_part(target, 0)
    target.finish({"rows": 1})
    assert files_in(tmp_path) == ["parts/part-00000.csv", "predictions.json"]
    assert json.loads((tmp_path / "predictions.json").read_text()) == {"format_version": 2, "rows": 1}
    with pytest.raises(RunDirError, match="holds finished predictions"):
        claim(tmp_path)


def test_a_job_that_was_killed_while_it_tidied_up_is_finished(tmp_path: Path) -> None:
    target = claim(tmp_path)
    storage.write_bytes(storage.join(target.uri, "predictions.json"), b"{}")
    with pytest.raises(RunDirError, match="holds finished predictions"):
        claim(tmp_path)


def test_a_job_that_finished_nothing_can_be_given_up(tmp_path: Path) -> None:
    claim(tmp_path).abandon()
    target = claim(tmp_path, all_scores=True)
    finish_part(target, 0)
    target.abandon()
    assert claim(tmp_path, all_scores=True).records() == {0: {"rows": 0}}


def test_refused_predictions_stay_until_another_job_comes_and_strange_files_keep_it_out(tmp_path: Path) -> None:
    target = claim(tmp_path)
    finish_part(target, 0)
    target.refuse({"rows": 1})
    assert files_in(tmp_path) == ["parts/part-00000.csv", "refused.json"]
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunDirError, match="not empty"):
        claim(tmp_path, all_scores=True)
    (tmp_path / "notes.txt").unlink()
    again = claim(tmp_path, all_scores=True)
    assert (again.resumed, again.records()) == (False, {})
    assert files_in(tmp_path) == ["progress/job.json"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"bundle": "c" * 64}, f'bundle was "{"b" * 64}", now "{"c" * 64}"'),
        ({"files": {"/a.csv": {"place": 0, "size_bytes": 8}}}, "files: /a.csv: size_bytes was 7, now 8"),
        ({"files": {}}, 'files: /a.csv was {"place": 0, "size_bytes": 7}, now null'),
        ({"all_scores": True}, "all_scores was false, now true"),
    ],
    ids=["bundle", "size", "files", "setting"],
)
def test_another_job_is_refused_with_the_difference(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    finish_part(claim(tmp_path), 0)
    before = files_in(tmp_path)
    with pytest.raises(RunDirError) as refused:
        claim(tmp_path, **changed)
    assert told in str(refused.value)
    assert files_in(tmp_path) == before


def test_a_directory_of_someone_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_text("miaow")
    with pytest.raises(RunDirError, match=r"holds no predictions \(cat\.png"):
        claim(tmp_path)
    assert os.listdir(tmp_path) == ["cat.png"]


@pytest.mark.parametrize("content", ["", "{", "[]", "7"])
def test_a_damaged_identity_is_refused_by_name(tmp_path: Path, content: str) -> None:
    claim(tmp_path)
    (tmp_path / "progress" / "job.json").write_text(content)
    with pytest.raises(RunDirError, match=r"job\.json is damaged"):
        claim(tmp_path)


def test_the_lock_of_a_job_is_not_in_its_own_way_in_object_storage(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_SETTLE_S", 0.0)
    out = f"{s3}/locked"
    for resumed in (False, True):
        with lock.locked(out):
            target = claim(out)
            assert target.resumed == resumed
            assert set(storage.names_in(out)) == {"progress", lock.NOTE}
    assert storage.names_in(out) == ["progress"]


def test_the_laws_hold_in_object_storage(s3: str) -> None:
    out = f"{s3}/predictions"
    target = claim(out)
    finish_part(target, 3)
    again = claim(out)
    assert (again.resumed, again.records()) == (True, {3: {"rows": 3}})
    again.finish({"rows": 3})
    assert storage.names_in(out) == ["parts", "predictions.json"]
    with pytest.raises(RunDirError, match="holds finished predictions"):
        claim(out)
