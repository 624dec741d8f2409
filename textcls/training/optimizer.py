"""The optimizer, the learning rate of a step, and the loss of a row.

In: a module, the recipe, logits, the `problem_type` of the task. Out: torch objects and numbers. Not here: the network
(modeling/build.py), running a step (step.py).

Shapes: B rows of a batch, C classes.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from textcls.settings.recipe import TrainSpec

_MOST_POSITIVE_WEIGHT = 100.0


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


def class_weights(
    problem_type: str, counts: Sequence[int], rows: int, mode: str, device: torch.device
) -> torch.Tensor | None:
    """float32 [C], or None without weights.

    `balanced` gives each class of one a row the same total weight, with a mean of 1 over the rows. With several labels
    a row it is what the rows that have a label weigh beside those that do not: as much together, within 100 times each.

    Args:
        problem_type: the task's.
        counts: training rows that have each label.
        rows: training rows.
        mode: `train.class_weights`.
        device: where the tensor lies.
    """
    if mode == "none":
        return None
    if problem_type == "multi_label_classification":
        most = _MOST_POSITIVE_WEIGHT
        weights = [min(max((rows - count) / max(count, 1), 1 / most), most) for count in counts]
    else:
        weights = [rows / (len(counts) * count) for count in counts]
    return torch.tensor(weights, dtype=torch.float32, device=device)


def row_losses(
    problem_type: str,
    logits_BC: torch.Tensor,
    targets_B: torch.Tensor,
    weights_C: torch.Tensor | None,
    smoothing: float,
) -> torch.Tensor:
    """float32 [B]: the loss of each row, not averaged, so that any division of a batch adds up to the same.

    Args:
        problem_type: the task's; chooses the loss, as in transformers.
        logits_BC: float32.
        targets_B: int64 label ids [B], or float32 probabilities [B, C].
        weights_C: from `class_weights`.
        smoothing: share of a target that is spread evenly over its alternatives.
    """
    return _LOSSES[problem_type](logits_BC, targets_B, weights_C, smoothing)


def _cross_entropy(
    logits_BC: torch.Tensor, targets_B: torch.Tensor, weights_C: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """One class a row."""
    return torch.nn.functional.cross_entropy(
        logits_BC, targets_B, weight=weights_C, label_smoothing=smoothing, reduction="none"
    )


def _binary_cross_entropy(
    logits_BC: torch.Tensor, targets_BC: torch.Tensor, weights_C: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """Yes or no for each class, which count alike: the mean over classes, as transformers has it."""
    smoothed_BC = targets_BC * (1 - smoothing) + smoothing / 2
    losses_BC = torch.nn.functional.binary_cross_entropy_with_logits(
        logits_BC, smoothed_BC, pos_weight=weights_C, reduction="none"
    )
    return losses_BC.mean(dim=1)


_LOSSES = {
    "single_label_classification": _cross_entropy,
    "multi_label_classification": _binary_cross_entropy,
}
