"""What the service answers: the classifier's own scores, an outcome for every text, and refusals from one table."""

import asyncio
import json
import os
import re
import select
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from textcls.errors import BundleError
from textcls.inference.classifier import Classifier
from textcls.manifest import Calibration, Privacy
from textcls.serving.batcher import Batcher, QueueFull
from textcls.serving.refusals import REFUSALS
from textcls.serving.response_schema import Prediction
from textcls.serving.scorer import Scorer
from textcls.settings.serve import ServeSpec
from textcls.text.text_input import TextInput

from ..conftest import save_tiny_bundle
from .conftest import BOUND_S, Reply, Service, service_of

TEXTS = ["the film was really great", "awful", "every scene was often dull? " * 30, "this movie was naïve", "10/10 街"]
ODD = ["", " \n", "\ud800", "a\udfffb"]


def predict(service: Service, inputs: Any, **more: Any) -> Reply:
    return service.ask("/predict", {"inputs": inputs} | more)


def test_the_thread_that_loaded_the_bundle_has_ended(service: Service) -> None:
    # Beside one that lives, OpenMP's threads sleep at every step of the model.
    assert predict(service, TEXTS[0]).status == 200
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("loading", "asyncio"))]


def test_threads_that_run_the_model_give_way_to_the_event_loop(tiny_bundle: Path) -> None:
    async def story() -> dict[str, int]:
        scorer = Scorer(ServeSpec(), threads=2)
        await scorer.load(str(tiny_bundle))
        await scorer.score([TextInput(text) for text in TEXTS] * 50)  # enough for a thread to have texts of its own
        new = [thread for thread in threading.enumerate() if thread not in before]
        found = {thread.name: os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) for thread in new}
        await scorer.close()
        return found

    threads, here, before = torch.get_num_threads(), os.getpriority(os.PRIO_PROCESS, 0), threading.enumerate()
    try:
        found = asyncio.run(story())
    finally:
        torch.set_num_threads(threads)
    assert os.getpriority(os.PRIO_PROCESS, 0) == here
    for kind in ("batcher", "scoring"):
        assert {priority for name, priority in found.items() if name.startswith(kind)} == {19}


KEY = "s3cret-key"


@pytest.fixture(scope="module")
def locked(tiny_bundle: Path) -> Any:
    with service_of(tiny_bundle, key=KEY) as running:
        yield running


# --- scores ----------------------------------------------------------------------------------------------------------


def test_http_gives_the_classifier_s_scores(service: Service, classifier: Classifier) -> None:
    expected = classifier.scores(TEXTS)
    found = predict(service, TEXTS).json["predictions"]
    for i, one in enumerate(found):
        assert one["label"] == expected.label(i)
        assert one["score"] == pytest.approx(expected.confidence(i), abs=1e-5)
        by_label = {pair["label"]: pair["score"] for pair in one["scores"]}
        assert np.array([by_label[name] for name in expected.labels]) == pytest.approx(
            expected.probabilities[i], abs=1e-5
        )
        assert [pair["score"] for pair in one["scores"]] == sorted(by_label.values(), reverse=True)
        assert (one["tokens"], one["truncated"]) == (expected.tokens[i], expected.truncated[i])
        assert one["unknown_tokens"] == expected.unknown[i]
    assert found[2]["truncated"]
    assert not found[0]["truncated"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([*TEXTS, *ODD]), max_size=16))
def test_a_text_scores_the_same_alone_and_in_any_company(service: Service, texts: list[str]) -> None:
    answer = predict(service, texts)
    assert answer.status == 200
    assert len(answer.json["predictions"]) == len(texts)
    for text, one in zip(texts, answer.json["predictions"], strict=True):
        (alone,) = predict(service, text).json["predictions"]
        assert one.get("error") == alone.get("error")
        assert ("error" in one) == (text in ODD)
        assert one.get("score", 0) == pytest.approx(alone.get("score", 0), abs=1e-5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(), max_size=40), min_size=1, max_size=8))
def test_any_text_at_all_has_an_outcome(service: Service, texts: list[str]) -> None:
    answer = predict(service, texts)
    assert answer.status == 200
    assert [sorted(one) in (["error"], PREDICTION) for one in answer.json["predictions"]] == [True] * len(texts)


PREDICTION = sorted(Prediction.model_fields)


def test_nul_and_half_surrogates_are_told_and_their_neighbours_are_scored(service: Service) -> None:
    body = rb'{"inputs": ["\ud800", "fine", "a\u0000b", "\udc00\ud800", "\ud83d\ude00 great"]}'
    half, fine, nul, halves, whole = service.ask("/predict", body).json["predictions"]
    assert half["error"]["code"] == halves["error"]["code"] == "not_unicode"
    assert [sorted(one) for one in (fine, nul, whole)] == [PREDICTION] * 3


def test_top_k_gives_the_most_probable_labels(service: Service) -> None:
    every = predict(service, TEXTS[0]).json["predictions"][0]["scores"]
    for k in (1, 2, 3, 99, 2.0):
        assert predict(service, TEXTS[0], top_k=k).json["predictions"][0]["scores"] == every[: int(k)]


def test_an_unsure_classifier_abstains(tiny_model_dir: Path, tmp_path: Path) -> None:
    bundle = save_tiny_bundle(tiny_model_dir, tmp_path / "unsure", calibration=Calibration(threshold=1.0))
    with service_of(bundle) as unsure:
        (one,) = predict(unsure, "great").json["predictions"]
        assert one["label"] == "abstain"
        assert one["score"] == one["scores"][0]["score"]
        assert unsure.ask("/info").json["abstain_below"] == 1.0


def test_info_tells_what_serves_and_what_is_taken(service: Service, classifier: Classifier) -> None:
    info = service.ask("/info").json
    assert info["masks"] == {}
    assert info["labels"] == list(classifier.labels)
    assert info["model"]["digest"] == classifier.bundle.digest
    assert info["limits"]["max_texts_per_request"] == 16
    assert info["last_load_failed"] is None
    assert predict(service, "great").json["model"]["digest"] == classifier.bundle.digest


# --- refusals --------------------------------------------------------------------------------------------------------

BIG = b'{"inputs": "' + b"a" * 60_000 + b'"}'
REFUSED = {
    "not_json": ("/predict", b"\xff", {}),
    "not_found": ("/nothing", None, {}),
    "method_not_allowed": ("/predict", None, {}),
    "body_too_large": ("/predict", BIG, {}),
    "not_json_type": ("/predict", b"{}", {"content_type": "text/plain"}),
    "invalid": ("/predict", {"inputs": ["a", 1]}, {}),
    "too_many_texts": ("/predict", {"inputs": ["a"] * 17}, {}),
    "too_many_characters": ("/predict", {"inputs": ["a", "b" * 2001]}, {}),
    "unusable_text": ("/", {"inputs": " "}, {}),
    "not_gzip": ("/predict", b'{"inputs": "a"}', {"content_encoding": "gzip"}),
    "unknown_encoding": ("/predict", b'{"inputs": "a"}', {"content_encoding": "br"}),
}


@pytest.mark.parametrize("code", REFUSED)
def test_a_refusal_has_its_status_its_code_and_the_numbers(service: Service, code: str) -> None:
    path, content, headers = REFUSED[code]
    answer = service.ask(path, content, **headers)
    assert (answer.status, answer.json["error"]["code"]) == (REFUSALS[code][0], code)
    numbers = {"body_too_large": "60014 .* 50000", "too_many_texts": "17 .* 16", "too_many_characters": "2001 .* 2000"}
    assert re.search(numbers.get(code, "."), answer.json["error"]["message"])
    assert ("allow" in answer.headers) == (code == "method_not_allowed")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'"x"', b"{}", b'{"inputs": null}', b'{"inputs": {"a": 1}}', b'{"inputs": "a", "x": 1}']
    + [b'{"inputs": "a", "top_k": %s}' % k for k in (b"0", b"-1", b"1.5", b'"1"', b"true", b"1" * 400, b"NaN")]
    + [b"[" * 40_000, b'{"inputs": "a", "\\ud800": 1}', b"1" * 9000, b'{"inputs": "a"}x'],
)
def test_a_malformed_request_is_the_client_s_fault(service: Service, body: bytes) -> None:
    answer = service.ask("/predict", body)
    assert answer.status in (400, 422)
    assert answer.json["error"]["code"] in ("not_json", "invalid")


def test_without_a_model_the_service_lives_and_is_not_ready() -> None:
    with service_of(None) as empty:
        assert empty.ask("/health").status == 200
        for path, content in (("/ready", None), ("/info", None), ("/predict", {"inputs": "a"}), ("/", {"inputs": "a"})):
            answer = empty.ask(path, content)
            assert (answer.status, answer.json["error"]["code"]) == (503, "not_ready")
            assert "retry-after" in answer.headers


def test_overload_is_refused_at_once_with_a_time_to_return(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batcher, "wait_s", 0.2504)
    with service_of(tiny_bundle, ServeSpec(max_texts_per_request=4, max_queued_texts=4)) as small:
        room = small.scorer.batcher.room(3)
        room.__enter__()
        answer = predict(small, ["a", "b"])
        assert (answer.status, answer.json["error"]["code"]) == (429, "overloaded")
        assert (answer.headers["retry-after"], answer.headers["x-queue-ms"]) == ("1", "251")
        assert predict(small, "a").status == 200
        room.__exit__(None, None, None)
        assert predict(small, ["a", "b"]).status == 200


def test_every_refusal_of_the_table_was_met_here() -> None:
    elsewhere = {"unauthorized", "body_timeout", "overloaded", "internal", "not_ready"}
    elsewhere |= {"too_many_words", "unknown_label"}  # test_explain.py
    assert set(REFUSED) | elsewhere == set(REFUSALS)


# --- the body --------------------------------------------------------------------------------------------------------


def raw(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=BOUND_S)


def head(*lines: str) -> bytes:
    common = ["POST /predict HTTP/1.1", "host: x", "content-type: application/json"]
    return "\r\n".join([*common, *lines, "", ""]).encode()


def status_of(connection: socket.socket) -> int:
    return int(connection.makefile("rb").readline().split()[1])


def test_a_body_that_says_it_is_too_long_is_refused_before_a_byte_of_it_is_sent(service: Service) -> None:
    with raw(service) as connection:
        connection.sendall(head("content-length: 52428800"))
        assert status_of(connection) == 413


def test_a_body_that_does_not_say_its_length_is_read_no_further_than_allowed(service: Service) -> None:
    sent, refused = 0, threading.Event()
    with raw(service) as connection:
        connection.sendall(head("transfer-encoding: chunked"))
        answer: list[int] = []

        def listen() -> None:
            answer.append(status_of(connection))
            refused.set()

        listener = threading.Thread(target=listen)
        listener.start()
        block = b"10000\r\n" + b"a" * 65536 + b"\r\n"
        try:
            while sent < 50 * 2**20 and not refused.is_set():
                connection.sendall(block)
                sent += 65536
        except OSError:  # it has hung up
            pass
        listener.join(BOUND_S)
    assert answer == [413]
    assert sent < 40 * 2**20  # what was under way: the two ends' socket buffers


def test_a_slow_client_is_refused_in_time_and_delays_nobody(service: Service) -> None:
    with raw(service) as connection:
        connection.sendall(head("content-length: 100") + b"{")
        answered_before = 0
        for _ in range(5):
            assert predict(service, "great").status == 200
            answered_before += not select.select([connection], [], [], 0)[0]
        assert answered_before > 0
        assert status_of(connection) == 408


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_failure(service: Service) -> None:
    before = len(service.log)
    with raw(service) as connection:
        connection.sendall(head("content-length: 100") + b"{")
    wait_until(lambda: any('"status": 499' in line for line in service.log[before:]))


def wait_until(happened: Any) -> None:
    given_up, pause = time.monotonic() + BOUND_S, threading.Event()
    while not happened():
        assert time.monotonic() < given_up, "it did not happen"
        pause.wait(0.01)


# --- the key ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        KEY,
        f"Bearer {KEY}x",
        f"bearer{KEY}",
        f"Basic {KEY}",
        "Bearer \xe9",
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/", "/info", "/metrics"])
def test_without_the_right_key_nothing_is_told(locked: Service, path: str, shown: str | None) -> None:
    content = {"inputs": "great"} if path in ("/predict", "/") else None
    headers = {} if shown is None else {"authorization": shown}
    answer = locked.ask(path, content, **headers)
    assert (answer.status, answer.json["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert KEY not in answer.body.decode()


def test_the_right_key_opens_and_health_is_open_to_all(locked: Service) -> None:
    for shown in (f"Bearer {KEY}", f"bearer {KEY}", f"BEARER  {KEY}"):
        assert locked.ask("/predict", {"inputs": "great"}, authorization=shown).status == 200
    assert [locked.ask(path).status for path in ("/health", "/ready", "/docs", "/try", "/openapi.json")] == [200] * 5
    assert all(KEY not in line for line in locked.log)


def test_no_url_that_a_client_names_is_fetched(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tempting:
        url = f"http://127.0.0.1:{tempting.getsockname()[1]}/bundle"
        assert service.ask("/predict", {"inputs": [url, f"package://{url}", "file:///etc/passwd"]}).status == 200
        assert service.ask("/", {"inputs": url}, x_forwarded_host=url, referer=url).status == 200
        for extra in ("bundle", "model", "url", "parameters"):
            service.ask("/predict", {"inputs": "great", extra: url})
        tempting.settimeout(0)  # whoever connected is there by now
        with pytest.raises(BlockingIOError):
            tempting.accept()


# --- what is told beside the answer ----------------------------------------------------------------------------------


def test_each_request_is_logged_once_as_json_and_never_with_its_text(service: Service) -> None:
    secret = "a confidential sentence"
    service.ask("/predict", {"inputs": [secret, secret + "\ud800"]}, x_request_id="logged-1")
    service.ask("/predict", {"inputs": [secret, {secret: 1}]}, x_request_id="logged-2")
    service.ask("/predict", b'{"inputs": "' + secret.encode(), x_request_id="logged-3")

    def logged() -> list[dict[str, Any]]:
        # A line is written after the answer: that of an earlier test may still come.
        return [line for line in map(json.loads, service.log) if str(line["request_id"]).startswith("logged-")]

    wait_until(lambda: len(logged()) >= 3)
    first, second, third = logged()
    assert (first["path"], first["status"], first["texts"]) == ("/predict", 200, 2)
    assert first["ms"] >= first["model_ms"] > 0
    assert (second["status"], third["status"]) == (422, 400)
    assert not [line for line in service.log if "confidential" in line]


def test_an_answer_says_how_long_its_stages_took(service: Service) -> None:
    timing = predict(service, TEXTS).headers["server-timing"]
    stages = {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", timing)}
    assert list(stages) == ["read", "encode", "queue", "model", "total"]
    assert sum(stages.values()) - stages["total"] <= stages["total"] + 0.1


def samples(service: Service) -> dict[tuple[str, str], float]:
    text = service.ask("/metrics").body.decode()
    return {
        (one.name, " ".join(f"{k}={v}" for k, v in sorted(one.labels.items()) if k != "replica")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_prometheus_can_read_what_is_counted(service: Service) -> None:
    before = samples(service)
    predict(service, ["great", "", TEXTS[2]])
    predict(service, 1)
    after = samples(service)
    grown = {key: after[key] - before.get(key, 0) for key in after}
    assert grown["textcls_requests_total", "path=/predict status=200"] == 1
    assert grown["textcls_requests_total", "path=/predict status=422"] == 1
    assert grown["textcls_texts_total", "outcome=scored"] == 2
    assert grown["textcls_texts_total", "outcome=empty_text"] == 1
    assert grown["textcls_truncated_texts_total", ""] == 1
    assert grown["textcls_batch_texts_sum", ""] == 2
    assert after["textcls_waiting_texts", ""] == 0
    assert ("process_resident_memory_bytes", "") in after


def test_a_bug_is_told_by_its_place_and_the_service_goes_on(tiny_bundle: Path) -> None:
    with service_of(tiny_bundle) as broken:
        classifier = broken.scorer.classifier
        broken.scorer.classifier = object()  # type: ignore[assignment]
        answer = predict(broken, "a confidential sentence")
        assert (answer.status, answer.json["error"]["code"]) == (500, "internal")
        broken.scorer.classifier = classifier
        assert predict(broken, "great").status == 200
        line = json.loads(broken.log[0])
        assert "AttributeError at " in line["failure"]
        assert "confidential" not in "".join(broken.log)


def test_a_text_that_the_model_fails_on_does_not_fail_its_neighbours(tiny_bundle: Path, classifier: Classifier) -> None:
    with service_of(tiny_bundle) as odd:
        bad = classifier.encode(["awful"])[0].windows[0]
        inner = odd.scorer.classifier
        assert inner is not None
        whole = inner.score_encoded

        def fails(encoded: Any) -> Any:
            if any(list(one.windows[0]) == list(bad) for one in encoded):
                raise RuntimeError("out of memory")
            return whole(encoded)

        inner.score_encoded = fails  # type: ignore[method-assign]
        first, second, third = predict(odd, ["great", "awful", "dull"]).json["predictions"]
        assert second["error"]["code"] == "scoring_failed"
        assert sorted(first) == sorted(third) == PREDICTION
        assert odd.ask("/", {"inputs": "awful"}).status == 500


# --- another bundle --------------------------------------------------------------------------------------------------


def test_bundles_are_swapped_under_load_and_every_answer_is_one_bundle_s_own(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    paths = [save_tiny_bundle(tiny_model_dir, tmp_path / f"b{seed}", seed=seed) for seed in (1, 2)]
    own = {}
    for path in paths:
        alone = Classifier.load(str(path), device="cpu", precision="fp32")
        own[alone.bundle.digest] = alone.scores(TEXTS).probabilities.max(axis=1)
    with service_of(paths[0], ServeSpec(max_batch_tokens=64)) as serving:
        stop, answers = threading.Event(), []

        def ask() -> None:
            while not stop.is_set():
                answers.append(predict(serving, TEXTS))

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        try:
            for turn in range(6):
                serving.run(serving.scorer.load(str(paths[(turn + 1) % 2])))
                assert serving.scorer.problem == ""
        finally:
            stop.set()
            for asker in askers:
                asker.join(BOUND_S)
    seen = set()
    for answer in answers:
        assert answer.status == 200
        digest = answer.json["model"]["digest"]
        seen.add(digest)
        found = [one["score"] for one in answer.json["predictions"]]
        assert found == pytest.approx(own[digest], abs=1e-5)
    assert seen == set(own)


def test_info_states_the_privacy_of_the_bundle(tiny_bundle: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    stated = Privacy(
        epsilon=7.9,
        delta=1e-4,
        accountant="PRV",
        sampling_rate=0.2,
        steps=100,
        noise_multiplier=1.2,
        max_grad_norm=0.1,
        not_covered=("The label names are not protected.",),
    )
    private = save_tiny_bundle(tiny_model_dir, tmp_path / "private", privacy=stated)
    with service_of(private) as serving:
        found = serving.ask("/info").json["model"]["privacy"]
    assert found == stated.model_dump(mode="json")
    assert (found["epsilon"], found["unit"]) == (7.9, "row")
    assert "privacy" in (private / "bundle.json").read_text()
    assert "privacy" not in json.loads((tiny_bundle / "bundle.json").read_text())


def test_a_bad_bundle_leaves_the_old_one_serving_and_info_says_why(
    tiny_bundle: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    damaged = save_tiny_bundle(tiny_model_dir, tmp_path / "damaged", seed=3)
    weights = bytearray((damaged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(weights)
    with service_of(tiny_bundle) as serving:
        before = serving.ask("/info").json["model"]
        serving.run(serving.scorer.load(str(damaged)))
        info = serving.ask("/info").json
        assert info["model"] == before
        assert "model.safetensors is damaged" in info["last_load_failed"]
        assert predict(serving, "great").status == 200
        serving.run(serving.scorer.load(str(tiny_bundle)))
        assert serving.ask("/info").json["last_load_failed"] is None


@pytest.mark.parametrize("allowed", [False, True], ids=["by default", "--allow-new-labels"])
def test_a_bundle_with_other_labels_is_refused_unless_the_service_was_started_to_take_them(
    allowed: bool, tiny_bundle: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    other = save_tiny_bundle(tiny_model_dir, tmp_path / "other", seed=3, labels=("bad", "good", "great"))
    with service_of(tiny_bundle, ServeSpec(allow_new_labels=allowed)) as serving:
        serving.run(serving.scorer.load(str(other)))
        info = serving.ask("/info").json
    if allowed:
        assert (info["labels"], info["last_load_failed"]) == (["bad", "good", "great"], None)
    else:
        assert info["labels"] == ["bad", "good", "so so"]
        assert "['great'] are new, ['so so'] are gone" in info["last_load_failed"]
        assert "--allow-new-labels" in info["last_load_failed"]


def test_a_replica_that_starts_after_a_refusal_keeps_to_the_labels_that_serve(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    other = save_tiny_bundle(tiny_model_dir, tmp_path / "other", seed=3, labels=("bad", "good", "great"))
    with service_of(None) as new, pytest.raises(BundleError, match="other labels"):
        new.run(new.scorer.load(str(other), ["bad", "good", "so so"]))


def test_the_first_bundle_must_load(tmp_path: Path) -> None:
    with service_of(None) as empty, pytest.raises(Exception, match=r"no bundle\.json"):
        empty.run(empty.scorer.load(str(tmp_path)))


def test_the_batcher_s_refusal_is_what_the_scorer_raises(service: Service) -> None:
    with pytest.raises(QueueFull):
        service.run(service.scorer.score([TextInput("a")] * 65))


def test_info_names_what_is_masked_and_masked_texts_score_as_placeholders(tiny_model_dir: Path, tmp_path: Path) -> None:
    bundle = save_tiny_bundle(
        tiny_model_dir, tmp_path / "masked", mask=("email", "number"), mask_patterns={"staff_id": r"E\d{6}"}
    )
    with service_of(bundle) as serving:
        assert serving.ask("/info").json["masks"] == {
            "staff_id": "[STAFF_ID]",
            "email": "[EMAIL]",
            "number": "[NUMBER]",
        }
        texts = ["mail a@example.com, E123456", "mail [EMAIL], [STAFF_ID]", "mail a@example, E123"]
        found = [one["scores"] for one in serving.ask("/predict", {"inputs": texts}).json["predictions"]]
        assert found[0] == found[1] != found[2]
