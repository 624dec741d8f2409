"""Which encoding some bytes are in, where the one that was asked for cannot read them, or reads them wrongly. Pure.

In: a sample of a file's bytes. Out: the name of a Python codec for `data.encoding`. Not here: which bytes make a good
sample (evidence.py), what an encoding means for cutting a file (csv_shards.py).

The lines that the asked encoding cannot read say most, wherever in the file they are; its first bytes may be ASCII.
"""

import codecs
import re
from collections.abc import Iterable
from itertools import pairwise

# What charset-normalizer chooses from; without a list it names mac_iceland for short French texts.
_CANDIDATES = {
    "gb18030": "gb18030",
    "big5": "big5",
    "big5hkscs": "big5hkscs",
    "cp932": "cp932",
    "euc_jp": "euc_jp",
    "cp949": "cp949",
    "cp1251": "cp1251",
    "koi8_r": "koi8-r",
    "cp1252": "cp1252",
    "cp1250": "cp1250",
    "cp1253": "cp1253",
    "cp1254": "cp1254",
    "cp1255": "cp1255",
    "cp1256": "cp1256",
    "cp874": "cp874",
}
_SIGNS = "‘’“”„‚–—…•€°£«»§©®™´·½¼¾ºª\xa0"
_WESTERN = "àáâãäåæçèéêëìíîïñòóôõöøùúûüßÿœ¿¡" + "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜŸŒ" + _SIGNS
_CENTRAL = "ąćęłńóśźżáčďéěíňřšťúůýžäöüőűăâîşţôĺľŕđßç" + "ĄĆĘŁŃÓŚŹŻÁČĎÉĚÍŇŘŠŤÚŮÝŽÄÖÜŐŰĂÂÎŞŢÔĹĽŔĐÇ" + _SIGNS
_TURKISH = "çğıöşüâîûÇĞİÖŞÜÂÎÛ" + _SIGNS
# Encodings of Latin scripts, and what they hold beyond ASCII in real texts; the first that fits is likeliest.
_LATIN = {
    "cp1252": frozenset(_WESTERN),
    "cp1254": frozenset(_TURKISH),
    "cp1250": frozenset(_CENTRAL),
    "mac_roman": frozenset(_WESTERN),
    "cp850": frozenset(_WESTERN),
}
_KANA = re.compile("[\u3041-\u30ff\uff66-\uff9f]")
# Encoding -> (a script that its texts hold, the least share of it).
_SCRIPTS = {"cp949": (re.compile("[\uac00-\ud7a3]"), 0.8), "cp932": (_KANA, 0.1), "euc_jp": (_KANA, 0.1)}
# Tried on a header that lacks the columns asked for.
USUAL = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "gb18030", "cp932", "cp949", "big5", "cp1251", "cp1252", "cp1250")
_HIGH = re.compile(rb"[\x80-\xff]")
# Accented letters in a word of ASCII: a Latin script. Other scripts fill whole words.
_ACCENTS_IN_WORD = re.compile(
    rb"(?<![\x80-\xff])(?:(?<=[A-Za-z])[\x80-\xff]{1,3}|[\x80-\xff]{1,3}(?=[A-Za-z]))(?![\x80-\xff])"
)
_NEVER_AFTER_LOWER_CASE = frozenset("¿¡³¹‚„")
_MOJIBAKE_LINES = 3

# How `iconv` spells what Python spells otherwise.
_ICONV_NAMES = {"cp949": "UHC", "euc_jp": "EUC-JP", "utf-8": "UTF-8", "utf-8-sig": "UTF-8"}


def likely_encoding(sample: bytes) -> str:
    """A codec name that reads all of a sample and makes the most sense of it; empty if none does.

    Of encodings that extend each other the larger one is named: cp1252 for Latin-1, gb18030 for GBK, cp932 for
    Shift-JIS, cp949 for EUC-KR.

    Args:
        sample: some of a file's lines, or its first bytes; a last line that is cut off is left out.
    """
    if wide := wide_encoding(sample):
        return wide
    sample = sample[: sample.rfind(b"\n") + 1] or sample
    if not _HIGH.search(sample):
        return ""
    if reads(sample, "utf-8"):
        return "utf-8"
    is_latin = sum(map(len, _ACCENTS_IN_WORD.findall(sample))) >= 0.7 * len(_HIGH.findall(sample))
    best = "" if is_latin else _best_candidate(sample)
    # Short texts of Latin scripts look alike to charset-normalizer; their letters tell them apart.
    return (_latin_encoding(sample) if is_latin or best in _LATIN else best) or best or _best_candidate(sample)


def wide_encoding(head: bytes) -> str:
    """The codec name of UTF-16 (or marked UTF-32) text; empty if the bytes are no such text.

    Without a byte order mark, commas and line ends give it away: their other byte is NUL, always on the same side.
    """
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    low, high = head[1::2].count(0), head[::2].count(0)
    one_sided = low + high >= 2 and 10 * min(low, high) <= low + high
    # A few NUL bytes are characters of an ASCII file like any other; of Chinese UTF-16 few bytes are NUL.
    if not one_sided and (0 not in head or _reads(head, "utf-8")):
        return ""
    endings = [name for name in ("utf-16-le", "utf-16-be") if _holds_lines(head, name)]
    return max(endings, key=lambda name: low if name == "utf-16-le" else high, default="")


def _holds_lines(head: bytes, encoding: str) -> bool:
    """Whether bytes can be read in a wide encoding and hold a line end in it."""
    return _reads(head, encoding) and bool(re.search(r"[\r\n]", head.decode(encoding, "ignore")))


def fits_wide(head: bytes, encoding: str) -> bool:
    """Whether bytes may be text in a wide encoding that was asked for."""
    return wide_encoding(head) != "" or _holds_lines(head, encoding)


def is_wide(codec: str) -> bool:
    """Whether every character of an encoding takes two or four bytes."""
    return codec.startswith(("utf-16", "utf-32"))


def iconv_name(encoding: str) -> str:
    """An encoding as the command `iconv` spells it."""
    return _ICONV_NAMES.get(encoding, encoding.upper())


def reads(content: bytes, encoding: str) -> bool:
    """Whether an encoding has a character for all bytes."""
    try:
        content.decode(encoding)
    except (UnicodeError, LookupError):
        return False
    return True


def repaired(text: str) -> str:
    """Text whose UTF-8 was once read as cp1252, as it was before that; empty if it is no such text."""
    if text.isascii():
        return ""
    try:
        before = text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return ""
    return "" if before.isascii() else before


def mojibake(lines: Iterable[str]) -> tuple[str, str] | None:
    """(as written, as meant) of the first word whose UTF-8 was read as cp1252, if most accented lines hold such.

    Args:
        lines: decoded lines of a file, the header first; one bad header is enough.
    """
    found, accented = [], 0
    for number, line in enumerate(lines):
        if line.isascii():
            continue
        accented += 1
        if repaired(line):
            found.append(next(word for word in line.split() if repaired(word)) if _has_bad_word(line) else line)
            if number == 0:
                return found[0], repaired(found[0])
    if len(found) >= _MOJIBAKE_LINES and 2 * len(found) > accented:
        return found[0], repaired(found[0])
    return None


def _has_bad_word(line: str) -> bool:
    return any(map(repaired, line.split()))


def _reads(sample: bytes, encoding: str) -> bool:
    """`reads`, but for a character cut off at the end."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeError:
        return False
    return True


def _latin_encoding(sample: bytes) -> str:
    """The encoding under which a text's accented letters are those of one language; empty if there is none."""
    for encoding, letters in _LATIN.items():
        if not reads(sample, encoding):
            continue
        pairs = [(before, char) for before, char in pairwise(" " + sample.decode(encoding)) if not char.isascii()]
        chars = {char for _, char in pairs}
        if encoding == "cp1252" and {"ì", "ø"} <= chars:
            continue  # Czech in cp1250 looks so
        if encoding == "cp1252" and set("æáíó") & chars:
            letters |= set("ðþýÐÞÝ")  # Icelandic; without these they are Turkish in cp1254
        right = sum(char in letters and not _is_odd(before, char) for before, char in pairs)
        if right >= 0.9 * len(pairs):
            return encoding
    return ""


def _is_odd(before: str, char: str) -> bool:
    """Whether a character cannot come after another in a word: a capital or a sign after a small letter."""
    return before.islower() and (char.isupper() or char in _NEVER_AFTER_LOWER_CASE)


def _best_candidate(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    found = (_CANDIDATES[match.encoding] for match in from_bytes(sample, cp_isolation=list(_CANDIDATES)))
    best = next(
        (name for name in (*found, "gb18030", "cp1252") if reads(sample, name) and _is_likely(sample, name)), ""
    )
    # The kana of EUC-JP are those of GB18030; a Chinese text has none.
    return "euc_jp" if best == "gb18030" and _is_likely(sample, "euc_jp") else best


def _is_likely(sample: bytes, encoding: str) -> bool:
    """Whether a text in a language with a script of its own holds enough of it."""
    if encoding not in _SCRIPTS or not reads(sample, encoding):
        return encoding not in _SCRIPTS
    script, least = _SCRIPTS[encoding]
    chars = [char for char in sample.decode(encoding) if not char.isascii()]
    return sum(bool(script.match(char)) for char in chars) >= least * len(chars)
