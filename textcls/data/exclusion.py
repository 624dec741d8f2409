"""Rows that a run must not learn from, because someone asked for it: `data.exclude`.

In: the entries of the files. Out: whether a row meets one; what was taken out, for the manifest of the bundle. Pure.
Not here: reading the files (exclusion_files.py), what becomes of a row (rows.py).

An entry is a key, which is about the rows with this cell in `data.exclude_by`, or the hash of a text, which is about
every copy of it. A text is hashed as the run compares texts, so copies that differ in what it does not distinguish have
one hash; each hash names the rules it was made by, and is never compared with those of other rules.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from textcls.manifest import Excluded
from textcls.settings.recipe import TextSpec
from textcls.text.normalizer import TextNormalizer, build_normalizer
from textcls.text.text_input import TextInput

TEXT_MARK = re.compile(r"text-(?P<rules>[0-9a-f]{8})-(?P<digest>[0-9a-f]{64})")


def rules_of(text: TextSpec) -> str:
    """A name of 8 hex digits for the rules by which texts are compared: of everything the normalizer does."""
    return hashlib.sha256(build_normalizer(text).__getstate__()).hexdigest()[:8]


def text_mark(digest: str, rules: str) -> str:
    """The entry that is about a text, as `TEXT_MARK`.

    Args:
        digest: of the text, from `TextInput.digest`.
        rules: from `rules_of`, for the same text settings.
    """
    return f"text-{rules}-{digest}"


def key_mark(column: str, key: str) -> str:
    """The entry that is about a key of a column."""
    return json.dumps([column, key])


def plain_key(cell: str) -> str:
    """A key without what spreadsheets and data frames change in one: case, leading zeros, a decimal `.0`."""
    return cell.casefold().removesuffix(".0").lstrip("0")


@dataclass(frozen=True)
class Exclusion:
    """The entries of all files of `data.exclude`. An entry is named by its number, so that no row table holds a key.

    Attributes:
        column: `data.exclude_by`; "" if it is not set.
        keys: key -> its number.
        texts: digest of a text -> its number.
        places: FILE:LINE of each entry, by number.
        digest: sha256 of the sorted entries, in hex.
    """

    column: str
    keys: Mapping[str, int]
    texts: Mapping[str, int]
    places: tuple[str, ...]
    digest: str

    @classmethod
    def of(cls, column: str, found: Iterable[tuple[str, str, str]], rules: str) -> "Exclusion":
        """The exclusion of (key or "", digest of a text or "", FILE:LINE) entries; of equal ones the first counts.

        Args:
            column: `data.exclude_by`, or "".
            found: the entries.
            rules: from `rules_of`.
        """
        places: dict[str, tuple[str, str, str]] = {}
        for key, digest, place in found:
            places.setdefault(text_mark(digest, rules) if digest else key_mark(column, key), (key, digest, place))
        marks = sorted(places)
        entries = [places[mark] for mark in marks]
        return cls(
            column=column,
            keys={key: number for number, (key, digest, _) in enumerate(entries) if not digest},
            texts={digest: number for number, (_, digest, _) in enumerate(entries) if digest},
            places=tuple(place for _, _, place in entries),
            digest=hashlib.sha256("\n".join(marks).encode()).hexdigest(),
        )

    def by_key(self, cell: str) -> int | None:
        """The number of the entry that a cell of `column` meets. Blanks around a key do not count."""
        return self.keys.get(cell.strip())

    def by_text(self, one: TextInput, normalize: TextNormalizer) -> int | None:
        """The number of the entry that an input meets."""
        return self.texts.get(one.digest(normalize)) if self.texts else None

    def nearly(self, cell: str) -> Sequence[int]:
        """The numbers of the entries that a cell of `column` would meet in another spelling, see `plain_key`."""
        return self._plain.get(plain_key(key), ()) if (key := cell.strip()) else ()

    @cached_property
    def _plain(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for key, number in self.keys.items():
            found.setdefault(plain_key(key), []).append(number)
        return found

    def unmet(self, met: Mapping[str, int]) -> list[int]:
        """The numbers of the entries that no row met.

        Args:
            met: number of an entry, as text -> rows.
        """
        return [number for number in range(len(self.places)) if not met.get(str(number))]

    def record(self, met: Mapping[str, int], rows: int) -> Excluded:
        """What the manifest of a bundle says of it.

        Args:
            met: number of an entry, as text -> rows.
            rows: rows that were taken out.
        """
        return Excluded(digest=self.digest, entries=len(self.places), without_rows=len(self.unmet(met)), rows=rows)
