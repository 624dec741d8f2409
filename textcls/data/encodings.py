"""Detects the encoding of bytes that the requested encoding cannot read, or reads wrongly. Pure.

In: a sample of a file's bytes. Out: the name of a Python codec for `data.encoding`. Not here: the choice of the sample
(remedies.py), encodings in which a file cannot be sharded (csv_shards.py).

The best sample is the lines that the requested encoding cannot read; the first bytes of a file may all be ASCII.
"""

import codecs
import re
from collections.abc import Iterable
from itertools import pairwise

from textcls.settings.yaml_text import set_option

# The candidates of charset-normalizer; without a list it detects mac_iceland for short French texts.
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
# Encodings of Latin scripts, and their non-ASCII characters in real texts; the first that fits is the most probable.
_LATIN = {
    "cp1252": frozenset(_WESTERN),
    "cp1254": frozenset(_TURKISH),
    "cp1250": frozenset(_CENTRAL),
    "mac_roman": frozenset(_WESTERN),
    "cp850": frozenset(_WESTERN),
}
_KANA = re.compile("[\u3041-\u30ff]")
# The most frequent characters of each language: common in a text, and rare in a text read in a wrong encoding.
_HANGUL = (
    "이다는을의에가고하지은도기사어로한를나자인아대그리정시보있과일서수면것게해라제스여부으라만장들안영화주전상"
    "구동소원거오생어니세무마너조우와없려모았었습요네진미말좋재별매경험긍나쁜최연내관물음든할서비위성간용적더"
)
_SIMPLIFIED = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行"
    "所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力"
    "它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产"
    "或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口"
    "非差快质量服务态错电影喜欢买店坏评负值太价送满推荐"
)
_TRADITIONAL = (
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作裡用道行"
    "所然家種事成方多經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心她本前開但因只從想實日軍者意無力"
    "它與長把機十民第公此已工使情明性知全三又關點正業外將兩高間由問很最重並物手應戰向頭文體政美相見被利什二等產"
    "或新己制身果加西斯月話合回特代內信表化老給世位次度門任常先海通教兒原東聲提立及比員解水名真論處走義各入幾口"
    "非差快質量服務態錯電影喜歡買店壞評負值太價送滿推薦"
)
_KANJI = (
    "日一人年大十二本中長出三時行見月後前生五間上東四今金九入学高円子外八六下来気小七山話女北午百書先名川千水半"
    "男西電校語土木聞食車何南万毎白天母火右読友左休父雨国会同事自社発者地業方新場員立開手力問代明動京目通言理体"
    "田主題意不作用度強公持野以思家世多正安院心界教文元重近考画海売知道集別物使品計死特私始朝運終台広住無真有口"
    "少町料工建空急止送切転研足究楽起着店病質待試族銀早映親験英医仕去味写字答夜音注帰古歌買悪図良面白評価最"
)
_KANA_LETTERS = "".join(map(chr, (*range(0x3041, 0x3094), *range(0x30A1, 0x30F7), 0x30FC)))
# Encoding -> (charset of the characters in daily use, first bytes of those, the most frequent characters).
# Of encodings with equal points the first is the most probable.
_ASIAN = {
    "cp949": ("euc_kr", range(0xB0, 0xC9), frozenset(_HANGUL)),
    "gb18030": ("gb2312", range(0xB0, 0xD8), frozenset(_SIMPLIFIED)),
    "cp932": ("euc_jp", range(0xB0, 0xD0), frozenset(_KANJI + _KANA_LETTERS)),
    "big5": ("big5", range(0xA4, 0xC7), frozenset(_TRADITIONAL)),
    "euc_jp": ("euc_jp", range(0xB0, 0xD0), frozenset(_KANJI + _KANA_LETTERS)),
}
_ASIAN_SIGNS = frozenset(
    "、。，．！？：；（）「」『』《》〈〉【】…—・～·“”‘’％￥　" + "".join(map(chr, range(0xFF10, 0xFF5B)))
)
# Thresholds of the mean points of a text's characters (frequent 2, in daily use 1, others -1).
_SURE_POINTS = 1.1
_LEAST_POINTS = 0.5
_CLEAR_LEAD = 0.3
_CLEAR_LEAD_OF_ONE = 1.5  # divided by the number of characters, since a few may be frequent ones by chance
# Encoding -> (a script of its texts, the least share of that script).
_SCRIPTS = {"cp932": (_KANA, 0.1), "euc_jp": (_KANA, 0.1)}
# Tried on a header that lacks the requested columns.
USUAL = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "gb18030", "cp932", "cp949", "big5", "cp1251", "cp1252", "cp1250")
_HIGH = re.compile(rb"[\x80-\xff]")
# Accented letters in a word of ASCII: a Latin script. Other scripts fill whole words.
_ACCENTS_IN_WORD = re.compile(
    rb"(?<![\x80-\xff])(?:(?<=[A-Za-z])[\x80-\xff]{1,3}|[\x80-\xff]{1,3}(?=[A-Za-z]))(?![\x80-\xff])"
)
_NEVER_AFTER_LOWER_CASE = frozenset("¿¡³¹‚„")
_MOJIBAKE_LINES = 3

# Names of `iconv` that differ from Python's.
_ICONV_NAMES = {"cp949": "UHC", "euc_jp": "EUC-JP", "utf-8": "UTF-8", "utf-8-sig": "UTF-8"}


def likely_encoding(sample: bytes) -> str:
    """The most probable encoding; empty if there is none."""
    return next(iter(likely_encodings(sample)), "")


def likely_encodings(sample: bytes) -> list[str]:
    """The codecs that can read the whole sample and are the most probable: one, or several with similar evidence.

    Of encodings that extend each other the largest is returned: cp1252 for Latin-1, gb18030 for GBK, cp932 for
    Shift-JIS, cp949 for EUC-KR.

    Args:
        sample: some lines of a file, or its first bytes; an incomplete last line is ignored.
    """
    if wide := wide_encoding(sample):
        return [wide]
    sample = sample[: sample.rfind(b"\n") + 1] or sample
    if not _HIGH.search(sample):
        return []
    if reads(sample, "utf-8"):
        return ["utf-8"]
    is_latin = sum(map(len, _ACCENTS_IN_WORD.findall(sample))) >= 0.7 * len(_HIGH.findall(sample))
    if asian := _asian_encodings(sample, _SURE_POINTS):
        return asian
    best = "" if is_latin else _best_candidate(sample)
    # charset-normalizer cannot distinguish short texts of Latin scripts; their letters can.
    best = (_latin_encoding(sample) if is_latin or best in _LATIN else best) or best or _best_candidate(sample)
    alike = _asian_encodings(sample, _LEAST_POINTS) if best in (*_ASIAN, "big5hkscs") else []
    return alike or ([best] if best else [])


def setting(sample: bytes) -> str:
    """The --set of each probable encoding of a sample; empty if there is none."""
    options = [set_option("data.encoding", name) for name in likely_encodings(sample)]
    return " or ".join(options) + ("; compare the texts that train --dry-run then prints" if len(options) > 1 else "")


def wide_encoding(head: bytes) -> str:
    """The codec name of UTF-16 text, or of UTF-32 text with a byte order mark; empty for other bytes.

    UTF-16 without a byte order mark is detected by commas and line ends: their other byte is NUL, on the same side.
    """
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    low, high = head[1::2].count(0), head[::2].count(0)
    one_sided = low + high >= 2 and 10 * min(low, high) <= low + high
    # A few NUL bytes may be characters of an ASCII file; Chinese text in UTF-16 has few NUL bytes.
    if not one_sided and (0 not in head or _reads(head, "utf-8")):
        return ""
    endings = [name for name in ("utf-16-le", "utf-16-be") if _holds_lines(head, name)]
    return max(endings, key=lambda name: low if name == "utf-16-le" else high, default="")


def _holds_lines(head: bytes, encoding: str) -> bool:
    """Whether bytes are valid in a wide encoding and have a line end in it."""
    return _reads(head, encoding) and bool(re.search(r"[\r\n]", head.decode(encoding, "ignore")))


def fits_wide(head: bytes, encoding: str) -> bool:
    """Whether bytes may be text in the requested wide encoding."""
    return wide_encoding(head) != "" or _holds_lines(head, encoding)


def is_wide(codec: str) -> bool:
    """Whether every character of an encoding takes two or four bytes."""
    return codec.startswith(("utf-16", "utf-32"))


def iconv_name(encoding: str) -> str:
    """The name of an encoding for the command `iconv`."""
    return _ICONV_NAMES.get(encoding, encoding.upper())


def reads(content: bytes, encoding: str) -> bool:
    """Whether bytes are valid in an encoding."""
    try:
        content.decode(encoding)
    except (UnicodeError, LookupError):
        return False
    return True


def repaired(text: str) -> str:
    """The original of a text whose UTF-8 was once read as cp1252; empty for other texts."""
    if text.isascii():
        return ""
    try:
        before = text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return ""
    return "" if before.isascii() else before


def mojibake(lines: Iterable[str]) -> tuple[str, str] | None:
    """(written, original) of the first word whose UTF-8 was read as cp1252, if most non-ASCII lines have such words.

    Args:
        lines: decoded lines of a file, the header first; a header with such a word is enough.
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
    """`reads`, but the last character may be incomplete."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeError:
        return False
    return True


def _latin_encoding(sample: bytes) -> str:
    """The encoding in which a text's accented letters belong to one language; empty if there is none."""
    for encoding, letters in _LATIN.items():
        if not reads(sample, encoding):
            continue
        pairs = [(before, char) for before, char in pairwise(" " + sample.decode(encoding)) if not char.isascii()]
        chars = {char for _, char in pairs}
        if encoding == "cp1252" and {"ì", "ø"} <= chars:
            continue  # Czech in cp1250 looks like this
        if encoding == "cp1252" and set("æáíó") & chars:
            letters |= set("ðþýÐÞÝ")  # Icelandic; without these letters it is Turkish in cp1254
        right = sum(char in letters and not _is_odd(before, char) for before, char in pairs)
        if right >= 0.9 * len(pairs):
            return encoding
    return ""


def _is_odd(before: str, char: str) -> bool:
    """Whether a character is impossible after another in a word: a capital or a sign after a lower-case letter."""
    return before.islower() and (char.isupper() or char in _NEVER_AFTER_LOWER_CASE)


def _asian_encodings(sample: bytes, min_points: float) -> list[str]:
    """The East Asian encodings in which the sample looks most like their language, best first.

    Most of them have a character for nearly every pair of bytes; in a wrong encoding these are rare characters.

    Args:
        sample: some lines.
        min_points: the smallest number of points of an encoding.
    """
    lead = max(_CLEAR_LEAD, _CLEAR_LEAD_OF_ONE / max(1, len(_HIGH.findall(sample)) // 2))
    points = {name: _asian_points(sample, name) for name in _ASIAN if reads(sample, name)}
    ranked = sorted(points, key=lambda name: -points[name])
    most = max(points.values(), default=0)
    return [name for name in ranked if points[name] >= max(min_points, most - lead)]


def _asian_points(sample: bytes, encoding: str) -> float:
    """Mean points of the characters, from -1 to 2: how much the text looks like the language of the encoding."""
    charset, daily, frequent = _ASIAN[encoding]
    points = []
    for char in sample.decode(encoding):
        if char.isascii():
            continue
        code = char.encode(charset, "ignore")
        is_daily = char in _ASIAN_SIGNS or (len(code) == 2 and code[0] in daily)
        points.append(2 if char in frequent else 1 if is_daily else -1)
    return sum(points) / len(points)


def _best_candidate(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    found = (_CANDIDATES[match.encoding] for match in from_bytes(sample, cp_isolation=list(_CANDIDATES)))
    best = next(
        (name for name in (*found, "gb18030", "cp1252") if reads(sample, name) and _is_likely(sample, name)), ""
    )
    # EUC-JP and GB18030 have the kana at the same bytes; a Chinese text has none.
    return "euc_jp" if best == "gb18030" and _is_likely(sample, "euc_jp") else best


def _is_likely(sample: bytes, encoding: str) -> bool:
    """Whether the text has enough of the script that its language would have."""
    if encoding in ("cp949", "big5"):
        return reads(sample, encoding) and _asian_points(sample, encoding) >= _LEAST_POINTS
    if encoding not in _SCRIPTS or not reads(sample, encoding):
        return encoding not in _SCRIPTS
    script, least = _SCRIPTS[encoding]
    chars = [char for char in sample.decode(encoding) if not char.isascii()]
    return sum(bool(script.match(char)) for char in chars) >= least * len(chars)
