"""The command `textcls`, also as `python -m textcls`: train, audit, evaluate, predict, explain, serve and others.

In: a command line. Out: the exit status of its command. Not here: the commands (textcls/commands).
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from textcls.bundle import version_of
from textcls.command_line import escape_unencodable

COMMANDS = {
    "train": "a labelled CSV -> a classifier (a bundle) and a report",
    "audit": "a labelled CSV -> the rows whose labels are probably wrong",
    "evaluate": "a bundle and a labelled CSV -> a report",
    "predict": "a bundle and a CSV -> a label and a score for each row",
    "explain": "a bundle and a CSV -> what each word does to the score",
    "serve": "a bundle -> an HTTP service on this machine",
    "rebundle": "a bundle -> one of the same model with another text.on_long",
    "forget": "a CSV -> hashes of its texts, which trainings then leave out",
    "mask": "CSV files -> the same files with personal data masked",
    "seal": "a bundle -> one encrypted file",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    escape_unencodable()
    if not arguments or arguments[0] not in COMMANDS:
        _parser().parse_args(arguments)  # prints --help or --version, and refuses everything else
    # Imports this command alone: each takes a fraction of a second.
    return int(importlib.import_module(f"textcls.commands.{arguments[0]}").main(arguments[1:]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="textcls",
        description="Fine-tunes BERT-family text classifiers from a labelled CSV on Ray, and serves them.",
        epilog="`textcls COMMAND --help` lists a command's arguments.",
    )
    parser.add_argument("--version", action="version", version=f"textcls {version_of('textcls')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary)
    return parser


if __name__ == "__main__":
    sys.exit(main())
