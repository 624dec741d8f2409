"""Embeddings are transformers' own mean pooling, whatever computes them and whatever else is in the batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import save_tiny_bundle
from tests.unit.bert_family import LIKE_BERT, NOT_LIKE_BERT, PAD, tiny_classifier
from tests.unit.test_classifier import TEXTS, WORDS
from tests.unit.test_cpu_scoring import BATCHES
from textcls.bundle import load_bundle
from textcls.errors import ModelError
from textcls.inference.classifier import PaddedModel
from textcls.inference.embeddings import Embedder
from textcls.modeling import cpu_scoring
from textcls.modeling.cpu_scoring import RaggedMeans
from textcls.settings.recipe import TextSpec
from textcls.text.text_input import TextInput

CPU = torch.device("cpu")


def pooled(model: Any, windows: list[list[int]], seconds: np.ndarray | None = None) -> torch.Tensor:
    """float32 [N, E]: the mean of transformers' last hidden state, window by window."""
    found = []
    for i, ids in enumerate(windows):
        types = {}
        if seconds is not None:
            types["token_type_ids"] = torch.tensor([[int(place >= seconds[i]) for place in range(len(ids))]])
        with torch.inference_mode():
            found.append(model.base_model(torch.tensor([ids]), **types).last_hidden_state[0].mean(0))
    return torch.stack(found)


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("kind", [*LIKE_BERT, NOT_LIKE_BERT])
def test_means_are_the_mean_pooling_of_transformers(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_scoring, "_SHARE_TOKENS", 20)
    model = tiny_classifier(kind)
    ragged, padded = RaggedMeans.of(model, bf16=False), PaddedModel(model, PAD, CPU, bf16=False)
    assert (ragged is None) == (kind == NOT_LIKE_BERT)
    expected = pooled(model, BATCHES[name])
    for one in (ragged, padded):
        if one is not None:
            with torch.inference_mode():
                torch.testing.assert_close(one.means(BATCHES[name]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_means_of_pairs_see_token_types(kind: str) -> None:
    model, windows = tiny_classifier(kind), BATCHES["unequal"]
    seconds = np.array([len(window) * (1 + i % 3) // 3 for i, window in enumerate(windows)])
    expected = pooled(model, windows, seconds)
    for one in (RaggedMeans.of(model, bf16=False), PaddedModel(model, PAD, CPU, bf16=False)):
        assert one is not None
        with torch.inference_mode():
            torch.testing.assert_close(one.means(windows, seconds), expected, atol=1e-5, rtol=1e-5)
            assert (one.means(windows) - expected).abs().max() > 0.01


@pytest.fixture(scope="module")
def embedder(tiny_bundle: Path) -> Embedder:
    return Embedder.of_bundle(load_bundle(str(tiny_bundle)))


@given(TEXTS, st.booleans())
@settings(max_examples=settings.default.max_examples // 7)
def test_an_input_has_one_embedding_alone_and_in_any_company(
    embedder: Embedder, texts: list[str], backwards: bool
) -> None:
    together = embedder(texts[::-1])[::-1] if backwards else embedder(texts)
    assert (together.shape, together.dtype) == ((len(texts), embedder.width), np.float32)
    for text, found in zip(texts, together, strict=True):
        np.testing.assert_allclose(embedder([text])[0], found, atol=1e-5)


def test_a_fresh_head_changes_no_embedding(embedder: Embedder, tiny_model_dir: Path) -> None:
    untrained = Embedder.of_pretrained(str(tiny_model_dir), TextSpec(max_tokens=32), pairs=False)
    np.testing.assert_allclose(untrained(WORDS), embedder(WORDS), atol=1e-6)  # the tiny bundle's encoder is untrained
    assert np.isfinite(untrained(WORDS)[0]).all()
    assert np.isnan(untrained(["film", "", "\ud800"])).all(axis=1).tolist() == [False, True, True]
    assert untrained([]).shape == (0, untrained.width) == (0, 32)


def test_a_long_text_is_cut_or_read_in_windows_as_the_settings_say(tiny_model_dir: Path, tmp_path: Path) -> None:
    text = " ".join(f"{WORDS[i % 4]} film" for i in range(40))
    of = {
        on_long: Embedder.of_pretrained(str(tiny_model_dir), TextSpec(max_tokens=32, on_long=on_long), pairs=False)
        for on_long in ("truncate", "windows", "error")
    }
    (encoded,) = of["windows"]._encoder([text])
    assert len(encoded.windows) > 2
    tokens = torch.tensor([len(ids) for ids in encoded.windows])
    with torch.inference_mode():
        each = of["windows"]._model.means(encoded.windows)
    expected = (each * tokens[:, None]).sum(0) / tokens.sum()
    np.testing.assert_allclose(of["windows"]([text])[0], expected, atol=1e-5)
    np.testing.assert_allclose(of["truncate"]([text])[0], each[0], atol=1e-5)
    np.testing.assert_allclose(of["error"]([text])[0], each[0], atol=1e-5)  # in training the text is truncated
    strict = Embedder.of_bundle(load_bundle(str(save_tiny_bundle(tiny_model_dir, tmp_path / "b", on_long="error"))))
    assert np.isnan(strict([text, "film"])).all(axis=1).tolist() == [True, False]


def test_the_order_of_a_pair_is_part_of_its_embedding(pair_bundle: Path, tiny_model_dir: Path) -> None:
    one, other = TextInput("great film", "boring"), TextInput("boring", "great film")
    for embedder in (
        Embedder.of_bundle(load_bundle(str(pair_bundle))),
        Embedder.of_pretrained(str(tiny_model_dir), TextSpec(max_tokens=32), pairs=True),
    ):
        found = embedder([one, other, one])
        np.testing.assert_allclose(found[0], found[2], atol=1e-6)
        assert np.abs(found[0] - found[1]).max() > 1e-3
        assert np.isnan(embedder(["one text"])).all()


def test_more_tokens_than_the_model_has_positions_come_with_the_limit(tiny_model_dir: Path) -> None:
    with pytest.raises(ModelError, match="cannot embed a text of 65 tokens") as caught:
        Embedder.of_pretrained(str(tiny_model_dir), TextSpec(max_tokens=65), pairs=False)
    assert caught.value.todo == "--set text.max_tokens=64"
    Embedder.of_pretrained(str(tiny_model_dir), TextSpec(max_tokens=64), pairs=False)
