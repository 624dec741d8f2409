"""What the model reads -> how its logits are made up of the tokens: integrated gradients (Sundararajan et al. 2017).

In: an encoded input and labels. Out: the effect of each token on the logit of each label, from a baseline on: the same
input with a padding token in place of every token of the text. Together the effects are the difference of the two
logits, but for a remainder, which is measured. Not here: words (explain.py).

A straight path leads from the embeddings of the baseline to those of the input; positions, token types and special
tokens stay as they are. The gradient along it is integrated with Gauss-Legendre nodes, and their number is doubled
until the remainder is small. How many that takes cannot be known before, since the path leaves the embeddings that the
model has learned. The fast encoder has no gradients, so transformers' own module computes them, in float32.

Shapes: W windows, L tokens of a window, S nodes, E hidden size, C labels, K of them explained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from textcls.inference.classifier import Classifier
from textcls.inference.encoding import Encoded
from textcls.modeling.batching import token_types, tokens_at_once
from textcls.modeling.build import logits_of

FEWEST_STEPS, MOST_STEPS = 32, 256
"""Nodes of the first try, and of the last one, whatever it leaves over."""
TOLERANCE = 0.01
"""The remainder that is small, as a share of the difference between the logits of the input and of the baseline."""
# A difference below this is taken to be this large: of nothing, every remainder is a large share.
_LEAST_DIFFERENCE = 0.05


@dataclass(frozen=True)
class Attributions:
    """The logits of an input as sums over its tokens. A logit is the mean over windows, weighted by their tokens.

    Attributes:
        effects: for each window float64 [K, L], the effect of each token, weighted like its window.
        logits: float64 [K], of the input.
        baseline_logits: float64 [K], of the baseline.
        steps: nodes of the integration.
        baseline: the padding token.
    """

    effects: tuple[np.ndarray, ...]
    logits: np.ndarray
    baseline_logits: np.ndarray
    steps: int
    baseline: str

    @property
    def remainders(self) -> np.ndarray:
        """float64 [K]: what the effects leave over of the differences."""
        found: np.ndarray = self.logits - self.baseline_logits - sum(window.sum(axis=1) for window in self.effects)
        return found

    @property
    def is_complete(self) -> bool:
        """Whether what is left over is small, for every label."""
        differences = np.maximum(np.abs(self.logits - self.baseline_logits), _LEAST_DIFFERENCE)
        return bool((np.abs(self.remainders) <= TOLERANCE * differences).all())


def attributions(
    classifier: Classifier, encoded: Encoded, of_text: Sequence[Sequence[bool]], labels: Sequence[int]
) -> Attributions:
    """How the logits of an input are made up of its tokens.

    Args:
        classifier: its module is used.
        encoded: an input without an error.
        of_text: for each window, which tokens are of the text; the baseline keeps the others.
        labels: numbers of the K labels.
    """
    lengths_W = np.array([len(ids) for ids in encoded.windows], np.float64)
    weights_W = lengths_W / lengths_W.sum()
    paths = [
        _Path(classifier, ids, np.array(own), encoded.second, labels)
        for ids, own in zip(encoded.windows, of_text, strict=True)
    ]
    ends_W2K = np.array([path.ends() for path in paths])
    baseline_logits, logits = np.einsum("w,wek->ek", weights_W, ends_W2K)
    steps = FEWEST_STEPS
    while True:
        effects = tuple(weight * path.effects(steps) for weight, path in zip(weights_W, paths, strict=True))
        found = Attributions(effects, logits, baseline_logits, steps, classifier.padding_token)
        if found.is_complete or steps >= MOST_STEPS:
            return found
        steps *= 2


class _Path:
    """The way from the embeddings of the baseline of a window to those of the window."""

    def __init__(
        self, classifier: Classifier, ids: Sequence[int], of_text: np.ndarray, second: int | None, labels: Sequence[int]
    ) -> None:
        self._model: Any = classifier.module
        self._embedding = self._model.get_input_embeddings()
        device = self._embedding.weight.device
        self._ids_L, self._labels = torch.tensor(ids, device=device), list(labels)
        self._types_1L = None if second is None else token_types(np.array([second]), len(ids)).to(device)
        self._at_once = max(1, tokens_at_once("auto", device) // len(ids))
        baseline_L = torch.where(torch.from_numpy(of_text).to(device), classifier.padding_id, self._ids_L)
        with torch.no_grad():
            self._start_LE = self._embedding(baseline_L)
            self._way_LE = self._embedding(self._ids_L) - self._start_LE

    def ends(self) -> np.ndarray:
        """float64 [2, K]: the logits of the baseline and of the window."""
        with torch.no_grad():
            return self._logits(self._start_LE + torch.stack([0 * self._way_LE, self._way_LE])).double().cpu().numpy()

    def effects(self, steps: int) -> np.ndarray:
        """float64 [K, L], with this number of nodes."""
        nodes_S, weights_S = np.polynomial.legendre.leggauss(steps)
        sums_KLE = torch.zeros(len(self._labels), *self._way_LE.shape, device=self._way_LE.device)
        for first in range(0, steps, self._at_once):
            part = slice(first, first + self._at_once)
            node_S11 = torch.from_numpy((nodes_S[part, None, None] + 1) / 2).to(sums_KLE)
            weight_S1 = torch.from_numpy(weights_S[part, None] / 2).to(sums_KLE)
            path_SLE = (self._start_LE + node_S11 * self._way_LE).requires_grad_()
            totals_K = (self._logits(path_SLE) * weight_S1).sum(dim=0)
            for k, total in enumerate(totals_K):
                (gradient_SLE,) = torch.autograd.grad(total, path_SLE, retain_graph=k + 1 < len(totals_K))
                sums_KLE[k] += gradient_SLE.sum(dim=0)
        effects: np.ndarray = (sums_KLE * self._way_LE).sum(dim=-1).double().cpu().numpy()
        return effects

    def _logits(self, embedded_SLE: torch.Tensor) -> torch.Tensor:
        """float32 [S, K] of windows with these embeddings of tokens, at the positions of the window."""
        ids_SL = self._ids_L.expand(len(embedded_SLE), -1)
        types_SL = None if self._types_1L is None else self._types_1L.expand_as(ids_SL)
        hook = self._embedding.register_forward_hook(lambda *_: embedded_SLE)
        try:
            logits_SC = logits_of(self._model, ids_SL, None, types_SL, bf16=False)
        finally:
            hook.remove()
        return logits_SC[:, self._labels]
