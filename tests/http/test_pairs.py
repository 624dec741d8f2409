"""Pairs of texts over HTTP: the spellings of `transformers.pipeline`, and clear refusals of the other kind of input."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from textcls.inference.classifier import Classifier
from textcls.serving.scorer import Scorer
from textcls.settings.recipe import ServeSpec
from textcls.text.text_input import TextInput

from .conftest import Service, service_of

PAIR = {"text": "Was the film good?", "text_pair": "it was really great"}
OTHER = {"text": "its plot", "text_pair": "boring " * 40}


@pytest.fixture(scope="module")
def pairs(pair_bundle: Path) -> Iterator[Service]:
    with service_of(pair_bundle, ServeSpec(max_chars_per_text=500)) as running:
        yield running


@pytest.fixture(scope="module")
def scores(pair_bundle: Path) -> Any:
    classifier = Classifier.load(str(pair_bundle), device="cpu", precision="fp32")
    return classifier.scores([TextInput(**PAIR), TextInput(**OTHER)])


@pytest.mark.parametrize("listed", [True, False])
def test_predict_gives_the_scores_of_the_classifier_and_the_tokens_of_both_texts(
    pairs: Service, scores: Any, listed: bool
) -> None:
    reply = pairs.ask("/predict", {"inputs": [PAIR, OTHER] if listed else PAIR})
    for row, prediction in enumerate(reply.json["predictions"]):
        found = {one["label"]: one["score"] for one in prediction["scores"]}
        assert found == pytest.approx(dict(scores.ranked(row)), abs=1e-6)
        texts = [prediction["first_tokens"], prediction["second_tokens"]]
        assert texts == scores.text_tokens[row].tolist()
        assert prediction["tokens"] == sum(texts) + 3
        assert prediction["truncated"] == (row == 1)


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [(PAIR, [0]), ([PAIR], [0]), ([PAIR, OTHER], [0, 1]), ([[*PAIR.values()], OTHER], [0, 1])],
    ids=["alone", "in a list", "two", "as text-embeddings-inference"],
)
def test_the_task_of_hugging_face_takes_pairs_as_pipeline_does(
    pairs: Service, scores: Any, inputs: Any, rows: list[int]
) -> None:
    content = pairs.ask("/", {"inputs": inputs}).json
    for row, answer in zip(rows, content, strict=True):
        assert {one["label"]: one["score"] for one in answer} == pytest.approx(dict(scores.ranked(row)), abs=1e-6)


@pytest.mark.parametrize("path", ["/predict", "/"])
def test_the_other_kind_of_input_is_refused_in_words(pairs: Service, service: Service, path: str) -> None:
    for inputs in ("great", ["great"], {"text": "great"}, [PAIR, {"text": "great", "text_pair": None}]):
        reply = pairs.ask(path, {"inputs": inputs})
        assert (reply.status, reply.json["error"]["code"]) == (422, "invalid")
        assert 'reads pairs; send {"text": ..., "text_pair": ...}' in reply.json["error"]["message"]
    for inputs in (PAIR, ["great", PAIR]):
        reply = service.ask(path, {"inputs": inputs})
        assert (reply.status, reply.json["error"]["code"]) == (422, "invalid")
        assert "a pair of texts, but the model reads one text" in reply.json["error"]["message"]


@pytest.mark.parametrize("path", ["/predict", "/"])
def test_one_text_may_be_spelled_as_an_object(service: Service, path: str) -> None:
    plain = service.ask(path, {"inputs": ["great"]}).json
    assert service.ask(path, {"inputs": [{"text": "great"}]}).json == plain
    assert service.ask(path, {"inputs": [{"text": "great", "text_pair": None}]}).json == plain


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"text": "a", "text_pair": 3}, "text_pair is no string but int"),
        ({"text_pair": "a"}, "text is no string but NoneType"),
        ([["a", "b"]], 'text 0 is no string but list; a pair is an object: {"text": ..., "text_pair": ...}'),
        ({"text": "a", "text_pair": "b", "title": "c"}, "no key 'title'"),
        ({"text": "a", "text_pair": "b" * 501}, "text 0 has 501 characters"),
    ],
    ids=str,
)
def test_an_object_that_is_no_pair_is_refused_in_words(pairs: Service, inputs: Any, message: str) -> None:
    reply = pairs.ask("/predict", {"inputs": inputs})
    assert reply.status == 422
    assert message in reply.json["error"]["message"]


def test_a_pair_without_a_second_text_has_an_error_beside_its_neighbours(pairs: Service) -> None:
    first, second = pairs.ask("/predict", {"inputs": [{"text": "great", "text_pair": " "}, PAIR]}).json["predictions"]
    assert first["error"] == {
        "code": "empty_text",
        "message": "a text of the pair is empty or white space; a word is needed",
    }
    assert "scores" in second


def test_info_and_the_document_say_that_the_model_reads_pairs(pairs: Service, service: Service) -> None:
    assert [one.ask("/info").json["pairs"] for one in (pairs, service)] == [True, False]
    for one, required in ((pairs, ["text", "text_pair"]), (service, ["text"])):
        schemas = one.ask("/openapi.json").json["components"]["schemas"]
        for request in ("PredictRequest", "TaskRequest"):
            kinds = schemas[request]["properties"]["inputs"]["anyOf"]
            assert [kind["required"] for kind in kinds if kind["type"] == "object"] == [required]
            assert ("string" in [kind["type"] for kind in kinds]) == (one is service)


def test_a_hot_reload_changes_the_kind_of_input_only_if_new_labels_are_allowed(
    pair_bundle: Path, tiny_bundle: Path
) -> None:
    with service_of(pair_bundle) as running:
        running.run(running.scorer.load(str(tiny_bundle)))
        assert "scores one text" in running.ask("/info").json["last_load_failed"]
        assert running.ask("/predict", {"inputs": PAIR}).status == 200
        running.run(running.scorer.load(str(pair_bundle)))
        assert running.ask("/info").json["last_load_failed"] is None
    with service_of(pair_bundle, ServeSpec(allow_new_labels=True)) as running:
        running.run(running.scorer.load(str(tiny_bundle)))
        assert running.ask("/predict", {"inputs": "great"}).status == 200


def test_a_replica_that_starts_during_a_reload_keeps_the_kind_too(pair_bundle: Path) -> None:
    with service_of(None) as running:
        scorer: Scorer = running.scorer
        with pytest.raises(Exception, match="scores pairs of texts"):
            running.run(scorer.load(str(pair_bundle), None, False))
