"""The laws of textcls/modeling/build.py: the same module from the same arguments, and the mathematics of a step."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from textcls.errors import ModelError
from textcls.modeling.batching import tokens_at_once
from textcls.modeling.build import build_model, fold_temperature, freeze_untrained, freeze_unused, head_of, logits_of
from textcls.settings.privacy import Weights
from textcls.settings.recipe import ModelSpec, TrainSpec
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.tokenizer_files import prepare_tokenizer
from textcls.training.optimizer import (
    build_optimizer,
    class_weights,
    clip_gradients,
    learning_rate,
    parameter_groups,
    row_losses,
)

LABELS = ("bad", "good", "so so")
CPU = torch.device("cpu")


def build(directory: Path, *, seed: int = 0, labels: tuple[str, ...] = LABELS, **spec: Any) -> Any:
    return build_model(
        str(directory), labels, ModelSpec(**spec), problem_type=SINGLE_LABEL.problem_type, pad_id=0, seed=seed
    )


@pytest.fixture
def model_dir(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that may be written to."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def reconfigure(directory: Path, **change: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")


# --- the module ------------------------------------------------------------------------------------------------------


def test_equal_arguments_give_equal_weights_and_the_seed_is_the_head_s(tiny_model_dir: Path) -> None:
    torch.manual_seed(5)
    one = build(tiny_model_dir, seed=1).state_dict()
    torch.rand(3)
    same, other = build(tiny_model_dir, seed=1).state_dict(), build(tiny_model_dir, seed=2).state_dict()
    assert {name: weights.dtype for name, weights in one.items()} == dict.fromkeys(one, torch.float32)
    assert all(torch.equal(weights, same[name]) for name, weights in one.items())
    assert [name for name, weights in one.items() if not torch.equal(weights, other[name])] == ["classifier.weight"]


def test_the_encoder_s_weights_are_the_pretrained_ones(tiny_model_dir: Path) -> None:
    from safetensors.torch import load_file

    pretrained = load_file(tiny_model_dir / "model.safetensors")
    built = build(tiny_model_dir).bert.state_dict()
    assert set(pretrained) == set(built)
    assert all(torch.equal(weights, built[name]) for name, weights in pretrained.items())


@pytest.mark.parametrize("labels", [("no", "yes"), LABELS])
def test_the_labels_are_in_the_configuration_in_the_order_of_their_ids(
    labels: tuple[str, ...], tiny_model_dir: Path
) -> None:
    config = build(tiny_model_dir, labels=labels).config
    assert config.id2label == dict(enumerate(labels))
    assert config.label2id == {label: label_id for label_id, label in enumerate(labels)}
    assert (config.num_labels, config.problem_type) == (len(labels), "single_label_classification")
    assert config.pad_token_id == 0


def test_dropout_is_the_model_s_own_unless_the_recipe_says_otherwise(tiny_model_dir: Path) -> None:
    def rates(model: Any) -> set[float]:
        return {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}

    assert rates(build(tiny_model_dir)) == {0.1}
    changed = build(tiny_model_dir, dropout=0.25)
    assert rates(changed) == {0.25}
    assert changed.config.attention_probs_dropout_prob == 0.25
    assert rates(build(tiny_model_dir, dropout=0.0)) == {0.0}


def test_weights_that_do_not_belong_to_the_configuration_are_refused(model_dir: Path) -> None:
    reconfigure(model_dir, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"weights of the encoder are missing .*: bert\.encoder\.layer\.2"):
        build(model_dir)


@pytest.mark.parametrize("change", [{"hidden_size": 64}, {"vocab_size": 7}, {"max_position_embeddings": 128}])
def test_weights_of_another_shape_are_refused(change: dict[str, int], model_dir: Path) -> None:
    reconfigure(model_dir, **change)
    with pytest.raises(ModelError, match="of another shape"):
        build(model_dir)


@pytest.mark.parametrize(
    "change",
    [{"model_type": "no_such_type"}, {"model_type": "vit"}, {"model_type": None}, {"num_attention_heads": "two"}],
)
def test_a_model_that_is_no_text_classifier_is_refused_by_name(change: dict[str, object], model_dir: Path) -> None:
    reconfigure(model_dir, architectures=None, **change)
    with pytest.raises(ModelError, match="some/model: transformers cannot load it") as caught:
        build(model_dir, pretrained="some/model")
    assert "BERT-family" in caught.value.expected


def test_weights_that_no_text_reaches_are_not_waited_for_by_other_ranks(tiny_model_dir: Path) -> None:
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    def two_steps(model: Any) -> None:
        wrapped = DistributedDataParallel(model)
        for _ in range(2):
            wrapped(input_ids=torch.tensor([[2, 7, 3]])).logits.sum().backward()

    models = [build(tiny_model_dir), build(tiny_model_dir)]
    for model in models:
        model.bert.spare = torch.nn.Linear(2, 2)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
            two_steps(models[0])
        freeze_unused(models[1], [2, 7, 9, 3])
        two_steps(models[1])
    finally:
        distributed.destroy_process_group()
    frozen = [name for name, parameter in models[1].named_parameters() if not parameter.requires_grad]
    assert frozen == ["bert.spare.weight", "bert.spare.bias"]


@pytest.mark.parametrize("weights", get_args(Weights))
def test_private_training_spares_embeddings_and_of_few_weights_the_matrices_of_the_encoder(
    tiny_model_dir: Path, weights: Weights
) -> None:
    model = build(tiny_model_dir)
    freeze_untrained(model, weights)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    every = {name for name, _ in model.named_parameters() if "_embeddings." not in name}
    vectors = {name for name in every if name.endswith("bias") or "LayerNorm" in name}
    assert trained == {"all": every, "biases": vectors | {"classifier.weight"}}[weights]


# --- the optimizer ---------------------------------------------------------------------------------------------------


def test_weight_decay_spares_biases_and_norms_and_forgets_no_parameter(tiny_model_dir: Path) -> None:
    model = build(tiny_model_dir)
    groups = parameter_groups(model, 0.3)
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    names = [[name_of[id(parameter)] for parameter in group["params"]] for group in groups]
    exempt = {name for name in name_of.values() if name.endswith("bias") or "LayerNorm" in name}

    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert set(names[1]) == exempt
    assert sorted(names[0] + names[1]) == sorted(name_of.values())


def test_the_optimizer_takes_its_settings_from_the_recipe(tiny_model_dir: Path) -> None:
    optimizer = build_optimizer(build(tiny_model_dir), TrainSpec(learning_rate=0.125, weight_decay=0.5))
    assert {group["lr"] for group in optimizer.param_groups} == {0.125}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]


@given(total=st.integers(1, 400), warmup=st.floats(0, 0.99))
def test_the_rate_rises_to_its_peak_falls_from_it_and_never_reaches_zero(total: int, warmup: float) -> None:
    # A peak of 1 keeps the fractions exact.
    rates = [learning_rate(step, total, TrainSpec(learning_rate=1.0, warmup_fraction=warmup)) for step in range(total)]
    peak = rates.index(1.0)

    assert all(0 < rate <= 1 for rate in rates)
    assert abs(peak + 1 - total * warmup) <= 1
    assert all(a < b for a, b in itertools.pairwise(rates[: peak + 1]))
    # The last step of the rise and the first of the fall both have the peak's rate.
    assert all(a > b for a, b in itertools.pairwise(rates[peak + 1 :]))
    twice = [learning_rate(step, total, TrainSpec(learning_rate=2.0, warmup_fraction=warmup)) for step in range(total)]
    assert twice == pytest.approx([2 * rate for rate in rates])


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_a_gradient_is_scaled_only_if_it_is_too_long(max_norm: float) -> None:
    ours, theirs = (torch.nn.Linear(4, 3) for _ in range(2))
    for module in (ours, theirs):
        module.weight.grad = torch.arange(12.0).reshape(3, 4)
        module.bias.grad = None  # not every parameter takes part in every step
    clip_gradients(ours, max_norm)
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    assert ours.bias.grad is None


# --- the loss --------------------------------------------------------------------------------------------------------

LOGITS_BC = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 4.0, 1.0], [9.0, -9.0, 0.0]])
LABELS_B = torch.tensor([0, 2, 2, 1])
ONE_LABEL, SEVERAL_LABELS = "single_label_classification", "multi_label_classification"


@pytest.mark.parametrize("weights_C", [None, torch.tensor([0.2, 1.5, 1.3])], ids=["even", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_row_losses_are_the_cross_entropy_however_a_batch_is_divided(
    weights_C: torch.Tensor | None, smoothing: float
) -> None:
    rows = row_losses(ONE_LABEL, LOGITS_BC, LABELS_B, weights_C, smoothing)
    log_p = LOGITS_BC - LOGITS_BC.logsumexp(1, keepdim=True)
    targets = functional.one_hot(LABELS_B, 3) * (1 - smoothing) + smoothing / 3
    weights = torch.ones(3) if weights_C is None else weights_C
    torch.testing.assert_close(rows, -(targets * weights * log_p).sum(1))

    whole = functional.cross_entropy(LOGITS_BC, LABELS_B, weight=weights_C, label_smoothing=smoothing, reduction="sum")
    parts = [
        row_losses(ONE_LABEL, LOGITS_BC[at], LABELS_B[at], weights_C, smoothing).sum() for at in ([3], [0, 2], [1])
    ]
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize("weights_C", [None, torch.tensor([0.2, 1.5, 1.3])], ids=["even", "weighted"])
def test_with_several_labels_a_row_s_loss_is_the_one_that_transformers_average(weights_C: torch.Tensor | None) -> None:
    targets_BC = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.25, 0.0]])
    rows = row_losses(SEVERAL_LABELS, LOGITS_BC, targets_BC, weights_C, 0.0)
    torch.testing.assert_close(rows.mean(), torch.nn.BCEWithLogitsLoss(pos_weight=weights_C)(LOGITS_BC, targets_BC))
    part = row_losses(SEVERAL_LABELS, LOGITS_BC[[3]], targets_BC[[3]], weights_C, 0.0)
    torch.testing.assert_close(part, rows[[3]])


def test_smoothing_moves_each_of_several_labels_towards_one_half() -> None:
    yes = torch.ones(1, 3)
    smoothed = row_losses(SEVERAL_LABELS, LOGITS_BC[:1], yes, None, 0.2)
    torch.testing.assert_close(smoothed, row_losses(SEVERAL_LABELS, LOGITS_BC[:1], yes * 0.9, None, 0.0))


@given(counts=st.lists(st.integers(1, 10**6), min_size=2, max_size=9))
def test_balanced_classes_weigh_the_same_and_a_row_weighs_one_on_average(counts: list[int]) -> None:
    weights = class_weights(ONE_LABEL, counts, sum(counts), "balanced", CPU)
    assert weights is not None
    assert weights.dtype == torch.float32
    totals = weights.double() * torch.tensor(counts)
    torch.testing.assert_close(totals, torch.full_like(totals, sum(counts) / len(counts)), rtol=1e-6, atol=0)
    assert class_weights(ONE_LABEL, counts, sum(counts), "none", CPU) is None


def test_balanced_labels_weigh_where_rows_have_them_as_much_as_where_they_do_not_within_a_bound() -> None:
    weights = class_weights(SEVERAL_LABELS, [50, 10, 0, 100], 100, "balanced", CPU)
    assert weights is not None
    assert weights.tolist() == pytest.approx([1, 9, 100, 0.01])


def test_logits_are_float32_whatever_the_products_are(tiny_model_dir: Path) -> None:
    model = build(tiny_model_dir).eval()
    batch = torch.tensor([[2, 9, 10, 3], [2, 11, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with torch.no_grad():
        exact, rounded = (logits_of(model, *batch, bf16=bf16) for bf16 in (False, True))
    assert exact.dtype == rounded.dtype == torch.float32
    assert exact.shape == (2, 3)
    torch.testing.assert_close(exact, rounded, atol=0.02, rtol=0)
    assert not torch.equal(exact, rounded)


def test_a_temperature_folded_into_the_head_divides_the_logits(tiny_model_dir: Path) -> None:
    model, ids_BL = build(tiny_model_dir).eval(), torch.tensor([[2, 7, 9, 3], [2, 5, 6, 3]])
    with torch.inference_mode():
        before = logits_of(model, ids_BL, None, bf16=False)
    fold_temperature(dict(model.named_parameters()), head_of(model, len(LABELS)), 1.7)
    with torch.inference_mode():
        torch.testing.assert_close(logits_of(model, ids_BL, None, bf16=False), before / 1.7)


def test_the_head_is_the_last_layer_with_an_output_for_each_label(tiny_model_dir: Path) -> None:
    # As many labels as the hidden size: the layers inside must not be mistaken for the head.
    labels = tuple(f"label {i}" for i in range(32))
    assert head_of(build(tiny_model_dir, labels=labels), 32) == "classifier"
    with pytest.raises(ModelError, match="no final linear layer of 5 outputs"):
        head_of(build(tiny_model_dir), 5)


def test_a_micro_batch_is_as_long_as_told_or_as_the_device_likes() -> None:
    assert tokens_at_once(777, CPU) == tokens_at_once(777, torch.device("cuda")) == 777
    assert tokens_at_once("auto", CPU) < tokens_at_once("auto", torch.device("cuda"))


# --- tokens that the pretrained model does not know ------------------------------------------------------------------


def test_new_tokens_begin_as_the_mean_of_all_others_and_change_nothing_else(tiny_model_dir: Path) -> None:
    def built(new_ids: tuple[int, ...]) -> Any:
        kind = SINGLE_LABEL.problem_type
        return build_model(
            str(tiny_model_dir), LABELS, ModelSpec(), problem_type=kind, pad_id=0, seed=1, new_ids=new_ids
        )

    plain = built(())
    known = plain.config.vocab_size
    grown = built((known + 1, known))
    before, after = plain.state_dict(), grown.state_dict()
    name = "bert.embeddings.word_embeddings.weight"
    assert after[name].shape[0] == grown.config.vocab_size == known + 2
    assert torch.equal(after[name][:known], before[name])
    torch.testing.assert_close(after[name][known:], before[name].mean(0).expand(2, -1))
    assert all(torch.equal(weights, after[other]) for other, weights in before.items() if other != name)
    assert torch.equal(after[name], built((known, known + 1)).state_dict()[name])


def test_a_model_with_spare_rows_does_not_grow(tiny_model_dir: Path) -> None:
    kind = SINGLE_LABEL.problem_type
    plain = build(tiny_model_dir)
    last = plain.config.vocab_size - 1
    filled = build_model(str(tiny_model_dir), LABELS, ModelSpec(), problem_type=kind, pad_id=0, seed=1, new_ids=(last,))
    words = filled.get_input_embeddings().weight
    assert filled.config.vocab_size == last + 1 == len(words)
    torch.testing.assert_close(words[last], plain.get_input_embeddings().weight[:last].mean(0))


def test_a_tokenizer_of_another_model_is_no_reason_to_grow(model_dir: Path) -> None:
    from transformers import AutoModel

    known = build(model_dir).config.vocab_size

    def attempt() -> Any:
        kind = SINGLE_LABEL.problem_type
        return build_model(
            str(model_dir), LABELS, ModelSpec(), problem_type=kind, pad_id=0, seed=1, new_ids=(known + 4,)
        )

    with pytest.raises(ModelError, match=f"token ids up to {known + 3}, the model's embeddings end at") as caught:
        attempt()
    assert f"(model.resize_token_embeddings({known + 4}))" in caught.value.todo
    model = AutoModel.from_pretrained(model_dir)
    model.resize_token_embeddings(known + 4)
    model.save_pretrained(model_dir)
    assert attempt().config.vocab_size == known + 5


def test_a_model_without_a_table_of_tokens_comes_with_the_setting_that_needs_none(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertForSequenceClassification

    def none(_: Any) -> Any:
        raise NotImplementedError("characters are embedded by their hash")

    monkeypatch.setattr(BertForSequenceClassification, "get_input_embeddings", none)

    def attempt(*settings: str) -> Any:
        text = parse_recipe("", ["text.mask=[email]", *settings]).text
        new_ids = prepare_tokenizer(str(tiny_model_dir), text).new_ids
        kind = SINGLE_LABEL.problem_type
        return build_model(
            str(tiny_model_dir), LABELS, ModelSpec(), problem_type=kind, pad_id=0, seed=1, new_ids=new_ids
        )

    with pytest.raises(ModelError, match="cannot grow by the tokens that stand for what is masked") as caught:
        attempt()
    assert "--set text.mask=[] " in caught.value.todo
    assert attempt("text.mask=[]").config.num_labels == len(LABELS)
