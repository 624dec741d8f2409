"""Whole directories by URI: published completely or not at all, and local copies of remote ones.

In: a flat local directory, or the URI of a remote one. Out: the same files at another place. Not here: single files and
what URIs mean (storage.py).
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from textcls import storage
from textcls.errors import InputError, RunDirError, StorageError


def put_directory(source: str, uri: str, *, last: str, owner_only: Collection[str] = ()) -> None:
    """Publishes a copy of a flat local directory: a reader that finds the file `last` finds all files.

    Locally the directory appears by one rename. Remotely the file `last` is uploaded last; an upload that was
    interrupted can be repeated over its remains.

    Args:
        source: a flat local directory.
        uri: where to; nothing is there yet.
        last: the file that makes it complete.
        owner_only: files that only their owner may read; in object storage the bucket's rules decide.

    Raises:
        RunDirError: the target already holds other files.
        StorageError: no space, no permission, the network fails.
    """
    from pyarrow import fs

    names = sorted(os.listdir(source), key=lambda name: (name == last, name))
    if not storage.is_remote(uri):
        if os.path.exists(uri):
            raise _taken(uri)
        with storage.explained(uri):
            os.makedirs(os.path.dirname(uri), exist_ok=True)
            with storage.moved_into_place(uri) as beside:
                os.mkdir(beside)
                for name in names:
                    with open(os.path.join(source, name), "rb") as file:
                        storage.write_durably(file, os.path.join(beside, name), owner_only=name in owner_only)
        return
    existing = set(storage.names_in(uri))
    if last in existing or existing - set(names):
        raise _taken(uri)
    store, path = storage.filesystem(uri)
    for name in names[:-1]:
        with storage.explained(storage.join(uri, name)):
            _copy_file(os.path.join(source, name), f"{path}/{name}", fs.LocalFileSystem(), store)
    # From memory as one object: pyarrow publishes an incomplete object when reading its source fails.
    storage.write_bytes(storage.join(uri, last), storage.read_bytes(os.path.join(source, last)))


def cache_directory(kind: str) -> str:
    """A directory of this user for copies of one kind, which may be deleted at any time.

    It is in XDG_CACHE_HOME or ~/.cache; without a writable home directory, in the directory for temporary files.

    Raises:
        StorageError: another user owns the directory among the temporary files, or may write there.
    """
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(root):  # relative for a user without a name and a home
        with suppress(OSError):
            directory = os.path.join(root, "textcls", kind)
            os.makedirs(directory, exist_ok=True)
            if os.access(directory, os.W_OK | os.X_OK):
                return directory
    own = os.path.join(tempfile.gettempdir(), f"textcls-cache-{os.getuid()}")
    with storage.explained(own):
        with suppress(FileExistsError):
            os.mkdir(own, mode=0o700)
        found = os.lstat(own)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise StorageError(
            f"{own} may be written by others than this user",
            todo="set XDG_CACHE_HOME to a directory that only this user may write",
        )
    directory = os.path.join(own, kind)
    os.makedirs(directory, exist_ok=True)
    return directory


def download_directory(uri: str, cache: str, *, owner_only: Collection[str] = ()) -> str:
    """The path of a local copy, inside the directory `cache`, of the files directly in a remote directory.

    Each state of the remote directory (names, sizes and times of its files) is downloaded once. The copy appears by one
    rename, so several processes may download at the same time. Files in `owner_only` are for their owner alone.

    Raises:
        InputError: there is no such directory, or it is empty.
        StorageError: no space, no permission, the network fails.
    """
    from pyarrow import fs

    store, path = storage.filesystem(uri)
    with storage.explained(uri):
        infos = store.get_file_info(fs.FileSelector(path, allow_not_found=True))
    # Not recursively: a key with `..` as a directory would lead out of the copy.
    files = [info for info in infos if info.type == fs.FileType.File and info.base_name not in (".", "..")]
    if not files:
        raise InputError(f"{uri}: no files there", todo="check the bucket, the key and the credentials")
    state = sorted((info.path, info.size, info.mtime_ns) for info in files)
    copy = os.path.join(cache, hashlib.sha256(repr((uri, state)).encode()).hexdigest()[:32])
    if os.path.isdir(copy):
        return copy
    with storage.explained(f"{uri} -> {copy}"):
        os.makedirs(cache, exist_ok=True)
        try:
            with storage.moved_into_place(copy) as beside:
                os.mkdir(beside)
                for file in files:
                    target = os.path.join(beside, file.base_name)
                    if file.base_name in owner_only:
                        # pyarrow truncates the file that is there, and its mode stays.
                        os.close(storage.open_for_owner(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                    _copy_file(file.path, target, store, fs.LocalFileSystem())
        except OSError:
            if not os.path.isdir(copy):  # else another process was faster, and its copy is as good
                raise
    return copy


def _copy_file(source: str, target: str, source_store: Any, target_store: Any) -> None:
    from pyarrow import fs

    fs.copy_files(source, target, source_filesystem=source_store, destination_filesystem=target_store)


def _taken(uri: str) -> RunDirError:
    return RunDirError(f"{uri} already holds something", todo="move it away or write elsewhere")
