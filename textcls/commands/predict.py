"""`textcls predict`: predicts every row of a CSV with a bundle.

In: a command line, as `textcls predict --help` describes it. Out: an exit status, and the predictions in --out; after
statuses 1 and 130 the same command continues. Not here: the predictions themselves (batch/predict.py).
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

from textcls.batch.settings import predict_settings
from textcls.bundle import load_bundle
from textcls.command_line import add_common_arguments, command, run_command, say
from textcls.commands.continuing import same_command_continues
from textcls.commands.keys import add_key_arguments, keys_of
from textcls.errors import InputError
from textcls.text.masks import mask_kinds


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(argv, parser(), _run, interrupted=how_to_continue)


def how_to_continue(arguments: argparse.Namespace) -> str:
    """What to do after Ctrl-C, if the job has begun."""
    from textcls.batch.predictions_dir import IDENTITY

    return same_command_continues(arguments.out, IDENTITY)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=command("predict"), description="Predict every row of CSV files.")
    parser.add_argument("--bundle", required=True, metavar="URI", help="the bundle of a training run: OUT/bundle")
    parser.add_argument("--csv", required=True, nargs="+", metavar="URI", help="CSV files, globs or URIs")
    parser.add_argument("--out", required=True, metavar="URI", help="new directory for the predictions")
    parser.add_argument(
        "--format", default="parquet", choices=["parquet", "csv"], help="format of the parts (%(default)s)"
    )
    parser.add_argument(
        "--csv-encoding", choices=["utf-8", "utf-8-sig"], help="encoding of CSV parts (utf-8); utf-8-sig is for Excel"
    )
    parser.add_argument("--all-scores", action="store_true", help="also write the score of every label")
    parser.add_argument(
        "--mask-columns",
        action="store_true",
        help="mask the columns that are copied from the CSV, as the bundle's text.mask says",
    )
    parser.add_argument(
        "--rank-by", choices=["uncertainty"], help="also write OUT/to_label.csv: the rows to label next, in order"
    )
    parser.add_argument(
        "--rank-rows", type=int, metavar="N", help="rows of to_label.csv (1000); a tenth of them is drawn at random"
    )
    add_key_arguments(parser, encrypted="parts and to_label.csv", opens="a sealed bundle")
    return add_common_arguments(parser, overrides="override a data or scale setting of the bundle's recipe")


def _run(arguments: argparse.Namespace, started: float) -> None:
    if arguments.csv_encoding and arguments.format != "csv" and not arguments.rank_by:
        raise InputError(
            f"--csv-encoding {arguments.csv_encoding} with --format {arguments.format}: only CSV has one",
            todo="add --format csv, or leave --csv-encoding out",
        )
    if arguments.rank_rows is not None and (not arguments.rank_by or arguments.rank_rows < 1):
        raise InputError(
            f"--rank-rows {arguments.rank_rows}" + ("" if arguments.rank_by else " without --rank-by"),
            expected="the number of rows that --rank-by uncertainty chooses, at least 1",
            todo="give both, such as --rank-by uncertainty --rank-rows 500, or neither",
        )
    keys = keys_of(arguments)
    bundle = load_bundle(arguments.bundle, identity_file=keys.identity_file)
    if arguments.mask_columns and not mask_kinds(bundle.manifest.text):
        raise InputError(
            f"--mask-columns: {arguments.bundle} masks nothing",
            expected="a bundle that was trained with text.mask",
            todo="mask the files first, with textcls mask, or leave --mask-columns out",
        )
    spec = predict_settings(bundle, arguments.csv, arguments.overrides)
    # Ray, torch and transformers take seconds to import, so the arguments are checked first.
    from textcls.batch.predict import predict
    from textcls.batch.to_label import NAME, ROWS, RankSpec

    manifest = predict(
        bundle,
        spec,
        arguments.out,
        suffix=arguments.format,
        csv_encoding=arguments.csv_encoding or "utf-8",
        all_scores=arguments.all_scores,
        rank=RankSpec(arguments.rank_rows or ROWS) if arguments.rank_by else None,
        keys=keys,
        mask_columns=arguments.mask_columns,
        say=say,
        verbose=arguments.verbose,
    )
    for line in _summary_lines(manifest):
        say(line)
    if "to_label" in manifest:
        counted = " + ".join(f"{rows:,} {why}" for why, rows in manifest["to_label"].items())
        say(f"rows to label next: {arguments.out}/{keys.name(NAME)} ({counted})")
    say(f"predictions: {arguments.out}/parts   rows: {arguments.out}/predictions.json")
    say(f"{time.time() - started:.1f} s in all")


def _summary_lines(manifest: Mapping[str, Any]) -> Sequence[str]:
    labels = ", ".join(f"{label} {rows:,}" for label, rows in manifest["labels"].items())
    errors = ", ".join(f"{error} {rows:,}" for error, rows in manifest["errors"].items())
    # A row with several labels is counted for each of them.
    adds_up = sum([*manifest["labels"].values(), *manifest["errors"].values()]) == manifest["rows"]
    form = "{:,} rows = labels ({}) + errors ({})" if adds_up else "{:,} rows: with each label ({}); errors ({})"
    lines = [form.format(manifest["rows"], labels or "none", errors or "none")]
    if manifest["truncated"]:
        lines.append(f"  {manifest['truncated']:,} texts were longer than the bundle's limit and were truncated")
    return lines
