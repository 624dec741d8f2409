"""Texts and embeddings of a frozen encoder -> out-of-sample probabilities by logistic regression, without fine-tuning.

In: for each row features, a target and a fold. Out: probabilities of models that have not seen the row. Pure numpy and
scikit-learn; seconds to minutes on a CPU. Not here: embeddings (inference/embeddings.py), ranking (ranking.py).

The quick mode takes the mean of two regressions, on embeddings and on words (TF-IDF): in 6,000 short reviews with 10 %
wrong labels, 51 % of the first tenth are wrong; by either alone it is 45 %. With training runs the one on words is
averaged with the fine-tuned model, which makes other mistakes: jobs/bench/README.md has figures.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from textcls.tasks.task import Task
from textcls.training.baseline import WORDS_PENALTY_C, fitted_regression

# On embeddings with a variance of 1; 0.01 to 1 rank these reviews worse by 1 to 4 points.
EMBEDDINGS_PENALTY_C = 0.003


def regression_probabilities(
    embeddings: np.ndarray | None,
    words: Any | None,
    targets: np.ndarray,
    folds: np.ndarray,
    task: Task,
    classes: int,
    on_fold: Callable[[int], None] = lambda number: None,
) -> np.ndarray:
    """float64 [N, C]: the probabilities of each row by regressions on the rows of all other folds.

    Args:
        embeddings: float32 [N, H]; None: words alone.
        words: sparse [N, F], TF-IDF of the texts; None: embeddings alone.
        targets: [N, *T], as the task encodes them.
        folds: int [N], the fold of each row.
        task: what is predicted.
        classes: number of label names.
        on_fold: is called with each fold whose rows have their probabilities.
    """
    from sklearn.preprocessing import StandardScaler

    learned = task.baseline_targets(targets)
    probabilities = np.zeros((len(targets), classes))
    for fold in np.unique(folds).tolist():
        inside = np.flatnonzero(folds == fold)
        others = np.flatnonzero(folds != fold)
        found = []
        if embeddings is not None:
            scaled = StandardScaler().fit(embeddings[others]).transform(embeddings)
            found.append(_of_fold(scaled, learned, others, inside, EMBEDDINGS_PENALTY_C, classes))
        if words is not None:
            found.append(_of_fold(words, learned, others, inside, WORDS_PENALTY_C, classes))
        probabilities[inside] = np.mean(found, axis=0)
        on_fold(fold)
    return probabilities


def _of_fold(
    features: Any, learned: np.ndarray, others: np.ndarray, inside: np.ndarray, penalty_c: float, classes: int
) -> np.ndarray:
    model = fitted_regression(features[others], learned[others], penalty_c=penalty_c)
    # A label that the others happen to miss has no column in the model, and probability 0.
    found = np.zeros((len(inside), classes))
    found[:, _classes_of(model)] = model.predict_proba(features[inside])
    return found


def _classes_of(model: Any) -> Sequence[int]:
    return [int(one) for one in model.classes_]
