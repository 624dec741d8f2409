"""Who may use an --out, whatever its kind of job. `pytest tests/unit/test_claim.py`"""

from pathlib import Path

import pytest

from textcls import storage
from textcls.errors import RunDirError
from textcls.output import lock
from textcls.output.claim import OutKind, claim, difference
from textcls.output.json_files import read_json, write_json

KIND = OutKind("thing", "a finished thing", "deep/last.json", "first.json", frozenset({"account.json"}))


@pytest.fixture(params=["local", "s3"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"{request.getfixturevalue('s3')}/out"


def test_a_new_job_takes_what_is_not_there_or_empty_or_replaceable_and_changes_nothing(out: str) -> None:
    assert claim(out, KIND).names == frozenset()
    storage.write_bytes(storage.join(out, "account.json"), b"{}")
    claimed = claim(out, KIND)
    assert (claimed.uri, claimed.names, claimed.is_begun) == (out, {"account.json"}, False)
    assert storage.names_in(out) == ["account.json"]


def test_what_a_job_has_begun_is_claimed_as_begun_whatever_else_lies_there(out: str) -> None:
    for name in ("first.json", "deep/part-1", "cat.png"):
        storage.write_bytes(storage.join(out, name), b"{}")
    assert claim(out, KIND).is_begun


def test_finished_results_are_never_claimed_again(out: str) -> None:
    for name in ("first.json", "deep/last.json"):
        storage.write_bytes(storage.join(out, name), b"{}")
    with pytest.raises(RunDirError, match=r"holds a finished thing: .*/deep/last\.json"):
        claim(out, KIND)


def test_files_of_someone_else_are_refused_by_name(out: str) -> None:
    storage.write_bytes(storage.join(out, "cat.png"), b"")
    storage.write_bytes(storage.join(out, "account.json"), b"")
    with pytest.raises(RunDirError, match=r"is not empty and holds no thing \(cat\.png, "):
        claim(out, KIND)


def test_the_note_of_the_lock_is_not_part_of_what_lies_there(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_SETTLE_S", 0.0)
    with lock.locked(f"{s3}/out") as uri:
        assert storage.names_in(uri) == [lock.NOTE]
        assert claim(uri, KIND).names == frozenset()


def test_the_difference_of_two_identities_names_the_first_key_and_both_values() -> None:
    begun = {"a": 1, "b": {"c": [1], "d": "x"}}
    assert difference(begun, begun) == "nothing"
    assert difference(begun, begun | {"a": None}) == "a was 1, now null"
    assert difference(begun, begun | {"b": {"c": [1], "d": "y"}}) == 'b: d was "x", now "y"'
    assert difference(begun, {"a": 1}) == 'b was {"c": [1], "d": "x"}, now null'


def test_json_is_read_as_it_was_written_and_anything_else_is_damaged(out: str) -> None:
    write_json(out, "deep/x.json", {"text": "ä\u202e", "n": [1, None]})
    assert read_json(out, "deep/x.json") == {"text": "ä\u202e", "n": [1, None]}
    assert "\u202e".encode() not in storage.read_bytes(storage.join(out, "deep/x.json"))
    for content in (b"", b"{", b"[1]", b"\xff"):
        storage.write_bytes(storage.join(out, "x.json"), content)
        with pytest.raises(RunDirError, match=r"x\.json is damaged"):
            read_json(out, "x.json")
