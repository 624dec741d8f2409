"""What a job says and the errors it ends with, masked as `text.mask` says.

In: the text settings; lines for the user, and errors of any class. Out: the same without identifiers. Not here: cells
that are quoted in files (rows.py masks those when it quotes them); what an identifier is (text/masks.py).

Cells are masked where they are quoted. This module also covers what a library puts in the message of an error. A
message also holds what is no cell: counts, places of files and advice. So numbers that stand free in it stay, whatever
an own pattern finds, and so do the places that the job was given.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from textcls import storage
from textcls.errors import InputError, TextclsError
from textcls.settings.recipe import TextSpec
from textcls.text.masks import KINDS, Masker, MaskKind, mask_kinds, masker_of

Say = Callable[[str], None]

# What stands in quotes is a cell or a name; after an equals sign it is advice, which must work.
_QUOTED = re.compile(r"(=?)('[^'\n]*'|\"[^\"\n]*\")")
_FIGURE = re.compile(r"[\d\s.,:%/+-]+")
_LIMIT = 10  # errors that one error may have as causes


class MessageMask:
    """Callable: a message -> the message masked.

    Args:
        text: text settings.
        places: URIs and patterns that stay as they are, as given and absolute; a pattern up to its first wildcard.
    """

    def __init__(self, text: TextSpec, places: Sequence[str] = ()) -> None:
        self._cell = masker_of(text)
        self._message = Masker([_but_figures(kind) for kind in mask_kinds(text) if kind.name != "number"])
        kept = sorted({name for place in places for name in _names(place)}, key=len, reverse=True)
        self._places = re.compile("|".join(map(re.escape, kept))) if kept else None

    def __call__(self, message: str) -> str:
        """The message without identifiers."""
        if self._places is None:
            return self._masked(message)
        found, start = [], 0
        for place in self._places.finditer(message):
            found += [self._masked(message[start : place.start()]), place[0]]
            start = place.end()
        return "".join([*found, self._masked(message[start:])])

    def _masked(self, part: str) -> str:
        return self._message(_QUOTED.sub(lambda found: found[0] if found[1] else self._cell(found[0]), part))


def _but_figures(kind: MaskKind) -> MaskKind:
    """The kind; if it is a user's own, without what is nothing but a number, as the job's own figures are."""
    return kind if kind.name in KINDS else replace(kind, confirmed=lambda value: not _FIGURE.fullmatch(value))


def _names(place: str) -> Iterator[str]:
    """How messages name a place."""
    if start := re.split(r"[*?\[]", place, maxsplit=1)[0]:
        yield start
        with suppress(InputError):  # the job will say what is wrong with it
            yield storage.absolute(start)


@contextmanager
def masked_errors(text: TextSpec, places: Sequence[str] = ()) -> Iterator[None]:
    """Masks the message of any error that leaves the block, and of its causes.

    In a task of Ray, it keeps what a library quotes out of Ray's logs.

    Args:
        text: text settings.
        places: as of `MessageMask`.
    """
    try:
        yield
    except Exception as error:
        if text.mask or text.mask_patterns:
            _mask_error(error, MessageMask(text, places))
        raise


@contextmanager
def masked_messages(text: TextSpec, say: Say, places: Sequence[str] = ()) -> Iterator[Say]:
    """A `say` that masks each line; errors that leave the block are masked as well.

    Args:
        text: text settings.
        say: shows the user one line.
        places: as of `MessageMask`.
    """
    if not (text.mask or text.mask_patterns):
        yield say
        return
    mask = MessageMask(text, places)
    with masked_errors(text, places):
        yield lambda line: say(mask(line))


def _mask_error(error: BaseException, mask: MessageMask) -> None:
    """Masks the messages of an error and of the errors behind it, in place: their classes decide what a job does."""
    waiting: list[BaseException | None] = [error]
    for _ in range(_LIMIT):
        one = waiting.pop() if waiting else None
        if one is None:
            break
        one.args = tuple(mask(part) if isinstance(part, str) else part for part in one.args)
        if isinstance(one, TextclsError):
            one.found, one.expected, one.todo = mask(one.found), mask(one.expected), mask(one.todo)
        waiting += [next_one for next_one in (one.__cause__, one.__context__) if next_one is not None]
