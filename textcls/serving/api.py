"""The HTTP API of the service, as an ASGI application.

In: requests, a `Scorer`, limits and a key. Out: responses; a log line and metrics for each. Not here: the paths
(routes.py), reading requests (body.py, request_schema.py), what answers hold (answers.py), responses to errors
(responses.py), batching (batcher.py), Ray (app.py).

The text of a request never reaches a log.
"""

import hmac
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from textcls.inference.encoding import ItemError
from textcls.plain_text import json_text
from textcls.serving.answers import info_of, prediction
from textcls.serving.body import read_body
from textcls.serving.cors import Cors
from textcls.serving.counters import Counters
from textcls.serving.explain_schema import read_explain
from textcls.serving.explainer import Explainer, TooManyWords, UnknownLabel
from textcls.serving.openapi import openapi
from textcls.serving.refusals import SAFE_HEADERS, Refusal
from textcls.serving.request_schema import ScoringRequest, read_predict, read_task, refuse_other_inputs
from textcls.serving.response_schema import to_json
from textcls.serving.responses import Handler, error_response, page_handler, refused, server_timing
from textcls.serving.routes import JSON, ROUTES, ApiRoute
from textcls.serving.scorer import NotReady, ScoredRequest, Scorer
from textcls.settings.serve import ServeSpec

_SAFE_HEADERS = [(name.encode(), value.encode()) for name, value in SAFE_HEADERS.items()]
_CLIENT_LEFT = 499  # nginx's status for a client that closed the connection before the response


class Api:
    """The ASGI application: Starlette's router, with headers, log and metrics around it.

    Exceptions become responses in `error_response`, not in Starlette's exception middleware, which is slowest where
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
        self.docs, self.try_page = page_handler("docs.html"), page_handler("try.html")
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
                return error_response(request, error)

        return respond

    def _no_route(self, request: Request) -> Response:
        """404 or 405; also the response to a preflight (CORS), since no route accepts OPTIONS."""
        if "route" not in request.scope:
            return refused(Refusal("not_found", f"there is nothing at this path; there is {' '.join(self._methods)}"))
        method = self._methods[request.scope["route"].path]
        if preflight := self._cors.preflight(request, method):
            return preflight
        refusal = Refusal("method_not_allowed", f"this path takes {method}")
        refusal.headers["allow"] = method
        return refused(refusal)

    # --- requests to the model ---------------------------------------------------------------------------------------

    async def predict(self, request: Request) -> Response:
        """POST /predict."""
        asked, scored, stages = await self._score(request, read_predict)
        model = scored.classifier
        content = {
            "predictions": [prediction(outcome, asked.top_k) for outcome in scored.outcomes],
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
        predictions = [prediction(outcome, asked.top_k) for outcome in scored.outcomes]
        content = [one if "error" in one else one["scores"] for one in predictions]
        return Response(to_json(content), media_type=JSON, headers={"server-timing": stages})

    def _read_task(self, body: bytes, limits: ServeSpec) -> ScoringRequest:
        asked, classifier = read_task(body, limits), self._scorer.classifier
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
            refuse_other_inputs([one], pairs=classifier.pairs)
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
        timing = server_timing(stages, time.perf_counter() - started)
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
            refuse_other_inputs(asked.inputs, pairs=classifier.pairs)
        read_s = time.perf_counter() - started
        scored = await self._scorer.score(asked.inputs)
        self._count(scored)
        stages = {"read": read_s, "encode": scored.encode_s, "queue": scored.queue_s, "model": scored.model_s}
        timing = server_timing(stages, time.perf_counter() - started)
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
        content = info_of(self._scorer, self._limits, self._version)
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


def _few(labels: Sequence[str]) -> str:
    """The first ten labels, for a message."""
    return ", ".join(map(repr, labels[:10])) + ", ..." * (len(labels) > 10)


def _check_key(request: Request, key: bytes) -> None:
    # RFC 9110: the scheme in any case, then one or more spaces.
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    is_key = hmac.compare_digest(sent.strip(" ").encode("latin-1", "replace"), key)
    if scheme.lower() != "bearer" or not is_key:
        refusal = Refusal("unauthorized", "the header 'Authorization: Bearer KEY' with the right key is needed")
        refusal.headers["www-authenticate"] = "Bearer"
        raise refusal
