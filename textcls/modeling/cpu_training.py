"""Faster fine-tuning on CPUs, with the same mathematics.

In: a module. Out: the same module, some of its parts replaced while it trains. Not here: precision (precision.py).

Measured on 2 cores with all-MiniLM-L6 (22M weights), steps of 32 rows of 27 tokens, bf16, together 139 -> 185 rows/s:
  - The gradient of the word embeddings is a dense table (half of all weights) of which a step touches a few hundred
    rows. Allocating and zeroing it took a quarter of a step; here it is kept, and only touched rows are cleared.
  - Dropout drew one Bernoulli number at a time (5 ns). Here one 64-bit draw decides four elements, so the probability
    is a multiple of 2**-16.
  - Fused attention's backward pass is slower on CPUs than the three products it fuses, for rows of BERT's lengths.
Added since:
  - The head reads the first token alone, so the last layer computes no other token: it saves a seventh of the matrix
    products of 6 layers.
"""

import functools
import math
from typing import Any

import torch
from torch.nn import functional

from textcls.modeling.build import layers_like_bert

_ATTENTION = "textcls_cpu"


def adapt_to_cpu(model: Any, *, alone: bool) -> None:
    """Replaces the operations that are slow on CPUs, in place. Weights, their names and saved files do not change.

    Args:
        model: a transformers model.
        alone: whether this is the only worker; only then may a gradient bypass autograd, since nothing averages it.
    """
    for module in model.modules():
        if type(module) is torch.nn.Dropout:
            module.__class__ = _Dropout
    words = model.get_input_embeddings()
    if alone and type(words) is torch.nn.Embedding and not words.sparse and words.max_norm is None:
        words.__class__ = _Embedding
        words.__dict__.update(_kept_gradient=None, _touched=[])
    if model.config._attn_implementation == "sdpa":
        from transformers import AttentionInterface
        from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

        AttentionInterface.register(_ATTENTION, _attention)
        AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
        model.set_attn_implementation(_ATTENTION)
        layers = layers_like_bert(model)
        if layers is not None:
            layers[-1].forward = functools.partial(_first_token, layers[-1])


def _kept(shape: torch.Size, probability: float, dtype: torch.dtype) -> torch.Tensor:
    """Dropout's factors: 0 with the given probability, otherwise 1 / (1 - probability)."""
    elements = math.prod(shape)
    draws = torch.empty(-(-elements // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = draws.view(torch.int16)[:elements] >= round(probability * 2**16) - 2**15
    return kept.view(shape).to(dtype).mul_(1 / (1 - probability))


class _Dropout(torch.nn.Dropout):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        return x * _kept(x.shape, self.p, x.dtype)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: torch.Tensor | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over [rows, heads, tokens, width] tensors, with the signature of transformers' AttentionInterface."""
    causal = attention_mask is None and (getattr(module, "is_causal", True) if is_causal is None else is_causal)
    if causal or position_bias is not None or query.shape[1] != key.shape[1]:
        # Decoders (causal masks, shared keys) take the library's implementation.
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        more |= {"dropout": dropout if module.training else 0.0, "scaling": scaling}
        more |= {"is_causal": is_causal, "position_bias": position_bias}
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **more)
        return found
    if not torch.is_grad_enabled():
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
        return mixed.transpose(1, 2).contiguous(), None
    scores = torch.matmul(query * (scaling or query.shape[-1] ** -0.5), key.transpose(-1, -2))
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + attention_mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    if dropout > 0 and module.training:
        weights = weights * _kept(weights.shape, dropout, weights.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


def _first_token(
    layer: Any, hidden_BLE: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: object, **__: object
) -> torch.Tensor:
    """[B, 1, E]: the output of a BERT layer for the first token, which attends to all tokens."""
    attention, first_B1E = layer.attention.self, hidden_BLE[:, :1]
    query, key, value = (
        linear(x).unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)
        for linear, x in ((attention.query, first_B1E), (attention.key, hidden_BLE), (attention.value, hidden_BLE))
    )
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    mixed, _none = _attention(
        attention, query, key, value, mask, dropout=attention.dropout.p, scaling=attention.scaling
    )
    attended_B1E = layer.attention.output(mixed.flatten(2), first_B1E)
    out_B1E: torch.Tensor = layer.feed_forward_chunk(attended_B1E)
    return out_B1E


class _Embedding(torch.nn.Embedding):
    """An embedding that reuses the memory of its gradient; `adapt_to_cpu` turns a plain one into it."""

    _kept_gradient: torch.Tensor | None
    _touched: list[torch.Tensor]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return super().forward(ids)
        rows: torch.Tensor = _Lookup.apply(self.weight, ids, self)  # type: ignore[no-untyped-call]
        return rows

    def add_gradient(self, ids: torch.Tensor, gradient: torch.Tensor) -> None:
        """Adds to the gradient of the table; starts from zero if the optimizer has set the gradient to None."""
        if self.weight.grad is None:
            if self._kept_gradient is None:
                self._kept_gradient = torch.zeros_like(self.weight)
            for touched in self._touched:
                self._kept_gradient.index_fill_(0, touched, 0.0)
            self._touched = []
            self.weight.grad = self._kept_gradient
        self.weight.grad.index_add_(0, ids, gradient.to(self.weight.dtype))
        if self.padding_idx is not None:
            self.weight.grad[self.padding_idx] = 0.0
        self._touched.append(ids)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, ids: torch.Tensor, table: _Embedding) -> torch.Tensor:
        ctx.save_for_backward(ids)
        ctx.table = table
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, None, None]:
        (ids,) = ctx.saved_tensors
        ctx.table.add_gradient(ids.reshape(-1), gradients[0].reshape(-1, gradients[0].shape[-1]))
        return None, None, None
