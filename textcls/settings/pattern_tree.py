"""Regular expressions that two engines read alike: their tree, and the pattern that means the same in both.

In: a pattern in the syntax of Python's `re`. Out: a tree; from a tree, a pattern for Oniguruma (`tokenizers.Regex`) and
for the package `regex`. Not here: how long a pattern can take (pattern_cost.py); the names of patterns
(mask_patterns.py).

The engines differ in `^`, `$`, `(?s)`, `{2,3}+`, `[a[b]]`, `(?i)` of letters such as ß, and more. So a pattern is never
passed on as it was written: it is parsed by Python's own parser, and written again in the part of the syntax that both
share. On the way,

- a character of ASCII also stands for its full-width form, as Chinese and Japanese keyboards give it (E and Ｅ);
- `*`, `+` and `{2,}` get a limit, `MOST_REPEATS`, so that the time for a text is proportional to its length;
- `\\b` is also the border between a letter or digit and a Chinese, Japanese or Korean character.
"""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

MOST_REPEATS = 200
"""How often `*`, `+` and `{2,}` repeat at most."""

_CASE, _DOT_ALL, _ASCII = re.IGNORECASE, re.DOTALL, re.ASCII
_FLAGS_TAKEN = re.ASCII | re.IGNORECASE | re.DOTALL | re.VERBOSE | re.UNICODE
# Wider ranges keep their case: no alphabet has so many letters.
_WIDEST_CASED = 2000
_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}
_IN_ASCII = {
    "CATEGORY_DIGIT": [(0x30, 0x39)],
    "CATEGORY_SPACE": [(0x09, 0x0D), (0x20, 0x20)],
    "CATEGORY_WORD": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
}
_BORDER_LETTER = r"[^\W\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"
_BORDER = rf"(?:(?<!{_BORDER_LETTER})(?={_BORDER_LETTER})|(?<={_BORDER_LETTER})(?!{_BORDER_LETTER}))"
_NO_BORDER = rf"(?:(?<!{_BORDER_LETTER})(?!{_BORDER_LETTER})|(?<={_BORDER_LETTER})(?={_BORDER_LETTER}))"
_ANCHORS = {"AT_BEGINNING": "^", "AT_END": "$", "AT_BEGINNING_STRING": r"\A", "AT_END_STRING": r"\Z"}


@dataclass(frozen=True)
class Chars:
    """One character of a set.

    Attributes:
        ranges: first and last code points.
        categories: such as `\\d`.
        negated: any character that is in none of them.
    """

    ranges: tuple[tuple[int, int], ...]
    categories: tuple[str, ...] = ()
    negated: bool = False

    def __str__(self) -> str:
        parts = [_escaped(a) if a == b else f"{_escaped(a)}-{_escaped(b)}" for a, b in self.ranges]
        if not self.negated and len(parts) + len(self.categories) == 1 and all(a == b for a, b in self.ranges):
            return "".join((*parts, *self.categories))
        return f"[{'^' * self.negated}{''.join(parts)}{''.join(self.categories)}]"


@dataclass(frozen=True)
class Sequence:
    """One after another."""

    parts: "tuple[Node, ...]"

    def __str__(self) -> str:
        return "".join(map(str, self.parts))


@dataclass(frozen=True)
class Choice:
    """The first of several that fits."""

    options: "tuple[Node, ...]"

    def __str__(self) -> str:
        return f"(?:{'|'.join(map(str, self.options))})"


@dataclass(frozen=True)
class Repeat:
    """Several times.

    Attributes:
        most: None without a limit.
        lazy: as few as possible first.
    """

    body: "Node"
    least: int
    most: int | None
    lazy: bool = False

    def __str__(self) -> str:
        most = max(self.least, MOST_REPEATS) if self.most is None else self.most
        if (self.least, most) == (1, 1):
            return str(self.body)
        short = {(0, 1): "?"}.get((self.least, most))
        count = f"{{{self.least}}}" if self.least == most else short or f"{{{self.least},{most}}}"
        body = str(self.body) if isinstance(self.body, Chars) else f"(?:{self.body})"
        return f"{body}{count}{'?' * (self.lazy and self.least != most)}"


@dataclass(frozen=True)
class Atomic:
    """What is never tried again another way."""

    body: "Node"

    def __str__(self) -> str:
        return f"(?>{self.body})"


@dataclass(frozen=True)
class Look:
    """A condition on the text before or after a place.

    Attributes:
        sign: how it begins: `?=`, `?!`, `?<=` or `?<!`; all of it for a border of a word or an anchor.
        body: None for these.
    """

    sign: str
    body: "Node | None" = None

    def __str__(self) -> str:
        return self.sign if self.body is None else f"({self.sign}{self.body})"


Node = Chars | Sequence | Choice | Repeat | Atomic | Look


def parsed(pattern: str) -> Node:
    """The tree of a pattern.

    Raises:
        ValueError: the pattern is not one that `re` takes, or it uses what the two engines do not share.
    """
    parser: Any = import_module("re._parser")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # FutureWarning: [a&&b] and the like, which engines read differently
            found = parser.parse(pattern)
    except (re.error, FutureWarning, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    flags = int(found.state.flags)
    if flags & ~_FLAGS_TAKEN:
        raise ValueError("of the flags, only a, i, s and x are supported")
    return _sequence(found, flags)


def widths(node: Node) -> tuple[int, int]:
    """The numbers of characters that a pattern matches, at least and at most."""
    if isinstance(node, Chars):
        return 1, 1
    if isinstance(node, Sequence):
        found = [widths(part) for part in node.parts]
        return sum(least for least, _ in found), sum(most for _, most in found)
    if isinstance(node, Choice):
        found = [widths(option) for option in node.options]
        return min(least for least, _ in found), max(most for _, most in found)
    if isinstance(node, Repeat):
        least, most = widths(node.body)
        times = max(node.least, MOST_REPEATS) if node.most is None else node.most
        return least * node.least, most * times
    return widths(node.body) if isinstance(node, Atomic) else (0, 0)


def anchors(node: Node) -> Iterator[str]:
    """The anchors of a pattern, such as `^`, in order. The engines differ in what they mean."""
    if isinstance(node, Look) and node.body is None and node.sign in _ANCHORS.values():
        yield node.sign
    for part in parts_of(node):
        yield from anchors(part)


def parts_of(node: Node) -> "tuple[Node, ...]":
    """What a node is made of."""
    if isinstance(node, Sequence):
        return node.parts
    if isinstance(node, Choice):
        return node.options
    return (node.body,) if isinstance(node, Repeat | Atomic | Look) and node.body is not None else ()


# --- from Python's tree -----------------------------------------------------------------------------------------------


def _sequence(items: Any, flags: int) -> Node:
    parts = tuple(_node(str(name), value, flags) for name, value in items)
    return parts[0] if len(parts) == 1 else Sequence(parts)


def _node(name: str, value: Any, flags: int) -> Node:
    if name in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
        return _characters(name, value, flags)
    if name == "BRANCH":
        return Choice(tuple(_sequence(option, flags) for option in value[1]))
    if name == "SUBPATTERN":
        _, added, removed, body = value
        if added & ~_FLAGS_TAKEN:
            raise ValueError("of the flags, only a, i, s and x are supported")
        return _sequence(body, (flags | added) & ~removed)
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        return _repeat(name, value, flags)
    if name == "ATOMIC_GROUP":
        return Atomic(_sequence(value, flags))
    if name in ("ASSERT", "ASSERT_NOT"):
        return _look(name, value, flags)
    if name == "AT":
        return _place(str(value))
    what = {"GROUPREF": "a reference to a group, such as \\1,", "GROUPREF_EXISTS": "a condition on a group"}
    raise ValueError(f"{what.get(name, name)} is not supported")


def _repeat(name: str, value: Any, flags: int) -> Node:
    least, most, items = value
    body = _sequence(items, flags)
    unlimited = str(most) == "MAXREPEAT"
    if (unlimited or most > 1) and widths(body)[0] == 0:
        raise ValueError("what is repeated may be empty, as in (a*)*: write it so that it has at least one character")
    repeated = Repeat(body, int(least), None if unlimited else int(most), name == "MIN_REPEAT")
    return Atomic(repeated) if name == "POSSESSIVE_REPEAT" else repeated


def _look(name: str, value: Any, flags: int) -> Node:
    direction, items = value
    body = _sequence(items, flags)
    least, most = widths(body)
    if direction < 0 and least != most:
        raise ValueError("a look-behind, (?<=...) or (?<!...), needs a fixed number of characters")
    return Look(f"?{'<' * (direction < 0)}{'=' if name == 'ASSERT' else '!'}", body)


def _place(name: str) -> Node:
    if name in _ANCHORS:
        return Look(_ANCHORS[name])
    return Look(_BORDER if name == "AT_BOUNDARY" else _NO_BORDER)


def _characters(name: str, value: Any, flags: int) -> Node:
    if name == "ANY":
        return Chars((), ("\\s", "\\S")) if flags & _DOT_ALL else Chars(((10, 10),), negated=True)
    if name in ("LITERAL", "NOT_LITERAL"):
        return Chars(_widened([(value, value)], flags), negated=name == "NOT_LITERAL")
    ranges: list[tuple[int, int]] = []
    categories: list[str] = []
    negated = False
    for kind, item in ((str(kind), item) for kind, item in value):
        if kind == "NEGATE":
            negated = True
        elif kind == "CATEGORY":
            if flags & _ASCII and str(item) not in _IN_ASCII:
                raise ValueError(f"(?a) and {_CATEGORIES[str(item)]} are not supported together: write [^...]")
            ranges += _IN_ASCII[str(item)] if flags & _ASCII else []
            categories += [] if flags & _ASCII else [_CATEGORIES[str(item)]]
        else:
            ranges.append((item, item) if kind == "LITERAL" else (item[0], item[1]))
    return Chars(_widened(ranges, flags), tuple(categories), negated)


def _widened(ranges: list[tuple[int, int]], flags: int) -> tuple[tuple[int, int], ...]:
    """The ranges with the full-width forms of their characters, and with both cases where case is ignored."""
    if any(first <= 0xDFFF and last >= 0xD800 for first, last in ranges):
        raise ValueError("half of a surrogate pair is no character")
    found = {one for pair in ranges for one in _variants(*pair, flags)}
    merged: list[tuple[int, int]] = []
    for first, last in sorted(found):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def _variants(first: int, last: int, flags: int) -> Iterator[tuple[int, int]]:
    ranges = [(first, last)]
    if flags & _CASE and last - first <= _WIDEST_CASED:
        cases = {form for code in range(first, last + 1) for form in (chr(code).lower(), chr(code).upper())}
        ranges += [(ord(one), ord(one)) for one in cases if len(one) == 1]
    for low, high in ranges:
        yield low, high
        if low <= 0x7E and high >= 0x21:
            yield max(low, 0x21) + 0xFEE0, min(high, 0x7E) + 0xFEE0
        if low <= 0x20 <= high:
            yield 0x3000, 0x3000


def _escaped(code: int) -> str:
    """A character as both engines read it, inside a set and outside."""
    char = chr(code)
    if char.isalnum() or (code > 0x7F and char.isprintable()):
        return char
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else char
