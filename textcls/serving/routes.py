"""The paths of the service: one table, from which the router and the OpenAPI document are built.

In: the models of requests and responses. Out: `ROUTES`. Not here: the handlers (api.py), the document (openapi.py), the
models themselves (request_schema.py, response_schema.py, explain_schema.py), errors (refusals.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from textcls.serving.explain_schema import ExplainRequest, ExplainResponse
from textcls.serving.request_schema import PredictRequest, TaskRequest
from textcls.serving.response_schema import PredictResponse

JSON = "application/json"


@dataclass(frozen=True)
class ApiRoute:
    """One path of the service.

    Attributes:
        path: below the root path of the service.
        method: the only one that it accepts; GET includes HEAD.
        handler: name of the method of `Api` that handles it.
        summary: for the document.
        response: model of the JSON, or a content type.
        errors: codes of the errors that it can respond with, besides `unauthorized`.
        request: model of the JSON body; None without a body.
        needs_key: whether a request must carry the key, if the service has one.
    """

    path: str
    method: Literal["GET", "POST"]
    handler: str
    summary: str
    response: type[BaseModel] | str
    errors: Sequence[str] = ()
    request: type[BaseModel] | None = None
    needs_key: bool = False


_BODY_ERRORS = ("body_timeout", "body_too_large", "not_json_type", "unknown_encoding", "not_gzip", "not_json")
_TEXT_ERRORS = ("invalid", "too_many_texts", "too_many_characters", "overloaded", "internal", "not_ready")
_SCORING_ERRORS = (*_BODY_ERRORS, *_TEXT_ERRORS)
_EXPLAINING_ERRORS = ("not_found", "too_many_words", "unknown_label", "unusable_text")

ROUTES = (
    ApiRoute(
        "/predict",
        "POST",
        "predict",
        "Classify texts",
        PredictResponse,
        _SCORING_ERRORS,
        request=PredictRequest,
        needs_key=True,
    ),
    ApiRoute(
        "/",
        "POST",
        "classify",
        "Classify a text or several, as Hugging Face's text-classification task",
        JSON,
        (*_SCORING_ERRORS, "unusable_text"),
        request=TaskRequest,
        needs_key=True,
    ),
    ApiRoute(
        "/explain",
        "POST",
        "explain",
        "Why a text is classified as it is, word by word",
        ExplainResponse,
        (*(code for code in _SCORING_ERRORS if code != "too_many_texts"), *_EXPLAINING_ERRORS),
        request=ExplainRequest,
        needs_key=True,
    ),
    ApiRoute(
        "/info", "GET", "info", "The model, the limits and the bundle's metrics", JSON, ("not_ready",), needs_key=True
    ),
    ApiRoute("/health", "GET", "health", "Whether the process is alive; needs no key", JSON, ("not_ready",)),
    ApiRoute("/ready", "GET", "ready", "Whether requests are answered; needs no key", JSON, ("not_ready",)),
    ApiRoute("/metrics", "GET", "metrics", "Counters of this replica, for Prometheus", "text/plain", needs_key=True),
    ApiRoute("/docs", "GET", "docs", "This document as a page", "text/html"),
    ApiRoute("/try", "GET", "try_page", "A page to try the model", "text/html"),
    ApiRoute("/openapi.json", "GET", "document", "This document", JSON),
)
