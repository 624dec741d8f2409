"""Compares the Classifier with `transformers.pipeline` and ONNX Runtime int8: `python jobs/bench/inference_speed.py`

Same bundle, rows, machine and threads; the three alternate for several rounds, and each round gives a ratio. The
pipeline runs as usual: float32, batches of 32 padded to their longest text, texts in the given order. ONNX Runtime runs
the model quantized by `quantize_dynamic` (int8 weights, a scale per channel) on batches of texts of similar length.
Also printed: the largest difference of the probabilities from float32, and the share of the machine's matrix-product
peak that the Classifier reaches. Needs the extra `bench`.

`--pairs` compares the Classifier with itself: pairs of texts with single texts that have the same tokens. It measures
CPU time, which other work on the machine changes little.
"""

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import torch.onnx

from jobs.bench.demo_rows import sample_texts
from textcls.inference.classifier import Classifier
from textcls.modeling.batching import micro_batches, padded
from textcls.tasks.calibration import softmax
from textcls.text.text_input import TextInput
from textcls.text.tokenizer_files import TokenizerFiles

# Batches of ONNX Runtime: padded tokens, and padding tokens above which another batch costs less.
_MAX_TOKENS, _MAX_PADDING = 2048, 64
# (texts) -> float [texts, labels]: probabilities.
Scorer = Callable[[list[str]], np.ndarray]


def main() -> None:
    """Prints the rounds, the medians and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, help="a bundle, such as runs/quickstart/bundle")
    parser.add_argument("--source", default="rotten_tomatoes", choices=["rotten_tomatoes", "imdb"])
    parser.add_argument("--max-tokens", type=int, default=128, help="longer texts are truncated")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--pairs", action="store_true", help="compare pairs with single texts; a bundle of one text")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    texts = sample_texts(arguments.source, arguments.rows)
    classifier = _classifier(arguments.bundle, arguments.max_tokens, arguments.threads)
    if arguments.pairs:
        _compare_pairs(classifier, texts, arguments.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        # The same model with another limit in its tokenizer, for the two that read a directory.
        directory = shutil.copytree(arguments.bundle, Path(folder) / "model")
        tokenizer = _tokenizer(arguments.bundle, arguments.max_tokens)
        tokenizer.save(str(directory))
        scorers: dict[str, Scorer] = {
            "pipeline": _pipeline(str(directory), classifier.labels),
            "onnx int8": _onnx_int8(
                classifier, _stock_model(str(directory)), tokenizer.pad_id, Path(folder), arguments.threads
            ),
            "textcls": lambda texts: classifier.scores(texts).probabilities,
        }
        rates: dict[str, list[float]] = {name: [] for name in scorers}
        found = {name: score(texts) for name, score in scorers.items()}  # this also warms up all of them
        for round_ in range(arguments.rounds):
            for name, score in scorers.items():
                rates[name].append(_rows_per_s(score, texts[: len(texts) // 4] if name == "pipeline" else texts))
            figures = ", ".join(f"{name} {values[-1]:.1f}" for name, values in rates.items())
            print(f"round {round_ + 1}: {figures} rows/s", flush=True)
    for name, values in rates.items():
        print(f"{name}: median {statistics.median(values):.1f} rows/s ({min(values):.1f} to {max(values):.1f})")
    for peer in ("pipeline", "onnx int8"):
        ratios = [one / other for one, other in zip(rates["textcls"], rates[peer], strict=True)]
        print(f"textcls / {peer}: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"textcls computes in {classifier.precision}")
    for name, probabilities in found.items():
        _print_distance(
            f"{name} ({classifier.precision})" if name == "textcls" else name, probabilities, found["pipeline"]
        )
    _print_limit(classifier, _stock_model(arguments.bundle), texts, statistics.median(rates["textcls"]))


def _compare_pairs(classifier: Classifier, texts: list[str], rounds: int) -> None:
    """Prints the rows per CPU second of pairs, texts in halves, and of texts with a separator in the middle."""
    bundle, files = classifier.bundle, TokenizerFiles.load(classifier.bundle.directory)
    of_pairs = dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"pairs": True}))
    typed = dataclasses.replace(files, max_tokens=classifier.max_tokens, token_types=True)
    bf16 = classifier.precision == "bf16"
    scorer = Classifier(of_pairs, classifier._model, typed, device="cpu", bf16=bf16)
    words = [text.split() for text in texts if len(text.split()) > 1]
    halves = [(" ".join(one[: len(one) // 2]), " ".join(one[len(one) // 2 :])) for one in words]
    separator = json.loads(files.config_json)["sep_token"]
    inputs = {
        "single": (classifier, [TextInput(f"{one} {separator} {other}") for one, other in halves]),
        "pairs": (scorer, [TextInput(*half) for half in halves]),
    }
    tokens = {name: [one.tokens for one in used.encode(given)] for name, (used, given) in inputs.items()}
    print(f"mean tokens: { ({name: round(float(np.mean(found)), 2) for name, found in tokens.items()}) }")
    rates: dict[str, list[float]] = {name: [] for name in inputs}
    for round_ in range(rounds + 1):  # the first warms up
        for name, (used, given) in inputs.items():
            started = time.process_time()
            used.scores(given)
            if round_:
                rates[name].append(len(given) / (time.process_time() - started))
        print(
            f"round {round_}, rows per CPU second:",
            {name: round(found[-1], 1) for name, found in rates.items() if found},
        )
    ratios = [one / other for one, other in zip(rates["pairs"], rates["single"], strict=True)]
    print(f"pairs / single: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def _tokenizer(bundle: str, max_tokens: int) -> TokenizerFiles:
    found = TokenizerFiles.load(bundle)
    config = json.dumps(json.loads(found.config_json) | {"model_max_length": max_tokens})
    return dataclasses.replace(found, config_json=config, max_tokens=max_tokens)


def _classifier(bundle: str, max_tokens: int, threads: int) -> Classifier:
    found = Classifier.load(bundle, threads=threads)
    tokenizer, bf16 = _tokenizer(bundle, max_tokens), found.precision == "bf16"
    return Classifier(found.bundle, found._model, tokenizer, device="cpu", bf16=bf16)


def _pipeline(directory: str, labels: tuple[str, ...]) -> Scorer:
    import transformers

    classify = transformers.pipeline("text-classification", directory, top_k=None, dtype=torch.float32, device="cpu")

    def score(texts: list[str]) -> np.ndarray:
        found = classify(texts, batch_size=32, truncation=True)
        by_label = [{one["label"]: one["score"] for one in text} for text in found]
        return np.array([[scores[label] for label in labels] for scores in by_label])

    return score


def _stock_model(directory: str) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32).eval()


def _onnx_int8(classifier: Classifier, model: Any, pad_id: int, folder: Path, threads: int) -> Scorer:
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    names, example = ["input_ids", "attention_mask"], torch.ones(2, 8, dtype=torch.long)
    axes = {name: {0: "rows", 1: "tokens"} for name in names} | {"logits": {0: "rows"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits().eval(),
            (example, example),
            str(folder / "fp32.onnx"),
            input_names=names,
            output_names=["logits"],
            dynamic_axes=axes,
            dynamo=False,
        )
        quantize_dynamic(folder / "fp32.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / "int8.onnx"), options, providers=["CPUExecutionProvider"])

    def score(texts: list[str]) -> np.ndarray:
        windows = [one.windows[0] for one in classifier.encode(texts)]
        lengths = np.array([len(window) for window in windows])
        probabilities = np.zeros((len(texts), len(classifier.labels)))
        for rows in micro_batches(np.arange(len(texts)), lengths, _MAX_TOKENS, _MAX_PADDING):
            ids_BL, mask_BL = padded([windows[row] for row in rows], pad_id)
            mask_BL = torch.ones_like(ids_BL) if mask_BL is None else mask_BL
            (logits,) = session.run(None, {"input_ids": ids_BL.numpy(), "attention_mask": mask_BL.numpy()})
            probabilities[rows] = softmax(logits)
        return probabilities

    return score


def _rows_per_s(score: Scorer, texts: list[str]) -> float:
    started = time.perf_counter()
    score(texts)
    return len(texts) / (time.perf_counter() - started)


def _print_distance(name: str, found: np.ndarray, exact: np.ndarray) -> None:
    apart = np.abs(exact - found).max(axis=1)
    same = (exact.argmax(axis=1) == found.argmax(axis=1)).mean()
    print(
        f"{name} beside the pipeline's float32: probabilities differ by {np.median(apart):.1e} (median), "
        f"{np.quantile(apart, 0.99):.1e} (99 %), {apart.max():.1e} (most); same label on {same:.2%}"
    )


def _print_limit(classifier: Classifier, model: Any, texts: list[str], rows_per_s: float) -> None:
    """The necessary work (2 x weights x tokens; of the last layer, one token) as a share of a matrix product's peak."""
    layers = model.base_model.encoder.layer[:-1]
    weights = sum(m.weight.numel() for m in layers.modules() if isinstance(m, torch.nn.Linear))
    tokens = np.mean([one.cost for one in classifier.encode(texts)])
    used = rows_per_s * 2 * weights * float(tokens)
    dtype = torch.bfloat16 if classifier.precision == "bf16" else torch.float32
    a, b = (torch.randn(1024, 1024, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(20):
        started = time.perf_counter()
        torch.matmul(a, b)
        times.append(time.perf_counter() - started)
    peak = 2 * 1024**3 / statistics.median(times)
    print(
        f"matrix products: {used / 1e9:.0f} GFLOP/s of needed work; the peak of a 1024-cube product in "
        f"{classifier.precision} is {peak / 1e9:.0f} GFLOP/s ({used / peak:.0%})"
    )


if __name__ == "__main__":
    main()
