"""Whether each row has a gradient of its own in a model: found in seconds, before any row is read.

In: a module and a batch of artificial rows. Out: nothing, or the reason why the model cannot be trained privately.
Not here: everything else that is rehearsed (training/rehearsal.py).

The norms that `RowClipper` finds for the rows of a padded batch are compared with autograd's for each row alone. A
layer that it does not know, or through which something else than rows flows, shows in them.
"""

from collections.abc import Sequence
from typing import Any

import torch

from textcls.errors import ModelError
from textcls.modeling.build import freeze_untrained, freeze_unused, logits_of
from textcls.settings.privacy import Weights
from textcls.training.optimizer import row_losses
from textcls.training.private.clipping import RowClipper

# Relative; rounding alone is a thousandth of it.
_TOLERANCE = 1e-2

Batch = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]


def refuse_without_row_gradients(
    name: str,
    model: Any,
    problem_type: str,
    together: Batch,
    alone: Sequence[Batch],
    targets_B: torch.Tensor,
    ids: Sequence[int],
    weights: Weights,
) -> None:
    """Does nothing if the gradient of each row is found in a batch as it is of the row alone.

    Args:
        name: of the pretrained model.
        model: without dropout, on the CPU; left as it was.
        problem_type: the task's; chooses the loss.
        together: (input_ids_BL, attention_mask_BL, token_types_BL) of the rows.
        alone: the same of each row.
        targets_B: of the rows.
        ids: token ids of any text.
        weights: `privacy.weights`: what is trained.

    Raises:
        ModelError: it is not: opacus refuses a layer, or a layer mixes rows.
    """
    try:
        freeze_unused(model, ids)
        freeze_untrained(model, weights)
        model.train()
        clipper = RowClipper(model, 1.0)
        try:
            with clipper.watching():
                logits_BC = logits_of(model, *together, bf16=False)
            norms_B = clipper.add(row_losses(problem_type, logits_BC, targets_B, None, 0.0))
        finally:
            clipper.detach()
            model.zero_grad(set_to_none=True)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for row, batch in enumerate(alone):
            loss = row_losses(
                problem_type, logits_of(model, *batch, bf16=False), targets_B[row : row + 1], None, 0.0
            ).sum()
            expected = torch.nn.utils.get_total_norm(torch.autograd.grad(loss, trained))
            if not torch.isclose(norms_B[row], expected, rtol=_TOLERANCE):
                raise ValueError(
                    f"the gradient of a row has norm {norms_B[row]:.4g} in a batch and {expected:.4g} alone"
                )
        model.requires_grad_(True).eval()
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise ModelError(
            f"{name} cannot be trained privately: {error}",
            expected="a model in which each row has a gradient of its own",
            todo="choose another model.pretrained: BERT, RoBERTa, ELECTRA, DistilBERT and MPNet have one",
        ) from error
