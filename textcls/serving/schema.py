"""What is said over HTTP: requests, answers, errors and their statuses, and the OpenAPI document of it all.

In: the bytes of a request's body, and limits. Out: a checked request, or a `Refusal` that knows its status; answers as
JSON. Not here: connections, queues, the model.

`REFUSALS` is the one table of errors: what the service answers, what /docs says and what the tests expect come from it.
A text that cannot be scored is no refusal: its place in the answer holds an error, and its neighbours have scores.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema
from pydantic.json_schema import models_json_schema

from textcls.recipe import ServeSpec

# code: (status, what it means). The message of each adds what was found and what is taken.
REFUSALS: Mapping[str, tuple[int, str]] = {
    "not_json": (400, "The body is not JSON in UTF-8."),
    "unauthorized": (401, "The service asks for a key, and the request has none or another one."),
    "not_found": (404, "There is nothing at this path."),
    "method_not_allowed": (405, "This path knows other methods."),
    "body_timeout": (408, "The body did not arrive in time."),
    "body_too_large": (413, "The body has more bytes than are taken."),
    "not_json_type": (415, "The content type is not application/json."),
    "invalid": (422, "The JSON is not what is asked for."),
    "too_many_texts": (422, "The request has more texts than are taken."),
    "too_many_characters": (422, "A text has more characters than are taken."),
    "unusable_text": (422, "The one text of the request cannot be scored."),
    "overloaded": (
        429,
        "More is waiting than can be answered soon; nothing was done. Retry-After says when to return.",
    ),
    "internal": (500, "The service failed; its log says why, under the request's id."),
    "not_ready": (503, "The model is not loaded yet, or the service is ending."),
}


# Of every answer: a browser must not take it for another kind of content than it says.
SAFE_HEADERS = {"x-content-type-options": "nosniff"}
QUEUE_MS = "x-queue-ms"
"""Header of a refusal: about how many milliseconds what is waiting will take."""


class Refusal(Exception):
    """A request that is answered with an error.

    Args:
        code: a key of `REFUSALS`.
        message: what was found and what is taken.
        retry_after_s: whole seconds after which to try again.
    """

    def __init__(self, code: str, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, REFUSALS[code][0]
        self.headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        return {"error": {"code": self.code, "message": self.message}}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


_Request = TypeVar("_Request", bound=_Model)


def _texts(value: object) -> tuple[str, ...]:
    # Not pydantic's str: it refuses half a surrogate pair, and with it the text's neighbours.
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise ValueError(f"a text or a list of texts is needed, not {type(value).__name__}")
    for place, text in enumerate(value):
        if not isinstance(text, str):
            raise ValueError(f"text {place} is no string but {type(text).__name__}")
    return tuple(value)


def _text(value: object) -> tuple[str, ...]:
    if not isinstance(value, str):
        raise ValueError(f"one text is needed, not {type(value).__name__}")
    return (value,)


def _whole(value: object) -> object:
    """JSON has one kind of number: 3.0 is the integer 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Numbers that the limits fill in when the document is made.
_CHARS, _TEXTS = {"maxLength": 0}, {"maxItems": 0}
_ONE_TEXT = {"type": "string", **_CHARS}
TopK = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True), BeforeValidator(_whole)]


class PredictRequest(_Model):
    """Texts to classify."""

    inputs: Annotated[
        tuple[str, ...],
        PlainValidator(_texts),
        WithJsonSchema({"anyOf": [_ONE_TEXT, {"type": "array", "items": _ONE_TEXT, **_TEXTS}]}),
    ]
    """One text, or several."""
    top_k: TopK | None = None
    """How many labels to give for each text, the most probable first. Left out: all."""


class TaskParameters(_Model):
    """What else the text-classification task knows."""

    function_to_apply: Literal["softmax"] | None = None
    """How logits become scores; the bundle says softmax."""
    top_k: TopK | None = None
    """How many labels to give, the most probable first. Left out: all."""


class TaskRequest(_Model):
    """A text to classify, as Hugging Face's text-classification task spells it."""

    inputs: Annotated[tuple[str, ...], PlainValidator(_text), WithJsonSchema(_ONE_TEXT)]
    """The text."""
    parameters: TaskParameters | None = None
    """What else is asked for."""


class LabelScore(_Model):
    """A label and its probability."""

    label: str
    score: float = Field(ge=0, le=1)


class Prediction(_Model):
    """What the model says of one text."""

    label: str
    """The most probable label, or `abstain` if the model is not sure enough."""
    score: float = Field(ge=0, le=1)
    """Probability of the most probable label."""
    scores: list[LabelScore]
    """Labels and their probabilities, the most probable first."""
    tokens: int = Field(ge=0)
    """Tokens of the whole text."""
    truncated: bool
    """Whether the model saw only its beginning."""


class ErrorDetail(_Model):
    """Why something has no answer."""

    code: str
    message: str


class FailedText(_Model):
    """A text without scores. Codes: `empty_text`, `not_unicode`, `text_too_long`, `scoring_failed`."""

    error: ErrorDetail


class ModelName(_Model):
    """The bundle that answered; all texts of a request are answered by the same one."""

    digest: str
    """Names these weights and no others."""
    precision: str
    """Of the matrix products."""


class PredictResponse(_Model):
    """One outcome for each text, in order."""

    predictions: list[Prediction | FailedText]
    model: ModelName


class ErrorResponse(_Model):
    """Why the request has no answer."""

    error: ErrorDetail


@dataclass(frozen=True)
class Asked:
    """A checked request.

    Attributes:
        texts: what to classify.
        top_k: labels to give for each; None for all.
    """

    texts: tuple[str, ...]
    top_k: int | None


def read_predict(body: bytes, limits: ServeSpec) -> Asked:
    """The request in a body of POST /predict.

    Raises:
        Refusal: it is malformed or above a limit.
    """
    request = _parsed(PredictRequest, body)
    return _within(limits, Asked(request.inputs, request.top_k))


def read_task(body: bytes, limits: ServeSpec) -> Asked:
    """The request in a body of POST /.

    Raises:
        Refusal: it is malformed or above a limit.
    """
    request = _parsed(TaskRequest, body)
    return _within(limits, Asked(request.inputs, request.parameters.top_k if request.parameters else None))


def _parsed(kind: type[_Request], body: bytes) -> _Request:
    try:
        # Not pydantic's parser: it refuses a body for half a surrogate pair in one of its texts.
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal("not_json", f"the body is not JSON: {_shown(str(error))}") from None
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        told = [f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in problems[:3]]
        raise Refusal("invalid", _shown("; ".join(told).replace("Value error, ", ""))) from None


def _shown(text: str) -> str:
    """Of a message that may hold the client's words, only what can be sent back."""
    return text[:500].encode("utf-8", "backslashreplace").decode()


def _within(limits: ServeSpec, asked: Asked) -> Asked:
    if (count := len(asked.texts)) > limits.max_texts_per_request:
        raise Refusal("too_many_texts", f"{count} texts; at most {limits.max_texts_per_request} are taken")
    for place, text in enumerate(asked.texts):
        if len(text) > limits.max_chars_per_text:
            found = f"text {place} has {len(text)} characters"
            raise Refusal("too_many_characters", f"{found}; at most {limits.max_chars_per_text} are taken")
    return asked


def to_json(content: object) -> bytes:
    """JSON in UTF-8, for content without half surrogates."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


# --- the document ----------------------------------------------------------------------------------------------------

_JSON = "application/json"
_PREDICT = ("unauthorized", "body_timeout", "body_too_large", "not_json_type", "not_json", "invalid", "too_many_texts")
_PREDICT_CODES = (*_PREDICT, "too_many_characters", "overloaded", "internal", "not_ready")
# path -> (method, summary, request, answer (a model or a content type), refusals)
_OPERATIONS: Mapping[str, tuple[str, str, type[_Model] | None, type[_Model] | str, Sequence[str]]] = {
    "/predict": ("post", "Classify texts", PredictRequest, PredictResponse, _PREDICT_CODES),
    "/": (
        "post",
        "Classify a text, as Hugging Face's InferenceClient asks",
        TaskRequest,
        _JSON,
        tuple(code for code in (*_PREDICT_CODES, "unusable_text") if code != "too_many_texts"),
    ),
    "/info": ("get", "The model, the limits and the bundle's metrics", None, _JSON, ("unauthorized", "not_ready")),
    "/health": ("get", "Whether the process lives; needs no key", None, _JSON, ("not_ready",)),
    "/ready": ("get", "Whether requests are answered; needs no key", None, _JSON, ("not_ready",)),
    "/metrics": ("get", "Counters of this replica, for Prometheus", None, "text/plain", ("unauthorized",)),
    "/docs": ("get", "This document as a page", None, "text/html", ()),
    "/try": ("get", "A page to try the model", None, "text/html", ()),
    "/openapi.json": ("get", "This document", None, _JSON, ()),
}
_OPEN = ("/health", "/ready", "/docs", "/try", "/openapi.json")


def needs_key(path: str) -> bool:
    """Whether a request to this path must show the key, if the service has one."""
    return path not in _OPEN


def openapi(limits: ServeSpec, version: str, *, keyed: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the service.

    Args:
        limits: the numbers it states.
        version: of textcls.
        keyed: whether a key is asked for.
    """
    kinds = (PredictRequest, TaskRequest, PredictResponse, ErrorResponse, LabelScore)
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
            "description": f"A text classifier. A body has at most {limits.max_body_bytes} bytes. "
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
    path: str, method: str, summary: str, request: type[_Model] | None, answer: type[_Model] | str, codes: Sequence[str]
) -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{answer.__name__}"} if isinstance(answer, type) else {}
    if path == "/":
        one = {"type": "array", "items": {"$ref": "#/components/schemas/LabelScore"}}
        schema = {"type": "array", "items": one, "minItems": 1, "maxItems": 1}
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
        return {key: numbers[key] if key in numbers else _filled(value, numbers) for key, value in schema.items()}
    return [_filled(value, numbers) for value in schema] if isinstance(schema, list) else schema
