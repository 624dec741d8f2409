"""Every setting as Markdown: one table per section, made from the docstrings in recipe.py.

In: the recipe's classes; a document with two marks. Out: the tables; the document with the tables between the marks.
Not here: the docstrings; `--help-recipe`, which prints the same texts (commands/train.py).

    python -m textcls.settings.recipe_table jobs/recipes/README.md

replaces the tables in that file. A house test fails if they differ from the docstrings.
"""

import sys
from pathlib import Path

from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import describe_keys

BEGIN, END = "<!-- generated: begin -->\n", "<!-- generated: end -->\n"


def recipe_tables() -> str:
    """A heading, an introduction and a table of key, default and meaning for each section of a recipe."""
    rows = list(describe_keys())
    parts = []
    for name, field in Recipe.model_fields.items():
        about = " ".join((field.annotation.__doc__ or "").split()) if field.annotation else ""
        cells = [row for row in rows if row[0].startswith(f"{name}.")]
        lines = [f"| `{key}` | `{default}` | {text} |" for key, default, text in map(_escaped, cells)]
        parts.append("\n".join([f"## {name}\n", f"{about}\n", "| key | default | meaning |", "|---|---|---|", *lines]))
    return "\n\n".join(parts) + "\n"


def _escaped(cells: tuple[str, str, str]) -> tuple[str, ...]:
    return tuple(cell.replace("|", "\\|") for cell in cells)


def with_tables(document: str) -> str:
    """The document with the current tables between its two marks.

    Raises:
        ValueError: the document lacks one of the marks.
    """
    before, _, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the document needs the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{recipe_tables()}\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
