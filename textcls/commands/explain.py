"""`textcls explain`: predicts rows of a CSV with a bundle and explains each prediction word by word.

In: a command line, as `textcls explain --help` describes it. Out: an exit status, and the explanations in --out; after
statuses 1 and 130 the same command continues. Not here: the explanations themselves (batch/explain.py).
"""

import argparse
import time
from collections.abc import Sequence

from textcls.batch.settings import predict_settings
from textcls.bundle import load_bundle
from textcls.command_line import add_common_arguments, command, run_command, say
from textcls.commands.keys import add_key_arguments, keys_of
from textcls.commands.predict import how_to_continue

_ROWS = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(argv, parser(), _run, interrupted=how_to_continue)


def _rows(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of rows nor all")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=command("explain"), description="Predict rows of CSV files and explain each prediction word by word."
    )
    parser.add_argument("--bundle", required=True, metavar="URI", help="the bundle of a training run: OUT/bundle")
    parser.add_argument("--csv", required=True, nargs="+", metavar="URI", help="CSV files, globs or URIs")
    parser.add_argument("--out", required=True, metavar="URI", help="new directory for the explanations")
    parser.add_argument(
        "--method",
        default="leave_one_out",
        choices=["leave_one_out", "integrated_gradients"],
        help="what an effect is: the change without the word, or its share of the logit (%(default)s)",
    )
    parser.add_argument(
        "--label",
        dest="labels",
        action="append",
        metavar="LABEL",
        help="explain this label in every row, can be repeated (the labels that are predicted)",
    )
    parser.add_argument(
        "--rows",
        type=_rows,
        default=_ROWS,
        metavar="N",
        help="explain the first N rows, or all: a row takes as long as predicting one for each of its words "
        "(%(default)s)",
    )
    add_key_arguments(parser, encrypted="parts and explanations.html", opens="a sealed bundle")
    return add_common_arguments(parser, overrides="override a data or scale setting of the bundle's recipe")


def _run(arguments: argparse.Namespace, started: float) -> None:
    keys = keys_of(arguments)
    bundle = load_bundle(arguments.bundle, identity_file=keys.identity_file)
    spec = predict_settings(bundle, arguments.csv, arguments.overrides)
    # Ray, torch and transformers take seconds to import, so the arguments are checked first.
    from textcls.batch.explain import PAGE, explain_rows
    from textcls.batch.explanation_rows import Explaining

    labels = None if arguments.labels is None else tuple(arguments.labels)
    explaining = Explaining(arguments.method, labels, arguments.rows)
    manifest = explain_rows(bundle, spec, arguments.out, explaining, keys=keys, say=say, verbose=arguments.verbose)
    errors = sum(manifest["errors"].values())
    say(f"{manifest['rows']:,} rows = {manifest['rows'] - errors:,} explained + {errors:,} errors")
    if manifest["rows"] == arguments.rows:
        say(f"  at most {arguments.rows:,} rows are explained; --rows all explains every row")
    say(f"page: {arguments.out}/{keys.name(PAGE)}   explanations: {arguments.out}/parts")
    say(f"{time.time() - started:.1f} s in all")
