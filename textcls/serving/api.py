"""The HTTP API of the service, as an ASGI application.

In: requests, a `Scorer`, limits and a key. Out: responses; a log line and metrics for each. Not here: the paths
(routes.py), what requests and errors look like (schema.py), reading a body (body.py), batching (batcher.py), Ray
(app.py).

The text of a request never reaches a log.
"""

import base64
import hashlib
import hmac
import json
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from textcls.inference.classifier import Scores
from textcls.inference.encoding import ItemError
from textcls.plain_text import json_text
from textcls.serving import schema
from textcls.serving.batcher import QueueFull
from textcls.serving.body import read_body
from textcls.serving.cors import Cors
from textcls.serving.counters import Counters
from textcls.serving.explain_schema import read_explain
from textcls.serving.explainer import Explainer, TooManyWords, UnknownLabel
from textcls.serving.openapi import openapi
from textcls.serving.routes import JSON, ROUTES, ApiRoute
from textcls.serving.schema import Refusal, ScoringRequest, to_json
from textcls.serving.scorer import NotReady, ScoredRequest, Scorer, TextScores
from textcls.settings.serve import ServeSpec
from textcls.text.masks import mask_kinds

_SAFE_HEADERS = [(name.encode(), value.encode()) for name, value in schema.SAFE_HEADERS.items()]
_CLIENT_LEFT = 499  # nginx's status for a client that closed the connection before the response
Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """The ASGI application: Starlette's router, with headers, log and metrics around it.

    Exceptions become responses in `_error_response`, not in Starlette's exception middleware, which is slowest where
    the service has the least time: a 429 takes 57 us of CPU with it and 50 us without; with a hand-written router in
    place of Starlette's, 47 us; a response of /predict takes 71, 64 and 65 us (without a socket; the least of five
    alternated runs of 7 x 4,000 requests). The class `Starlette` also re-raises unexpected exceptions, and the server
    would log their messages, which may hold a text.

    Args:
        scorer: scores texts.
        limits: on requests.
        version: of textcls, for /info and /docs.
        key: the API key that clients must send; None without one.
        replica: its name, for /metrics.
        log: takes one line of JSON for each request, if `limits.log_requests`.
    """

    def __init__(
        self,
        scorer: Scorer,
        limits: ServeSpec,
        *,
        version: str,
        key: str | None = None,
        replica: str = "",
        log: logging.Logger | None = None,
    ) -> None:
        self._scorer, self._limits, self._version = scorer, limits, version
        self._explainer = Explainer(scorer)
        self._key = None if key is None else key.encode()
        self._log = log or logging.getLogger(__name__)
        self.counters = Counters(replica)
        self.counters.waiting.set_function(lambda: scorer.batcher.admitted)
        scorer.batcher.on_batch = self.counters.batch
        self._cors = Cors(limits.cors_origins)
        self._documents = {
            pairs: to_json(openapi(limits, version, keyed=key is not None, pairs=pairs)) for pairs in (False, True)
        }
        self.docs, self.try_page = _page("docs.html"), _page("try.html")
        self._methods = {route.path: route.method for route in ROUTES}
        routes = [Route(route.path, self._endpoint(route), methods=[route.method]) for route in ROUTES]
        self._router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Responds to a request; also takes part in a server's startup and shutdown."""
        scope["app"] = self  # the router then raises for 404 and 405
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        started = time.perf_counter()
        request = Request(scope)
        status = _CLIENT_LEFT

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = self._cors.headers(request)
                message["headers"] += _SAFE_HEADERS
                message["headers"] += [(name.encode(), value.encode("latin-1")) for name, value in added.items()]
            await send(message)

        try:
            await self._router(scope, receive, send_with_headers)
        except HTTPException:
            await self._no_route(request)(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = _CLIENT_LEFT
        finally:
            self._record(request, status, time.perf_counter() - started)

    def _endpoint(self, route: ApiRoute) -> Handler:
        """What the router calls for a route: checks the key, handles the request, and responds to any error."""
        handler: Handler = getattr(self, route.handler)
        key = self._key if route.needs_key else None

        async def respond(request: Request) -> Response:
            try:
                if key is not None:
                    _check_key(request, key)
                return await handler(request)
            except ClientDisconnect:
                raise
            except Exception as error:
                return _error_response(request, error)

        return respond

    def _no_route(self, request: Request) -> Response:
        """404 or 405; also the response to a preflight (CORS), since no route accepts OPTIONS."""
        if "route" not in request.scope:
            return _refused(Refusal("not_found", f"there is nothing at this path; there is {' '.join(self._methods)}"))
        method = self._methods[request.scope["route"].path]
        if preflight := self._cors.preflight(request, method):
            return preflight
        refusal = Refusal("method_not_allowed", f"this path takes {method}")
        refusal.headers["allow"] = method
        return _refused(refusal)

    # --- requests to the model ---------------------------------------------------------------------------------------

    async def predict(self, request: Request) -> Response:
        """POST /predict."""
        asked, scored, stages = await self._score(request, schema.read_predict)
        model = scored.classifier
        content = {
            "predictions": [_prediction(outcome, asked.top_k) for outcome in scored.outcomes],
            "model": {"digest": model.bundle.digest, "precision": model.precision},
        }
        return Response(to_json(content), media_type=JSON, headers={"server-timing": stages})

    async def classify(self, request: Request) -> Response:
        """POST /: Hugging Face's text-classification task."""
        asked, scored, stages = await self._score(request, self._read_task)
        if not asked.listed and isinstance(failed := scored.outcomes[0], ItemError):
            if failed.code == "scoring_failed":
                raise Refusal("internal", failed.message)
            raise Refusal("unusable_text", f"{failed.code}: {failed.message}")
        predictions = [_prediction(outcome, asked.top_k) for outcome in scored.outcomes]
        content = [one if "error" in one else one["scores"] for one in predictions]
        return Response(to_json(content), media_type=JSON, headers={"server-timing": stages})

    def _read_task(self, body: bytes, limits: ServeSpec) -> ScoringRequest:
        asked, classifier = schema.read_task(body, limits), self._scorer.classifier
        if classifier is not None and asked.max_length is not None and asked.max_length < classifier.max_tokens:
            found = f"max_length {asked.max_length} would give other scores than the bundle's"
            raise Refusal("invalid", f"{found}, which cuts at {classifier.max_tokens} tokens; leave it out")
        if classifier is not None and asked.function_to_apply not in (None, classifier.task.function_to_apply):
            found = f"function_to_apply {asked.function_to_apply} would give other scores than the bundle's"
            raise Refusal("invalid", f"{found}, which come from {classifier.task.function_to_apply}; leave it out")
        return asked

    async def explain(self, request: Request) -> Response:
        """POST /explain."""
        if not self._limits.explain_share:
            raise Refusal("not_found", "this service explains nothing: its serve.explain_share is 0")
        started = time.perf_counter()
        one, label = read_explain(await self._body(request), self._limits)
        if (classifier := self._scorer.classifier) is not None:
            schema.refuse_other_inputs([one], pairs=classifier.pairs)
        try:
            found = await self._explainer.explain(one, label)
        except TooManyWords as error:
            told = f"the model reads {error.words} words of the text, and at most {error.limit} are explained"
            todo = "send a shorter one, or explain it with `textcls explain`"
            raise Refusal("too_many_words", f"{told}; {todo}") from None
        except UnknownLabel as error:
            raise Refusal("unknown_label", f"there is no such label; there is {_few(error.args)}") from None
        if isinstance(found, ItemError):
            raise Refusal("unusable_text", f"{found.code}: {found.message}")
        stages = {"queue": found.queue_s, "model": found.model_s}
        request.state.texts, request.state.stages = found.texts, stages
        timing = _server_timing(stages, time.perf_counter() - started)
        return Response(to_json(found.content(one)), media_type=JSON, headers={"server-timing": timing})

    async def _body(self, request: Request) -> bytes:
        """The body of a request that must be JSON."""
        content_type = request.headers.get("content-type", JSON)
        if content_type.partition(";")[0].strip().lower() != JSON:
            raise Refusal("not_json_type", f"send the header 'content-type: {JSON}'")
        limits = self._limits
        return await read_body(request, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)

    async def _score(
        self, request: Request, read: Callable[[bytes, ServeSpec], ScoringRequest]
    ) -> tuple[ScoringRequest, ScoredRequest, str]:
        """(the checked request, the outcomes of its texts, its stages for the header `server-timing`)."""
        started = time.perf_counter()
        asked = read(await self._body(request), self._limits)
        if (classifier := self._scorer.classifier) is not None:
            schema.refuse_other_inputs(asked.inputs, pairs=classifier.pairs)
        read_s = time.perf_counter() - started
        scored = await self._scorer.score(asked.inputs)
        self._count(scored)
        stages = {"read": read_s, "encode": scored.encode_s, "queue": scored.queue_s, "model": scored.model_s}
        timing = _server_timing(stages, time.perf_counter() - started)
        request.state.texts, request.state.stages = len(asked.inputs), stages
        return asked, scored, timing

    def _count(self, scored: ScoredRequest) -> None:
        counters = self.counters
        outcomes: dict[str, int] = {}
        for outcome in scored.outcomes:
            if isinstance(outcome, ItemError):
                name = outcome.code
            else:
                scores, row = outcome
                name = "abstain" if scores.abstained(row) else "scored"
                counters.tokens.inc(int(scores.tokens[row]))
                if scores.truncated[row]:
                    counters.truncated.inc()
            outcomes[name] = outcomes.get(name, 0) + 1
        for name, count in outcomes.items():
            counters.texts.labels(name).inc(count)
        counters.queue_seconds.observe(scored.queue_s)

    # --- requests to the service -------------------------------------------------------------------------------------

    async def info(self, request: Request) -> Response:
        """GET /info."""
        classifier = self._scorer.classifier
        if classifier is None:
            raise NotReady
        bundle = classifier.bundle
        shown = ("max_texts_per_request", "max_chars_per_text", "max_body_bytes", "max_queued_texts")
        of_explanations = {
            "method": "leave_one_out",
            "max_words": self._limits.max_words_to_explain,
            "max_chars": self._limits.max_chars_to_explain,
            "max_queued_texts": self._scorer.batcher.max_side_items,
        }
        content = {
            "labels": list(classifier.labels),
            "pairs": classifier.pairs,
            "max_tokens": classifier.max_tokens,
            "on_long": bundle.manifest.text.on_long,
            "masks": {kind.name: kind.placeholder for kind in mask_kinds(bundle.manifest.text)},
            **classifier.task.thresholds_as_json(classifier.thresholds, classifier.labels),
            "limits": {name: getattr(self._limits, name) for name in shown},
            "explain": of_explanations if self._limits.explain_share else None,
            "model": {
                "digest": bundle.digest,
                "uri": bundle.uri,
                "precision": classifier.precision,
                "device": classifier.device,
                # The first bundles held the full confusion matrix: 19 MB for 2,500 labels.
                "metrics": {name: value for name, value in bundle.manifest.metrics.items() if name != "confusion"},
                "calibration": bundle.manifest.calibration.model_dump(),
                "privacy": bundle.manifest.privacy and bundle.manifest.privacy.model_dump(mode="json"),
                "versions": bundle.manifest.versions,
            },
            "last_load_failed": self._scorer.problem or None,
            "version": self._version,
        }
        return Response(json_text(content).encode(), media_type=JSON)

    async def document(self, request: Request) -> Response:
        """GET /openapi.json: of the model in use; before one is loaded, of a model of one text."""
        classifier = self._scorer.classifier
        return Response(self._documents[classifier is not None and classifier.pairs], media_type=JSON)

    async def health(self, request: Request) -> Response:
        """GET /health."""
        return Response(to_json({"status": "ok"}), media_type=JSON)

    async def ready(self, request: Request) -> Response:
        """GET /ready."""
        if self._scorer.classifier is None:
            raise NotReady
        return Response(to_json({"status": "ready"}), media_type=JSON)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(self.counters.text(), media_type=Counters.content_type)

    # --- log and metrics ---------------------------------------------------------------------------------------------

    def _record(self, request: Request, status: int, seconds: float) -> None:
        known = request.scope["route"].path if "route" in request.scope else "other"
        self.counters.requests.labels(known, str(status)).inc()
        self.counters.request_seconds.labels(known).observe(seconds)
        failure = getattr(request.state, "failure", None)
        if not (failure or self._limits.log_requests):
            return
        line: dict[str, Any] = {
            "request_id": request.headers.get("x-request-id", "")[:128],
            "path": known,
            "status": status,
            "ms": round(1000 * seconds, 2),
        }
        if (texts := getattr(request.state, "texts", None)) is not None:
            line["texts"] = texts
            line |= {f"{name}_ms": round(1000 * s, 2) for name, s in request.state.stages.items()}
        if failure:
            line["failure"] = failure
        self._log.log(logging.ERROR if failure else logging.INFO, json.dumps(line))


def _prediction(outcome: TextScores | ItemError, top_k: int | None) -> dict[str, Any]:
    if isinstance(outcome, ItemError):
        return {"error": {"code": outcome.code, "message": outcome.message}}
    scores, row = outcome
    return {
        **scores.answer(row, top_k),
        "tokens": int(scores.tokens[row]),
        **_text_tokens(scores, row),
        "truncated": bool(scores.truncated[row]),
        "unknown_tokens": int(scores.unknown[row]),
    }


def _few(labels: Sequence[str]) -> str:
    """The first ten labels, for a message."""
    return ", ".join(map(repr, labels[:10])) + ", ..." * (len(labels) > 10)


def _server_timing(stages: Mapping[str, float], total_s: float) -> str:
    """The header of this name, from seconds by stage."""
    return ", ".join(f"{name};dur={1000 * s:.2f}" for name, s in [*stages.items(), ("total", total_s)])


def _text_tokens(scores: Scores, row: int) -> dict[str, int]:
    """Tokens of each text of a pair; nothing for one text."""
    if scores.text_tokens is None:
        return {}
    return dict(zip(("first_tokens", "second_tokens"), scores.text_tokens[row].tolist(), strict=True))


def _check_key(request: Request, key: bytes) -> None:
    # RFC 9110: the scheme in any case, then one or more spaces.
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    is_key = hmac.compare_digest(sent.strip(" ").encode("latin-1", "replace"), key)
    if scheme.lower() != "bearer" or not is_key:
        refusal = Refusal("unauthorized", "the header 'Authorization: Bearer KEY' with the right key is needed")
        refusal.headers["www-authenticate"] = "Bearer"
        raise refusal


def _error_response(request: Request, error: Exception) -> Response:
    """The response to an exception of a handler; an unexpected one is logged by its class and place."""
    if isinstance(error, Refusal):
        return _refused(error)
    if isinstance(error, QueueFull):
        wait_s = max(1, math.ceil(error.wait_s))
        found = f"{error.waiting} texts are waiting, which take about {error.wait_s:.1f} s"
        response = _refused(Refusal("overloaded", f"{found}; come back later", retry_after_s=wait_s))
        response.headers[schema.QUEUE_MS] = str(math.ceil(1000 * error.wait_s))
        return response
    if isinstance(error, NotReady):
        return _refused(Refusal("not_ready", "the model is not loaded yet", retry_after_s=1))
    # Not the error's message: it may hold a text.
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else ""
    request.state.failure = f"{type(error).__name__} at {place}"
    return _refused(Refusal("internal", "the service failed; its log says why"))


def _refused(refusal: Refusal) -> Response:
    return Response(to_json(refusal.body()), refusal.status, refusal.headers, JSON)


def _static(content: bytes, media_type: str, headers: dict[str, str] | None = None) -> Handler:
    async def respond(request: Request) -> Response:
        return Response(content, HTTPStatus.OK, headers, media_type)

    return respond


def _page(name: str) -> Handler:
    """One of our pages, whose policy allows its own script and requests to its own service, and nothing else."""
    page = files("textcls.serving").joinpath("pages", name).read_text(encoding="utf-8")

    def allowed(tag: str) -> str:
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; connect-src 'self'; script-src {allowed('script')}; style-src {allowed('style')}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "referrer-policy": "no-referrer"}
    return _static(page.encode(), "text/html", headers)
