"""The law of textcls/modeling/cpu_scoring.py: logits are those of the model that transformers loads."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.bert_family import LIKE_BERT, NOT_LIKE_BERT, PAD, tiny_classifier
from textcls.inference.classifier import PaddedModel
from textcls.modeling import cpu_scoring
from textcls.modeling.cpu_scoring import RaggedModel
from textcls.modeling.precision import uses_bf16


def windows_of(*lengths: int) -> list[list[int]]:
    """Windows of token ids between 2 and 49, other than the padding."""
    chance = np.random.default_rng(0)
    return [chance.integers(2, 50, length).tolist() for length in lengths]


BATCHES = {
    "one": windows_of(5),
    "one token": windows_of(1),
    "equal": windows_of(6, 6, 6),
    "unequal": windows_of(7, 1, 12, 5, 12, 30),
    "many": windows_of(*(1 + 7 * i % 33 for i in range(40))),
    "many equal": windows_of(*[13] * 9),
}


def pair(kind: str, *, bf16: bool = False, **settings: Any) -> tuple[PaddedModel, RaggedModel | None]:
    """(as transformers has it, made for scoring), with the same weights."""
    model = tiny_classifier(kind, **settings)
    return PaddedModel(model, PAD, torch.device("cpu"), bf16=False), RaggedModel.of(model, bf16=bf16)


def both(kind: str, windows: Sequence[Sequence[int]], **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits of transformers, ours)."""
    plain, ragged = pair(kind, **settings)
    assert ragged is not None
    with torch.inference_mode():
        return plain.logits(windows), ragged.logits(windows)


def threads_of_torch() -> list[int]:
    """In this thread, and in one that is new."""
    with ThreadPoolExecutor(1) as new:
        return [torch.get_num_threads(), new.submit(torch.get_num_threads).result()]


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("kind", LIKE_BERT)
def test_the_logits_are_those_of_transformers(kind: str, name: str) -> None:
    theirs, ours = both(kind, BATCHES[name])
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    if len(theirs) > 1:
        assert (theirs[0] - theirs[1]).abs().max() > 0.01, "a model that tells windows apart"


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_the_logits_of_pairs_are_those_of_transformers(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_scoring, "_SHARE_TOKENS", 20)
    plain, ragged = pair(kind)
    assert ragged is not None
    windows = BATCHES[name]
    seconds = np.array([len(window) * (1 + i % 3) // 3 for i, window in enumerate(windows)])
    with torch.inference_mode():
        theirs, ours, untyped = plain.logits(windows, seconds), ragged.logits(windows, seconds), ragged.logits(windows)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    if len(windows) > 1:
        assert (ours - untyped).abs().max() > 0.01, "a model that tells the segments apart"


@pytest.mark.parametrize("most", [0, 3, 10**6])
def test_it_matters_not_which_windows_are_padded_together(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_scoring, "_MAX_PADDING", most)
    theirs, ours = both("bert", BATCHES["many"])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tokens", [5, 40, 10**6], ids=lambda n: f"batches of {n} tokens")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_it_matters_not_what_runs_on_which_thread(threads: int, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_scoring, "_BATCH_TOKENS", tokens)
    monkeypatch.setattr(cpu_scoring, "_SHARE_TOKENS", 20)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for name in BATCHES:
            theirs, ours = both("bert", BATCHES[name])
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
            assert threads_of_torch() == [threads, threads]
    finally:
        torch.set_num_threads(before)


def test_a_thread_that_fails_tells_and_leaves_the_threads_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_scoring, "_SHARE_TOKENS", 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        _, ragged = pair("bert")
        assert ragged is not None
        with pytest.raises(IndexError):
            ragged.logits([[2, 9, 3], [2, 10**6, 3]])
        assert threads_of_torch() == [2, 2]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", LIKE_BERT)
def test_a_padding_token_inside_a_text_is_placed_as_transformers_places_it(kind: str) -> None:
    windows = [[2, 9, PAD, 11, 3], [2, PAD, PAD, 11, 3], [PAD, 30, 31, 32, 33]]
    theirs, ours = both(kind, windows)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
def test_each_activation_is_the_configuration_s(activation: str) -> None:
    theirs, ours = both("bert", BATCHES["unequal"], hidden_act=activation)
    # The two ways to compute GELU differ by up to 5e-4.
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", LIKE_BERT)
def test_in_bf16_it_is_as_near_to_fp32_as_autocast_is(kind: str) -> None:
    bf16 = uses_bf16("bf16", torch.device("cpu"))  # a processor that cannot is given fp32
    exact, ours = both(kind, BATCHES["unequal"], bf16=bf16)
    autocast = PaddedModel(tiny_classifier(kind), PAD, torch.device("cpu"), bf16=True)
    with torch.inference_mode():
        stock = autocast.logits(BATCHES["unequal"])
    assert not bf16 or (ours - exact).abs().max() > 1e-5, "products in bf16"
    assert (stock - exact).abs().max() > 1e-5
    assert (ours - exact).abs().max() < 2 * (stock - exact).abs().max() + 0.005


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (NOT_LIKE_BERT, {}),
        ("bert", {"hidden_act": "silu"}),
        ("bert", {"is_decoder": True}),
        ("roberta", {"is_decoder": True, "add_cross_attention": True}),
    ],
    ids=str,
)
def test_it_is_not_for_a_model_of_another_kind(kind: str, settings: dict[str, Any]) -> None:
    assert pair(kind, **settings)[1] is None


@pytest.mark.parametrize("missing", ["oneDNN", "x86"])
def test_it_is_not_for_a_processor_of_another_kind(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "oneDNN":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    else:
        monkeypatch.setattr(cpu_scoring.platform, "machine", lambda: "aarch64")
    assert pair("bert")[1] is None
