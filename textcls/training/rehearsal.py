"""A rehearsal of training, export and scoring with the untrained model: does it all work, and give the same scores?

In: a recipe, its pretrained model and prepared tokenizer. Out: notes for the user, or the reason why a bundle of this
model could not be loaded or would score a text differently in different batches; found in seconds, before any row is
read. Not here: artificial texts and what their scores must be (rehearsed_scores.py), what a tokenizer must do
(rehearsed_tokenizer.py), anything about the data.

The model is built as for training, scored, trained on one artificial batch, exported, and loaded by the `Classifier`
that evaluates, predicts and serves. If two of them disagree, a run would show it only after training.

It runs on a thread of the driver while Ray starts: a Ray task would wait for Ray first, and import torch again.
The driver writes the bundle at the end of a run, so it has the memory and the disk that a rehearsal takes.

Shapes: N texts, L tokens of the longest, C labels.
"""

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from textcls import storage
from textcls.bundle import make_bundle
from textcls.errors import ModelError, StorageError
from textcls.inference.classifier import Classifier
from textcls.inference.encoding import Encoded
from textcls.manifest import Calibration
from textcls.modeling.build import build_model, head_of, logits_of
from textcls.modeling.cpu_training import adapt_to_cpu
from textcls.settings.recipe import Recipe
from textcls.tasks.task import Task
from textcls.text.tokenizer import InputTokenizer
from textcls.text.tokenizer_files import TokenizerFiles, read_tokenizer_config
from textcls.training.checkpoint import read_weights, write_weights
from textcls.training.export import export_files
from textcls.training.optimizer import row_losses
from textcls.training.rehearsed_scores import (
    FAILURES,
    ExpectedScores,
    Sample,
    batched,
    logits_alone,
    samples_for,
    shortest_length,
    unusable,
)
from textcls.training.rehearsed_tokenizer import check_frame, check_tokenizer, check_vocabulary
from textcls.training.token_rows import target_tensor

# Folded into the head to test that this divides the logits; a power of two, so that nothing is rounded.
_TEMPERATURE = 0.5
# Texts up to this length are trained on.
_SHORT = 40


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
    check_vocabulary(name, model, input_tokenizer)
    if input_tokenizer.of_pairs:
        check_frame(name, input_tokenizer)
    longest = _check_limit(name, model, input_tokenizer)
    samples = samples_for(model, input_tokenizer)
    expected = ExpectedScores.of(name, model, task, samples, longest, tokenizer.pad_id)
    if recipe.privacy.epsilon is not None:
        _check_private_training(recipe, model, expected, tokenizer.pad_id)
    _check_training(name, model, _labels(recipe), expected, tokenizer.pad_id)
    with tempfile.TemporaryDirectory(prefix="textcls-rehearsal-") as directory:
        bundle = os.path.join(directory, "bundle")
        _export(model, head, bundle, recipe, task, tokenizer)
        model.to("meta")
        check_tokenizer(name, bundle, input_tokenizer)
        _check_classifier(name, bundle, expected, temperature=_TEMPERATURE if head else 1.0)


def _notes(recipe: Recipe, directory: str) -> list[str]:
    """A note if the tokenizer's settings have a smaller limit than the recipe; the model itself accepts more."""
    named = read_tokenizer_config(directory).get("model_max_length")
    if not isinstance(named, int) or recipe.text.max_tokens <= named:
        return []
    asked = recipe.text.max_tokens
    note = f"text.max_tokens {asked} is more than model_max_length {named} in the model's tokenizer_config.json"
    return [f"{note}: the model takes so many, but may have learned from shorter texts only"]


def _check_limit(name: str, model: Any, input_tokenizer: InputTokenizer) -> torch.Tensor:
    """float32 [C], logits of the longest text. Refuses more tokens than the model takes, which it finds by trying.

    Its configuration does not give the limit: RoBERTa's positions start after the padding's, DeBERTa has none.
    """
    try:
        return logits_alone(model, Sample.of(input_tokenizer, input_tokenizer.max_tokens))
    except FAILURES as error:
        failure = error
    works, fails = 0, input_tokenizer.max_tokens
    while fails - works > 1:
        length = (works + fails) // 2
        try:
            logits_alone(model, Sample.of(input_tokenizer, max(length, shortest_length(input_tokenizer))))
            works = length
        except FAILURES as error:
            fails, failure = length, error
    if works <= max(8, shortest_length(input_tokenizer)):
        raise unusable(name, "it cannot be run on token ids alone", failure) from failure
    raise ModelError(
        f"{name}: text.max_tokens {input_tokenizer.max_tokens} is more than the model's positions for {works} tokens",
        expected=f"at most {works}, special tokens included",
        todo=f"--set text.max_tokens={works}",
    ) from failure


def _check_training(name: str, model: Any, labels: Sequence[str], expected: ExpectedScores, pad_id: int) -> None:
    """One forward and backward pass as the training loop runs it on CPUs, and the scores of that model.

    The replacements of `adapt_to_cpu` must not change the logits, with or without gradients.
    """
    adapt_to_cpu(model, alone=True)
    short = [position for position, one in enumerate(expected.samples) if len(one.ids) <= _SHORT] or [0]
    positions = [short[0], short[-1]]
    batch = batched([expected.samples[position] for position in positions], pad_id)
    try:
        with torch.inference_mode():
            scored_BC = logits_of(model, *batch, bf16=False)
        learning_BC = logits_of(model, *batch, bf16=False)
        alone_BC = logits_of(model, *batched([expected.samples[positions[-1]]], pad_id), bf16=False)
        one = expected.task.label_of(labels[:1])
        targets_B = target_tensor(expected.task.encode([one] * len(positions), labels))
        losses_B = row_losses(expected.task.problem_type, learning_BC, targets_B, None, 0.0)
        losses_B.sum().backward()  # type: ignore[no-untyped-call]
    except FAILURES as error:
        raise unusable(name, "it cannot be trained", error) from error
    expected.compare_logits(name, scored_BC, positions, "while it is validated")
    expected.compare_logits(name, learning_BC.detach(), positions, "while it is trained")
    expected.compare_logits(name, alone_BC.detach(), positions[-1:], "while it is trained without padding")
    model.zero_grad(set_to_none=True)


def _check_private_training(recipe: Recipe, model: Any, expected: ExpectedScores, pad_id: int) -> None:
    """Refuses a model in which a row has no gradient of its own."""
    from textcls.training.private.rehearsal import refuse_without_row_gradients  # needs opacus

    samples, task, labels = [expected.samples[0], expected.samples[-1]], expected.task, _labels(recipe)
    together, alone = batched(samples, pad_id), [batched([one], pad_id) for one in samples]
    targets_B = target_tensor(task.encode([task.label_of(labels[:1])] * 2, labels))
    refuse_without_row_gradients(
        recipe.model.pretrained,
        model,
        task.problem_type,
        together,
        alone,
        targets_B,
        samples[0].ids,
        recipe.privacy.weights,
    )


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
    except FAILURES as error:
        raise unusable(recipe.model.pretrained, "it cannot be saved and read again", error) from error
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


def _check_classifier(name: str, bundle: str, expected: ExpectedScores, *, temperature: float) -> None:
    """Refuses a bundle whose scores, as evaluated, predicted and served, differ from those of the model in memory."""
    calibrated = ExpectedScores(expected.task, expected.samples, expected.logits_NC / temperature)
    usable = expected.usable
    each = usable if expected.has_every_length else [usable[0], usable[-1]]

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
    except FAILURES as error:
        raise unusable(name, "its bundle cannot be used", error) from error
    for probabilities_NC, positions, how in (
        (alone_NC, each, "from its bundle"),
        (together_NC, usable, "from its bundle, in a batch"),
    ):
        calibrated.compare(name, probabilities_NC, positions, how)
