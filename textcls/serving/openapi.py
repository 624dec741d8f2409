"""The OpenAPI document of the service.

In: the limits of a service. Out: its OpenAPI 3.1 document, made from the paths in routes.py, from the models in
request_schema.py, response_schema.py and explain_schema.py, and from the errors in refusals.py. Not here: handling
requests (api.py).
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic.json_schema import models_json_schema

from textcls.serving.explain_schema import ExplainRequest, ExplainResponse
from textcls.serving.refusals import QUEUE_MS, REFUSALS
from textcls.serving.request_schema import PredictRequest, TaskRequest, inputs_schema
from textcls.serving.response_schema import ErrorResponse, FailedText, LabelScore, PredictResponse
from textcls.serving.routes import JSON, ROUTES, ApiRoute
from textcls.settings.serve import ServeSpec


def openapi(limits: ServeSpec, version: str, *, keyed: bool, pairs: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the service.

    Args:
        limits: that it states.
        version: of textcls.
        keyed: whether the service has an API key.
        pairs: whether the model reads pairs of texts.
    """
    requests, responses = (PredictRequest, TaskRequest, ExplainRequest), (PredictResponse, ExplainResponse)
    kinds = (*requests, *responses, ErrorResponse, LabelScore, FailedText)
    _, schemas = models_json_schema(
        [(kind, "validation") for kind in kinds], ref_template="#/components/schemas/{model}"
    )
    for request in (PredictRequest, TaskRequest):
        asked = inputs_schema(pairs=pairs, strict=request is PredictRequest)
        schemas["$defs"][request.__name__]["properties"]["inputs"] |= asked
    definitions = _filled(
        schemas["$defs"], {"maxLength": limits.max_chars_per_text, "maxItems": limits.max_texts_per_request}
    )
    explained = definitions[ExplainRequest.__name__]
    text = {"type": "string", "maxLength": limits.max_chars_to_explain}
    explained["properties"]["text"] |= text
    explained["properties"]["text_pair"] |= text if pairs else {"type": "null"}
    explained["required"] = ["text", "text_pair"] if pairs else ["text"]
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "textcls",
            "version": version,
            "description": f"A text classifier. A body, which may be compressed with gzip, has at most "
            f"{limits.max_body_bytes} bytes, as sent and decompressed. "
            "Every answer carries `x-request-id`, and those of the model `server-timing`.",
        },
        "paths": {route.path: {route.method.lower(): _operation(route)} for route in ROUTES},
        "components": {"schemas": definitions},
    }
    if keyed:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for route in ROUTES:
            operation = document["paths"][route.path][route.method.lower()]
            operation["security"] = [{"key": []}] if route.needs_key else []
    return document


def _operation(route: ApiRoute) -> dict[str, Any]:
    model = route.response if isinstance(route.response, type) else None
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{model.__name__}"} if model else {}
    if route.path == "/":
        ranked = {"type": "array", "items": {"$ref": "#/components/schemas/LabelScore"}}
        schema = {"type": "array", "items": {"anyOf": [ranked, {"$ref": "#/components/schemas/FailedText"}]}}
    content_type = JSON if isinstance(route.response, type) else route.response
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}{route.path.replace('/', '_').replace('.', '_')}",
        "responses": {"200": {"description": "The answer", "content": {content_type: {"schema": schema}}}},
    }
    if route.request is not None:
        body = {"schema": {"$ref": f"#/components/schemas/{route.request.__name__}"}}
        operation["requestBody"] = {"required": True, "content": {JSON: body}}
    by_status: dict[int, list[str]] = {}
    for code in (*(["unauthorized"] if route.needs_key else []), *route.errors):
        by_status.setdefault(REFUSALS[code][0], []).append(code)
    for status, same in sorted(by_status.items()):
        described = " ".join(f"`{code}`: {REFUSALS[code][1]}" for code in same)
        content = {JSON: {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
        refusal: dict[str, Any] = {"description": f"{HTTPStatus(status).phrase}. {described}", "content": content}
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            headers = {
                "Retry-After": "seconds",
                QUEUE_MS: "milliseconds until the waiting texts are scored, if known",
            }
            refusal["headers"] = {
                name: {"schema": {"type": "integer"}, "description": what} for name, what in headers.items()
            }
        operation["responses"][str(status)] = refusal
    return operation


def _filled(schema: Any, numbers: Mapping[str, int]) -> Any:
    """A schema with the limits in place of zeros, which mark where they belong."""
    if isinstance(schema, dict):
        return {
            key: numbers[key] if value == 0 and key in numbers else _filled(value, numbers)
            for key, value in schema.items()
        }
    return [_filled(value, numbers) for value in schema] if isinstance(schema, list) else schema
