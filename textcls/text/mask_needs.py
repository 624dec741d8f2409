"""What a text holds in which the pattern of a kind matches, found in less time than the pattern takes.

In: nothing; a text. Out: for each kind what a text needs; the digits of a text. Not here: the patterns
(mask_shapes.py), what is skipped for want of it (mask_steps.py for the model, masks.py for people).
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import regex

from textcls.settings.pattern_tree import parsed

_ASCII = re.compile(r"[\x00-\x7f]+")
_DIGIT = regex.compile(r"\d")  # knows every digit that Oniguruma does, which `re` does not


class Needs(NamedTuple):
    """What a text may have to hold for a pattern to match.

    Attributes:
        digits: at least so many digits, of any script.
        parts: a match of one of these regular expressions, as `pattern_tree` takes them; () for none. They take least
            time if they begin with one letter or sign.
    """

    digits: int = 0
    parts: tuple[str, ...] = ()


NEEDS: dict[str, tuple[Needs, ...]] = {
    "url": (Needs(0, ("://", r"\.[a-zA-Z]{2}", r"w[wW]{2}\.", r"W[wW]{2}\.", r"\.[рР]")),),
    "email": (Needs(0, ("@",)),),
    "ip": (Needs(4, (r"\d\.",)), Needs(0, (":[0-9a-fA-F:]",))),
    "iban": (Needs(2, (r"[A-Za-z]\d\d",)),),
    "cn_id": (Needs(17),),
    "card": (Needs(12),),
    "cn_mobile": (Needs(11),),
    "phone": (Needs(7), Needs(6, (r"\+\d",))),
    "cn_plate": (Needs(1),),
    "passport": (Needs(7, (r"\d{7}",)),),
    "number": (Needs(9), Needs(5, (r"\d{5}",))),
}
"""Kind -> what a text holds in which its pattern matches, one or the other. A test derives this from the patterns."""


class Searches(NamedTuple):
    """`Needs`, ready to be sought.

    Attributes:
        digits: as of `Needs`.
        of_ascii: a search for each part, as far as texts in ASCII can hold it.
        of_any: a search for each part.
    """

    digits: int
    of_ascii: tuple[Callable[[str], object], ...]
    of_any: tuple[Callable[[str], object], ...]

    @classmethod
    def of(cls, needs: Needs) -> "Searches":
        """The searches for what a pattern needs."""
        of_ascii = tuple(re.compile(part, re.ASCII).search for part in needs.parts)
        return cls(needs.digits, of_ascii, tuple(regex.compile(str(parsed(part))).search for part in needs.parts))

    def found(self, text: str, *, ascii_only: bool) -> bool:
        """Whether a text holds a part, or none is needed."""
        searches = self.of_ascii if ascii_only else self.of_any
        return not searches or any(search(text) for search in searches)


def digits_in(text: str) -> int:
    """The digits of a text, of any script."""
    digits = sum(map(text.count, "0123456789"))
    return digits if text.isascii() else digits + len(_DIGIT.findall(_ASCII.sub("", text)))
