"""The laws of tokenizer.py and tokenizer_files.py in textcls/text: the same ids for whatever loads the files."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.tiny_tokenizers import by_transformers
from textcls.errors import ModelError
from textcls.settings.recipe import TextSpec
from textcls.text import tokenizer_files as files_module
from textcls.text.text_input import TextInput
from textcls.text.tokenizer import InputTokenizer, tokenizer_of
from textcls.text.tokenizer_files import TokenizerFiles, prepare_tokenizer

SPECS = [
    TextSpec(lowercase=lowercase, unicode_form=form, max_tokens=12)
    for lowercase in (True, False)
    for form in ("NFC", "NFKC", "none")
]
# Case, composed and decomposed accents, compatibility forms, white space of many kinds, control and special characters.
WORDS = [
    "film",
    "FILM",
    "Great",
    "café",
    "cafe\u0301",
    "CAFÉ",
    "ﬁlm",
    "ｆｉｌｍ",
    "İ",
    "ß",
    "Σ",
    "naïve",
    "10/10",
    "幸",
    "🙂👍🏽",
]
BLANKS = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u200b", "\x00", "\ufffd", "\x1c", "[SEP]", "[PAD]", "##"]
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS + BLANKS), max_size=40).map("".join))


@pytest.fixture(scope="module", params=["uncased", "cased"])
def directory(request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory whose own tokenizer lower-cases, and one whose does not normalise at all."""
    if request.param == "uncased":
        return tiny_model_dir
    return changed(
        tiny_model_dir, tmp_path_factory.mktemp("cased"), lambda tokenizer: tokenizer.update(normalizer=None)
    )


def changed(source: Path, target: Path, change: Callable[[dict[str, Any]], None], name: str = "tokenizer.json") -> Path:
    """A copy of a model directory, one of its JSON files changed in place."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    content = json.loads((target / name).read_text(encoding="utf-8"))
    change(content)
    (target / name).write_text(json.dumps(content), encoding="utf-8")
    return target


# --- token ids -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.lowercase}-{spec.unicode_form}")
def test_the_saved_files_give_the_same_ids_through_transformers(
    spec: TextSpec, directory: Path, tmp_path: Path
) -> None:
    files = prepare_tokenizer(str(directory), spec)
    ours, theirs = InputTokenizer(files), by_transformers(files, directory, tmp_path / "saved")

    @settings(max_examples=60, deadline=None)
    @given(texts=st.lists(TEXTS, min_size=1, max_size=5))
    @example(texts=["", " ", "x " * 300, "İ" * 50])
    def law(texts: list[str]) -> None:
        inputs = [TextInput(text) for text in texts]
        ids, counts = ours(inputs)
        assert ids == theirs(texts, truncation=True)["input_ids"]
        assert counts.tolist() == [len(one) for one in theirs(texts, truncation=False)["input_ids"]]
        assert all(len(one) == min(count, spec.max_tokens) for one, count in zip(ids, counts, strict=True))
        # Alone or in a batch: no text sees its neighbours.
        assert ids == [ours([one])[0][0] for one in inputs]

    law()


def test_padding_by_transformers_is_the_padding_id_on_the_right(tiny_model_dir: Path, tmp_path: Path) -> None:
    files = prepare_tokenizer(str(tiny_model_dir), TextSpec(max_tokens=16))
    theirs = by_transformers(files, tiny_model_dir, tmp_path / "saved")
    short, long = theirs(["film", "the film was great"], padding=True)["input_ids"]
    assert short[3:] == [files.pad_id] * (len(long) - 3)
    assert theirs.pad_token_id == files.pad_id
    assert theirs.model_max_length == files.max_tokens == 16


def test_a_cased_tokenizer_becomes_lower_casing_and_only_if_asked(directory: Path) -> None:
    def ids(text: str, *, lowercase: bool) -> list[int]:
        files = prepare_tokenizer(str(directory), TextSpec(max_tokens=16, lowercase=lowercase))
        return InputTokenizer(files)([TextInput(text)])[0][0]

    small, large = "the film was great", "THE Film was GREAT"
    assert ids(large, lowercase=True) == ids(small, lowercase=True) == ids(small, lowercase=False)
    cased = json.loads((directory / "tokenizer.json").read_text())["normalizer"] is None
    assert (ids(large, lowercase=False) != ids(small, lowercase=False)) == cased


def test_the_unicode_form_is_the_tokenizer_s_own_and_only_if_asked(tiny_model_dir: Path, tmp_path: Path) -> None:
    cased = changed(tiny_model_dir, tmp_path / "cased", lambda tokenizer: tokenizer.update(normalizer=None))

    def same(one: str, other: str, form: str) -> bool:
        spec = TextSpec.model_validate({"max_tokens": 16, "unicode_form": form})
        ids, _ = InputTokenizer(prepare_tokenizer(str(cased), spec))([TextInput(one), TextInput(other)])
        return bool(ids[0] == ids[1])

    # A Greek question mark is a semicolon; full-width letters are letters only by compatibility.
    equivalent, compatible = (";", "\u037e"), ("film", "ｆｉｌｍ")
    assert [same(*equivalent, form) for form in ("NFC", "NFKC", "none")] == [True, True, False]
    assert [same(*compatible, form) for form in ("NFC", "NFKC", "none")] == [False, True, False]


@pytest.mark.parametrize("count", [10, 11, 12, 13, 23, 200])
def test_the_count_is_of_the_whole_text_special_tokens_included(count: int, tiny_model_dir: Path) -> None:
    encode = InputTokenizer(prepare_tokenizer(str(tiny_model_dir), TextSpec(max_tokens=12)))
    ids, counts = encode([TextInput(" ".join(["film"] * (count - 2)))])
    assert counts.tolist() == [count]
    assert counts.dtype == "int32"
    assert len(ids[0]) == min(count, 12)
    # Cut in the middle, not at the end: the closing special token stays.
    assert ids[0][-1] == encode([TextInput("film")])[0][0][-1]


def test_no_text_is_no_row(tiny_model_dir: Path) -> None:
    ids, counts = InputTokenizer(prepare_tokenizer(str(tiny_model_dir), TextSpec(max_tokens=12)))([])
    assert (ids, counts.tolist()) == ([], [])


def test_tokenizer_files_travel_between_processes_and_are_parsed_once_in_each(tiny_model_dir: Path) -> None:
    files = prepare_tokenizer(str(tiny_model_dir), TextSpec(max_tokens=12))
    again = pickle.loads(pickle.dumps(files))  # as Ray carries it
    assert again == files
    assert tokenizer_of(again) is tokenizer_of(files)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{", '{"model": 3}'], ids=["empty", "cut", "foreign"])
def test_a_damaged_tokenizer_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="tokenizer cannot be loaded") as caught:
        prepare_tokenizer(str(tmp_path), TextSpec(max_tokens=12))
    assert str(tmp_path) in caught.value.found


@pytest.mark.parametrize("tokenizer_class", [None, "BertTokenizer", "TokenizersBackend"])
def test_a_directory_without_a_vocabulary_is_refused(
    tokenizer_class: str | None, tiny_model_dir: Path, tmp_path: Path
) -> None:
    shutil.copy(tiny_model_dir / "config.json", tmp_path)
    if tokenizer_class is not None:
        config = {"tokenizer_class": tokenizer_class, "pad_token": "[PAD]", "unk_token": "[UNK]"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="tokenizer cannot be loaded") as caught:
        prepare_tokenizer(str(tmp_path), TextSpec(max_tokens=12))
    assert str(tmp_path) in caught.value.found
    assert "tokenizer.json" in caught.value.expected


@pytest.mark.parametrize("kept", [("tokenizer.json", "vocab.txt"), ("tokenizer.json",), ("vocab.txt",)])
def test_a_directory_laid_out_like_bert_base_uncased_is_taken(
    kept: tuple[str, ...], tiny_model_dir: Path, tmp_path: Path
) -> None:
    """Its two settings name no special token: those are the defaults of the class, which config.json implies."""
    shutil.copy(tiny_model_dir / "config.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 64}')
    if "tokenizer.json" in kept:
        shutil.copy(tiny_model_dir / "tokenizer.json", tmp_path)
    if "vocab.txt" in kept:
        vocabulary = json.loads((tiny_model_dir / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        lines = sorted(vocabulary, key=vocabulary.__getitem__)
        (tmp_path / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")
    spec, text = TextSpec(max_tokens=32), TextInput("The Film was GREAT, 10/10")
    old, new = (prepare_tokenizer(str(place), spec) for place in (tmp_path, tiny_model_dir))
    assert InputTokenizer(old)([text])[0] == InputTokenizer(new)([text])[0]
    assert old.pad_id == new.pad_id
    assert json.loads(old.config_json) == json.loads(new.config_json)


def test_a_tokenizer_without_a_padding_token_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    directory = changed(
        tiny_model_dir, tmp_path / "model", lambda config: config.pop("pad_token"), "tokenizer_config.json"
    )
    with pytest.raises(ModelError, match="no padding token") as caught:
        prepare_tokenizer(str(directory), TextSpec(max_tokens=12))
    assert caught.value.todo == f'add "pad_token": "[SEP]" to {directory}/tokenizer_config.json'
    # Older directories keep the names in a file of their own, some as objects.
    (directory / "special_tokens_map.json").write_text('{"pad_token": {"content": "[PAD]", "lstrip": false}}')
    assert prepare_tokenizer(str(directory), TextSpec(max_tokens=12)).pad_id == 0


def test_a_tokenizer_that_exists_in_python_only_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "canine"}')
    with pytest.raises(ModelError, match="written in Python"):
        prepare_tokenizer(str(tmp_path), TextSpec(max_tokens=12))


def test_sentence_pieces_are_refused_with_what_converts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "find_spec", lambda name: None)
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"no such library")
    with pytest.raises(ModelError, match=r"sentencepiece\.bpe\.model needs the package sentencepiece") as caught:
        prepare_tokenizer(str(tmp_path), TextSpec(max_tokens=12))
    assert caught.value.todo == "pip install sentencepiece"


# --- special tokens that are no added tokens -------------------------------------------------------------------------


@pytest.fixture
def plain_specials(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """Special tokens that stand in the vocabulary, and are named in tokenizer_config.json alone."""
    return changed(tiny_model_dir, tmp_path / "plain", lambda tokenizer: tokenizer.update(added_tokens=[]))


def test_the_padding_token_need_not_be_among_the_added_tokens(plain_specials: Path, tmp_path: Path) -> None:
    files = prepare_tokenizer(str(plain_specials), TextSpec(max_tokens=12))
    files.save(str(plain_specials))
    assert TokenizerFiles.load(str(plain_specials)) == files
    # As earlier versions wrote them.
    earlier = changed(plain_specials, tmp_path / "earlier", lambda tokenizer: tokenizer.update(added_tokens=[]))
    assert TokenizerFiles.load(str(earlier)).pad_id == files.pad_id


def test_named_special_tokens_are_special_to_the_tokenizer_alone_as_to_transformers(
    plain_specials: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    def stray(config: dict[str, Any]) -> None:
        config["bos_token"] = "[NOWHERE]"  # no token of the vocabulary: transformers would give it a new id

    directory = changed(plain_specials, tmp_path / "stray", stray, "tokenizer_config.json")
    files = prepare_tokenizer(str(directory), TextSpec(max_tokens=32))
    texts = ["the film [SEP] was [PAD] great [MASK] [NOWHERE]", "[CLS]"]
    inputs = [TextInput(text) for text in texts]
    ours = InputTokenizer(files)(inputs)[0]
    assert ours == by_transformers(files, plain_specials, tmp_path / "saved")(texts)["input_ids"]
    usual = prepare_tokenizer(str(tiny_model_dir), TextSpec(max_tokens=32))
    assert ours == InputTokenizer(usual)(inputs)[0]


def test_a_made_up_text_needs_no_word(plain_specials: Path) -> None:
    files = prepare_tokenizer(str(plain_specials), TextSpec(max_tokens=32))
    encode = InputTokenizer(files)
    first, last = encode([TextInput("")])[0][0]
    special = set(range(5))
    for length in range(3, 33):
        ids = encode.sample(length)
        assert (len(ids), ids[0], ids[-1]) == (length, first, last)
        assert not special & set(ids[1:-1])
    assert len(set(encode.sample(32))) == 32
