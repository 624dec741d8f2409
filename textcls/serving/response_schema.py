"""The responses of POST /predict, and what all responses have in common.

In: content. Out: its JSON, and models of it, whose schemas are in the OpenAPI document (openapi.py). Not here: the
content itself (answers.py), errors and their statuses (refusals.py), the response of POST /explain (explain_schema.py).
"""

import json

from pydantic import Field

from textcls.serving.request_schema import StrictModel


class LabelScore(StrictModel):
    """A label and its probability."""

    label: str
    score: float = Field(ge=0, le=1)


class _Prediction(StrictModel):
    """What every answer holds."""

    scores: list[LabelScore]
    """Labels and their probabilities, the most probable first."""
    tokens: int = Field(ge=0)
    """Tokens of the whole text."""
    truncated: bool
    """Whether the model read only its beginning."""
    unknown_tokens: int = Field(ge=0)
    """Tokens that the model read as [UNK]: its vocabulary lacks what they stand for."""


class _OfPair(StrictModel):
    """What an answer for a pair of texts holds as well."""

    first_tokens: int = Field(ge=0)
    """Tokens of the first text, without special tokens."""
    second_tokens: int = Field(ge=0)
    """Tokens of the second text, without special tokens."""


class Prediction(_Prediction):
    """The model's answer for one text, of one label a text."""

    label: str
    """The most probable label, or `abstain` if the model is not sure enough."""
    score: float = Field(ge=0, le=1)
    """Probability of the most probable label."""


class SetPrediction(_Prediction):
    """The model's answer for one text, of any number of labels a text."""

    labels: list[str]
    """The labels whose probability reaches their threshold, the most probable first; empty: the text has none."""
    abstained: bool
    """Whether the model is not sure enough to say that the text has none."""


class PairPrediction(Prediction, _OfPair):
    """The model's answer for one pair of texts, of one label a pair."""


class SetPairPrediction(SetPrediction, _OfPair):
    """The model's answer for one pair of texts, of any number of labels a pair."""


class ErrorDetail(StrictModel):
    """Why there is no answer."""

    code: str
    message: str


class FailedText(StrictModel):
    """A text without scores. Codes: `empty_text`, `not_unicode`, `text_too_long`, `scoring_failed`."""

    error: ErrorDetail


class ModelName(StrictModel):
    """The bundle that answered; all texts of a request are answered by the same one."""

    digest: str
    """Identifies the weights and settings."""
    precision: str
    """Of the matrix products."""


class PredictResponse(StrictModel):
    """One outcome for each text, in order."""

    predictions: list[Prediction | PairPrediction | SetPrediction | SetPairPrediction | FailedText]
    model: ModelName


class ErrorResponse(StrictModel):
    """Why the request has no answer."""

    error: ErrorDetail


def to_json(content: object) -> bytes:
    """JSON in UTF-8, for content without half surrogates."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
