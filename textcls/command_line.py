"""What the commands have in common.

In: a command as a function. Out: its exit status, and on standard error what went wrong; lines for its user.
Not here: any command.
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
    """How this process's user starts a command: `textcls train`, or `python jobs/train.py` in a checkout."""
    script = Path(sys.argv[0])
    folder = script.resolve().parent.name
    if folder == "jobs" and script.suffix == ".py":
        return f"python {shlex.quote(str(script.with_name(f'{name}.py')))}"
    return f"python -m textcls {name}" if (folder, script.name) == ("textcls", "__main__.py") else f"textcls {name}"


def escape_unencodable() -> None:
    """From here on standard output and error escape the characters that their encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started the process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the end
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def add_common_arguments(
    parser: argparse.ArgumentParser, *, overrides: str, key: str = "SECTION.KEY=VALUE"
) -> argparse.ArgumentParser:
    """Adds what every command takes.

    Args:
        parser: has the command's own arguments.
        overrides: what `--set` may override.
        key: the form of an override.
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
        body: the command, given its arguments and when it started (Unix time, in seconds).
        interrupted: what to tell a user who pressed Ctrl-C about going on.
    """
    started = time.time()
    escape_unencodable()
    arguments = parser.parse_args(argv)
    return exit_status(lambda: body(arguments, started), interrupted=lambda: interrupted(arguments))


def exit_status(body: Callable[[], None], *, interrupted: Callable[[], str]) -> int:
    """Runs a command: 0 done; 2 its input is at fault; 1 disk, network or workers failed; 130 interrupted.

    Args:
        body: what to run.
        interrupted: what to tell a user who pressed Ctrl-C about going on.
    """
    _ensure_home()
    try:
        body()
    except TextclsError as error:
        print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"\ninterrupted{visible(interrupted())}", file=sys.stderr)
        return 130
    return 0


def _ensure_home() -> None:
    """Gives a user without a name and a home, as in many containers, a HOME that leads nowhere.

    Libraries ask for one when they are imported, and do without where it cannot be written.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"


def say(line: str) -> None:
    """Shows one line at once, also where standard output is a file; the names in it can do nothing to a terminal."""
    print(visible(line), flush=True)
