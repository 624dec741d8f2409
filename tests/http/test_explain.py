"""POST /explain: the explanations of the library over HTTP, its limits, and the room that it leaves for others."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import save_tiny_bundle
from textcls.inference.classifier import Classifier
from textcls.inference.encoding import Encoded
from textcls.inference.explain import explain
from textcls.serving.batcher import QueueFull
from textcls.serving.explainer import Explainer
from textcls.serving.scorer import Work
from textcls.settings.serve import ServeSpec
from textcls.text.text_input import TextInput

from .conftest import BOUND_S, Service, service_of

TEXT = "the film 😀 was really great, but its plot was dull"
PAIR = {"text": "Was the film good?", "text_pair": "it was really great"}


@pytest.fixture(scope="module")
def pairs(pair_bundle: Path) -> Iterator[Service]:
    with service_of(pair_bundle) as running:
        yield running


def test_words_have_the_effects_of_the_library_and_places_in_code_points(
    service: Service, classifier: Classifier
) -> None:
    reply = service.ask("/explain", {"text": TEXT})
    (expected,) = explain(classifier, [TEXT])[0]  # type: ignore[misc]
    (found,) = reply.json["explanations"]
    assert (found["label"], reply.json["method"]) == (expected.label, "leave_one_out")
    assert found["score"] == pytest.approx(expected.score, abs=1e-6)
    assert [word["effect"] for word in found["words"]] == pytest.approx(
        [one.effect for one in expected.words], abs=1e-4
    )
    assert [word["score_without"] for word in found["words"]] == pytest.approx(
        [one.score_without for one in expected.words], abs=1e-5
    )
    for word in found["words"]:
        assert TEXT[word["start"] : word["end"]] == word["word"]
    assert [word["word"] for word in found["words"]][:5] == ["the", "film", "😀", "was", "really"]
    predicted = service.ask("/predict", {"inputs": TEXT}).json
    assert predicted["predictions"][0]["label"] == found["label"]
    assert predicted["predictions"][0]["score"] == pytest.approx(found["score"], abs=1e-6)
    assert reply.json["model"] == predicted["model"]
    assert reply.json["unknown_tokens"] == predicted["predictions"][0]["unknown_tokens"] == 1
    assert "queue" in reply.headers["server-timing"]


def test_any_label_is_explained_and_a_pair_in_both_texts(service: Service, pairs: Service) -> None:
    for label in service.ask("/info").json["labels"]:
        (found,) = service.ask("/explain", {"text": TEXT, "label": label, "method": "leave_one_out"}).json[
            "explanations"
        ]
        assert found["label"] == label
    (found,) = pairs.ask("/explain", PAIR).json["explanations"]
    assert {word["text"] for word in found["words"]} == {0, 1}
    for word in found["words"]:
        assert [*PAIR.values()][word["text"]][word["start"] : word["end"]] == word["word"]


def test_an_identifier_is_one_word_as_it_was_sent_and_has_the_effect_of_its_placeholder(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    text, masked = (f"the film, says {who}, was great" for who in ("some.one+x@example.com", "[EMAIL]"))
    with service_of(save_tiny_bundle(tiny_model_dir, tmp_path / "masks", mask=("email",))) as running:
        (found,) = running.ask("/explain", {"text": text}).json["explanations"]
        (expected,) = explain(running.scorer.classifier, [masked])[0]  # type: ignore[misc]
    words = [word["word"] for word in found["words"]]
    assert words == ["the", "film", ",", "says", "some.one+x@example.com", ",", "was", "great"]
    assert [word["effect"] for word in found["words"]][4] == pytest.approx(
        {masked[one.start : one.end]: one.effect for one in expected.words}["[EMAIL]"], abs=1e-4
    )
    for word in found["words"]:
        assert text[word["start"] : word["end"]] == word["word"]


def test_chinese_is_explained_by_runs_of_characters_and_what_was_cut_is_told(service: Service) -> None:
    (found,) = service.ask("/explain", {"text": "街街 café"}).json["explanations"]
    assert "".join(word["word"] for word in found["words"]) == "街街café"
    cut = service.ask("/explain", {"text": "great " * 40}).json
    assert cut["truncated"]
    assert cut["unseen"] == [{"text": 0, "start": 6 * 30, "end": 6 * 40 - 1}]
    assert len(cut["explanations"][0]["words"]) == 30


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        ({"text": "  "}, "unusable_text", "empty_text"),
        ({"text": "a\ud800"}, "unusable_text", "not_unicode"),
        ({"text": TEXT, "label": "<b>x</b>"}, "unknown_label", "'bad', 'good', 'so so'"),
        ({"text": TEXT, "text_pair": "b"}, "invalid", 'send "..."'),
        ({"text": [TEXT]}, "invalid", "a text is needed, not list"),
        ({"inputs": TEXT}, "invalid", "inputs"),
        ({"text": TEXT, "method": "integrated_gradients"}, "invalid", "`textcls explain`"),
        ({"text": "great " * 21}, "too_many_words", "21 words of the text, and at most 20"),
        ({"text": "x" * 1281}, "too_many_characters", "1281 characters, and at most 1280"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_refusal_says_what_was_found_and_what_is_taken(
    small: Service, content: dict[str, Any], code: str, told: str
) -> None:
    reply = small.ask("/explain", content)
    assert (reply.status, reply.json["error"]["code"]) == (422, code)
    assert told in reply.json["error"]["message"]


@pytest.fixture(scope="module")
def small(tiny_bundle: Path) -> Iterator[Service]:
    with service_of(tiny_bundle, ServeSpec(max_words_to_explain=20)) as running:
        yield running


def test_the_limits_are_in_info_and_a_share_of_nothing_explains_nothing(small: Service, tiny_bundle: Path) -> None:
    limits = {"method": "leave_one_out", "max_words": 20, "max_chars": 1280, "max_queued_texts": 102}
    assert small.ask("/info").json["explain"] == limits
    with service_of(tiny_bundle, ServeSpec(explain_share=0), key="s3cret") as off:
        assert off.ask("/explain", {"text": TEXT}).status == 401
        key = {"authorization": "Bearer s3cret"}
        assert off.ask("/info", **key).json["explain"] is None
        refused = off.ask("/explain", {"text": TEXT}, **key)
        assert (refused.status, "serve.explain_share is 0" in refused.json["error"]["message"]) == (404, True)


def test_a_label_that_looks_like_html_is_explained_under_its_name(tiny_model_dir: Path, tmp_path: Path) -> None:
    bundle = save_tiny_bundle(tiny_model_dir, tmp_path / "html", labels=("<b>x</b>", "y"))
    with service_of(bundle) as running:
        reply = running.ask("/explain", {"text": "great <i>film</i>", "label": "<b>x</b>"})
        assert reply.json["explanations"][0]["label"] == "<b>x</b>"
        assert reply.headers["content-type"] == "application/json"


def test_a_flood_of_explanations_is_refused_early_and_every_text_is_classified(tiny_bundle: Path) -> None:
    """While the model stands still, explanations have their share of the queue and no more."""
    gate, begun = threading.Event(), threading.Event()

    def wait(classifier: Classifier, items: list[Encoded]) -> Sequence[Any]:
        begun.set()
        assert gate.wait(BOUND_S)
        return items

    with service_of(tiny_bundle, ServeSpec(max_queued_texts=64, max_texts_per_request=32)) as running:
        scorer = running.scorer
        assert scorer.classifier is not None
        (encoded,) = scorer.classifier.encode(["great"])

        async def flood() -> tuple[list[Any], list[Any]]:
            assert scorer.classifier is not None
            stands = asyncio.create_task(scorer.batcher.outcomes([(encoded, 1)], Work(wait, scorer.classifier)))
            while not begun.is_set():
                await asyncio.sleep(0)
            explainer = Explainer(scorer)
            explaining = [asyncio.create_task(explainer.explain(TextInput(TEXT), None)) for _ in range(50)]
            await asyncio.wait(explaining, return_when=asyncio.FIRST_EXCEPTION)
            classifying = [asyncio.create_task(scorer.score([TextInput(TEXT)] * 32)) for _ in range(2)]
            await asyncio.sleep(0)
            gate.set()
            await stands
            return (
                await asyncio.gather(*explaining, return_exceptions=True),
                await asyncio.gather(*classifying, return_exceptions=True),
            )

        explained, classified = running.run(flood())
    refused = [one for one in explained if isinstance(one, Exception)]
    assert refused
    assert all(isinstance(one, QueueFull) for one in refused)
    assert len(refused) < 50
    assert [len(one.outcomes) for one in classified] == [32, 32]
    assert scorer.batcher.admitted == scorer.batcher.side_admitted == 0
