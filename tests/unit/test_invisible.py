"""An invisible character within an identifier hides it from no one who masks; elsewhere it stays."""

import json
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, normalizers

from tests.masked_texts import (
    ALL_KINDS,
    INVISIBLE_CHARS,
    KNOWN_INVISIBLE,
    divided,
    divided_texts,
    texts_with_identifiers,
)
from tests.tiny_tokenizers import TOKENIZERS, by_transformers, save_with_tokenizer
from textcls.masking.pseudonyms import PseudonymKey
from textcls.settings.pattern_tree import Chars, Look, Node, parsed, parts_of
from textcls.settings.recipe import TextSpec
from textcls.text.invisible import INVISIBLE, holds_invisible, is_pattern_within, pattern_within
from textcls.text.letters import OF_WORDS, WITHOUT_SPACES
from textcls.text.masks import KINDS, MaskKind, masker_of
from textcls.text.normalizer import build_normalizer, normalizer_of
from textcls.text.text_input import TextInput
from textcls.text.tokenizer import InputTokenizer
from textcls.text.tokenizer_files import TokenizerFiles, prepare_tokenizer
from textcls.text.words import words_of

ALL = TextSpec(mask=ALL_KINDS, max_tokens=512)
EVERY = [chr(code) for code in (*range(0xD800), *range(0xE000, 0x110000))]
WITHIN = pattern_within(tuple(kind.pattern for kind in KINDS.values()))
# Invisible characters that mean something, and that are within no identifier.
MEANT = [
    *("می\u200cخواهم", "क्\u200dष", "क\u094d\u200cष", "שלום\u200f 12", "❤\ufe0f film", "1\ufe0f\u20e32\ufe0f\u20e3"),
    *("\U0001f469\u200d\U0001f4bb code", "给\u200b你", "\ufefffilm", "film\u200e", "film \u200b给", "一\U000e0100 1"),
]


WRITTEN = texts_with_identifiers(300, seed=18)
DIVIDED = divided_texts(WRITTEN)


@pytest.fixture(scope="module", params=TOKENIZERS)
def directory(request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with a tokenizer of each kind."""
    return save_with_tokenizer(request.param, tiny_model_dir, tmp_path_factory.mktemp("model"))


def ids_of(files: TokenizerFiles, texts: list[str]) -> list[list[int]]:
    return InputTokenizer(files)([TextInput(text) for text in texts])[0]


# --- which characters ------------------------------------------------------------------------------------------------


def test_the_format_characters_and_controls_of_unicode_are_invisible_and_nothing_that_is_seen() -> None:
    spaces = set("\t\n\v\f\r\x85")
    expected = {char for char in EVERY if unicodedata.category(char) in ("Cf", "Cc")} - spaces
    assert expected.union(KNOWN_INVISIBLE) <= set(INVISIBLE_CHARS)
    # Beside them: variation selectors, fillers, and unassigned characters that Unicode keeps free for such ones.
    rest = {unicodedata.category(char) for char in INVISIBLE_CHARS if char not in expected}
    assert rest == {"Mn", "Lo", "Cn"}
    assert not set(INVISIBLE_CHARS).intersection(char for kind in KINDS.values() for char in kind.placeholder + " \t\n")


def test_both_engines_know_the_same_invisible_characters() -> None:
    every = "".join(EVERY)
    assert normalizers.Replace(Regex(INVISIBLE), "").normalize_str(every) == regex.sub(INVISIBLE, "", every)


def test_each_is_noticed_and_nothing_else() -> None:
    assert "".join(char for char in EVERY if holds_invisible(f"a{char}")) == "".join(INVISIBLE_CHARS)
    assert not [char for char in INVISIBLE_CHARS if not holds_invisible(f"給é\n{char}给")]
    assert not holds_invisible("\r\n\t\v\f\u3000\xa0\u2028")


def consumed(node: Node) -> Iterator[Chars]:
    """The sets of characters that a pattern matches itself."""
    if isinstance(node, Chars):
        yield node
    for part in () if isinstance(node, Look) else parts_of(node):
        yield from consumed(part)


@pytest.mark.parametrize("name", ALL_KINDS)
def test_whatever_can_be_part_of_an_identifier_counts(name: str) -> None:
    within = regex.compile(pattern_within((KINDS[name].pattern,)))
    sets = list(consumed(parsed(KINDS[name].pattern)))
    assert not [one for one in sets if one.negated or one.categories]
    parts = {chr(code) for one in sets for first, last in one.ranges for code in range(first, last + 1)}
    if name in ("email", "url"):  # of the letters of all scripts, those that nothing invisible shapes; marks never
        letters = regex.findall(f"[{OF_WORDS}{WITHOUT_SPACES}]", "".join(EVERY))
        few = [one for one in sets if sum(last - first for first, last in one.ranges) < 100]
        listed = {chr(first) for one in few for first, _ in one.ranges}
        unshaped = {one for one in letters if one < "\u0531" or "\u1d00" <= one < "\u2070"}
        marks = {one for one in letters if unicodedata.category(one)[0] == "M"}
        parts = parts.difference(letters) | listed | unshaped - marks
    of_plane = [char for char in EVERY if char < "\U00010000" and char != "\n"]
    kept = within.sub("", "\n".join(f"{char}\u200b{char}" for char in of_plane)).split("\n")
    gone = {char for char, line in zip(of_plane, kept, strict=True) if line == char + char}
    # Those that are invisible themselves are neither; brackets are what a placeholder begins and ends with.
    assert gone == parts.union("[]［］")


def test_characters_of_own_patterns_count_too() -> None:
    spec = TextSpec(mask_patterns={"ticket": r"(?i)дело[-№]?\d{4}", "staff": r"工号\w\d{4}"}, lowercase=False)
    for text in ("де\u200bло-12\u200b34", "ДЕЛО№\u200b1234", "工\u200b号\u200bE\u200b1234"):
        masked = "[STAFF]" if "工" in text else "[TICKET]"
        assert masker_of(spec)(text) == normalizer_of(spec)(text) == masked
    assert normalizer_of(spec)("и\u200bя") == "и\u200bя"
    # A mark is not composed with a letter that an invisible character kept it from.
    spec = TextSpec(mask_patterns={"letters": "[a-z\u0301\u1100-\u11ff]{30}"})
    for text in ("e\u200b\u0301", "\u1100\u200b\u1161"):
        assert normalizer_of(spec)(text) == build_normalizer(spec).normalize_str(text) == text


def test_the_step_is_known_by_its_form() -> None:
    assert is_pattern_within(WITHIN)
    assert is_pattern_within(pattern_within(("x",)))
    assert is_pattern_within(WITHIN.replace(INVISIBLE, "[\u200b-\u200d]"))
    assert not [kind for kind in KINDS.values() if is_pattern_within(kind.pattern)]
    assert not is_pattern_within("[ab]+")


@pytest.mark.parametrize("after", ["2", "给"])
def test_any_number_of_them_takes_no_more_than_its_length(after: str) -> None:
    text = "1" + "\u200b" * 300_000 + after
    expected = text.replace("\u200b", "") if after == "2" else text
    assert normalizers.Replace(Regex(WITHIN), "").normalize_str(text) == regex.sub(WITHIN, "", text) == expected


# --- what the model reads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["NFC", "NFKC", "none"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_a_divided_identifier_has_the_ids_of_its_placeholder_whatever_loads_the_tokenizer(
    form: str, lowercase: bool, directory: Path, tmp_path: Path
) -> None:
    spec = TextSpec.model_validate({**ALL.model_dump(), "unicode_form": form, "lowercase": lowercase})
    files = prepare_tokenizer(str(directory), spec)
    ids = ids_of(files, DIVIDED)
    assert ids == ids_of(files, [one.typed for one in WRITTEN])
    assert ids == by_transformers(files, directory, tmp_path)(DIVIDED, truncation=True)["input_ids"]
    assert list(map(normalizer_of(spec), DIVIDED)) == [build_normalizer(spec).normalize_str(one) for one in DIVIDED]
    # Rows are duplicates with their placeholders.
    assert list(map(normalizer_of(spec), DIVIDED)) == [normalizer_of(spec)(one.typed) for one in WRITTEN]


@pytest.mark.parametrize("name", ALL_KINDS)
def test_each_character_is_found_in_each_kind(name: str, tiny_model_dir: Path) -> None:
    spec = TextSpec(mask=(name,))  # type: ignore[arg-type]
    normalize, mask, chance = normalizer_of(spec), masker_of(TextSpec(mask=ALL_KINDS)), random.Random(1)
    values = [
        one.values[0] for one in WRITTEN if one.typed.strip().count("[") == 1 and f"[{name.upper()}]" in one.typed
    ]
    placeholder = KINDS[name].placeholder
    for char in KNOWN_INVISIBLE:
        plain = chance.choice(values)
        value = divided(plain, chance, char)
        assert normalize(f"给{value}。") == normalize(f"给{placeholder}。"), ascii(value)
        assert _visible(mask(value)) == mask(plain)


@pytest.mark.parametrize("text", MEANT, ids=ascii)
def test_elsewhere_they_stay(text: str, directory: Path) -> None:
    plain, masked = (prepare_tokenizer(str(directory), spec) for spec in (TextSpec(max_tokens=512), ALL))
    assert ids_of(plain, [text]) == ids_of(masked, [text])
    assert masker_of(ALL)(text) == text
    beside = f"{text}\n13800001234\n{text}"
    assert masker_of(ALL)(beside) == f"{text}\n[CN_MOBILE]\n{text}"
    assert ids_of(masked, [beside]) == ids_of(masked, [f"{text}\n[CN_MOBILE]\n{text}"])


def test_they_go_only_from_between_characters_of_the_kinds_that_are_masked() -> None:
    normalize = normalizer_of(TextSpec(mask=("cn_mobile",)))
    assert normalize("co\u00adop 138\u00ad00001234") == "co\u00adop [cn_mobile]"


_FILES: dict[str, tuple[TokenizerFiles, Tokenizer]] = {}
PARTS = st.sampled_from(
    [
        *(value for one in WRITTEN[:40] for value in one.values),
        *("film", " ", "给", "[PAD]", "[SEP]", "[SE\u200bP]", "[EMAIL]", "[CARD:0123456789abcdef]", "1", "2024", "@"),
        *(".com", "é", "e\u0301", "①", "ＰＡＤ", "://", "www", "\n", "می\u200cخ", "❤\ufe0f", *KNOWN_INVISIBLE),
    ]
)


@settings(max_examples=300)
@given(parts=st.lists(PARTS, max_size=10).map("".join))
def test_texts_are_encoded_as_by_the_whole_normalizer(parts: str, tiny_model_dir: Path) -> None:
    for form in ("NFC", "NFKC", "none"):
        spec = TextSpec.model_validate({**ALL.model_dump(), "unicode_form": form})
        if form not in _FILES:
            files = prepare_tokenizer(str(tiny_model_dir), spec)
            _FILES[form] = (files, Tokenizer.from_str(files.tokenizer_json))
        files, whole = _FILES[form]
        assert ids_of(files, [parts]) == [whole.encode(parts).ids]
        assert normalizer_of(spec)(parts) == build_normalizer(spec).normalize_str(parts)


def test_a_bundle_of_an_earlier_version_encodes_as_it_did(tiny_model_dir: Path) -> None:
    files = prepare_tokenizer(str(tiny_model_dir), ALL)
    content = json.loads(files.tokenizer_json)
    steps = content["normalizer"]["normalizers"]
    kept = [one for one in steps if one.get("pattern", {}).get("Regex") != WITHIN]
    assert len(kept) == len(steps) - 1
    content["normalizer"]["normalizers"] = kept
    earlier = TokenizerFiles(json.dumps(content), files.config_json, files.max_tokens, files.pad_id)
    whole = Tokenizer.from_str(earlier.tokenizer_json)
    whole.enable_truncation(earlier.max_tokens)
    texts = DIVIDED[:200] + [one.text for one in WRITTEN[:200]]
    assert ids_of(earlier, texts) == [one.ids for one in whole.encode_batch(texts)]
    assert ids_of(earlier, texts) != ids_of(files, texts)


def test_the_word_of_a_divided_identifier_is_all_of_it_in_the_user_s_text(directory: Path) -> None:
    encode = InputTokenizer(prepare_tokenizer(str(directory), ALL))
    texts = [
        "mail jo\u200bhn@\u00adexample.com给138\u2060\u20600000\ufeff1234，\U0001f469\u200d\U0001f4bb film",
        *DIVIDED[:200],
    ]
    values = [("jo\u200bhn@\u00adexample.com", "138\u2060\u20600000\ufeff1234")]
    values += [
        tuple(regex.findall(_spaced(one.values), text)) for one, text in zip(WRITTEN, DIVIDED[:200], strict=False)
    ]
    for text, expected, (part,) in zip(texts, values, encode.spans([TextInput(text) for text in texts]), strict=True):
        words, _ = words_of([text], (span for span in part if span is not None))
        found = [text[word.start : word.end] for word in words]
        assert [word for word in found if word in expected] == list(expected), ascii(text)


def _spaced(values: tuple[str, ...]) -> str:
    """A pattern of the values with invisible characters anywhere within them."""
    return "|".join(f"{INVISIBLE}*".join(map(regex.escape, value)) for value in values)


# --- what people read ------------------------------------------------------------------------------------------------


def test_people_read_the_placeholder_and_every_other_character() -> None:
    mask = masker_of(ALL)
    for text, masked in {
        "\u200bcall 138\u200b0000\u200d1234\u200b, می\u200cخ": "\u200bcall [CN_MOBILE]\u200b, می\u200cخ",
        "co\u00adop a\u00ad@exam\u2060ple.com, x\u200by": "co\u00adop [EMAIL], x\u200by",
        "卡4111\x00 1111\u200e 1111 1111，": "卡[CARD]，",
        "卡4111 1111\u200b 1111 1112": "卡[NUMBER]",
        "[EMAIL:0123456789abcdef]\u200b138\u200b00001234": "[EMAIL:0123456789abcdef]\u200b[CN_MOBILE]",
        "❤\ufe0f 12\u200b3": "❤\ufe0f 12\u200b3",
    }.items():
        assert mask(text) == masked
    # The wrong check digit is right to read, with all that was written.
    assert masker_of(TextSpec(mask=("card",)))("卡4111\u200b111111111112") == "卡4111\u200b111111111112"


def _visible(text: str) -> str:
    return regex.sub(INVISIBLE, "", text)


@given(parts=st.lists(PARTS, max_size=10).map("".join))
def test_invisible_characters_change_nothing_that_people_see(parts: str) -> None:
    mask = masker_of(ALL)
    joined = regex.sub(WITHIN, "", parts)
    assert _visible(mask(parts)) == _visible(mask(joined))
    if mask(joined) == joined:
        assert mask(parts) == parts


def test_values_are_counted_and_have_the_pseudonym_of_the_value_as_it_is_seen() -> None:
    mask, key = masker_of(ALL), PseudonymKey(b"k" * 32)

    def keyed(kind: MaskKind, value: str) -> str:
        assert not regex.search(INVISIBLE, value)
        return f"{kind.placeholder[:-1]}:{key.pseudonym(kind.name, value)}]"

    for one, text in zip(WRITTEN, DIVIDED, strict=True):
        # A value with a wrong check digit may stay, with all that was written.
        assert _visible(mask(text)) == mask(one.text)
        assert mask.counts(text) == mask.counts(one.text)
        assert _visible(mask.replaced(text, keyed)) == mask.replaced(one.text, keyed)
