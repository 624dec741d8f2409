"""`textcls forget`: hashes of the texts of a CSV, by which later trainings leave out every copy of them.

In: a command line, as `textcls forget --help` describes it. Out: an exit status, and a file for `data.exclude` that
holds no text. Not here: hashing (data/exclusion_files.py), what a training does with the file (data/exclusion.py).
"""

import argparse
import time
from collections.abc import Sequence

from textcls import storage
from textcls.command_line import add_common_arguments, command, run_command, say
from textcls.commands.train import read_recipe
from textcls.errors import RunDirError
from textcls.settings.recipe_file import included_recipes
from textcls.settings.yaml_text import set_option


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(argv, parser(), _run, interrupted=lambda _: "; the same command starts again")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    recipes = f"the recipe of the training, or the name of an included one: {', '.join(included_recipes())}"
    parser = argparse.ArgumentParser(
        prog=command("forget"),
        description="Write the hashes of the texts of CSV files, so that trainings can leave these texts out without "
        "anyone keeping them.",
    )
    parser.add_argument("--recipe", required=True, metavar="FILE", help=recipes)
    parser.add_argument(
        "--csv",
        required=True,
        nargs="+",
        metavar="URI",
        help="CSV files with the rows to forget; labels are not needed",
    )
    parser.add_argument("--out", required=True, metavar="URI", help="new file for the hashes, one a line")
    return add_common_arguments(parser, overrides="override a setting of the recipe")


def _run(arguments: argparse.Namespace, started: float) -> None:
    recipe = read_recipe(arguments, needs_out=True)
    uri = storage.absolute(arguments.out)
    if storage.exists(uri):
        raise RunDirError(f"{uri} exists", todo="name a new file for --out; data.exclude takes several")
    from textcls.data.exclusion_files import text_marks
    from textcls.data.input_files import expand

    marks = text_marks(expand(recipe.data.csv), recipe.data, recipe.text)
    storage.write_bytes(uri, "".join(f"{mark}\n" for mark in marks).encode())
    say(f"{arguments.out} holds the hashes of {len(marks):,} different texts; the texts themselves can now be deleted")
    say("a short text can be guessed from its hash: keep the file as confidential as the texts were")
    say(f"then train with {set_option('data.exclude', [arguments.out])}")
    say(f"{time.time() - started:.1f} s in all")
