"""Layers of a BERT-family encoder for scoring on CPUs, over the tokens of many windows without padding between them.

In: a layer of a transformers model; then the tokens of all windows, and groups that say which tokens are a window.
Out: a vector of each token or, of the last layer, of each window. Not here: embeddings, heads, batches and threads
(cpu_scoring.py).

Differences from transformers:
  - Weights are packed for oneDNN once, in bf16 if the products are: reading the weights bounds the time of a short
    text.
  - Query, key and value are one matrix product; bias and activation are fused into theirs.
  - The head reads the first token alone, so the last layer computes no other token, and no keys and values: it saves
    17 % of the matrix products of 6 layers.

Shapes: N windows, T tokens of all of them, B windows of a group, L tokens of its longest, H heads, E hidden size,
D = E / H.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

# The activation in the model's configuration -> oneDNN's name and algorithm.
ACTIVATIONS = {
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}
# float32 numbers in an AVX-512 register.
_VECTOR = 16


def _vectors(length: int) -> int:
    """The length, or the next multiple of 16 if attention is faster with that.

    PyTorch's attention handles the tokens that do not fill a vector one by one: 31 tokens take twice as long as 32.
    """
    return -(-length // _VECTOR) * _VECTOR if length % _VECTOR >= _VECTOR // 2 else length


@dataclass(frozen=True)
class Group:
    """Windows of similar length, with consecutive tokens.

    Attributes:
        start: index of the group's first token among all tokens.
        tokens: number of tokens of the group.
        windows: B.
        longest: L, at least the length of the longest window.
        padded: int64 [B * L], the group's token at each padded position; None if nothing is padded.
        real: int64 [tokens], the padded position of each token; None if nothing is padded.
        mask: bool [B, 1, 1, L], true where attention may look; None if nothing is padded.
    """

    start: int
    tokens: int
    windows: int
    longest: int
    padded: torch.Tensor | None = None
    real: torch.Tensor | None = None
    mask: torch.Tensor | None = None

    @classmethod
    def of_parts(cls, parts: Sequence[np.ndarray]) -> list[Self]:
        """One group per part; a part is the lengths of its windows."""
        starts = np.cumsum([0, *(int(lengths_B.sum()) for lengths_B in parts)])
        return [cls._of(int(start), lengths_B) for start, lengths_B in zip(starts, parts, strict=False)]

    @classmethod
    def _of(cls, start: int, lengths_B: np.ndarray) -> Self:
        tokens, windows, longest = int(lengths_B.sum()), len(lengths_B), int(lengths_B.max())
        longest = (
            longest if windows == 1 else _vectors(longest)
        )  # for a single window, padding costs more than it saves
        if tokens == windows * longest:
            return cls(start, tokens, windows, longest)
        mask_BL = np.arange(longest) < lengths_B[:, None]
        real = np.flatnonzero(mask_BL)
        padded = np.zeros(windows * longest, np.int64)
        padded[real] = np.arange(tokens)
        mask = torch.from_numpy(mask_BL)[:, None, None]
        return cls(start, tokens, windows, longest, torch.from_numpy(padded), torch.from_numpy(real), mask)

    def apart(self, of_tokens_TX: torch.Tensor) -> torch.Tensor:
        """[B, L, X]: the group's rows of [T, X], padded."""
        own = of_tokens_TX[self.start : self.start + self.tokens]
        return (own if self.padded is None else own.index_select(0, self.padded)).view(self.windows, self.longest, -1)

    def by_heads(self, products_T3E: torch.Tensor, heads: int) -> Sequence[torch.Tensor]:
        """Query, key and value as [B, H, L, D] each, from their products side by side."""
        products_BL3HD = self.apart(products_T3E).view(self.windows, self.longest, 3, heads, -1)
        return torch.unbind(products_BL3HD.permute(2, 0, 3, 1, 4))


class Layer:
    """Attention and feed-forward of every token."""

    def __init__(self, layer: Any, heads: int, activation: str, dtype: torch.dtype) -> None:
        attention = layer.attention
        self._heads = heads
        self._pack_attention(attention.self, dtype)
        self._mixed = _Product([attention.output.dense], dtype)
        self._attended_norm = attention.output.LayerNorm
        self._wide = _Product([layer.intermediate.dense], dtype, *ACTIVATIONS[activation])
        self._narrow = _Product([layer.output.dense], dtype)
        self._norm = layer.output.LayerNorm

    def _pack_attention(self, attention: Any, dtype: torch.dtype) -> None:
        self._query_key_value = _Product([attention.query, attention.key, attention.value], dtype)

    def __call__(self, hidden_TE: torch.Tensor, groups: Sequence[Group]) -> torch.Tensor:
        """float32 [T, E]."""
        products_T3E = self._query_key_value(hidden_TE)
        mixed = []
        for group in groups:
            query, key, value = group.by_heads(products_T3E, self._heads)
            own = _mixed(query, key, value, group.mask).flatten(0, 1)
            mixed.append(own if group.real is None else own.index_select(0, group.real))
        if spare := len(hidden_TE) - groups[-1].start - groups[-1].tokens:
            mixed.append(products_T3E.new_zeros(spare, hidden_TE.shape[1]))
        return self._feed_forward(mixed[0] if len(mixed) == 1 else torch.cat(mixed), hidden_TE)

    def _feed_forward(self, mixed_TE: torch.Tensor, hidden_TE: torch.Tensor) -> torch.Tensor:
        attended_TE = self._attended_norm(self._mixed(mixed_TE) + hidden_TE)
        out_TE: torch.Tensor = self._norm(self._narrow(self._wide(attended_TE)) + attended_TE)
        return out_TE


class LastLayer(Layer):
    """Attention and feed-forward of the first token of each window, which attends to all tokens of the window.

    With one query per window, keys and values need not be computed, since matrix products are associative:
    q (X K^T)^T = (q K) X^T, and p (X V^T) = (p X) V^T. A bias of keys adds the same to every score, so softmax ignores
    it; a bias of values is added at the end.
    """

    def _pack_attention(self, attention: Any, dtype: torch.dtype) -> None:
        self._query = _Product([attention.query], dtype)
        by_head, scale = (self._heads, -1, attention.key.in_features), attention.attention_head_size**-0.5
        self._key_HDE = attention.key.weight.detach().view(by_head) * scale
        self._value_HED = attention.value.weight.detach().view(by_head).transpose(1, 2).contiguous()
        self._value_bias_E = attention.value.bias.detach()

    def __call__(self, hidden_TE: torch.Tensor, groups: Sequence[Group]) -> torch.Tensor:
        """float32 [N, E]."""
        first_NE = hidden_TE.index_select(0, _firsts(groups))
        query_HND = self._query(first_NE).float().view(len(first_NE), self._heads, -1).transpose(0, 1)
        query_NHE = torch.bmm(query_HND, self._key_HDE).transpose(0, 1)
        mixed, done = [], 0
        for group in groups:
            hidden_BLE = group.apart(hidden_TE)
            scores_BHL = torch.bmm(query_NHE[done : done + group.windows], hidden_BLE.transpose(1, 2))
            if group.mask is not None:
                scores_BHL = scores_BHL.masked_fill(~group.mask[:, 0], -torch.inf)
            mixed.append(torch.bmm(scores_BHL.softmax(-1), hidden_BLE))
            done += group.windows
        mixed_HNE = torch.cat(mixed).transpose(0, 1)
        mixed_NE = torch.bmm(mixed_HNE, self._value_HED).transpose(0, 1).flatten(1) + self._value_bias_E
        return self._feed_forward(mixed_NE, first_NE)


class MeanLayer(Layer):
    """Attention and feed-forward of every token, and the mean over the tokens of each window."""

    def __call__(self, hidden_TE: torch.Tensor, groups: Sequence[Group]) -> torch.Tensor:
        """float32 [N, E]."""
        out_TE = super().__call__(hidden_TE, groups).float()
        means = []
        for group in groups:
            out_BLE = group.apart(out_TE)
            if group.mask is None:
                means.append(out_BLE.mean(1))
            else:
                real_BL1 = group.mask.view(group.windows, group.longest, 1)
                means.append((out_BLE * real_BL1).sum(1) / real_BL1.sum(1))
        return torch.cat(means)


def _firsts(groups: Sequence[Group]) -> torch.Tensor:
    """int64 [N]: index of each window's first token among all tokens."""
    of_each = []
    for group in groups:
        positions = torch.arange(0, group.windows * group.longest, group.longest)
        of_each.append(group.start + (positions if group.padded is None else group.padded[positions]))
    return torch.cat(of_each)


def _mixed(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """[B, queries, E]: attention of tensors [B, H, ..., D]."""
    return scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


class _Product:
    """y = activation(x W^T + b) of several linear layers at once."""

    def __init__(
        self, linears: Sequence[torch.nn.Linear], dtype: torch.dtype, activation: str = "none", algorithm: str = ""
    ) -> None:
        self._dtype, self._activation, self._algorithm = dtype, activation, algorithm
        with torch.no_grad():
            weight = torch.cat([linear.weight for linear in linears]).to(dtype)
            self._bias = torch.cat([linear.bias for linear in linears]).to(dtype)
            # The operation that torch.compile uses on CPUs; the packed layout works for any number of tokens.
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self._dtype), self._weight, self._bias, self._activation, [], self._algorithm
        )
        return y
