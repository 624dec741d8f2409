"""`textcls rebundle`: makes a bundle that treats long texts in another way, without training.

In: a command line, as `textcls rebundle --help` describes it. Out: an exit status, and a bundle and a report in --out.
Not here: making and evaluating it (batch/rebundle.py).
"""

import argparse
import sys
import time
from collections.abc import Sequence

from textcls.batch.settings import changed_text, evaluate_settings
from textcls.bundle import load_bundle
from textcls.command_line import add_common_arguments, command, run_command, say
from textcls.commands.keys import add_key_arguments, keys_of


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(argv, parser(), _run, interrupted=lambda _: "; the same command starts again")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=command("rebundle"),
        description="Make a bundle of the same model with another text.on_long, and measure it on labelled rows.",
    )
    parser.add_argument("--bundle", required=True, metavar="URI", help="the bundle of a training run: OUT/bundle")
    parser.add_argument("--csv", required=True, nargs="+", metavar="URI", help="labelled CSV files, globs or URIs")
    parser.add_argument("--out", required=True, metavar="URI", help="new directory for the bundle and the report")
    add_key_arguments(parser, encrypted="rejects and texts of the report", opens="a sealed bundle")
    return add_common_arguments(
        parser, overrides="text.on_long=truncate, windows or error; or a data or scale setting of the bundle's recipe"
    )


def _run(arguments: argparse.Namespace, started: float) -> None:
    keys = keys_of(arguments)
    bundle = load_bundle(arguments.bundle, identity_file=keys.identity_file)
    text, overrides = changed_text(bundle, arguments.overrides)
    spec = evaluate_settings(bundle, arguments.csv, overrides)
    # Ray, torch and transformers take seconds to import, so the arguments are checked first.
    from textcls.batch.rebundle import rebundle
    from textcls.output.side_product import side_product
    from textcls.reporting.terminal import print_report

    report = rebundle(bundle, text, spec, arguments.out, keys=keys, say=say, verbose=arguments.verbose)
    with side_product("the table of results", say):
        print_report(report, sys.stdout)
    if bundle.opened is not None:
        say(f"  note: {arguments.out}/bundle is not encrypted, unlike {bundle.uri}; `textcls seal` encrypts it")
    say(f"bundle: {arguments.out}/bundle   report: {arguments.out}/report.html, report.json, report.png")
    say(f"{time.time() - started:.1f} s in all")
