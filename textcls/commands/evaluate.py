"""`textcls evaluate`: evaluates a bundle on a labelled CSV.

In: a command line, as `textcls evaluate --help` describes it. Out: an exit status, and a report in --out. Not here: the
evaluation itself (batch/evaluate.py).
"""

import argparse
import sys
import time
from collections.abc import Sequence

from textcls.batch.settings import evaluate_settings
from textcls.bundle import load_bundle
from textcls.command_line import add_common_arguments, command, run_command, say
from textcls.commands.keys import add_key_arguments, keys_of


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(argv, parser(), _run, interrupted=lambda _: "; the same command starts again")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=command("evaluate"), description="Evaluate a bundle on labelled rows.")
    parser.add_argument("--bundle", required=True, metavar="URI", help="the bundle of a training run: OUT/bundle")
    parser.add_argument("--csv", required=True, nargs="+", metavar="URI", help="labelled CSV files, globs or URIs")
    parser.add_argument(
        "--out", required=True, metavar="URI", help="new directory for the report and the row accounting"
    )
    add_key_arguments(parser, encrypted="rejects and texts of the report", opens="a sealed bundle")
    return add_common_arguments(parser, overrides="override a data, report or scale setting of the bundle's recipe")


def _run(arguments: argparse.Namespace, started: float) -> None:
    keys = keys_of(arguments)
    bundle = load_bundle(arguments.bundle, identity_file=keys.identity_file)
    spec = evaluate_settings(bundle, arguments.csv, arguments.overrides)
    # Ray, torch and transformers take seconds to import, so the arguments are checked first.
    from textcls.batch.evaluate import evaluate
    from textcls.output.side_product import side_product
    from textcls.reporting.terminal import print_report

    report = evaluate(bundle, spec, arguments.out, keys=keys, say=say, verbose=arguments.verbose)
    with side_product("the table of results", say):
        print_report(report, sys.stdout)
    out = arguments.out
    say(f"report: {out}/report.html, report.json, report.png   rows: {out}/rows.json, {keys.name('rejects.parquet')}")
    say(f"{time.time() - started:.1f} s in all")
