"""The names of the built-in kinds of `text.mask`, and what to write in place of a name that is none of them.

In: names, as a recipe or a command line gives them. Out: an error with the nearest kinds. Not here: the kinds
(text/masks.py); a user's own patterns (mask_patterns.py).
"""

import difflib
import shlex
from collections.abc import Sequence
from typing import Literal, get_args

from textcls.settings.spec import UnfitError, names

MaskName = Literal[
    "email", "phone", "url", "ip", "card", "iban", "cn_id", "cn_mobile", "cn_plate", "passport", "number"
]
KINDS: tuple[str, ...] = get_args(MaskName)


def problem(given: Sequence[str]) -> tuple[str, list[str]]:
    """(what is wrong with names of kinds, the kinds that are meant); ("", the names) if all are kinds.

    Names that are like no kind are left out of what is meant.
    """
    found, meant = [], []
    for name in given:
        near = [name] if name in KINDS else difflib.get_close_matches(name.lower(), KINDS, n=1)
        meant += near
        if name not in KINDS:
            found.append(f"there is no kind {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
    return "\n  ".join(found), meant


def kinds(value: object) -> object:
    """`text.mask` as a list of names of kinds.

    Raises:
        UnfitError: a name is no kind.
    """
    listed = names(value)
    if not isinstance(listed, (list, tuple)) or not all(isinstance(one, str) for one in listed):
        return listed
    split = [part.strip() for one in listed for part in one.split(",") if part.strip()]
    found, meant = problem(split)
    if found:
        raise UnfitError(f"{found}\n  expected one or more of {', '.join(KINDS)}", todo=_option(meant))
    if len(split) > len(listed):
        raise UnfitError("expected a list of kinds, in brackets", todo=_option(split))
    return listed


def _option(meant: Sequence[str]) -> str:
    override = f"text.mask=[{', '.join(meant or ('email', 'phone'))}]"
    return f"--set {shlex.quote(override)}"
