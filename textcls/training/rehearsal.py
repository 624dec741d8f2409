"""A rehearsal of training, export and scoring with the untrained model: does it all work, and give the same scores?

In: a recipe, its pretrained model and prepared tokenizer. Out: notes for the user, or the reason why a bundle of this
model could not be loaded or would score a text differently in different batches; found in seconds, before any row is
read. Not here: training on more than a few artificial rows, anything about the data.

The model is built as for training, scored, trained on one artificial batch, exported, and loaded by the `Classifier`
that evaluates, predicts and serves. If two of them disagree, a run would show it only after training.

It runs on a thread of the driver while Ray starts: a Ray task would wait for Ray first, and import torch again.
The driver writes the bundle at the end of a run, so it has the memory and the disk that a rehearsal takes.

Shapes: N texts, L tokens of the longest, C labels.
"""

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError

from textcls import storage
from textcls.bundle import make_bundle
from textcls.errors import ModelError, StorageError
from textcls.inference.classifier import Classifier
from textcls.inference.encoding import Encoded
from textcls.manifest import Calibration
from textcls.modeling.batching import padded, token_types
from textcls.modeling.build import build_model, head_of, logits_of
from textcls.modeling.cpu_training import adapt_to_cpu
from textcls.settings.recipe import Recipe
from textcls.tasks.task import Task
from textcls.text.text_input import TextInput
from textcls.text.tokenizer import InputTokenizer, TokenizerFiles, read_tokenizer_config
from textcls.training.checkpoint import read_weights, write_weights
from textcls.training.export import export_files
from textcls.training.optimizer import row_losses
from textcls.training.token_rows import target_tensor

# Law 8: the largest difference between the probabilities of a text alone and in a batch, in fp32.
_TOLERANCE = 1e-5
# Folded into the head to test that this divides the logits; a power of two, so that nothing is rounded.
_TEMPERATURE = 0.5
# A model is small if weights x tokens of a text are at most this: 0.1 s on one core.
_SMALL = 4e9
# If text.max_tokens is at most this, a small model is tried with every length; otherwise with those of `_LADDER`.
_EVERY = 64
# Texts up to this length are scored in batches too; longer ones once, alone.
_LONG = 1024
# Texts up to this length are trained on.
_SHORT = 40
_LADDER = (4, 8, 17, 32, 64, 256, 512, 1024)
# Texts on which the tokenizers library and transformers must agree: scripts, case, accents, white space.
_WORDS = ("The film was GREAT, 10/10!", "café cafe\u0301 幸せ 🙂", "Фильм\tfilm\n\n  film", "x" * 50, "a b " * 400)
# Those of masks, and a placeholder as a user may type it.
_IDENTIFIERS = ("Mail a.b@example.com,www.example.com,(555) 555-0100  or 192.0.2.7", "给13800000000打[EMAIL][email]")
# The errors that transformers and torch raise for input that a model cannot take.
_FAILURES = (IndexError, RuntimeError, ValueError, TypeError, KeyError, AssertionError, AttributeError)


def begin_rehearsal(recipe: Recipe, tokenizer: TokenizerFiles, directory: str, task: Task) -> "Future[list[str]]":
    """Runs `rehearse` on a thread of its own; `result` waits for it, and raises its error."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="rehearsal")
    future = pool.submit(rehearse, recipe, tokenizer, directory, task)
    pool.shutdown(wait=False)
    return future


def rehearse(recipe: Recipe, tokenizer: TokenizerFiles, directory: str, task: Task) -> list[str]:
    """Exports, loads and scores the untrained model; returns notes for the user, one line each.

    Args:
        recipe: the resolved recipe.
        tokenizer: the prepared tokenizer.
        directory: the pretrained model's local directory.
        task: what is predicted.

    Raises:
        ModelError: the trained model could not be used, or not within law 8; the message says what to change.
        StorageError: there is no room for a copy of the model among the temporary files.
    """
    model = build_model(
        directory,
        _labels(recipe),
        recipe.model,
        problem_type=task.problem_type,
        pad_id=tokenizer.pad_id,
        seed=recipe.train.seed,
        new_ids=tokenizer.new_ids,
    ).eval()
    input_tokenizer = InputTokenizer(tokenizer, of_pairs=recipe.data.pair is not None)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))  # Ray starts meanwhile, and all threads wait for the slowest
    try:
        _rehearse(recipe, tokenizer, task, model, input_tokenizer)
    finally:
        torch.set_num_threads(threads)
    return _notes(recipe, directory)


def _labels(recipe: Recipe) -> tuple[str, ...]:
    """The recipe's labels, or three others: those of the data are not known yet."""
    return recipe.data.labels or ("a", "b", "c")


def _rehearse(
    recipe: Recipe, tokenizer: TokenizerFiles, task: Task, model: Any, input_tokenizer: InputTokenizer
) -> None:
    """As `rehearse`, with the model in memory; gives up its memory before the bundle is loaded."""
    name = recipe.model.pretrained
    head = head_of(model, len(_labels(recipe))) if recipe.calibration.temperature else ""
    _check_vocabulary(name, model, input_tokenizer)
    if input_tokenizer.of_pairs:
        _check_frame(name, input_tokenizer)
    longest = _check_limit(name, model, input_tokenizer)
    samples = [_Sample.of(input_tokenizer, length) for length in _lengths(model, input_tokenizer)]
    expected = _Expected.of(name, model, task, samples, longest, tokenizer.pad_id)
    if recipe.privacy.epsilon is not None:
        _check_private_training(name, model, _labels(recipe), expected, tokenizer.pad_id)
    _check_training(name, model, _labels(recipe), expected, tokenizer.pad_id)
    with tempfile.TemporaryDirectory(prefix="textcls-rehearsal-") as directory:
        bundle = os.path.join(directory, "bundle")
        _export(model, head, bundle, recipe, task, tokenizer)
        model.to("meta")
        _check_tokenizer(name, bundle, input_tokenizer)
        _check_classifier(name, bundle, expected, temperature=_TEMPERATURE if head else 1.0)


def _notes(recipe: Recipe, directory: str) -> list[str]:
    """A note if the tokenizer's settings have a smaller limit than the recipe; the model itself accepts more."""
    named = read_tokenizer_config(directory).get("model_max_length")
    if not isinstance(named, int) or recipe.text.max_tokens <= named:
        return []
    asked = recipe.text.max_tokens
    note = f"text.max_tokens {asked} is more than model_max_length {named} in the model's tokenizer_config.json"
    return [f"{note}: the model takes so many, but may have learned from shorter texts only"]


def _weights(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _lengths(model: Any, input_tokenizer: InputTokenizer) -> list[int]:
    """The lengths that are tried, ascending: all that a text can have if that is cheap, else those at which models
    and kernels switch algorithms."""
    shortest, longest = _shortest(input_tokenizer), input_tokenizer.max_tokens
    if longest <= _EVERY and _weights(model) * longest <= _SMALL:
        return list(range(shortest, longest + 1))
    chosen = {shortest, shortest + 1, longest, *_LADDER}
    return sorted(length for length in chosen if shortest <= length <= longest)


def _shortest(input_tokenizer: InputTokenizer) -> int:
    """Tokens of the shortest text or pair of texts."""
    return input_tokenizer.special_tokens + (2 if input_tokenizer.of_pairs else 1)


class _Sample(NamedTuple):
    """An artificial text or pair of texts.

    Attributes:
        ids: its token ids.
        second: the place from which on tokens have type 1; None if the model reads no types.
    """

    ids: Sequence[int]
    second: int | None

    @classmethod
    def of(cls, input_tokenizer: InputTokenizer, length: int) -> "_Sample":
        """The sample of a number of tokens."""
        return cls(input_tokenizer.sample(length), input_tokenizer.sample_second(length))


def _batched(samples: Sequence[_Sample], pad_id: int) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """(input_ids_BL, attention_mask_BL, token_types_BL) of samples, as in training."""
    ids_BL, mask_BL = padded([one.ids for one in samples], pad_id)
    seconds = [one.second for one in samples if one.second is not None]
    return ids_BL, mask_BL, token_types(np.array(seconds), ids_BL.shape[1]) if seconds else None


def _check_frame(name: str, input_tokenizer: InputTokenizer) -> None:
    """Refuses a tokenizer whose pairs textcls cannot cut as transformers does."""
    try:
        _ = input_tokenizer.frame
    except ValueError as error:
        raise ModelError(
            f"{name}: its tokenizer cannot be used for pairs: {error}",
            expected="the first text, then the second, with token types 0 in one part and 1 in the other, or 0 in both",
            todo="choose another model.pretrained for data.pair; BERT, RoBERTa, ELECTRA, DistilBERT, MPNet, DeBERTa "
            "and their kin work",
        ) from error


def _check_vocabulary(name: str, model: Any, input_tokenizer: InputTokenizer) -> None:
    try:
        rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    except NotImplementedError:  # a model that embeds characters by their hash
        rows = None
    if rows is not None and input_tokenizer.highest_id >= rows:
        raise ModelError(
            f"{name}: the tokenizer has token ids up to {input_tokenizer.highest_id}, "
            f"the model's embeddings end at {rows - 1}",
            expected="a tokenizer that belongs to the model",
            todo="copy the model's own tokenizer files beside it, or enlarge its embeddings "
            f"(model.resize_token_embeddings({input_tokenizer.highest_id + 1})) and save it again",
        )


def _check_limit(name: str, model: Any, input_tokenizer: InputTokenizer) -> torch.Tensor:
    """float32 [C], logits of the longest text. Refuses more tokens than the model takes, which it finds by trying.

    Its configuration does not give the limit: RoBERTa's positions start after the padding's, DeBERTa has none.
    """
    try:
        return _alone(model, _Sample.of(input_tokenizer, input_tokenizer.max_tokens))
    except _FAILURES as error:
        failure = error
    works, fails = 0, input_tokenizer.max_tokens
    while fails - works > 1:
        length = (works + fails) // 2
        try:
            _alone(model, _Sample.of(input_tokenizer, max(length, _shortest(input_tokenizer))))
            works = length
        except _FAILURES as error:
            fails, failure = length, error
    if works <= max(8, _shortest(input_tokenizer)):
        raise _unusable(name, "it cannot be run on token ids alone", failure) from failure
    raise ModelError(
        f"{name}: text.max_tokens {input_tokenizer.max_tokens} is more than the model's positions for {works} tokens",
        expected=f"at most {works}, special tokens included",
        todo=f"--set text.max_tokens={works}",
    ) from failure


def _unusable(name: str, what: str, error: Exception) -> ModelError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ModelError(
        f"{name}: {what}: {type(error).__name__}: {lines[0] if lines else ''}",
        expected="an encoder of text whose classification head transformers knows",
        todo="choose another model.pretrained; BERT, RoBERTa, ELECTRA, DistilBERT, MPNet, DeBERTa and their kin work",
    )


def _alone(model: Any, sample: _Sample) -> torch.Tensor:
    """float32 [C], as `transformers.pipeline` computes it."""
    ids_1L, _, types_1L = _batched([sample], 0)
    with torch.inference_mode():
        return logits_of(model, ids_1L, torch.ones_like(ids_1L), types_1L, bf16=False)[0]


@dataclass(frozen=True)
class _Expected:
    """The logits of the model in memory for artificial texts, each scored alone.

    Attributes:
        task: what is predicted.
        samples: N texts or pairs, ascending by length.
        logits_NC: float32.
    """

    task: Task
    samples: Sequence[_Sample]
    logits_NC: torch.Tensor

    @classmethod
    def of(
        cls, name: str, model: Any, task: Task, samples: Sequence[_Sample], longest_C: torch.Tensor, pad_id: int
    ) -> "_Expected":
        """Scores each text alone, and compares with its scores in a batch.

        The longest has been scored before any other: some models adapt to the first text that they see.
        """
        logits = []
        for one in samples[:-1]:
            try:
                logits.append(_alone(model, one))
            except _FAILURES as error:
                raise _unusable(name, f"it cannot be run on a text of {len(one.ids)} tokens", error) from error
        expected = cls(task, samples, torch.stack([*logits, longest_C]))
        if not expected.logits_NC.isfinite().all():
            raise _unusable(name, "it gives no finite scores", ValueError("nan or inf"))
        for positions in expected.batches():
            batch = _batched([samples[position] for position in positions], pad_id)
            with torch.inference_mode():
                logits_BC = logits_of(model, *batch, bf16=False)
            expected.compare_logits(name, logits_BC, positions, "padded in a batch")
        return expected

    @property
    def usable(self) -> list[int]:
        """Positions of the texts that are short enough to be scored more than once."""
        return [position for position, one in enumerate(self.samples) if len(one.ids) <= _LONG]

    def batches(self) -> list[list[int]]:
        """Positions of texts that share a batch: each with the longest if there are many, which are short then."""
        *others, longest = self.usable
        together = others if len(others) > len(_LADDER) + 2 else others[:1]
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


def _check_training(name: str, model: Any, labels: Sequence[str], expected: _Expected, pad_id: int) -> None:
    """One forward and backward pass as the training loop runs it on CPUs, and the scores of that model.

    The replacements of `adapt_to_cpu` must not change the logits, with or without gradients.
    """
    adapt_to_cpu(model, alone=True)
    short = [position for position, one in enumerate(expected.samples) if len(one.ids) <= _SHORT] or [0]
    positions = [short[0], short[-1]]
    batch = _batched([expected.samples[position] for position in positions], pad_id)
    try:
        with torch.inference_mode():
            scored_BC = logits_of(model, *batch, bf16=False)
        learning_BC = logits_of(model, *batch, bf16=False)
        alone_BC = logits_of(model, *_batched([expected.samples[positions[-1]]], pad_id), bf16=False)
        one = expected.task.label_of(labels[:1])
        targets_B = target_tensor(expected.task.encode([one] * len(positions), labels))
        losses_B = row_losses(expected.task.problem_type, learning_BC, targets_B, None, 0.0)
        losses_B.sum().backward()  # type: ignore[no-untyped-call]
    except _FAILURES as error:
        raise _unusable(name, "it cannot be trained", error) from error
    expected.compare_logits(name, scored_BC, positions, "while it is validated")
    expected.compare_logits(name, learning_BC.detach(), positions, "while it is trained")
    expected.compare_logits(name, alone_BC.detach(), positions[-1:], "while it is trained without padding")
    model.zero_grad(set_to_none=True)


def _check_private_training(name: str, model: Any, labels: Sequence[str], expected: _Expected, pad_id: int) -> None:
    """Refuses a model in which a row has no gradient of its own."""
    from textcls.training.private.rehearsal import refuse_without_row_gradients  # needs opacus

    samples, task = [expected.samples[0], expected.samples[-1]], expected.task
    together, alone = _batched(samples, pad_id), [_batched([one], pad_id) for one in samples]
    targets_B = target_tensor(task.encode([task.label_of(labels[:1])] * 2, labels))
    refuse_without_row_gradients(name, model, task.problem_type, together, alone, targets_B, samples[0].ids)


def _export(model: Any, head: str, bundle: str, recipe: Recipe, task: Task, tokenizer: TokenizerFiles) -> None:
    """Exports the model as a bundle, through a checkpoint as in training."""
    temperature, directory = _TEMPERATURE if head else 1.0, os.path.dirname(bundle)
    os.mkdir(bundle)
    try:
        with tempfile.TemporaryDirectory(dir=directory) as checkpoint, storage.explained(directory):
            write_weights(checkpoint, model)
            read_weights(checkpoint, model)
            export_files(checkpoint, bundle, tokenizer=tokenizer, head=head, temperature=temperature)
    except SafetensorError as error:
        raise StorageError(
            f"{directory}: {error}",
            todo="free some space, or let TMPDIR name a directory with room for the model twice",
        ) from error
    except _FAILURES as error:
        raise _unusable(recipe.model.pretrained, "it cannot be saved and read again", error) from error
    make_bundle(
        bundle,
        task=task,
        labels=_labels(recipe),
        text=recipe.text,
        metrics={},
        recipe=recipe,
        data_fingerprint="",
        calibration=Calibration(temperature=temperature),
    )


def _check_tokenizer(name: str, bundle: str, input_tokenizer: InputTokenizer) -> None:
    """The bundle's tokenizer as `transformers.pipeline` loads it gives the token ids that training sees."""
    from transformers import AutoTokenizer

    try:
        theirs = AutoTokenizer.from_pretrained(bundle)
    except (*_FAILURES, OSError) as error:
        raise _unusable(name, "transformers cannot load the tokenizer of its bundle", error) from error
    texts = [*_WORDS, *_IDENTIFIERS, " ".join(theirs.all_special_tokens)]
    for text, own, other in _encoded_by_both(input_tokenizer, theirs, texts):
        if own != other:
            raise ModelError(
                f"{name}: transformers makes other token ids of {text[:30]!r} than the tokenizers library: "
                f"{other[:12]}, not {own[:12]}",
                expected="a tokenizer.json that says all that the tokenizer does",
                todo="save the tokenizer anew: AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY)",
            )


def _encoded_by_both(
    input_tokenizer: InputTokenizer, theirs: Any, texts: Sequence[str]
) -> Iterator[tuple[str, list[int], list[int]]]:
    """(text, our token ids, those of transformers) of each text; of pairs with the token types after the ids."""
    if not input_tokenizer.of_pairs:
        ours, _ = input_tokenizer(list(map(TextInput, texts)))
        yield from zip(texts, ours, theirs(texts, truncation=True)["input_ids"], strict=True)
        return
    for one, other in itertools.permutations(texts, 2):
        found = input_tokenizer.pairs([TextInput(one, other)])
        (ids,), expected = found.ids, theirs(one, other, truncation=True)
        types = [] if found.seconds is None else token_types(found.seconds, len(ids))[0].tolist()
        yield one, [*ids, *types], [*expected["input_ids"], *expected.get("token_type_ids", [])]


def _check_classifier(name: str, bundle: str, expected: _Expected, *, temperature: float) -> None:
    """Refuses a bundle whose scores, as evaluated, predicted and served, differ from those of the model in memory."""
    calibrated = _Expected(expected.task, expected.samples, expected.logits_NC / temperature)
    usable = expected.usable
    each = usable if len(usable) > len(_LADDER) + 3 else [usable[0], usable[-1]]

    def scored(positions: Sequence[int]) -> np.ndarray:
        samples = [expected.samples[position] for position in positions]
        encoded = [Encoded([ids], len(ids), False, second=second) for ids, second in samples]
        return classifier.score_encoded(encoded).probabilities

    try:
        classifier = Classifier.load(bundle, device="cpu", precision="fp32")
        together_NC = scored(usable)
        alone_NC = np.concatenate([scored([position]) for position in each])
        if len(usable) == len(expected.samples):
            classifier.warm_up(batch_tokens=1)
    except _FAILURES as error:
        raise _unusable(name, "its bundle cannot be used", error) from error
    for probabilities_NC, positions, how in (
        (alone_NC, each, "from its bundle"),
        (together_NC, usable, "from its bundle, in a batch"),
    ):
        calibrated.compare(name, probabilities_NC, positions, how)
