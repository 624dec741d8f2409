"""POST /explain: its request and its response.

In: the bytes of a body, and limits. Out: an input and the label to explain, or a `Refusal`; the response as JSON.
Not here: what all requests and all responses have in common (request_schema.py, response_schema.py), explaining
(explainer.py).
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from textcls.serving.refusals import Refusal
from textcls.serving.request_schema import ONE_TEXT, StrictModel, parsed
from textcls.serving.response_schema import ModelName
from textcls.settings.serve import ServeSpec
from textcls.text.text_input import TextInput


def _a_text(value: object) -> object:
    # Not pydantic's str, which refuses half a surrogate pair: such a text has an error of its own.
    if not isinstance(value, str):
        raise ValueError(f"a text is needed, not {type(value).__name__}")
    return value


def _fast_method(value: object) -> object:
    if value == "integrated_gradients":
        raise ValueError("the service explains by leave_one_out; `textcls explain` explains files by both methods")
    return value


class ExplainRequest(StrictModel):
    """A text, or a pair of texts, whose answer is to be explained."""

    text: Annotated[Any, PlainValidator(_a_text), WithJsonSchema(ONE_TEXT)]
    """The text, or the first one of a pair."""
    text_pair: Annotated[Any, PlainValidator(lambda value: value if value is None else _a_text(value))] = None
    """The second text, for a model of pairs."""
    label: str | None = None
    """The label to explain. Left out: those that the model answers, or the most probable one if it answers none."""
    method: Annotated[Literal["leave_one_out"] | None, BeforeValidator(_fast_method)] = None
    """How: what changes when a word is left out."""


class ExplainedWord(StrictModel):
    """A word of a text and its effect; in Chinese and the like, neighbouring characters with effects of one sign."""

    text: int = Field(ge=0, le=1)
    """Which text of a pair, 0 or 1; 0 for one text."""
    start: int = Field(ge=0)
    """Code points before it in that text, as it was sent."""
    end: int = Field(ge=0)
    """Code points up to its end."""
    word: str
    """The word itself."""
    effect: float
    """How much of the label's logit is gone without it: above 0 it speaks for the label, below 0 against it."""
    score_without: float | None
    """Probability of the label without it; null for several characters, which were left out one by one."""


class Unseen(StrictModel):
    """The part of a text that the model did not read."""

    text: int
    start: int
    end: int


class ExplainedLabel(StrictModel):
    """Why a text has the probability that it has for a label."""

    label: str
    score: float = Field(ge=0, le=1)
    """Probability of the label."""
    logit: float
    """Of the label; effects are changes of it and need not add up to it."""
    words: list[ExplainedWord]
    """In the order of the text."""


class ExplainResponse(StrictModel):
    """Explanations of one text or pair."""

    explanations: list[ExplainedLabel]
    """One for each label, the most probable first."""
    method: Literal["leave_one_out"]
    unseen: list[Unseen]
    """What the model did not read."""
    tokens: int = Field(ge=0)
    """Tokens of the whole text."""
    truncated: bool
    """Whether the model read only its beginning."""
    unknown_tokens: int = Field(ge=0)
    """How many of the tokens that it read are [UNK]: its vocabulary lacks what they stand for."""
    model: ModelName


def read_explain(body: bytes, limits: ServeSpec) -> tuple[TextInput, str | None]:
    """(the input, the label or None) in a body of POST /explain.

    Raises:
        Refusal: it is malformed or above a limit.
    """
    request = parsed(ExplainRequest, body)
    one, limit = TextInput(request.text, request.text_pair), limits.max_chars_to_explain
    if (chars := max(map(len, one.segments))) > limit:
        found = f"the text has {chars} characters, and at most {limit} are explained"
        raise Refusal("too_many_characters", f"{found}; send a shorter one, or explain it with `textcls explain`")
    return one, request.label
