"""What commands say after Ctrl-C about a job that goes on where it was.

In: the --out of a job, and the file that it writes there first. Out: the end of a line. Not here: the line itself
(command_line.py), how a job goes on (output/claim.py).
"""

from textcls import storage


def same_command_continues(out: str, first_file: str, *, options: str = "") -> str:
    """How to continue the job; "" if it has not begun.

    Args:
        out: as the user gave it.
        first_file: path in it.
        options: that the command needs besides, such as `--resume`.
    """
    if not storage.exists(storage.join(storage.absolute(out), first_file)):
        return ""
    return f"; the same command {f'with {options} ' if options else ''}continues {out}"
