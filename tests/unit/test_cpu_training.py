"""The law of textcls/modeling/cpu_training.py: faster, with the same mathematics and the same files."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit import bert_family
from tests.unit.bert_family import LIKE_BERT, NOT_LIKE_BERT, tiny_classifier
from textcls.modeling.build import build_model
from textcls.modeling.cpu_training import adapt_to_cpu
from textcls.settings.recipe import ModelSpec
from textcls.tasks.single_label import SINGLE_LABEL

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
PAD = 0
# Rows of two batches: token 9 is touched by the first alone, 20 by the second alone, the padding by both.
FIRST = [[2, 9, 10, 11, 3], [2, 12, 3, PAD, PAD]]
SECOND = [[2, 20, 12, 3], [2, 21, 10, PAD]]


def build(directory: Path, dropout: float = 0.0) -> Any:
    labels, spec = ("a", "b", "c"), ModelSpec(dropout=dropout)
    problem_type = SINGLE_LABEL.problem_type
    return build_model(str(directory), labels, spec, problem_type=problem_type, pad_id=PAD, seed=3).train()


def pair(directory: Path, *, alone: bool = True) -> tuple[Any, Any]:
    """(plain, adapted), with the same weights and no dropout."""
    plain = build(directory)
    adapted = copy.deepcopy(plain)
    adapt_to_cpu(adapted, alone=alone)
    return plain, adapted


def logits(model: Any, rows: Sequence[Sequence[int]], pad_id: int = PAD) -> torch.Tensor:
    ids_BL = torch.tensor(rows)
    mask_BL = (ids_BL != pad_id).long()
    return model(input_ids=ids_BL, attention_mask=None if bool(mask_BL.all()) else mask_BL).logits


def backward(model: Any, rows: Sequence[Sequence[int]]) -> None:
    out = logits(model, rows)
    torch.nn.functional.cross_entropy(out, torch.arange(len(rows)) % 3, reduction="sum").backward()


def words(model: Any) -> Any:
    return model.get_input_embeddings()


def assert_same_gradients(one: Any, other: Any) -> None:
    ours, theirs = ({name: parameter.grad for name, parameter in model.named_parameters()} for model in (one, other))
    assert all(gradient is not None for gradient in theirs.values())
    torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("rows", [FIRST, SECOND, [[2, 9, 3]], [[2, 9, 9, 9, 3]] * 3], ids=range(4))
def test_logits_and_gradients_are_the_plain_module_s(rows: list[list[int]], alone: bool, tiny_model_dir: Path) -> None:
    plain, adapted = pair(tiny_model_dir, alone=alone)
    torch.testing.assert_close(logits(adapted, rows), logits(plain, rows), **CLOSE)
    for model in (plain, adapted):
        backward(model, rows)
    assert_same_gradients(adapted, plain)


@pytest.mark.parametrize("kind", [*LIKE_BERT, NOT_LIKE_BERT])
def test_every_kind_of_model_has_its_own_logits_and_gradients(kind: str) -> None:
    plain = tiny_classifier(kind)
    adapted = copy.deepcopy(plain)
    adapt_to_cpu(adapted, alone=False)
    for rows in ([[2, 9, 10, 11, 3], [2, 12, 3, 1, 1]], [[2, 20, 12, 3], [2, 21, 10, 30]]):
        ours, theirs = (logits(model, rows, bert_family.PAD) for model in (adapted, plain))
        torch.testing.assert_close(ours, theirs, **CLOSE)
        for out in (ours, theirs):
            torch.nn.functional.cross_entropy(out, torch.tensor([0, 2])).backward()
        used = [name for name, parameter in plain.named_parameters() if parameter.grad is not None]
        assert any("query" in name or "q_lin" in name for name in used)
        assert used == [name for name, parameter in adapted.named_parameters() if parameter.grad is not None]
        for name in used:
            ours, theirs = (model.get_parameter(name).grad for model in (adapted, plain))
            torch.testing.assert_close(ours, theirs, **CLOSE)


def test_the_last_layer_computes_the_first_token_alone(tiny_model_dir: Path) -> None:
    _, model = pair(tiny_model_dir)
    shapes: list[tuple[int, ...]] = []
    for layer in model.bert.encoder.layer:
        layer.output.register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape[:2])))
    logits(model, FIRST)
    assert shapes == [(2, 5), (2, 1)]


@pytest.mark.parametrize("alone", [True, False])
def test_steps_follow_the_plain_module_s_and_no_row_keeps_an_old_gradient(alone: bool, tiny_model_dir: Path) -> None:
    models = pair(tiny_model_dir, alone=alone)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-3) for model in models]
    for rows in (FIRST, SECOND, FIRST, SECOND, SECOND):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            backward(model, rows)
        assert_same_gradients(models[1], models[0])
        for optimizer in optimizers:
            optimizer.step()
    plain, adapted = models
    torch.testing.assert_close(adapted.state_dict(), plain.state_dict(), **CLOSE)


def test_a_row_that_a_step_does_not_touch_has_no_gradient(tiny_model_dir: Path) -> None:
    _, model = pair(tiny_model_dir)
    backward(model, FIRST)
    assert words(model).weight.grad[9].abs().sum() > 0
    model.zero_grad(set_to_none=True)
    backward(model, SECOND)
    gradient = words(model).weight.grad
    touched = {token for row in SECOND for token in row} - {PAD}
    assert {row for row in range(len(gradient)) if gradient[row].any()} == touched


def test_the_padding_has_no_gradient(tiny_model_dir: Path) -> None:
    for model in pair(tiny_model_dir):
        table = words(model)
        assert table.padding_idx == PAD
        # Straight from the table: in the whole model the mask keeps gradients from the padding as well.
        for ids in ([[PAD, 9]], [[PAD, PAD]], [[20, PAD]]):
            table(torch.tensor(ids)).sum().backward()
            assert not table.weight.grad[PAD].any()
        assert table.weight.grad[9].all()


def test_in_company_every_gradient_goes_through_autograd(tiny_model_dir: Path) -> None:
    _, model = pair(tiny_model_dir, alone=False)
    through_autograd: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        parameter.register_hook(lambda gradient, name=name: through_autograd.update({name: gradient.clone()}))
    backward(model, FIRST)
    # Averaging over processes sees what autograd hands over, and nothing else.
    torch.testing.assert_close(through_autograd, {name: p.grad for name, p in model.named_parameters()})


@pytest.mark.parametrize("set_to_none", [True, False])
def test_micro_batches_add_up_to_the_batch(set_to_none: bool, tiny_model_dir: Path) -> None:
    plain, adapted = pair(tiny_model_dir)
    rows = [*FIRST, [2, 20, 12, 9, 3]]
    backward(adapted, SECOND)
    adapted.zero_grad(set_to_none=set_to_none)
    for model, parts in ((plain, [rows]), (adapted, [rows[:1], rows[1:2], rows[2:]])):
        for start, part in enumerate(parts):
            labels = (torch.arange(len(part)) + start) % 3
            out = logits(model, part)
            torch.nn.functional.cross_entropy(out, labels, reduction="sum").backward()
    assert_same_gradients(adapted, plain)


def test_a_gradient_that_is_clipped_leaves_the_next_one_whole(tiny_model_dir: Path) -> None:
    models = pair(tiny_model_dir)
    for rows in (FIRST, FIRST):
        for model in models:
            model.zero_grad(set_to_none=True)
            backward(model, rows)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    assert_same_gradients(models[1], models[0])


def test_bfloat16_products_stay_near_the_plain_module_s(tiny_model_dir: Path) -> None:
    plain, adapted = pair(tiny_model_dir)
    for model in (plain, adapted):
        with torch.autocast("cpu", torch.bfloat16):
            backward(model, FIRST)
    for (name, ours), theirs in zip(adapted.named_parameters(), plain.parameters(), strict=True):
        assert ours.grad.dtype == torch.float32, name
        torch.testing.assert_close(ours.grad, theirs.grad, atol=0.05, rtol=0.05)


def test_evaluation_is_the_plain_module_s(tiny_model_dir: Path) -> None:
    plain = build(tiny_model_dir, dropout=0.5).eval()
    adapted = copy.deepcopy(plain)
    adapt_to_cpu(adapted, alone=True)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(logits(adapted, FIRST), logits(plain, FIRST), **CLOSE)
    assert torch.equal(logits(adapted, FIRST), logits(adapted, FIRST))


# --- dropout ---------------------------------------------------------------------------------------------------------


def dropout(probability: float) -> torch.nn.Dropout:
    """The dropout of an adapted model."""
    model = torch.nn.Sequential(torch.nn.Dropout(probability), torch.nn.Embedding(3, 2))
    model.get_input_embeddings = lambda: model[1]  # type: ignore[assignment]
    model.config = type("Config", (), {"_attn_implementation": "eager"})()  # type: ignore[assignment]
    adapt_to_cpu(model, alone=False)
    return model[0]


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_the_share_it_should_and_scales_it_up(probability: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    out = dropout(probability)(torch.ones(1000, 1003, dtype=dtype))
    kept = out != 0
    # Five standard deviations of the share of a million independent draws.
    spread = 5 * (probability * (1 - probability) / out.numel()) ** 0.5
    assert abs(kept.double().mean().item() - (1 - probability)) < spread
    assert out.dtype == dtype
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 1 / (1 - probability)))
    # Neighbours come from one 64-bit draw, and are independent all the same: so are rows.
    for shifted in (kept[:, 1:] & kept[:, :-1], kept[:, 2:] & kept[:, :-2], kept[1:] & kept[:-1]):
        assert abs(shifted.double().mean().item() - (1 - probability) ** 2) < 3 * spread


def test_dropout_is_repeated_by_its_seed_and_changes_without(tiny_model_dir: Path) -> None:
    model = build(tiny_model_dir, dropout=0.3)
    adapt_to_cpu(model, alone=True)

    def seeded(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return logits(model, FIRST)

    assert torch.equal(seeded(1), seeded(1))
    assert not torch.equal(seeded(1), seeded(2))
    assert not torch.equal(seeded(1), logits(model, FIRST))


def test_dropout_drops_the_same_from_the_gradient() -> None:
    torch.manual_seed(0)
    x = torch.ones(50, 7, requires_grad=True)
    out = dropout(0.4)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out)


@pytest.mark.parametrize(("probability", "training"), [(0.5, False), (0.0, True)])
def test_dropout_is_nothing_in_evaluation_and_at_zero(probability: float, training: bool) -> None:
    x = torch.randn(5, 3)
    assert torch.equal(dropout(probability).train(training)(x), x)


@pytest.mark.parametrize("layer", [0, -1])
def test_attention_weights_are_dropped_in_training_alone(layer: int, tiny_model_dir: Path) -> None:
    _, model = pair(tiny_model_dir)
    model.bert.encoder.layer[layer].attention.self.dropout.p = 0.5
    drawn = [logits(model, FIRST) for _ in range(2)]
    assert not torch.equal(*drawn)
    model.eval()
    assert torch.equal(*(logits(model, FIRST) for _ in range(2)))


# --- what is saved ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [True, False])
def test_what_is_saved_knows_nothing_of_it(alone: bool, tiny_model_dir: Path, tmp_path: Path) -> None:
    plain, adapted = pair(tiny_model_dir, alone=alone)
    backward(adapted, FIRST)
    assert list(adapted.state_dict()) == list(plain.state_dict())
    for name, model in (("plain", plain), ("adapted", adapted)):
        model.save_pretrained(tmp_path / name)
    saved, config = ((tmp_path / name / "config.json").read_text() for name in ("plain", "adapted"))
    assert json.loads(config) == json.loads(saved)
    assert "textcls" not in config
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "adapted")]
    assert weights[0] == weights[1]


def test_an_embedding_of_a_kind_of_its_own_is_left_alone(tiny_model_dir: Path) -> None:
    model = build(tiny_model_dir)
    words(model).max_norm = 1.0
    adapt_to_cpu(model, alone=True)
    assert type(words(model)) is torch.nn.Embedding
