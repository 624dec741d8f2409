"""No identifier reaches the model, whatever loads the tokenizer; each is one token, which embeddings have a row for."""

import json
import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, normalizers

from tests.masked_texts import ALL_KINDS, texts_with_identifiers
from tests.tiny_tokenizers import TOKENIZERS, by_transformers, save_with_tokenizer
from textcls.errors import ModelError
from textcls.settings.recipe import TextSpec
from textcls.settings.recipe_file import parse_recipe
from textcls.text.masks import KINDS, mask_kinds
from textcls.text.normalizer import build_normalizer, normalizer_of
from textcls.text.text_input import TextInput
from textcls.text.tokenizer import InputTokenizer
from textcls.text.tokenizer_files import TokenizerFiles, prepare_tokenizer
from textcls.text.words import words_of

ALL = TextSpec(mask=ALL_KINDS, max_tokens=64)
SPECS = [
    TextSpec.model_validate({"mask": ALL_KINDS, "max_tokens": 64, "lowercase": lowercase, "unicode_form": form})
    for lowercase in (True, False)
    for form in ("NFC", "NFKC", "none")
]
WRITTEN = texts_with_identifiers(1000)


@pytest.fixture(scope="module", params=TOKENIZERS)
def directory(request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with a tokenizer of each kind."""
    return save_with_tokenizer(request.param, tiny_model_dir, tmp_path_factory.mktemp("model"))


def ids_of(encode: InputTokenizer, texts: list[str]) -> list[list[int]]:
    return encode([TextInput(text) for text in texts])[0]


# --- token ids -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.lowercase}-{spec.unicode_form}")
def test_no_identifier_reaches_the_model_whatever_loads_the_tokenizer(
    spec: TextSpec, directory: Path, tmp_path: Path
) -> None:
    files = prepare_tokenizer(str(directory), spec)
    encode = InputTokenizer(files)
    written, typed = [one.text for one in WRITTEN], [one.typed for one in WRITTEN]
    ids = ids_of(encode, written)
    assert ids == ids_of(encode, typed)
    theirs = by_transformers(files, directory, tmp_path / "saved")
    assert ids == theirs(written, truncation=True)["input_ids"]
    alone = Tokenizer.from_str(files.tokenizer_json)
    assert ids == [one.ids for one in alone.encode_batch(written)]
    # Only identifiers hold digits or @, in these texts.
    token_of = {i: token for token, i in alone.get_vocab().items()}
    assert not [one for of_text in ids for one in of_text if re.search(r"\d|@", token_of[one])]


def test_each_placeholder_is_one_token_wherever_it_stands(directory: Path) -> None:
    files = prepare_tokenizer(str(directory), ALL)
    encode, id_of = InputTokenizer(files), Tokenizer.from_str(files.tokenizer_json).token_to_id
    for kind in KINDS.values():
        for around in ("{}", "a{}a", "给{}给", "film {}, film", "{}{}"):
            (typed,) = ids_of(encode, [around.replace("{}", kind.placeholder)])
            (other,) = ids_of(encode, [around.replace("{}", "[EMAIL]")])
            own, mail = id_of(kind.placeholder), id_of("[EMAIL]")
            assert typed == [own if one == mail else one for one in other]
            assert typed.count(own) == around.count("{}")


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            [
                *(value for one in WRITTEN[:40] for value in one.values),
                *(
                    "film",
                    " ",
                    "给",
                    "[PAD]",
                    "[SEP]",
                    "[EMAIL]",
                    "[email]",
                    "1",
                    "2024",
                    "@",
                    ".com",
                    "ＰＡＤ",
                    "［",
                    "］",
                ),
                *(
                    "<s>",
                    "</s>",
                    "\u0301",
                    "é",
                    "²³",
                    "①",
                    "\u200b",
                    "\xad",
                    "[SE\u200dP]",
                    "\x00",
                    "\u2066",
                    "－",
                    "://",
                    "www",
                    "\n",
                ),
            ]
        ),
        max_size=8,
    ).map("".join)
)
@example(parts="［ＰＡＤ］13800001234")
@example(parts="www.example.com/[PAD]/13800001234")
@example(parts="a@[SEP]example.com")
def test_texts_are_encoded_as_by_the_whole_normalizer(parts: str, tiny_model_dir: Path) -> None:
    for spec in SPECS:
        files = _prepared(str(tiny_model_dir), spec)
        whole = Tokenizer.from_str(files.tokenizer_json)
        whole.enable_truncation(spec.max_tokens)
        assert ids_of(InputTokenizer(files), [parts]) == [whole.encode(parts).ids]
        assert normalizer_of(spec)(parts) == build_normalizer(spec).normalize_str(parts)


_FILES: dict[tuple[str, TextSpec], TokenizerFiles] = {}


def _prepared(directory: str, spec: TextSpec) -> TokenizerFiles:
    if (directory, spec) not in _FILES:
        _FILES[directory, spec] = prepare_tokenizer(directory, spec)
    return _FILES[directory, spec]


def test_windows_and_pairs_are_masked_too(directory: Path) -> None:
    files = prepare_tokenizer(str(directory), ALL.model_copy(update={"max_tokens": 16}), token_types=True)
    one = InputTokenizer(files, on_long="windows")
    written, typed = (
        [TextInput(" ".join(texts))] for texts in zip(*((w.text, w.typed) for w in WRITTEN[:30]), strict=True)
    )
    windows, counts = one.windows(written)
    assert (windows, counts.tolist()) == ((again := one.windows(typed))[0], again[1].tolist())
    assert len(windows[0]) > 5
    pairs = InputTokenizer(files, of_pairs=True)
    written = [TextInput(a.text, b.text) for a, b in zip(WRITTEN[:50], WRITTEN[50:100], strict=True)]
    typed = [TextInput(a.typed, b.typed) for a, b in zip(WRITTEN[:50], WRITTEN[50:100], strict=True)]
    assert pairs.pairs(written).ids == pairs.pairs(typed).ids


def test_a_text_of_an_identifier_alone_is_not_empty(directory: Path) -> None:
    encode = InputTokenizer(prepare_tokenizer(str(directory), ALL))
    _, counts = encode([TextInput("13800001234")])
    assert counts.tolist() == [encode.special_tokens + 1]


def test_a_special_token_that_a_user_types_hides_no_identifier_beside_it(tiny_model_dir: Path) -> None:
    encode = InputTokenizer(prepare_tokenizer(str(tiny_model_dir), ALL))
    (ids,) = ids_of(encode, ["[PAD]13800001234[SEP]a@example.com[CLS]"])
    assert ids == ids_of(encode, ["[PAD][CN_MOBILE][SEP][EMAIL][CLS]"])[0]


@pytest.mark.parametrize("form", ["NFC", "NFKC", "none"])
def test_keyed_pseudonyms_are_read_as_placeholders(form: str, directory: Path) -> None:
    spec = TextSpec.model_validate({"mask": ALL_KINDS, "mask_patterns": {"staff_id": r"E\d{6}"}, "unicode_form": form})
    encode = InputTokenizer(prepare_tokenizer(str(directory), spec))
    keyed = [(kind.placeholder, f"{kind.placeholder[:-1]}:0123456789012345]") for kind in mask_kinds(spec)]
    assert all(re.fullmatch(kind.pseudonym, one) for kind, (_, one) in zip(mask_kinds(spec), keyed, strict=True))
    for placeholder, one in keyed:
        found, typed = ids_of(
            encode, [f"a {one},给{one}给 13800001234", f"a {placeholder},给{placeholder}给 [CN_MOBILE]"]
        )
        assert found == typed
    ((part,),) = encode.spans([TextInput("a [EMAIL:0123456789abcdef] film")])
    words, _ = words_of(["a [EMAIL:0123456789abcdef] film"], (span for span in part if span is not None))
    assert (words[1].start, words[1].end) == (2, 26)
    # What is not masked has no pseudonyms.
    encode = InputTokenizer(prepare_tokenizer(str(directory), TextSpec(mask=("email",))))
    found, typed = ids_of(encode, ["[CARD:0123456789abcdef]", "[CARD]"])
    assert found != typed


# --- what the files say ----------------------------------------------------------------------------------------------


def test_embeddings_are_asked_for_new_placeholders_alone(tiny_model_dir: Path, tmp_path: Path) -> None:
    assert prepare_tokenizer(str(tiny_model_dir), TextSpec()).new_ids == ()
    files = prepare_tokenizer(str(tiny_model_dir), ALL)
    known = Tokenizer.from_file(str(tiny_model_dir / "tokenizer.json")).get_vocab_size()
    assert files.new_ids == tuple(range(known, known + len(ALL_KINDS)))
    assert InputTokenizer(files).highest_id == files.new_ids[-1]
    # A bundle has them already, and no more are needed for fewer masks.
    bundle = saved(files, tiny_model_dir, tmp_path / "bundle")
    assert TokenizerFiles.load(str(bundle)).new_ids == ()
    assert prepare_tokenizer(str(bundle), ALL).new_ids == ()
    own = TextSpec(mask=("email",), mask_patterns={"employee_id": r"E\d{6}"})
    assert prepare_tokenizer(str(bundle), own).new_ids == (known + len(ALL_KINDS),)


def saved(files: TokenizerFiles, model: Path, target: Path) -> Path:
    shutil.copytree(model, target)
    files.save(str(target))
    return target


def test_what_is_masked_is_for_the_recipe_to_say_where_the_model_is_a_bundle(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    bundle = saved(prepare_tokenizer(str(tiny_model_dir), ALL), tiny_model_dir, tmp_path / "bundle")
    text = "mail a@example.com or 13800001234"
    for spec, expected in (
        (TextSpec(), text),
        (TextSpec(mask=("email",)), "mail [EMAIL] or 13800001234"),
        (ALL, "mail [EMAIL] or [CN_MOBILE]"),
    ):
        files = prepare_tokenizer(str(bundle), spec)
        (found,), (typed,) = (ids_of(InputTokenizer(files), [one]) for one in (text, expected))
        assert found == typed
        content = json.loads(files.tokenizer_json)["normalizer"]
        assert json.dumps(content).count('"Regex"') == (len(spec.mask) + 2 if spec.mask else 0)


def test_own_patterns_are_masked_like_the_kinds(directory: Path) -> None:
    spec = TextSpec(mask=("email",), mask_patterns={"ticket": r"(?=[A-Z]*\d)[A-Z\d]{6,}"})
    encode = InputTokenizer(prepare_tokenizer(str(directory), spec))
    found = ids_of(encode, ["code AB12CD, GREAT, a@example.com", "code [TICKET], GREAT, [EMAIL]"])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "step",
    [
        normalizers.Replace(Regex("[^a-zA-Z0-9 ]"), ""),
        normalizers.Prepend("▁"),
    ],
    ids=["no brackets", "a prefix"],
)
def test_a_tokenizer_that_cannot_have_placeholders_is_refused(step: Any, tiny_model_dir: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Sequence([tokenizer.normalizer, step])
    tokenizer.save(str(model / "tokenizer.json"))
    with pytest.raises(ModelError, match=r"stands for what is masked|does not occur") as caught:
        prepare_tokenizer(str(model), ALL)
    assert "--set text.mask=[] " in caught.value.todo
    assert prepare_tokenizer(str(model), parse_recipe("", ["text.mask=[]"]).text).new_ids == ()


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["NFC", "NFKC", "none"])
def test_the_word_of_an_identifier_is_all_of_it_in_the_user_s_text(form: str, directory: Path) -> None:
    spec = TextSpec.model_validate({"mask": ALL_KINDS, "max_tokens": 512, "unicode_form": form})
    encode = InputTokenizer(prepare_tokenizer(str(directory), spec), on_long="windows")
    text = (
        "cafe\u0301 john.doe@example.com给１３８００００１２３４，(555) 555-0100 [EMAIL] DE89 3704 0044 0532 0130 00!"
    )
    ((part,),) = encode.spans([TextInput(text)])
    words, _ = words_of([text], (span for span in part if span is not None))
    assert [text[word.start : word.end] for word in words] == [
        *("cafe\u0301", "john.doe@example.com", "给", "１３８００００１２３４", "，", "(555) 555-0100"),
        *("[EMAIL]", "DE89 3704 0044 0532 0130 00", "!"),
    ]


def test_the_words_of_1000_texts_are_whole_identifiers_or_words_around_them(directory: Path) -> None:
    encode = InputTokenizer(prepare_tokenizer(str(directory), ALL.model_copy(update={"max_tokens": 512})))
    for one, (part, *_) in zip(WRITTEN, encode.spans([TextInput(one.text) for one in WRITTEN]), strict=True):
        words, _ = words_of([one.text], (span for span in part if span is not None))
        found = [one.text[word.start : word.end] for word in words]
        assert [word for word in found if word in one.values] == list(one.values), one.text


def test_both_texts_of_a_pair_have_words_of_whole_identifiers(tiny_model_dir: Path) -> None:
    files = prepare_tokenizer(str(tiny_model_dir), ALL, token_types=True)
    segments = ("mail a@example.com", "or call 13800001234 now")
    ((seen, _),) = InputTokenizer(files, of_pairs=True).spans([TextInput(*segments)])
    words, _ = words_of(segments, (span for span in seen if span is not None))
    assert [segments[word.text][word.start : word.end] for word in words] == [
        *("mail", "a@example.com", "or", "call", "13800001234", "now")
    ]


_NEIGHBOURS = (
    "系",
    "ー",
    "ไ",
    "ไม่",
    "한",
    "a",
    "Straße",
    "e\u0301",
    "é",
    "_",
    "7",
    "[",
    "]",
    "[[",
    "!",
    "，",
    "(",
    "\U0001f600",
    "👩‍👧",
    "|",
    "'",
)


@pytest.mark.parametrize("form", ["NFC", "NFKC", "none"])
def test_a_placeholder_is_a_word_of_its_own_beside_any_character(form: str, directory: Path) -> None:
    spec = TextSpec.model_validate({"mask": ALL_KINDS, "max_tokens": 512, "unicode_form": form})
    encode = InputTokenizer(prepare_tokenizer(str(directory), spec))
    for one, kind in product(_NEIGHBOURS, KINDS.values()):
        for before, after in ((one, ""), ("", one), (one, one), (f"{one} ", f" {one}"), (kind.placeholder, one)):
            placeholders = (kind.placeholder, f"{kind.placeholder[:-1]}:0123456789abcdef]")
            for text, placeholder in ((f"{before}{each}{after}", each) for each in placeholders):
                ((part,),) = encode.spans([TextInput(text)])
                words, _ = words_of([text], (span for span in part if span is not None))
                found = [(word.start, word.end) for word in words]
                assert (len(before), len(before) + len(placeholder)) in found, (text, [text[slice(*w)] for w in found])
