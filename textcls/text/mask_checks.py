"""Check digits of identifiers: which numbers of the right shape are real.

In: a value that has the shape of a kind (mask_shapes.py), in any width, with or without separators. Out: whether its
check digits, and what else is known about it, are right. Not here: the shapes; where a check counts (masks.py).

The arithmetic is that of python-stdnum.
"""

import datetime
import re
import unicodedata

# ISO/IEC 7812: first digits and lengths that issuers use.
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}|3(?:0[0-59]|[689]\d)\d{11,16}"  # American Express, Diners Club
    r"|35\d{14,17}|(?:2131|1800)\d{11}"  # JCB
    r"|220[0-4]\d{12,15}"  # Mir
    r"|(?:6[024589]|8[12]|9[57])\d{14,17}"  # UnionPay, Discover, RuPay, Troy, older cards of Chinese banks
    r"|(?:5[06-8]|6[37])\d{10,17}|0604\d{8}"  # Maestro, Elo, Verve
)
# GB/T 2260: the first two digits, provinces and their like; 83 is of residents of Taiwan, 9x of foreigners.
_PROVINCES = re.compile("1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]|91")
_DATE = re.compile(r"(?:189|19\d|20\d)\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
_LAST = "0123456789X"


def _compact(value: str) -> str:
    """The letters and digits of a value, in ASCII."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", value))).upper()


def is_card(value: str) -> bool:
    """Whether a number is that of a payment card: an issuer's first digits, their length, and Luhn's check digit."""
    from stdnum import luhn

    number = _compact(value)
    return _ISSUED.fullmatch(number) is not None and bool(luhn.is_valid(number)) and not _is_mistaken_cn_id(number)


def is_iban(value: str) -> bool:
    """Whether a value is an IBAN: a country's length, and the two check digits of ISO 7064 MOD 97-10."""
    from stdnum import iban

    return bool(iban.is_valid(_compact(value), check_country=False))


def is_cn_id(value: str) -> bool:
    """Whether a value is a Chinese resident identity number: province, date of birth, check digit (GB 11643-1999).

    Districts are not checked: they were renumbered often, and a number keeps its district for life.
    """
    return _is_cn_id(_compact(value))


def _is_cn_id(number: str) -> bool:
    from stdnum.cn import ric

    if (
        len(number) != 18
        or not number[:-1].isdigit()
        or not _PROVINCES.fullmatch(number[:2])
        or not _DATE.fullmatch(number[6:14])
    ):
        return False
    try:
        datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    return bool(number[-1] == ric.calc_check_digit(number))


def _is_mistaken_cn_id(number: str) -> bool:
    """Whether a number is an identity number with one digit lost, added or mistaken: one in ten looks like a card."""
    places = range(len(number))
    if len(number) == 17:
        changed = (number[:i] + one + number[i:] for i in range(18) for one in _LAST)
    elif len(number) == 18:
        changed = (number[:i] + one + number[i + 1 :] for i in places for one in _LAST)
    else:
        changed = (number[:i] + number[i + 1 :] for i in places if len(number) == 19)
    return any(map(_is_cn_id, changed))
