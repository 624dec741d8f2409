"""The section `serve` of a recipe: settings of the HTTP service.

In: plain values. Out: a frozen, fully checked `ServeSpec`. Not here: the other sections (recipe.py).
"""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from textcls.settings.spec import Names, Spec, at_least

# In-flight requests without texts in the queue: those still being read, and those to /info and /metrics.
_OTHER_REQUESTS = 256
# A serialized origin (RFC 6454, section 6.2).
_ORIGIN = re.compile(r"(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://[a-z0-9._\-\[\]:]+")


# Of an explained text: a tokenizer reads this many within milliseconds, so that other requests need not wait for it.
_CHARS_A_WORD = 64


class ServeSpec(Spec):
    """The HTTP service. Never changes what is learned, nor how a text scores."""

    added_later: ClassVar[frozenset[str]] = frozenset({"explain_share", "max_words_to_explain"})

    max_batch_tokens: int = Field(2048, ge=64)
    """Token budget of one forward pass; a longer text runs alone. 2,048 tokens are 16 texts of 128, or 4 of 512. A
    larger budget raises the throughput of a GPU, and a text that arrives during a batch waits longer: at 10,000
    tokens/s, 0.2 s for 2,048 and 0.8 s for 8,192."""
    max_queued_texts: int = Field(512, ge=1)
    """In-flight texts of a replica; a request above it is rejected at once with 429. Half of them are always admitted:
    8 clients with 32 texts each. Too few reject bursts that could be served; too many keep clients waiting instead."""
    max_wait_s: float = Field(5.0, gt=0)
    """Above half of max_queued_texts, a request that would wait longer at recent throughput is rejected with 429. At 80
    texts/s, 5 s are 400 texts in flight."""
    max_texts_per_request: int = Field(256, ge=1)
    """A request with more texts is refused with 422. The texts of all requests are batched together."""
    max_chars_per_text: int = Field(100_000, ge=1)
    """A request with a longer text is refused with 422."""
    max_body_bytes: int = Field(4 * 2**20, ge=1024)
    """A longer request body is refused with 413 before it is read."""
    body_timeout_s: float = Field(10.0, gt=0)
    """A client that takes longer to send its body is refused with 408."""
    explain_share: float = Field(0.2, ge=0, le=0.5)
    """Share of max_queued_texts, of a batch and, while other texts wait, of the model's time that explanations have. An
    explanation costs a text for each word and one more. With 0.2 of 512, explanations of four texts of 20 words are in
    flight at once; more are rejected with 429, while requests that classify are admitted as without explanations. 0:
    no explanations."""
    max_words_to_explain: int = Field(200, ge=1, le=500)
    """A text or pair of which the model reads more words is not explained but refused with 422, and so is one of more
    than 64 characters for each of these words. At 10,000 tokens/s, 200 words take 6 s."""
    api_key_from: str | None = Field(None, pattern="^(env|file):.+$")
    """Where replicas find the API key that clients must send as a bearer token: `env:NAME` or `file:PATH`. Default: no
    key is required."""
    cors_origins: Names = ()
    """Origins, such as `https://app.example.com`, whose pages may call the service from a browser. Default: none."""
    min_replicas: int = Field(1, ge=1)
    """Replicas that always run."""
    max_replicas: int = Field(1, ge=1)
    """Replicas that may be started under load; each holds a copy of the model in memory."""
    target_ongoing_requests: float = Field(32.0, gt=0)
    """In-flight requests per replica that Ray's autoscaler aims at. With 32, a lasting 96 in-flight requests lead to 3
    replicas; a lower target starts more replicas for shorter queues."""
    cpus_per_replica: float = Field(1.0, gt=0)
    """CPUs that Ray reserves for a replica."""
    threads: Annotated[int | Literal["auto"], at_least(1)] = "auto"
    """Threads of a replica's matrix products. `auto`: the machine's cores divided by max_replicas."""
    gpu_share: float = Field(0.0, ge=0, le=1)
    """Fraction of a GPU that Ray reserves for a replica: 1 is a whole GPU, 0.5 lets two replicas share one. 0: the
    model runs on CPUs."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """As in training; `auto`: the precision of the training run. Where the hardware cannot multiply bf16, fp32 is used
    and logged."""
    allow_new_labels: bool = False
    """Whether a hot reload may bring a bundle with other labels. Default: such a bundle is refused."""
    log_requests: bool = True
    """Log one line of JSON per request in the replicas' logs: id, status, counts and times, never a text."""

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin as browsers send it: https://HOST or https://HOST:PORT in lower "
                    "case, without a path, and without the scheme's own port"
                )
        return value

    @property
    def max_chars_to_explain(self) -> int:
        """Characters of an explained text, or of each of a pair."""
        return min(self.max_chars_per_text, self.max_words_to_explain * _CHARS_A_WORD)

    @property
    def max_requests(self) -> int:
        """In-flight requests of a replica. More than its queue holds: the replica itself can say why it rejects."""
        return self.max_queued_texts + _OTHER_REQUESTS

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.max_texts_per_request > self.max_queued_texts:
            raise ValueError(
                f"max_texts_per_request {self.max_texts_per_request} is more than max_queued_texts "
                f"{self.max_queued_texts}: such a request would always be rejected"
            )
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is more than max_replicas {self.max_replicas}")
        return self
