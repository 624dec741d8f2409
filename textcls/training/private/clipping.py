"""The gradients of rows, each scaled down to a norm, as a sum.

In: a module and the losses of rows. Out: the sum in `.grad` of its parameters, and the norms. Not here: the noise, the
division (step.py).

Ghost clipping (Li et al. 2022, section 4; Bu et al. 2022), by opacus: the norm of a row's gradient follows from what
flows into and out of each layer, so no row's gradient is ever held. The first backward pass computes what flows, and no
gradient of a weight; the second one the gradients of the losses times their factors. Micro-batches add up in `.grad`.

Embedding tables are frozen: their gradients would be the largest by far, and BERT's position embeddings, which all rows
of a batch share, have no gradient of a row (opacus issue 841). Li et al. report like accuracy without training them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping

# What opacus adds to a norm before it divides by it; a factor is smaller by that.
_TINY = 1e-6


class RowClipper:
    """Adds up the scaled gradients of rows; attached to a module until `detach`.

    Args:
        model: with frozen embedding tables, on its device. Each row goes through it alone: no layer mixes rows.
        max_norm: the largest norm of a row's gradient, over all trained parameters together.
    """

    def __init__(self, model: Any, max_norm: float) -> None:
        self._hooks = GradSampleHooksFastGradientClipping(model, loss_reduction="sum", max_grad_norm=max_norm)
        self._hooks.disable_hooks()
        self._embedded: torch.Tensor | None = None
        self._of_embeddings = model.get_input_embeddings().register_forward_hook(self._begin_at)
        self._max_norm = max_norm
        self._trained: dict[str, Any] = {name: one for name, one in model.named_parameters() if one.requires_grad}

    def _begin_at(self, _module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        """Lets gradients flow down to the embeddings, so that one backward pass goes through every layer."""
        if not self._hooks.hooks_enabled:
            return None
        self._embedded = output.requires_grad_()
        return self._embedded

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within it, forward passes leave behind what `add` needs."""
        self._hooks.enable_hooks()
        try:
            yield
        finally:
            self._hooks.disable_hooks()

    def add(self, losses_B: torch.Tensor) -> torch.Tensor:
        """Adds the scaled gradients of rows to `.grad`; returns the norms that they had, float32 [B].

        Args:
            losses_B: the losses of a forward pass within `watching`.

        Raises:
            ValueError: a parameter has a gradient of all rows alone, since something but rows flows through its layer.
        """
        assert self._embedded is not None, "no forward pass"
        for parameter in self._trained.values():
            parameter._norm_sample = None
        with self.watching():
            torch.autograd.grad(losses_B.sum(), self._embedded, retain_graph=True)
        self._embedded = None
        for name, parameter in self._trained.items():
            if parameter._norm_sample is None or parameter._norm_sample.shape != losses_B.shape:
                raise ValueError(f"{name} has no gradient for each row")
        norms_B: torch.Tensor = self._hooks.get_norm_sample().detach()
        factors_B = (self._max_norm / (norms_B + _TINY)).clamp(max=1.0)
        (losses_B * factors_B).sum().backward()  # type: ignore[no-untyped-call]
        return norms_B

    def detach(self) -> None:
        """Leaves the module as it was."""
        self._hooks.remove_hooks()
        self._of_embeddings.remove()
