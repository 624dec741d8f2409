"""The one normalizer: what it changes, that its fast path is the same function, and that nothing has another copy."""

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, normalizers

from textcls.data.csv_layout import Layout
from textcls.data.rows import CleanRow, RowCleaner
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text import normalizer as normalizer_module
from textcls.text import tokenizer_files as files_module
from textcls.text.normalizer import TextNormalizer, build_normalizer, normalizer_of
from textcls.text.text_input import TextInput
from textcls.text.tokenizer import InputTokenizer
from textcls.text.tokenizer_files import prepare_tokenizer
from textcls.training.baseline import train_baseline

SPECS = [
    TextSpec(lowercase=lowercase, unicode_form=form, max_tokens=16)
    for lowercase in (True, False)
    for form in ("NFC", "NFKC", "none")
]
# Decomposed and composed forms, combining marks in both orders, zero width, full width, the Turkish letters, a final
# sigma, ligatures, Hangul as syllables and letters, scripts without case, control characters, beyond the first plane.
_NASTY = (
    "FILM café cafe\u0301 CAFÉ a\u0323\u0301 a\u0301\u0323 \u200b \u200d \ufeff \u00ad ＦＩＬＭ ｆｉｌｍ İ I ı i\u0307 "
    "ß ẞ Σ ΟΔΟΣ ﬁlm ﬆ \u212b \u2126 ǅ 한국 \u1112\u1161\u11ab \uac00\u11a8 幸 这部电影 हिन्दी \u0915\u093c \u0958 "
    "\u09c7\u09be العربية \u0627\u0655 ﷺ 🙂👍🏽 🇩🇪 𝔄 𐐀 \U0002f800 \u1c89 \ua7cb "
    "\x00 \x1c \x7f \x85 \u2028 \u3000 \xa0 \ufffd"
)
NASTY = _NASTY.split(" ")
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from([*NASTY, " ", "the "]), max_size=30).map("".join))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.lowercase}-{spec.unicode_form}")
def test_the_fast_path_gives_what_the_tokenizers_normalizer_gives(spec: TextSpec) -> None:
    ours, theirs = normalizer_of(spec), build_normalizer(spec)
    for code in (*range(0x3000), *range(0x3000, 0xD800, 31), *range(0xE000, 0x30000, 31)):
        assert ours(chr(code)) == theirs.normalize_str(chr(code)), hex(code)

    @settings(max_examples=300, deadline=None)
    @given(text=TEXTS)
    @example(text="".join(NASTY))
    @example(text="q\u0301\u08d3")  # Unicode 11: two marks in an order that an older version does not know
    @example(text="ΟΔΟΣ")
    def law(text: str) -> None:
        assert ours(text) == theirs.normalize_str(text)

    law()


def test_a_normalizer_with_another_step_has_no_fast_path() -> None:
    masking = normalizers.Sequence([normalizers.Replace(Regex("[0-9]+"), "#"), normalizers.Lowercase()])
    normalize = TextNormalizer(masking)
    assert [normalize(text) for text in ("Call 112", "É 9", "")] == ["call #", "é #", ""]


def test_case_and_compatibility_change_a_text_only_if_the_settings_say_so() -> None:
    assert normalizer_of(TextSpec())("GREAT Film") == "great film"
    assert normalizer_of(TextSpec(lowercase=False))("GREAT Film") == "GREAT Film"
    assert normalizer_of(TextSpec(unicode_form="NFKC"))("ﬁlm") == "film" != normalizer_of(TextSpec())("ﬁlm")
    assert normalizer_of(TextSpec(unicode_form="none"))("cafe\u0301") == "cafe\u0301"
    assert normalizer_of(TextSpec())("cafe\u0301") == "café"


# The normalizer's version of Unicode is old: of newer characters it does not know how they compose.
@given(text=st.lists(st.sampled_from([*NASTY, "the "]), max_size=30).map("".join))
def test_white_space_and_composition_never_tell_two_rows_apart(text: str) -> None:
    keys = [_key(form, TextSpec()) for form in (text, unicodedata.normalize("NFD", text), f"\n {text}\u3000")]
    assert keys[0] == keys[1] == keys[2]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.lowercase}-{spec.unicode_form}")
def test_the_model_normalizes_with_the_steps_that_rows_are_compared_by(spec: TextSpec, tiny_model_dir: Path) -> None:
    source = json.loads((tiny_model_dir / "tokenizer.json").read_text(encoding="utf-8"))["normalizer"]
    written = json.loads(prepare_tokenizer(str(tiny_model_dir), spec).tokenizer_json)["normalizer"]
    ours = json.loads(build_normalizer(spec).__getstate__())["normalizers"]
    assert written == {"type": "Sequence", "normalizers": [*ours, source]}


# --- no copy ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def films_are_movies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A normalizer with one more step, as masking would add it."""

    def build(spec: TextSpec) -> Any:
        return normalizers.Sequence([normalizers.Replace("film", "movie"), *_steps(build_normalizer(spec))])

    monkeypatch.setattr(normalizer_module, "build_normalizer", build)
    monkeypatch.setattr(files_module, "build_normalizer", build)
    normalizer_of.cache_clear()
    yield
    normalizer_of.cache_clear()


@pytest.mark.usefixtures("films_are_movies")
def test_another_normalizer_changes_hashing_the_baseline_and_the_model_together(tiny_model_dir: Path) -> None:
    spec = TextSpec(max_tokens=16)
    assert _key("a great film", spec) == _key("A great  movie", spec) != _key("a great play", spec)

    encode = InputTokenizer(prepare_tokenizer(str(tiny_model_dir), spec))
    (film, movie, play), _ = encode([TextInput(text) for text in ("a great film", "A great movie", "a great play")])
    assert film == movie != play

    # The word that tells the label in training is spelled otherwise in the test rows.
    train, test = (
        [TextInput(text) for text in texts] * 20 for texts in (["a film", "a play"], ["the movie", "the play"])
    )
    result = train_baseline(
        train, [1, 0] * 20, test, [1, 0] * 20, ("bad", "good"), seed=0, task=SINGLE_LABEL, spec=spec
    )
    assert result["accuracy"]["value"] == 1.0
    assert result["features"] == 5  # a, movie, play, "a movie", "a play"


def test_without_that_normalizer_none_of_the_three_takes_a_film_for_a_movie(tiny_model_dir: Path) -> None:
    spec = TextSpec(max_tokens=16)
    assert _key("a great film", spec) != _key("a great movie", spec)
    tokenizer = Tokenizer.from_str(prepare_tokenizer(str(tiny_model_dir), spec).tokenizer_json)
    assert tokenizer.normalizer.normalize_str("Film") == "film"


def _steps(sequence: Any) -> list[Any]:
    return [sequence[i] for i in range(len(sequence))]


def _key(text: str, spec: TextSpec) -> bytes | None:
    """The key of a row with this text; None if it is a reject."""
    row = RowCleaner(Layout(",", 2, (0, 1), 1), DataSpec(), spec, SINGLE_LABEL)(1, [text, "pos"])
    return row.key if isinstance(row, CleanRow) else None
