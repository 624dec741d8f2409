"""The HTTP side of the service, as an ASGI application.

In: requests, a `Scorer`, limits and a key. Out: answers, one log line and some counts for each. Not here: what requests
and errors look like (schema.py), how far a body is read (body.py), when the model runs (batcher.py), Ray (app.py).

A text never reaches a log.
"""

import base64
import hashlib
import hmac
import json
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from textcls.inference.classifier import ItemError
from textcls.plain_text import json_text
from textcls.serving import schema
from textcls.serving.batcher import QueueFull
from textcls.serving.body import read_body
from textcls.serving.cors import Cors
from textcls.serving.counters import Counters
from textcls.serving.openapi import openapi
from textcls.serving.schema import Asked, Refusal, to_json
from textcls.serving.scorer import NotReady, Scored, Scorer, Scoring
from textcls.settings.recipe import ServeSpec

_JSON = "application/json"
_GONE = 499  # as nginx has it: the client left before its answer
Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """The ASGI application.

    Args:
        scorer: what scores.
        limits: of requests.
        version: of textcls, for /info and /docs.
        key: what clients must show; None if anyone may ask.
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
        self._key = None if key is None else key.encode()
        self._log = log or logging.getLogger(__name__)
        self.counters = Counters(replica)
        self.counters.waiting.set_function(lambda: scorer.batcher.admitted)
        scorer.batcher.on_batch = self.counters.batch
        self._cors = Cors(limits.cors_origins)
        document = to_json(openapi(limits, version, keyed=key is not None))
        self._handlers: dict[str, tuple[str, Handler]] = {
            "/predict": ("POST", self._predict),
            "/": ("POST", self._task),
            "/info": ("GET", self._info),
            "/health": ("GET", self._health),
            "/ready": ("GET", self._ready),
            "/metrics": ("GET", self._metrics),
            "/docs": ("GET", _page("docs.html")),
            "/try": ("GET", _page("try.html")),
            "/openapi.json": ("GET", _always(Response(document, media_type=_JSON))),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request; also plays its part in a server's start and end."""
        if scope["type"] == "lifespan":
            for moment in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{moment}.complete"})
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        began = time.perf_counter()
        request = Request(scope, receive)
        status = _GONE
        try:
            response = await self._answer(request)
            status = response.status_code
            await response(scope, receive, send)
        except ClientDisconnect:
            status = _GONE
        finally:
            self._record(request, status, time.perf_counter() - began)

    async def _answer(self, request: Request) -> Response:
        try:
            response = self._preflight(request) or await self._handler(request)(request)
        except Refusal as refusal:
            response = _refused(refusal)
        except QueueFull as full:
            wait_s = max(1, math.ceil(full.wait_s))
            found = f"{full.waiting} texts are waiting, which take about {full.wait_s:.1f} s"
            response = _refused(Refusal("overloaded", f"{found}; come back later", retry_after_s=wait_s))
            response.headers[schema.QUEUE_MS] = str(math.ceil(1000 * full.wait_s))
        except NotReady:
            response = _refused(Refusal("not_ready", "the model is not loaded yet", retry_after_s=1))
        except ClientDisconnect:
            raise
        except Exception as error:
            # Not its message: it may hold a text.
            where = error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else ""
            request.state.failure = f"{type(error).__name__} at {place}"
            response = _refused(Refusal("internal", "the service failed; its log says why"))
        response.headers.update(schema.SAFE_HEADERS | self._cors.headers(request))
        return response

    def _preflight(self, request: Request) -> Response | None:
        method, _ = self._handlers.get(_path(request), ("", None))
        return self._cors.preflight(request, method) if method else None

    def _handler(self, request: Request) -> Handler:
        path = _path(request)
        if path not in self._handlers:
            raise Refusal("not_found", f"there is nothing at this path; there is {' '.join(self._handlers)}")
        method, handler = self._handlers[path]
        if request.method != method and (request.method, method) != ("HEAD", "GET"):
            refusal = Refusal("method_not_allowed", f"this path takes {method}")
            refusal.headers["allow"] = method
            raise refusal
        if self._key is not None and schema.needs_key(path):
            # RFC 9110: the scheme in any case, then one blank or more.
            scheme, _, shown = request.headers.get("authorization", "").partition(" ")
            is_key = hmac.compare_digest(shown.strip(" ").encode("latin-1", "replace"), self._key)
            if scheme.lower() != "bearer" or not is_key:
                refusal = Refusal("unauthorized", "the header 'Authorization: Bearer KEY' with the right key is needed")
                refusal.headers["www-authenticate"] = "Bearer"
                raise refusal
        return handler

    # --- what asks the model -----------------------------------------------------------------------------------------

    async def _predict(self, request: Request) -> Response:
        asked, scoring, stages = await self._scoring(request, schema.read_predict)
        model = scoring.classifier
        content = {
            "predictions": [_prediction(outcome, asked.top_k) for outcome in scoring.outcomes],
            "model": {"digest": model.bundle.digest, "precision": model.precision},
        }
        return Response(to_json(content), media_type=_JSON, headers={"server-timing": stages})

    async def _task(self, request: Request) -> Response:
        asked, scoring, stages = await self._scoring(request, self._read_task)
        if not asked.listed and isinstance(failed := scoring.outcomes[0], ItemError):
            if failed.code == "scoring_failed":
                raise Refusal("internal", failed.message)
            raise Refusal("unusable_text", f"{failed.code}: {failed.message}")
        predictions = [_prediction(outcome, asked.top_k) for outcome in scoring.outcomes]
        content = [one if "error" in one else one["scores"] for one in predictions]
        return Response(to_json(content), media_type=_JSON, headers={"server-timing": stages})

    def _read_task(self, body: bytes, limits: ServeSpec) -> Asked:
        asked, classifier = schema.read_task(body, limits), self._scorer.classifier
        if classifier is not None and asked.max_length is not None and asked.max_length < classifier.max_tokens:
            found = f"max_length {asked.max_length} would give other scores than the bundle's"
            raise Refusal("invalid", f"{found}, which cuts at {classifier.max_tokens} tokens; leave it out")
        if classifier is not None and asked.function_to_apply not in (None, classifier.task.function_to_apply):
            found = f"function_to_apply {asked.function_to_apply} would give other scores than the bundle's"
            raise Refusal("invalid", f"{found}, which come from {classifier.task.function_to_apply}; leave it out")
        return asked

    async def _scoring(self, request: Request, read: Callable[[bytes, ServeSpec], Asked]) -> tuple[Asked, Scoring, str]:
        """(the request, what became of its texts, its stages for `server-timing`)."""
        began = time.perf_counter()
        kind = request.headers.get("content-type", _JSON)
        if kind.partition(";")[0].strip().lower() != _JSON:
            raise Refusal("not_json_type", f"send the header 'content-type: {_JSON}'")
        limits = self._limits
        body = await read_body(request, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
        asked = read(body, limits)
        read_s = time.perf_counter() - began
        scoring = await self._scorer.scoring(asked.inputs)
        self._count(scoring)
        total = time.perf_counter() - began
        stages = {"read": read_s, "encode": scoring.encode_s, "queue": scoring.queue_s, "model": scoring.model_s}
        timing = ", ".join(f"{name};dur={1000 * s:.2f}" for name, s in [*stages.items(), ("total", total)])
        request.state.texts, request.state.stages = len(asked.inputs), stages
        return asked, scoring, timing

    def _count(self, scoring: Scoring) -> None:
        counters = self.counters
        outcomes: dict[str, int] = {}
        for outcome in scoring.outcomes:
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
        counters.queue_seconds.observe(scoring.queue_s)

    # --- what asks the service ---------------------------------------------------------------------------------------

    async def _info(self, request: Request) -> Response:
        classifier = self._scorer.classifier
        if classifier is None:
            raise NotReady
        bundle = classifier.bundle
        shown = ("max_texts_per_request", "max_chars_per_text", "max_body_bytes", "max_queued_texts")
        content = {
            "labels": list(classifier.labels),
            "max_tokens": classifier.max_tokens,
            "on_long": bundle.manifest.text.on_long,
            "abstain_below": classifier.threshold,
            "limits": {name: getattr(self._limits, name) for name in shown},
            "model": {
                "digest": bundle.digest,
                "uri": bundle.uri,
                "precision": classifier.precision,
                "device": classifier.device,
                # Bundles once held the full confusion matrix: 19 MB for 2,500 labels.
                "metrics": {name: value for name, value in bundle.manifest.metrics.items() if name != "confusion"},
                "calibration": bundle.manifest.calibration.model_dump(),
                "versions": bundle.manifest.versions,
            },
            "last_load_failed": self._scorer.problem or None,
            "version": self._version,
        }
        return Response(json_text(content).encode(), media_type=_JSON)

    async def _health(self, request: Request) -> Response:
        return Response(to_json({"status": "ok"}), media_type=_JSON)

    async def _ready(self, request: Request) -> Response:
        if self._scorer.classifier is None:
            raise NotReady
        return Response(to_json({"status": "ready"}), media_type=_JSON)

    async def _metrics(self, request: Request) -> Response:
        return Response(self.counters.text(), media_type=Counters.content_type)

    # --- afterwards --------------------------------------------------------------------------------------------------

    def _record(self, request: Request, status: int, seconds: float) -> None:
        path = _path(request)
        known = path if path in self._handlers else "other"
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


def _path(request: Request) -> str:
    """The path below where the service is mounted."""
    path, root = str(request.scope["path"]), str(request.scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(root) else path


def _prediction(outcome: Scored | ItemError, top_k: int | None) -> dict[str, Any]:
    if isinstance(outcome, ItemError):
        return {"error": {"code": outcome.code, "message": outcome.message}}
    scores, row = outcome
    return {
        **scores.answer(row, top_k),
        "tokens": int(scores.tokens[row]),
        "truncated": bool(scores.truncated[row]),
    }


def _refused(refusal: Refusal) -> Response:
    return Response(to_json(refusal.body()), refusal.status, refusal.headers, _JSON)


def _always(response: Response) -> Handler:
    async def answer(request: Request) -> Response:
        # More headers are added to a response before it is sent: each request gets its own.
        return Response(response.body, response.status_code, dict(response.headers))

    return answer


def _page(name: str) -> Handler:
    """A page of ours, which may run its own script and ask its own service, and nothing else."""
    page = files("textcls.serving").joinpath("pages", name).read_text(encoding="utf-8")

    def allowed(tag: str) -> str:
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; connect-src 'self'; script-src {allowed('script')}; style-src {allowed('style')}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "referrer-policy": "no-referrer"}
    return _always(Response(page.encode(), HTTPStatus.OK, headers, "text/html"))
