"""Files that are encrypted as `age` encrypts them (https://age-encryption.org/v1), and read back.

In: recipients and identities; a plaintext, or an encrypted file. Out: files whose plaintext never touches a disk; the
content of such a file. Not here: the keys themselves (age_keys.py), which files hold texts of people (their writers), a
whole directory as one file (sealed_directory.py).

A plaintext goes through a pipe to a thread that encrypts it, so that a file of any size takes 64 KB of memory.
"""

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from textcls import storage
from textcls.age_keys import IDENTITY, IDENTITY_FILE
from textcls.errors import InputError, TextclsError

SUFFIX = ".age"
"""What the name of an encrypted file ends with."""

# What pyrage says where no identity fits; everything else is a damaged file.
_NO_MATCH = "No matching keys found"


@dataclass(frozen=True)
class Keys:
    """Who may read what a job writes, and where it finds the identity for what it reads; picklable, without secrets.

    Attributes:
        recipients: `age1...`, sorted, each once; files that hold texts are encrypted to them. None: they stay plain.
        identity_file: path of a file of identities; "" for the environment alone.
    """

    recipients: tuple[str, ...] = ()
    identity_file: str = ""

    def name(self, name: str) -> str:
        """The name of a file that holds texts."""
        return name + SUFFIX if self.recipients else name


NO_KEYS = Keys()


# --- writing ---------------------------------------------------------------------------------------------------------


@contextmanager
def written_whole(uri: str, recipients: Sequence[str]) -> Iterator[BinaryIO]:
    """As `storage.written_whole`, with a file that is encrypted as it is written; without recipients it stays plain.

    Args:
        uri: absolute.
        recipients: from `age_keys.checked_recipients`.
    """
    with storage.written_whole(uri) as file:
        if not recipients:
            yield file
            return
        with _encrypted(file, recipients) as plain:
            yield plain


def write_bytes(uri: str, content: bytes, recipients: Sequence[str]) -> None:
    """As `storage.write_bytes`, encrypted if there are recipients."""
    if not recipients:
        storage.write_bytes(uri, content)
        return
    import pyrage

    storage.write_bytes(uri, pyrage.encrypt(content, _keys_of(recipients)))


def _keys_of(recipients: Sequence[str]) -> list[Any]:
    import pyrage

    return [pyrage.x25519.Recipient.from_str(one) for one in recipients]


@contextmanager
def _encrypted(out: BinaryIO, recipients: Sequence[str]) -> Iterator[BinaryIO]:
    """A file to write a plaintext to, which arrives encrypted in `out`."""
    import pyrage

    read_end, write_end = os.pipe()
    target = _Target(out)

    def encrypt() -> None:
        with open(read_end, "rb", buffering=0) as plain:
            pyrage.encrypt_io(plain, target, _keys_of(recipients))

    with ThreadPoolExecutor(1, thread_name_prefix="encryption") as thread:
        try:
            with io.BufferedWriter(_Pipe(write_end), storage.BUFFER_BYTES) as plain:
                done = thread.submit(encrypt)
                yield plain
        except BrokenPipeError:  # the thread has ended, and its error says why
            _finish(done, target)
            raise
        _finish(done, target)


class _Pipe(io.RawIOBase):
    """The end of a pipe to write to; unlike Python's own, it knows how much was written, which pyarrow asks."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._written = descriptor, 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        count = os.write(self._descriptor, data)
        self._written += count
        return count

    def tell(self) -> int:
        return self._written

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class _Target:
    """A file for pyrage, which turns errors of it into text or drops them; the error itself is kept."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.error = file, None  # type: BinaryIO, Exception | None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except Exception as error:
            self.error = error
            raise

    def flush(self) -> None:
        pass


def _finish(done: "Future[None]", target: _Target) -> None:
    """Waits for the thread; raises the error of the file itself, which pyrage turns into text or, at the end, drops."""
    try:
        done.result()
    except Exception as error:
        raise target.error or error from None
    if target.error is not None:
        raise target.error


# --- reading ---------------------------------------------------------------------------------------------------------


def is_encrypted(uri: str) -> bool:
    """Whether a name is that of an encrypted file."""
    return uri.endswith(SUFFIX)


def open_input(uri: str, opened_by: Sequence[Any]) -> BinaryIO:
    """As `storage.open_input`; an encrypted file is decrypted into memory first.

    Raises:
        InputError: as in `read_bytes`.
    """
    return io.BytesIO(read_bytes(uri, opened_by)) if is_encrypted(uri) else storage.open_input(uri)


def read_bytes(uri: str, opened_by: Sequence[Any]) -> bytes:
    """The content of a file, decrypted if its name says that it is encrypted.

    Args:
        uri: absolute.
        opened_by: from `age_keys.identities`.

    Raises:
        InputError: no identity fits, or the file is damaged, incomplete or no file of age.
    """
    if not is_encrypted(uri):
        return storage.read_bytes(uri)
    content = io.BytesIO()
    decrypt(uri, content, opened_by)
    return content.getvalue()


def decrypt(uri: str, out: Any, opened_by: Sequence[Any]) -> None:
    """Writes the plaintext of a file to `out`; each 64 KB are authenticated first, the end of the file last.

    Args:
        uri: absolute.
        out: has `write` and `flush`. What it was given is worth nothing if this raises.
        opened_by: from `age_keys.identities`.

    Raises:
        InputError: as in `read_bytes`.
    """
    import pyrage

    if not opened_by:
        raise InputError(
            f"{uri} is encrypted, and there is no identity to open it",
            expected="the secret key of one of its recipients",
            todo=f"--identity-file FILE, or set {IDENTITY_FILE} or {IDENTITY}",
        )
    with storage.open_input(uri) as file:
        source, target = _Source(file), _Target(out)
        refused: Exception | None = None
        try:
            pyrage.decrypt_io(source, target, list(opened_by))
        except (pyrage.DecryptError, OSError) as error:
            refused = error
        if isinstance(target.error, BrokenPipeError):  # who reads the plaintext has seen enough
            raise target.error
        with storage.explained(uri):
            if failed := source.error or target.error:
                raise failed
        if refused is not None:
            raise _not_opened(uri, str(refused), opened_by)


@contextmanager
def decrypted(uri: str, opened_by: Sequence[Any]) -> Iterator[BinaryIO]:
    """The plaintext of a file as it is decrypted; the block is at its end only when the file was whole.

    Args:
        uri: absolute.
        opened_by: from `age_keys.identities`.

    Raises:
        InputError: as in `read_bytes`, also after the block has read all.
    """
    read_end, write_end = os.pipe()

    def run() -> None:
        with open(write_end, "wb") as out:
            decrypt(uri, out, opened_by)

    with ThreadPoolExecutor(1, thread_name_prefix="decryption") as thread:
        done = thread.submit(run)
        try:
            with open(read_end, "rb") as plain:
                yield plain
                while plain.read(storage.BUFFER_BYTES):
                    pass
        except Exception:
            # The thread may have found why the plaintext ended; where it only found the pipe closed, the block knows.
            if isinstance(found := done.exception(), TextclsError):
                raise found from None
            raise
        done.result()


class _Source:
    """A file for pyrage; its error is kept."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.error = file, None  # type: BinaryIO, Exception | None

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:
            self.error = error
            raise


def _not_opened(uri: str, reason: str, opened_by: Sequence[Any]) -> TextclsError:
    if _NO_MATCH in reason:
        own = ", ".join(str(one.to_public()) for one in opened_by)
        return InputError(
            f"{uri} is not encrypted to the identity at hand, {own}",
            expected="the secret key of one of its recipients",
            todo=f"--identity-file FILE, or set {IDENTITY_FILE} or {IDENTITY}, with another identity",
        )
    return InputError(
        f"{uri} is damaged, incomplete or no file of age ({reason})",
        expected="exactly the bytes that were written",
        todo="copy or write it again",
    )


class _Enough(Exception):
    """The first bytes of a plaintext have come."""


class _FirstBytes:
    def write(self, data: bytes) -> int:
        raise _Enough

    def flush(self) -> None:
        pass


def can_open(uri: str, opened_by: Sequence[Any]) -> bool:
    """Whether one of the identities opens a file; reads its beginning alone. A plain file is open to all."""
    if not is_encrypted(uri):
        return True
    try:
        decrypt(uri, _FirstBytes(), opened_by)
    except _Enough:
        return True
    except InputError:
        return False
    return True
