"""Made-up identifiers of every kind in text, the same text with the placeholders typed by hand, and with invisible
characters within the identifiers."""

import random
import string
from collections.abc import Callable, Sequence
from typing import NamedTuple, get_args

import regex

from textcls.settings.mask_names import MaskName
from textcls.text.invisible import INVISIBLE

ALL_KINDS = get_args(MaskName)
INVISIBLE_CHARS = regex.findall(INVISIBLE, "".join(chr(code) for code in (*range(0xD800), *range(0xE000, 0x110000))))
# Those that people have met, and some of each range.
KNOWN_INVISIBLE = (
    "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a\u202e\u2066\u2069\u180e\ufe00\ufe0f\u061c\x00\U000e0041"
)
_FULL_WIDTH = {ord(one): ord(one) + 0xFEE0 for one in string.ascii_letters + string.digits}
_BETWEEN = (" film ", "给", "! ", " (see) ", " café ", "\n", " the ", "。", "，和", ", ")
_AFTER_URL = _BETWEEN[:7]  # signs without a space after them may belong to it


class Written(NamedTuple):
    """A text as users write it, with placeholders typed by hand, and the values that were replaced."""

    text: str
    typed: str
    values: tuple[str, ...]


def _digits(chance: random.Random, number: int) -> str:
    return "".join(chance.choices(string.digits, k=number))


def _word(chance: random.Random) -> str:
    return "".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 8)))


def _wide(chance: random.Random, value: str) -> str:
    return value.translate(_FULL_WIDTH) if chance.random() < 0.3 else value


def _spaced(value: str) -> str:
    return " ".join(value[i : i + 4] for i in range(0, len(value), 4))


_MAKE: dict[str, Callable[[random.Random], str]] = {
    "email": lambda c: f"{_word(c)}.{_word(c)}{_digits(c, 2)}@{_word(c)}.example.com",
    "phone": lambda c: c.choice([f"({c.randint(200, 999)}) 555-0{_digits(c, 3)}", f"+49 30 {_digits(c, 6)}"]),
    "url": lambda c: c.choice(["https://", "www."]) + f"{_word(c)}.example.com/{_word(c)}?id={_digits(c, 4)}",
    "ip": lambda c: ".".join(str(c.randint(0, 255)) for _ in range(4)),
    "card": lambda c: _wide(c, c.choice([str, _spaced])("4" + _digits(c, 15))),
    "iban": lambda c: c.choice([str, _spaced])("DE" + _digits(c, 20)),
    "cn_id": lambda c: _wide(c, f"110105{c.randint(1950, 2009)}1231{_digits(c, 3)}{c.choice('0123456789X')}"),
    "cn_mobile": lambda c: _wide(c, f"13{_digits(c, 9)}"),
    "cn_plate": lambda c: f"{c.choice('京沪粤川')}{c.choice('ABCD')}{_digits(c, 5)}",
    "passport": lambda c: f"E{c.randint(1, 9)}{_digits(c, 7)}",
    "number": lambda c: _wide(c, c.choice("123456789") + _digits(c, 5)),
}


def texts_with_identifiers(number: int, *, seed: int = 0) -> list[Written]:
    """So many texts, each with one to six identifiers between words, digits of years, and Chinese characters."""
    chance = random.Random(seed)
    found = []
    for i in range(number):
        kinds = [ALL_KINDS[i % len(ALL_KINDS)], *chance.choices(ALL_KINDS, k=chance.randint(0, 5))]
        values = [_MAKE[kind](chance) for kind in kinds]
        joints = [chance.choice(_AFTER_URL if kind == "url" else _BETWEEN) for kind in ("", *kinds)]
        text, typed = joints[0], joints[0]
        for kind, value, joint in zip(kinds, values, joints[1:], strict=True):
            text, typed = text + value + joint, typed + f"[{kind.upper()}]" + joint
        found.append(Written(text, typed, tuple(values)))
    return found


def divided(value: str, chance: random.Random, chars: Sequence[str] = INVISIBLE_CHARS) -> str:
    """A value with invisible characters in one to three places within it, one to three in each."""
    for _ in range(chance.randint(1, 3)):
        place = chance.randint(1, len(value) - 1)
        value = value[:place] + "".join(chance.choices(chars, k=chance.randint(1, 3))) + value[place:]
    return value


def divided_texts(written: Sequence[Written], *, chars: Sequence[str] = INVISIBLE_CHARS) -> list[str]:
    """The texts with invisible characters within each value, and within nothing else."""
    chance, found = random.Random(0), []
    for one in written:
        text, place = one.text, 0
        for value in one.values:
            start = text.index(value, place)
            hidden = divided(value, chance, chars)
            text, place = text[:start] + hidden + text[start + len(value) :], start + len(hidden)
        found.append(text)
    return found
