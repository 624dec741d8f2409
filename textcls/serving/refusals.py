"""Errors of the HTTP interface: codes, statuses and headers.

In: what was found. Out: a `Refusal` with its status, its headers and its JSON. Not here: what is refused (body.py,
request_schema.py, api.py), the response to it (responses.py).

`REFUSALS` is the only table of errors: the service, /docs and the tests read it. A text that cannot be scored is not
refused: its outcome in the response is an error, and the other texts have scores.
"""

from collections.abc import Mapping
from typing import Any

# code: (status, meaning). The message of a response adds what was found and what the limit is.
REFUSALS: Mapping[str, tuple[int, str]] = {
    "not_json": (400, "The body is not JSON in UTF-8."),
    "not_gzip": (400, "The Content-Encoding is gzip, and the body is not one whole gzip member."),
    "unauthorized": (401, "The service requires a key, and the request has none or a wrong one."),
    "not_found": (404, "The service has no such path."),
    "method_not_allowed": (405, "This path does not accept the method."),
    "body_timeout": (408, "The body did not arrive in time."),
    "body_too_large": (413, "The body is larger than the limit, as sent or decompressed."),
    "not_json_type": (415, "The content type is not application/json."),
    "unknown_encoding": (415, "The Content-Encoding is not gzip. Accept-Encoding names the accepted ones."),
    "invalid": (422, "The JSON does not have the expected form."),
    "too_many_texts": (422, "The request has more texts than the limit."),
    "too_many_characters": (422, "A text has more characters than the limit."),
    "too_many_words": (422, "The model reads more words of the text than the limit of an explanation."),
    "unknown_label": (422, "The model does not have the label that is to be explained."),
    "unusable_text": (422, "The text of a request with one text, not in a list, cannot be scored."),
    "overloaded": (
        429,
        "Too many texts are queued, and the request was rejected. Retry-After says when to try again.",
    ),
    "internal": (500, "The service failed; its log gives the reason, with the request's id."),
    "not_ready": (503, "The model is not loaded yet, or the service is shutting down."),
}

# On every response: a browser must not guess another content type than the stated one.
SAFE_HEADERS = {"x-content-type-options": "nosniff"}
QUEUE_MS = "x-queue-ms"
"""Header of a 429: estimated milliseconds until the queued texts are scored."""


class Refusal(Exception):
    """A request that is answered with an error.

    Args:
        code: a key of `REFUSALS`.
        message: what was found, and the limit.
        retry_after_s: whole seconds after which to try again.
    """

    def __init__(self, code: str, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, REFUSALS[code][0]
        self.headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        return {"error": {"code": self.code, "message": self.message}}
