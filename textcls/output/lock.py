"""One job at a time in an --out.

In: the URI of an --out. Out: the right to write there while a block lasts. Not here: whose files lie there
(training/run_dir.py, inference/predictions_dir.py).

Locally the operating system keeps the lock, and lets it go with the process, however that ends. Object storage has no
locks: there a job keeps a note and renews it, and a note that nobody renews is a dead job's. Whether it is renewed is
watched, never reckoned from clocks, which differ between machines.
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
# Of two jobs that see no note and both leave one, the later one's stands; by then both have looked.
_SETTLE_S = 1.0


@contextmanager
def alone_in(uri: str) -> Iterator[None]:
    """Keeps other jobs out of a directory while the block lasts; an empty one goes with it.

    Raises:
        RunDirError: another job writes there. Remotely it takes up to 20 seconds to know.
        StorageError: it cannot be written.
    """
    with _noted(uri) if storage.is_remote(uri) else _locked(uri):
        yield


@contextmanager
def _locked(uri: str) -> Iterator[None]:
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
            raise _busy(uri, "another job")  # one that was refused, and has just taken the empty directory away
        try:
            yield
        finally:
            with suppress(OSError):
                os.rmdir(uri)  # only an empty one goes: the job was refused, and leaves nothing
    finally:
        os.close(directory)


@contextmanager
def _noted(uri: str) -> Iterator[None]:
    place = storage.join(uri, NOTE)
    if found := _read(place):
        given_up = time.monotonic() + _DEAD_AFTER_S
        while (now := _read(place)) == found and time.monotonic() < given_up:
            time.sleep(_RENEW_S / 5)  # object storage tells nobody of a change
        if now and now != found:
            raise _busy(uri, _author(now))
    identity = {"host": socket.gethostname(), "pid": os.getpid(), "job": secrets.token_hex(8)}
    renewals = 0

    def renew() -> bytes:
        content = json.dumps(identity | {"renewed": renewals}).encode()
        storage.write_bytes(place, content)
        return content

    written = renew()
    time.sleep(_SETTLE_S)  # for a job that began at the same moment
    if (now := _read(place)) != written:
        raise _busy(uri, _author(now))
    ended = threading.Event()

    def keep_renewing() -> None:
        nonlocal renewals
        while not ended.wait(_RENEW_S):
            renewals += 1
            with suppress(StorageError):  # the next one may succeed
                renew()

    thread = threading.Thread(target=keep_renewing, name="lock of --out", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(InputError, StorageError):
            storage.delete_file(place)


def _read(place: str) -> bytes:
    """The note, or nothing."""
    try:
        return storage.read_bytes(place)
    except InputError:
        return b""


def _author(note: bytes) -> str:
    try:
        found = json.loads(note)
        return f"process {found['pid']} on {found['host']}"
    except (ValueError, KeyError, TypeError):
        return "another job"


def _busy(uri: str, who: str) -> RunDirError:
    return RunDirError(f"{uri}: {who} is writing there", todo="let it end first, or name another --out")
