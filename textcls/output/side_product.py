"""Side products of a job: if one fails, the job continues.

In: a block of code, and the name of what it makes. Out: one line for the user if the block fails. Not here: results,
such as a bundle, predictions or the report of an evaluation: if one of these fails, the job fails.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from textcls.errors import one_line


@contextmanager
def side_product(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Runs a block; reports its error in one line instead of raising it.

    Args:
        name: what the block makes or does, as the subject of a sentence.
        say: shows the user one line.
    """
    try:
        yield
    except Exception as error:  # drawing, storage and trackers raise anything; no error of theirs may cost the result
        say(f"  {name} failed; the job continues without it: {one_line(error)}")
