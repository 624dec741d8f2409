"""The laws of textcls/tasks/metrics.py, and its agreement with scikit-learn."""

import functools
import itertools
import json
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from textcls.reporting.task_scores import Confusion
from textcls.tasks.metrics import CONFIDENCE_BINS, MOST_PAIRS, Counts, summarise, wilson_interval

seeds = st.integers(0, 2**32 - 1)


def scored(seed: int, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of a middling classifier."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, rows)
    logits = draw.normal(size=(rows, classes)) * 2
    logits[np.arange(rows), labels] += 1
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True), labels


def names(classes: int) -> list[str]:
    return [f"label {i}" for i in range(classes)]


def assert_same(a: Counts, b: Counts) -> None:
    for whole in ("confusion", "bin_rows", "bin_correct"):
        np.testing.assert_array_equal(getattr(a, whole), getattr(b, whole))
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-12)
    np.testing.assert_allclose(a.bin_confidence, b.bin_confidence, rtol=1e-12)


@given(seeds, st.integers(0, 60), st.integers(2, 6), st.integers(1, 7))
@settings(deadline=None)
def test_counts_depend_on_neither_order_nor_partition(seed, rows, classes, parts):
    p, labels = scored(seed, rows, classes)
    order = np.random.default_rng(seed).permutation(rows)
    pieces = [Counts.of(p[piece], labels[piece]) for piece in np.array_split(order, parts)]

    assert_same(functools.reduce(operator.add, pieces), Counts.of(p, labels))
    assert_same(functools.reduce(operator.add, pieces[::-1]), Counts.of(p, labels))


@given(seeds, st.integers(0, 40), st.integers(2, 6))
@settings(deadline=None)
def test_zero_changes_nothing(seed, rows, classes):
    counts = Counts.of(*scored(seed, rows, classes))

    assert_same(counts + Counts.zero(classes), counts)


def test_counts_of_different_labels_do_not_add():
    with pytest.raises(AssertionError, match="counts of 2 and of 3 labels"):
        Counts.zero(2) + Counts.zero(3)


@given(seeds, st.integers(0, 80), st.integers(2, 8))
@settings(deadline=None)
def test_every_confusion_of_few_labels_is_in_the_summary(seed, rows, classes):
    counts = Counts.of(*scored(seed, rows, classes))
    confusion = summarise(counts, names(classes))["confusion"]
    matrix, support = Confusion.model_validate(confusion).matrix(100)
    np.testing.assert_array_equal(matrix, counts.confusion)
    np.testing.assert_array_equal(support, counts.confusion.sum(axis=1))
    assert all(rows > 0 for _, _, rows in confusion["pairs"])
    assert confusion["other_rows"] == 0


def test_a_summary_of_many_labels_grows_with_them_and_not_with_their_square(monkeypatch):
    classes, draw = 2500, np.random.default_rng(0)
    truth, predicted = np.repeat(np.arange(classes), 40), draw.integers(0, classes, 40 * classes)
    predicted[::2] = truth[::2]
    counts = functools.reduce(
        operator.add, (Counts.of(np.eye(classes)[predicted[i::100]], truth[i::100]) for i in range(100))
    )
    assert counts.rows == 100_000
    assert len(counts.pairs) < 60_000
    summary = summarise(counts, names(classes))
    confusion = summary["confusion"]
    assert len(json.dumps(summary, indent=1)) < 2_000_000  # 101 MB with all pairs
    kept = [(true, found, rows) for true, found, rows in confusion["pairs"] if true != found]
    assert len(kept) == MOST_PAIRS
    assert len(confusion["pairs"]) == MOST_PAIRS + classes
    assert sum(rows for _, _, rows in confusion["pairs"]) + confusion["other_rows"] == 100_000
    wrong = np.sort(counts.pair_rows[counts.pairs // classes != counts.pairs % classes])[::-1]
    assert [rows for _, _, rows in kept] == wrong[:MOST_PAIRS].tolist()
    matrix, support = Confusion.model_validate(confusion).matrix(600)
    assert matrix.shape == (600, 600)
    assert matrix.sum() == 100_000 - confusion["other_rows"]
    assert support.sum() == 100_000


@given(seeds, st.integers(1, 80), st.integers(2, 8))
@settings(deadline=None)
def test_the_numbers_are_those_of_scikit_learn(seed, rows, classes):
    p, labels = scored(seed, rows, classes)
    predicted, ids = p.argmax(axis=1), list(range(classes))
    summary = summarise(Counts.of(p, labels), names(classes))

    def f1(average):
        return sklearn_metrics.f1_score(labels, predicted, labels=ids, average=average, zero_division=0)

    assert summary["rows"] == rows
    assert summary["accuracy"]["value"] == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted))
    assert summary["macro_f1"] == pytest.approx(f1("macro"))
    assert summary["weighted_f1"] == pytest.approx(f1("weighted"))
    assert summary["log_loss"] == pytest.approx(sklearn_metrics.log_loss(labels, p, labels=ids))
    matrix, _ = Confusion.model_validate(summary["confusion"]).matrix(8)
    np.testing.assert_array_equal(matrix, sklearn_metrics.confusion_matrix(labels, predicted, labels=ids))
    by_class = np.array([list(summary["per_class"][name].values()) for name in names(classes)])
    expected = sklearn_metrics.precision_recall_fscore_support(labels, predicted, labels=ids, zero_division=0)
    np.testing.assert_allclose(by_class.T, [*expected, np.bincount(predicted, minlength=classes)])


@given(seeds, st.integers(1, 80), st.integers(2, 8))
@settings(deadline=None)
def test_ece_is_the_definition_taken_literally(seed, rows, classes):
    p, labels = scored(seed, rows, classes)
    error = 0.0
    for m in range(CONFIDENCE_BINS):
        inside = [row for row in range(rows) if m / CONFIDENCE_BINS < p[row].max() <= (m + 1) / CONFIDENCE_BINS]
        if inside:
            accuracy = np.mean([p[row].argmax() == labels[row] for row in inside])
            error += len(inside) / rows * abs(accuracy - np.mean([p[row].max() for row in inside]))

    assert summarise(Counts.of(p, labels), names(classes))["ece"] == pytest.approx(error)


@given(seeds, st.integers(1, 80), st.integers(2, 8))
@settings(deadline=None)
def test_the_reliability_bins_hold_every_row_and_give_the_ece(seed, rows, classes):
    summary = summarise(Counts.of(*scored(seed, rows, classes)), names(classes))
    bins = summary["reliability"]

    assert sum(b["rows"] for b in bins) == rows
    assert all(b["low"] < b["confidence"] <= b["high"] + 1e-12 for b in bins)
    ece = sum(b["rows"] * abs(b["accuracy"] - b["confidence"]) for b in bins) / rows
    assert summary["ece"] == pytest.approx(ece)


@given(seeds, st.integers(1, 80), st.integers(2, 6), st.floats(0, 1))
@settings(deadline=None)
def test_rows_are_answered_from_the_threshold_on(seed, rows, classes, threshold):
    p, labels = scored(seed, rows, classes)
    sure = p.max(axis=1) >= threshold
    answered = summarise(Counts.of(p, labels, threshold=threshold), names(classes))["answered"]

    assert answered["rows"] == sure.sum()
    assert answered["coverage"] == pytest.approx(sure.mean())
    assert answered["accuracy"] == (pytest.approx((p.argmax(axis=1) == labels)[sure].mean()) if sure.any() else None)


@given(seeds, st.integers(1, 80), st.integers(2, 6))
@settings(deadline=None)
def test_coverage_falls_from_all_rows_and_starts_at_the_accuracy(seed, rows, classes):
    p, labels = scored(seed, rows, classes)
    summary = summarise(Counts.of(p, labels), names(classes))
    shares = [point["coverage"] for point in summary["coverage"]]

    assert shares[0] == 1
    assert summary["coverage"][0]["accuracy"] == pytest.approx(summary["accuracy"]["value"])
    assert all(a > b > 0 for a, b in itertools.pairwise(shares))
    for point in summary["coverage"]:
        sure = p.max(axis=1) > point["confidence"]
        assert point["coverage"] == pytest.approx(sure.mean())


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_the_published_ones(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 1000), st.integers(0, 1000))
@settings(deadline=None)
def test_a_wilson_interval_holds_its_share_and_mirrors(successes, failures):
    trials = successes + failures
    low, high = wilson_interval(successes, trials)

    assert 0 <= low <= high <= 1
    assert wilson_interval(failures, trials) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    if trials:
        assert low <= successes / trials <= high


def test_of_equally_probable_labels_the_smallest_id_is_predicted():
    counts = Counts.of(np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]]), np.array([1, 1]))

    assert counts.confusion[1].tolist() == [1, 1, 0]


def test_one_row_is_enough():
    summary = summarise(Counts.of(np.array([[0.25, 0.75]]), np.array([1])), ["no", "yes"])

    assert summary["accuracy"]["value"] == 1.0
    assert summary["accuracy"]["low"] < 0.25
    assert summary["per_class"]["no"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0, "predicted": 0}
    assert summary["macro_f1"] == 0.5
    assert summary["ece"] == pytest.approx(0.25)


def test_all_wrong_and_certain_is_finite():
    summary = summarise(Counts.of(np.array([[1.0, 0.0]] * 4), np.array([1] * 4)), ["no", "yes"])

    assert (summary["accuracy"]["value"], summary["macro_f1"], summary["weighted_f1"], summary["ece"]) == (0, 0, 0, 1)
    assert summary["log_loss"] == pytest.approx(-np.log(1e-12))


def test_no_rows_give_no_numbers_rather_than_wrong_ones():
    summary = summarise(Counts.zero(2), ["no", "yes"])

    assert summary["rows"] == 0
    assert summary["accuracy"] == {"value": None, "low": 0.0, "high": 1.0}
    assert summary["log_loss"] is summary["ece"] is None
    assert summary["reliability"] == []


@given(seeds, st.integers(0, 20), st.integers(2, 5))
@settings(deadline=None)
def test_a_summary_survives_strict_json(seed, rows, classes):
    summary = summarise(Counts.of(*scored(seed, rows, classes)), names(classes))

    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


@pytest.mark.parametrize("bad", [[np.nan, np.nan], [np.inf, 0.0], [-0.5, 1.5], [0.2, 0.2], [3.0, 1.0]])
def test_numbers_that_are_no_probabilities_are_refused(bad):
    with pytest.raises(ValueError, match=r"1 of 2 rows are not probabilities .* row 1"):
        Counts.of(np.array([[0.5, 0.5], bad]), np.array([0, 1]))


@pytest.mark.parametrize("labels", [[-1, 0], [0, 2]])
def test_label_ids_without_a_column_are_refused(labels):
    with pytest.raises(ValueError, match="where 0 to 1 are possible"):
        Counts.of(np.array([[0.5, 0.5], [0.9, 0.1]]), np.array(labels))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="are not"):
        Counts.of(np.array([[0.5, 0.5]]), np.array([0, 1]))


def test_float32_rounding_is_no_reason_to_refuse():
    p, labels = scored(1, 500, 7)

    assert Counts.of(p.astype(np.float32), labels).rows == 500
    assert Counts.of(np.array([[1.0000001, 0.0]]), np.array([0])).bin_rows[-1] == 1
