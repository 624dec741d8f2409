"""The templates of the pages, and how a value becomes text on a page.

In: the name of a template in `pages/`, and values for it. Out: HTML as a string: one self-contained file without a
script, the same for the same values. Not here: what a page holds (page.py, explanation_page.py).

Every value is escaped, and every string is one printable line (`plain_text.visible`) unless a template asks for more:
labels, file names and texts are foreign.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from textcls.plain_text import visible

if TYPE_CHECKING:
    from jinja2 import Environment, Template

MOST_BYTES = 400_000
"""Of a page: what a mail carries and a phone opens at once."""


@cache
def template(name: str) -> "Template":
    """The template of this name in `pages/`."""
    return _environment().get_template(name)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("textcls.reporting", "pages"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(lines=lines, count=count, percent=percent)
    return environment


def _shown(value: Any) -> Any:
    """What an expression of a template writes: foreign strings as one printable line, HTML as it is."""
    return visible(value) if type(value) is str else value


class _PrintableLines(str):
    """Several printable lines; a template escapes them and changes nothing else."""


def lines(text: str) -> str:
    """A text for a template, with its own line breaks; everything else that is not printable becomes an escape."""
    return _PrintableLines("\n".join(map(visible, text.replace("\r\n", "\n").split("\n"))))


def count(value: float) -> str:
    """A number of rows, with commas between thousands."""
    return f"{value:,.0f}"


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{share:.1%}"
