"""Label names and their order, spelling variants of one label, and words that mean a missing label.

In: the label names found in the data or given by the recipe. Out: one fixed order of names, in which the index of a
name is its id; groups of names that look alike, with the spelling to keep; the words that programs write for a missing
value. Not here: from a cell to a label name (single_label.py), messages (data/spellings.py).
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from textcls.settings.yaml_text import is_unseen

ABSTAIN = "abstain"
"""The answer in place of a label where the confidence is below the threshold."""
ABSTAIN_MEANS = "with calibration.min_precision is the prediction for texts below the threshold"

# How pandas, NumPy, R, Excel, SQL and people write that there is no value; folded.
_MISSING = frozenset(
    re.split(
        r"\s+",
        r"nan -nan none null nil na n/a n.a. n.a nat undefined (null) <null> [null] (none) <none> <na> (na) \n #n/a "
        r"#n/an/a #na #null! #value! #ref! #div/0! #name? #num! 1.#ind 1.#qnan -1.#ind -1.#qnan (blank) "
        r"- -- --- . .. ... … ? ?? ???",
    )
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?")
_INTEGER = re.compile(r"-?[0-9]+")
_ALIKE = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
    | dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"')
)
# Cyrillic and Greek letters that look like a Latin one.
_LOOK_LATIN = str.maketrans(
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406"
    "\u0408\u0405\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5"
    "\u03a7\u03bf",
    "ABEKMHOPCTYXIJSaeopcyxijsABEZHIKMNOPTYXo",
)
_JOINERS = frozenset("\u200c\u200d\ufe0e\ufe0f")


def label_order(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the order of their ids: numbers by value, otherwise by code point. Never by order of appearance."""
    unique = sorted(set(names))
    if unique and all(name.isascii() and name.isdecimal() for name in unique):
        unique.sort(key=int)
    return tuple(unique)


@lru_cache(maxsize=4096)
def is_blank(name: str) -> bool:
    """Whether a name has no visible character: it is empty, or blanks and invisible characters alone."""
    return all(char.isspace() or is_unseen(char) for char in name)


@lru_cache(maxsize=4096)
def is_missing_word(name: str) -> bool:
    """Whether a name is how programs write a missing value, such as `nan`, `NULL`, `#N/A` or `-`."""
    return _no_blanks(_seen(name).casefold()) in _MISSING or folded(name) in _MISSING


@lru_cache(maxsize=4096)
def folded(name: str) -> str:
    """The form that all spellings of a name share; empty if the name has no visible character."""
    for _, step in _STEPS:
        name = step(name)
    return name


def differences(group: Iterable[str]) -> str:
    """How the names of a group differ, such as `case and blanks`."""
    names = list(group)

    def differ_without(left_out: str) -> bool:
        spelled = names
        for word, step in _STEPS:
            if word != left_out:
                spelled = [step(name) for name in spelled]
        return len(set(spelled)) > 1

    if needed := [word for word in dict(_STEPS) if differ_without(word)]:
        return " and ".join(needed)
    # Two steps do the same here: a wide blank is both a blank and a wide character.
    return " or ".join(dict.fromkeys(word for word, step in _STEPS if len({step(name) for name in names}) == 1))


def cleaned(name: str) -> str:
    """The name without invisible characters, blanks at its ends and runs of blanks, in Unicode form NFC."""
    return " ".join(unicodedata.normalize("NFC", _without_stray(name)).split())


def is_stray(name: str) -> bool:
    """Whether a name begins or ends with a blank or holds an invisible character that has no use there."""
    return _without_stray(name) != name


def in_latin(name: str) -> str:
    """The name with Latin letters for Cyrillic and Greek ones that look alike, if its other letters are Latin."""
    latin = name.translate(_LOOK_LATIN)
    letters = [char for char in name if char.isalpha()]
    mixed = any(_is_latin(char) for char in letters) and all(_is_latin(char) for char in latin if char.isalpha())
    return latin if mixed else name


def _is_latin(char: str) -> bool:
    return unicodedata.name(char, "").startswith("LATIN ")


class Twins(NamedTuple):
    """Names that are most likely one label.

    Attributes:
        names: the names found, the most frequent first; a single one if it is only dirty, or a key of the label map
            in another spelling.
        target: the spelling to keep.
        key: the key of the label map that they look like; empty if there is none.
    """

    names: tuple[str, ...]
    target: str
    key: str = ""


def twins(counts: Mapping[str, int], label_map: Mapping[str, str]) -> list[Twins]:
    """Names that are most likely one label, and the clean, most frequent, then plainest spelling.

    Args:
        counts: rows of each label name, after the label map.
        label_map: label as written -> label name.
    """
    meant: dict[str, dict[str, str]] = {}
    for key, name in label_map.items():
        meant.setdefault(folded(key), {})[name] = key
    groups: dict[str, list[str]] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        groups.setdefault(folded(name), []).append(name)
    found = []
    for fold, group in groups.items():
        # If keys of one folded form lead to two names, the user distinguishes them on purpose.
        if len(meant.get(fold, {})) == 1 and not set(group) & set(label_map.values()):
            ((target, key),) = meant[fold].items()
            found.append(Twins(tuple(group), target, key))
        elif len(group) > 1 and fold:
            found.append(Twins(tuple(group), _target(group, counts)))
        elif is_stray(group[0]) and cleaned(group[0]):
            found.append(Twins(tuple(group), cleaned(group[0])))
    return found


def merged_map(label_map: Mapping[str, str], targets: Mapping[str, str]) -> dict[str, str]:
    """The label map, extended so that each name in `targets` becomes its target."""
    led = {key: targets.get(name, name) for key, name in label_map.items()}
    return led | {name: target for name, target in targets.items() if name not in led and name != target}


def _target(group: list[str], counts: Mapping[str, int]) -> str:
    clean = [name for name in group if cleaned(name) == name]
    # pandas writes 1 as 1.0 as soon as a cell of the column is empty.
    clean = [name for name in clean if _INTEGER.fullmatch(name)] or clean
    best = max(clean or group, key=lambda name: (counts[name], *_plainness(cleaned(name)), -len(name), name))
    return best if clean else cleaned(best)


def _plainness(name: str) -> tuple[bool, ...]:
    """Greater for what is easier to type: no wide characters, ASCII, no blanks, lower case."""
    ascii_only = name.isascii() and name.isprintable()
    return _compatible(name) == name, ascii_only, _no_blanks(name) == name, name.lower() == name


def _seen(name: str) -> str:
    return "".join(char for char in name if char.isspace() or not is_unseen(char))


def _without_stray(name: str) -> str:
    """Without blanks and invisible characters at the ends, and inside but for joiners that other scripts need."""
    kept = [
        char
        for i, char in enumerate(name)
        if char.isspace()
        or not is_unseen(char)
        or (char in _JOINERS and i > 0 and not name[i - 1].isascii() and not name[i + 1 : i + 2].isascii())
        or (char in "\ufe0e\ufe0f" and i > 0 and not name[i - 1].isascii())
    ]
    return "".join(kept).strip()


def _compatible(name: str) -> str:
    return unicodedata.normalize("NFKC", name)


def _no_blanks(name: str) -> str:
    return "".join(name.split())


def _number(name: str) -> str:
    """One spelling for all names that are equal as numbers, exactly."""
    if not _NUMBER.fullmatch(name):
        return name
    sign, digits, exponent = Decimal(name).as_tuple()
    written = "".join(map(str, digits)).lstrip("0")
    short = written.rstrip("0")
    return f"{'-' * sign}{short}e{int(exponent) + len(written) - len(short)}" if short else "0"


_STEPS = (
    ("invisible characters", _seen),
    ("Unicode form or width", _compatible),
    ("dashes or quotation marks", lambda name: name.translate(_ALIKE)),
    ("case", str.casefold),
    ("Unicode form or width", _compatible),
    ("blanks", _no_blanks),
    ("the way a number is written", _number),
)
