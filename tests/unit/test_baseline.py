"""What the baseline of textcls/training/baseline.py promises."""

from collections.abc import Sequence

import numpy as np
import pytest

from textcls.settings.recipe import TextSpec
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.text_input import TextInput
from textcls.training import baseline
from textcls.training.baseline import train_baseline

LABELS = ("bad", "good")


def inputs_of(texts: Sequence[str]) -> list[TextInput]:
    return [TextInput(text) for text in texts]


def reviews(rows: int, seed: int = 0) -> tuple[list[TextInput], list[int]]:
    """Inputs whose label shows in one word among many."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, rows)
    telling = [["awful", "dull", "tedious"], ["lovely", "bright", "moving"]]
    filler = ["film", "plot", "actor", "scene", "the", "a", "with", "music", "story", "ending"]
    texts = [" ".join([*draw.choice(filler, 6), draw.choice(telling[label]), draw.choice(filler)]) for label in labels]
    return inputs_of(texts), labels.tolist()


def test_it_learns_what_words_tell_and_says_what_it_took():
    texts, labels = reviews(400)
    result = train_baseline(*reviews(1200, seed=1), texts, labels, LABELS, seed=42, task=SINGLE_LABEL)

    assert result["rows"] == 400
    assert result["accuracy"]["value"] > 0.99
    assert result["rows_used"] == 1200
    assert result["features"] > 10
    assert result["seconds"] >= 0


def test_the_same_rows_give_the_same_numbers():
    def train():
        result = train_baseline(*reviews(300, seed=1), *reviews(100), LABELS, seed=42, task=SINGLE_LABEL)
        return {key: value for key, value in result.items() if key != "seconds"}

    assert train() == train()


def test_no_more_rows_than_allowed_are_used_and_they_come_from_everywhere():
    # The second half is labelled the other way round: only a sample of both halves is at a loss.
    texts, labels = reviews(2000, seed=1)
    labels = [label if row < 1000 else 1 - label for row, label in enumerate(labels)]
    result = train_baseline(texts, labels, *reviews(300), LABELS, seed=42, task=SINGLE_LABEL, max_rows=500)

    assert result["rows_used"] == 500
    assert 0.2 < result["accuracy"]["value"] < 0.8


def test_long_texts_are_sampled_down_to_the_bound_on_characters(monkeypatch):
    texts, labels = reviews(400, seed=1)
    monkeypatch.setattr(baseline, "_MAX_CHARS", -(-sum(one.chars for one in texts) // 4))
    result = train_baseline(texts, labels, *reviews(50), LABELS, seed=42, task=SINGLE_LABEL)

    assert result["rows_used"] == 100


def test_scoring_in_pieces_gives_the_same_numbers(monkeypatch):
    def train():
        result = train_baseline(*reviews(300, seed=1), *reviews(100), LABELS, seed=42, task=SINGLE_LABEL)
        return {key: value for key, value in result.items() if key not in ("seconds", "log_loss", "ece", "reliability")}

    whole = train()
    monkeypatch.setattr(baseline, "_ROWS_AT_ONCE", 7)
    assert train() == whole


def test_a_label_without_training_rows_is_never_predicted():
    texts, labels = reviews(300, seed=1)
    result = train_baseline(
        texts,
        [2 * label for label in labels],
        inputs_of(["lovely film"]),
        [1],
        ("a", "b", "c"),
        seed=42,
        task=SINGLE_LABEL,
    )

    assert result["confusion"]["pairs"] == [[1, 2, 1]]
    assert result["per_class"]["b"]["recall"] == 0


def test_case_counts_only_if_the_run_says_so():
    texts, labels = inputs_of(["GOOD", "good"] * 40), [1, 0] * 40

    def accuracy(lowercase: bool) -> float:
        spec = TextSpec(lowercase=lowercase)
        result = train_baseline(texts, labels, texts, labels, LABELS, seed=42, task=SINGLE_LABEL, spec=spec)
        return result["accuracy"]["value"]

    assert accuracy(lowercase=False) == 1.0
    assert accuracy(lowercase=True) == 0.5


@pytest.mark.parametrize(
    ("texts", "labels"),
    [(["!!!", "?"] * 20, [0, 1] * 20), (["a film", "a plot"] * 20, [1, 1] * 20), ([], [])],
    ids=["no words", "one label", "no rows"],
)
def test_where_no_baseline_can_be_trained_it_says_why(texts, labels):
    result = train_baseline(inputs_of(texts), labels, inputs_of(["a film"]), [0], LABELS, seed=42, task=SINGLE_LABEL)

    assert list(result) == ["error"]
    assert f"no baseline on {len(texts)} rows: " in result["error"]


def test_words_of_one_letter_are_words():
    found = train_baseline(
        inputs_of(["a", "b"] * 20), [0, 1] * 20, inputs_of(["a"]), [0], LABELS, seed=42, task=SINGLE_LABEL
    )
    assert "error" not in found
