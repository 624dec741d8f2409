"""`textcls mask`: writes CSV files anew with their identifiers masked.

In: a command line, as `textcls mask --help` describes it. Out: an exit status, and the masked files in --out; after
statuses 1 and 130 the same command continues. Not here: the masking itself (masking/run.py).
"""

import argparse
import csv
import os
import time
from collections.abc import Sequence

from textcls.command_line import add_common_arguments, command, run_command, say
from textcls.commands.continuing import same_command_continues
from textcls.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(argv, parser(), _run, interrupted=_how_to_continue)


def _how_to_continue(arguments: argparse.Namespace) -> str:
    from textcls.masking.masked_dir import IDENTITY

    return same_command_continues(arguments.out, IDENTITY)


def _names(text: str) -> list[str]:
    """A list of names with commas between; a name that holds a comma is in double quotes, as in a CSV."""
    try:
        names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    except csv.Error:  # a line break
        names = []
    if not names or not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of names, such as email,phone")
    return names


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=command("mask"),
        description="Write CSV files anew with their identifiers masked; every row once, in order.",
    )
    parser.add_argument("--csv", required=True, nargs="+", metavar="URI", help="CSV files, globs or URIs")
    parser.add_argument("--out", required=True, metavar="URI", help="new directory for the masked files: OUT/csv")
    parser.add_argument(
        "--mask", type=_names, default=[], metavar="KIND,...", help="what to mask, such as email,phone: see text.mask"
    )
    parser.add_argument(
        "--columns",
        type=_names,
        default=[],
        metavar="NAME,...",
        help="the columns to mask (all columns); one with a comma in its name in double quotes: '\"name, first\",text'",
    )
    parser.add_argument(
        "--keyed",
        action="store_true",
        help="write pseudonyms like [EMAIL:0123456789abcdef], equal for equal values, with the secret key in the "
        "environment variable TEXTCLS_MASK_KEY",
    )
    parser.add_argument("--key-file", metavar="FILE", help="for --keyed: the key is in this file instead")
    return add_common_arguments(
        parser, overrides="text.mask, text.mask_patterns, or how the files are read: data.encoding"
    )


def _run(arguments: argparse.Namespace, started: float) -> None:
    from textcls.masking.pseudonyms import read_key
    from textcls.masking.settings import mask_settings

    if arguments.key_file and not arguments.keyed:
        raise InputError("--key-file without --keyed", todo="add --keyed, or leave --key-file out")
    spec = mask_settings(arguments.csv, arguments.mask, arguments.columns, arguments.overrides)
    key = read_key(os.environ, arguments.key_file) if arguments.keyed else None
    # Ray takes seconds to import, so the arguments are checked first.
    from textcls.masking.run import mask

    manifest = mask(spec, arguments.out, key=key, say=say, verbose=arguments.verbose)
    found = ", ".join(f"{kind} {number:,}" for kind, number in manifest["kinds"].items())
    say(f"{manifest['read']:,} rows = {manifest['written']:,} written + {manifest['rejects']:,} rejects")
    say(f"masked in {manifest['rows_masked']:,} rows: {found}")
    say(f"files: {arguments.out}/csv   counts: {arguments.out}/masked.json   rejects: {arguments.out}/rejects.parquet")
    say(f"{time.time() - started:.1f} s in all")
