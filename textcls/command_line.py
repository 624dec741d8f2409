"""What the commands share: arguments, exit status, Ctrl-C, and lines for the user.

In: a command as a function. Out: its exit status; errors on standard error. Not here: the commands (commands/).
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path

from textcls.errors import TextclsError
from textcls.plain_text import visible


def command(name: str) -> str:
    """The command line that starts a command the way this process was started: `textcls train` or `python
    jobs/train.py`."""
    script = Path(sys.argv[0])
    folder = script.resolve().parent.name
    if folder == "jobs" and script.suffix == ".py":
        return f"python {shlex.quote(str(script.with_name(f'{name}.py')))}"
    return f"python -m textcls {name}" if (folder, script.name) == ("textcls", "__main__.py") else f"textcls {name}"


def escape_unencodable() -> None:
    """Makes standard output and error escape characters that their encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the end
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def add_common_arguments(
    parser: argparse.ArgumentParser, *, overrides: str, key: str = "SECTION.KEY=VALUE"
) -> argparse.ArgumentParser:
    """Adds the arguments of every command.

    Args:
        parser: the parser with the command's own arguments.
        overrides: the help text of `--set`.
        key: the form of an override in the help.
    """
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar=key, help=f"{overrides} (YAML)")
    parser.add_argument("--verbose", action="store_true", help="show Ray's own log lines as well")
    return parser


def run_command(
    argv: Sequence[str] | None,
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace, float], None],
    *,
    interrupted: Callable[[argparse.Namespace], str],
) -> int:
    """Parses a command line and runs the command; returns its exit status, see `exit_status`.

    Args:
        argv: the arguments; None for those of this process.
        parser: of the command.
        body: the command; called with its arguments and the start time (Unix time, in seconds).
        interrupted: returns how to continue, for the message after Ctrl-C.
    """
    started = time.time()
    escape_unencodable()
    arguments = parser.parse_args(argv)
    return exit_status(lambda: body(arguments, started), interrupted=lambda: interrupted(arguments))


def exit_status(body: Callable[[], None], *, interrupted: Callable[[], str]) -> int:
    """Runs a command and returns 0 (done), 2 (its input is at fault), 1 (any other error) or 130 (interrupted).

    Args:
        body: the command.
        interrupted: returns how to continue, for the message after Ctrl-C.
    """
    _ensure_home()
    try:
        body()
    except TextclsError as error:
        print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        try:
            how_to_continue = interrupted()
        except TextclsError:  # --out cannot be read, which may be why the user gave up
            how_to_continue = ""
        print(f"\ninterrupted{visible(how_to_continue)}", file=sys.stderr)
        return 130
    return 0


def _ensure_home() -> None:
    """Sets HOME to a path that does not exist if the user has no home, as in many containers.

    Libraries look for a home when they are imported, and work without one that can be written.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"


def say(line: str) -> None:
    """Prints one line and flushes. Control characters in it are escaped, so that they cannot affect the terminal."""
    print(visible(line), flush=True)
