"""Every error that a user can see.

In: what was found, what was expected and what to do. Out: an exception with all three, which survives pickling between
Ray's processes and has an exit status. Not here: our own bugs, which are `assert`s.

    TextclsError                 1
    ├── InputError               2   the user's input is at fault; a retry will not help
    │   ├── RecipeError              the recipe or a --set: unknown key, bad value, impossible combination
    │   ├── DataError                the CSV: missing file or column, too many rejects, a single label
    │   ├── ModelError               the pretrained model: not found, wrong kind, wrong hash
    │   ├── RunDirError              --out: in use, finished, foreign or damaged
    │   └── BundleError              a bundle: no manifest, wrong hash, unknown version
    ├── StorageError             1   a disk is full, a path cannot be written, remote storage fails
    ├── TrainingError            1   workers failed more often than allowed
    │   └── NoRoomError              workers found no room in time
    ├── ScoringError             1   the same, for workers that score
    ├── ServeError               1   the service did not start
    └── RayStartError            1   a local Ray did not start
"""

import re
from typing import ClassVar

from textcls.plain_text import visible_lines

_PASSWORD = re.compile(r"(://)[^/\s'\"]*@")


class TextclsError(Exception):
    """An error whose message has up to three parts.

    Args:
        found: what was found, with its value, file and line.
        expected: what was expected instead.
        todo: what the user can do about it.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, found: str, *, expected: str = "", todo: str = "") -> None:
        self.found, self.expected, self.todo = map(redacted, (found, expected, todo))
        super().__init__(self.found)

    def __str__(self) -> str:
        lines = [visible_lines(self.found)]
        if self.expected:
            lines.append(f"  expected: {visible_lines(self.expected)}")
        if self.todo:
            lines.append(f"  to do:    {visible_lines(self.todo)}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.found, self.expected, self.todo)


def redacted(text: str) -> str:
    """The message with the user and password of every URL in it replaced by ***."""
    return _PASSWORD.sub(r"\1***@", text)


def one_line(error: BaseException) -> str:
    """The message of an error in one line; for an error that Ray wrapped, of its cause."""
    found = own_error(error) or getattr(error, "cause", None) or error
    if isinstance(found, TextclsError):
        return found.found.partition("\n")[0]
    lines = redacted(str(found)).strip().splitlines()
    return f"{type(found).__name__}: {lines[0]}" if lines else type(found).__name__


def own_error(error: BaseException) -> TextclsError | None:
    """The TextclsError that an error wraps, if any: Ray wraps the errors of its tasks, often more than once."""
    found = None
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, TextclsError):
            found = link  # continue: Ray's wrapper is an instance of the wrapped class, with a traceback as its message
        link = getattr(link, "cause", None) or link.__cause__
    return found


def _rebuild(cls: type[TextclsError], found: str, expected: str, todo: str) -> TextclsError:
    return cls(found, expected=expected, todo=todo)


class InputError(TextclsError):
    """The user's input is at fault; a retry will not help."""

    exit_status = 2


class RecipeError(InputError):
    """A recipe or a --set that cannot be used: unknown key, bad value, impossible combination."""


class DataError(InputError):
    """A CSV that cannot be trained on: missing file or column, too many rejects, a single label."""


class ModelError(InputError):
    """A pretrained model that cannot be used: not found, wrong kind, wrong hash."""


class RunDirError(InputError):
    """An --out that cannot be used: in use, finished, foreign or damaged."""


class BundleError(InputError):
    """A bundle that must not be loaded: no manifest, wrong hash, unknown version."""


class StorageError(TextclsError):
    """A disk is full, a path cannot be written, or remote storage fails."""


class TrainingError(TextclsError):
    """Training workers failed more often than `scale.max_failures` allows."""


class NoRoomError(TrainingError):
    """Training workers found no room on the cluster within `scale.start_timeout_s`."""


class ScoringError(TextclsError):
    """Scoring workers died more often than `scale.max_failures` allows."""


class ServeError(TextclsError):
    """The service did not start."""


class RayStartError(TextclsError):
    """A local Ray did not start."""
