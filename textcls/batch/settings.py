"""What a batch job is asked to do: a bundle's own data settings, and what the user says differs now.

In: a bundle's manifest, CSV files, `--set section.key=value`. Out: checked settings. Not here: how texts are scored;
the bundle says that, and no setting changes it.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar, Self

from pydantic import model_validator

from textcls.bundle import Bundle
from textcls.data.input_files import InputFile
from textcls.data.remedies import Sources, remedy
from textcls.data.rows import Reason
from textcls.errors import DataError, RecipeError
from textcls.settings.recipe import DataSpec, ScaleSpec
from textcls.settings.recipe_file import resolve
from textcls.settings.spec import Spec

# Shards are units of work and of resuming: many enough to share out, large enough that a part is worth a file. Chosen
# by the input alone, so that the parts are the same whatever works on them.
_MOST_SHARDS = 256
_LEAST_SHARD_BYTES = 2**20

_NAMED_BY_CSV = "--csv names the files"


class UnlabelledSpec(DataSpec):
    """How to read rows that need no label: all that is asked of a file are its text columns."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The text columns."""
        return self.text_columns

    @model_validator(mode="after")
    def _label_is_no_text(self) -> Self:
        return self


class EvaluateSpec(Spec):
    """Labelled rows to measure a bundle by."""

    refused: ClassVar[dict[str, str]] = {
        "data.csv": _NAMED_BY_CSV,
        "data.labels": "the labels are the bundle's; data.label_map leads from the CSV's names to them",
        "data.on_duplicate": "every row is evaluated, duplicates too",
    }
    dropped: ClassVar[tuple[str, ...]] = ("labels",)

    data: DataSpec
    """How the labelled rows are read."""
    scale: ScaleSpec = ScaleSpec()
    """Processes that score."""


class PredictSpec(Spec):
    """Rows to predict, labelled or not."""

    refused: ClassVar[dict[str, str]] = {
        "data.csv": _NAMED_BY_CSV,
        **dict.fromkeys(("data.where", "data.where_not"), "every row is predicted; take out rows before or after"),
        **dict.fromkeys(
            ("data.label_column", "data.label_map", "data.labels", "data.on_duplicate", "data.max_reject_fraction"),
            "every row is predicted, whatever its label",
        ),
    }
    # `where` chose the rows that were learned from.
    dropped: ClassVar[tuple[str, ...]] = ("label_column", "label_map", "labels", "where", "where_not")

    data: UnlabelledSpec
    """How the rows are read."""
    scale: ScaleSpec = ScaleSpec()
    """Processes that score."""


def evaluate_settings(bundle: Bundle, csv: Sequence[str], overrides: Sequence[str]) -> EvaluateSpec:
    """Settings of an evaluation; `data.labels` are the bundle's.

    Args:
        bundle: gives all data settings that are not overridden.
        csv: files, globs or URIs.
        overrides: `section.key=value` each, of `data` or `scale`.

    Raises:
        RecipeError: a key that does not exist or has no meaning here, a bad value.
    """
    spec = resolve(EvaluateSpec, _content(bundle, EvaluateSpec, csv, overrides), overrides, source=_source(bundle))
    # Not validated: a label_map may lead to a label that no row of the training data had.
    return spec.model_copy(update={"data": spec.data.model_copy(update={"labels": bundle.manifest.labels})})


def predict_settings(bundle: Bundle, csv: Sequence[str], overrides: Sequence[str]) -> PredictSpec:
    """Settings of a prediction; arguments and errors as in `evaluate_settings`."""
    return resolve(PredictSpec, _content(bundle, PredictSpec, csv, overrides), overrides, source=_source(bundle))


def with_small_shards(data: DataSpec, files: Sequence[InputFile]) -> DataSpec:
    """The settings with shards of a size that suits scoring; `data.shard_bytes` remains the largest."""
    fitting = max(_LEAST_SHARD_BYTES, sum(file.size_bytes for file in files) // _MOST_SHARDS)
    return data.model_copy(update={"shard_bytes": min(data.shard_bytes, fitting)})


def nothing_scored(errors: Mapping[str, int], data: DataSpec, files: Sequence[InputFile], *, where: str) -> DataError:
    """What to tell a user none of whose rows could be scored.

    Args:
        errors: reason -> rows; at least one.
        data: how the rows were read.
        files: the files that were read.
        where: says where the rows are listed.
    """
    rows, most = sum(errors.values()), max(errors, key=lambda reason: errors[reason])
    counted = ", ".join(f"{number:,} {reason}" for reason, number in sorted(errors.items(), key=lambda one: -one[1]))
    todo: dict[str, str] = {
        Reason.MISSING_TEXT: f"is {', '.join(data.text_columns)} the text? --set data.text_columns=NAME",
        Reason.RAGGED_ROW: "--set data.delimiter=CHARACTER, or --set data.quoting=none if a quote is only a character",
        Reason.CELL_TOO_LONG: f"raise data.max_cell_chars above {data.max_cell_chars:,}, or --set data.quoting=none",
        "text_too_long": "shorten the texts, or train with text.on_long=truncate or windows: this bundle refuses them",
        "empty_text": "the tokenizer finds no word in these texts: use a bundle of their language",
    }
    if found := remedy(most, Sources.whole(files, data)):
        todo[most] = found
    return DataError(
        f"none of the {rows:,} rows could be scored: {counted}",
        expected="at least one usable text",
        todo=f"{todo.get(most, 'correct the rows')}; {where}",
    )


def _source(bundle: Bundle) -> str:
    return f"the settings of {bundle.uri} with --set"


def _content(
    bundle: Bundle, spec: type[EvaluateSpec | PredictSpec], csv: Sequence[str], overrides: Sequence[str]
) -> dict[str, Any]:
    for override in overrides:
        key = override.partition("=")[0].strip()
        section, _, rest = key.partition(".")
        name = f"{section}.{rest.partition('.')[0]}"
        if section not in spec.model_fields:
            raise RecipeError(
                f"--set {override!r}: how texts are scored is the bundle's to say",
                expected="a key of data or scale, like data.text_columns",
            )
        if name in spec.refused:
            raise RecipeError(f"--set {override!r}: {name} has no meaning here", expected=spec.refused[name])
    found = deepcopy(bundle.manifest.recipe.get("data"))  # overrides are written into it
    data = {key: value for key, value in found.items() if key not in spec.dropped} if isinstance(found, dict) else {}
    return {"data": data | {"csv": list(csv)}}
