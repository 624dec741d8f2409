"""Responses to errors, our pages, and the header that says how long a request took.

In: an exception of a handler, the name of a page, seconds. Out: Starlette responses. Not here: what is refused (api.py
and what it calls), the table of errors (refusals.py), what answers hold (answers.py).

The text of a request never reaches a log.
"""

import base64
import hashlib
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from textcls.serving.batcher import QueueFull
from textcls.serving.refusals import QUEUE_MS, Refusal
from textcls.serving.response_schema import to_json
from textcls.serving.routes import JSON
from textcls.serving.scorer import NotReady

Handler = Callable[[Request], Awaitable[Response]]


def error_response(request: Request, error: Exception) -> Response:
    """The response to an exception of a handler; an unexpected one is logged by its class and place."""
    if isinstance(error, Refusal):
        return refused(error)
    if isinstance(error, QueueFull):
        wait_s = max(1, math.ceil(error.wait_s))
        found = f"{error.waiting} texts are waiting, which take about {error.wait_s:.1f} s"
        response = refused(Refusal("overloaded", f"{found}; come back later", retry_after_s=wait_s))
        response.headers[QUEUE_MS] = str(math.ceil(1000 * error.wait_s))
        return response
    if isinstance(error, NotReady):
        return refused(Refusal("not_ready", "the model is not loaded yet", retry_after_s=1))
    # Not the error's message: it may hold a text.
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else ""
    request.state.failure = f"{type(error).__name__} at {place}"
    return refused(Refusal("internal", "the service failed; its log says why"))


def refused(refusal: Refusal) -> Response:
    """The response to a refused request."""
    return Response(to_json(refusal.body()), refusal.status, refusal.headers, JSON)


def page_handler(name: str) -> Handler:
    """Responds with one of our pages, whose policy allows its own script, requests to its own service, nothing else."""
    page = files("textcls.serving").joinpath("pages", name).read_text(encoding="utf-8")

    def allowed(tag: str) -> str:
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; connect-src 'self'; script-src {allowed('script')}; style-src {allowed('style')}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "referrer-policy": "no-referrer"}
    content = page.encode()

    async def respond(request: Request) -> Response:
        return Response(content, HTTPStatus.OK, headers, "text/html")

    return respond


def server_timing(stages: Mapping[str, float], total_s: float) -> str:
    """The header of this name, from seconds by stage."""
    return ", ".join(f"{name};dur={1000 * s:.2f}" for name, s in [*stages.items(), ("total", total_s)])
