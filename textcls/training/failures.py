"""Which failures of workers end a run, and which a restart may get past.

In: the errors that the workers of an attempt raised. Out: the error that ends the run at once, or None if the workers
should be restarted. Not here: restarting them (attempts.py).

The rule: workers are restarted after a failure that may be the machine's: a process or node died, a peer did not
answer, memory, storage or the network failed. An error of Python code (a wrong index, shape, type, value or key) or of
the input would be raised again at the same step, so the run ends at once.
"""

import re
from collections.abc import Mapping

from ray.exceptions import RayError

from textcls.errors import InputError, TextclsError, TrainingError

_RAISED_AGAIN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
    ValueError,
)
# torch raises the same class for wrong shapes and for lost connections. Its subclasses (out of memory, lost peers) may
# be the machine's.
_WRONG_SHAPE = re.compile(
    r"shape|size of tensor|sizes? (of|mismatch|do)|must (match|be the same)|out of (range|bounds)"
    r"|scalar type|dtype|does not require grad|device-side assert|finished reduction|marked ready twice",
    re.IGNORECASE,
)


def would_recur(error: BaseException) -> bool:
    """Whether restarted workers would raise the error again."""
    if isinstance(error, RayError | OSError | MemoryError | UnicodeError):
        return False
    if isinstance(error, InputError):
        return True
    if isinstance(error, TextclsError):
        return False
    # pyarrow's are ValueErrors, too, also those of a connection.
    if isinstance(error, _RAISED_AGAIN):
        return not type(error).__module__.startswith("pyarrow")
    return isinstance(error, RuntimeError) and bool(_WRONG_SHAPE.search(str(error)))


def final_error(errors: Mapping[int, BaseException]) -> TextclsError | None:
    """The error that ends the run; None if the workers should be restarted.

    Args:
        errors: rank -> the error of each rank that failed. If one of them died, the others' may be consequences.
    """
    if any(isinstance(error, RayError) for error in errors.values()):
        return None
    for rank, error in sorted(errors.items()):
        if isinstance(error, InputError):
            return error
        if would_recur(error):
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return TrainingError(
                f"rank {rank} failed: {type(error).__name__}{': ' if lines else ''}{' '.join(lines[:1])}",
                expected="no error that another try would meet again",
                todo="--verbose shows where; --resume continues from the last checkpoint once the cause is gone",
            )
    return None
