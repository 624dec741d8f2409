"""The arguments about encryption that commands share.

In: a parser; later, what it has parsed. Out: `--encrypt-to` and `--identity-file`, and the `Keys` that they mean.
Not here: the keys themselves (textcls/age_keys.py), encrypting (textcls/encryption.py), which files are encrypted
(jobs/README.md lists them).
"""

import argparse
import os

from textcls.age_keys import IDENTITY, IDENTITY_FILE, checked_recipients
from textcls.encryption import Keys


def add_key_arguments(parser: argparse.ArgumentParser, *, encrypted: str = "", opens: str = "") -> None:
    """Adds the arguments.

    Args:
        parser: of a command.
        encrypted: the files that the command encrypts, for the help; "" if it writes none that hold texts.
        opens: what it may have to decrypt, for the help; "" for nothing.
    """
    if encrypted:
        parser.add_argument(
            "--encrypt-to",
            dest="recipients",
            action="append",
            metavar="age1...",
            help=f"encrypt {encrypted} to this public key of age; can be repeated, and any of the keys opens them",
        )
    if opens:
        parser.add_argument(
            "--identity-file",
            default="",
            metavar="FILE",
            help=f"secret key that opens {opens}, as age-keygen writes it (default: {IDENTITY_FILE} or {IDENTITY})",
        )


def keys_of(arguments: argparse.Namespace) -> Keys:
    """What the arguments mean.

    Raises:
        InputError: a recipient is no public key.
    """
    recipients = checked_recipients(getattr(arguments, "recipients", None) or ())
    return Keys(recipients, identity_file_of(arguments))


def identity_file_of(arguments: argparse.Namespace) -> str:
    """The path of `--identity-file`, absolute, since Ray's workers have another working directory; "" for none."""
    path = getattr(arguments, "identity_file", "")
    return os.path.abspath(os.path.expanduser(path)) if path else ""
