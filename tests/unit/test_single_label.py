"""The laws of textcls/tasks/single_label.py, and that each piece of the protocol fits the next."""

import functools
import operator
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcls.settings.data import DataSpec
from textcls.tasks.labels import ABSTAIN
from textcls.tasks.registry import known_names, register, task_named
from textcls.tasks.single_label import SINGLE_LABEL, SingleLabel
from textcls.tasks.task import no_counts, selection_score

NAMES = ("bad", "good", "so so")
ROWS = st.lists(st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=3), max_size=30)


@given(ROWS)
def test_probabilities_are_those_of_torch_in_float64(rows: list[list[float]]) -> None:
    import torch

    logits = np.array(rows, np.float32).reshape(-1, 3)
    expected = torch.from_numpy(logits).double().softmax(-1).numpy()
    np.testing.assert_allclose(SINGLE_LABEL.probabilities(logits), expected, rtol=1e-12)


@given(ROWS, st.floats(0, 1))
def test_an_answer_is_the_most_probable_label_or_to_abstain(rows: list[list[float]], threshold: float) -> None:
    p = SINGLE_LABEL.probabilities(np.array(rows, np.float32).reshape(-1, 3))
    decisions = SINGLE_LABEL.decide(p, np.array([threshold]))
    words, confidence = SINGLE_LABEL.answer_cells(p, decisions, NAMES)
    assert (decisions.dtype, decisions.shape, confidence.shape) == (np.int32, (len(rows),), (len(rows),))
    for row, best in enumerate(p.argmax(axis=1)):
        expected = NAMES[best] if p[row, best] >= threshold else ABSTAIN
        answer = SINGLE_LABEL.answer(p[row], decisions[row], NAMES, 2)
        assert SINGLE_LABEL.words(decisions[row], NAMES) == words[row] == answer["label"] == expected
        assert answer["score"] == confidence[row] == answer["scores"][0]["score"] == p[row].max()
        assert len(answer["scores"]) == 2
    np.testing.assert_array_equal(SINGLE_LABEL.abstained(decisions), words == ABSTAIN)
    assert SINGLE_LABEL.answer_rows(decisions, NAMES) == {word: list(words).count(word) for word in set(words)}


def test_a_confidence_equal_to_the_threshold_is_answered() -> None:
    p = np.array([[0.0, 0.25, 0.75]])
    assert SINGLE_LABEL.words(SINGLE_LABEL.decide(p, np.array([0.75]))[0], NAMES) == "so so"
    assert SINGLE_LABEL.counts(p, np.array([2]), np.array([0.75])).answered == 1


def test_a_row_without_scores_is_never_answered() -> None:
    nothing = np.full((1, 3), np.nan, np.float32)
    assert SINGLE_LABEL.abstained(SINGLE_LABEL.decide(nothing, SINGLE_LABEL.default_thresholds(3))).all()


def test_cells_become_labels_and_labels_become_ids() -> None:
    data = DataSpec(label_map={"+": "good"}, labels=("good", "bad"))
    read = SINGLE_LABEL.label_reader(data)
    assert [read((cell,))[:2] for cell in ("+", "bad", "", "so so")] == [
        ("good", ""),
        ("bad", ""),
        ("", "missing_label"),
        ("so so", "unknown_label"),
    ]
    targets = SINGLE_LABEL.encode(("good", "bad", "good"), ("good", "bad"))
    assert (targets.dtype, targets.tolist()) == (np.int32, [0, 1, 0])
    assert SINGLE_LABEL.baseline_targets(targets).tolist() == [0, 1, 0]
    assert SINGLE_LABEL.label_rows(targets, 3).tolist() == [2, 1, 0]
    assert SINGLE_LABEL.names_in("a,b") == ("a,b",)


@given(ROWS, st.integers(1, 4))
def test_counts_of_parts_add_up_to_those_of_the_whole(rows: list[list[float]], parts: int) -> None:
    p = SINGLE_LABEL.probabilities(np.array(rows, np.float32).reshape(-1, 3))
    targets = np.arange(len(rows), dtype=np.int32) % 3
    pieces = [SINGLE_LABEL.counts(p[i::parts], targets[i::parts]) for i in range(parts)]
    summed = functools.reduce(operator.add, pieces, no_counts(SINGLE_LABEL, NAMES))
    whole = SINGLE_LABEL.counts(p, targets)
    assert summed.rows == whole.rows == len(rows)
    assert SINGLE_LABEL.summarise(summed, NAMES)["macro_f1"] == SINGLE_LABEL.summarise(whole, NAMES)["macro_f1"]


def test_the_headline_holds_what_may_choose_a_checkpoint_and_a_lower_loss_is_better() -> None:
    p = np.array([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1]])
    headline = SINGLE_LABEL.headline(SINGLE_LABEL.summarise(SINGLE_LABEL.counts(p, np.array([0, 1])), NAMES))
    assert [*SINGLE_LABEL.headline_metrics, "ece"] == list(headline)
    assert selection_score(SINGLE_LABEL, headline, "accuracy") == 1.0
    assert selection_score(SINGLE_LABEL, headline, "loss") == -headline["loss"]


def test_a_task_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textcls.tasks.registry._TASKS", {"single_label": SINGLE_LABEL})
    assert task_named("single_label") is SINGLE_LABEL
    assert task_named("other") is None
    register(SingleLabel(name="other"))
    assert task_named("other") == SingleLabel(name="other")
    assert known_names() == ["other", "single_label"]


def test_a_task_travels_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(SINGLE_LABEL)) == SINGLE_LABEL  # as Ray carries it
