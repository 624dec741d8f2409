"""The shapes of identifiers, as regular expressions for two engines.

In: nothing. Out: one pattern a kind, with the same meaning in Oniguruma (`tokenizers.Regex`) and in the package
`regex`. Not here: check digits (mask_checks.py); the order in which kinds are replaced (masks.py).

Rules for these patterns: digits, letters and signs may be of full width; no `\\b`, since Chinese characters are word
characters, but look-arounds; no repeat without a limit, so that the cost of a text is proportional to its length; no
upper and lower case by flags, which the engines treat differently.
"""

_D = "0-9０-９"
_U = "A-ZＡ-Ｚ"
_L = "a-zａ-ｚ" + _U
_HEX = "0-9a-fA-F０-９ａ-ｆＡ-Ｆ"
_N = f"[{_D}]"
_ALONE, _END = f"(?<!{_N})", f"(?!{_N})"  # not in the middle of digits
_DOT, _AT, _PLUS, _COLON, _SLASH = "[.．]", "[@＠]", "[+＋]", "[:：]", "[/／]"
_SEP = "[ \u00a0\u3000.．\\-－‐‑–]"  # between groups of digits
_BLANK = "[ \u00a0\u3000\\-－‐‑]"  # the same without dots

# --- addresses of the net ---------------------------------------------------------------------------------------------

_LABEL = f"[{_L}{_D}](?:[{_L}{_D}\\-－]{{0,61}}[{_L}{_D}])?"
_LOCAL = f"{_L}{_D}._%+'\\-．＿％＋－"
EMAIL = (
    f"(?<![{_L}{_D}])[{_L}{_D}_＿](?>[{_LOCAL}]{{0,63}}){_AT}"
    f"[{_L}{_D}\\-－]{{1,63}}(?:{_DOT}[{_L}{_D}\\-－]{{1,63}}){{1,8}}"
)

_IN_URL = f"{_L}{_D}!#$%&'()*+,./:;=?@_~\\[\\]\\-．／－＿＝＆％＃\u00c0-\u024f"
_LAST_IN_URL = f"{_L}{_D}#$%&*+/=@_~\\-／－＿＝＆％＃\u00c0-\u024f"
_PATH = f"[{_IN_URL}]{{0,2047}}[{_LAST_IN_URL}]"
_TLD = (
    "com|org|net|edu|gov|mil|int|info|biz|name|io|co|ai|app|dev|cn|hk|tw|jp|kr|sg|uk|de|fr|ru|eu|nl|br|au|ca|ch|es|pl|se"
    "|dk|fi|cz|ua|tr|mx|nz|za|xyz|site|online|top|club|shop|store|cc|tv|tech|cloud|blog|wiki"
)
URL = (
    f"(?<![{_L}{_D}])(?:[hH][tT][tT][pP][sS]?|[fF][tT][pP]){_COLON}{_SLASH}{_SLASH}{_PATH}"
    f"|(?<![{_L}{_D}@＠._\\-])[wW]{{3}}{_DOT}{_PATH}"
    f"|(?<![{_L}{_D}@＠._\\-])(?:{_LABEL}{_DOT}){{1,6}}(?:{_TLD})(?![{_L}{_D}@＠\\-])(?!{_DOT}[{_L}{_D}])(?:/{_PATH}|/)?"
)

_OCTET = "(?:2[0-4][0-9]|25[0-5]|1[0-9]{2}|[1-9]?[0-9])"
_V4 = f"(?:{_OCTET}\\.){{3}}{_OCTET}"
_H = "[0-9a-fA-F]{1,4}"
IP = (
    f"(?<![{_D}])(?<![{_D}]\\.){_V4}(?![{_D}])(?!\\.[{_D}])"
    f"|(?<![{_L}{_D}:.])(?:(?:{_H}:){{7}}{_H}"
    f"|(?=[0-9a-fA-F:]{{0,38}}[0-9])(?:{_H}(?::{_H}){{0,6}})?::(?:{_H}(?::{_H}){{0,6}})?(?::{_V4})?)(?![{_L}{_D}:])"
)

# --- banks ------------------------------------------------------------------------------------------------------------

CARD = (
    f"{_ALONE}(?<!{_N}[.\\-])[2-69２-６９]"
    f"(?:{_N}{{12,18}}|{_N}{{3}}(?:{_BLANK}{_N}{{4}}){{3}}(?:{_BLANK}{_N}{{1,3}})?"
    f"|{_N}{{3}}{_BLANK}{_N}{{6}}{_BLANK}{_N}{{4,5}}|{_N}{{5}}{_BLANK}{_N}{{13}}){_END}"
)

# Characters of an IBAN -> countries, after the registry of SWIFT.
_IBAN_LENGTHS = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}


def _iban(length: int, countries: str) -> str:
    fours, rest = divmod(length - 4, 4)
    country = "|".join(countries.split())
    one = f"[{_U}{_D}]"
    end = f"{_BLANK}{one}{{{rest}}}" if rest else ""
    compact = f"[{_L}{_D}]{{{length - 4}}}"
    return f"(?:{country}|{country.lower()}){_N}{{2}}(?:{compact}|(?:{_BLANK}{one}{{4}}){{{fours}}}{end})"


IBAN = f"(?<![{_L}{_D}])(?:{'|'.join(_iban(*one) for one in _IBAN_LENGTHS.items())})(?![{_L}{_D}])"

# --- China ------------------------------------------------------------------------------------------------------------

_MONTH, _DAY = "(?:[0０][1-9１-９]|[1１][0-2０-２])", f"(?:[0０][1-9１-９]|[12１２]{_N}|[3３][01０１])"
CN_ID = (
    f"{_ALONE}[1-9１-９]{_N}{{5}}{_BLANK}?(?:[1１][89８９]|[2２][0０]){_N}{{2}}{_MONTH}{_DAY}"
    f"{_BLANK}?{_N}{{3}}[{_D}xXｘＸ]{_END}"
)
_CN_MOBILE = f"[1１][3-9３-９]{_N}(?:{_N}{{8}}|{_BLANK}{_N}{{4}}{_BLANK}{_N}{{4}})"
CN_MOBILE = f"{_ALONE}(?:(?:{_PLUS}|[0０]{{2}})?[8８][6６]{_BLANK}?)?{_CN_MOBILE}{_END}"
_ON_PLATE = f"[A-HJ-NP-ZＡ-ＨＪ-ＮＰ-Ｚ{_D}]"
CN_PLATE = (
    f"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使][{_U}][·•・ \\-]?"
    f"(?:[A-HJ-KＡ-ＨＪ-Ｋ]{_ON_PLATE}{_N}{{4}}|{_N}{{5}}[A-HJ-KＡ-ＨＪ-Ｋ]"
    f"|(?=[{_U}]{{0,4}}{_N}){_ON_PLATE}{{4}}[A-HJ-NP-ZＡ-ＨＪ-ＮＰ-Ｚ{_D}挂学警港澳领使])(?![{_L}{_D}])"
)
PASSPORT = f"(?<![{_L}{_D}])(?:[EGDSPHegdsphＥＧＤＳＰＨ][{_L}]?{_N}{{7,8}}|[HMChmcＨＭＣ]{_N}{{8,10}})(?![{_L}{_D}])"

# --- phones and other numbers -----------------------------------------------------------------------------------------

_EXTENSION = f"(?: ?(?:[xX]|[eE][xX][tT]\\.?|[#＃]|转|分机) ?{_N}{{1,6}})?"
_AREA = f"[(（]{_N}{{2,5}}[)）]"
PHONE = (
    f"{_ALONE}(?<!{_N}[.\\-])(?:"
    # +49 30 123456, 0049-30-123456, +1 (555) 123-4567
    f"(?:{_PLUS}|[0０]{{2}}){_N}{{1,3}}{_SEP}?(?:{_AREA}{_SEP}?|[(（][0０][)）])?{_N}{{1,5}}(?:{_SEP}?{_N}{{2,5}}){{1,4}}"
    # (555) 123-4567, 1-555-123-4567, 555.123.4567
    f"|(?:[1１]{_SEP})?(?:{_AREA}{_SEP}?|{_N}{{3}}{_SEP}){_N}{{3,4}}{_SEP}{_N}{{4}}"
    # 010-12345678, 0755 1234 5678, (010)12345678
    f"|(?:[0０]{_N}{{2,3}}{_BLANK}?|[(（][0０]{_N}{{2,3}}[)）] ?)[2-9２-９]{_N}{{2,3}}{_BLANK}?{_N}{{4}}"
    # 400-123-4567, mobile phones in China
    f"|[48４８][0０][0０]{_BLANK}{_N}{{3,4}}{_BLANK}{_N}{{3,4}}|{_CN_MOBILE}"
    f"){_EXTENSION}{_END}"
)
NUMBER = f"{_ALONE}(?:(?>{_N}(?:{_BLANK}?{_N}){{8,30}})(?![{_D}:：])|{_N}{{5,}})"
