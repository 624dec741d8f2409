"""`textcls train`: trains a classifier from a labelled CSV.

In: a command line, as `textcls train --help` describes it. Out: an exit status, the files of the run in --out, and its
progress and result at the terminal. Not here: the run itself (training/run.py).
"""

import argparse
import sys
import textwrap
import time
from collections.abc import Sequence

from textcls import storage
from textcls.command_line import add_common_arguments, command, run_command, say
from textcls.commands.keys import add_key_arguments, keys_of
from textcls.errors import InputError
from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import describe_keys, included_recipes, parse_recipe, recipe_text

# Characters of a line of --help-recipe, without its indent.
_HELP_WIDTH = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(argv, parser(), _run, interrupted=_how_to_continue)


def _how_to_continue(arguments: argparse.Namespace) -> str:
    from textcls.training.run_dir import IDENTITY, RunDir

    uri = "" if arguments.dry_run else storage.absolute(arguments.out)
    if not uri or not storage.exists(storage.join(uri, IDENTITY)):
        return ""
    if not RunDir(uri, resumed=True).has_checkpoint():
        return "; there is no checkpoint yet: the same command begins again"
    return f"; the same command with --resume continues {arguments.out}"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    recipes = f"YAML file with the settings, or the name of an included recipe: {', '.join(included_recipes())}"
    parser = argparse.ArgumentParser(prog=command("train"), description="Train a text classifier from a labelled CSV.")
    parser.add_argument("--recipe", required=True, metavar="FILE", help=recipes)
    parser.add_argument("--csv", nargs="+", metavar="URI", help="CSV files, globs or URIs; overrides data.csv")
    parser.add_argument("--out", metavar="URI", help="new directory for the bundle, the report and the row accounting")
    parser.add_argument(
        "--resume", action="store_true", help="continue the interrupted run in --out from its last checkpoint"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="read and check the data, but do not train; with --out, list rejects and conflicts there",
    )
    parser.add_argument(
        "--help-recipe", action=_HelpRecipe, nargs=0, help="list every setting with its default, and exit"
    )
    add_key_arguments(parser, encrypted="rejects, conflicts, texts of the report", opens="files of data.decisions")
    return add_common_arguments(parser, overrides="override a setting of the recipe")


class _HelpRecipe(argparse.Action):
    """Prints key, default and documentation of every setting."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        for key, default, text in describe_keys():
            say(f"{key} = {default}")
            for line in textwrap.wrap(text, _HELP_WIDTH):
                say(f"    {line}")
        parser.exit()


def read_recipe(arguments: argparse.Namespace, *, needs_out: bool) -> Recipe:
    """The recipe of a command line with --recipe, --csv, --out and --set.

    Raises:
        InputError: it cannot be used, or no CSV or, if one is needed, no --out is given.
    """
    text = recipe_text(arguments.recipe)
    source = arguments.recipe + (" with --set" if arguments.overrides else "")
    recipe = parse_recipe(text, arguments.overrides, source=source)
    if arguments.csv:
        for uri in arguments.csv:
            storage.absolute(uri)  # refuses one with credentials, which run.json must not hold
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"csv": tuple(arguments.csv)})})
    if not recipe.data.csv:
        raise InputError("no CSV file is given", todo="add --csv FILE, or data.csv to the recipe")
    if needs_out and not arguments.out:
        raise InputError("no --out is given", todo="add --out DIR, a new directory")
    return recipe


def _run(arguments: argparse.Namespace, started: float) -> None:
    recipe, keys = read_recipe(arguments, needs_out=not arguments.dry_run), keys_of(arguments)
    # Ray, torch and transformers take seconds to import, so the arguments are checked first.
    from textcls.output.side_product import side_product
    from textcls.reporting.terminal import print_report
    from textcls.training.run import dry_run, train

    if arguments.dry_run:
        dry_run(recipe, say=say, verbose=arguments.verbose, out=arguments.out or "", keys=keys)
        return
    report = train(recipe, arguments.out, resume=arguments.resume, say=say, verbose=arguments.verbose, keys=keys)
    if report is not None:
        with side_product("the table of results", say):
            print_report(report, sys.stdout)
    first_step_at = report.speed.first_step_at if report and report.speed else None
    first = f", first step after {first_step_at - started:.1f} s" if first_step_at else ""
    say(f"bundle: {arguments.out}/bundle   report: {arguments.out}/report.html, report.json, report.png")
    say(f"{time.time() - started:.1f} s in all{first}")
