"""Pretrained encoder + labels -> a module to fine-tune; its optimizer, schedule and loss.

In: a local model directory and the recipe. Out: torch objects. Not here: the loop (worker.py), whether products run in
bfloat16 (precision.py).

Shapes: B rows of a batch, C classes.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, Literal

import torch

from textcls.errors import ModelError
from textcls.recipe import ModelSpec, TrainSpec

_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "dropout",
    "seq_classif_dropout",
)

# Kinds of models (`model_type`) whose encoder layers are BERT's and whose head reads the first token alone.
_LIKE_BERT = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


def build_model(directory: str, labels: Sequence[str], spec: ModelSpec, *, pad_id: int, seed: int) -> Any:
    """A sequence classifier in float32 with a fresh head; equal arguments give equal weights.

    Args:
        directory: local model directory.
        labels: label names in id order; kept in the configuration.
        spec: dropout, if it is not the model's own.
        pad_id: id of the padding token.
        seed: seeds the head.

    Raises:
        ModelError: the directory's weights do not belong to its configuration, or it has no classifier class.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import transformers
    from transformers import AutoConfig, AutoModelForSequenceClassification

    transformers.logging.set_verbosity_error()  # the load report speaks of the head, which is meant to be new
    transformers.logging.disable_progress_bar()
    torch.manual_seed(seed)
    try:
        config = AutoConfig.from_pretrained(directory)
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: i for i, name in enumerate(labels)}
        config.problem_type = "single_label_classification"
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
    except Exception as error:  # a configuration can be wrong in as many ways as there are models
        raise ModelError(
            f"{spec.pretrained}: transformers cannot load it as a sequence classifier: {error}",
            expected="a BERT-family encoder",
        ) from error
    prefix = f"{model.base_model_prefix}."
    reshaped = {key for key, *_ in loaded["mismatched_keys"]}
    lost = [k for k in sorted({*loaded["missing_keys"], *reshaped}) if k.startswith(prefix) and "pooler" not in k]
    if lost:
        raise ModelError(
            f"{spec.pretrained}: {len(lost)} weights of the encoder are missing or of another shape, like {lost[0]}",
            expected="weights that belong to the model's config.json",
        )
    return model


def freeze_unused(model: Any, ids: Sequence[int]) -> None:
    """Takes weights that no text reaches out of training: data parallelism would wait for their gradients.

    BigBird's pooler, LUKE's entities and ESM's contacts are such. The optimizer leaves them as they are in any case.

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


def layers_like_bert(model: Any) -> Any:
    """The encoder's layers, a `ModuleList`, if they are BERT's and the head reads the first token alone; else None."""
    config = model.config
    if getattr(config, "model_type", None) not in _LIKE_BERT or config.is_decoder or config.add_cross_attention:
        return None
    return model.base_model.encoder.layer


def head_of(model: Any, classes: int) -> str:
    """Name of the linear layer that gives the logits: what a temperature is folded into.

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
            f"{type(model).__name__} has no linear layer of {classes} outputs at its end",
            expected="logits from a linear layer, whose weights a temperature can be folded into",
            todo="--set calibration.temperature=false",
        )
    return found[-1]


def divide_logits(model: Any, head: str, temperature: float) -> None:
    """Folds a temperature into the head of that name: from now on the model's logits are divided by it."""
    with torch.no_grad():
        for parameter in model.get_submodule(head).parameters():
            parameter.div_(temperature)


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups: matrices decay; biases and norms do not."""
    decayed: list[torch.nn.Parameter] = []
    exempt: list[torch.nn.Parameter] = []
    for parameter in model.parameters():
        (decayed if parameter.ndim >= 2 else exempt).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def build_optimizer(model: torch.nn.Module, spec: TrainSpec) -> torch.optim.AdamW:
    """AdamW (Loshchilov, Hutter 2019) in one fused pass over the weights."""
    return torch.optim.AdamW(parameter_groups(model, spec.weight_decay), lr=spec.learning_rate, fused=True)


def clip_gradients(model: torch.nn.Module, max_norm: float) -> None:
    """Scales the gradient down to a norm of `max_norm` if it is longer."""
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    # A GPU would have to be waited for to look at the norm; a CPU saves a pass over all gradients by looking.
    if norm.device.type != "cpu" or norm > max_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)


def learning_rate(step: int, total_steps: int, spec: TrainSpec) -> float:
    """Rate of a step (0-based): linear rise over the warm-up, then linear fall that would reach 0 after the last."""
    warmup = math.ceil(total_steps * spec.warmup_fraction)
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    return spec.learning_rate * (total_steps - step) / max(total_steps - warmup, 1)


def tokens_at_once(limit: int | Literal["auto"], device: torch.device) -> int:
    """Padded tokens of a micro-batch. `auto`: many for a GPU; as many for CPUs as their caches hold.

    On 2 cores, steps of 32 rows of up to 512 tokens take half the time that they take in one part.
    """
    if limit != "auto":
        return limit
    return 2048 if device.type == "cpu" else 16384


def logits_of(
    model: Any, input_ids_BL: torch.Tensor, attention_mask_BL: torch.Tensor | None, *, bf16: bool
) -> torch.Tensor:
    """float32 [B, C]."""
    with torch.autocast(input_ids_BL.device.type, torch.bfloat16, enabled=bf16):
        output = model(input_ids=input_ids_BL, attention_mask=attention_mask_BL)
    logits_BC: torch.Tensor = output.logits.float()
    return logits_BC


def class_weights(counts: Sequence[int], mode: str, device: torch.device) -> torch.Tensor | None:
    """float32 [C] with mean 1 over the training rows, or None: `balanced` gives each class the same total weight."""
    if mode == "none":
        return None
    rows, classes = sum(counts), len(counts)
    return torch.tensor([rows / (classes * count) for count in counts], dtype=torch.float32, device=device)


def row_losses(
    logits_BC: torch.Tensor, labels_B: torch.Tensor, weights_C: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """float32 [B]: cross-entropy of each row, not averaged, so that any division of a batch adds up to the same."""
    return torch.nn.functional.cross_entropy(
        logits_BC, labels_B, weight=weights_C, label_smoothing=smoothing, reduction="none"
    )
