"""What the jobs' command lines have in common.

In: a job as a function. Out: its exit status, and on standard error what went wrong. Not here: any job.
"""

import argparse
import sys
from collections.abc import Callable

from textcls.errors import TextclsError


def add_common_arguments(
    parser: argparse.ArgumentParser, *, overrides: str, key: str = "SECTION.KEY=VALUE"
) -> argparse.ArgumentParser:
    """Adds what every job takes.

    Args:
        parser: has the job's own arguments.
        overrides: what `--set` may override.
        key: the form of an override.
    """
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar=key, help=f"{overrides} (YAML)")
    parser.add_argument("--verbose", action="store_true", help="show Ray's own log lines as well")
    return parser


def exit_status(job: Callable[[], None], *, interrupted: Callable[[], str]) -> int:
    """Runs a job: 0 done; 2 its input is at fault; 1 disk, network or workers failed; 130 interrupted.

    Args:
        job: what to run.
        interrupted: what to tell a user who pressed Ctrl-C about going on.
    """
    try:
        job()
    except TextclsError as error:
        print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"\ninterrupted{interrupted()}", file=sys.stderr)
        return 130
    return 0


def say(line: str) -> None:
    """Shows a line at once, also where standard output is a file."""
    print(line, flush=True)
