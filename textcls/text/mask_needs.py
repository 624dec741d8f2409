"""What a text holds in which the pattern of a kind matches, found in less time than the pattern takes.

In: nothing; a text. Out: for each kind what a text needs; the digits of a text. Not here: the patterns
(mask_shapes.py), what is skipped for want of it (mask_steps.py for the model, masks.py for people).
"""

import re
from typing import NamedTuple

_DIGIT = re.compile(r"\d")


class Needs(NamedTuple):
    """What a text may have to hold for a pattern to match.

    Attributes:
        digits: at least so many digits, of any script.
        part: a match of this regular expression, which takes less time than the pattern itself; "" for none.
    """

    digits: int = 0
    part: str = ""


_LETTER, _HEX = "A-Za-zＡ-Ｚａ-ｚ", "0-9a-fA-F０-９ａ-ｆＡ-Ｆ"
NEEDS: dict[str, tuple[Needs, ...]] = {
    "url": (Needs(0, f"[:：][/／]{{2}}|[wWｗＷ]{{3}}[.．]|[.．][{_LETTER}]{{2}}"),),
    "email": (Needs(0, "[@＠]"),),
    "ip": (Needs(0, f"[0-9０-９][.．][0-9０-９]|[{_HEX}:：][:：]"),),
    "iban": (Needs(2, rf"[{_LETTER}]\d\d"),),
    "cn_id": (Needs(17),),
    "card": (Needs(12),),
    "cn_mobile": (Needs(11),),
    "phone": (Needs(7),),
    "cn_plate": (Needs(1),),
    "passport": (Needs(7, r"\d{7}"),),
    "number": (Needs(9), Needs(5, r"\d{5}")),
}
"""Kind -> what a text holds in which its pattern matches, one or the other. A test derives this from the patterns."""


def digits_in(text: str) -> int:
    """The digits of a text, of any script."""
    return sum(map(text.count, "0123456789")) if text.isascii() else len(_DIGIT.findall(text))
