"""What the parts of a bundle's manifest have in common, and records of how it came to be.

In: values that a run has measured. Out: frozen, checked models, as `bundle.json` holds them. Not here: the manifest
itself (bundle.py).
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from textcls.settings.spec import Written

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Frozen(Written):
    """A part of the manifest: cannot be changed, knows no other keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FileRecord(Frozen):
    """What a file of the bundle must be, byte for byte."""

    sha256: Digest
    size_bytes: int = Field(ge=0)


class Excluded(Frozen):
    """What `data.exclude` took out of the rows of the run: the record that deletion requests were honoured."""

    digest: Digest
    """sha256 of the sorted entries, a line each: hashes of texts as `textcls forget` writes them, and keys as
    `["column", "key"]`."""
    entries: int = Field(ge=0)
    """Number of entries."""
    without_rows: int = Field(ge=0)
    """Entries that no row matched: most probably these rows were deleted before."""
    rows: int = Field(ge=0)
    """Rows that were taken out."""


class Privacy(Frozen):
    """The bound on what the weights reveal about any single training row (differential privacy)."""

    epsilon: float
    """With one row more or less, no outcome becomes more than exp(epsilon) times as probable, but for `delta`."""
    delta: float
    """The probability by which that bound may fail."""
    unit: Literal["row"] = "row"
    """What is protected: one row of the training split."""
    accountant: str
    """What computed epsilon, with its version."""
    sampling_rate: float
    """The probability with which each row took part in a step, by a draw of its own (Poisson sampling)."""
    steps: int
    """Steps of the optimizer, all of which epsilon accounts for."""
    noise_multiplier: float
    """Standard deviation of the noise of a step, in units of `max_grad_norm`."""
    max_grad_norm: float
    """What the gradient of each row was scaled down to."""
    not_covered: tuple[str, ...]
    """What may still reveal something, one sentence each."""
