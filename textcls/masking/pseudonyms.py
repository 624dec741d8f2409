"""Keyed pseudonyms: what replaces an identifier where rows are still to be joined by it.

In: a secret key, from the environment or a file; a kind of identifier and its value. Out: `[EMAIL:0123456789abcdef]`,
the same for the same value in every file and run with this key. Not here: finding identifiers (text/masks.py), where
pseudonyms are written (masked_rows.py).

A pseudonym is HMAC-SHA256 (RFC 2104) of the kind and the canonical value, cut to 64 bits: of a hundred million values,
two have one pseudonym with a probability of 0.03 %. Who has the key can try out values, all phone numbers for instance:
pseudonyms are personal data for them (GDPR, article 4, number 5), and random strings for everybody else.
"""

import hashlib
import hmac
import ipaddress
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from textcls import storage
from textcls.errors import InputError
from textcls.text.masks import PSEUDONYM_DIGITS

VARIABLE = "TEXTCLS_MASK_KEY"
LEAST_BITS = 128
_FEWEST_BYTES = 8  # different ones: a key of one repeated digit is none
_CHINA = re.compile(r"^86(?=1[3-9]\d{9}$)")  # before the digits of a mobile phone
_MAKE_ONE = "make one with: openssl rand -hex 32"


@dataclass(frozen=True)
class PseudonymKey:
    """A secret key; no representation of it holds the secret.

    Attributes:
        secret: at least 16 bytes.
    """

    secret: bytes = field(repr=False)

    @property
    def check(self) -> str:
        """A name for the key, from which it cannot be computed: a job continues with the key that it began with."""
        return hmac.new(self.secret, b"textcls: which key is this", hashlib.sha256).hexdigest()[:PSEUDONYM_DIGITS]

    def pseudonym(self, kind: str, value: str) -> str:
        """The hexadecimal digits that stand for a value.

        Args:
            kind: name of the kind, such as `email`.
            value: as written.
        """
        message = f"{kind}\0{canonical(kind, value)}".encode("utf-8", "surrogatepass")
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()[:PSEUDONYM_DIGITS]


def canonical(kind: str, value: str) -> str:
    """The spelling that all spellings of one identifier share.

    Full-width characters are as others. An e-mail address has no capitals, nor has the host of a URL; a phone number, a
    card and a number are their digits, a phone number without 00 and a mobile number of China without 86 at the start;
    all other kinds are their letters and digits, in capitals.

    Args:
        kind: name of the kind; a pattern of one's own has no other spellings.
        value: as written.
    """
    value = unicodedata.normalize("NFKC", value).strip()
    return _CANONICAL.get(kind, str)(value)


def _digits(value: str) -> str:
    return re.sub(r"\D", "", value)


def _phone(value: str) -> str:
    return _CHINA.sub("", _digits(value).removeprefix("00"))


def _cn_mobile(value: str) -> str:
    return _digits(value)[-11:]


def _letters_and_digits(value: str) -> str:
    return re.sub(r"[\W_]", "", value).upper()


def _url(value: str) -> str:
    host = re.match(r"(?:[A-Za-z][A-Za-z0-9+.-]*://)?[^/?#]*", value)
    return value[: host.end()].casefold() + value[host.end() :] if host else value


def _ip(value: str) -> str:
    try:
        return ipaddress.ip_address(value).exploded
    except ValueError:
        return value.casefold()


_CANONICAL: Mapping[str, Callable[[str], str]] = {
    "email": str.casefold,
    "url": _url,
    "phone": _phone,
    "cn_mobile": _cn_mobile,
    "card": _digits,
    "number": _digits,
    "ip": _ip,
    "iban": _letters_and_digits,
    "cn_id": _letters_and_digits,
    "cn_plate": _letters_and_digits,
    "passport": _letters_and_digits,
}


def read_key(environment: Mapping[str, str], key_file: str | None) -> PseudonymKey:
    """The key of a file or, without one, of the environment variable `TEXTCLS_MASK_KEY`.

    Raises:
        InputError: there is none, it is not hexadecimal, or it is too short; the message does not hold it.
    """
    if key_file is not None:
        where = f"--key-file {key_file}"
        text = storage.read_bytes(storage.absolute(key_file)).decode("utf-8", "replace").strip()
    else:
        where = f"the environment variable {VARIABLE}"
        if not (text := environment.get(VARIABLE, "").strip()):
            raise InputError(
                f"--keyed without a key: {where} is not set",
                expected=f"a secret key of at least {LEAST_BITS} bits",
                todo=f"{_MAKE_ONE}, and keep it in a file: --key-file FILE",
            )
    expected = f"at least {LEAST_BITS // 4} random hexadecimal digits ({LEAST_BITS} bits)"
    if not re.fullmatch(r"([0-9a-fA-F]{2})*", text):
        raise InputError(
            f"{where}: something other than pairs of hexadecimal digits", expected=expected, todo=_MAKE_ONE
        )
    secret = bytes.fromhex(text)
    if 8 * len(secret) < LEAST_BITS or len(set(secret)) < _FEWEST_BYTES:
        found = f"{8 * len(secret)} bits" if 8 * len(secret) < LEAST_BITS else "a few bytes again and again"
        raise InputError(f"the key in {where} has {found}", expected=expected, todo=_MAKE_ONE)
    return PseudonymKey(secret)
