"""`textcls audit`: ranks labelled rows by how probably their labels are wrong.

In: a command line, as `textcls audit --help` describes it. Out: an exit status, and in --out a table to write decisions
into. Not here: the audit itself (audit/run.py).
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from textcls import storage
from textcls.command_line import add_common_arguments, command, run_command, say
from textcls.commands.continuing import same_command_continues
from textcls.commands.keys import add_key_arguments, keys_of
from textcls.commands.train import read_recipe
from textcls.errors import InputError
from textcls.settings.recipe_file import included_recipes
from textcls.settings.yaml_text import set_option

# Folds of the quick mode cost next to nothing; those of the other a training run each.
_FOLDS, _QUICK_FOLDS = 5, 10
# Where near rows know less of each other's labels, a value says more of the embeddings than of the row.
_NEIGHBOURS_KNOW = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(argv, parser(), _run, interrupted=_how_to_continue)


def _how_to_continue(arguments: argparse.Namespace) -> str:
    from textcls.audit.run import SETTINGS

    return same_command_continues(arguments.out, SETTINGS, options="--resume")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    recipes = f"YAML file with the settings, or the name of an included recipe: {', '.join(included_recipes())}"
    parser = argparse.ArgumentParser(
        prog=command("audit"), description="Rank labelled rows by how probably their labels are wrong."
    )
    parser.add_argument("--recipe", required=True, metavar="FILE", help=recipes)
    parser.add_argument("--csv", nargs="+", metavar="URI", help="CSV files, globs or URIs; overrides data.csv")
    parser.add_argument("--out", required=True, metavar="URI", help="new directory for audit.csv and what led to it")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a regression on embeddings of the pretrained encoder in place of training runs: minutes on a CPU",
    )
    folds = f"models, each of which judges the rows that it has not seen; default: {_FOLDS}, quick: {_QUICK_FOLDS}"
    parser.add_argument("--folds", type=int, metavar="N", help=folds)
    listed = "rows of audit.csv; default: a tenth of all, 100 to 5,000. audit.parquet has all"
    parser.add_argument("--rows", type=int, metavar="N", help=listed)
    parser.add_argument(
        "--csv-encoding", choices=("utf-8", "utf-8-sig"), default="utf-8", help="of audit.csv; utf-8-sig for Excel"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the interrupted audit in --out; finished folds are kept"
    )
    add_key_arguments(parser, encrypted="audit.csv and the rejects of the runs", opens="files of data.decisions")
    return add_common_arguments(parser, overrides="override a setting of the recipe")


def weakness(agreement: Mapping[str, Any], *, quick: bool) -> Iterator[str]:
    """What to know about models that know no more of the labels than which one is the most common.

    Args:
        agreement: from audit.json.
        quick: whether the models are regressions.
    """
    if not agreement["better_than_most_common"]:
        yield (
            f"the models agree with {agreement['share']:.1%} of the labels, which is not surely more than the "
            f"{agreement['most_common_share']:.1%} of the rows that have {agreement['most_common_label']!r}: they have "
            "learned little, and most suspect labels are right; audit more rows, or "
            + ("without --quick" if quick else "with a larger train.epochs")
        )


def harm(values: Mapping[str, Any], out: str) -> Iterator[str]:
    """How many rows hurt, if near rows usually have the same label, so that this says something about a row.

    Args:
        values: from audit.json.
        out: --out.
    """
    if values["hurt"] and values["known"] >= _NEIGHBOURS_KNOW:
        yield (
            f"{values['hurt']:,} rows hurt: each costs similar texts one right answer or more; column `value` of "
            f"{out}/audit.parquet is -1 or less"
        )


def _run(arguments: argparse.Namespace, started: float) -> None:
    recipe, keys = read_recipe(arguments, needs_out=True), keys_of(arguments)
    folds = arguments.folds or (_QUICK_FOLDS if arguments.quick else _FOLDS)
    if not 2 <= folds <= 1000:
        raise InputError(f"--folds {folds}", expected="2 to 1000")
    if arguments.rows is not None and arguments.rows < 1:
        raise InputError(f"--rows {arguments.rows}", expected="1 or more")
    if recipe.split.fold is not None:
        raise InputError(
            f"split.fold is {recipe.split.fold}",
            expected="none: an audit goes through all folds",
            todo="--set split.fold=null",
        )
    if recipe.privacy.epsilon is not None:
        raise InputError(
            f"privacy.epsilon is {recipe.privacy.epsilon:g}",
            expected="none: an audit trains several models on the same rows, and writes down what it learns of each",
            todo="--set privacy.epsilon=null",
        )
    # Ray, torch and transformers take seconds to import, so the arguments are checked first.
    from textcls.audit.run import FOLDS, SHEET, AuditOptions, audit

    options = AuditOptions(folds, arguments.quick, arguments.rows, arguments.csv_encoding, keys)
    found = audit(recipe, arguments.out, options, resume=arguments.resume, say=say, verbose=arguments.verbose)
    rows, suspects = found["rows"], found["suspect"]
    say(
        f"audited {rows['audited']:,} rows: in {found['suggested_differs']:,} another label is more probable, "
        f"{suspects['rows']:,} ({suspects['share']:.1%}) are suspect"
    )
    for line in weakness(found["agreement"], quick=arguments.quick):
        say(f"  warning: {line}")
    for pair in found["confused_labels"]:
        if pair["hard_to_tell_apart"]:
            one, other = pair["labels"]
            say(f"  {one!r} and {other!r} are hard to tell apart: {pair['confused']:.0%} of the rows are confused")
    for line in harm(found["values"], arguments.out):
        say(f"  {line}")
    if seen := found["near_duplicates"]["test_rows_outside_test"]:
        share = seen / found["near_duplicates"]["test_rows"]
        say(
            f"  {seen:,} rows of the test split ({share:.1%}) are nearly the same as a row of training or validation: "
            f"the test is easier than it should be; column `nearly_same_outside_test` of {arguments.out}/audit.parquet "
            "names them"
        )
    table = f"{arguments.out}/{keys.name(SHEET)}"
    edit = "decrypt it, write" if keys.recipients else "write"
    say(f"{found['listed']:,} rows to look at: {table}; {edit} keep, drop or another label in its column `decision`")
    say(f"then train with {set_option('data.decisions', [table])}")
    if size := storage.bytes_in(storage.absolute(folds := f"{arguments.out}/{FOLDS}")):
        say(f"the runs of the folds are in {folds} ({size / 1e6:,.0f} MB); the audit does not need them any more")
    say(f"{time.time() - started:.1f} s in all")
