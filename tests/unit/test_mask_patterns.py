"""A user's own patterns: both engines read them as Python does, and none that could run away is taken."""

import json
import re
import shlex
import string
import unicodedata
from itertools import pairwise

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, normalizers

from textcls.errors import RecipeError
from textcls.masking.settings import mask_settings
from textcls.settings.mask_patterns import portable
from textcls.settings.pattern_cost import MOST_STEPS, check_cost
from textcls.settings.pattern_tree import MOST_REPEATS, parsed, widths
from textcls.settings.recipe import TextSpec
from textcls.settings.recipe_file import parse_recipe
from textcls.text.masks import KINDS, masker_of

_MARK = "\ue000"


def by_both(pattern: str, text: str) -> str:
    """The text with a mark in place of each match; that of both engines, which must be the same."""
    found: str = regex.sub(pattern, _MARK, text)
    assert normalizers.Replace(Regex(pattern), _MARK).normalize_str(text) == found
    return found


# --- the same meaning as in Python ------------------------------------------------------------------------------------


def _repeated(body: str, count: str) -> str:
    return f"(?:{body}){count}"


_PATTERNS = st.recursive(
    st.sampled_from(
        [*"aB1", "é", "中", r"\.", r"\d", r"\w", r"\s", r"\W", r"\D", ".", "[a-c1]", "[^a1]", r"[\d_-]", "ab"]
    ),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["?", "{2}", "{1,3}", "+", "*", "+?", "{0,2}?", "{2}?"])).map(
            lambda pair: _repeated(*pair)
        ),
        st.tuples(st.sampled_from(["(?={})", "(?!{})", "(?>{})", "({})", "(?i:{})"]), inner).map(
            lambda pair: pair[0].format(pair[1])
        ),
        st.tuples(st.sampled_from([r"(?<=a)", r"(?<!\d)", r"\b", r"\B"]), inner).map("".join),
    ),
    max_leaves=6,
)


@settings(max_examples=500, deadline=None)
@given(pattern=_PATTERNS, text=st.text("aAbBcC12é_. \n-", max_size=12))
@example(pattern="(?:a|ab)(?:c|bcd)", text="abcd")
@example(pattern="(?i)É", text="éÉ")
@example(pattern="[a-c]{2}?b", text="abcab")
def test_both_engines_find_what_python_finds(pattern: str, text: str) -> None:
    try:
        written = portable(pattern)
    except ValueError:
        return
    assert by_both(written, text) == re.sub(pattern, _MARK, text)


@pytest.mark.parametrize("char", [*map(chr, range(1, 127)), "é", "中", "𠀀", "\u3000"], ids=ascii)
def test_every_character_stands_for_itself_alone_and_in_a_set(char: str) -> None:
    others = "".join(one for one in string.printable if one not in (char, unicodedata.normalize("NFKC", char)))
    for pattern in (re.escape(char), f"[{re.escape(char)}7]", f"x?{re.escape(char)}{{1,2}}"):
        # A seven, an x and the character's neighbour of full width are no others.
        text = others.replace("7", "").replace("x", "")
        assert by_both(portable(pattern), f"{text}{char}{text}") == f"{text}{_MARK}{text}"


def test_full_width_is_the_same_as_plain() -> None:
    masker = masker_of(TextSpec(mask_patterns={"employee_id": r"E-\d{6}", "code": "[^ -~]x"}))
    assert masker("E-123456 Ｅ－１２３４５６ Ｅ-12３４56") == "[EMPLOYEE_ID] [EMPLOYEE_ID] [EMPLOYEE_ID]"
    assert masker("ax ａx 中x") == "ax ａx [CODE]"


def test_a_border_of_a_word_is_also_beside_chinese_japanese_and_korean_letters() -> None:
    pattern = portable(r"\bE\d{3}\b")
    assert by_both(pattern, "工号E123号 はE123は 번호E123이 (E123) E123") == "工号# 号#"[:2] + (
        f"{_MARK}号 は{_MARK}は 번호{_MARK}이 ({_MARK}) {_MARK}"
    )
    assert by_both(pattern, "XE123 E1234 éE123 E123_") == "XE123 E1234 éE123 E123_"
    assert by_both(portable(r"\BE\d{3}"), "号E123 XE123") == f"号E123 X{_MARK}"


def test_a_repeat_without_a_limit_has_one() -> None:
    pattern = portable(r"E\d+")
    assert widths(parsed(r"E\d+")) == (2, MOST_REPEATS + 1)
    assert by_both(pattern, "E" + "1" * MOST_REPEATS + "2") == _MARK + "2"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(", "missing )"),
        (r"\p{Han}", r"bad escape \p"),
        ("[[:alpha:]]", "nested set"),
        ("[a&&b]", "set"),
        (r"(a)\1", "a reference to a group"),
        ("(a)(?(1)b|c)", "a condition on a group"),
        ("(?m)x", "only a, i, s and x"),
        ("(?m:x)", "only a, i, s and x"),
        (r"(?a)\D", "not supported together"),
        ("^E", "leave out ^"),
        (r"E$", "leave out $"),
        ("(a?)+b", "may be empty"),
        (r"(?<=a+)b", "fixed number"),
        ("x*", "empty text"),
        ("(?=a)", "empty text"),
        ("\ud800", "surrogate"),
    ],
)
def test_what_the_engines_do_not_share_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        portable(pattern)


def test_flags_groups_and_possessive_repeats_are_taken() -> None:
    assert by_both(portable("(?i)badge ?(no)?: ?(?P<id>[a-z]{2})"), "BADGE NO: XY, Badge:ab") == f"{_MARK}, {_MARK}"
    assert by_both(portable(r"(?x) E  \d # a digit"), "E1 E 1") == f"{_MARK} E 1"
    assert by_both(portable("(?s)a.b"), "a\nb") == _MARK
    assert by_both(portable(r"(?a)\d\w\s"), "1a ١a 1é １ａ ") == f"{_MARK}١a 1é {_MARK}"
    assert by_both(portable("a{1,2}+b"), "aab aaab ab") == f"{_MARK} a{_MARK} {_MARK}"


def test_the_parser_of_python_gives_the_names_that_the_tree_is_made_from() -> None:
    tree = parsed(r"(?i:A)[^\d]{2,}?(?<!x)(?>y|zz)\b")
    assert str(tree).startswith(r"[AaＡａ][^\d]{2,200}?(?<![xｘ])(?>(?:[yｙ]|[zｚ][zｚ]))(?:(?<!")


# --- no pattern runs away ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|aa)+b",
        r"(\w*)*x",
        "(.*a){20}",
        "(.+a){20}",
        "(x+x+)+y",
        "(a|a)*b",
        "(?:a?){30}a{30}",
        "a?" * 30 + "a" * 30,
        r"^(([a-z])+.)+[A-Z]([a-z])+$",
        ".*a.*b",
        r"\w+\d+",
        "(?=(a+)+b)a",
        "(?!(a+)+b)a",
        "(?>(a+)+)b",
        "([𠀀-𪛟]+)+a",
        r"(\w+\s?)*!",
        "(?:[ab]{1,20}c?){1,20}d",
        r"([\w-]+\.)+\w+",
        r"(\d{1,60}){1,60}x",
        "(?:|)" * 30 + "x",
        "(?:a?)" * 30 + "x",
    ],
)
def test_a_pattern_that_could_run_away_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"could run for very long|could take|may be empty|too intricate"):
        portable(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"E\d{6}",
        r"\d+",
        r"[A-Z]{2,3}-\d{4,8}",
        r"(?i)order[ -]?(?:no\.?|number)?:? ?#?\d{5,}",
        r"(?<!\d)\d{9}(?!\d)",
        r"工号[:：]?\s*\d+",
        r"\bMRN-\d{7}\b",
        r"[\w.-]+@[\w.-]+\.\w+",
        r"(?:\d{4}[ -]?){4}",
        r"(?:[A-Z]{1,10}-){1,20}\d",
        r"(?:\d[ -]?){13,19}",
        "a.{20}b",
        r"\d{1,6}\d{1,6}",
        r"[一-龥]{2,4}先生",
        r"\d{3}-\d{2}-\d{4}",
        r"(?:foo|foobar|foobarbaz)+",
        "(?:ab|cd|ef|gh){1,64}",
    ],
)
def test_an_ordinary_pattern_is_taken(pattern: str) -> None:
    assert portable(pattern)
    assert 0 < check_cost(parsed(pattern)) <= MOST_STEPS


@pytest.mark.parametrize("name", KINDS)
def test_no_built_in_kind_can_run_away(name: str) -> None:
    assert check_cost(parsed(KINDS[name].pattern)) <= MOST_STEPS


def _ways(node_pattern: str, text: str) -> int:
    """The ways in which prefixes of a text are read to their end, counted one by one by a search that backtracks."""
    from textcls.settings.pattern_tree import Chars, Choice, Node, Repeat, Sequence

    def ends(node: Node, start: int) -> list[int]:
        if isinstance(node, Chars):
            fits = start < len(text) and re.fullmatch(str(node), text[start])
            return [start + 1] if fits else []
        if isinstance(node, Sequence):
            found = [start]
            for part in node.parts:
                found = [end for one in found for end in ends(part, one)]
            return found
        if isinstance(node, Choice):
            return [end for option in node.options for end in ends(option, start)]
        assert isinstance(node, Repeat)
        found, rounds = [], [start]
        for i in range((len(text) if node.most is None else node.most) + 1):
            found += rounds if i >= node.least else []
            rounds = [end for one in rounds for end in ends(node.body, one)]
        return found

    return ends(parsed(node_pattern), 0).count(len(text))


_SMALL = st.recursive(
    st.sampled_from(["a", "b", "[ab]", "."]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["?", "{2}", "{1,3}", "+", "*"])).map(lambda pair: _repeated(*pair)),
    ),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None)
@given(pattern=_SMALL, text=st.text("ab", max_size=8))
@example(pattern="(?:a+)+", text="aaaaa")
@example(pattern="(?:a|aa)+b", text="aaaaab")
def test_the_steps_of_a_pattern_that_is_taken_bound_the_ways_to_read_any_text(pattern: str, text: str) -> None:
    try:
        tree = parsed("-" + pattern)  # at the top, alternatives are added up
        steps = check_cost(tree)
    except ValueError:
        return
    assert _ways("-" + pattern, "-" + text) <= steps // (1 + widths(tree)[1])


# --- in a recipe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            "{own: '(a+)+b'}",
            "pattern own ('(a+)+b') cannot be used: it could run for very long: the text 'aaaaaaa'",
        ),
        ("{staff: '[A-Z]{4,}'}", "matches within [STAFF], which replaces staff"),
        ("{badge: 'x\\d', other: 'ADG'}", "matches within [BADGE], which replaces badge"),
    ],
)
def test_a_recipe_with_such_a_pattern_is_refused(patterns: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_recipe("", [f"text.mask_patterns={patterns}"])
    assert message in str(error.value)


def test_what_the_messages_advise_is_taken() -> None:
    for advised in ("a+b", r"(?:[\w-]+\.){1,20}\w+", "x+", r"[A-Z]{4,}\d"):
        assert parse_recipe("", [f"text.mask_patterns={{own: '{advised}'}}"]).text.mask_patterns == {"own": advised}


def refused(*overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as error:
        parse_recipe("", overrides)
    return error.value


def advised_by(error: RecipeError) -> list[str]:
    """The values of the `--set` in an advice, as a shell passes them on."""
    words = shlex.split(error.todo.partition(" In a recipe:")[0])
    return [value for option, value in pairwise(words) if option == "--set"]


@pytest.mark.parametrize("char", [chr(code) for code in (*range(9), 11, 12, *range(14, 32), 0x85)])
def test_control_characters_of_double_quotes_are_refused_and_the_advice_is_what_was_meant(char: str) -> None:
    pattern = f"{char}[E][0-9]{{6}}{char}"
    error = refused(f"text.mask_patterns={json.dumps({'own': pattern})}")
    assert "control character" in error.found
    text = parse_recipe("", advised_by(error)).text
    (meant,) = text.mask_patterns.values()
    assert re.fullmatch(meant, "E123456" if char == "\b" else f"{char}E123456{char}")
    assert parse_recipe(f"text: {{mask_patterns: {{{error.todo.partition(' In a recipe: ')[2]}}}}}").text == text


def test_a_border_of_a_word_in_double_quotes_is_not_accepted_as_a_backspace() -> None:
    error = refused(r'text.mask_patterns={a: "\b[E][0-9]{6}\b"}')
    assert advised_by(error) == [r"text.mask_patterns.a=\b[E][0-9]{6}\b"]
    masker = masker_of(parse_recipe("", advised_by(error)).text)
    assert masker("a E123456.") == "a [A]."


@pytest.mark.parametrize(
    "pattern",
    [r"[A-Z]{1}\d{6}", r"{x}\d", r"\*\d", r"&\d", r"!\d", r"%\d", r"@\d", r"#\d", r"a\d #b", "-5", "~5", "null5"],
)
def test_a_pattern_after_its_name_is_taken_as_it_is(pattern: str) -> None:
    assert parse_recipe("", [f"text.mask_patterns.a={pattern}"]).text.mask_patterns == {"a": pattern}


def test_a_pattern_after_its_name_may_be_in_quotes_of_yaml() -> None:
    for quoted in (r"'E\d{6}'", r'"E\\d{6}"'):
        assert parse_recipe("", [f"text.mask_patterns.a={quoted}"]).text.mask_patterns == {"a": r"E\d{6}"}
    assert "leave out the quotes" in refused(r'text.mask_patterns.a="E\d{6}"').todo


def test_a_pattern_without_a_name_is_given_one() -> None:
    error = refused(r"text.mask_patterns=E\d{6}")
    assert "a name for each pattern" in error.found
    assert parse_recipe("", advised_by(error)).text.mask_patterns == {"own": r"E\d{6}"}
    assert advised_by(refused("text.mask_patterns=[A-Z]"))


@pytest.mark.parametrize(
    ("given", "said", "meant"),
    [
        ("email,phone", "in brackets", ("email", "phone")),
        ("[emial]", "did you mean email?", ("email",)),
        ("[Email, ip]", "did you mean email?", ("email", "ip")),
        ("email,fone", "did you mean phone?", ("email", "phone")),
        ("[qqq]", "there is no kind 'qqq'\n", ("email", "phone")),
    ],
)
def test_a_wrong_kind_is_told_with_the_list_that_is_meant(given: str, said: str, meant: tuple[str, ...]) -> None:
    error = refused(f"text.mask={given}")
    assert said in error.found
    assert parse_recipe("", advised_by(error)).text.mask == meant
    with pytest.raises(RecipeError, match="--mask emial,phone: there is no kind 'emial'; did you mean email") as caught:
        mask_settings(["a.csv"], ["emial", "phone"], [], [])
    assert caught.value.todo == "--mask email,phone"


@pytest.mark.parametrize("epsilon", ["0", "-1", "2000", "none"])
def test_an_epsilon_that_is_no_budget_is_told_a_usual_one(epsilon: str) -> None:
    error = refused(f"privacy.epsilon={epsilon}")
    assert "from 0.1 to 1000" in error.found
    assert "--set privacy.epsilon=8 is usual" in error.todo
    assert parse_recipe("", advised_by(error)).privacy.epsilon == 8
