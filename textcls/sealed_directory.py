"""A flat directory as one encrypted file, and back: decrypted into memory where the system can.

In: a directory and recipients; the URI of a sealed one and identities. Out: one file of age that holds a tar; the same
files again, in a directory of this process. Not here: what the files mean and whether they are whole (bundle.py).

On Linux the decrypted files are anonymous memory (memfd_create(2)) and the directory holds links to them: they are on
no disk, need no room in /dev/shm (64 MB in a container), and are gone with the process, however it ends. Elsewhere they
are files of the directory for temporary files, which is reported. A directory that a killed process left is deleted by
the next one that opens or closes a sealed directory: it is locked for as long as its process lives.
"""

import fcntl
import logging
import os
import shutil
import stat
import tarfile
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, BinaryIO

from textcls import encryption, storage
from textcls.errors import InputError

_PREFIX = "textcls-opened-"
# memfd_create(2) allows 249 bytes.
_NAME_BYTES = 200


def seal_directory(directory: str, uri: str, recipients: Sequence[str]) -> None:
    """Writes the files of a directory as one encrypted file; equal files give an equal plaintext.

    Args:
        directory: local, without folders in it.
        uri: of the new file, absolute; it appears whole or not at all.
        recipients: from `checked_recipients`, at least one.
    """
    with encryption.written_whole(uri, recipients) as out, tarfile.open(fileobj=out, mode="w|") as tar:
        for name in sorted(os.listdir(directory)):
            with open(os.path.join(directory, name), "rb") as file:
                entry = tarfile.TarInfo(name)  # without time, owner and rights of the file
                entry.size = os.fstat(file.fileno()).st_size
                tar.addfile(entry, file)


class OpenedDirectory:
    """The files of a sealed directory, until the object is deleted or the process ends.

    Attributes:
        path: of the directory; for this process alone.
        in_memory: whether its files are in memory.
    """

    def __init__(self) -> None:
        self.in_memory = _has_anonymous_files()
        self.path, lock = _locked_directory()
        self._descriptors = [lock]
        self._end = weakref.finalize(self, _remove, self.path, self._descriptors)

    def close(self) -> None:
        """Deletes the files."""
        self._end()

    def add(self, name: str, content: BinaryIO) -> None:
        """Writes a file."""
        path = os.path.join(self.path, name)
        if not self.in_memory:
            with open(path, "xb") as file:
                shutil.copyfileobj(content, file, storage.BUFFER_BYTES)
            return
        descriptor = os.memfd_create(name)
        self._descriptors.append(descriptor)
        with open(descriptor, "wb", closefd=False) as file:
            shutil.copyfileobj(content, file, storage.BUFFER_BYTES)
        os.symlink(f"/proc/self/fd/{descriptor}", path)


def open_sealed(uri: str, opened_by: Sequence[Any], *, needs: str) -> OpenedDirectory:
    """The files of a sealed directory.

    Args:
        uri: absolute.
        opened_by: from `identities`.
        needs: a file that must be in it.

    Raises:
        InputError: no identity fits, or the file is damaged, lacks a file or holds anything but files side by side.
        StorageError: it cannot be read, or the temporary directory cannot be written.
    """
    _delete_abandoned()
    opened = OpenedDirectory()
    try:
        with encryption.decrypted(uri, opened_by) as plain, storage.explained(opened.path):
            names = _unpack(plain, uri, opened)
        if needs not in names:
            raise InputError(f"{uri} has no {needs} in it", todo="seal the directory that holds it")
    except BaseException:
        opened.close()
        raise
    if not opened.in_memory:
        # The only line of a worker or a replica that people see.
        logging.getLogger(__name__).warning(
            "%s is decrypted to %s: this system has no files in memory; it is deleted at the end", uri, opened.path
        )
    return opened


def _unpack(plain: BinaryIO, uri: str, opened: OpenedDirectory) -> set[str]:
    """Writes the files; returns their names."""
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=plain, mode="r|") as tar:
            for entry in tar:
                is_plain = entry.isreg() and not entry.issparse() and entry.name not in (".", "..", "")
                if not is_plain or "/" in entry.name or len(entry.name.encode()) > _NAME_BYTES or entry.name in seen:
                    raise InputError(
                        f"{uri}: {entry.name!r} must not be in a sealed bundle",
                        expected="files side by side, each once: no folders, no links, no other paths",
                        todo="seal the bundle with `textcls seal`",
                    )
                seen.add(entry.name)
                content = tar.extractfile(entry)
                assert content is not None
                opened.add(entry.name, content)  # type: ignore[arg-type]
    except tarfile.TarError as error:
        raise InputError(
            f"{uri} holds no sealed bundle: {error}", todo="seal the bundle with `textcls seal`"
        ) from error
    return seen


def _has_anonymous_files() -> bool:
    """Whether files in memory can be made and found by a path."""
    if not hasattr(os, "memfd_create"):
        return False
    with suppress(OSError):
        descriptor = os.memfd_create("probe")
        try:
            return os.path.isfile(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    return False


def _locked_directory() -> tuple[str, int]:
    """(path of a new directory for this user alone, the descriptor that holds its lock)."""
    while True:
        with storage.explained(tempfile.gettempdir()):
            path = tempfile.mkdtemp(prefix=_PREFIX)
            lock = os.open(path, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(path) and os.path.samestat(os.fstat(lock), os.stat(path)):
            return path, lock
        os.close(lock)  # another process took it for abandoned before it was locked


def _remove(path: str, descriptors: list[int]) -> None:
    shutil.rmtree(path, ignore_errors=True)
    for descriptor in descriptors:
        os.close(descriptor)
    _delete_abandoned()  # Ray kills its workers, so at the end of a job there are some


def _delete_abandoned() -> None:
    """Deletes what processes of this user left that were killed."""
    folder = tempfile.gettempdir()
    for name in os.listdir(folder):
        if not name.startswith(_PREFIX):
            continue
        path = os.path.join(folder, name)
        with suppress(OSError):  # another user's, in use, or deleted by another process meanwhile
            found = os.lstat(path)
            if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
                continue
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
