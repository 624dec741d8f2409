"""The scores of artificial texts, each alone, with which whatever else a model computes is compared.

In: a model in memory, its tokenizer, a task. Out: `ExpectedScores`, which refuse other scores of the same texts; the
error of a model that cannot be used. Not here: what computes the other scores (rehearsal.py).

Shapes: N texts, B of them in a batch, L tokens of the longest, C labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from textcls.errors import ModelError
from textcls.modeling.batching import padded, token_types
from textcls.modeling.build import logits_of
from textcls.tasks.task import Task
from textcls.text.tokenizer import InputTokenizer

# Law 8: the largest difference between the probabilities of a text alone and in a batch, in fp32.
_TOLERANCE = 1e-5
# A model is small if weights x tokens of a text are at most this: 0.1 s on one core.
_SMALL = 4e9
# If text.max_tokens is at most this, a small model is tried with every length; otherwise with those of `_LADDER`.
_EVERY = 64
# Texts up to this length are scored in batches too; longer ones once, alone.
_LONG = 1024
_LADDER = (4, 8, 17, 32, 64, 256, 512, 1024)
# The errors that transformers and torch raise for input that a model cannot take.
FAILURES = (IndexError, RuntimeError, ValueError, TypeError, KeyError, AssertionError, AttributeError)


def unusable(name: str, what: str, error: Exception) -> ModelError:
    """The error of a model that textcls cannot use.

    Args:
        name: of the pretrained model.
        what: cannot be done with it, as a sentence.
        error: that doing it raised.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ModelError(
        f"{name}: {what}: {type(error).__name__}: {lines[0] if lines else ''}",
        expected="an encoder of text whose classification head transformers knows",
        todo="choose another model.pretrained; BERT, RoBERTa, ELECTRA, DistilBERT, MPNet, DeBERTa and their kin work",
    )


def _weights(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def shortest_length(input_tokenizer: InputTokenizer) -> int:
    """Tokens of the shortest text or pair of texts."""
    return input_tokenizer.special_tokens + (2 if input_tokenizer.of_pairs else 1)


def _lengths(model: Any, input_tokenizer: InputTokenizer) -> list[int]:
    """The lengths that are tried, ascending: all that a text can have if that is cheap, else those at which models
    and kernels switch algorithms."""
    shortest, longest = shortest_length(input_tokenizer), input_tokenizer.max_tokens
    if longest <= _EVERY and _weights(model) * longest <= _SMALL:
        return list(range(shortest, longest + 1))
    chosen = {shortest, shortest + 1, longest, *_LADDER}
    return sorted(length for length in chosen if shortest <= length <= longest)


class Sample(NamedTuple):
    """An artificial text or pair of texts.

    Attributes:
        ids: its token ids.
        second: the place from which on tokens have type 1; None if the model reads no types.
    """

    ids: Sequence[int]
    second: int | None

    @classmethod
    def of(cls, input_tokenizer: InputTokenizer, length: int) -> "Sample":
        """The sample of a number of tokens."""
        return cls(input_tokenizer.sample(length), input_tokenizer.sample_second(length))


def samples_for(model: Any, input_tokenizer: InputTokenizer) -> list[Sample]:
    """The texts or pairs that a model is tried with, ascending by length."""
    return [Sample.of(input_tokenizer, length) for length in _lengths(model, input_tokenizer)]


def batched(samples: Sequence[Sample], pad_id: int) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """(input_ids_BL, attention_mask_BL, token_types_BL) of samples, as in training."""
    ids_BL, mask_BL = padded([one.ids for one in samples], pad_id)
    seconds = [one.second for one in samples if one.second is not None]
    return ids_BL, mask_BL, token_types(np.array(seconds), ids_BL.shape[1]) if seconds else None


def logits_alone(model: Any, sample: Sample) -> torch.Tensor:
    """float32 [C], as `transformers.pipeline` computes it."""
    ids_1L, _, types_1L = batched([sample], 0)
    with torch.inference_mode():
        return logits_of(model, ids_1L, torch.ones_like(ids_1L), types_1L, bf16=False)[0]


@dataclass(frozen=True)
class ExpectedScores:
    """The logits of the model in memory for artificial texts, each scored alone.

    Attributes:
        task: what is predicted.
        samples: N texts or pairs, ascending by length.
        logits_NC: float32.
    """

    task: Task
    samples: Sequence[Sample]
    logits_NC: torch.Tensor

    @classmethod
    def of(
        cls, name: str, model: Any, task: Task, samples: Sequence[Sample], longest_C: torch.Tensor, pad_id: int
    ) -> "ExpectedScores":
        """Scores each text alone, and compares with its scores in a batch.

        The longest has been scored before any other: some models adapt to the first text that they see.
        """
        logits = []
        for one in samples[:-1]:
            try:
                logits.append(logits_alone(model, one))
            except FAILURES as error:
                raise unusable(name, f"it cannot be run on a text of {len(one.ids)} tokens", error) from error
        expected = cls(task, samples, torch.stack([*logits, longest_C]))
        if not expected.logits_NC.isfinite().all():
            raise unusable(name, "it gives no finite scores", ValueError("nan or inf"))
        for positions in expected.batches():
            batch = batched([samples[position] for position in positions], pad_id)
            with torch.inference_mode():
                logits_BC = logits_of(model, *batch, bf16=False)
            expected.compare_logits(name, logits_BC, positions, "padded in a batch")
        return expected

    @property
    def usable(self) -> list[int]:
        """Positions of the texts that are short enough to be scored more than once."""
        return [position for position, one in enumerate(self.samples) if len(one.ids) <= _LONG]

    @property
    def has_every_length(self) -> bool:
        """Whether there is a text of every length that a text can have; all are short then."""
        return len(self.usable) > len(_LADDER) + 3

    def batches(self) -> list[list[int]]:
        """Positions of texts that share a batch: each with the longest if there is every length."""
        *others, longest = self.usable
        together = others if self.has_every_length else others[:1]
        return [*([position, longest] for position in together), others[-2:]]

    def compare_logits(self, name: str, logits_BC: torch.Tensor, positions: Sequence[int], how: str) -> None:
        """As `compare`, with logits."""
        self.compare(name, self.task.probabilities(logits_BC.numpy()), positions, how)

    def compare(self, name: str, probabilities_BC: np.ndarray, positions: Sequence[int], how: str) -> None:
        """Refuses probabilities of the texts at these positions that differ from those of each text alone."""
        alone_BC = self.task.probabilities(self.logits_NC[list(positions)].numpy())
        apart_B = np.nan_to_num(np.abs(probabilities_BC - alone_BC).max(axis=1), nan=1.0)
        apart, worst = max(zip(apart_B.tolist(), positions, strict=True))
        if apart > _TOLERANCE:
            raise ModelError(
                f"{name}: a text of {len(self.samples[worst].ids)} tokens scores differently {how}: its "
                f"probabilities differ by {apart:.2g} from those of the text alone",
                expected=f"the same score alone and in a batch, within {_TOLERANCE:g}",
                todo="choose another model.pretrained: the scores of this one would depend on the other texts of a "
                "batch; BERT, RoBERTa, ELECTRA, DistilBERT, MPNet, DeBERTa and their kin work",
            )
