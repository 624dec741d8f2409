"""Label names as a picture can draw them: fonts that have their characters, short forms that differ, and a key.

In: label names. Out: for each a text that the fonts of this machine can draw, and the families to draw it with.
Not here: the picture (picture.py).

matplotlib's own font has Latin, Greek, Cyrillic, Arabic and a few symbols. For other characters, the fonts of the
system are searched. A character that no font has is left out of the name, and the label's id makes the name unique.
matplotlib, from 3.11 on, joins and orders the letters of Arabic and of the scripts of India.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from textcls.plain_text import visible

_OWN_FONT = "DejaVu Sans"
# Beginnings of the names of files, in the order in which fonts are tried.
_CHINESE_JAPANESE_KOREAN = (
    *("notosanscjk", "sourcehansans", "pingfang", "hiragino", "msyh", "yugoth", "malgun", "simhei", "wqy-"),
    "droidsansfallback",
)
_OTHERS = ("notosans-", "notosans", "segoeui", "seguisym", "seguiemj", "nirmala", "symbola", "notoemoji", "arialuni")
_PREFERRED = (*_CHINESE_JAPANESE_KOREAN, *_OTHERS)
_OTHER_STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "condensed", "medium", "mono", "serif")
# No letters: pictures of missing letters, and bitmaps that matplotlib cannot draw.
_USELESS = ("lastresort", "adobeblank", "notocoloremoji", "apple color emoji")
# Opening one takes about a millisecond.
_MOST_FONTS = 500
_NAME_COLUMNS, _ID_COLUMNS, _KEY_COLUMNS = 18, 4, 56
_ENDS_LIKE_AN_ID = re.compile(r"^$|#\d+$")


@dataclass(frozen=True)
class DrawnNames:
    """The names of labels as a picture shows them.

    Attributes:
        names: one for each label, all different, of about 18 columns at most. A shortened name, or one that two labels
            would share, ends with the label's id, as in `#3`.
        key: id -> the whole name, for names with an id; characters that no font has are written as escapes.
        families: font families in order; the first one that has a character draws it.
        missing: characters that no font of this machine has.
    """

    names: tuple[str, ...]
    key: dict[int, str]
    families: tuple[str, ...]
    missing: frozenset[str]

    def drawable(self, text: str) -> str:
        """A text that holds these labels, with escapes for characters that no font has."""
        return "".join(_escape(char) if char in self.missing else char for char in text if not _is_joining(char))

    @classmethod
    def of(cls, labels: Sequence[str]) -> "DrawnNames":
        """The names of labels, in id order."""
        wanted = frozenset("".join(map(visible, labels))) - {" "}
        families, missing = _families_for(frozenset(char for char in wanted if not _is_joining(char)))
        drawn = ["".join(c for c in visible(label) if c not in missing and not _is_joining(c)) for label in labels]
        drawn = [" ".join(name.split()) for name in drawn]
        short = [_cut(name, _NAME_COLUMNS) for name in drawn]
        shared = Counter(short)
        names, key = [], {}
        for number, (label, whole, name) in enumerate(zip(labels, drawn, short, strict=True)):
            lost = any(char in missing for char in visible(label))
            if not lost and name == whole and shared[name] == 1 and not _ENDS_LIKE_AN_ID.search(name):
                names.append(name)
                continue
            names.append(f"{_cut(whole, _NAME_COLUMNS - _ID_COLUMNS)} #{number}".strip())
            escaped = "".join(_escape(c) if c in missing else c for c in visible(label) if not _is_joining(c))
            key[number] = _cut(escaped, _KEY_COLUMNS)
        return cls(tuple(names), key, families, missing)


def _families_for(wanted: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """(families that together have these characters, those that no font has)."""
    from matplotlib.font_manager import findfont, get_font

    families, missing = [_OWN_FONT], set(wanted)
    own = get_font(findfont(_OWN_FONT))
    missing -= {char for char in wanted if own.get_char_index(ord(char))}
    for path in _candidates() if missing else ():
        try:
            font = get_font(path)
            found = {char for char in missing if font.get_char_index(ord(char))}
            if found and font.scalable:
                font.set_size(10, 72)
                font.load_char(ord(min(found)))  # a font of pictures has the character and cannot be drawn
                families.append(_registered(path))
                missing -= found
        except (OSError, RuntimeError, ValueError):
            continue  # not a font that matplotlib can use
        if not missing:
            break
    return tuple(families), frozenset(missing)


def _candidates() -> Iterator[str]:
    """Font files of this machine, the most likely ones first; matplotlib may not have registered them yet."""
    from matplotlib.font_manager import findSystemFonts

    def order(path: str) -> tuple[int, int, str]:
        name = Path(path).name.lower()
        rank = next((i for i, prefix in enumerate(_PREFERRED) if name.startswith(prefix)), len(_PREFERRED))
        return rank, sum(style in name for style in _OTHER_STYLES), name

    found = [path for path in map(str, findSystemFonts()) if not Path(path).name.lower().startswith(_USELESS)]
    yield from sorted(found, key=order)[:_MOST_FONTS]


def _registered(path: str) -> str:
    """Registers a font with matplotlib; its family."""
    from matplotlib.font_manager import FontProperties, fontManager

    if not any(entry.fname == path for entry in fontManager.ttflist):
        fontManager.addfont(path)
    return FontProperties(fname=path).get_name()


def _is_joining(char: str) -> bool:
    """Whether a character only changes how its neighbours are drawn, such as a joiner inside an emoji."""
    return char == "\u200d" or "\ufe00" <= char <= "\ufe0f"


def _cut(name: str, max_columns: int) -> str:
    """The name cut to so many columns; an East Asian character takes two."""
    columns = 0
    for i, char in enumerate(name):
        columns += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if columns > max_columns:
            return name[: max(i - 1, 1)] + "…"
    return name


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()
