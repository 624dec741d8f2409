"""One optimizer step of private training on one rank's share of a batch.

In: the rows of a batch. Out: moved weights, and what the step cost; see step.py, in whose place it is. Not here: which
rows (poisson_plan.py), the scaled gradients (clipping.py), where the noise comes from (randomness.py).

    gradient of each row, scaled down to max_grad_norm ─▶ sum over rows and ranks + noise ─▶ / expected rows ─▶ AdamW

Rank 0 adds the noise, once in all: so any number of ranks takes the same step, up to rounding. A step without a row
still adds noise. The sum is divided by the rows that are expected, because their true number is secret too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from textcls.modeling.batching import micro_batches
from textcls.modeling.build import logits_of
from textcls.training.optimizer import row_losses
from textcls.training.private.budget import Budget
from textcls.training.private.clipping import RowClipper
from textcls.training.private.randomness import normals
from textcls.training.step import AnyStepper, StepCost


@dataclass(frozen=True, kw_only=True)
class PrivateStepper(AnyStepper):
    """Runs private steps, of a model with frozen embedding tables on rows of one window.

    Attributes:
        clipper: attached to the model.
        budget: the noise, and what a row is scaled down to.
        key: the run's secret.
        sum_over_ranks: replaces a tensor by its sum over all ranks.
    """

    clipper: RowClipper
    budget: Budget
    key: bytes
    sum_over_ranks: Callable[[torch.Tensor], None]

    def __call__(self, step: int, batch: np.ndarray) -> StepCost:
        """Takes step number `step` (0-based) on the rows `batch` (int64 [rows of the batch])."""
        share = self.begin(step, batch)
        loss_sum, padded = self._add_gradients(share)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        sums = torch.cat([torch.zeros_like(one).ravel() if one.grad is None else one.grad.ravel() for one in trained])
        if self.rank == 0:
            noise = normals(self.key, step, len(sums), threads=torch.get_num_threads())
            sums.add_(torch.from_numpy(noise).to(sums.device), alpha=self.budget.noise)
        self.sum_over_ranks(sums)
        sums /= self.budget.expected_rows
        for parameter, gradient in zip(trained, torch.split(sums, [one.numel() for one in trained]), strict=True):
            parameter.grad = gradient.view_as(parameter)
        self.optimizer.step()
        return StepCost(loss_sum, padded, int(self.data.lengths[share].sum()))

    def _add_gradients(self, share: np.ndarray) -> tuple[torch.Tensor, int]:
        """(loss summed over the rows of `share`, padded tokens); leaves the sum of the scaled gradients in `.grad`."""
        device = next(self.model.parameters()).device
        loss_sum, padded = torch.zeros((), dtype=torch.float64, device=device), 0
        for part in micro_batches(self.data.windows_of(share), self.data.window_lengths, self.max_tokens):
            micro = self.data.batch(part, self.pad_id).to(device)
            with self.clipper.watching():
                logits_BC = logits_of(
                    self.model, micro.input_ids_BL, micro.attention_mask_BL, micro.token_types_BL, bf16=False
                )
            losses_B = row_losses(self.problem_type, logits_BC, micro.targets_B, None, self.spec.label_smoothing)
            self.clipper.add(losses_B)
            loss_sum += losses_B.detach().sum()
            padded += micro.input_ids_BL.numel()
        return loss_sum, padded
