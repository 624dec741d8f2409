"""The Classifier beside `transformers.pipeline(batch_size=32)` on one bundle: `python jobs/bench/inference_speed.py`

Same rows, machine and threads; the two alternate, several rounds, and a ratio is of one round. The pipeline runs as its
users run it (float32, padded to the longest text of each batch, texts in the order given). Also printed: how far the
Classifier's probabilities are from float32 ones, and how much of the machine's matrix-product peak it uses.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch

from textcls.data.csv_shards import plan_shards, read_shard
from textcls.data.input_files import expand
from textcls.data.rows import CleanRow, RowCleaner
from textcls.inference.classifier import Classifier
from textcls.recipe import parse_recipe

_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "quickstart.yaml"


def main() -> None:
    """Prints the rounds, the medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, help="such as runs/quickstart/bundle")
    parser.add_argument("--source", default="rotten_tomatoes", choices=["rotten_tomatoes", "imdb"])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    texts = sample_texts(arguments.source, arguments.rows)
    classifier = Classifier.load(arguments.bundle, threads=arguments.threads)
    pipeline = _pipeline(arguments.bundle)
    classifier.scores(texts[:256])
    pipeline(texts[:64])
    rates: dict[str, list[float]] = {"pipeline": [], "textcls": []}
    for round_ in range(arguments.rounds):
        rates["pipeline"].append(_rows_per_s(pipeline, texts[: len(texts) // 4]))
        rates["textcls"].append(_rows_per_s(classifier.scores, texts))
        one, other = rates["textcls"][-1], rates["pipeline"][-1]
        print(f"round {round_ + 1}: pipeline {other:.1f} rows/s, textcls {one:.1f} rows/s, ratio {one / other:.2f}")
    ratios = [one / other for one, other in zip(rates["textcls"], rates["pipeline"], strict=True)]
    for name, values in rates.items():
        print(f"{name}: median {statistics.median(values):.1f} rows/s ({min(values):.1f} to {max(values):.1f})")
    print(f"ratio: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    _print_distance(classifier, arguments.bundle, texts)
    _print_limit(classifier, texts, statistics.median(rates["textcls"]))


def sample_texts(source: str, most: int) -> list[str]:
    """Texts of the demo data, in an order of chance."""
    recipe = parse_recipe(_RECIPE.read_text(), [f"data.where.source={source}"])
    layouts, shards = plan_shards(expand(recipe.data.csv), recipe.data)
    clean = RowCleaner(layouts[0], recipe.data, recipe.text)
    outcomes = (clean(line, fields) for shard in shards for line, fields in read_shard(shard, layouts[0], recipe.data))
    rows = [row.text for row in outcomes if isinstance(row, CleanRow)]
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:most]]


def _pipeline(bundle: str) -> Any:
    import transformers

    classify = transformers.pipeline("text-classification", bundle, top_k=None, dtype=torch.float32, device="cpu")
    return lambda texts: classify(texts, batch_size=32, truncation=True)


def _rows_per_s(score: Any, texts: list[str]) -> float:
    started = time.perf_counter()
    score(texts)
    return len(texts) / (time.perf_counter() - started)


def _print_distance(classifier: Classifier, bundle: str, texts: list[str]) -> None:
    exact, found = Classifier.load(bundle, precision="fp32").scores(texts), classifier.scores(texts)
    apart = np.abs(exact.probabilities - found.probabilities).max(axis=1)
    same = (exact.probabilities.argmax(axis=1) == found.probabilities.argmax(axis=1)).mean()
    print(
        f"{classifier.precision} beside fp32: probabilities differ by {np.median(apart):.1e} (median), "
        f"{apart.max():.1e} (most); same label on {same:.2%}"
    )


def _print_limit(classifier: Classifier, texts: list[str], rows_per_s: float) -> None:
    """Useful work (2 x encoder weights x tokens seen) beside the peak of a matrix product."""
    matrices = [m for m in classifier._model.modules() if isinstance(m, torch.nn.Linear)]
    tokens = np.mean([one.cost for one in classifier.encode(texts)])
    used = rows_per_s * 2 * sum(m.weight.numel() for m in matrices) * float(tokens)
    dtype = torch.bfloat16 if classifier.precision == "bf16" else torch.float32
    a, b = (torch.randn(1024, 1024, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(20):
        started = time.perf_counter()
        torch.matmul(a, b)
        times.append(time.perf_counter() - started)
    peak = 2 * 1024**3 / statistics.median(times)
    print(
        f"matrix products: {used / 1e9:.0f} GFLOP/s of useful work; the peak of a 1024-cube product in "
        f"{classifier.precision} is {peak / 1e9:.0f} GFLOP/s ({used / peak:.0%})"
    )


if __name__ == "__main__":
    main()
