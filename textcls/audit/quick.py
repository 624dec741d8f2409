"""Embeddings of a frozen encoder -> out-of-sample probabilities by logistic regression: an audit without fine-tuning.

In: an embedding, a target and a fold for each row. Out: probabilities of models that have not seen the row. Pure numpy
and scikit-learn; seconds to minutes on a CPU. Not here: embeddings (inference/embeddings.py), ranking (ranking.py).
"""

import warnings

import numpy as np

from textcls.tasks.task import Task

# The strength of the penalty; on rotten_tomatoes with 10 % wrong labels 0.01 to 0.3 differ by less than a point.
_PENALTY_C = 0.1


def quick_probabilities(
    embeddings: np.ndarray, targets: np.ndarray, folds: np.ndarray, task: Task, classes: int
) -> np.ndarray:
    """float64 [N, C]: the probabilities of each row by a regression on the rows of all other folds.

    Args:
        embeddings: float32 [N, H].
        targets: [N, *T], as the task encodes them.
        folds: int [N], the fold of each row; a row of a negative fold is in none: it is always learned from, and its
            probabilities are NaN.
        task: what is predicted.
        classes: number of label names.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import StandardScaler

    learned = task.baseline_targets(targets)
    probabilities = np.full((len(targets), classes), np.nan)
    for fold in np.unique(folds[folds >= 0]).tolist():
        inside = folds == fold
        scaler = StandardScaler().fit(embeddings[~inside])
        model = LogisticRegression(C=_PENALTY_C, max_iter=300)
        model = OneVsRestClassifier(model) if learned.ndim == 2 else model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            # Of several labels, one that no row or every row outside the fold has.
            warnings.filterwarnings("ignore", "Label .* is present in")
            model.fit(scaler.transform(embeddings[~inside]), learned[~inside])
        found = np.zeros((int(inside.sum()), classes))
        found[:, model.classes_] = model.predict_proba(scaler.transform(embeddings[inside]))
        probabilities[inside] = found
    return probabilities
