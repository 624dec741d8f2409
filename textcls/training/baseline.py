"""What a minute of classical machine learning reaches on the same rows: the number a fine-tuned model has to beat.

In: the inputs and targets of the splits, the task. Out: the task's numbers, for TF-IDF over words and pairs of words
with logistic regression (scikit-learn), one for each label where a row may have several. Not here: tuning. The settings
are standard ones, chosen by cross-validation on the training part of `rotten_tomatoes`, where neighbouring ones differ
by less than their noise.

Words are what `\\w+` finds, so on languages that are written without spaces this baseline is weak.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from textcls.settings.recipe import CalibrationSpec, TextSpec
from textcls.tasks.task import RowCounts, Task, no_counts
from textcls.text.normalizer import normalizer_of
from textcls.text.text_input import TextInput

MAX_ROWS = 200_000

# These bound memory to about 2 GB, whatever the texts and the number of labels are.
_MAX_CHARS = 50_000_000
_MAX_FEATURES = 100_000
_MAX_WEIGHTS = 5_000_000  # labels x features; the solver (L-BFGS) keeps about 25 copies
_ROWS_AT_ONCE = 10_000

WORDS_PENALTY_C = 3.0
"""C of a regression on TF-IDF."""


def train_baseline(
    train_inputs: Sequence[TextInput],
    train_targets: Sequence[Any] | np.ndarray,
    test_inputs: Sequence[TextInput],
    test_targets: Sequence[Any] | np.ndarray,
    labels: Sequence[str],
    seed: int,
    *,
    task: Task,
    val: tuple[Sequence[TextInput], Sequence[Any]] | None = None,
    spec: TextSpec | None = None,
    max_rows: int = MAX_ROWS,
) -> dict[str, Any]:
    """The task's summary of the test rows, with `rows_used`, `features` and `seconds`.

    If there are more than `max_rows` training rows or 50 million characters, an even sample by position is used. Where
    no baseline can be trained, the result is {"error": why}: it is a comparison and must not fail a finished run.

    Args:
        train_inputs: inputs of the training split.
        train_targets: [N, *T], their targets.
        test_inputs: inputs of the test split.
        test_targets: [M, *T], their targets.
        labels: label names in the order of their ids.
        seed: of scikit-learn's solver, which the present one (L-BFGS) does not need.
        task: what is predicted.
        val: inputs and targets of the validation split, to choose thresholds on as the model does. Left out: the task's
            default thresholds.
        spec: the text settings of the run; the baseline uses their normalizer. Left out: the defaults.
        max_rows: most training rows that are used.
    """
    started = time.monotonic()
    used = _even_sample(train_inputs, max_rows)
    try:
        counts, features = _train_and_score(
            [train_inputs[row] for row in used],
            np.asarray(train_targets)[used],
            test_inputs,
            np.asarray(test_targets),
            task,
            labels,
            val=val,
            seed=seed,
            spec=spec or TextSpec.model_validate({}),
        )
    except (ValueError, MemoryError) as error:
        # scikit-learn's ways to say that no word is left, that all rows have one label, that memory is short.
        return {"error": f"no baseline on {len(used)} rows: {str(error) or 'out of memory'}"}
    seconds = round(time.monotonic() - started, 2)
    return {**task.summarise(counts, labels), "rows_used": len(used), "features": features, "seconds": seconds}


def word_vectorizer(spec: TextSpec, *, rows: int, classes: int) -> Any:
    """scikit-learn's TF-IDF over words and pairs of words; takes `TextInput`s.

    Args:
        spec: text settings; their normalizer is used.
        rows: how many it will learn from.
        classes: number of label names.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    normalize = normalizer_of(spec)
    return TfidfVectorizer(
        preprocessor=lambda one: " ".join(map(normalize, one.segments)),
        token_pattern=r"\b\w+\b",
        ngram_range=(1, 2),
        sublinear_tf=True,
        # What occurs once cannot generalise and is most of the vocabulary; in little data once is all there is.
        min_df=2 if rows >= 1000 else 1,
        max_features=max(1000, min(_MAX_FEATURES, _MAX_WEIGHTS // classes)),
        dtype=np.float32,
    )


def fitted_regression(features: Any, targets: np.ndarray, *, penalty_c: float, seed: int = 0) -> Any:
    """A logistic regression, or one for each label where a row may have several, that has learned from all rows.

    Args:
        features: [N, F], dense or sparse.
        targets: from `Task.baseline_targets`.
        penalty_c: scikit-learn's C: the less, the more regularised.
        seed: of the solver, which the present one (L-BFGS) does not need.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    model = LogisticRegression(C=penalty_c, max_iter=300, random_state=seed)
    model = OneVsRestClassifier(model) if targets.ndim == 2 else model
    with warnings.catch_warnings():
        # Stopped short of full convergence, the model is as good as one with a little more regularisation.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Of several labels, one that no row or every row of the sample has.
        warnings.filterwarnings("ignore", "Label .* is present in")
        return model.fit(features, targets)


def _even_sample(inputs: Sequence[TextInput], max_rows: int) -> np.ndarray:
    """int64 [n]: row numbers spread evenly over the inputs, as many as both bounds allow."""
    rows = len(inputs)
    chars = sum(one.chars for one in inputs)
    keep = min(rows, max_rows, rows * _MAX_CHARS // max(chars, 1))
    return np.arange(keep, dtype=np.int64) * rows // max(keep, 1)


def _train_and_score(
    train_inputs: list[TextInput],
    train_targets: np.ndarray,
    test_inputs: Sequence[TextInput],
    test_targets: np.ndarray,
    task: Task,
    labels: Sequence[str],
    *,
    val: tuple[Sequence[TextInput], Sequence[Any]] | None,
    seed: int,
    spec: TextSpec,
) -> tuple[RowCounts, int]:
    """(counts of the test rows, number of features)."""
    classes, vectorizer = len(labels), word_vectorizer(spec, rows=len(train_inputs), classes=len(labels))
    features = vectorizer.fit_transform(train_inputs)
    model = fitted_regression(features, task.baseline_targets(train_targets), penalty_c=WORDS_PENALTY_C, seed=seed)

    def scored(inputs: Sequence[TextInput]) -> Iterator[tuple[slice, np.ndarray]]:
        """(rows, float [n, C] probabilities) of some rows at a time."""
        for start in range(0, len(inputs), _ROWS_AT_ONCE):
            rows = slice(start, min(start + _ROWS_AT_ONCE, len(inputs)))
            # A label the sample happened to miss has no column in the model, and probability 0.
            probabilities = np.zeros((rows.stop - rows.start, classes))
            probabilities[:, model.classes_] = model.predict_proba(vectorizer.transform(inputs[rows]))
            yield rows, probabilities

    thresholds = task.default_thresholds(classes)
    if val is not None and len(val[0]):
        found = np.sum([task.threshold_counts(p, np.asarray(val[1][rows])) for rows, p in scored(val[0])], axis=0)
        thresholds = task.choose_thresholds(found, CalibrationSpec())
    counts = no_counts(task, labels)
    for rows, probabilities in scored(test_inputs):
        counts += task.counts(probabilities, test_targets[rows], thresholds)
    return counts, features.shape[1]
