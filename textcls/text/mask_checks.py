"""Check digits of identifiers: which numbers of the right shape are real.

In: a value that has the shape of a kind (mask_shapes.py), in any width, with or without separators. Out: whether its
check digits, and what else is known about it, are right. Not here: the shapes; where a check counts (masks.py).

The arithmetic is that of python-stdnum.
"""

import datetime
import re
import unicodedata

# ISO/IEC 7812: first digits and lengths that issuers use. Amex, Diners, JCB, Discover, Maestro, Mastercard, Visa,
# UnionPay, Mir, RuPay, Troy, Elo, and the older cards of Chinese banks (95).
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}"
    r"|3(?:0[0-59]|[689]\d)\d{11,16}"
    r"|35\d{14,17}"
    r"|(?:2131|1800)\d{11}"
    r"|220[0-4]\d{12,15}"
    r"|(?:5[06-8]|6\d|81|82|95|97)\d{11,17}"
    r"|(?:5[06-8]|6[37])\d{10}|0604\d{8}"
)
# GB/T 2260: the first two digits, provinces and their like; 83 is of residents of Taiwan, 9x of foreigners.
_PROVINCES = re.compile("1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]|91")
_FIRST_YEAR = 1890


def _compact(value: str) -> str:
    """The letters and digits of a value, in ASCII."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", value))).upper()


def is_card(value: str) -> bool:
    """Whether a number is that of a payment card: an issuer's first digits, their length, and Luhn's check digit."""
    from stdnum import luhn

    number = _compact(value)
    return _ISSUED.fullmatch(number) is not None and bool(luhn.is_valid(number))


def is_iban(value: str) -> bool:
    """Whether a value is an IBAN: a country's length, and the two check digits of ISO 7064 MOD 97-10."""
    from stdnum import iban

    return bool(iban.is_valid(_compact(value), check_country=False))


def is_cn_id(value: str) -> bool:
    """Whether a value is a Chinese resident identity number: province, date of birth, check digit (GB 11643-1999).

    Districts are not checked: they were renumbered often, and a number keeps its district for life.
    """
    from stdnum.cn import ric

    number = _compact(value)
    if len(number) != 18 or not _PROVINCES.fullmatch(number[:2]) or number[-1] != ric.calc_check_digit(number):
        return False
    try:
        born = datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    return born.year >= _FIRST_YEAR
