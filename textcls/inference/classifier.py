"""Inputs -> scores. THE inference path: evaluation, batch jobs and HTTP all call it, and nothing else scores for users.

In: a bundle, and inputs. Out: `Scores`: for each input, in the order given, the probability of every label, the answer,
how many tokens the text has and whether it was cut; or why it cannot be scored. Not here: what logits mean and how an
answer follows from them (the bundle's task, in tasks/), files (batch/evaluate.py, batch/predict.py), requests
(serving/).

Texts run in batches of a bounded number of tokens, with little or no padding; the scores of a text do not depend on the
other texts of its batch. The bundle says how a text is scored: no argument here changes a score beyond float rounding.

Shapes: N texts, W windows of all of them, C labels.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from textcls.bundle import Bundle, load_bundle, precision_asked
from textcls.errors import ModelError
from textcls.inference.encoding import Encoded, InputEncoder, ItemError
from textcls.modeling.batching import micro_batches, padded, token_types
from textcls.modeling.build import logits_of, means_of
from textcls.modeling.cpu_scoring import RaggedModel
from textcls.modeling.precision import fp32_note, uses_bf16
from textcls.tasks.task import Task, ranked
from textcls.text.text_input import TextInput
from textcls.text.tokenizer_files import TokenizerFiles
from textcls.text.windows import mean_over_windows
from textcls.text.words import TextSpan

# (padded tokens of a batch, which bound its memory; tokens of padding in a batch, above which another one costs less).
_CPU_BATCH = (2048, 64)
_GPU_BATCH = (65536, 4096)  # not measured


@dataclass(frozen=True, eq=False)
class Scores:
    """The answers of the classifier for N texts, in the order they were given.

    Attributes:
        task: what is predicted.
        labels: label names in id order.
        probabilities: float32 [N, C], calibrated; NaN where there is an error.
        decisions: the answers, as `Task.decide` gives them; abstained where there is an error.
        tokens: int32 [N], tokens of each text before any cut, special tokens included.
        truncated: bool [N], whether part of the text was not seen.
        unknown: int32 [N], tokens of each text that the model read as [UNK]: its vocabulary lacks what they stand for.
        errors: None, or why the text has no scores, for each text.
        text_tokens: of pairs, int32 [N, 2], tokens of each text before any cut, without special tokens; else None.
    """

    task: Task
    labels: tuple[str, ...]
    probabilities: np.ndarray
    decisions: np.ndarray
    tokens: np.ndarray
    truncated: np.ndarray
    unknown: np.ndarray
    errors: tuple[ItemError | None, ...]
    text_tokens: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.errors)

    def label(self, i: int) -> str | None:
        """The answer for text i in words; `abstain` if the classifier is not sure enough, None on an error."""
        return None if self.errors[i] is not None else self.task.words(self.decisions[i], self.labels)

    def abstained(self, i: int) -> bool:
        """Whether there is no answer for text i, for want of confidence or because of an error."""
        return bool(self.task.abstained(self.decisions[i : i + 1])[0])

    def confidence(self, i: int) -> float:
        """How sure the answer for text i is; NaN on an error."""
        return float(self.task.confidence(self.probabilities[i : i + 1])[0])

    def ranked(self, i: int, limit: int | None = None) -> list[tuple[str, float]]:
        """(label name, probability) of text i, from the most probable label on."""
        return ranked(self.probabilities[i], self.labels, limit)

    def answer(self, i: int, limit: int | None = None) -> dict[str, Any]:
        """The answer for text i, which has scores, as JSON: see `Task.answer`."""
        return self.task.answer(self.probabilities[i], self.decisions[i], self.labels, limit)


class Classifier:
    """A bundle, loaded and ready. Thread-safe; concurrent calls are not faster.

    Attributes:
        bundle: what it was loaded from.
        task: what is predicted.
        labels: label names in id order.
        pairs: whether an input is a pair of texts.
        max_tokens: a longer text is cut, windowed or refused.
        thresholds: float64 [K], with which the task decides.
        device: "cpu" or "cuda:0".
        precision: "bf16" or "fp32", of the matrix products.
        padding_id: id of the padding token.
        padding_token: its name.
    """

    def __init__(
        self, bundle: Bundle, model: "RaggedModel | PaddedModel", tokenizer: TokenizerFiles, *, device: str, bf16: bool
    ) -> None:
        manifest = bundle.manifest
        self.bundle, self.task, self.labels, self.pairs = bundle, bundle.task, manifest.labels, manifest.pairs
        self.max_tokens = tokenizer.max_tokens
        self.device, self.precision = device, "bf16" if bf16 else "fp32"
        self.thresholds = manifest.calibration.task_thresholds(self.task.default_thresholds(len(self.labels)))
        self._encoder = InputEncoder(tokenizer, on_long=manifest.text.on_long, pairs=self.pairs)
        self.padding_id, self.padding_token = tokenizer.pad_id, self._encoder.tokenizer.padding_token
        self._model = model

    @classmethod
    def load(
        cls,
        uri: str,
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        cache: str = "",
        identity_file: str = "",
    ) -> Self:
        """The classifier of a bundle, every byte of it verified.

        Args:
            uri: the bundle, see `load_bundle`.
            device: "auto" takes a GPU if there is one; else "cpu", "cuda", "cuda:1".
            precision: "auto" takes what the bundle was trained with if its recipe says so, else bfloat16 where the
                hardware multiplies it; or "fp32", "bf16". Hardware without bfloat16 scores in fp32, with a warning.
            threads: CPU threads of this process's matrix products. Left out: torch's own choice.
            cache: directory for copies of remote bundles. Left out: the default one.
            identity_file: of the secret key that opens a sealed bundle; "": the environment names it.

        Raises:
            BundleError: the bundle must not be used.
            ModelError: transformers cannot make a classifier of it.
        """
        bundle = load_bundle(uri, cache=cache or None, identity_file=identity_file)
        return cls.of(bundle, device=device, precision=precision, threads=threads)

    @classmethod
    def of(cls, bundle: Bundle, *, device: str = "auto", precision: str = "auto", threads: int | None = None) -> Self:
        """The classifier of a verified bundle; see `load`."""
        if threads is not None:
            torch.set_num_threads(threads)
        asked = precision_asked(bundle, precision)
        where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        model = _module_of(bundle)
        tokenizer, bf16 = TokenizerFiles.load(bundle.directory), uses_bf16(asked, where)
        if note := precision_note(bundle, precision, where):
            warnings.warn(f"{bundle.uri}: {note}", stacklevel=2)
        ragged = RaggedModel.of(model, bf16=bf16) if where.type == "cpu" else None
        return cls(
            bundle,
            ragged or PaddedModel(model.to(where), tokenizer.pad_id, where, bf16=bf16),
            tokenizer,
            device=str(where),
            bf16=bf16,
        )

    @functools.cached_property
    def module(self) -> Any:
        """The bundle's model as transformers has it, in float32 on the device, for gradients; loaded when first asked
        for. Not thread-safe."""
        return _module_of(self.bundle).to(self.device).requires_grad_(False)

    def scores(self, inputs: Sequence[TextInput | str]) -> Scores:
        """Scores of inputs, in the order given; an unusable one has an error and nothing else.

        Args:
            inputs: a plain string stands for the `TextInput` of one text; a pair is `TextInput(text, text_pair)`.

        Raises:
            TypeError: one input where a list of them is needed: its letters or its texts would be scored.
        """
        if isinstance(inputs, (str, TextInput)):
            raise TypeError(f"scores takes a list of inputs, not one {type(inputs).__name__}: scores([...])")
        return self.score_encoded(self.encode(inputs))

    def encode(self, inputs: Sequence[TextInput | str]) -> list[Encoded]:
        """Inputs as the model sees them, in the order given."""
        return self._encoder(inputs)

    def spans(self, inputs: Sequence[TextInput]) -> list[list[list[TextSpan | None]]]:
        """What each token of inputs that can be scored stands for; see `InputTokenizer.spans`.

        The first parts of an input are the windows that `encode` gives; the others were cut.
        """
        return self._encoder.spans(inputs)

    def logits(self, encoded: Sequence[Encoded]) -> np.ndarray:
        """float32 [W, C]: the logits of the windows of encoded texts, text by text; the temperature is in them."""
        windows = [ids for one in encoded for ids in one.windows]
        seconds = [one.second for one in encoded if one.windows] if self.pairs else []
        return self._logits(windows, seconds) if windows else np.empty((0, len(self.labels)), np.float32)

    def score_encoded(self, encoded: Sequence[Encoded]) -> Scores:
        """Scores of encoded texts, in the order given."""
        lengths_W = np.array([len(ids) for one in encoded for ids in one.windows], np.int64)
        windows_N = np.fromiter((len(one.windows) for one in encoded), np.int64, len(encoded))
        probabilities_WC = self.task.probabilities(self.logits(encoded))
        probabilities_NC = mean_over_windows(probabilities_WC, lengths_W, windows_N).astype(np.float32)
        return Scores(
            task=self.task,
            labels=self.labels,
            probabilities=probabilities_NC,
            decisions=self.task.decide(probabilities_NC, self.thresholds),
            tokens=np.fromiter((one.tokens for one in encoded), np.int32, len(encoded)),
            truncated=np.fromiter((one.truncated for one in encoded), bool, len(encoded)),
            unknown=np.fromiter((one.unknown for one in encoded), np.int32, len(encoded)),
            errors=tuple(one.error for one in encoded),
            text_tokens=np.array([one.text_tokens for one in encoded], np.int32).reshape(-1, 2) if self.pairs else None,
        )

    def warm_up(self, *, batch_tokens: int = 4096) -> None:
        """Runs batches of every kind, from one short text to a full batch, and checks the probabilities.

        The first run of a shape is slow: kernels are chosen and memory is allocated.

        Raises:
            ModelError: probabilities are not finite, or a text's differ between alone and in a batch.
        """
        lengths = [n for n in (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096) if n < self.max_tokens]
        for length in [*lengths, self.max_tokens]:
            ids, second = self._encoder.tokenizer.sample(length), self._encoder.tokenizer.sample_second(length)
            alone = self._probabilities([ids], [second])
            count = max(1, batch_tokens // length)
            together = self._probabilities([ids] * count, [second] * count)
            if not (np.isfinite(together).all() and np.abs(together - alone).max() < 0.02):
                raise ModelError(
                    f"{self.bundle.uri}: a text of {length} tokens scores {alone[0]} alone, {together[0]} in a batch"
                )

    def _probabilities(self, windows: Sequence[Sequence[int]], seconds: Sequence[int | None] = ()) -> np.ndarray:
        """float64 [n, C]; arguments as of `_logits`."""
        return self.task.probabilities(self._logits(windows, seconds))

    def _logits(self, windows: Sequence[Sequence[int]], seconds: Sequence[int | None]) -> np.ndarray:
        """float32 [n, C] of at least one window; `seconds` has the place of the second segment of each, if any."""
        typed = [second for second in seconds if second is not None]
        with torch.inference_mode():
            logits: np.ndarray = self._model.logits(windows, np.array(typed) if typed else None).cpu().numpy()
        return logits


class PaddedModel:
    """A transformers classifier, unchanged: on a GPU, or of a kind that `RaggedModel` does not support.

    Args:
        model: in evaluation mode, on the device.
        pad_id: id of the padding token.
        device: where it computes.
        bf16: whether matrix products run in bfloat16.
    """

    def __init__(self, model: Any, pad_id: int, device: torch.device, *, bf16: bool) -> None:
        self._model, self._pad_id, self._device, self._bf16 = model, pad_id, device, bf16
        self._batch_tokens, self._max_padding = _CPU_BATCH if device.type == "cpu" else _GPU_BATCH

    def logits(self, windows: Sequence[Sequence[int]], seconds_N: np.ndarray | None = None) -> torch.Tensor:
        """float32 [N, C] of at least one window of token ids; arguments as of `RaggedModel.logits`."""
        return self._of_windows(
            windows, seconds_N, lambda ids, mask, types: logits_of(self._model, ids, mask, types, bf16=self._bf16)
        )

    def means(self, windows: Sequence[Sequence[int]], seconds_N: np.ndarray | None = None) -> torch.Tensor:
        """float32 [N, E] of at least one window of token ids, as `RaggedMeans.means`."""
        return self._of_windows(
            windows, seconds_N, lambda ids, mask, types: means_of(self._model, ids, mask, types, bf16=self._bf16)
        )

    def _of_windows(
        self, windows: Sequence[Sequence[int]], seconds_N: np.ndarray | None, run: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        """The rows that `run` gives for windows, batch by batch, in the order of the windows."""
        lengths_N = np.fromiter(map(len, windows), np.int64, len(windows))
        batches = micro_batches(np.arange(len(windows)), lengths_N, self._batch_tokens, self._max_padding)
        by_batch = []
        for places in batches:
            ids_BL, mask_BL = padded([windows[place] for place in places], self._pad_id)
            types_BL = None if seconds_N is None else token_types(seconds_N[places], ids_BL.shape[1])
            of_batch = [None if tensor is None else tensor.to(self._device) for tensor in (ids_BL, mask_BL, types_BL)]
            by_batch.append(run(*of_batch))
        rows = torch.cat(by_batch)
        found = torch.empty_like(rows)
        found[torch.from_numpy(np.concatenate(batches)).to(self._device)] = rows
        return found


def _module_of(bundle: Bundle) -> Any:
    """transformers' classifier of a bundle, in evaluation mode.

    Raises:
        ModelError: transformers cannot make one of it.
    """
    from transformers import AutoModelForSequenceClassification, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            bundle.directory, dtype=torch.float32, local_files_only=True, use_safetensors=True
        ).eval()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{bundle.uri}: transformers cannot load it: {error}") from error


def precision_note(bundle: Bundle, precision: str, device: torch.device | str) -> str | None:
    """A line for the user, if the device scores a bundle in fp32 though bf16 is asked for."""
    asked = precision_asked(bundle, precision)
    return fp32_note(asked, "bf16" if uses_bf16(asked, torch.device(device)) else "fp32")
