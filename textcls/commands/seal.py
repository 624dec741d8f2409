"""`textcls seal`: makes one encrypted file of a bundle, for storage and transport.

In: a command line, as `textcls seal --help` describes it. Out: an exit status, and the file. Not here: the file itself
(sealed_directory.py); opening it, which every command that takes a bundle does.
"""

import argparse
import shlex
from collections.abc import Sequence

from textcls import encryption, storage
from textcls.bundle import load_bundle
from textcls.command_line import command, run_command, say
from textcls.commands.keys import add_key_arguments, keys_of
from textcls.errors import InputError
from textcls.sealed_directory import seal_directory


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(argv, parser(), _run, interrupted=lambda _: "; the same command starts again")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=command("seal"), description="Make one encrypted file of a bundle.")
    parser.add_argument("--bundle", required=True, metavar="URI", help="the bundle of a training run: OUT/bundle")
    parser.add_argument("--out", required=True, metavar="URI", help="the new file: NAME.age")
    add_key_arguments(parser, encrypted="the bundle", opens="a bundle that is sealed already")
    return parser


def _run(arguments: argparse.Namespace, started: float) -> None:
    keys, out = keys_of(arguments), storage.absolute(arguments.out)
    if not keys.recipients:
        raise InputError("no --encrypt-to is given", todo="name who may open the bundle: --encrypt-to age1...")
    if not encryption.is_encrypted(out):
        raise InputError(
            f"--out {arguments.out}",
            expected="a name that ends with .age, by which commands know a sealed bundle",
            todo=f"--out {shlex.quote(arguments.out.rstrip('/'))}.age",
        )
    if storage.exists(out):
        raise InputError(f"{out} exists", todo="move it away, or name another --out")
    bundle = load_bundle(arguments.bundle, identity_file=keys.identity_file)
    seal_directory(bundle.directory, out, keys.recipients)
    say(f"sealed {bundle.uri} in {out}; its secret key opens it for every command: --bundle {shlex.quote(out)}")
