"""How much memory an audit takes in the process that runs it, and whether the machine has so much.

In: rows, bytes of text, size of an embedding. Out: nothing, or an error that says what to do. Pure but for
`memory_bytes`. Not here: what takes the memory (held_out.py, evidence.py, regression.py).

An audit holds all texts and embeddings in one process: near-duplicates and neighbours are looked for among all rows. A
million rows of 600 bytes with embeddings of 384 numbers take about 22 GB.
"""

import os
from contextlib import suppress
from pathlib import Path

from textcls.errors import InputError

# Measured with 3 and 13 million characters: texts, their shingles, and the matrices that compare these.
_OF_A_TEXT_BYTE = 25
# Four arrays of float32: the embeddings, and copies as they are joined, scaled and chosen from.
_OF_A_NUMBER = 16
# Probabilities by words, by runs and of both, as float64.
_OF_A_PROBABILITY = 24
# Ids, targets, verdicts, Python objects.
_OF_A_ROW = 1_000
_FIXED = 200_000_000
# The rest of the memory is for Ray's object store and workers.
_SHARE = 0.6


def refuse_too_large(rows: int, text_bytes: int, width: int, classes: int, memory: int) -> None:
    """Refuses rows that would not fit into memory.

    Args:
        rows: to audit.
        text_bytes: of all their texts.
        width: E, numbers of an embedding.
        classes: C, number of label names.
        memory: bytes of the machine, see `memory_bytes`.

    Raises:
        InputError: they would not.
    """
    needed, most = bytes_needed(rows, text_bytes, width, classes), int(_SHARE * memory)
    if needed <= most:
        return
    parts = -(-(needed - _FIXED) // max(most - _FIXED, 1))
    todo = (
        f"audit the files in {parts:,} parts (--csv, each with an --out of its own), and give data.decisions all tables"
    )
    raise InputError(
        f"{rows:,} rows with {text_bytes / 1e6:,.0f} MB of text take about {needed / 1e9:,.1f} GB of memory in the "
        f"process of the audit",
        expected=f"at most {most / 1e9:,.1f} GB, {_SHARE:.0%} of the memory here",
        todo=f"{todo}; or run it on a machine with more memory",
    )


def bytes_needed(rows: int, text_bytes: int, width: int, classes: int) -> int:
    """An upper estimate; arguments as of `refuse_too_large`."""
    of_a_row = _OF_A_ROW + _OF_A_NUMBER * width + _OF_A_PROBABILITY * classes
    return _FIXED + rows * of_a_row + _OF_A_TEXT_BYTE * text_bytes


def memory_bytes() -> int:
    """Bytes of memory of the machine, or of the container that this process runs in."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file; "max"
            found = min(found, int(Path(limit).read_text()))
    return found
