"""Law 8: a text's scores are the bundle's alone, whatever company it keeps, and one bad text spoils nothing."""

import contextlib
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import save_tiny_bundle
from textcls.data import row_tokens
from textcls.errors import BundleError
from textcls.inference import classifier as classifier_module
from textcls.inference.classifier import Classifier, PaddedModel
from textcls.manifest import Calibration
from textcls.modeling import cpu_scoring as encoder_module
from textcls.modeling import precision
from textcls.modeling.cpu_scoring import RaggedModel
from textcls.modeling.precision import uses_bf16
from textcls.text.text_input import TextInput
from textcls.text.tokenizer_files import TokenizerFiles

WORDS = ["great", "AWFUL", "the film", "café", "boring", "ending", "10/10", "\x00", "naïve", "?!"]
TEXTS = st.lists(
    st.one_of(
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map(" ".join),
        st.sampled_from(["", "   ", "\n", "\ud800", "good \udfff film", "\u200b"]),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module", params=["ragged", "padded"])
def classifier(request: pytest.FixtureRequest, tiny_bundle: Path) -> Classifier:
    """With the encoder of our own, and with transformers' as it is."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "padded":
            patch.setattr(RaggedModel, "of", lambda *args, **named: None)
        found = Classifier.load(str(tiny_bundle), precision="fp32")
    assert type(found._model) is {"ragged": RaggedModel, "padded": PaddedModel}[request.param]
    return found


@given(TEXTS, st.randoms())
@settings(max_examples=settings.default.max_examples // 7)
def test_a_text_scores_alike_alone_and_in_any_company(classifier: Classifier, texts: list[str], chance) -> None:
    together = classifier.scores(texts)
    for i, text in enumerate(texts):
        alone = classifier.scores([text])
        np.testing.assert_allclose(alone.probabilities[0], together.probabilities[i], atol=1e-5)
        assert alone.errors[0] == together.errors[i]
        assert (alone.tokens[0], alone.truncated[0]) == (together.tokens[i], together.truncated[i])
    order = chance.sample(range(len(texts)), len(texts))
    shuffled = classifier.scores([texts[i] for i in order])
    np.testing.assert_allclose(shuffled.probabilities, together.probabilities[order], atol=1e-5)


def test_scores_are_those_that_transformers_gives(classifier: Classifier, tiny_bundle: Path) -> None:
    from transformers import pipeline

    texts = ["great film", "The ending was AWFUL", "café " * 50, "10/10"]
    theirs = pipeline("text-classification", str(tiny_bundle), top_k=None, truncation=True)(texts)
    ours = classifier.scores(texts)
    for i, expected in enumerate(theirs):
        assert [name for name, _ in ours.ranked(i)] == [one["label"] for one in expected]
        np.testing.assert_allclose([p for _, p in ours.ranked(i)], [one["score"] for one in expected], atol=1e-5)
        assert ours.label(i) == expected[0]["label"]
        assert ours.confidence(i) == pytest.approx(expected[0]["score"], abs=1e-5)


def test_small_batches_change_nothing(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(WORDS[: 1 + i % len(WORDS)]) for i in range(40)]
    whole = classifier.scores(texts)
    monkeypatch.setattr(encoder_module, "_BATCH_TOKENS", 8)
    if isinstance(classifier._model, PaddedModel):
        monkeypatch.setattr(classifier._model, "_batch_tokens", 8)
    np.testing.assert_allclose(classifier.scores(texts).probabilities, whole.probabilities, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty_text"),
        (" \t\n", "empty_text"),
        ("\u200b\x00", "empty_text"),
        ("a\ud800", "not_unicode"),
        (5, "not_unicode"),
        (None, "not_unicode"),
    ],
)
def test_a_bad_text_has_an_error_and_its_neighbours_have_scores(classifier: Classifier, text, code: str) -> None:
    scores = classifier.scores(["great", text, "awful"])
    assert scores.errors[1] is not None
    assert scores.errors[1].code == code
    assert scores.label(1) is None
    assert scores.abstained(1)
    assert np.isnan(scores.probabilities[1]).all()
    assert scores.errors[0] is scores.errors[2] is None
    np.testing.assert_allclose(scores.probabilities[[0, 2]].sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("one", ["great", TextInput("great")])
def test_one_text_that_is_no_list_is_refused_instead_of_scored_in_pieces(classifier: Classifier, one) -> None:
    with pytest.raises(TypeError, match="takes a list of inputs"):
        classifier.scores(one)


def test_no_text_gives_no_scores(classifier: Classifier) -> None:
    assert len(classifier.scores([])) == 0
    assert classifier.scores([]).probabilities.shape == (0, 3)
    assert classifier.scores(["", " "]).errors[0] is not None


def test_truncation_is_visible(classifier: Classifier) -> None:
    scores = classifier.scores(["film " * 30, "film " * 31, "film " * 500])
    assert scores.tokens.tolist() == [32, 33, 502]
    assert scores.truncated.tolist() == [False, True, True]
    np.testing.assert_allclose(scores.probabilities[1], scores.probabilities[0], atol=1e-6)


def test_windows_cover_the_whole_text_and_their_mean_is_the_score(tiny_model_dir: Path, tmp_path: Path) -> None:
    windowed = Classifier.load(
        str(save_tiny_bundle(tiny_model_dir, tmp_path / "windows", on_long="windows")), precision="fp32"
    )
    text = " ".join(f"{WORDS[i % 4]} film" for i in range(40))
    (encoded,) = windowed.encode([text])
    (plain,) = windowed._encoder.tokenizer.windows([TextInput("film")])[0]
    assert len(encoded.windows) > 2
    assert all(len(ids) <= 32 for ids in encoded.windows)
    assert not encoded.truncated
    ends = (plain[0][0], plain[0][-1])
    inner = [list(ids[1:-1]) for ids in encoded.windows]
    assert all((ids[0], ids[-1]) == ends for ids in encoded.windows)
    rebuilt = inner[0] + [token for ids in inner[1:] for token in ids[8:]]  # a quarter of 32 is shared
    assert len(rebuilt) + 2 == encoded.tokens

    weights = np.array([len(ids) for ids in encoded.windows])
    each = np.concatenate([windowed._probabilities([ids]) for ids in encoded.windows])
    expected = (each * weights[:, None]).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(windowed.scores(["great", text]).probabilities[1], expected, atol=1e-5)


def test_training_reads_the_windows_that_are_scored(tiny_model_dir: Path, tmp_path: Path) -> None:
    bundle = save_tiny_bundle(tiny_model_dir, tmp_path / "windows", on_long="windows")
    texts = ["film", "film " * 30, "film " * 31, " ".join(f"{WORDS[i % 7]} film" for i in range(60)), "film " * 500]
    table = pa.table({"text": texts})
    rows = row_tokens.tokenized(table, TokenizerFiles.load(str(bundle)), "windows").to_pylist()
    cut = row_tokens.tokenized(table, TokenizerFiles.load(str(bundle))).to_pylist()
    for row, shorter, scored in zip(rows, cut, Classifier.load(str(bundle)).encode(texts), strict=True):
        ends = np.cumsum(row["windows"])[:-1]
        assert [part.tolist() for part in np.split(row["input_ids"], ends)] == scored.windows
        assert row["tokens"] == shorter["tokens"] == scored.tokens
        assert shorter["input_ids"] == scored.windows[0]
    assert [len(row["windows"]) for row in rows] == [1, 1, 2, 7, 23]


def test_a_long_text_is_refused_where_the_bundle_says_so(tiny_model_dir: Path, tmp_path: Path) -> None:
    strict = Classifier.load(str(save_tiny_bundle(tiny_model_dir, tmp_path / "strict", on_long="error")))
    scores = strict.scores(["film " * 30, "film " * 31])
    assert scores.errors[0] is None
    assert scores.errors[1] is not None
    assert scores.errors[1].code == "text_too_long"
    assert "33 tokens; at most 32" in scores.errors[1].message


def test_below_the_threshold_it_abstains(tiny_model_dir: Path, tmp_path: Path, classifier: Classifier) -> None:
    texts = [f"{a} {b}" for a in WORDS[:6] for b in WORDS[:6]]
    confidences = np.sort(classifier.scores(texts).probabilities.max(axis=1))
    threshold = round(float(confidences[len(texts) // 2]), 4)
    bundle = save_tiny_bundle(tiny_model_dir, tmp_path / "shy", calibration=Calibration(threshold=threshold))
    scores = Classifier.load(str(bundle), precision="fp32").scores(texts)
    for i in range(len(texts)):
        assert (scores.label(i) == "abstain") == (scores.confidence(i) < threshold)
        assert scores.abstained(i) == (scores.label(i) == "abstain")
    assert 0 < sum(map(scores.abstained, range(len(texts)))) < len(texts)


def test_bf16_stays_within_its_bound(classifier: Classifier, tiny_bundle: Path) -> None:
    has_bf16 = uses_bf16("bf16", torch.device("cpu"))
    with contextlib.nullcontext() if has_bf16 else pytest.warns(UserWarning, match="cannot multiply bfloat16"):
        rounded = Classifier.load(str(tiny_bundle), precision="bf16")
    texts = [" ".join(WORDS[i % 7 :]) for i in range(30)]
    exact, near = classifier.scores(texts).probabilities, rounded.scores(texts).probabilities
    assert np.abs(exact - near).max() < 0.02
    assert rounded.precision == ("bf16" if has_bf16 else "fp32")
    assert not has_bf16 or np.abs(exact - near).max() > 0


@pytest.mark.parametrize("support", ["hardware", "emulated", "none"])
def test_auto_is_the_precision_of_the_run(support: str, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_support", lambda device: support)
    assert Classifier.load(str(tiny_bundle)).precision == "fp32"


def test_where_nothing_multiplies_bf16_a_bundle_that_asks_for_it_scores_in_fp32_and_says_so(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "bf16_support", lambda device: "none")
    ours = save_tiny_bundle(tiny_model_dir, tmp_path / "fp32")
    theirs = save_tiny_bundle(tiny_model_dir, tmp_path / "bf16", precision="bf16")
    expected = Classifier.load(str(ours)).scores(WORDS).probabilities
    for bundle, asked in ((theirs, "auto"), (theirs, "bf16"), (ours, "bf16")):
        with pytest.warns(UserWarning, match=f"{bundle}.*scoring in fp32"):
            found = Classifier.load(str(bundle), precision=asked)
        assert found.precision == "fp32"
        np.testing.assert_array_equal(found.scores(WORDS).probabilities, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Classifier.load(str(theirs), precision="fp32").precision == "fp32"


def test_a_damaged_bundle_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    bundle = save_tiny_bundle(tiny_model_dir, tmp_path / "damaged")
    weights = bytearray((bundle / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (bundle / "model.safetensors").write_bytes(weights)
    with pytest.raises(BundleError, match=r"model\.safetensors is damaged"):
        Classifier.load(str(bundle))


def test_warming_up_finds_a_model_that_gives_no_numbers(tiny_bundle: Path) -> None:
    broken = Classifier.load(str(tiny_bundle), precision="fp32")
    broken.warm_up()
    with torch.no_grad():
        broken._model._head.bias.fill_(float("nan"))
    with pytest.raises(classifier_module.ModelError, match="scores"):
        broken.warm_up()


@pytest.mark.parametrize("on_long", ["error", "windows"])
def test_warming_up_needs_neither_words_nor_a_text_that_would_be_cut(
    on_long: str, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier.load(str(save_tiny_bundle(tiny_model_dir, tmp_path / "b", on_long=on_long)))
    monkeypatch.setattr(classifier, "encode", None)
    classifier.warm_up()
