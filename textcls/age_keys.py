"""Keys of `age` (https://age-encryption.org/v1): recipients, who may read a file, and identities, which open it.

In: public keys as the user gives them; secret keys in a file or the environment. Out: checked recipients, and
identities for pyrage. Not here: encrypting and decrypting (encryption.py), the arguments of commands
(commands/keys.py).

An identity is read where it is used: it is in no recipe, no file of a job, no pickled object and no message.
"""

import os
from collections.abc import Iterable
from typing import Any, NoReturn

from textcls.errors import InputError

IDENTITY = "TEXTCLS_AGE_IDENTITY"
"""The environment variable that holds an identity."""
IDENTITY_FILE = "TEXTCLS_AGE_IDENTITY_FILE"
"""The environment variable that names a file of identities."""

_IN_ENVIRONMENT = f"put the key itself there, or set {IDENTITY_FILE} to the file that holds it"
_SECRET = "age-secret-key-"
_KEY_CHARS = 62


class OwnKey:
    """A key pair of this process, for files that the same job reads again; it is never written nor sent elsewhere.

    Attributes:
        recipient: its public key.
    """

    def __init__(self) -> None:
        import pyrage

        self._identity = pyrage.x25519.Identity.generate()
        self.recipient = str(self._identity.to_public())

    def identities(self) -> list[Any]:
        """What opens the files."""
        return [self._identity]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key of one process stays there")


def checked_recipients(asked: Iterable[str]) -> tuple[str, ...]:
    """The recipients, sorted, each once.

    Raises:
        InputError: one is no public key; a value that may be a secret is not repeated.
    """
    import pyrage

    found = set()
    for place, value in enumerate(asked, 1):
        key = value.strip()
        if _SECRET in key.casefold():
            raise InputError(
                f"--encrypt-to, value {place}, is a secret key: whoever can list processes or read the history of the "
                "shell may have seen it",
                expected="a public key: age1...",
                todo="give the public key, which `age-keygen -y FILE` prints; better of a new pair",
            )
        try:
            pyrage.x25519.Recipient.from_str(key)
        except pyrage.RecipientError as error:
            shown = f" ({key[:_KEY_CHARS]!r})" if key.startswith("age1") else ""
            raise InputError(
                f"--encrypt-to, value {place}, is no public key of age{shown}: {error}",
                expected=f"age1 and {_KEY_CHARS - 4} more characters, as `age-keygen` prints it",
                todo="copy the whole key",
            ) from None
        found.add(key)
    return tuple(sorted(found))


def identities(identity_file: str = "") -> list[Any]:
    """The identities of a file or, without one, of the environment; none if there are none.

    Args:
        identity_file: path of a file as `age-keygen` writes it.

    Raises:
        InputError: the file cannot be read, or a line is no identity; its content is not repeated.
    """
    path = identity_file or os.environ.get(IDENTITY_FILE, "")
    texts = []
    if path:
        try:
            with open(os.path.expanduser(path), encoding="utf-8") as file:
                texts.append((path, file.read()))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise InputError(
                f"the file of identities {path}: {reason}", todo="name the file that `age-keygen -o FILE` has written"
            ) from None
    if not identity_file and (text := os.environ.get(IDENTITY, "")):
        texts.append((IDENTITY, text))
    found = []
    for place, text in texts:
        todo = _IN_ENVIRONMENT if place == IDENTITY else "name the file that `age-keygen -o FILE` has written"
        of_place = [
            _identity(line, f"{place}, line {n}", todo) for n, line in enumerate(text.splitlines(), 1) if _key_in(line)
        ]
        if not of_place:
            raise InputError(
                f"{place} holds no identity", expected="a line AGE-SECRET-KEY-1...", todo=f"{todo}, or unset it"
            )
        found += of_place
    return found


def _key_in(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _identity(line: str, place: str, todo: str) -> Any:
    import pyrage

    try:
        return pyrage.x25519.Identity.from_str(line.strip())
    except pyrage.IdentityError:
        kind = "a public key" if line.strip().startswith("age1") else "no identity of age"
        raise InputError(
            f"{place}, is {kind}",
            expected="AGE-SECRET-KEY-1..., without a passphrase",
            todo=todo,
        ) from None
