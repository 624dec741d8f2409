"""What a bundle says about itself: `bundle.json`, as checked models and as bytes.

In: values that a run has measured, or the bytes of a `bundle.json`. Out: a frozen `Manifest`, or its bytes, of which
none can be changed unnoticed. Not here: the files that it names (bundle.py).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field, JsonValue, ValidationError

from textcls.errors import BundleError
from textcls.settings.recipe import TextSpec
from textcls.settings.spec import Written
from textcls.tasks.single_label import SINGLE_LABEL

FORMAT_VERSION = 2
# Bundles of version 1 do not name their task: it is the one there was.
_OLD_VERSION = 1

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


class Calibration(Frozen):
    """How scores were fitted to observed frequencies."""

    added_later: ClassVar[frozenset[str]] = frozenset({"temperatures", "thresholds"})

    temperature: float = Field(default=1.0, gt=0)
    """What the logits were divided by; already folded into the head, so whatever loads the model need not know."""
    temperatures: tuple[float, ...] | None = None
    """The same, where each label has its own; in the order of label ids."""
    ece_before: float | None = None
    """Expected calibration error on the validation split as the model was trained."""
    ece_after: float | None = None
    """The same, as the bundle scores."""
    threshold: float = Field(default=0.0, ge=0, le=1)
    """Below this probability of the most probable label the answer is `abstain`; 0: every text has a label."""
    thresholds: tuple[float, ...] | None = None
    """All thresholds of the task, where it has not only the one above: for several labels a row, the probability from
    which on each is given, in the order of label ids, and the one below which the most probable label is absent."""
    min_precision: float | None = None
    """The share of right answers that the thresholds were chosen for."""

    @classmethod
    def fitted(cls, temperatures: "float | np.ndarray", thresholds: np.ndarray, **others: Any) -> Self:
        """A calibration from what a task chose: numbers where there is one, tuples in the order of ids otherwise."""
        if isinstance(temperatures, np.ndarray):
            others["temperatures"] = tuple(temperatures.tolist())
        else:
            others["temperature"] = temperatures
        if len(thresholds) > 1:
            others["thresholds"] = tuple(thresholds.tolist())
        else:
            others["threshold"] = float(thresholds[0])
        return cls(**others)

    @property
    def divisors(self) -> "float | tuple[float, ...]":
        """What the logits were divided by: one number, or one for each label."""
        return self.temperature if self.temperatures is None else self.temperatures

    def task_thresholds(self, default: np.ndarray) -> np.ndarray:
        """float64 [K]: the thresholds as `Task.decide` takes them, those of `default` if none were chosen."""
        if self.thresholds is not None:
            return np.array(self.thresholds)
        return np.array([self.threshold]) if len(default) == 1 else default


class Origin(Frozen):
    """What a bundle was made of that no training run wrote."""

    digest: Digest
    """The digest of the bundle whose model it has."""
    changed: dict[str, JsonValue]
    """Settings that differ from that bundle's, by name, as they were there."""
    files: tuple[str, ...]
    """CSV files on which `metrics` were measured."""


class Manifest(Frozen):
    """What a bundle says about itself."""

    added_later: ClassVar[frozenset[str]] = frozenset({"pairs", "excluded", "origin", "privacy"})

    format_version: Literal[2] = 2
    """Version of this layout. A file of version 1 becomes one of version 2 as it is read."""
    task: str
    """What is predicted: the name of one of the tasks in `tasks/`."""
    labels: tuple[str, ...] = Field(min_length=2)
    """Label names; the place of a name is its label id."""
    pairs: bool = False
    """Whether an input is a pair of texts; left out of the file for one text."""
    text: TextSpec
    """How text becomes token ids; the tokenizer's files say the same."""
    scoring: str
    """How logits become scores: the task's `function_to_apply`."""
    calibration: Calibration = Calibration()
    """How scores were fitted to observed frequencies."""
    metrics: dict[str, JsonValue]
    """The result on the test split, or on the rows that `origin` names."""
    recipe: dict[str, JsonValue]
    """The resolved recipe of the run."""
    recipe_fingerprint: Digest
    """`Recipe.fingerprint` of the run."""
    data_fingerprint: str
    """Identifies the rows the run learned from; "" after private training, where it would confirm a guess."""
    excluded: Excluded | None = None
    """What `data.exclude` took out; left out of the file where it names no file."""
    versions: dict[str, str]
    """Library versions of the run."""
    files: dict[str, FileRecord]
    """Every file of the bundle but the manifest."""
    origin: Origin | None = None
    """What it was made of; left out of a bundle that a training run wrote."""
    privacy: Privacy | None = None
    """Of private training; left out of any other bundle."""


def _canonical(content: Mapping[str, Any]) -> bytes:
    """The one way to write this content, so that no byte of the file is free to change."""
    return (json.dumps(content, sort_keys=True, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def manifest_bytes(content: Mapping[str, Any]) -> bytes:
    """`bundle.json`: the content and, as `manifest_sha256`, the hash of it without this key."""
    return _canonical({**content, "manifest_sha256": hashlib.sha256(_canonical(content)).hexdigest()})


def read_manifest(raw: bytes, name: str) -> tuple[Manifest, str]:
    """(manifest, its own sha256) of the bytes of a `bundle.json`.

    Args:
        raw: all bytes of the file.
        name: of the file, for messages.

    Raises:
        BundleError: a byte was changed, the format version is unknown, or a value is none that a `Manifest` takes.
    """
    try:
        content = json.loads(raw)
        version, digest = content.get("format_version"), content.pop("manifest_sha256", "")
        intact = manifest_bytes(content) == raw
    except (ValueError, AttributeError, RecursionError) as error:
        raise BundleError(f"{name} is damaged: {error}", todo="copy or train the bundle again") from error
    if type(version) is not int or version not in (_OLD_VERSION, FORMAT_VERSION):
        raise BundleError(
            f"{name}: format_version is {version!r}",
            expected=f"{_OLD_VERSION} or {FORMAT_VERSION}, which this version of textcls reads",
            todo="use the version of textcls that wrote the bundle, or train it again",
        )
    if not intact:
        raise BundleError(
            f"{name} is damaged", expected="exactly the bytes that were written", todo="copy or train the bundle again"
        )
    if version == _OLD_VERSION and "task" not in content:
        content |= {"format_version": FORMAT_VERSION, "task": SINGLE_LABEL.name}
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{name}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
    return manifest, digest
