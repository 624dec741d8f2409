"""What the parts of a bundle's manifest have in common, and records of how it came to be.

In: values that a run has measured. Out: frozen, checked models, as `bundle.json` holds them. Not here: the manifest
itself (bundle.py).
"""

from typing import Annotated

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
