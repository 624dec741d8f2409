"""The laws of storage: one meaning locally and remotely, whole files or none, errors that say what to do."""

import errno
import hashlib
import itertools
import os
import resource
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import fs
from werkzeug.serving import make_server

from textcls import storage
from textcls.directories import cache_directory, download_directory, put_directory
from textcls.errors import DataError, InputError, RunDirError, StorageError, TextclsError


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty directory, local and on object storage."""
    return str(tmp_path / "place") if request.param == "local" else f"{request.getfixturevalue('s3')}/some/place"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A flat local directory of three files."""
    directory = tmp_path / "source"
    directory.mkdir()
    for name, content in (("a", b"1"), ("b", b""), ("z.json", b"{}")):
        (directory / name).write_bytes(content)
    return directory


# --- names of places -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["x.csv", "./x.csv", "../x.csv", "/a//b/./x.csv", "~/x.csv", "a b?.csv", "package:/x"])
def test_an_absolute_path_stays_as_it_is(uri: str) -> None:
    path = storage.absolute(uri)
    assert os.path.isabs(path)
    assert storage.absolute(path) == path == os.path.abspath(os.path.expanduser(uri))


def test_a_local_path_depends_on_the_working_directory_only_until_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("x/y.csv") == str(tmp_path / "x" / "y.csv")
    assert storage.absolute("file:///etc/hosts") == "/etc/hosts"


@pytest.mark.parametrize(
    ("uri", "found"),
    [("s3://bucket/a/b/", "s3://bucket/a/b"), ("gs://bucket", "gs://bucket"), ("s3://b//x", "s3://b//x")],
)
def test_a_remote_uri_keeps_its_double_slash(uri: str, found: str) -> None:
    assert storage.absolute(uri) == found
    assert storage.join(found, "c", "d") == f"{found}/c/d"
    assert storage.is_remote(found)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://host/x.csv", "unknown kind of place"),
        ("hdfs://host/x.csv", "unknown kind of place"),
        ("file://s3://bucket/x", "unknown kind of place"),
        ("", "unknown kind of place"),
        ("s3://", "names no bucket"),
        ("gs:///x", "names no bucket"),
        ("s3://bucket/../x", "climbs out"),
        ("gs://bucket/x/..", "climbs out"),
        ("package://pytest/../x", "climbs out"),
        ("package://pytest/x/../../y", "climbs out"),
        ("package://no_such_package/x", "'no_such_package' is not installed"),
        ("package://not-a-name/x", "'not-a-name' is not installed"),
        ("package://os/x", "'os' is not installed"),
        ("package://__main__/x", "'__main__' is not installed"),
        ("package://", "'' is not installed"),
        ("s3://user:hidden@bucket/x", "holds a user or a password"),
        ("gs://hidden@bucket/x", "holds a user or a password"),
        ("https://user:hidden@host/x.csv", "holds a user or a password"),
    ],
)
def test_a_place_that_cannot_be_is_refused_with_what_to_do(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        storage.absolute(uri)
    assert caught.value.expected or caught.value.todo
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3://no bucket/x", "s3://[/x"])
def test_a_bucket_name_that_is_no_name_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="BUCKET"):
        storage.filesystem(uri)


@given(inner=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
@example("/etc/passwd")
@example("//etc/passwd")
def test_a_package_path_never_leaves_its_package(inner: str) -> None:
    root = os.path.dirname(pytest.__file__)
    uri = f"package://pytest/{inner}"
    if ".." in inner.split("/"):
        with pytest.raises(InputError, match="climbs out"):
            storage.absolute(uri)
    else:
        assert os.path.commonpath([root, storage.absolute(uri)]) == root


def test_a_package_file_is_found_and_its_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "textcls_test_package"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data" / "x.csv").write_text("text,label\n")
    monkeypatch.syspath_prepend(tmp_path)
    uri = "package://textcls_test_package/data/x.csv"
    assert storage.absolute(uri) == str(package / "data" / "x.csv")
    assert storage.read_bytes(storage.absolute(uri)) == b"text,label\n"
    assert "textcls_test_package" not in sys.modules


def test_a_namespace_package_is_searched_in_all_its_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for half in ("one", "two"):
        (tmp_path / half / "textcls_test_namespace" / half).mkdir(parents=True)
        monkeypatch.syspath_prepend(tmp_path / half)
    for half in ("one", "two"):
        found = storage.absolute(f"package://textcls_test_namespace/{half}")
        assert found == str(tmp_path / half / "textcls_test_namespace" / half)


# --- reading and writing ---------------------------------------------------------------------------------------------


def test_what_is_written_is_what_is_read(place: str) -> None:
    for name, content in {"empty": b"", "x y%20?": b"1", "deep/er/ü": bytes(range(256)) * 50_000}.items():
        uri = storage.join(place, name)
        assert not storage.exists(uri)
        for again in (b"old", content):
            storage.write_bytes(uri, again)
            assert storage.exists(uri)
            assert storage.read_bytes(uri) == again
    assert storage.names_in(place) == ["deep", "empty", "x y%20?"]
    assert storage.names_in(storage.join(place, "deep", "er")) == ["ü"]
    assert storage.bytes_in(place) == 1 + 256 * 50_000
    assert storage.bytes_in(storage.join(place, "none")) == 0
    assert storage.exists(storage.join(place, "deep"))


def test_an_opened_file_can_be_read_by_line_and_by_place(place: str) -> None:
    content = b"".join(b"line %d\n" % number for number in range(100_000))
    storage.write_bytes(storage.join(place, "x"), content)
    with storage.open_input(storage.join(place, "x")) as file:
        assert file.seek(0, os.SEEK_END) == len(content)
        assert file.seek(len(content) // 2) == file.tell()
        assert file.read(10) == content[len(content) // 2 :][:10]
        file.seek(0)
        assert list(file) == content.splitlines(keepends=True)
        file.seek(0)
        assert hashlib.file_digest(file, "sha256").digest() == hashlib.sha256(content).digest()


def test_what_is_not_there_is_told_by_name(place: str) -> None:
    assert not storage.exists(storage.join(place, "x"))
    assert storage.names_in(place) == []
    for read in (storage.read_bytes, storage.open_input):
        with pytest.raises(InputError, match="/x"):
            read(storage.join(place, "x"))


def test_an_unreachable_store_is_told_by_place_with_what_to_check(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for act in (
        lambda: storage.write_bytes("s3://no-such-bucket/x", b"1"),
        lambda: put_directory(str(tmp_path), "s3://no-such-bucket/dir", last="x"),
    ):
        (tmp_path / "x").write_bytes(b"1")
        with pytest.raises(StorageError, match=r"s3://no-such-bucket/.*NO_SUCH_BUCKET") as caught:
            act()
        assert "credentials" in caught.value.todo


class ShakyS3:
    """The S3 server of the `s3` fixture, of whose requests `is_spoiled` says which get `answer` instead."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        self._app = DomainDispatcherApplication(create_backend_app)
        self.is_spoiled: Callable[[str], bool] = lambda method: False
        self.answer: Callable[[], str] = lambda: "503 Slow Down"
        self.spoiled = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not self.is_spoiled(environ["REQUEST_METHOD"]):
            return self._app(environ, start_response)
        self.spoiled += 1
        if not (status := self.answer()):
            content = b"".join(self._app(environ, start_response))  # with the Content-Length of the whole
            return [content[: len(content) // 2]]
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(status, [("Content-Length", "0")])
        return [b""]


def every_other() -> Callable[[str], bool]:
    requests = itertools.count()
    return lambda method: next(requests) % 2 == 0


@pytest.fixture
def shaky(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShakyS3]:
    app = ShakyS3()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield app
    server.shutdown()
    thread.join()


def test_requests_that_fail_for_a_transient_reason_are_repeated(s3: str, shaky: ShakyS3) -> None:
    answers = itertools.cycle(["503 Slow Down", "500 Internal Server Error", "429 Too Many Requests"])
    shaky.is_spoiled, shaky.answer = every_other(), lambda: next(answers)
    storage.write_bytes(f"{s3}/x", b"content")
    assert storage.names_in(s3) == ["x"]
    assert shaky.spoiled >= 3


def test_a_read_that_breaks_off_is_repeated(s3: str, shaky: ShakyS3) -> None:
    content = bytes(range(256)) * 40_000  # more than one buffer
    storage.write_bytes(f"{s3}/x", content)
    breaks = every_other()
    shaky.is_spoiled, shaky.answer = lambda method: method == "GET" and breaks(method), lambda: ""
    assert storage.read_bytes(f"{s3}/x") == content
    assert shaky.spoiled > 0


def test_an_error_that_stays_is_reported_at_once(s3: str, shaky: ShakyS3) -> None:
    shaky.is_spoiled, shaky.answer = lambda method: True, lambda: "403 Forbidden"
    with pytest.raises(StorageError, match="ACCESS_DENIED") as refused:
        storage.write_bytes(f"{s3}/x", b"content")
    assert shaky.spoiled == 1
    assert "credentials" in refused.value.todo


def test_an_outage_that_lasts_is_reported_in_the_end(s3: str, shaky: ShakyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_S3_ATTEMPTS", 3)
    shaky.is_spoiled = lambda method: True
    with pytest.raises(StorageError, match="HTTP status 503"):
        storage.write_bytes(f"{s3}/x", b"content")
    assert shaky.spoiled == 3


def test_google_s_storage_is_retried_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    real = fs.GcsFileSystem
    monkeypatch.setattr(fs, "GcsFileSystem", lambda **options: asked.append(options) or real(anonymous=True))
    storage.filesystem("gs://bucket/x")
    assert asked == [{"retry_time_limit": timedelta(minutes=1)}]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "x")
    storage.write_bytes(uri, b"old")

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="no room to write"):
        storage.write_bytes(uri, b"new")
    assert os.listdir(tmp_path) == ["x"]
    assert storage.read_bytes(uri) == b"old"


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """The operating system refuses to let a file grow past 64 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files_only")
def test_a_quota_that_runs_out_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no room to write") as caught:
        storage.write_bytes(str(tmp_path / "out" / "x"), bytes(2**17))
    assert "quota" in caught.value.todo
    assert os.listdir(tmp_path / "out") == []


def test_no_permission_is_told_by_place(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *rest: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "makedirs", refuse)
    for act in (
        lambda: storage.write_bytes(str(tmp_path / "out" / "x"), b"1"),
        lambda: put_directory(str(source), str(tmp_path / "out" / "x"), last="z.json"),
    ):
        with pytest.raises(StorageError, match=r"out/x: permission denied") as caught:
            act()
        assert caught.value.todo
    assert not (tmp_path / "out").exists()


# --- whole directories -----------------------------------------------------------------------------------------------


def test_a_directory_arrives_whole_and_comes_back_whole(place: str, source: Path, tmp_path: Path) -> None:
    put_directory(str(source), place, last="z.json")
    assert storage.names_in(place) == ["a", "b", "z.json"]
    assert {name: storage.read_bytes(storage.join(place, name)) for name in storage.names_in(place)} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    assert storage.names_in(os.path.dirname(place)) == ["place"] or not storage.is_remote(place)


def test_a_taken_place_is_left_as_it_is(place: str, source: Path) -> None:
    storage.write_bytes(storage.join(place, "other"), b"1")
    with pytest.raises(RunDirError, match="already holds something"):
        put_directory(str(source), place, last="z.json")
    assert storage.names_in(place) == ["other"]


def test_the_last_file_is_uploaded_last(s3: str, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    real = fs.copy_files

    def copy_files(*args: object, **kwargs: object) -> None:
        real(*args, **kwargs)
        seen.append(storage.names_in(f"{s3}/x"))

    monkeypatch.setattr(fs, "copy_files", copy_files)
    put_directory(str(source), f"{s3}/x", last="a")
    assert seen == [["b"], ["b", "z.json"]]
    assert storage.names_in(f"{s3}/x") == ["a", "b", "z.json"]


def test_a_changed_remote_directory_is_downloaded_anew(s3: str, source: Path, tmp_path: Path) -> None:
    put_directory(str(source), f"{s3}/x", last="z.json")
    first = download_directory(f"{s3}/x", str(tmp_path / "cache"))
    assert download_directory(f"{s3}/x", str(tmp_path / "cache")) == first
    storage.write_bytes(f"{s3}/x/a", b"changed")
    second = download_directory(f"{s3}/x", str(tmp_path / "cache"))
    assert Path(second, "a").read_bytes() == b"changed"
    assert Path(first, "a").read_bytes() == b"1"


def test_a_remote_file_rewritten_with_the_same_size_is_downloaded_anew(s3: str, source: Path, tmp_path: Path) -> None:
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    put_directory(str(source), f"{s3}/x", last="z.json")
    first = download_directory(f"{s3}/x", str(tmp_path / "cache"))
    storage.write_bytes(f"{s3}/x/a", b"2")
    # S3 keeps whole seconds: the rewriting is dated a minute later, rather than waited for.
    bucket = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[s3.removeprefix("s3://")]
    bucket.keys["x/a"].last_modified += timedelta(minutes=1)
    second = download_directory(f"{s3}/x", str(tmp_path / "cache"))
    assert (Path(first, "a").read_bytes(), Path(second, "a").read_bytes()) == (b"1", b"2")


def test_another_process_that_was_faster_is_believed(
    s3: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_directory(str(source), f"{s3}/x", last="z.json")
    real = os.replace

    def replace(beside: str, copy: str) -> None:
        shutil.copytree(beside, copy)
        real(beside, copy)

    monkeypatch.setattr(os, "replace", replace)
    copy = download_directory(f"{s3}/x", str(tmp_path / "cache"))
    assert os.listdir(tmp_path / "cache") == [os.path.basename(copy)]
    assert sorted(os.listdir(copy)) == ["a", "b", "z.json"]


def test_a_key_that_climbs_out_is_not_followed(s3: str, source: Path, tmp_path: Path) -> None:
    import boto3

    put_directory(str(source), f"{s3}/x", last="z.json")
    for key in ("x/../../escaped", "x/..", "x/../escaped", "x/sub/../../../escaped"):
        boto3.client("s3").put_object(Bucket=s3.removeprefix("s3://"), Key=key, Body=b"1")
    copy = download_directory(f"{s3}/x", str(tmp_path / "cache" / "deep"))
    assert sorted(os.listdir(copy)) == ["a", "b", "z.json"]
    assert not list(tmp_path.rglob("escaped"))


def test_an_empty_remote_directory_cannot_be_downloaded(s3: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files there"):
        download_directory(f"{s3}/x", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file"), InputError),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), InputError),
        (PermissionError(errno.EPERM, "Not permitted"), StorageError),
        (OSError("AWS Error ACCESS_DENIED during PutObject operation"), StorageError),
        (OSError(errno.EROFS, "Read-only file system"), StorageError),
    ],
)
def test_every_error_of_the_system_becomes_one_that_names_the_place(
    error: OSError, expected: type[TextclsError]
) -> None:
    with pytest.raises(expected, match="PLACE") as caught, storage.explained("PLACE"):
        raise error
    assert caught.value.todo
    assert caught.value.__cause__ is error


def test_an_error_of_ours_passes_as_it_is() -> None:
    ours = DataError("x")
    with pytest.raises(DataError) as caught, storage.explained("PLACE"):
        raise ours
    assert caught.value is ours


# --- written piece by piece ------------------------------------------------------------------------------------------


def test_a_file_written_piece_by_piece_appears_when_it_is_complete(tmp_path, s3):
    for place in (f"{tmp_path}/new/dir", f"{s3}/new/dir"):
        uri = storage.join(place, "a.bin")
        with storage.written_whole(uri) as file:
            file.write(b"one ")
            assert not storage.exists(uri)
            file.write(b"two")
        assert storage.read_bytes(uri) == b"one two"
        assert storage.names_in(place) == ["a.bin"]


def test_a_file_whose_writer_fails_never_appears_and_spares_what_was_there(tmp_path, s3):
    for place in (f"{tmp_path}/dir", f"{s3}/dir"):
        uri = storage.join(place, "a.bin")
        storage.write_bytes(uri, b"before")
        with pytest.raises(TypeError), storage.written_whole(uri) as file:
            file.writelines([b"half a f", None])
        assert storage.read_bytes(uri) == b"before"
        assert storage.names_in(place) == ["a.bin"]


def test_a_directory_is_deleted_with_all_it_holds(tmp_path, s3):
    for place in (f"{tmp_path}/dir", f"{s3}/dir"):
        storage.write_bytes(storage.join(place, "inner", "a.bin"), b"a")
        storage.delete_directory(storage.join(place, "inner"))
        assert not storage.exists(storage.join(place, "inner", "a.bin"))
    storage.delete_directory(f"{tmp_path}/never there")


@pytest.mark.parametrize("home", ["/dev/null", "relative", None], ids=["no directory", "no path", "none"])
def test_without_a_home_directory_copies_lie_among_the_temporary_files(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if home is None:
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    else:
        monkeypatch.setenv("HOME", home)
    place = Path(cache_directory("models"))
    assert place == tmp_path / f"textcls-cache-{os.getuid()}" / "models"
    assert place.is_dir()
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert cache_directory("models") == str(place)
    place.parent.chmod(0o777)
    with pytest.raises(StorageError, match="may be written by others") as refused:
        cache_directory("models")
    assert "XDG_CACHE_HOME" in refused.value.todo
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert cache_directory("models") == str(tmp_path / "own" / "textcls" / "models")


def test_with_a_home_directory_copies_lie_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory("bundles") == str(tmp_path / ".cache" / "textcls" / "bundles")
