"""What the patterns need is derived from the patterns: no text in which one matches is left unmasked to save time."""

import re
import string
import unicodedata
from collections.abc import Iterable
from itertools import product
from re import _constants as kinds
from re import _parser as parser
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, normalizers

from tests.masked_texts import ALL_KINDS, texts_with_identifiers
from textcls.settings.pattern_tree import parsed
from textcls.settings.recipe import TextSpec
from textcls.text.mask_needs import NEEDS
from textcls.text.mask_steps import MaskStep, MaskSteps, as_normalizers, found_in, steps_of
from textcls.text.masks import KINDS
from textcls.text.normalizer import build_normalizer

EVERY = "".join(chr(code) for code in (*range(0xD800), *range(0xE000, 0x110000)))
DIGITS = frozenset(regex.findall(r"\d", EVERY))
# What a pattern matches in turn: characters, or None for any text.
Path = tuple[frozenset[str] | None, ...]


def chars_of(node: tuple[Any, Any]) -> frozenset[str] | None:
    """The characters that a node matches one of; None if it is not a plain set of them."""
    kind, value = node
    if kind is kinds.LITERAL:
        return frozenset(chr(value))
    if kind is not kinds.IN:
        return None
    found: set[str] = set()
    for one, of in value:
        if one is kinds.CATEGORY and of is kinds.CATEGORY_DIGIT:
            found |= DIGITS
        elif one in (kinds.LITERAL, kinds.RANGE):
            found.update(map(chr, [of] if one is kinds.LITERAL else range(of[0], of[1] + 1)))
        else:
            return None
    return frozenset(found)


def inside(node: tuple[Any, Any]) -> Any:
    """The nodes of a group; None if the node is no group."""
    kind, value = node
    return value[-1] if kind is kinds.SUBPATTERN else value if kind is kinds.ATOMIC_GROUP else None


REPEATS = (kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT)


def least(nodes: Any, chars: frozenset[str]) -> int:
    """The least number of these characters in a text in which the nodes match."""
    matched, beside = 0, 0
    for node in nodes:
        kind, value = node
        if kind is kinds.BRANCH:
            matched += min(least(one, chars) for one in value[1])
        elif kind in REPEATS:
            matched += value[0] * least(value[2], chars)
        elif kind is kinds.ASSERT:
            beside = max(beside, least(value[1], chars))
        elif (group := inside(node)) is not None:
            matched += least(group, chars)
        elif (found := chars_of(node)) is not None:
            matched += found <= chars
    return max(matched, beside)


def paths(nodes: Any, *, last: bool = True) -> list[Path]:
    """All the ways in which nodes match: with the last of repeats right before what follows them, or the first ones
    together. The order is the same."""
    found: list[Path] = [()]
    for node in nodes:
        found = [(*one, *more) for one, more in product(found, ways(node, last))]
    return found


def ways(node: tuple[Any, Any], last: bool) -> list[Path]:
    kind, value = node
    if kind in (kinds.ASSERT, kinds.ASSERT_NOT):
        return [()]
    if kind is kinds.BRANCH:
        return [one for branch in value[1] for one in paths(branch, last=last)]
    if (group := inside(node)) is not None:
        return paths(group, last=last)
    if kind in REPEATS:
        fewest, most, body = value
        if most == 1 or most == fewest:
            return [one for times in range(fewest, most + 1) for one in paths([*body] * times, last=last)]
        # The last repeat stands right before what follows.
        if fewest == 0:
            return [(), *((None, *one) if last else (*one, None) for one in paths(body, last=last))]
        copies = product(paths([*body] * (fewest - 1), last=last), paths(body, last=last))
        return [(*one, None, *other) if last else (*one, *other, None) for one, other in copies]
    found = chars_of(node)
    # What begins with w or W is held by one part or the other.
    return [(frozenset("wｗ"),), (frozenset("WＷ"),)] if found == frozenset("wWｗＷ") else [(found,)]


def holds(path: Path, part: Path) -> bool:
    """Whether whatever matches along a path holds a match of a part."""
    return any(
        all(one is not None and of is not None and one <= of for one, of in zip(path[start:], part, strict=False))
        for start in range(len(path) - len(part) + 1)
    )


@pytest.mark.parametrize("name", ALL_KINDS)
def test_what_a_kind_needs_follows_from_its_pattern(name: str) -> None:
    pattern = parser.parse(KINDS[name].pattern)
    fewest = least(pattern, DIGITS)

    parts = [_parts(needs.parts) for needs in NEEDS[name]]

    def met(path: Path, other: Path) -> bool:
        digits = max(fewest, sum(one is not None and one <= DIGITS for one in path))
        return any(
            digits >= needs.digits
            and (not of_part or any(holds(way, part) for way in (path, other) for part in of_part))
            for needs, of_part in zip(NEEDS[name], parts, strict=True)
        )

    every = zip(paths(pattern), paths(pattern, last=False), strict=True)
    assert [one for one in every if not met(*one)] == []


def _parts(written: Iterable[str]) -> list[Path]:
    return [way for part in written for way in paths(parser.parse(str(parsed(part))))]


@settings(max_examples=300, deadline=None)
@given(text=st.text("wW.:/@09azAZ \x7f-+()", max_size=12))
def test_parts_in_ascii_are_those_of_any_text(text: str) -> None:
    for part in {part for needs in NEEDS.values() for one in needs for part in one.parts}:
        of_any = regex.search(str(parsed(part)), text)
        assert (re.search(part, text, re.ASCII) is None) == (of_any is None), part


def test_every_digit_of_the_tokenizers_library_is_counted() -> None:
    theirs = normalizers.Replace(Regex(r"\D+"), "").normalize_str(EVERY)
    assert set(theirs) <= DIGITS


@pytest.mark.parametrize(
    ("pattern", "digits", "held"),
    [
        ("[0-9]{3,5}", 3, "[0-9]{3}"),
        ("(?=[a-z]*[0-9])[a-z0-9]+", 1, ""),
        ("(?:a[0-9]?){2,}b", 0, "ab|[0-9]b"),
        ("(?>[0-9]+)x|www", 0, "[0-9]x|w{3}"),
        ("(?<!x)(?:[0-9]{2}-){4}", 8, "[0-9]-"),
    ],
)
def test_the_derivation_finds_no_more_than_there_is(pattern: str, digits: int, held: str) -> None:
    parsed = parser.parse(pattern)
    assert least(parsed, DIGITS) == digits
    parts = paths(parser.parse(held)) if held else [()]
    every = list(zip(paths(parsed), paths(parsed, last=False), strict=True))
    assert all(any(holds(way, part) for way in one for part in parts) for one in every)
    assert not all(any(holds(path, (*part, frozenset("!"))) for part in parts) for path in paths(parsed))


def test_canonical_composition_makes_no_sign_that_is_needed_but_a_k() -> None:
    needed = DIGITS.union(string.ascii_letters, "@:/.＠：／．")
    composed = {one: unicodedata.normalize("NFC", one) for one in EVERY}
    assert [one for one, by in composed.items() if by != one and not needed.isdisjoint(by)] == ["\u212a"]
    masks = MaskSteps("NFC", steps_of(TextSpec(mask=ALL_KINDS)))
    assert masks("see example.u\u212a now") == "see [URL] now"


@pytest.mark.parametrize("form", ["NFC", "NFKC", "none"])
def test_the_steps_that_are_taken_give_what_all_of_them_give(form: str) -> None:
    spec = TextSpec.model_validate({"mask": ALL_KINDS, "unicode_form": form, "lowercase": False})
    masks, whole = MaskSteps(form, steps_of(spec)), build_normalizer(spec)
    texts = [one.text for one in texts_with_identifiers(500)]
    assert [masks(text) for text in texts] == list(map(whole.normalize_str, texts))
    taken = {masks.needed(text) for text in texts}
    if form == "NFKC":
        assert {masks.needed(text) for text in texts if not text.isascii()} == {tuple(range(2 + len(KINDS)))}
    else:
        assert len(taken) > 20
        assert masks.needed("a great film, really great! Café.") == ()
        assert [["invisible", "pseudonyms", *KINDS][place] for place in masks.needed("10/10, as in 1994")] == [
            "phone",
            "cn_plate",
        ]


def test_what_an_own_pattern_needs_is_not_guessed() -> None:
    spec = TextSpec(mask=("number",), mask_patterns={"secret": "film"})
    masks = MaskSteps("NFC", steps_of(spec))
    assert masks("a film") == "a [SECRET]"
    assert masks.needed("a play") == (2,)


def test_a_pattern_of_another_version_is_always_taken() -> None:
    """A bundle has the patterns that it was trained with."""
    steps = [normalizers.NFC(), *as_normalizers([MaskStep("film", "[NUMBER]")])]
    found = found_in(normalizers.Sequence(steps))
    assert found is not None
    assert found[0]("a film") == "a [NUMBER]"


def test_there_are_needs_of_each_kind_and_without_masks_no_steps() -> None:
    assert set(NEEDS) == set(KINDS)
    assert found_in(build_normalizer(TextSpec())) is None
