"""Kinds of personal data: what is found, in what order it is replaced, and that both engines find the same."""

from typing import get_args

import pytest
import regex
from tokenizers import Regex, normalizers

from textcls.errors import RecipeError
from textcls.settings.mask_names import MaskName
from textcls.settings.recipe import TextSpec
from textcls.settings.recipe_file import parse_recipe
from textcls.text.masks import KINDS, mask_kinds, masker_of

ALL = TextSpec(mask=get_args(MaskName))


def test_there_is_a_kind_for_every_name_and_a_placeholder_for_every_kind() -> None:
    assert set(KINDS) == set(get_args(MaskName))
    assert {kind.placeholder for kind in KINDS.values()} == {f"[{name.upper()}]" for name in KINDS}
    assert list(KINDS)[-1] == "number"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to zhang.san@example.com, please", "write to [EMAIL], please"),
        ("邮箱zhang@example.com。", "邮箱[EMAIL]。"),
        ("see https://example.com/a?b=c@example.com.", "see [URL]."),
        ("卡4111 1111 1111 1111，已办", "卡[CARD]，已办"),
        ("DE89 3704 0044 0532 0130 00 OK", "[IBAN] OK"),
        ("身份证11010519491231002X号", "身份证[CN_ID]号"),
        ("电话13800001234。", "电话[CN_MOBILE]。"),
        ("call (555) 555-0100 or +49 30 555 0100", "call [PHONE] or [PHONE]"),
        ("车牌京A12345、粤BD12345", "车牌[CN_PLATE]、[CN_PLATE]"),
        ("from 10.0.0.1 and 2001:db8::1", "from [IP] and [IP]"),
        ("护照E12345678", "护照[PASSPORT]"),
        ("order 123456 of 2024", "order [NUMBER] of 2024"),
    ],
)
def test_each_kind_is_masked_for_people_and_for_the_model(text: str, masked: str) -> None:
    assert masker_of(ALL)(text) == masked
    assert by_model(ALL, text) == masked


def test_wrong_check_digits_are_masked_for_the_model_alone() -> None:
    text = "卡4111111111111112，身份证110105194912310021"
    spec = TextSpec(mask=("card", "cn_id"))
    assert masker_of(spec)(text) == text
    assert [bool(regex.search(KINDS[name].pattern, text)) for name in spec.mask] == [True, True]
    assert masker_of(ALL)(text) == "卡[NUMBER]，身份证[NUMBER]"
    assert masker_of(ALL).counts(text) == {"number": 2}


def by_model(spec: TextSpec, text: str) -> str:
    """The text as the model reads it."""
    for kind in mask_kinds(spec):
        text = normalizers.Replace(Regex(kind.pattern), kind.placeholder).normalize_str(text)
    return text


def test_own_patterns_come_before_the_kinds_of_digits_and_nothing_is_masked_by_default() -> None:
    spec = TextSpec(mask=("number",), mask_patterns={"employee_id": r"E\d{6}"})
    assert [kind.name for kind in mask_kinds(spec)] == ["employee_id", "number"]
    assert masker_of(spec)("E123456 and 123456") == "[EMPLOYEE_ID] and [NUMBER]"
    assert mask_kinds(TextSpec()) == ()
    assert masker_of(TextSpec())("a@example.com") == "a@example.com"


@pytest.mark.parametrize(
    "value",
    [
        "DE89370400440532013000",
        "mail-E123456@example.com",
        "https://example.com/E123456/7",
        "www.example.com/?id=E123456",
    ],
)
def test_an_own_pattern_does_not_tear_addresses_and_account_numbers(value: str) -> None:
    spec = ALL.model_copy(update={"mask_patterns": {"employee_id": r"E\d{6}"}})
    names = [kind.name for kind in mask_kinds(spec)]
    assert names == ["url", "email", "iban", "employee_id", *list(KINDS)[3:]]
    masked = masker_of(ALL)(value)
    assert masked in ("[IBAN]", "[EMAIL]", "[URL]")
    text, expected = f"{value}, E123456", f"{masked}, [EMPLOYEE_ID]"
    assert (masker_of(spec)(text), by_model(spec, text)) == (expected, expected)


def test_an_own_pattern_tears_no_placeholder_of_the_kinds_before_it() -> None:
    spec = TextSpec(mask=("email",), mask_patterns={"word": "(?i)mail"})
    assert [kind.name for kind in mask_kinds(spec)] == ["word", "email"]
    text, expected = "mail a@example.com", "[WORD] [EMAIL]"
    assert (masker_of(spec)(text), by_model(spec, text)) == (expected, expected)


@pytest.mark.parametrize(
    "overrides", [["text.mask=[phone,email]"], ['text.mask=["email", "phone"]'], ["text.mask=[email,phone,email]"]]
)
def test_kinds_have_one_order_however_they_are_given(overrides: list[str]) -> None:
    recipe = parse_recipe("", overrides)
    assert recipe.text.mask == ("email", "phone")
    assert recipe.fingerprint == parse_recipe("text: {mask: [email, phone]}").fingerprint


def test_a_recipe_without_masks_is_written_as_before() -> None:
    assert not {"mask", "mask_patterns"} & set(TextSpec().model_dump())
    assert parse_recipe("", ["text.mask=email"]).text.mask == ("email",)
    assert parse_recipe("").fingerprint != parse_recipe("", ["text.mask=email"]).fingerprint


def test_settings_with_own_patterns_can_be_a_key() -> None:
    one, other = ({"a": "x+", "b": "y"}, {"b": "y", "a": "x+"})
    specs = [TextSpec(mask_patterns=patterns) for patterns in (one, other)]
    assert specs[0] == specs[1]
    assert hash(specs[0]) == hash(specs[1])
    assert list(specs[1].mask_patterns) == ["a", "b"]
    assert hash(specs[0]) != hash(TextSpec())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("text.mask=emial", "did you mean email?"),
        ("text.mask_patterns.email=x", "'email' is the name of a built-in kind"),
        ("text.mask_patterns.mask=x", "[MASK] is a token of BERT's kind"),
        ("text.mask_patterns.a1=x", "'a1' cannot be the name of a pattern"),
        ("text.mask_patterns={Id: x, id: y}", "two patterns have the placeholder [ID]"),
        ("text.mask_patterns.own=x*", "matches an empty text"),
        ("text.mask_patterns.own=x(", "the pattern own ('x(') cannot be used: missing )"),
    ],
)
def test_what_cannot_be_masked_is_refused(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_recipe("", [override])
    assert message in str(error.value)
