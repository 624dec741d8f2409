"""The shapes of identifiers, as regular expressions for two engines.

In: nothing. Out: one pattern a kind, with the same meaning in Oniguruma (`tokenizers.Regex`) and in the package
`regex`. Not here: check digits (mask_checks.py); the order in which kinds are replaced (masks.py).

`pattern_tree` writes them for both engines, and adds the full-width form of every letter, digit and sign. What it
cannot do is kept here: no `\\b`, since identifiers are written among letters, in Chinese always, but look-arounds; few
ways to read a text, which a test measures (pattern_cost.py); and a look-ahead first where an identifier can begin in
several ways, since Oniguruma then skips to such a character (up to 12 times as fast).
"""

from textcls.settings.pattern_tree import parsed
from textcls.text.letters import OF_WORDS, WITHOUT_SPACES

_SPACES = " \u00a0\u2000-\u200a\u202f\u205f\u3000"  # of all widths
_BLANK = f"[{_SPACES}\\-‐‑–]"
_GAP = f"{_BLANK}{{1,2}}"  # between groups of digits
_GAP_OR_DOT = rf"(?:{_GAP}|\.)"
_ALONE = r"(?<!\d)"  # not in the middle of digits
_NO_TIME = r"(?!\d)(?!:\d\d(?!\d))"  # 2024-05-01 12 is no number before :30
_NOT_OF_A_NUMBER = r"(?<!\d)(?<!\d[./\-])"  # nor behind a decimal point, nor in a date


def _shape(*options: str) -> str:
    """The pattern that means any of the options, for both engines."""
    return str(parsed("(?a)" + "|".join(options)))  # digits are those of ASCII and of full width


def _any(words: str) -> str:
    """One of several words, by their first letters, so that few are tried."""
    listed = words.split()
    firsts = dict.fromkeys(word[0] for word in listed)
    return "|".join(f"{one}(?:{'|'.join(word[1:] for word in listed if word[0] == one)})" for one in firsts)


# --- addresses of the net ---------------------------------------------------------------------------------------------

_WORD = f"A-Za-z0-9{OF_WORDS}"
_LABEL = rf"[{_WORD}\-]{{1,63}}"  # of a domain
# Last parts of domains in scripts without spaces, which say where such a domain ends and a sentence goes on.
_TLD_WITHOUT_SPACES = _any(
    "中国 中國 中文网 公司 公益 网络 网址 网站 网店 在线 集团 商城 香港 台湾 台灣 みんな 한국 ไทย"
)
_ANY_LABEL = rf"[{_WORD}{WITHOUT_SPACES}\-]{{1,63}}"
# Where nothing divides words, as many letters as a name has; a price, as in 苹果@4.50, is no address.
_LOCAL = (
    rf"(?:(?<![{_WORD}])[{_WORD}_](?>[{_WORD}._%+'\-]{{0,63}})(?>[{WITHOUT_SPACES}]{{0,8}})"
    rf"|(?>[{WITHOUT_SPACES}]{{1,8}})(?!@\d{{1,9}}\.\d))"
)
EMAIL = _shape(
    rf"{_LOCAL}@(?:{_ANY_LABEL}\.){{1,4}}(?:{_TLD_WITHOUT_SPACES})", rf"{_LOCAL}@{_ANY_LABEL}(?:\.{_LABEL}){{1,8}}"
)

# A URL ends before punctuation: its last character is none, nor a letter of a script without spaces, ...
_URL_SIGNS = rf"{_WORD}#$%&*+/=@_~\-"
_PUNCTUATION = r"[!'(),.:;?\[\]]{0,3}"
_IN_URL = rf"(?:{_PUNCTUATION}[{_URL_SIGNS}])"
# ... unless its host has such letters, and then its path may have them too.
_FOREIGN = (
    rf"(?=(?:{_LABEL}\.){{0,3}}[{WITHOUT_SPACES}]|[{_WORD}\-]{{1,62}}[{WITHOUT_SPACES}]{{1,62}}\.)"
    rf"(?:\.{{0,3}}[{_URL_SIGNS}{WITHOUT_SPACES}]|[!'(),:;?\[\]]{{1,3}}[{_URL_SIGNS}]){{1,150}}"
)
_BEFORE_DOMAIN = rf"(?<![{_WORD}@._\-])"
_DOMAIN = rf"(?:(?>{_LABEL})\.){{1,6}}"
# Domains without http:// or www.: the usual ones, without those that are words, such as in, is, it, me and so.
_TLD = (
    "com org net edu gov mil int info biz name io ai app dev xyz site online shop store tech cloud blog wiki cc tv co "
    "cn hk tw jp kr sg nz au uk de fr ru eu nl ch es pl se dk fi cz ua tr br mx ca za рф"
)
_SCHEME = "(?=[fFhH])(?i:https?|ftp)://"
_WWW = rf"(?=[wW]){_BEFORE_DOMAIN}(?i:www)\."
URL = _shape(
    rf"(?:{_SCHEME}|{_WWW}){_FOREIGN}",
    rf"{_SCHEME}{_IN_URL}{{1,800}}",
    rf"{_WWW}{_IN_URL}{{1,400}}",
    rf"(?=[{_WORD}\-]){_BEFORE_DOMAIN}{_DOMAIN}(?i:{_any(_TLD)})(?![A-Za-z0-9@\-])(?!\.[{_WORD}])(?:/{_IN_URL}{{0,150}})?",
)

_OCTET = "(?:2[0-4][0-9]|25[0-5]|1[0-9][0-9]|[1-9]?[0-9])"
_V4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_HEX = "[0-9a-fA-F]{1,4}"
# A word such as `add::` is none: a shortened address begins with a digit, with fc00 to ffff, or with the colons.
_V6 = (
    rf"(?:{_HEX}:){{7}}{_HEX}|(?:[0-9][0-9a-fA-F]{{0,3}}|[fF][c-fC-F][0-9a-fA-F]{{2}})(?::{_HEX}){{0,6}}"
    rf"::(?:{_HEX}(?::{_HEX}){{0,6}})?|::(?:[fF]{{4}}:)?{_V4}|::{_HEX}(?::{_HEX}){{0,6}}"
)
IP = _shape(
    rf"(?=\d)(?<!\d)(?<!\d\.){_V4}(?!\d)(?!\.\d)",
    rf"(?=[0-9a-fA-F:])(?<![A-Za-z0-9.])(?<![0-9a-fA-F]:)(?<!::)(?:{_V6})(?![A-Za-z0-9:])",
)

# --- banks ------------------------------------------------------------------------------------------------------------

CARD = _shape(
    # 13 to 19 digits; 12 of Maestro and 15 of JCB with their own first digits, so that times in milliseconds are none.
    # Groups of four behind a letter, two digits and one or two blanks are those of an IBAN.
    rf"(?=\d){_NOT_OF_A_NUMBER}(?:[2-69]\d{{12,18}}|(?:5[0678]|6[37])\d{{10}}|0604\d{{8}}|(?:1800|2131)\d{{11}}"
    rf"|(?<![A-Za-z]\d\d{_BLANK})(?<![A-Za-z]\d\d{_BLANK}{_BLANK})"
    rf"[2-69]\d{{3}}(?:{_GAP_OR_DOT}\d{{4}}){{3}}(?:{_GAP_OR_DOT}\d{{1,3}})?"
    rf"|3\d{{3}}{_GAP_OR_DOT}\d{{6}}{_GAP_OR_DOT}\d{{4,5}}|[69]\d{{5}}{_GAP}\d{{13}})(?![\dXx])"
)

# Characters of an IBAN -> countries, after the registry of SWIFT.
_IBAN_LENGTHS = {
    15: "NO",
    16: "BE",
    18: "DK|FI|FK|FO|GL|NL|SD",
    19: "MK|SI",
    20: "AT|BA|EE|KZ|LT|LU|MN|XK",
    21: "CH|HR|LI|LV",
    22: "BG|BH|CR|DE|GB|GE|IE|ME|RS|VA",
    23: "AE|GI|IL|IQ|OM|SO|TL",
    24: "AD|CZ|ES|MD|PK|RO|SA|SE|SK|TN|VG",
    25: "LY|PT|ST",
    26: "IS|TR",
    27: "BI|DJ|FR|GR|IT|MC|MR|SM",
    28: "AL|AZ|BY|CY|DO|GT|HN|HU|LB|NI|PL|SV",
    29: "BR|EG|PS|QA|UA",
    30: "JO|KW|MU|YE",
    31: "MT|SC",
    32: "LC",
    33: "RU",
}


def _iban(length: int, countries: str) -> str:
    """In one word, in any case; or in groups of four, in capitals, since small words may follow."""
    fours, rest = divmod(length - 4, 4)
    last = rf"{_GAP}[A-Z0-9]{{{rest}}}" if rest else ""
    grouped = rf"(?:{_GAP}[A-Z0-9]{{4}}){{{fours}}}{last}"
    return rf"(?i:{countries})\d\d(?:[A-Za-z0-9]{{{length - 4}}}|{grouped})"


_IBANS = "|".join(_iban(*one) for one in _IBAN_LENGTHS.items())
IBAN = _shape(rf"(?=[A-Za-z][A-Za-z]\d\d)(?:(?<![A-Za-z0-9])|(?<=(?i:IBAN)))(?:{_IBANS})(?![A-Za-z0-9])")

# --- China ------------------------------------------------------------------------------------------------------------

CN_ID = _shape(
    rf"{_ALONE}[1-9]\d{{5}}(?:{_GAP})?(?:1[89]|20)\d{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:{_GAP})?"
    r"\d{3}[\dXx](?![\dXx])"
)
_CN_MOBILE = rf"1[3-9]\d(?:\d{{8}}|{_GAP_OR_DOT}\d{{4}}{_GAP_OR_DOT}\d{{4}})"
CN_MOBILE = _shape(rf"(?=[\d+]){_ALONE}(?:(?:\+|00)?86(?:{_GAP})?)?{_CN_MOBILE}(?!\d)")
_ON_PLATE = "[A-HJ-NP-Z0-9]"
CN_PLATE = _shape(
    r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使][A-Z][·•・ \-]?"
    # Six of new-energy cars; five of all others, at least one of them a digit.
    rf"(?:[A-HJ-K]{_ON_PLATE}\d{{4}}|\d{{5}}[A-HJ-K]|(?=[A-Z]{{0,4}}\d){_ON_PLATE}{{4}}[A-HJ-NP-Z0-9挂学警港澳领使])"
    r"(?![A-Za-z0-9])"
)
PASSPORT = _shape(r"(?<![A-Za-z0-9])(?:[CDEGHPSW][A-Z]?\d{7,8}|[CHM]\d{8,10})(?![A-Za-z0-9])")

# --- phones and other numbers -----------------------------------------------------------------------------------------

_SEP = rf"[{_SPACES}.\-‐‑–/]"
_SEPS = f"{_SEP}{{1,2}}"
PHONE = _shape(
    rf"(?=[\d+(]){_NOT_OF_A_NUMBER}(?:"
    # +49 30 123456, 0049-30-123456, +46 (0)8 123 456, +1 (555) 123-4567
    rf"(?:\+|00)[1-9](?:{_SEP}{{0,2}}(?:\d|\(\d{{1,4}}\))){{6,14}}"
    # (555) 123-4567, (07700) 123456, (010)12345678
    rf"|\(\d{{1,5}}\)(?:{_SEP}{{0,2}}\d){{6,9}}"
    # 010-12345678, 0478 12 34 56, 07700123456
    rf"|0[1-9](?:{_SEP}{{0,2}}\d){{7,10}}"
    # 555-123-4567, 1-555-123-4567, 555.123.4567, 555-1234567, and 5551234567, as in America or India
    rf"|(?:1{_SEPS})?[2-9]\d{{2}}{_SEPS}\d{{3}}{_SEP}{{0,2}}\d{{4}}|[2-9]\d{{9}}"
    # 555-1234; 612 345 678, 912 34 567, 20-12-34-56
    rf"|[2-9]\d\d-\d{{4}}|[4-9]\d\d{_SEPS}\d{{3}}{_SEPS}\d{{3}}|[49]\d\d[{_SPACES}]{{1,2}}\d\d[{_SPACES}]{{1,2}}\d{{3}}"
    rf"|\d\d(?:[{_SPACES}\-]\d\d){{3}}"
    # 400-123-4567, and mobile phones in China
    rf"|[48]00{_GAP}\d{{3,4}}{_GAP}\d{{3,4}}|{_CN_MOBILE}"
    rf")(?:[{_SPACES}]?(?:[xX]|[eE][xX][tT]\.?|#|转|分机)[{_SPACES}]?\d{{1,6}})?{_NO_TIME}(?!-\d)"
)
NUMBER = _shape(rf"(?=\d){_ALONE}(?>\d(?:{_BLANK}?\d){{8,30}}){_NO_TIME}", r"\d{5,}")
