"""One optimizer step on one rank's share of a global batch.

In: the rows of a global batch. Out: moved weights, and what the step cost. Not here: the rows (batch_plan.py), when to
stop, validate or keep a checkpoint (loop.py).

The loss of a row is the mean over its windows, of which a short text has one. Ranks share a batch by rows;
micro-batches divide a rank's windows, so that a row of many windows needs no more memory than the budget allows.
"""

import contextlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from textcls.modeling.batching import micro_batches
from textcls.modeling.build import logits_of
from textcls.settings.recipe import TrainSpec
from textcls.training.batch_plan import share_of
from textcls.training.optimizer import clip_gradients, learning_rate, row_losses
from textcls.training.token_rows import TokenRows


class StepCost(NamedTuple):
    """What a step was on this rank: loss summed over its rows (float64, on the device) and the tokens it ran."""

    loss_sum: torch.Tensor
    padded_tokens: int
    real_tokens: int


@dataclass(frozen=True, kw_only=True)
class AnyStepper:
    """What a plain step and a private one have in common: how they begin, and what stays the same for all steps.

    Attributes:
        model: the bare module.
        optimizer: over the module's parameters.
        data: the training rows.
        spec: the loop's settings.
        problem_type: the task's; chooses the loss.
        total_steps: steps of the whole run.
        pad_id: id of the padding token.
        max_tokens: the most padded tokens of a micro-batch.
        rank: this process among `world_size`.
        world_size: processes that share each batch.
    """

    model: Any
    optimizer: torch.optim.Optimizer
    data: TokenRows
    spec: TrainSpec
    problem_type: str
    total_steps: int
    pad_id: int
    max_tokens: int
    rank: int = 0
    world_size: int = 1

    def begin(self, step: int, batch: np.ndarray) -> np.ndarray:
        """Seeds dropout, sets the learning rate and clears the gradients; returns this rank's rows of `batch`."""
        torch.manual_seed(step_seed(self.spec.seed, step, self.rank))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.total_steps, self.spec)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        return share_of(batch, self.data.lengths, self.rank, self.world_size)


@dataclass(frozen=True, kw_only=True)
class Stepper(AnyStepper):
    """Runs plain steps.

    Attributes:
        wrapped: the module that averages gradients over ranks; the bare one if there is one rank.
        weights_C: class weights, or None.
        bf16: whether matrix products run in bfloat16.
    """

    wrapped: Any
    weights_C: torch.Tensor | None
    bf16: bool

    def __call__(self, step: int, batch: np.ndarray) -> StepCost:
        """Takes step number `step` (0-based) on the rows `batch` (int64 [rows of the global batch])."""
        share, device = self.begin(step, batch), next(self.model.parameters()).device
        # A rank without a row in a short batch still takes part in the all-reduce, with a loss of weight 0.
        weight = 1 / len(batch) if len(share) else 0.0
        windows = self.data.windows_of(share) if len(share) else self.data.windows_of(batch[:1])[:1]
        parts = micro_batches(windows, self.data.window_lengths, self.max_tokens)
        loss_sum, padded = torch.zeros((), dtype=torch.float64, device=device), 0
        for i, part in enumerate(parts):
            micro = self.data.batch(part, self.pad_id).to(device)
            with self._averaged(i == len(parts) - 1):
                logits_BC = logits_of(
                    self.wrapped, micro.input_ids_BL, micro.attention_mask_BL, micro.token_types_BL, bf16=self.bf16
                )
                losses_B = row_losses(
                    self.problem_type, logits_BC, micro.targets_B, self.weights_C, self.spec.label_smoothing
                )
                loss = (losses_B * micro.shares_B).sum() * weight
                (loss * self.world_size).backward()  # type: ignore[no-untyped-call]
            loss_sum += loss.detach() * len(batch)
            padded += micro.input_ids_BL.numel()
        clip_gradients(self.model, self.spec.max_grad_norm)
        self.optimizer.step()
        return StepCost(loss_sum, padded if len(share) else 0, int(self.data.lengths[share].sum()))

    def _averaged(self, last_part: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are averaged over the ranks once a step, with its last part."""
        if last_part or self.wrapped is self.model:
            return contextlib.nullcontext()
        no_sync: contextlib.AbstractContextManager[None] = self.wrapped.no_sync()
        return no_sync


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a rank's dropout in a step."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
