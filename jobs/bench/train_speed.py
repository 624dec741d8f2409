"""Compares training speed with the usual loop, on the same rows and threads: `python jobs/bench/train_speed.py`

The usual loop, as in tutorials, pads every row to 128 tokens and runs float32 with Adam, 32 rows a step. textcls runs
the step of its workers (`textcls.training.step`) with the quickstart's settings. The two alternate for several rounds;
each round gives a ratio. The machine's matrix-product peak is measured as well, as an upper bound.
"""

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from typing import Any

import numpy as np
import torch

from jobs.bench.demo_rows import LABELS, clean_rows, token_rows
from textcls.modeling import pretrained
from textcls.modeling.batching import tokens_at_once
from textcls.modeling.build import build_model
from textcls.modeling.cpu_training import adapt_to_cpu
from textcls.modeling.precision import uses_bf16
from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.tokenizer_files import TokenizerFiles, prepare_tokenizer
from textcls.training import batch_plan
from textcls.training.optimizer import build_optimizer
from textcls.training.step import Stepper
from textcls.training.token_rows import TokenRows

_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "quickstart.yaml"
# As many as there are short reviews.
_ROWS = 8530


def main() -> None:
    """Prints the rounds, the medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--source", default="rotten_tomatoes", choices=["rotten_tomatoes", "imdb"])
    parser.add_argument("--max-tokens", type=int, default=128, help="of textcls; the usual loop always uses 128")
    parser.add_argument("--micro-batch", default="auto", help="train.max_tokens_per_micro_batch of textcls")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--steps", type=int, default=40, help="steps of textcls in a round; the usual loop runs a tenth"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = parse_recipe(
        _RECIPE.read_text(),
        [
            f"data.where.source={arguments.source}",
            f"text.max_tokens={arguments.max_tokens}",
            f"train.max_tokens_per_micro_batch={arguments.micro_batch}",
        ],
    )
    directory = pretrained.find_model(recipe.model).directory
    tokenizer = prepare_tokenizer(directory, recipe.text)
    rows = clean_rows(recipe)
    chosen = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:_ROWS]]
    data = token_rows(chosen, tokenizer)
    mean = data.lengths.mean()
    print(f"{len(data):,} rows of {arguments.source}, {mean:.1f} tokens each, {arguments.threads} threads")
    epoch = batch_plan.epoch_batches(data.lengths, 42, 0, 32)
    print(f"padded / real tokens of an epoch: {batch_plan.padding_ratio(epoch, data.lengths):.4f}")

    usual = _usual_loop(directory, data, tokenizer)
    textcls = _textcls(recipe, directory, data, tokenizer)
    rates: dict[str, list[float]] = {"usual loop": [], "textcls": []}
    for round_ in range(arguments.rounds):
        rates["usual loop"].append(_rows_per_s(usual, max(2, arguments.steps // 10)))
        rates["textcls"].append(_rows_per_s(textcls, arguments.steps))
        one, other = rates["textcls"][-1], rates["usual loop"][-1]
        print(f"round {round_ + 1}: usual loop {other:.1f} rows/s, textcls {one:.1f} rows/s, ratio {one / other:.2f}")
    ratios = [one / other for one, other in zip(rates["textcls"], rates["usual loop"], strict=True)]
    for name, values in rates.items():
        print(f"{name}: median {statistics.median(values):.1f} rows/s ({min(values):.1f} to {max(values):.1f})")
    print(f"ratio: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")

    bf16 = uses_bf16("auto", torch.device("cpu"))
    peak = _matrix_peak(torch.bfloat16 if bf16 else torch.float32)
    per_row = 6 * _encoder_weights(recipe, directory, tokenizer) * mean
    used = statistics.median(rates["textcls"]) * per_row
    print(
        f"matrix products: textcls does {used / 1e9:.0f} GFLOP/s of useful work (6 x encoder weights x real tokens); "
        f"the peak of a 1024-cube product in {'bf16' if bf16 else 'fp32'} is {peak / 1e9:.0f} GFLOP/s "
        f"({used / peak:.0%})"
    )


def _usual_loop(directory: str, data: TokenRows, tokenizer: TokenizerFiles) -> Iterator[None]:
    """Runs one step of the usual loop at a time."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        directory, num_labels=2, dtype=torch.float32
    )
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-5)
    for first in itertools.cycle(range(0, len(data) - 32, 32)):
        rows = np.arange(first, first + 32)
        batch = data.batch(rows, tokenizer.pad_id)
        width = batch.input_ids_BL.shape[1]
        ids = torch.full((32, 128), tokenizer.pad_id)
        ids[:, : min(width, 128)] = batch.input_ids_BL[:, :128]
        mask = torch.from_numpy((np.arange(128) < data.lengths[rows][:, None]).astype(np.int64))
        optimizer.zero_grad()
        model(input_ids=ids, attention_mask=mask, labels=batch.targets_B).loss.backward()
        optimizer.step()
        yield


def _textcls(recipe: Recipe, directory: str, data: TokenRows, tokenizer: TokenizerFiles) -> Iterator[None]:
    """Runs one step of textcls at a time."""
    cpu = torch.device("cpu")
    model = _built(recipe, directory, tokenizer)
    adapt_to_cpu(model, alone=True)
    stepper = Stepper(
        model=model,
        wrapped=model,
        optimizer=build_optimizer(model, recipe.train),
        data=data,
        spec=recipe.train,
        problem_type=SINGLE_LABEL.problem_type,
        weights_C=None,
        total_steps=10**6,
        pad_id=tokenizer.pad_id,
        bf16=uses_bf16(recipe.train.precision, cpu),
        max_tokens=tokens_at_once(recipe.train.max_tokens_per_micro_batch, cpu),
    )
    step = 0
    for epoch in itertools.count():
        for batch in batch_plan.epoch_batches(data.lengths, 42, epoch, 32):
            stepper(step, batch)
            step += 1
            yield


def _rows_per_s(steps: Iterator[None], number: int) -> float:
    next(steps)  # the first step runs with cold caches, after the other loop
    started = time.perf_counter()
    for _ in range(number):
        next(steps)
    return number * 32 / (time.perf_counter() - started)


def _built(recipe: Recipe, directory: str, tokenizer: TokenizerFiles) -> Any:
    """The module as textcls trains it."""
    kind, pad_id = SINGLE_LABEL.problem_type, tokenizer.pad_id
    return build_model(directory, LABELS, recipe.model, problem_type=kind, pad_id=pad_id, seed=42)


def _encoder_weights(recipe: Recipe, directory: str, tokenizer: TokenizerFiles) -> int:
    """Number of weights that every token is multiplied by: all except the embeddings."""
    model = _built(recipe, directory, tokenizer)
    return sum(p.numel() for name, p in model.named_parameters() if "embeddings" not in name)


def _matrix_peak(dtype: torch.dtype) -> float:
    """FLOP/s of a product of two 1024 x 1024 matrices, the best of several."""
    one, other = torch.randn(1024, 1024, dtype=dtype), torch.randn(1024, 1024, dtype=dtype)
    product: Callable[[], torch.Tensor] = lambda: one @ other  # noqa: E731
    product()
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(5):
            product()
        best = min(best, (time.perf_counter() - started) / 5)
    return 2 * 1024**3 / best


if __name__ == "__main__":
    main()
