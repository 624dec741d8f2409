"""The law of textcls/inference/encoder.py: scores are those of the model that transformers loads."""

import copy
from typing import Any

import pytest
import torch

from tests.unit.bert_family import LIKE_BERT, NOT_LIKE_BERT, PAD, logits, tiny_classifier
from textcls.inference import encoder
from textcls.inference.encoder import adapt_to_scoring

# One text alone, texts of one length, and texts of which each is padded otherwise.
BATCHES = [
    [[2, 9, 10, 11, 3]],
    [[2, 9, 10, 11, 3], [2, 30, 31, 40, 3], [2, 2, 2, 2, 2]],
    [[2, 9, 10, 11, 3, 7, 8], [2, 12, 3, PAD, PAD, PAD, PAD], [2, 20, 21, 22, 23, 3, PAD]],
]


def pair(kind: str, *, bf16: bool = False, **settings: Any) -> tuple[Any, Any]:
    """(as transformers has it, adapted), with the same weights."""
    plain = tiny_classifier(kind, **settings)
    adapted = copy.deepcopy(plain)
    adapt_to_scoring(adapted, bf16=bf16)
    return plain, adapted


def is_adapted(model: Any) -> bool:
    return any(isinstance(module, encoder._Encoder) for module in model.modules())


@pytest.mark.parametrize("batch", BATCHES, ids=["alone", "equal", "padded"])
@pytest.mark.parametrize("kind", LIKE_BERT)
def test_the_logits_are_those_of_transformers(kind: str, batch: list[list[int]]) -> None:
    plain, adapted = pair(kind)
    assert is_adapted(adapted)
    with torch.inference_mode():
        expected = logits(plain, batch)
        torch.testing.assert_close(logits(adapted, batch), expected, atol=1e-5, rtol=1e-5)
    if len(batch) > 1:
        assert (expected[0] - expected[1]).abs().max() > 0.01, "a model that tells rows apart"


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
def test_each_activation_is_the_configuration_s(activation: str) -> None:
    plain, adapted = pair("bert", hidden_act=activation)
    assert is_adapted(adapted)
    with torch.inference_mode():
        # The two ways to compute GELU differ by up to 5e-4.
        torch.testing.assert_close(logits(adapted, BATCHES[2]), logits(plain, BATCHES[2]), atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", LIKE_BERT)
def test_in_bf16_it_is_as_near_to_fp32_as_autocast_is(kind: str) -> None:
    plain, adapted = pair(kind, bf16=True)
    with torch.inference_mode():
        exact = logits(plain, BATCHES[2])
        with torch.autocast("cpu", torch.bfloat16):
            stock, ours = (logits(model, BATCHES[2]).float() for model in (plain, adapted))
    assert 0 < (ours - exact).abs().max() < 2 * (stock - exact).abs().max() + 0.005


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
def test_a_model_of_another_kind_is_left_as_it_is(kind: str, settings: dict[str, Any]) -> None:
    plain, adapted = pair(kind, **settings)
    assert [type(module) for module in adapted.modules()] == [type(module) for module in plain.modules()]
    assert torch.equal(logits(adapted, BATCHES[2]), logits(plain, BATCHES[2]))


@pytest.mark.parametrize("missing", ["oneDNN", "x86"])
def test_without_what_it_is_made_for_the_model_is_left_as_it_is(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "oneDNN":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    else:
        monkeypatch.setattr(encoder.platform, "machine", lambda: "aarch64")
    assert not is_adapted(pair("bert")[1])


def test_the_weights_are_not_held_twice() -> None:
    plain, adapted = pair("bert")
    kept = {name for name, _ in adapted.named_parameters()}
    assert not any(name.startswith("bert.encoder") for name in kept)
    assert kept == {name for name, _ in plain.named_parameters() if not name.startswith("bert.encoder")}
