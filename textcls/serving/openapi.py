"""The OpenAPI document of the service.

In: the limits of a service. Out: its OpenAPI 3.1 document, made of the models and the errors in schema.py.
Not here: requests and answers themselves.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from textcls.serving.schema import (
    QUEUE_MS,
    REFUSALS,
    ErrorResponse,
    FailedText,
    LabelScore,
    PredictRequest,
    PredictResponse,
    TaskRequest,
    needs_key,
)
from textcls.settings.recipe import ServeSpec

_JSON = "application/json"
_BODY_CODES = ("body_timeout", "body_too_large", "not_json_type", "unknown_encoding", "not_gzip", "not_json")
_TEXT_CODES = ("invalid", "too_many_texts", "too_many_characters", "overloaded", "internal", "not_ready")
_PREDICT_CODES = ("unauthorized", *_BODY_CODES, *_TEXT_CODES)
# path -> (method, summary, request, answer (a model or a content type), refusals)
_OPERATIONS: Mapping[str, tuple[str, str, type[BaseModel] | None, type[BaseModel] | str, Sequence[str]]] = {
    "/predict": ("post", "Classify texts", PredictRequest, PredictResponse, _PREDICT_CODES),
    "/": (
        "post",
        "Classify a text or several, as Hugging Face's text-classification task",
        TaskRequest,
        _JSON,
        (*_PREDICT_CODES, "unusable_text"),
    ),
    "/info": ("get", "The model, the limits and the bundle's metrics", None, _JSON, ("unauthorized", "not_ready")),
    "/health": ("get", "Whether the process lives; needs no key", None, _JSON, ("not_ready",)),
    "/ready": ("get", "Whether requests are answered; needs no key", None, _JSON, ("not_ready",)),
    "/metrics": ("get", "Counters of this replica, for Prometheus", None, "text/plain", ("unauthorized",)),
    "/docs": ("get", "This document as a page", None, "text/html", ()),
    "/try": ("get", "A page to try the model", None, "text/html", ()),
    "/openapi.json": ("get", "This document", None, _JSON, ()),
}


def openapi(limits: ServeSpec, version: str, *, keyed: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the service.

    Args:
        limits: the numbers it states.
        version: of textcls.
        keyed: whether a key is asked for.
    """
    kinds = (PredictRequest, TaskRequest, PredictResponse, ErrorResponse, LabelScore, FailedText)
    _, schemas = models_json_schema(
        [(kind, "validation") for kind in kinds], ref_template="#/components/schemas/{model}"
    )
    definitions = _filled(
        schemas["$defs"], {"maxLength": limits.max_chars_per_text, "maxItems": limits.max_texts_per_request}
    )
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "textcls",
            "version": version,
            "description": f"A text classifier. A body, which may be compressed with gzip, has at most "
            f"{limits.max_body_bytes} bytes, as sent and decompressed. "
            "Every answer carries `x-request-id`, and those of the model `server-timing`.",
        },
        "paths": {path: {operation[0]: _operation(path, *operation)} for path, operation in _OPERATIONS.items()},
        "components": {"schemas": definitions},
    }
    if keyed:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in document["paths"].items():
            for operation in methods.values():
                operation["security"] = [{"key": []}] if needs_key(path) else []
    return document


def _operation(
    path: str,
    method: str,
    summary: str,
    request: type[BaseModel] | None,
    answer: type[BaseModel] | str,
    codes: Sequence[str],
) -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{answer.__name__}"} if isinstance(answer, type) else {}
    if path == "/":
        ranked = {"type": "array", "items": {"$ref": "#/components/schemas/LabelScore"}}
        schema = {"type": "array", "items": {"anyOf": [ranked, {"$ref": "#/components/schemas/FailedText"}]}}
    kind = _JSON if isinstance(answer, type) else answer
    operation: dict[str, Any] = {
        "summary": summary,
        "operationId": f"{method}{path.replace('/', '_').replace('.', '_')}",
        "responses": {"200": {"description": "The answer", "content": {kind: {"schema": schema}}}},
    }
    if request is not None:
        body = {"schema": {"$ref": f"#/components/schemas/{request.__name__}"}}
        operation["requestBody"] = {"required": True, "content": {_JSON: body}}
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(REFUSALS[code][0], []).append(code)
    for status, same in sorted(by_status.items()):
        told = " ".join(f"`{code}`: {REFUSALS[code][1]}" for code in same)
        content = {_JSON: {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
        refusal: dict[str, Any] = {"description": f"{HTTPStatus(status).phrase}. {told}", "content": content}
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            headers = {"Retry-After": "seconds", QUEUE_MS: "milliseconds that what waits will take, where it is known"}
            refusal["headers"] = {
                name: {"schema": {"type": "integer"}, "description": what} for name, what in headers.items()
            }
        operation["responses"][str(status)] = refusal
    return operation


def _filled(schema: Any, numbers: Mapping[str, int]) -> Any:
    """A schema with the limits in place of the zeros that stand for them."""
    if isinstance(schema, dict):
        return {
            key: numbers[key] if value == 0 and key in numbers else _filled(value, numbers)
            for key, value in schema.items()
        }
    return [_filled(value, numbers) for value in schema] if isinstance(schema, list) else schema
