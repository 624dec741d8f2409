"""A BERT-family classifier for scoring on CPUs: the same mathematics as transformers in fewer and faster operations.

In: a transformers classifier; then windows of token ids, in any number and of any lengths, and where the second segment
of each begins. Out: their logits, or the mean of the encoder's output over their tokens. Not here: the layers
(cpu_layers.py); other architectures and GPUs, which run transformers' own code (inference/classifier.py).

Differences from transformers, besides those of the layers:
  - Only attention is padded, in groups of windows of similar length. The matrix products, which are most of the work,
    run once over the tokens of all windows.
  - If there are enough tokens, threads score different windows instead of sharing each operation. They never wait for a
    thread that the operating system has preempted, which happens constantly under an HTTP load.

Shapes: N windows, T tokens of all of them, E hidden size, C labels.
"""

import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Self

import numpy as np
import torch

from textcls.modeling.batching import micro_batches
from textcls.modeling.build import layers_like_bert
from textcls.modeling.cpu_layers import ACTIVATIONS, Group, LastLayer, Layer, MeanLayer

# Tokens of a batch; bounds the memory of a thread.
_BATCH_TOKENS = 2048
# Below this many tokens per thread, threads share every operation: the latency of a single text is lower.
_SHARE_TOKENS = 400
# Padding tokens in a group of windows, above which another group costs less.
_MAX_PADDING = 128
# Above `_EXACT` tokens the number is rounded up to a multiple of `_ROUND`: oneDNN compiles kernels for each new number
# (some milliseconds), and caches those of about 140.
_EXACT, _ROUND = 64, 32


class _Ragged:
    """Runs an encoder on windows without padding, on the number of threads that torch had at construction.

    Args:
        model: a transformers classifier whose encoder is like BERT's.
        bf16: whether matrix products run in bfloat16.
    """

    def __init__(self, model: Any, *, bf16: bool) -> None:
        base, dtype = model.base_model, torch.bfloat16 if bf16 else torch.float32
        self._embeddings, self._project = base.embeddings, getattr(base, "embeddings_project", None)
        # RoBERTa's positions start after the padding position, and padding tokens do not advance them.
        counts = model.config.model_type in ("roberta", "xlm-roberta", "camembert")
        self._padding_position: int | None = base.embeddings.padding_idx if counts else None
        self._pad_id = model.config.pad_token_id or 0
        layers, make = base.encoder.layer, (model.config.num_attention_heads, model.config.hidden_act, dtype)
        self._layers = [Layer(layer, *make) for layer in layers[:-1]]
        self._last = self._last_kind()(layers[-1], *make)
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="scoring")

    @staticmethod
    def _last_kind() -> "type[LastLayer | MeanLayer]":
        """The last layer, which makes one vector of each window."""
        raise NotImplementedError

    @classmethod
    def of(cls, model: Any, *, bf16: bool) -> Self | None:
        """The fast version of a transformers classifier on the CPU, which shares its embeddings.

        None if the architecture is not BERT's, or the processor is not supported.

        Args:
            model: in evaluation mode.
            bf16: whether matrix products run in bfloat16.
        """
        has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        fits = has_onednn and platform.machine() in ("x86_64", "AMD64") and layers_like_bert(model) is not None
        return cls(model, bf16=bf16) if fits and model.config.hidden_act in ACTIVATIONS else None

    def _of_windows(self, windows: Sequence[Sequence[int]], seconds_N: np.ndarray | None) -> torch.Tensor:
        """float32 [N, E]: what the last layer makes of at least one window of token ids."""
        lengths_N = np.fromiter(map(len, windows), np.int64, len(windows))
        apart = self._threads > 1 and lengths_N.sum() >= self._threads * _SHARE_TOKENS
        batches = _batches(lengths_N, self._threads if apart else 1)

        def run(indices: np.ndarray) -> torch.Tensor:
            seconds = None if seconds_N is None else seconds_N[indices]
            return self._of_batch([windows[index] for index in indices], lengths_N[indices], seconds)

        outcomes = self._on_a_thread_each(run, batches) if apart else [run(indices) for indices in batches]
        found_NE = torch.empty(len(windows), outcomes[0].shape[1])
        for indices, found_BE in zip(batches, outcomes, strict=True):
            found_NE[torch.from_numpy(indices)] = found_BE
        return found_NE

    def _on_a_thread_each(
        self, run: Callable[[np.ndarray], torch.Tensor], batches: Sequence[np.ndarray]
    ) -> list[torch.Tensor]:
        def alone(indices: np.ndarray) -> torch.Tensor:
            torch.set_num_threads(1)  # for this thread, and for threads that run torch for the first time meanwhile
            with torch.inference_mode():
                return run(indices)

        running = [self._pool.submit(alone, indices) for indices in batches]
        wait(running)
        torch.set_num_threads(self._threads)
        return [one.result() for one in running]

    def _of_batch(
        self, windows: Sequence[Sequence[int]], lengths_N: np.ndarray, seconds_N: np.ndarray | None
    ) -> torch.Tensor:
        """float32 [N, E]: as `_of_windows`, in this thread."""
        parts = micro_batches(np.arange(len(windows)), lengths_N, int(lengths_N.sum()) + 1, _MAX_PADDING)
        order_N = np.concatenate(parts)
        groups = Group.of_parts([lengths_N[indices] for indices in parts])
        seconds = None if seconds_N is None else seconds_N[order_N]
        hidden_TE = self._embedded([windows[index] for index in order_N], lengths_N[order_N], seconds)
        for layer in self._layers:
            hidden_TE = layer(hidden_TE, groups)
        ordered_NE = self._last(hidden_TE, groups)
        found_NE = torch.empty_like(ordered_NE)
        found_NE[torch.from_numpy(order_N)] = ordered_NE
        return found_NE

    def _embedded(
        self, windows: Sequence[Sequence[int]], lengths_N: np.ndarray, seconds_N: np.ndarray | None
    ) -> torch.Tensor:
        """float32 [T, E]: embeddings of the tokens of all windows in order, and of the padding that rounds T up."""
        tokens = int(lengths_N.sum())
        rounded = tokens if tokens <= _EXACT else -(-tokens // _ROUND) * _ROUND
        ids_T = np.full(rounded, self._pad_id, np.int64)
        ids_T[:tokens] = np.concatenate([np.asarray(window, np.int64) for window in windows])
        first_T = np.repeat(np.cumsum(lengths_N) - lengths_N, lengths_N)
        positions_T = np.zeros(rounded, np.int64)
        if self._padding_position is None:
            positions_T[:tokens] = np.arange(tokens) - first_T
        else:
            counted_T = ids_T[:tokens] != self._padding_position
            before_T = np.cumsum(counted_T) - counted_T
            positions_T[:tokens] = np.where(counted_T, before_T - before_T[first_T] + 1, 0) + self._padding_position
        types_T = np.zeros(rounded, np.int64)
        if seconds_N is not None:
            types_T[:tokens] = np.arange(tokens) - first_T >= np.repeat(seconds_N, lengths_N)
        ids_1T, types_1T, positions_1T = (torch.from_numpy(of_T)[None] for of_T in (ids_T, types_T, positions_T))
        out_1TE = self._embeddings(input_ids=ids_1T, token_type_ids=types_1T, position_ids=positions_1T)
        out_TE: torch.Tensor = (out_1TE if self._project is None else self._project(out_1TE))[0]
        return out_TE


class RaggedModel(_Ragged):
    """Scores windows without padding, on the number of threads that torch had at construction; cannot be trained.

    It shares embeddings and head with the transformers classifier; see `of`.
    """

    def __init__(self, model: Any, *, bf16: bool) -> None:
        super().__init__(model, bf16=bf16)
        self._pooler, self._head = getattr(model.base_model, "pooler", None), model.classifier

    @staticmethod
    def _last_kind() -> "type[LastLayer]":
        return LastLayer

    def logits(self, windows: Sequence[Sequence[int]], seconds_N: np.ndarray | None = None) -> torch.Tensor:
        """float32 [N, C] of at least one window of token ids.

        Args:
            windows: token ids.
            seconds_N: the place in each from which on tokens have type 1; left out, none has.
        """
        first_N1E = self._of_windows(windows, seconds_N).unsqueeze(1)
        logits_NC: torch.Tensor = self._head(first_N1E if self._pooler is None else self._pooler(first_N1E))
        return logits_NC


class RaggedMeans(_Ragged):
    """As `RaggedModel`, for embeddings: its last layer computes every token."""

    @staticmethod
    def _last_kind() -> "type[MeanLayer]":
        return MeanLayer

    def means(self, windows: Sequence[Sequence[int]], seconds_N: np.ndarray | None = None) -> torch.Tensor:
        """float32 [N, E]: the mean of the encoder's output over the tokens of each window, special tokens included.

        Arguments as of `RaggedModel.logits`.
        """
        return self._of_windows(windows, seconds_N)


def _batches(lengths_N: np.ndarray, threads: int) -> list[np.ndarray]:
    """Indices of the windows of each batch: an equal share for each thread, or as many batches as are needed."""
    if lengths_N.sum() <= threads * _BATCH_TOKENS:
        by_length = np.argsort(-lengths_N, kind="stable")
        return [by_length[first::threads] for first in range(min(threads, len(by_length)))]
    return micro_batches(np.arange(len(lengths_N)), lengths_N, _BATCH_TOKENS)
