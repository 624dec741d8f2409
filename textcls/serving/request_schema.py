"""The requests of POST /predict and POST /, and what all requests have in common.

In: the bytes of a request's body, and limits. Out: a checked request, or a `Refusal`. Not here: reading bodies
(body.py), the request of POST /explain (explain_schema.py), responses (response_schema.py).

`POST /predict` refuses keys that it does not know. `POST /` is Hugging Face's text-classification task, whose clients
send more than a service needs: there, unknown keys are ignored. Both refuse what asks for other scores.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema

from textcls.serving.refusals import Refusal
from textcls.settings.serve import ServeSpec
from textcls.tasks.task import FunctionToApply
from textcls.text.text_input import TextInput


class StrictModel(BaseModel):
    """JSON without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


_Request = TypeVar("_Request", bound=BaseModel)


def _inputs(value: object) -> tuple[TextInput, ...]:
    # Not pydantic's str: it refuses half a surrogate pair, and with it the text's neighbours.
    if isinstance(value, str):
        return (TextInput(value),)
    if isinstance(value, dict):
        return (_of_object(value),)
    if not isinstance(value, list):
        raise ValueError(f"a text or a list of texts is needed, not {type(value).__name__}")
    for place, text in enumerate(value):
        if not isinstance(text, (str, dict)):
            raise ValueError(
                f"text {place} is no string but {type(text).__name__}; a pair is an object: "
                '{"text": ..., "text_pair": ...}'
            )
    return tuple(TextInput(one) if isinstance(one, str) else _of_object(one) for one in value)


def _of_object(value: dict[str, object], *, strict: bool = True) -> TextInput:
    """The input of `{"text": ..., "text_pair": ...}`; without a second text, or with null, it is one text."""
    text, text_pair = value.get("text"), value.get("text_pair")
    if strict and (unknown := [key for key in value if key not in TextInput._fields]):
        raise ValueError(f"there is no key {unknown[0]!r} beside text and text_pair")
    for name, one in (("text", text), ("text_pair", "" if text_pair is None else text_pair)):
        if not isinstance(one, str):
            raise ValueError(f"{name} is no string but {type(one).__name__}")
    return TextInput(text, text_pair)  # type: ignore[arg-type]


def _whole(value: object) -> object:
    """JSON has one kind of number: 3.0 is the integer 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _truth(value: object) -> object:
    # Python's 0 is False, JSON's is not.
    if not isinstance(value, bool):
        raise ValueError(f"true or false is needed, not {type(value).__name__}")
    return value


# Numbers that the limits fill in when the document is made.
_CHARS, _TEXTS = {"maxLength": 0}, {"maxItems": 0}
ONE_TEXT: dict[str, Any] = {"type": "string", **_CHARS}
Count = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True), BeforeValidator(_whole)]
Bool = Annotated[bool, Field(strict=True)]
Yes = Annotated[Literal[True], BeforeValidator(_truth)]
No = Annotated[Literal[False], BeforeValidator(_truth)]


def inputs_schema(*, pairs: bool, strict: bool) -> dict[str, Any]:
    """JSON schema of `inputs`: one input or a list of them.

    Args:
        pairs: whether the model reads pairs.
        strict: that of POST /predict, not of POST /.
    """
    second: dict[str, Any] = ONE_TEXT if pairs else {"type": "null"}
    required = ["text", "text_pair"] if pairs else ["text"]
    item: dict[str, Any] = {
        "type": "object",
        "properties": {"text": ONE_TEXT, "text_pair": second},
        "required": required,
        **({"additionalProperties": False} if strict else {}),
    }
    alone = [item] if pairs else [ONE_TEXT, item]
    # Text-embeddings-inference spells the inputs of a batch as lists of one text or two.
    count = len(required)
    listed = {"type": "array", "items": ONE_TEXT, "minItems": count, "maxItems": count}
    items = alone if strict else [*alone, listed]
    return {"anyOf": [*alone, {"type": "array", "items": {"anyOf": items}, **_TEXTS}]}


class PredictRequest(StrictModel):
    """Texts, or pairs of texts, to classify."""

    inputs: Annotated[
        tuple[TextInput, ...], PlainValidator(_inputs), WithJsonSchema(inputs_schema(pairs=False, strict=True))
    ]
    """One input or several. An input is a text or, for a model of pairs, `{"text": ..., "text_pair": ...}`."""
    top_k: Count | None = None
    """How many labels to give for each text, the most probable first. Left out: all."""
    truncate: Bool | None = None
    """Without effect, for clients of text-embeddings-inference: the bundle says what happens to a long text."""
    raw_scores: No | None = None
    """For clients of text-embeddings-inference: scores are probabilities."""
    truncation_direction: Literal["right", "Right"] | None = None
    """For clients of text-embeddings-inference: a text that is cut loses its end."""


# --- Hugging Face's task ---------------------------------------------------------------------------------------------


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


def _task_inputs(value: object) -> tuple[tuple[TextInput, ...], bool]:
    """(the inputs, whether they came as a list)."""
    if isinstance(value, list):
        return tuple(map(_task_input, value)), True
    return (_task_input(value),), False


def _task_input(value: object) -> TextInput:
    """An input as `transformers.pipeline` and text-embeddings-inference spell it.

    A text is "...", {"text": "..."} or ["..."]; a pair is {"text": "...", "text_pair": "..."} or ["...", "..."].
    """
    if isinstance(value, list) and len(value) in (1, 2) and all(isinstance(one, str) for one in value):
        return TextInput(*value)
    if isinstance(value, dict):
        return _of_object(value, strict=False)
    if not isinstance(value, str):
        raise ValueError(f"a text or a list of texts is needed, not {type(value).__name__}")
    return TextInput(value)


class TaskParameters(_Lenient):
    """What else the text-classification task knows. Other keys are ignored."""

    top_k: Count | None = None
    """How many labels to give, the most probable first. Left out: all."""
    return_all_scores: Bool | None = None
    """Without `top_k`: true for all labels, false for the most probable one."""
    function_to_apply: FunctionToApply | None = None
    """How logits become scores: that of the bundle's task."""
    max_length: Count | None = None
    """At least the bundle's own limit, `max_tokens` of /info: a text is cut there."""
    truncation: Any = None
    """Without effect: the bundle says what happens to a long text."""
    padding: Any = None
    """Without effect: scores do not depend on it."""
    add_special_tokens: Yes | None = None
    """The model reads them."""
    candidate_labels: None = None
    """Of zero-shot classification; the labels are the bundle's."""
    text_pair: None = None
    """A pair is `{"text": ..., "text_pair": ...}` in `inputs`."""


class TaskRequest(_Lenient):
    """A text to classify, or several, as Hugging Face's text-classification task spells it. Other keys are ignored."""

    inputs: Annotated[Any, PlainValidator(_task_inputs), WithJsonSchema(inputs_schema(pairs=False, strict=False))]
    """One text, or a list of texts."""
    parameters: TaskParameters | None = None
    """Options of the task."""
    options: dict[str, Any] | None = None
    """Without effect: `wait_for_model`, `use_cache` and the like."""
    raw_scores: No | None = None
    """For clients of text-embeddings-inference: scores are probabilities."""
    truncation_direction: Literal["right", "Right"] | None = None
    """For clients of text-embeddings-inference: a text that is cut loses its end."""


# --- reading a body --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoringRequest:
    """A checked request.

    Attributes:
        inputs: what to classify.
        top_k: labels to give for each; None for all.
        listed: whether the texts came as a list.
        max_length: tokens at which the client would cut; None if it does not say.
        function_to_apply: how the client would have logits become scores; None if it does not say.
    """

    inputs: tuple[TextInput, ...]
    top_k: int | None
    listed: bool = True
    max_length: int | None = None
    function_to_apply: str | None = None


def read_predict(body: bytes, limits: ServeSpec) -> ScoringRequest:
    """The request in a body of POST /predict.

    Raises:
        Refusal: it is malformed or above a limit.
    """
    request = parsed(PredictRequest, body)
    return _within(limits, ScoringRequest(request.inputs, request.top_k))


def read_task(body: bytes, limits: ServeSpec) -> ScoringRequest:
    """The request in a body of POST /.

    Raises:
        Refusal: it is malformed or above a limit.
    """
    request = parsed(TaskRequest, body)
    parameters = request.parameters or TaskParameters()
    top_k = 1 if parameters.top_k is None and parameters.return_all_scores is False else parameters.top_k
    inputs, listed = request.inputs
    return _within(limits, ScoringRequest(inputs, top_k, listed, parameters.max_length, parameters.function_to_apply))


def parsed(kind: type[_Request], body: bytes) -> _Request:
    """The checked content of a body.

    Raises:
        Refusal: it is malformed.
    """
    try:
        # Not pydantic's parser: it refuses a body for half a surrogate pair in one of its texts.
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal("not_json", f"the body is not JSON: {_shown(str(error))}") from None
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        told = [f"{'.'.join(map(str, one['loc'])) or 'body'}: {_problem(one)}" for one in problems[:3]]
        raise Refusal("invalid", _shown("; ".join(told).replace("Value error, ", ""))) from None


def _problem(error: Mapping[str, object]) -> str:
    """What is wrong with a field, for the client."""
    if error["type"] in ("literal_error", "none_required"):
        return "another value would give other scores than the bundle's; leave it out"
    return str(error["msg"])


def _shown(text: str) -> str:
    """The first 500 characters of a message that may quote the client, as valid UTF-8."""
    return text[:500].encode("utf-8", "backslashreplace").decode()


def _within(limits: ServeSpec, asked: ScoringRequest) -> ScoringRequest:
    if (count := len(asked.inputs)) > limits.max_texts_per_request:
        raise Refusal("too_many_texts", f"{count} texts; the limit is {limits.max_texts_per_request}")
    for place, one in enumerate(asked.inputs):
        if (chars := max(map(len, one.segments))) > limits.max_chars_per_text:
            found = f"text {place} has {chars} characters"
            raise Refusal("too_many_characters", f"{found}; the limit is {limits.max_chars_per_text}")
    return asked


def refuse_other_inputs(inputs: Sequence[TextInput], *, pairs: bool) -> None:
    """Refuses one text for a model of pairs, and a pair for a model of one text.

    Args:
        inputs: of a request.
        pairs: whether the model reads pairs.

    Raises:
        Refusal: it names the first such input.
    """
    for place, one in enumerate(inputs):
        if one.is_pair != pairs:
            found = "one text, but the model reads pairs" if pairs else "a pair of texts, but the model reads one text"
            asked = '{"text": ..., "text_pair": ...}' if pairs else '"..." or {"text": ...}'
            raise Refusal("invalid", f"text {place} is {found}; send {asked}")
