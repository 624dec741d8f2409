"""A BERT encoder made for scoring on CPUs: the same mathematics in fewer and faster operations.

In: a transformers classifier. Out: the same one, its encoder replaced by one that cannot be trained. Not here: the
embeddings and the head, which stay transformers' own; which texts share a batch (classifier.py).

What it does otherwise than transformers:
  - Weights are laid out for oneDNN once, and in bf16 if they multiply so: a short text is bound by reading them.
  - Query, key and value are one product; bias and activation are part of theirs.
  - The head reads the first token alone, so the last layer computes no other: 14 % of the products of 6 layers.

Shapes: B texts, L tokens of the longest, H heads, E hidden size.
"""

import platform
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from textcls.training.model import layers_like_bert

# The configuration's activation -> oneDNN's name of it and of how it is computed.
_ACTIVATIONS = {
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}


def adapt_to_scoring(model: Any, *, bf16: bool) -> None:
    """Replaces the model's encoder by a faster one, in place; leaves a model alone that is not built like BERT.

    Args:
        model: a transformers classifier on the CPU, in evaluation mode. It must not be saved or trained afterwards.
        bf16: whether matrix products run in bfloat16.
    """
    layers = layers_like_bert(model)
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    packable = has_onednn and platform.machine() in ("x86_64", "AMD64")
    if layers is not None and packable and model.config.hidden_act in _ACTIVATIONS:
        model.base_model.encoder = _Encoder(layers, model.config, torch.bfloat16 if bf16 else torch.float32)


class _Encoder(torch.nn.Module):
    """Stands where a transformers encoder stood."""

    def __init__(self, layers: Sequence[Any], config: Any, dtype: torch.dtype) -> None:
        super().__init__()
        activation = _ACTIVATIONS[config.hidden_act]
        self._layers = [_Layer(layer, config.num_attention_heads, activation, dtype) for layer in layers[:-1]]
        self._last = _LastLayer(layers[-1], config.num_attention_heads, activation, dtype)

    def forward(self, hidden_BLE: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: object) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

        for layer in self._layers:
            hidden_BLE = layer(hidden_BLE, attention_mask)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=self._last(hidden_BLE, attention_mask))


class _Layer:
    """Attention and feed-forward of every token."""

    def __init__(self, layer: Any, heads: int, activation: tuple[str, str], dtype: torch.dtype) -> None:
        attention = layer.attention
        self._heads = heads
        self._pack_attention(attention.self, dtype)
        self._mixed = _Product([attention.output.dense], dtype)
        self._attended_norm = attention.output.LayerNorm
        self._wide = _Product([layer.intermediate.dense], dtype, *activation)
        self._narrow = _Product([layer.output.dense], dtype)
        self._norm = layer.output.LayerNorm

    def _pack_attention(self, attention: Any, dtype: torch.dtype) -> None:
        self._query_key_value = _Product([attention.query, attention.key, attention.value], dtype)

    def __call__(self, hidden_BLE: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """float32 [B, L, E]; `mask` is what transformers makes for its own attention."""
        query, key, value = _of_heads(self._query_key_value(hidden_BLE), 3, self._heads)
        return self._feed_forward(_mixed(query, key, value, mask), hidden_BLE)

    def _feed_forward(self, mixed_BLE: torch.Tensor, hidden_BLE: torch.Tensor) -> torch.Tensor:
        attended_BLE = self._attended_norm(self._mixed(mixed_BLE) + hidden_BLE)
        out_BLE: torch.Tensor = self._norm(self._narrow(self._wide(attended_BLE)) + attended_BLE)
        return out_BLE


class _LastLayer(_Layer):
    """Attention and feed-forward of the first token, which looks at all."""

    def _pack_attention(self, attention: Any, dtype: torch.dtype) -> None:
        self._query = _Product([attention.query], dtype)
        self._key_value = _Product([attention.key, attention.value], dtype)

    def __call__(self, hidden_BLE: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """float32 [B, 1, E]."""
        first_B1E = hidden_BLE[:, :1].contiguous()
        (query,) = _of_heads(self._query(first_B1E), 1, self._heads)
        key, value = _of_heads(self._key_value(hidden_BLE), 2, self._heads)
        mixed_B1E = _mixed(query, key, value, None if mask is None else mask[:, :, :1])
        return self._feed_forward(mixed_B1E, first_B1E)


def _of_heads(products: torch.Tensor, number: int, heads: int) -> Sequence[torch.Tensor]:
    """`number` tensors [B, H, L, E / H] that lie side by side in [B, L, number * E]."""
    texts, tokens, _ = products.shape
    return torch.unbind(products.view(texts, tokens, number, heads, -1).permute(2, 0, 3, 1, 4))


def _mixed(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """[B, L, E]: of each query the values it looks at, by heads as `_of_heads` gives them."""
    return scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


class _Product:
    """y = activation(x W^T + b), of several linear layers side by side."""

    def __init__(
        self, linears: Sequence[torch.nn.Linear], dtype: torch.dtype, activation: str = "none", algorithm: str = ""
    ) -> None:
        self._dtype, self._activation, self._algorithm = dtype, activation, algorithm
        with torch.no_grad():
            weight = torch.cat([linear.weight for linear in linears]).to(dtype)
            self._bias = torch.cat([linear.bias for linear in linears]).to(dtype)
            # What torch.compile itself calls on CPUs; the layout serves any number of tokens.
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self._dtype), self._weight, self._bias, self._activation, [], self._algorithm
        )
        return y
