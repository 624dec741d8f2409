"""Requests as existing clients send them: Hugging Face's, text-embeddings-inference's, compressed, from web pages."""

import gzip
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from textcls.inference.classifier import Classifier
from textcls.settings.serve import ServeSpec

from ..conftest import save_tiny_bundle
from .conftest import BOUND_S, Reply, Service, service_of

KEY = "s3cret-key"
ORIGIN = "https://app.example.com"
TEXT, OTHER = "the film was really great", "awful"
LONG = "every scene was often dull? " * 30


@pytest.fixture(scope="module")
def locked(tiny_bundle: Path) -> Iterator[Service]:
    """With a key, and open to pages of one origin."""
    with service_of(tiny_bundle, ServeSpec(cors_origins=(ORIGIN,)), key=KEY) as running:
        yield running


def ranked(classifier: Classifier, text: str, top_k: int | None = None) -> list[Any]:
    """What `POST /` gives for the text."""
    return [
        {"label": label, "score": pytest.approx(score, abs=1e-5)}
        for label, score in classifier.scores([text]).ranked(0, top_k)
    ]


# --- Hugging Face's clients ------------------------------------------------------------------------------------------

HUGGING_FACE = """
import json, sys
from huggingface_hub import InferenceClient
client, text = InferenceClient(sys.argv[1], token=sys.argv[3]), sys.argv[2]
found = [client.text_classification(text), client.text_classification(text, top_k=1, function_to_apply="softmax")]
print(json.dumps([[(one.label, one.score) for one in labels] for labels in found]))
"""


def test_hugging_face_s_client_works_unmodified(locked: Service, classifier: Classifier) -> None:
    # In a process of its own: this one sets HF_HUB_OFFLINE.
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-c", HUGGING_FACE, locked.url, TEXT, KEY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BOUND_S)
    assert done.returncode == 0, done.stderr
    every, best = json.loads(done.stdout)
    expected = classifier.scores([TEXT]).ranked(0)
    assert [label for label, _ in every] == [label for label, _ in expected]
    assert [score for _, score in every] == pytest.approx([score for _, score in expected], abs=1e-5)
    assert best == every[:1]


@pytest.mark.parametrize(
    ("inputs", "texts"),
    [
        (TEXT, [TEXT]),
        ([TEXT], [TEXT]),
        ([TEXT, OTHER, LONG], [TEXT, OTHER, LONG]),
        ([], []),
        ({"text": TEXT}, [TEXT]),
        ([{"text": TEXT, "text_pair": None}, OTHER], [TEXT, OTHER]),
        ([[TEXT], [OTHER]], [TEXT, OTHER]),  # as text-embeddings-inference spells a batch
    ],
)
def test_the_task_gives_a_list_of_scores_for_each_text(
    service: Service, classifier: Classifier, inputs: Any, texts: list[str]
) -> None:
    answer = service.ask("/", {"inputs": inputs})
    assert answer.status == 200, answer.json
    assert answer.json == [ranked(classifier, text) for text in texts]


@pytest.mark.parametrize(
    ("more", "top_k"),
    [
        ({"options": {"wait_for_model": True, "use_cache": False, "use_gpu": False}}, None),
        ({"options": None, "parameters": None}, None),
        ({"parameters": {}}, None),
        ({"parameters": {"top_k": 2}}, 2),
        ({"parameters": {"top_k": None}}, None),
        ({"parameters": {"top_k": 99}}, None),
        ({"parameters": {"return_all_scores": True}}, None),
        ({"parameters": {"return_all_scores": False}}, 1),
        ({"parameters": {"return_all_scores": False, "top_k": 2}}, 2),
        ({"parameters": {"function_to_apply": "softmax"}}, None),
        ({"parameters": {"truncation": True, "padding": True, "max_length": 512}}, None),
        ({"parameters": {"truncation": "longest_first", "padding": "max_length"}}, None),
        ({"parameters": {"batch_size": 8, "add_special_tokens": True}}, None),
        ({"truncate": True, "raw_scores": False, "truncation_direction": "Right"}, None),
        ({"model": "tgi", "stream": False, "wait_for_model": True}, None),
    ],
)
def test_the_task_takes_what_its_clients_send(
    service: Service, classifier: Classifier, more: dict[str, Any], top_k: int | None
) -> None:
    for text in (TEXT, LONG):
        answer = service.ask("/", {"inputs": text} | more)
        assert (answer.status, answer.json) == (200, [ranked(classifier, text, top_k)])


@pytest.mark.parametrize(
    "more",
    [
        {"parameters": {"function_to_apply": "sigmoid"}},
        {"parameters": {"function_to_apply": "none"}},
        {"parameters": {"max_length": 31, "truncation": True}},
        {"parameters": {"add_special_tokens": False}},
        {"parameters": {"candidate_labels": ["a", "b"]}},
        {"parameters": {"text_pair": OTHER}},
        {"raw_scores": True},
        {"truncation_direction": "Left"},
    ],
)
def test_the_task_refuses_what_asks_for_other_scores(service: Service, more: dict[str, Any]) -> None:
    answer = service.ask("/", {"inputs": TEXT} | more)
    assert (answer.status, answer.json["error"]["code"]) == (422, "invalid")
    assert "would give other scores than the bundle's" in answer.json["error"]["message"]
    assert "leave it out" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "inputs", [{"text": TEXT, "text_pair": OTHER}, [[TEXT, OTHER]], [{"text": TEXT, "text_pair": OTHER}]]
)
def test_a_pair_is_refused_as_a_pair(service: Service, inputs: Any) -> None:
    answer = service.ask("/", {"inputs": inputs})
    assert (answer.status, answer.json["error"]["code"]) == (422, "invalid")
    assert "is a pair of texts, but the model reads one text" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'"x"', b"{}", b"[" * 40_000, b"1" * 9000, b'{"inputs": "a"}x']
    + [b'{"inputs": %s}' % i for i in (b"null", b"1", b'{"a": 1}', b"[1]", b"[[]]", b"[null]", b'{"text": 1}')]
    + [b'{"inputs": "a", "%s": 1}' % key for key in (b"options", b"parameters", b"raw_scores")]
    + [
        b'{"inputs": "a", "parameters": {"top_k": %s}}' % k
        for k in (b"0", b"-1", b"1.5", b'"1"', b"true", b"1" * 400, b"NaN")
    ]
    + [b'{"inputs": "a", "parameters": {"return_all_scores": 1}}'],
)
def test_a_malformed_task_is_the_client_s_fault(service: Service, body: bytes) -> None:
    answer = service.ask("/", body)
    assert answer.status in (400, 422)
    assert answer.json["error"]["code"] in ("not_json", "invalid")


def test_in_a_list_an_unusable_text_has_an_error_in_its_place(service: Service, classifier: Classifier) -> None:
    first, second, third = service.ask("/", {"inputs": [TEXT, " ", OTHER]}).json
    assert [first, third] == [ranked(classifier, TEXT), ranked(classifier, OTHER)]
    assert second["error"]["code"] == "empty_text"
    assert service.ask("/", {"inputs": ["a"] * 17}).json["error"]["code"] == "too_many_texts"


def test_asking_to_cut_a_long_text_does_not_overrule_the_bundle(tiny_model_dir: Path, tmp_path: Path) -> None:
    bundle = save_tiny_bundle(tiny_model_dir, tmp_path / "windows", on_long="windows")
    whole = Classifier.load(str(bundle), device="cpu", precision="fp32")
    with service_of(bundle) as windows:
        (found,) = windows.ask("/", {"inputs": LONG, "parameters": {"truncation": True}}).json
        (one,) = windows.ask("/predict", {"inputs": LONG, "truncate": True}).json["predictions"]
    assert found == one["scores"] == ranked(whole, LONG)
    assert not one["truncated"]


# --- text-embeddings-inference's keys on /predict --------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"truncate": True},
        {"truncate": False},
        {"truncate": None},
        {"raw_scores": False, "truncation_direction": "Right", "truncate": True},
    ],
)
def test_predict_takes_what_clients_of_text_embeddings_inference_send(service: Service, more: dict[str, Any]) -> None:
    plain = service.ask("/predict", {"inputs": [TEXT, LONG]}).json
    answer = service.ask("/predict", {"inputs": [TEXT, LONG]} | more)
    assert (answer.status, answer.json) == (200, plain)


@pytest.mark.parametrize(
    "more", [{"raw_scores": True}, {"truncation_direction": "Left"}, {"truncate": "yes"}, {"options": {}}]
)
def test_predict_refuses_other_keys_and_what_asks_for_other_scores(service: Service, more: dict[str, Any]) -> None:
    answer = service.ask("/predict", {"inputs": TEXT} | more)
    assert (answer.status, answer.json["error"]["code"]) == (422, "invalid")


# --- compressed bodies -----------------------------------------------------------------------------------------------


def zipped(service: Service, body: bytes, **headers: str) -> Reply:
    return service.ask("/predict", body, **({"content_encoding": "gzip"} | headers))


def test_a_compressed_body_is_taken(service: Service) -> None:
    plain = json.dumps({"inputs": [TEXT, OTHER]}).encode()
    expected = service.ask("/predict", plain).json
    for name in ("gzip", "x-gzip", "GZIP"):
        assert zipped(service, gzip.compress(plain), content_encoding=name).json == expected
    assert service.ask("/predict", plain, content_encoding="identity").json == expected


@pytest.mark.parametrize("name", ["br", "deflate", "zstd", "gzip, gzip", "compress"])
def test_another_encoding_is_refused_with_what_is_taken(service: Service, name: str) -> None:
    answer = zipped(service, zlib.compress(b"{}"), content_encoding=name)
    assert (answer.status, answer.json["error"]["code"]) == (415, "unknown_encoding")
    assert answer.headers["accept-encoding"] == "gzip"


def test_the_limit_holds_for_what_comes_out_of_a_compressed_body(service: Service) -> None:
    def body(size: int) -> bytes:
        text = json.dumps({"inputs": ["a"]}).encode()
        return gzip.compress(text + b" " * (size - len(text)))

    assert zipped(service, body(50_000)).status == 200
    answer = zipped(service, body(50_001))
    assert (answer.status, answer.json["error"]["code"]) == (413, "body_too_large")


def test_a_few_bytes_never_become_much_memory(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from textcls.serving import body

    sizes: list[int] = []

    class Counted(body._Inflater):
        def inflated(self, part: bytes) -> bytes:
            found = super().inflated(part)
            sizes.append(len(found))
            return found

    bomb = gzip.compress(b" " * 40_000_000, 9)
    assert len(bomb) < 50_000
    monkeypatch.setattr(body, "_Inflater", Counted)
    answer = zipped(service, bomb)
    assert (answer.status, answer.json["error"]["code"]) == (413, "body_too_large")
    assert sum(sizes) <= 50_000


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-5], lambda b: b + b"x", lambda b: b + b, lambda b: b[:20] + b"\0" * 9]
)
def test_a_damaged_compressed_body_is_the_client_s_fault(service: Service, damage: Any) -> None:
    answer = zipped(service, damage(gzip.compress(json.dumps({"inputs": [TEXT] * 9}).encode())))
    assert (answer.status, answer.json["error"]["code"]) == (400, "not_gzip")


# --- pages of another origin -----------------------------------------------------------------------------------------

ALLOWED = "access-control-allow-origin"
HEADERS = "authorization,content-type,x-wait-for-model"


def preflight(service: Service, path: str, method: str, origin: str) -> Reply:
    asked = {"origin": origin, "access_control_request_method": method}
    return service.ask(path, method="OPTIONS", access_control_request_headers=HEADERS, **asked)


@pytest.mark.parametrize(("path", "method"), [("/predict", "POST"), ("/", "POST"), ("/info", "GET")])
def test_a_page_of_an_allowed_origin_may_ask_before_it_shows_the_key(locked: Service, path: str, method: str) -> None:
    answer = preflight(locked, path, method, ORIGIN)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers[ALLOWED] == ORIGIN
    assert answer.headers["access-control-allow-methods"] == method
    assert answer.headers["access-control-allow-headers"] == HEADERS
    assert "origin" in answer.headers["vary"]


def test_answers_and_errors_name_the_allowed_origin(locked: Service) -> None:
    shown = {"authorization": f"Bearer {KEY}"}
    answers = {
        200: locked.ask("/predict", {"inputs": TEXT}, origin=ORIGIN, **shown),
        401: locked.ask("/predict", {"inputs": TEXT}, origin=ORIGIN),
        404: locked.ask("/nothing", origin=ORIGIN),
        405: locked.ask("/predict", origin=ORIGIN),
        422: locked.ask("/predict", {"inputs": 1}, origin=ORIGIN, **shown),
    }
    for status, answer in answers.items():
        assert (answer.status, answer.headers[ALLOWED]) == (status, ORIGIN)
        assert "x-request-id" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origin", ["https://other.example.com", ORIGIN + ":8443", "http://app.example.com", "null"])
def test_another_origin_gets_no_header_and_no_preflight(locked: Service, origin: str) -> None:
    for answer in (
        preflight(locked, "/predict", "POST", origin),
        locked.ask("/predict", {"inputs": TEXT}, origin=origin, authorization=f"Bearer {KEY}"),
    ):
        assert ALLOWED not in answer.headers
        assert answer.headers["vary"] == "origin"
    assert preflight(locked, "/predict", "POST", origin).status == 405


def test_by_default_no_page_of_another_origin_may_use_the_service(service: Service) -> None:
    assert preflight(service, "/predict", "POST", ORIGIN).status == 405
    answer = service.ask("/predict", {"inputs": TEXT}, origin=ORIGIN)
    assert answer.status == 200
    assert {ALLOWED, "vary"} & set(answer.headers) == set()
