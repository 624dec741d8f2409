"""The settings of a mask job: what to mask, and how the files are read.

In: CSV files, names of kinds and columns, `--set section.key=value`. Out: a checked `MaskSpec`. Not here: the kinds
themselves (text/masks.py).
"""

from collections.abc import Sequence
from typing import Any, Self

from pydantic import model_validator

from textcls.errors import RecipeError
from textcls.settings.data import DataSpec
from textcls.settings.mask_names import KINDS, problem
from textcls.settings.recipe import TextSpec
from textcls.settings.recipe_file import resolve
from textcls.settings.spec import Spec

READING = frozenset(
    {
        *("header", "delimiter", "quoting", "skip_initial_space", "escape", "encoding"),
        *("max_cell_chars", "shard_bytes", "max_reject_fraction"),
    }
)
"""The data settings of a mask job."""
_MASKING = frozenset({"mask", "mask_patterns"})


class MaskedDataSpec(DataSpec):
    """How to read rows whose columns are copied: a file needs those that are masked."""

    masked: tuple[str, ...] = ()
    """Columns to mask, by name or, without a header, by position; none for all."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a file must have: without a header the first one, to find the delimiter by."""
        return self.masked or (() if self.header else ("0",))

    @model_validator(mode="after")
    def _label_is_no_text(self) -> Self:
        return self


class MaskSpec(Spec):
    """Settings of a mask job."""

    data: MaskedDataSpec
    """How the rows are read."""
    text: TextSpec
    """What is masked: `mask` and `mask_patterns`."""


def mask_settings(
    csv: Sequence[str], kinds: Sequence[str], columns: Sequence[str], overrides: Sequence[str]
) -> MaskSpec:
    """The settings of a mask job.

    Args:
        csv: files, globs or URIs.
        kinds: names for `text.mask`.
        columns: to mask; none for all.
        overrides: `section.key=value` each.

    Raises:
        RecipeError: an unknown kind or key, a key that has no meaning here, nothing to mask.
    """
    for override in overrides:
        key = override.partition("=")[0].strip()
        section, _, rest = key.partition(".")
        if section not in ("data", "text") or rest.partition(".")[0] not in (READING | _MASKING):
            known = ", ".join(f"data.{name}" for name in sorted(READING))
            raise RecipeError(
                f"--set {override!r}: {key} has no meaning here", expected=f"text.mask, text.mask_patterns, {known}"
            )
    wrong, meant = problem(kinds)
    if wrong:
        raise RecipeError(
            f"--mask {','.join(kinds)}: {wrong}",
            expected=f"one or more of {', '.join(KINDS)}",
            todo=f"--mask {','.join(meant or ('email', 'phone'))}",
        )
    content: dict[str, Any] = {"data": {"csv": list(csv), "masked": list(columns)}, "text": {"mask": list(kinds)}}
    spec = resolve(MaskSpec, content, overrides, source="the arguments")
    if not spec.text.mask and not spec.text.mask_patterns:
        raise RecipeError(
            "nothing is to be masked",
            expected="one or more kinds",
            todo="--mask email,phone,card for example; the documentation of text.mask lists all",
        )
    return spec
