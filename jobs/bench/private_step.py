"""Compares steps of private training with a plain one: `python jobs/bench/private_step.py`

All run in float32 on the quickstart's rows and model with frozen embedding tables, on the same rows and threads. A
private step computes the norms of the rows' gradients and draws the noise besides; it trains all weights, as the plain
one, or biases. They alternate; each round gives ratios of their CPU times, which other work changes little.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from typing import Any

import numpy as np
import torch

from jobs.bench.demo_rows import LABELS, clean_rows, token_rows
from textcls.modeling import pretrained
from textcls.modeling.batching import tokens_at_once
from textcls.modeling.build import build_model, freeze_untrained
from textcls.modeling.cpu_training import adapt_to_cpu
from textcls.settings.privacy import Weights
from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.tokenizer_files import TokenizerFiles, prepare_tokenizer
from textcls.training.optimizer import build_optimizer
from textcls.training.private.budget import Budget
from textcls.training.private.clipping import RowClipper
from textcls.training.private.randomness import new_key
from textcls.training.private.step import PrivateStepper
from textcls.training.step import Stepper
from textcls.training.token_rows import TokenRows

_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "private.yaml"


def main() -> None:
    """Prints the rounds and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows-per-step", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = parse_recipe(_RECIPE.read_text(encoding="utf-8"))
    directory = pretrained.find_model(recipe.model).directory
    tokenizer = prepare_tokenizer(directory, recipe.text)
    data = token_rows(clean_rows(recipe), tokenizer)
    number = arguments.rows_per_step
    print(f"{number} rows a step of {data.lengths.mean():.1f} tokens each, {arguments.threads} threads")
    kinds: dict[str, Weights | None] = {"plain": None, "private, all": "all", "private, biases": "biases"}
    steps = {name: _stepper(recipe, directory, data, tokenizer, weights, number) for name, weights in kinds.items()}
    chance, ratios = np.random.default_rng(0), dict[str, list[float]]()
    for round_ in range(arguments.rounds + 1):
        batch = chance.permutation(len(data))[:number]
        seconds = {name: _seconds(step, round_, batch) for name, step in steps.items()}
        if round_:  # the first one runs with cold caches
            for name in list(seconds)[1:]:
                ratios.setdefault(name, []).append(seconds[name] / seconds["plain"])
            print("; ".join(f"{name} {found:.2f} CPU s" for name, found in seconds.items()))
    for name, found in ratios.items():
        print(f"{name}: {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f}) of a plain step")


def _stepper(
    recipe: Recipe, directory: str, data: TokenRows, tokenizer: TokenizerFiles, weights: Weights | None, number: int
) -> Callable[[int, np.ndarray], Any]:
    """A step of training as workers on CPUs run it: of private training of these weights, or the plain one."""
    kind, pad_id = SINGLE_LABEL.problem_type, tokenizer.pad_id
    model = build_model(directory, LABELS, recipe.model, problem_type=kind, pad_id=pad_id, seed=42)
    freeze_untrained(model, weights or "all")
    adapt_to_cpu(model, alone=False)
    same: dict[str, Any] = {
        "model": model,
        "optimizer": build_optimizer(model, recipe.train),
        "data": data,
        "spec": recipe.train,
        "problem_type": kind,
        "total_steps": 10**6,
        "pad_id": pad_id,
        "max_tokens": tokens_at_once(recipe.train.max_tokens_per_micro_batch, torch.device("cpu")),
    }
    if weights is None:
        return Stepper(**same, wrapped=model, weights_C=None, bf16=False)
    budget = Budget(8.0, 1e-4, "", len(data), number / len(data), 10**6, 1.0, recipe.privacy.max_grad_norm)
    return PrivateStepper(
        **same,
        clipper=RowClipper(model, budget.max_grad_norm),
        budget=budget,
        key=new_key(),
        sum_over_ranks=lambda values: None,
    )


def _seconds(step: Callable[[int, np.ndarray], Any], number: int, batch: np.ndarray) -> float:
    started = time.process_time()
    step(number, batch)
    return time.process_time() - started


if __name__ == "__main__":
    main()
