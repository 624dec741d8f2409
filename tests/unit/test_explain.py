"""Explanations: the effect of each word of the user's own text on the logit that the classifier gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import save_tiny_bundle
from textcls.errors import InputError
from textcls.inference import explain as explain_module
from textcls.inference import integrated_gradients
from textcls.inference.classifier import Classifier
from textcls.inference.encoding import ItemError
from textcls.inference.explain import Explanation, Word, explain, merged
from textcls.inference.located import Located, locate
from textcls.tasks.multi_label import MULTI_LABEL
from textcls.text.text_input import TextInput

TEXT = "The film was AWFUL, a café boring!"
LONG = " ".join(f"{word} {i}" for i in range(30) for word in ("film", "great"))


@pytest.fixture(scope="module")
def load(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Classifier]:
    """Classifiers that are far from indifferent to words."""
    import torch

    def change(model: Any) -> None:
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
            model.classifier.weight *= 20

    def loaded(name: str, **settings: Any) -> Classifier:
        bundle = tmp_path_factory.mktemp("vivid") / name
        return Classifier.load(str(save_tiny_bundle(tiny_model_dir, bundle, change=change, **settings)), threads=1)

    return loaded


@pytest.fixture(scope="module")
def classifier(load: Callable[..., Classifier]) -> Classifier:
    return load("one")


@pytest.fixture(scope="module")
def of_pairs(load: Callable[..., Classifier]) -> Classifier:
    return load("pairs", pairs=True)


@pytest.fixture(scope="module")
def several(load: Callable[..., Classifier]) -> Classifier:
    return load("several", task=MULTI_LABEL)


@pytest.fixture(scope="module")
def windowed(load: Callable[..., Classifier]) -> Classifier:
    return load("windowed", on_long="windows")


METHODS = ("leave_one_out", "integrated_gradients")


def explained(classifier: Classifier, one: str | TextInput, **named: Any) -> list[Explanation]:
    (found,) = explain(classifier, [one], **named)
    assert not isinstance(found, ItemError), found
    return found


def located(classifier: Classifier, one: str | TextInput) -> Located:
    (found,) = locate(classifier, [one])
    assert isinstance(found, Located)
    return found


INPUTS: dict[str, Callable[[pytest.FixtureRequest], tuple[Classifier, str | TextInput]]] = {
    "one text": lambda request: (request.getfixturevalue("classifier"), TEXT),
    "a text that is cut": lambda request: (request.getfixturevalue("classifier"), LONG),
    "a text with windows": lambda request: (request.getfixturevalue("windowed"), LONG),
    "several labels": lambda request: (request.getfixturevalue("several"), TEXT),
    "a pair": lambda request: (request.getfixturevalue("of_pairs"), TextInput("great film", "the plot was bad")),
    "a pair that is cut": lambda request: (request.getfixturevalue("of_pairs"), TextInput(LONG, "the plot was bad")),
}


@pytest.fixture(params=INPUTS)
def case(request: pytest.FixtureRequest) -> tuple[Classifier, str | TextInput]:
    return INPUTS[request.param](request)


@pytest.mark.parametrize("method", METHODS)
def test_the_logit_and_the_score_are_those_of_the_classifier(
    case: tuple[Classifier, str | TextInput], method: str
) -> None:
    classifier, one = case
    scores = classifier.scores([one])
    encoded = classifier.encode([one])
    weights = [len(ids) for ids in encoded[0].windows]
    logits = np.average(classifier.logits(encoded), axis=0, weights=weights)
    for found in explained(classifier, one, labels=classifier.labels, method=method):
        label = classifier.labels.index(found.label)
        assert found.score == pytest.approx(scores.probabilities[0, label], abs=1e-5)
        assert found.logit == pytest.approx(logits[label], abs=1e-5)


def test_the_labels_that_are_answered_are_explained_or_else_the_most_probable_one(
    classifier: Classifier, several: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = several.scores([TEXT])
    for threshold in (0.0, 0.5, 1.1):
        monkeypatch.setattr(several, "thresholds", np.array([threshold] * 3 + [1.0]))
        expected = [
            name for name, score in zip(several.labels, scores.probabilities[0], strict=True) if score >= threshold
        ]
        assert [one.label for one in explained(several, TEXT)] == (expected or [scores.ranked(0)[0][0]])
    for threshold in (0.0, 1.1):
        monkeypatch.setattr(classifier, "thresholds", np.array([threshold]))
        assert [one.label for one in explained(classifier, TEXT)] == [classifier.scores([TEXT]).ranked(0)[0][0]]


def test_an_effect_is_what_the_classifier_s_logit_loses_without_the_word(
    case: tuple[Classifier, str | TextInput],
) -> None:
    classifier, one = case
    by_word = located(classifier, one)
    found = explained(classifier, one, labels=classifier.labels)
    assert len(found[0].words) == len(by_word.words) > 4
    for i in range(0, len(by_word.words), 1 + len(by_word.words) // 10):
        encoded = by_word.without([i])
        scores = classifier.score_encoded([encoded]).probabilities[0]
        logits = np.average(classifier.logits([encoded]), axis=0, weights=[len(ids) for ids in encoded.windows])
        for label, explanation in enumerate(found):
            word = explanation.words[i]
            assert (word.text, word.start, word.end) == by_word.words[i][:3]
            assert word.score_without == pytest.approx(scores[label], abs=1e-5)
            assert word.effect == pytest.approx(explanation.logit - logits[label], abs=2e-5)
    assert max(abs(word.effect) for word in found[0].words) > 0.002, "a hundred times the tolerance"


def test_a_text_without_a_word_is_read_as_the_text_written_without_it(classifier: Classifier) -> None:
    by_word = located(classifier, TEXT)
    for i, word in enumerate(by_word.words):
        written = TEXT[: word.start] + " " + TEXT[word.end :]
        assert by_word.without([i]).windows == classifier.encode([written])[0].windows
    assert by_word.without([]).windows == by_word.encoded.windows
    assert [len(ids) for ids in by_word.without(range(len(by_word.words))).windows] == [2]


def test_the_tokens_of_a_pair_keep_their_types_when_words_are_left_out(of_pairs: Classifier) -> None:
    pair = TextInput("great film!", "the plot was bad")
    by_word = located(of_pairs, pair)
    assert [word.text for word in by_word.words] == [0, 0, 0, 1, 1, 1, 1]
    for i, word in enumerate(by_word.words):
        segments = list(pair.segments)
        segments[word.text] = segments[word.text][: word.start] + " " + segments[word.text][word.end :]
        (expected,) = of_pairs.encode([TextInput(*segments)])
        found = by_word.without([i])
        assert (found.windows, found.second) == (expected.windows, expected.second)


def test_words_that_the_model_did_not_read_have_no_effect_and_are_named(
    classifier: Classifier, windowed: Classifier, of_pairs: Classifier
) -> None:
    (found,) = explained(classifier, LONG)
    ((text, start, end, _),) = found.unseen
    assert text == 0
    assert found.words[-1].end < start
    assert LONG[found.words[-1].end : start].isspace()
    assert end == len(LONG)
    assert explained(windowed, LONG)[0].unseen == explained(classifier, TEXT)[0].unseen == ()
    (first,) = explained(of_pairs, TextInput(LONG, "bad film"))[0].unseen
    assert (first.text, first.end) == (0, len(LONG))
    assert [span.text for span in explained(of_pairs, TextInput(LONG, LONG))[0].unseen] == [0, 1]


def test_an_input_that_cannot_be_scored_has_an_error_and_its_neighbours_have_explanations(
    classifier: Classifier, of_pairs: Classifier
) -> None:
    found = explain(classifier, ["great", "", "awful", "\ud800", TextInput("a", "b")])
    assert [isinstance(one, list) for one in found] == [True, False, True, False, False]
    codes = [one.code for one in found if isinstance(one, ItemError)]
    assert codes == ["empty_text", "not_unicode", "pair_not_taken"]
    assert isinstance(explain(of_pairs, ["great"])[0], ItemError)
    assert explain(classifier, []) == []


def test_explanations_do_not_depend_on_what_is_explained_beside(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [TEXT, "", LONG, "great", "naïve ending"]
    together = explain(classifier, texts)
    monkeypatch.setattr(explain_module, "_TOKENS_AT_ONCE", 1)
    for text, expected in zip(texts, together, strict=True):
        (alone,) = explain(classifier, [text])
        if isinstance(alone, ItemError):
            assert alone == expected
            continue
        assert isinstance(expected, list)
        effects = [[word.effect for word in one[0].words] for one in (alone, expected)]
        np.testing.assert_allclose(*effects, atol=1e-5)


def test_neighbours_are_left_out_together_where_a_text_has_too_many_words(
    windowed: Classifier, of_pairs: Classifier
) -> None:
    words = located(windowed, LONG).words
    (found,) = explained(windowed, LONG, most_left_out=25)
    assert len(found.words) == 24
    assert found.words_at_once == 5
    assert (found.words[1].start, found.words[1].end) == (words[5].start, words[9].end)
    without = windowed.score_encoded([located(windowed, LONG).without(range(5, 10))]).probabilities[0]
    assert found.words[1].score_without == pytest.approx(without[windowed.labels.index(found.label)], abs=1e-5)
    assert explained(windowed, LONG)[0].words_at_once == 1
    (pair,) = explained(of_pairs, TextInput(LONG, "the plot was bad"), most_left_out=8)
    assert len(pair.words) <= 8
    assert {word.text for word in pair.words} == {0, 1}


def test_an_unknown_label_is_refused_with_those_that_exist(classifier: Classifier) -> None:
    with pytest.raises(InputError, match="no label 'best'") as error:
        explain(classifier, [TEXT], labels=["good", "best"])
    assert error.value.expected == "one of 'bad', 'good', 'so so'"
    assert [one.label for one in explained(classifier, TEXT, labels=["so so", "bad", "so so"])] == ["so so", "bad"]


def test_characters_of_one_sign_are_merged_with_their_sum() -> None:
    words = [Word(0, 0, 1, 0.5, 0.1), Word(0, 1, 2, 0.25, 0.2), Word(0, 2, 3, -1.0, 0.9), Word(0, 4, 6, -2.0, 0.8)]
    assert merged(words, ["好看吗 ok"]) == [Word(0, 0, 2, 0.75, None), *words[2:]]


# --- integrated gradients --------------------------------------------------------------------------------------------


def test_effects_of_gradients_add_up_to_the_difference_from_the_baseline(
    case: tuple[Classifier, str | TextInput],
) -> None:
    classifier, one = case
    by_word = located(classifier, one)
    blank = [
        [classifier.padding_id if word is not None else ids for ids, word in zip(window, words, strict=True)]
        for window, words in zip(by_word.encoded.windows, by_word.word_of, strict=True)
    ]
    weights = [len(ids) for ids in blank]
    baseline = np.average(classifier.logits([by_word.encoded._replace(windows=blank)]), axis=0, weights=weights)
    for found in explained(classifier, one, labels=classifier.labels, method="integrated_gradients"):
        assert found.baseline == "[PAD]"
        assert found.baseline_logit == pytest.approx(baseline[classifier.labels.index(found.label)], abs=1e-5)
        assert [(word.text, word.start, word.end) for word in found.words] == [one[:3] for one in by_word.words]
        difference = found.logit - found.baseline_logit
        total = sum(word.effect for word in found.words) + found.rest
        assert found.remainder is not None
        assert total + found.remainder == pytest.approx(difference, abs=1e-6)
        assert abs(found.remainder) <= 0.01 * max(abs(difference), 0.05)
        assert found.rest == 0, "the baseline has the same special tokens"


def test_steps_are_doubled_until_little_is_left_over(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrated_gradients, "FEWEST_STEPS", 1)
    (coarse,) = explained(classifier, TEXT, method="integrated_gradients")
    assert coarse.steps in (2, 4, 8, 16)
    monkeypatch.setattr(integrated_gradients, "MOST_STEPS", 1)
    (capped,) = explained(classifier, TEXT, method="integrated_gradients")
    assert capped.steps == 1
    assert capped.remainder is not None
    assert coarse.remainder is not None
    assert abs(capped.remainder) > abs(coarse.remainder), "what is left over is said, not hidden"


def test_the_nodes_of_an_integration_may_be_computed_apart(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = explained(classifier, TEXT, method="integrated_gradients")
    monkeypatch.setattr(integrated_gradients, "tokens_at_once", lambda *_: 40)
    (found,) = explained(classifier, TEXT, method="integrated_gradients")
    effects = [[word.effect for word in one.words] for one in (expected, found)]
    np.testing.assert_allclose(*effects, atol=1e-5)
