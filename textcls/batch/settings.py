"""The settings of a batch job: the data settings of the bundle, with the user's overrides.

In: the manifest of a bundle, CSV files, `--set section.key=value`. Out: checked settings. Not here: how texts are
scored: this is part of the bundle, and no setting changes it.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar, Self

from pydantic import model_validator

from textcls.bundle import Bundle
from textcls.data.input_files import InputFile
from textcls.data.remedies import CsvFiles, remedy
from textcls.data.rows import Reason
from textcls.errors import DataError, RecipeError
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.settings.recipe_file import resolve
from textcls.settings.report import ReportSpec
from textcls.settings.scale import ScaleSpec
from textcls.settings.spec import Spec

# A shard is what one actor processes at a time, and what is recomputed when a job continues: enough of them to keep all
# actors busy, each large enough for a file of its own. Their size depends on the input alone, so that the parts are the
# same whatever the number of actors.
_MOST_SHARDS = 256
_LEAST_SHARD_BYTES = 2**20

# Settings of a bundle that do not change its model.
_OF_USE = ("text.on_long",)
_NOT_OF_USE = ("data", "report", "scale")
_POSSIBLE = "--set text.on_long=truncate, windows or error, another one than that of the bundle"

_NAMED_BY_CSV = "--csv names the files"
_KEPT_FROM_TRAINING = "it takes rows out of training; here every row of the files is scored"


class UnlabelledSpec(DataSpec):
    """How to read rows without labels: a file needs the columns of the input only."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the input."""
        return self.input_columns

    @model_validator(mode="after")
    def _label_is_no_text(self) -> Self:
        return self


class EvaluateSpec(Spec):
    """Settings of an evaluation: labelled rows."""

    refused: ClassVar[dict[str, str]] = {
        "data.csv": _NAMED_BY_CSV,
        "data.labels": "the labels are the bundle's; data.label_map maps the labels of the CSV to them",
        "data.task": "the task is the bundle's",
        "data.decisions": "decisions are about the rows of the training data",
        **dict.fromkeys(("data.exclude", "data.exclude_by"), _KEPT_FROM_TRAINING),
        **dict.fromkeys(("data.on_duplicate", "data.on_conflict"), "every row is evaluated, duplicates too"),
    }
    dropped: ClassVar[tuple[str, ...]] = ("labels", "decisions", "exclude", "exclude_by")

    data: DataSpec
    """How the labelled rows are read."""
    report: ReportSpec = ReportSpec()
    """What the report shows of the rows. Not the training's: its files may have other columns."""
    scale: ScaleSpec = ScaleSpec()
    """The actors that score."""

    @model_validator(mode="after")
    def _slices_are_no_texts(self) -> Self:
        self.report.check_columns(self.data.input_columns, header=self.data.header)
        return self


class PredictSpec(Spec):
    """Settings of a prediction: rows with or without labels."""

    refused: ClassVar[dict[str, str]] = {
        "data.csv": _NAMED_BY_CSV,
        **dict.fromkeys(("data.where", "data.where_not"), "every row is predicted; filter the rows before or after"),
        **dict.fromkeys(
            (
                *("data.task", "data.label_column", "data.labels_in", "data.label_delimiter", "data.label_columns"),
                "data.label_cells",
                *("data.label_map", "data.labels", "data.on_duplicate", "data.on_conflict", "data.max_reject_fraction"),
                "data.decisions",
            ),
            "every row is predicted, whatever its label",
        ),
        **dict.fromkeys(("data.exclude", "data.exclude_by"), _KEPT_FROM_TRAINING),
    }
    # `where` selected the training rows.
    dropped: ClassVar[tuple[str, ...]] = (
        *("task", "label_column", "labels_in", "label_delimiter", "label_columns", "label_cells", "label_map"),
        *("labels", "on_conflict", "where", "where_not", "decisions", "exclude", "exclude_by"),
    )

    data: UnlabelledSpec
    """How the rows are read."""
    scale: ScaleSpec = ScaleSpec()
    """The actors that score."""


class _UseSpec(Spec):
    """Settings of a bundle in use."""

    text: TextSpec
    """How text becomes token ids."""


def evaluate_settings(bundle: Bundle, csv: Sequence[str], overrides: Sequence[str]) -> EvaluateSpec:
    """Settings of an evaluation; `data.labels` are those of the bundle.

    Args:
        bundle: its data settings are the defaults.
        csv: files, globs or URIs.
        overrides: `section.key=value` each, of `data`, `report` or `scale`.

    Raises:
        RecipeError: an unknown key, a key that has no meaning here, an invalid value.
    """
    spec = resolve(EvaluateSpec, _content(bundle, EvaluateSpec, csv, overrides), overrides, source=_source(bundle))
    _check_inputs(bundle, spec.data)
    # Not validated: a label_map may map to a label that no training row had.
    return spec.model_copy(update={"data": spec.data.model_copy(update={"labels": bundle.manifest.labels})})


def changed_text(bundle: Bundle, overrides: Sequence[str]) -> tuple[TextSpec, list[str]]:
    """(the text settings of a new bundle of the same model, the overrides that say how to read its CSV).

    Args:
        bundle: what the new one is made of.
        overrides: `section.key=value` each, of `data`, `report` and `scale`, and at least one that changes the text
            settings.

    Raises:
        RecipeError: nothing would change; a setting that takes training to change; an invalid value.
    """
    changes = [override for override in overrides if override.partition(".")[0].strip() not in _NOT_OF_USE]
    for override in changes:
        if (key := override.partition("=")[0].strip()) not in _OF_USE:
            raise RecipeError(f"--set {override!r}: {key} cannot change without training", expected=_POSSIBLE)
    used = bundle.manifest.text
    found = resolve(_UseSpec, {"text": used.model_dump(mode="json")}, changes, source=_source(bundle)).text
    if found == used:
        raise RecipeError(f"the new bundle would score texts as {bundle.uri} does", expected=_POSSIBLE)
    data = bundle.manifest.recipe.get("data")
    if found.on_long == "windows" and isinstance(data, dict) and data.get("pair"):
        raise RecipeError(f"{bundle.uri} scores pairs of texts, which cannot become windows", expected=_POSSIBLE)
    return found, [override for override in overrides if override not in changes]


def predict_settings(bundle: Bundle, csv: Sequence[str], overrides: Sequence[str]) -> PredictSpec:
    """Settings of a prediction; arguments and errors as in `evaluate_settings`."""
    spec = resolve(PredictSpec, _content(bundle, PredictSpec, csv, overrides), overrides, source=_source(bundle))
    _check_inputs(bundle, spec.data)
    return spec


def _check_inputs(bundle: Bundle, data: DataSpec) -> None:
    """Refuses to read pairs for a bundle of one text, and the other way round: it would score none of them."""
    if bundle.manifest.pairs and data.pair is None:
        raise RecipeError(
            f"{bundle.uri} scores pairs of texts, and data.pair is null",
            expected="two columns",
            todo="--set data.pair=[NAME,NAME], or leave it out if the columns have the names of the training data",
        )
    if not bundle.manifest.pairs and data.pair is not None:
        raise RecipeError(
            f"{bundle.uri} scores one text, and data.pair names two columns",
            expected="the columns of one text",
            todo="--set data.text_columns=NAME in place of data.pair",
        )


def with_small_shards(data: DataSpec, files: Sequence[InputFile]) -> DataSpec:
    """The settings with smaller shards, of a size that suits scoring; never larger than `data.shard_bytes`."""
    fitting = max(_LEAST_SHARD_BYTES, sum(file.size_bytes for file in files) // _MOST_SHARDS)
    return data.model_copy(update={"shard_bytes": min(data.shard_bytes, fitting)})


def nothing_scored(errors: Mapping[str, int], data: DataSpec, files: Sequence[InputFile], *, where: str) -> DataError:
    """The error for a job in which no row could be scored.

    Args:
        errors: reason -> rows; at least one.
        data: how the rows were read.
        files: the files that were read.
        where: a phrase that says where the rows are listed.
    """
    rows, most = sum(errors.values()), max(errors, key=lambda reason: errors[reason])
    counted = ", ".join(f"{number:,} {reason}" for reason, number in sorted(errors.items(), key=lambda one: -one[1]))
    todo: dict[str, str] = {
        Reason.MISSING_TEXT: f"is {', '.join(data.text_columns)} the text? --set data.text_columns=NAME"
        if data.pair is None
        else f"are {' and '.join(data.pair)} the pair? --set data.pair=[NAME,NAME]",
        Reason.RAGGED_ROW: "--set data.delimiter=CHARACTER, or --set data.quoting=none if a quote is only a character",
        Reason.CELL_TOO_LONG: f"raise data.max_cell_chars above {data.max_cell_chars:,}, or --set data.quoting=none",
        "text_too_long": "shorten the texts, or make a bundle that takes them: textcls rebundle with "
        "--set text.on_long=truncate or windows",
        "empty_text": "the tokenizer finds no word in these texts: use a bundle of their language",
    }
    if found := remedy(most, CsvFiles.whole(files, data)):
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
                f"--set {override!r}: the bundle determines how texts are scored",
                expected=f"a key of {' or '.join(spec.model_fields)}, like data.text_columns",
            )
        if name in spec.refused:
            raise RecipeError(f"--set {override!r}: {name} has no meaning here", expected=spec.refused[name])
    found = deepcopy(bundle.manifest.recipe.get("data"))  # a copy: overrides are written into it
    data = {key: value for key, value in found.items() if key not in spec.dropped} if isinstance(found, dict) else {}
    return {"data": data | {"csv": list(csv)}}
