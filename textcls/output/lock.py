"""A lock on an --out: one job at a time writes there.

In: the URI of an --out. Out: the right to write there while a `with` block runs. Not here: which jobs may use what lies
there (claim.py).

Locally the operating system holds the lock and releases it when the process ends, in whatever way. Object storage has
no locks: there a job writes a note and renews it every 5 s, and a note that stays unchanged for 20 s belongs to a job
that is dead. Whether it changes is observed, not computed from time stamps: the clocks of two machines differ.
"""

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from textcls import storage
from textcls.errors import InputError, RunDirError, StorageError

NOTE = "running.json"
_RENEW_S = 5.0
_DEAD_AFTER_S = 20.0
# Of two jobs that find no note and both write one, the later note stays; after this time both read the same one.
_SETTLE_S = 1.0


@contextmanager
def locked(out: str) -> Iterator[str]:
    """The absolute URI of an --out, locked while the block runs. A directory that is empty at the end is deleted.

    Args:
        out: URI of a directory, which need not exist.

    Raises:
        RunDirError: another job holds the lock. In object storage it takes up to 20 s to know.
        StorageError: it cannot be written.
    """
    uri = storage.absolute(out)
    with _remote_lock(uri) if storage.is_remote(uri) else _local_lock(uri):
        yield uri


@contextmanager
def _local_lock(uri: str) -> Iterator[None]:
    with storage.explained(uri):
        os.makedirs(uri, exist_ok=True)
        directory = os.open(uri, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(uri, "another job") from None
        except OSError:
            pass  # a file system without locks
        if not os.path.exists(uri) or not os.path.samestat(os.fstat(directory), os.stat(uri)):
            raise _busy(uri, "another job")  # it was refused and has just deleted the empty directory
        try:
            yield
        finally:
            with suppress(OSError):
                os.rmdir(uri)  # fails unless it is empty: the job was refused and has written nothing
    finally:
        os.close(directory)


@contextmanager
def _remote_lock(uri: str) -> Iterator[None]:
    note_uri = storage.join(uri, NOTE)
    if found := _read(note_uri):
        dead_at = time.monotonic() + _DEAD_AFTER_S
        while (now := _read(note_uri)) == found and time.monotonic() < dead_at:
            time.sleep(_RENEW_S / 5)  # object storage has no notifications of changes
        if now and now != found:
            raise _busy(uri, _author(now))
    identity = {"host": socket.gethostname(), "pid": os.getpid(), "job": secrets.token_hex(8)}
    renewals = 0

    def renew() -> bytes:
        content = json.dumps(identity | {"renewed": renewals}).encode()
        storage.write_bytes(note_uri, content)
        return content

    written = renew()
    time.sleep(_SETTLE_S)  # a job may have started at the same moment
    if (now := _read(note_uri)) != written:
        raise _busy(uri, _author(now))
    ended = threading.Event()

    def keep_renewing() -> None:
        nonlocal renewals
        while not ended.wait(_RENEW_S):
            renewals += 1
            with suppress(StorageError):  # the next renewal may succeed
                renew()

    thread = threading.Thread(target=keep_renewing, name="lock of --out", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(InputError, StorageError):
            storage.delete_file(note_uri)


def _read(note_uri: str) -> bytes:
    """The note; empty if there is none."""
    try:
        return storage.read_bytes(note_uri)
    except InputError:
        return b""


def _author(note: bytes) -> str:
    """Who wrote a note, for messages."""
    try:
        found = json.loads(note)
        return f"process {found['pid']} on {found['host']}"
    except (ValueError, KeyError, TypeError):
        return "another job"


def _busy(uri: str, who: str) -> RunDirError:
    return RunDirError(f"{uri}: {who} is writing there", todo="wait until it ends, or name another --out")
