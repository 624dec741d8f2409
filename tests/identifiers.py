"""Identifiers of every kind, made up by a seed: what tests plant, and then look for in every byte that is left."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from stdnum import iban, luhn
from stdnum.cn import ric

from textcls.settings.mask_names import MaskName
from textcls.settings.recipe import TextSpec

OWN = {"employee_id": r"(?<![A-Za-z0-9])E\d{6}(?!\d)"}
EVERY = TextSpec(mask=get_args(MaskName), mask_patterns=OWN)
"""Masks every kind, and one of a user's own."""
AS_OPTIONS = [
    f"text.mask=[{', '.join(get_args(MaskName))}]",
    f"text.mask_patterns={{employee_id: '{OWN['employee_id']}'}}",
]


def _digits(chance: random.Random, number: int) -> str:
    return "".join(chance.choices("0123456789", k=number))


def _card(chance: random.Random) -> str:
    start = f"4{_digits(chance, 14)}"
    return start + luhn.calc_check_digit(start)


def _iban(chance: random.Random) -> str:
    account = f"{_digits(chance, 18)}"
    return f"DE{iban.calc_check_digits(f'DE00{account}')}{account}"


def _cn_id(chance: random.Random) -> str:
    start = (
        f"110105{chance.randint(1950, 2005)}{chance.randint(1, 12):02}{chance.randint(1, 28):02}{_digits(chance, 3)}"
    )
    return start + ric.calc_check_digit(f"{start}0")


def _word(chance: random.Random) -> str:
    return "".join(chance.choices("bcdfghjklmnpqrstvwxz", k=10))


_KINDS: dict[str, Callable[[random.Random], str]] = {
    "email": lambda chance: f"{_word(chance)}@{_word(chance)}.example.com",
    "phone": lambda chance: f"+1 ({chance.randint(201, 989)}) 555-{_digits(chance, 4)}",
    "url": lambda chance: f"https://{_word(chance)}.example.com/{_word(chance)}",
    "ip": lambda chance: f"2001:db8:{chance.randrange(4096, 65536):x}:{chance.randrange(4096, 65536):x}::7",
    "card": _card,
    "iban": _iban,
    "cn_id": _cn_id,
    "cn_mobile": lambda chance: f"139{_digits(chance, 8)}",
    "cn_plate": lambda chance: f"京{chance.choice('BCDE')}D{_digits(chance, 5)}",
    "passport": lambda chance: f"G{_digits(chance, 8)}",
    "number": lambda chance: f"7{_digits(chance, 6)}",
    "employee_id": lambda chance: f"E{_digits(chance, 6)}",
}


def identifiers(number: int, seed: int = 0) -> list[tuple[str, str]]:
    """(kind, value) of so many identifiers, all different, the kinds in turn."""
    chance = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < number:
        kind = list(_KINDS)[len(found) % len(_KINDS)]
        found.setdefault(_KINDS[kind](chance), kind)
    return [(kind, value) for value, kind in found.items()]


def traces(value: str) -> list[bytes]:
    """An identifier as bytes that a file may hold: as written, in lower case, in UTF-16, as JSON, percent-encoded."""
    from json import dumps
    from urllib.parse import quote

    texts = {value, value.lower(), dumps(value)[1:-1], quote(value), quote(value, safe="")}
    return [text.encode(code) for text in texts for code in ("utf-8", "utf-16-le")]


def texts_of(path: Path) -> bytes:
    """The content of a file; of a Parquet file its rows, which may be compressed."""
    import pyarrow.parquet as pq

    return repr(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else path.read_bytes()


def left_in(folder: Path, values: list[str]) -> Iterator[str]:
    """`FILE: VALUE` for each file below a folder and each identifier that it holds, compressed files included."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes() + texts_of(path)
        for value in values:
            if any(trace in content for trace in traces(value)):
                yield f"{path.relative_to(folder)}: {value}"
