"""Measures a bundle by a labelled CSV: `python jobs/evaluate.py --bundle DIR --csv FILE --out DIR`.

Exit status: 0 done; 2 the input is at fault, running it again will not help; 130 interrupted; 1 anything else.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# `python jobs/evaluate.py` puts jobs/ on the path, not the checkout it lies in.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textcls.bundle import load_bundle
from textcls.command_line import add_common_arguments, exit_status, say
from textcls.inference.settings import evaluate_settings


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job; returns its exit status."""
    started = time.time()
    arguments = _parser().parse_args(argv)
    return exit_status(lambda: _run(arguments, started), interrupted=lambda: "; the same command starts again")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure a text classifier by labelled rows.")
    parser.add_argument("--bundle", required=True, metavar="URI", help="what a training run left in OUT/bundle")
    parser.add_argument("--csv", required=True, nargs="+", metavar="URI", help="labelled CSV files, globs or URIs")
    parser.add_argument("--out", required=True, metavar="URI", help="new directory for the report and the account")
    return add_common_arguments(parser, overrides="override a data or scale setting of the bundle's recipe")


def _run(arguments: argparse.Namespace, started: float) -> None:
    bundle = load_bundle(arguments.bundle)
    spec = evaluate_settings(bundle, arguments.csv, arguments.overrides)
    # Ray, torch and transformers take seconds to import: only once the arguments are known to be good.
    from textcls.inference.evaluate import evaluate
    from textcls.report import print_report

    report = evaluate(bundle, spec, arguments.out, say=say, verbose=arguments.verbose)
    print_report(report, sys.stdout)
    say(f"report: {arguments.out}/report.json, report.png   account: {arguments.out}/rows.json, rejects.parquet")
    say(f"{time.time() - started:.1f} s in all")


if __name__ == "__main__":
    sys.exit(main())
