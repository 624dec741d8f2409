"""Pretrained encoder + labels -> a module to fine-tune.

In: a local model directory and the recipe. Out: torch objects. Not here: the training loop (training/loop.py), the
choice of bfloat16 (precision.py).

Shapes: B rows of a batch, C classes.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from textcls.errors import ModelError
from textcls.settings.privacy import Weights
from textcls.settings.recipe import ModelSpec

_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "dropout",
    "seq_classif_dropout",
)

# Values of `model_type` with BERT's encoder layers and a head that reads the first token alone.
_LIKE_BERT = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


def build_model(
    directory: str,
    labels: Sequence[str],
    spec: ModelSpec,
    *,
    problem_type: str | None,
    pad_id: int,
    seed: int,
    new_ids: Sequence[int] = (),
) -> Any:
    """A sequence classifier in float32 with a fresh head; equal arguments give equal weights.

    Args:
        directory: local model directory.
        labels: label names in id order; kept in the configuration.
        spec: dropout, if it overrides the model's own.
        problem_type: the task's; kept in the configuration, where transformers looks for it. None for a model whose
            head is not used.
        pad_id: id of the padding token.
        seed: seeds the head.
        new_ids: ids of tokens that the pretrained model does not know; each begins as the mean of all others.

    Raises:
        ModelError: the directory's weights do not belong to its configuration, it has no classifier class, or it cannot
            have new tokens.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import transformers
    from transformers import AutoConfig, AutoModelForSequenceClassification

    transformers.logging.set_verbosity_error()  # no report that the head is new: it is meant to be
    transformers.logging.disable_progress_bar()
    torch.manual_seed(seed)
    try:
        config = AutoConfig.from_pretrained(directory)
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: i for i, name in enumerate(labels)}
        config.problem_type = problem_type
        config.pad_token_id = pad_id
        if spec.dropout is not None:
            for name in _DROPOUTS:
                if hasattr(config, name):
                    setattr(config, name, spec.dropout)
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            directory, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except MemoryError:
        raise
    except Exception as error:  # every architecture raises other exceptions
        raise ModelError(
            f"{spec.pretrained}: transformers cannot load it as a sequence classifier: {error}",
            expected="a BERT-family encoder",
        ) from error
    prefix = f"{model.base_model_prefix}."
    reshaped = {key for key, *_ in loaded["mismatched_keys"]}
    lost = [k for k in sorted({*loaded["missing_keys"], *reshaped}) if k.startswith(prefix) and "pooler" not in k]
    if lost:
        raise ModelError(
            f"{spec.pretrained}: {len(lost)} weights of the encoder are missing or of another shape: {lost[0]}, ...",
            expected="weights that belong to the model's config.json",
        )
    if new_ids:
        _embed(model, sorted(new_ids), spec.pretrained)
    return model


def _embed(model: Any, new_ids: Sequence[int], name: str) -> None:
    """Gives new tokens the mean of the embeddings, which grow unless the model has spare rows."""
    try:
        known = model.get_input_embeddings().num_embeddings
        beyond = [one for one in new_ids if one >= known]
        if beyond and beyond[0] > known:
            raise ModelError(
                f"{name}: the tokenizer has token ids up to {beyond[0] - 1}, the model's embeddings end at {known - 1}",
                expected="a tokenizer that belongs to the model",
                todo="copy the model's own tokenizer files beside it, or enlarge its embeddings "
                f"(model.resize_token_embeddings({beyond[0]})) and save it again",
            )
        if beyond:
            model.resize_token_embeddings(beyond[-1] + 1, mean_resizing=False)
        weights_VE = model.get_input_embeddings().weight.data
        # In numpy: the same on any number of threads, and without a copy of the table in float64.
        weights_VE[list(new_ids)] = torch.from_numpy(weights_VE[: new_ids[0]].numpy().mean(0, np.float64)).float()
    except (NotImplementedError, AttributeError) as error:
        raise ModelError(
            f"{name}: its embeddings cannot grow by the tokens that stand for what is masked: {error}",
            expected="an embedding for each token, as BERT's kind has",
            todo="choose another model.pretrained, or --set text.mask=[] and mask the texts before",
        ) from error


def freeze_unused(model: Any, ids: Sequence[int]) -> None:
    """Freezes weights that no text reaches, because DistributedDataParallel would wait for their gradients.

    Examples are BigBird's pooler, LUKE's entities and ESM's contacts. The optimizer would not change them in any case.

    Args:
        model: on the CPU.
        ids: token ids of any text.
    """
    training = model.training
    logits_of(model.eval(), torch.tensor([ids]), None, bf16=False).sum().backward()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.grad is not None)
    model.zero_grad(set_to_none=True)
    model.train(training)


def freeze_untrained(model: Any, weights: Weights) -> None:
    """Keeps what private training does not train as it is: embedding tables, and with `biases` the encoder's matrices.

    Training biases, norms and the head alone is BiTFiT (Ben Zaken et al. 2022; with privacy, Bu et al. 2022,
    arXiv:2210.00036).
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.weight.requires_grad_(False)
    if weights == "biases":
        for parameter in model.base_model.parameters():
            if parameter.ndim >= 2:
                parameter.requires_grad_(False)


def layers_like_bert(model: Any) -> Any:
    """The encoder's layers, a `ModuleList`, if they are BERT's and the head reads the first token alone; else None."""
    config = model.config
    if getattr(config, "model_type", None) not in _LIKE_BERT or config.is_decoder or config.add_cross_attention:
        return None
    return model.base_model.encoder.layer


def head_of(model: Any, classes: int) -> str:
    """Name of the linear layer that computes the logits, into which a temperature is folded.

    Raises:
        ModelError: the model has no such layer.
    """
    inside = f"{model.base_model_prefix}."
    found: list[str] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == classes and not name.startswith(inside)
    ]
    if not found:
        raise ModelError(
            f"{type(model).__name__} has no final linear layer of {classes} outputs",
            expected="logits from a linear layer, whose weights a temperature can be folded into",
            todo="--set calibration.temperature=false",
        )
    return found[-1]


def fold_temperature(weights: Mapping[str, torch.Tensor], head: str, temperature: float | Sequence[float]) -> None:
    """Divides weight and bias of the head in place, and with them the logits, by a temperature or one for each label.

    Args:
        weights: parameters by name, of a module or a file.
        head: name of the layer, from `head_of`; "" divides nothing.
        temperature: the divisor, or C of them in the order of label ids; rounded to float32.
    """
    with torch.no_grad():
        for name, parameter in weights.items():
            if name.rpartition(".")[0] == head:
                if isinstance(temperature, (int, float)):
                    parameter.div_(temperature)
                else:
                    divisors_C = torch.tensor(temperature, dtype=parameter.dtype, device=parameter.device)
                    parameter.div_(divisors_C.view(-1, *[1] * (parameter.ndim - 1)))


def logits_of(
    model: Any,
    input_ids_BL: torch.Tensor,
    attention_mask_BL: torch.Tensor | None,
    token_types_BL: torch.Tensor | None = None,
    *,
    bf16: bool,
) -> torch.Tensor:
    """float32 [B, C]; without token types, the model takes 0 for all."""
    output = _output_of(model, input_ids_BL, attention_mask_BL, token_types_BL, bf16=bf16)
    logits_BC: torch.Tensor = output.logits.float()
    return logits_BC


def means_of(
    model: Any,
    input_ids_BL: torch.Tensor,
    attention_mask_BL: torch.Tensor | None,
    token_types_BL: torch.Tensor | None = None,
    *,
    bf16: bool,
) -> torch.Tensor:
    """float32 [B, E]: the mean of the encoder's output over the tokens of each row; arguments as of `logits_of`."""
    output = _output_of(model.base_model, input_ids_BL, attention_mask_BL, token_types_BL, bf16=bf16)
    hidden_BLE: torch.Tensor = output.last_hidden_state.float()
    if attention_mask_BL is None:
        return hidden_BLE.mean(1)
    mask_BL1 = attention_mask_BL[:, :, None]
    return (hidden_BLE * mask_BL1).sum(1) / mask_BL1.sum(1)


def _output_of(
    module: Any,
    input_ids_BL: torch.Tensor,
    attention_mask_BL: torch.Tensor | None,
    token_types_BL: torch.Tensor | None,
    *,
    bf16: bool,
) -> Any:
    """What a module of transformers returns; arguments as of `logits_of`."""
    typed = {} if token_types_BL is None else {"token_type_ids": token_types_BL}
    with torch.autocast(input_ids_BL.device.type, torch.bfloat16, enabled=bf16):
        return module(input_ids=input_ids_BL, attention_mask=attention_mask_BL, **typed)
