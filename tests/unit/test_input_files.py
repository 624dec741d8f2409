"""The laws of textcls/data/input_files.py: a pattern means the same everywhere, and no file counts twice."""

from pathlib import Path

import pytest

from textcls import storage
from textcls.data.input_files import expand
from textcls.errors import DataError

KEYS = ["a.csv", "b.csv", "b.txt", ".c.csv", "d/a.csv", "d/e/b.csv", "d/e/[x].csv", "f g/a%20?.csv", "ü.csv"]
PATTERNS = [
    *["*.csv", "?.csv", "[ab].csv", "[!a].*", "*", "**", "**/*.csv", "*/*.csv", "d/**/b.csv", "d/e/[x].csv"],
    *["d/*", "d/e/*.csv", "f g/*", "f g/a%20?.csv", ".c.*", "**/e/*", "d/**", "*/e/**", "none/*.csv", "ü*"],
]


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty directory, local and on object storage."""
    return str(tmp_path / "place") if request.param == "local" else f"{request.getfixturevalue('s3')}/some/place"


def put(root: str, keys: list[str]) -> None:
    for key in keys:
        storage.write_bytes(storage.join(root, key), key.encode())


@pytest.fixture(scope="module")
def shared_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    put(str(root), KEYS)
    return root


def found_by(root: str, pattern: str) -> list[tuple[str, int]] | str:
    try:
        files = expand([storage.join(root, pattern)])
    except DataError as error:
        return str(error).split("\n")[0].replace(root, "")
    return [(file.uri.removeprefix(root), file.size_bytes) for file in files]


def test_a_pattern_means_the_same_locally_and_remotely(shared_tree: Path, s3: str) -> None:
    put(f"{s3}/tree", KEYS)
    found = {pattern: found_by(f"{s3}/tree", pattern) for pattern in (*PATTERNS, *KEYS, "none.csv", "d")}
    assert found == {pattern: found_by(str(shared_tree), pattern) for pattern in found}
    assert found["*/*.csv"] == [("/d/a.csv", 7), ("/f g/a%20?.csv", 13)]
    assert "no such file" in found["none/*.csv"]


def test_a_pattern_may_reach_over_a_whole_bucket(s3: str) -> None:
    put(s3, KEYS)
    assert [file.uri for file in expand([f"{s3}/*.csv"])] == [f"{s3}/{key}" for key in ("a.csv", "b.csv", "ü.csv")]


def test_files_come_in_the_order_given_and_those_of_a_glob_sorted(place: str) -> None:
    put(place, KEYS)
    files = expand([storage.join(place, part) for part in ("d/a.csv", "?.csv", "d/e/*")])
    names = [file.uri.removeprefix(place + "/") for file in files]
    assert names == ["d/a.csv", "a.csv", "b.csv", "ü.csv", "d/e/[x].csv", "d/e/b.csv"]
    assert [storage.read_bytes(file.uri).decode() for file in files] == names
    assert [file.size_bytes for file in files] == [len(name.encode()) for name in names]


def test_a_file_named_twice_is_refused(place: str) -> None:
    put(place, KEYS)
    with pytest.raises(DataError, match=r"a\.csv is named twice"):
        expand([storage.join(place, "*.csv"), storage.join(place, "a.csv")])


def test_an_empty_file_is_refused(place: str) -> None:
    storage.write_bytes(storage.join(place, "x.csv"), b"")
    with pytest.raises(DataError, match=r"x\.csv is empty"):
        expand([storage.join(place, "*.csv")])


def test_a_directory_is_refused_with_the_glob_that_was_meant(place: str) -> None:
    put(place, KEYS)
    with pytest.raises(DataError, match="is not a file") as caught:
        expand([storage.join(place, "d")])
    assert f"{place}/d/*.csv" in caught.value.todo


def test_a_missing_local_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("x")
    for wrong, hint in (
        ("review.csv", f"did you mean {tmp_path / 'reviews.csv'}?"),
        ("zzzzzzzzz", f"list the files in {tmp_path}"),
        ("no/where.csv", f"there is no directory {tmp_path / 'no'}"),
    ):
        with pytest.raises(DataError, match="no such file") as caught:
            expand([str(tmp_path / wrong)])
        assert caught.value.todo == hint


def test_a_missing_remote_file_is_told_with_what_to_check(s3: str) -> None:
    for uri in (f"{s3}/x.csv", f"{s3}/*.csv", "s3://no-such-bucket/x.csv"):
        with pytest.raises(DataError, match="no such file") as caught:
            expand([uri])
        assert "credentials" in caught.value.todo


def test_a_pattern_reaches_into_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(str(tmp_path / "textcls_test_package" / "data"), ["b.csv", "a.csv"])
    (tmp_path / "textcls_test_package" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    found = [file.uri for file in expand(["package://textcls_test_package/data/*.csv"])]
    assert found == [str(tmp_path / "textcls_test_package" / "data" / name) for name in ("a.csv", "b.csv")]
