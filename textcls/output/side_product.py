"""What a job makes besides its result: it may fail, and the job goes on.

In: a block of code and what it makes. Out: one line for the user if the block fails. Not here: results, whose failure
is the job's: a bundle, predictions, the report of an evaluation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from textcls.errors import one_line


@contextmanager
def side_product(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Runs a block whose failure is reported and not raised.

    Args:
        name: what the block makes or does, as the subject of a sentence.
        say: takes one line for the user.
    """
    try:
        yield
    except Exception as error:  # drawing, storage and trackers raise anything, and none of it is worth the result
        say(f"  {name} failed, and the job goes on without it: {one_line(error)}")
