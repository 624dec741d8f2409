"""The task of several labels a row: cells, sets, answers, counts that add up, and scikit-learn's numbers."""

import functools
import json
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    hamming_loss,
    label_ranking_average_precision_score,
    log_loss,
    precision_recall_fscore_support,
)

from textcls.settings.data import DataSpec
from textcls.settings.recipe import CalibrationSpec
from textcls.tasks.calibration import TEMPERATURES, best_temperature
from textcls.tasks.labels import ABSTAIN
from textcls.tasks.multi_label import MULTI_LABEL, NO_LABEL
from textcls.tasks.multi_label_metrics import binned, bins_of
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.tasks.task import no_counts
from textcls.tasks.thresholds import best_f1

NAMES = ("billing", "refund", "shipping")
seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, rows: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and targets drawn from their probabilities."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(-1, 2, size=(rows, classes))
    return logits, (draw.random((rows, classes)) < 1 / (1 + np.exp(-logits))).astype(np.float32)


def read(cell: str, **settings: object) -> tuple[str, str]:
    data = DataSpec.model_validate({"labels_in": "cell"} | settings)
    return MULTI_LABEL.label_reader(data)((cell,))[:2]


@pytest.mark.parametrize(
    ("cell", "delimiter", "names"),
    [
        ("a;b;c", ";", ["a", "b", "c"]),
        ("a, b ,a", ",", ["a", "b"]),
        ('["b","a"]', ",", ["a", "b"]),
        ("['b', 'a']", ";", ["a", "b"]),
        ("[3, 14]", ",", ["14", "3"]),
        ("{'b', 'a'}", ",", ["a", "b"]),
        ("[]", ",", []),
        ("", ",", []),
        (" , ", ",", []),
        ("a  b", " ", ["a", "b"]),
        ("[x] y", ",", ["[x] y"]),
        ("a || b", "||", ["a", "b"]),
        ('{"a": 1}', "|", ['{"a": 1}']),
        ("说明;退款", ";", ["说明", "退款"]),
    ],
)
def test_a_cell_is_a_set_of_names(cell: str, delimiter: str, names: list[str]) -> None:
    label, reason = read(cell, label_delimiter=delimiter)
    assert (list(MULTI_LABEL.names_in(label)), reason) == (names, "")


def test_equal_sets_have_one_spelling() -> None:
    assert read("a,b") == read("b, a,b") == read('["b", "a"]')


def test_each_name_is_mapped_and_must_be_known() -> None:
    settings = {"label_map": {"money": "billing"}, "labels": NAMES}
    assert json.loads(read("refund,money", **settings)[0]) == ["billing", "refund"]
    assert read("refund,other", **settings)[1] == "unknown_label"


@pytest.mark.parametrize(
    ("cells", "names", "reason", "place"),
    [
        (("1", "0", "true"), ["billing", "shipping"], "", 0),
        (("0", "no", "FALSE"), [], "", 0),
        (("1.0", "0.0", " yes "), ["billing", "shipping"], "", 0),
        (("1", "0", ""), None, "missing_label", 2),
        (("1", "-1", "0"), None, "not_yes_or_no", 1),
    ],
)
def test_a_column_says_yes_or_no(cells: tuple[str, ...], names: list[str] | None, reason: str, place: int) -> None:
    found = MULTI_LABEL.label_reader(DataSpec.model_validate({"label_columns": NAMES}))(cells)
    assert (found.reason, found.place) == (reason, place)
    assert names is None or list(MULTI_LABEL.names_in(found.label)) == names


def test_columns_with_exactly_one_yes_are_single_labels() -> None:
    reader = SINGLE_LABEL.label_reader(DataSpec.model_validate({"label_columns": NAMES, "task": "single_label"}))
    found = [reader(cells)[:2] for cells in (("0", "1", "0"), ("0", "0", "0"), ("1", "1", "0"))]
    assert found == [("refund", ""), ("", "missing_label"), ("", "several_labels")]


def test_a_union_holds_every_name_of_both() -> None:
    assert MULTI_LABEL.merge([read("a,b")[0], read("b,c")[0], read("")[0]]) == read("a,b,c")[0]


def test_targets_and_probabilities() -> None:
    targets = MULTI_LABEL.encode([read("refund,billing")[0], read("")[0]], NAMES)
    assert (targets.dtype, targets.tolist()) == (np.float32, [[1, 1, 0], [0, 0, 0]])
    assert MULTI_LABEL.label_rows(targets, 3).tolist() == [1, 1, 0]
    p = MULTI_LABEL.probabilities(np.array([[-1e4, 0.0, 1e4]], np.float32))
    np.testing.assert_allclose(p, [[0, 0.5, 1]], atol=1e-300)


@given(seeds, st.integers(1, 30), st.floats(0.05, 0.95), st.floats(0, 1))
def test_a_label_is_given_from_its_threshold_on(seed: int, rows: int, threshold: float, none_below: float) -> None:
    p = MULTI_LABEL.probabilities(drawn(seed, rows)[0])
    thresholds = np.array([threshold, 0.5, 0.9, none_below])
    decisions = MULTI_LABEL.decide(p, thresholds)
    cells, abstained = MULTI_LABEL.answer_cells(p, decisions, NAMES)
    for row in range(rows):
        given = [name for name, score, least in zip(NAMES, p[row], thresholds, strict=False) if score >= least]
        answer = MULTI_LABEL.answer(p[row], decisions[row], NAMES, 2)
        assert sorted(answer["labels"]) == given == json.loads(cells[row])
        assert [p[row, NAMES.index(name)] for name in answer["labels"]] == sorted(
            (p[row, NAMES.index(name)] for name in given), reverse=True
        )
        assert (
            answer["abstained"] == abstained[row] == (not given and not (p[row] < none_below).all() and none_below < 1)
        )
        assert len(answer["scores"]) == 2
        words = ABSTAIN if abstained[row] else ", ".join(given) or NO_LABEL
        assert MULTI_LABEL.words(decisions[row], NAMES) == words
    assert sum(MULTI_LABEL.answer_rows(decisions, NAMES).values()) == max(
        rows, int(decisions.sum()) + int((~decisions.any(axis=1)).sum())
    )


def test_no_label_is_an_answer_and_a_row_without_scores_is_not() -> None:
    p = np.array([[0.1, 0.1, 0.1], [np.nan] * 3], np.float32)
    decisions = MULTI_LABEL.decide(p, MULTI_LABEL.default_thresholds(3))
    assert [MULTI_LABEL.words(decision, NAMES) for decision in decisions] == [NO_LABEL, ABSTAIN]


def test_a_name_that_holds_a_comma_does_not_read_as_two() -> None:
    names = ["a, b", "b", 'the "c"']
    assert MULTI_LABEL.words(np.array([True, True, False, False]), names) == '"a, b", b'
    assert MULTI_LABEL.words(np.array([False, True, True, False]), names) == 'b, "the \\"c\\""'


@given(seeds, st.integers(1, 80), st.integers(2, 6))
@settings(max_examples=20)
def test_the_summary_is_scikit_learn_s(seed: int, rows: int, classes: int) -> None:
    logits, targets = drawn(seed, rows, classes)
    p, names = MULTI_LABEL.probabilities(logits), [f"label {i}" for i in range(classes)]
    thresholds = np.append(np.random.default_rng(seed).uniform(0.1, 0.9, classes), 1.0)
    found = MULTI_LABEL.summarise(MULTI_LABEL.counts(p, targets, thresholds), names)
    truth, given, bins = targets > 0.5, p >= thresholds[:-1], bins_of(p)
    per_class = precision_recall_fscore_support(truth, given, zero_division=0)
    for i, one in enumerate(found["per_class"].values()):
        expected = [column[i] for column in per_class]
        np.testing.assert_allclose([one[key] for key in ("precision", "recall", "f1", "support")], expected)
        if truth[:, i].any():
            assert one["ap"] == pytest.approx(average_precision_score(truth[:, i], bins[:, i]))
    has_rows = truth.any(axis=0)
    assert found["macro_labels"] == has_rows.sum()
    if has_rows.any():
        assert found["macro_f1"] == pytest.approx(per_class[2][has_rows].mean())
    assert found["micro_f1"] == pytest.approx(f1_score(truth, given, average="micro", zero_division=0))
    assert found["hamming_loss"] == pytest.approx(hamming_loss(truth, given))
    assert found["subset_accuracy"]["value"] == pytest.approx((truth == given).all(axis=1).mean())
    assert found["log_loss"] == pytest.approx(
        log_loss(truth.ravel(), np.clip(p.ravel(), 1e-12, 1), labels=[False, True]), abs=1e-6
    )
    if (some := truth.any(axis=1)).any():
        assert found["lrap"] == pytest.approx(label_ranking_average_precision_score(truth[some], p[some]))
    together = {(i, j): (both, also) for i, j, both, also in found["co_occurrence"]["pairs"]}
    for i in range(classes):
        for j in range(i + 1, classes):
            both = int((truth[:, i] & truth[:, j]).sum()), int((given[:, i] & given[:, j]).sum())
            assert together.get((i, j), (0, 0)) == both


def test_labels_without_rows_are_left_out_of_the_macro_average_and_counted() -> None:
    found = MULTI_LABEL.summarise(MULTI_LABEL.counts(np.full((4, 3), 0.9), np.array([[1, 0, 0]] * 4)), NAMES)
    assert (found["macro_f1"], found["macro_labels"], found["per_class"]["refund"]["ap"]) == (1.0, 1, None)


def test_a_report_of_rows_without_any_label_has_no_macro_average() -> None:
    found = MULTI_LABEL.summarise(MULTI_LABEL.counts(np.full((4, 3), 0.1), np.zeros((4, 3))), NAMES)
    assert (found["macro_f1"], found["map"], found["lrap"], found["subset_accuracy"]["value"]) == (
        None,
        None,
        None,
        1.0,
    )
    assert MULTI_LABEL.headline(found)["macro_f1"] == 0.0


@given(seeds, st.integers(1, 40), st.integers(1, 4))
def test_counts_of_parts_add_up_to_those_of_the_whole(seed: int, rows: int, parts: int) -> None:
    logits, targets = drawn(seed, rows)
    p = MULTI_LABEL.probabilities(logits)
    pieces = [MULTI_LABEL.counts(p[i::parts], targets[i::parts]) for i in range(parts)]
    summed = functools.reduce(operator.add, pieces, no_counts(MULTI_LABEL, NAMES))
    one, other = (MULTI_LABEL.summarise(counts, NAMES) for counts in (summed, MULTI_LABEL.counts(p, targets)))
    exact = (
        "rows",
        "micro_f1",
        "macro_f1",
        "hamming_loss",
        "map",
        "co_occurrence",
        "per_class",
        "no_label",
        "answered",
    )
    assert {key: one[key] for key in exact} == {key: other[key] for key in exact}
    assert one["lrap"] == (None if other["lrap"] is None else pytest.approx(other["lrap"]))


def test_probabilities_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="no longer finite"):
        MULTI_LABEL.counts(np.full((2, 3), np.nan), np.zeros((2, 3)))


# --- calibration ------------------------------------------------------------------------------------------------------


def test_each_label_gets_the_temperature_that_was_put_in_and_rare_ones_that_of_all() -> None:
    draw = np.random.default_rng(0)
    true = draw.normal(size=(40_000, 3)) * 2
    targets = (draw.random(true.shape) < 1 / (1 + np.exp(-true))).astype(np.float32)
    logits = true * np.array([0.5, 2.0, 3.0])
    losses = np.stack([MULTI_LABEL.log_losses(MULTI_LABEL.probabilities(logits / t), targets) for t in TEMPERATURES])
    np.testing.assert_allclose(MULTI_LABEL.temperatures(losses, np.array([99, 99, 99])), [0.5, 2, 3], rtol=0.05)
    few = MULTI_LABEL.temperatures(losses, np.array([99, 19, 5]))
    assert few[0] == pytest.approx(0.5, rel=0.05)
    assert few[1] == few[2] != pytest.approx(2, rel=0.05)


def test_a_label_whose_rows_are_perfectly_separated_gets_the_temperature_of_all() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(4000, 3)) * 2
    targets = (draw.random(logits.shape) < 1 / (1 + np.exp(-logits / 2))).astype(np.float32)
    targets[:, 1] = logits[:, 1] > 0  # each lower temperature is better still
    losses = np.stack([MULTI_LABEL.log_losses(MULTI_LABEL.probabilities(logits / t), targets) for t in TEMPERATURES])
    found = MULTI_LABEL.temperatures(losses, np.array([99, 99, 99]))
    np.testing.assert_allclose(found[[0, 2]], 2, rtol=0.15)
    assert found[1] == best_temperature(losses.sum(axis=1)) > 0.5


def chosen(p: np.ndarray, targets: np.ndarray, min_precision: float | None = None) -> np.ndarray:
    spec = CalibrationSpec.model_validate({"min_precision": min_precision})
    return MULTI_LABEL.choose_thresholds(MULTI_LABEL.threshold_counts(p, targets), spec)


@given(seeds, st.integers(200, 400))
@settings(max_examples=20)
def test_the_threshold_of_a_label_has_the_best_f1(seed: int, rows: int) -> None:
    logits, targets = drawn(seed, rows)
    p = MULTI_LABEL.probabilities(logits)
    thresholds = chosen(p, targets)
    assert thresholds[-1] == 1

    def f1(i: int, least: np.ndarray) -> np.ndarray:
        given = p[:, i] >= least[:, None]
        return 2 * (given & (targets[:, i] > 0)).sum(axis=1) / (given.sum(axis=1) + targets[:, i].sum())

    for i in np.flatnonzero(targets.sum(axis=0) >= 20):
        assert f1(i, thresholds[[i]]) >= f1(i, p[:, i]).max() - 0.02  # scores in bins


def test_a_label_with_few_rows_has_the_threshold_of_all_labels() -> None:
    logits, targets = drawn(3, 400)
    p = MULTI_LABEL.probabilities(logits)
    targets[:, 2] = 0
    targets[:19, 2] = 1
    together = best_f1(binned(p, targets > 0).sum(axis=1, keepdims=True))
    assert chosen(p, targets)[2] == together[0]
    targets[19, 2] = 1
    assert chosen(p, targets)[2] == best_f1(binned(p[:, 2:], targets[:, 2:] > 0))[0] != together[0]


@given(seeds, st.floats(0.3, 0.97))
@settings(max_examples=20)
def test_labels_and_no_label_are_right_as_often_as_wanted(seed: int, wanted: float) -> None:
    logits, targets = drawn(seed, 500)
    p = MULTI_LABEL.probabilities(logits)
    thresholds = chosen(p, targets, wanted)
    for i in range(3):
        given = p[:, i] >= thresholds[i]
        assert not given.any() or targets[given, i].mean() >= wanted
    none = (p < thresholds[-1]).all(axis=1)
    assert not none.any() or (targets[none].sum(axis=1) == 0).mean() >= wanted


@given(seeds, st.integers(20, 200))
@settings(max_examples=20)
def test_at_best_thresholds_f1_is_that_of_the_thresholds(seed: int, rows: int) -> None:
    logits, targets = drawn(seed, rows)
    p = MULTI_LABEL.probabilities(logits)
    counts = MULTI_LABEL.at_best_thresholds(MULTI_LABEL.counts(p, targets))
    found = MULTI_LABEL.summarise(counts, NAMES)
    given = p >= np.array([one["threshold"] for one in found["per_class"].values()])
    assert found["micro_f1"] == pytest.approx(f1_score(targets, given, average="micro", zero_division=0))
