"""What a run is asked to do: every setting, its default, its bounds.

In: plain values. Out: one frozen, fully checked `Recipe` and its fingerprint. Not here: YAML and `--set`
(recipe_file.py); anything that needs Ray, a model or the data, which is checked where it is first known.

The docstring under each field is its documentation: `train.py --help-recipe` prints it, and recipe_table.py makes the
tables of jobs/recipes/README.md from it.
"""

import hashlib
import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from textcls.errors import redacted

QUOTE_IT = "; put the name in quotes"
"""Ends what is said of a value that would be a name in quotes."""


def _name(value: object) -> str:
    """A label, column or cell value as the CSV spells it; YAML's scalars arrive as text (yaml_text.py)."""
    if value is None:
        raise ValueError(f"a bare null, ~ or nothing is no name{QUOTE_IT}")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"a name is needed, not {type(value).__name__}{QUOTE_IT}")
    return str(value)


def _names(value: object) -> object:
    """One name stands for a list of one."""
    return value if isinstance(value, (list, tuple)) else [value]


def _without_password(uri: str) -> str:
    """The URI, which goes into run.json, reports and bundles: no place for what opens something."""
    if redacted(uri) != uri:
        raise ValueError("a URI with a user or a password in it; credentials come from the environment, never from it")
    return uri


def _at_least(least: int) -> AfterValidator:
    """Refuses a smaller number where `auto` is the other choice."""

    def checked(value: Any) -> Any:
        if isinstance(value, int) and value < least:
            raise ValueError(f"'auto' or {least} or more is needed")
        return value

    return AfterValidator(checked)


Name = Annotated[str, BeforeValidator(_name)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_names)]


class Spec(BaseModel):
    """A frozen recipe section that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _truth_is_no_number(cls, value: object, check: ValidatorFunctionWrapHandler) -> object:
        checked: object = check(value)
        if isinstance(value, bool) and not isinstance(checked, bool):
            raise ValueError(f"a number is needed, and YAML reads a bare yes, no, on, off, true or false as {value!r}")
        return checked


class DataSpec(Spec):
    """Where the labelled rows are and how to read them."""

    csv: Names = ()
    """CSV files: paths, globs or URIs (`s3://`, `gs://`, `package://NAME/path` inside an installed package)."""
    text_columns: Names = ("text",)
    """Columns that hold the text; several are joined by a space. Without a header: 0-based positions."""
    label_column: Name = "label"
    """Column that holds the label. Without a header: a 0-based position."""
    where: dict[Name, Names] = {}
    """Keep only rows whose column has one of these values; the others are counted as `outside_where`, not read."""
    where_not: dict[Name, Names] = {}
    """Leave out rows whose column has one of these values, such as a word for a missing label; counted likewise."""
    header: bool = True
    """Whether the first record of each file names its columns."""
    delimiter: str = "auto"
    """One character, `tab`, or `auto`: the one of `,` `;` tab `|` under which the header holds the asked columns."""
    quoting: Literal["minimal", "none"] = "minimal"
    """`minimal`: a cell that begins with a double quote is quoted. `none`: a quote is a character like any other."""
    skip_initial_space: bool | Literal["auto"] = "auto"
    """Leave out blanks after a delimiter, so that a quote after them opens a cell. `auto`: if the first rows say so."""
    escape: Literal["none", "\\"] = "none"
    """`\\`: a backslash takes its meaning from the character after it, as Spark and MySQL write a quote in a cell."""
    encoding: str = "utf-8"
    """A Python codec name. A UTF-8 byte order mark is always skipped."""
    label_map: dict[Name, Name] = {}
    """Label as written in the CSV -> label name. A label that is not listed keeps its own name."""
    labels: Names | None = None
    """The label names, in the order of their ids; any other label is a reject. Left out: the names found, sorted."""
    on_duplicate: Literal["keep_first", "keep_all"] = "keep_first"
    """What happens to rows with the same normalised text: keep the first in file order, or all (in one split)."""
    max_reject_fraction: float = Field(0.01, ge=0, le=1)
    """Above this share of rejects among the rows read, the run stops before training."""
    max_cell_chars: int = Field(16 * 2**20, ge=1)
    """A longer cell is a reject. Bounds the memory that an unclosed quote can take."""
    shard_bytes: int = Field(32 * 2**20, ge=1)
    """A larger file is read by several tasks at once, each an exact byte range of about this size."""

    @field_validator("csv")
    @classmethod
    def _no_passwords(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_without_password, value))

    @field_validator("text_columns")
    @classmethod
    def _some_text(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("one or more different columns are needed")
        return value

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str) -> str:
        value = {"tab": "\t", "\\t": "\t"}.get(value, value)
        if value != "auto" and (len(value) != 1 or not value.isascii() or value in '"\r\n'):
            raise ValueError("'auto', 'tab' or one ASCII character that is no quote or line end is needed")
        return value

    @field_validator("escape", mode="before")
    @classmethod
    def _backslash(cls, value: object) -> object:
        return "\\" if value in ("backslash", "\\\\") else value

    @field_validator("encoding")
    @classmethod
    def _known_codec(cls, value: str) -> str:
        try:
            "".encode(value)
        except (LookupError, ValueError) as error:
            raise ValueError(f"Python knows no text encoding {value!r}") from error
        return value

    @model_validator(mode="after")
    def _label_is_no_text(self) -> Self:
        if self.label_column in self.text_columns:
            raise ValueError(f"label_column {self.label_column!r} is also a text column")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.skip_initial_space is True and self.delimiter == " ":
            raise ValueError("skip_initial_space leaves nothing of the delimiter ' '")
        if self.escape == self.delimiter:
            raise ValueError("escape and delimiter are the same character")
        if not self.header and (bad := [c for c in self.columns if not c.isdecimal()]):
            raise ValueError(f"without a header columns are 0-based positions, not {', '.join(map(repr, bad))}")
        if self.labels is not None:
            if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
                raise ValueError("labels must hold two or more different names")
            if stray := sorted(set(self.label_map.values()) - set(self.labels)):
                raise ValueError(f"label_map leads to {stray[0]!r}, which is not in labels {list(self.labels)}")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column a row must have, each once: text columns, the label, the columns of `where` and `where_not`."""
        return tuple(dict.fromkeys((*self.text_columns, self.label_column, *self.where, *self.where_not)))


class SplitSpec(Spec):
    """How rows are divided, by a hash of the text, within each class."""

    val: float = Field(0.1, gt=0, lt=1)
    """Share of each class that chooses the best checkpoint."""
    test: float = Field(0.2, gt=0, lt=1)
    """Share of each class that is scored once, after training."""
    seed: int = Field(42, ge=0, lt=2**63)
    """Another seed, another division."""

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} + test {self.test} leaves nothing to train on; keep the sum below 1")
        return self


class TextSpec(Spec):
    """How text becomes token ids. Stored in the bundle; training, batch jobs and HTTP all use it."""

    lowercase: bool = True
    """Lower-case the text, as the tokenizer's own normalizer. Turn off for a cased model."""
    unicode_form: Literal["NFC", "NFKC", "none"] = "NFC"
    """Unicode normalisation form, as the tokenizer's own normalizer."""
    max_tokens: int = Field(128, ge=8)
    """A longer text is cut to this many tokens, special tokens included, and says so. At most the model's own limit."""
    on_long: Literal["truncate", "windows", "error"] = "truncate"
    """A longer text in use is cut, scored as the mean of overlapping windows, or refused. Training always cuts."""


class ModelSpec(Spec):
    """The pretrained encoder."""

    pretrained: str = "google-bert/bert-base-uncased"
    """Hub name, directory, `s3://`, `gs://` or `package://NAME/path`. Found once; a node without it gets a copy."""
    revision: str = "main"
    """Hub revision. The run keeps its commit, for `--resume` and in the bundle's recipe."""
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """Expected sha256 of `model.safetensors`; another file is refused."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout of the hidden layers, the attention and the head. Left out: the model's own."""

    @field_validator("pretrained")
    @classmethod
    def _no_password(cls, value: str) -> str:
        return _without_password(value)


class TrainSpec(Spec):
    """The fine-tuning loop."""

    epochs: int = Field(3, ge=1)
    """Passes over the training rows."""
    rows_per_step: int = Field(32, ge=1)
    """Rows of one optimizer step, over all workers together."""
    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay; biases and norms are exempt."""
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of all steps in which the learning rate rises from 0 to its peak; after it, it falls linearly to 0."""
    max_grad_norm: float = Field(1.0, gt=0)
    """The gradient is scaled down to this norm if longer."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target spread evenly over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class has the same total weight in the loss."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of matrix products. `auto`: bf16 where hardware multiplies it, else fp32. `bf16` needs AVX-512 or a GPU."""
    select_by: Literal["macro_f1", "accuracy", "loss"] = "macro_f1"
    """Validation metric that chooses the best checkpoint."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many epochs without a better `select_by`. Left out: run all epochs."""
    checkpoint_every_steps: int | None = Field(None, ge=1)
    """Also keep a checkpoint every so many steps. Left out: one at the end of each epoch."""
    max_tokens_per_micro_batch: Annotated[int | Literal["auto"], _at_least(512)] = "auto"
    """Padded tokens a worker runs at once; a larger share runs in parts. `auto`: 16384 on a GPU, 2048 on CPUs."""
    seed: int = Field(42, ge=0, lt=2**63)
    """Seeds the head's weights, the order of the rows and dropout."""


class CalibrationSpec(Spec):
    """What makes a score of 0.9 mean that nine in ten such answers are right; fitted on the validation split."""

    temperature: bool = True
    """Divide the logits by the temperature with the least log loss; it is folded into the saved head."""
    min_precision: float | None = Field(None, gt=0, lt=1)
    """Answer `abstain` below the score from which on this share of the answers is right. Left out: always answer."""


class ScaleSpec(Spec):
    """How many processes train. Never changes what is learned, except for float rounding."""

    workers: Annotated[int | tuple[int, int] | Literal["auto"], _at_least(1)] = "auto"
    """Training processes. `auto`: one per GPU, or one CPU process. `[2, 8]`: as many as there is room for."""
    use_gpu: bool | Literal["auto"] = "auto"
    """`auto`: if the cluster has a GPU."""
    cpus_per_worker: Annotated[int | Literal["auto"], _at_least(1)] = "auto"
    """CPUs, and threads, of a worker. `auto`: on CPUs all of a node's, beside a GPU one."""
    max_failures: int = Field(3, ge=0)
    """Worker failures after which the run gives up; each restart continues from the last checkpoint."""
    hang_timeout_s: float = Field(600.0, ge=1)
    """A worker that gives no sign for so long, to its peers or to Ray, is replaced like one that died."""
    start_timeout_s: float = Field(600.0, ge=1)
    """How long to wait for CPUs and GPUs that other jobs use, or that an autoscaler has yet to start."""
    resize_after_s: float = Field(60.0, ge=1)
    """With workers from a range: how long there must be room for more before the run makes use of it."""

    @field_validator("workers")
    @classmethod
    def _a_range(cls, value: int | tuple[int, int] | str) -> int | tuple[int, int] | str:
        if isinstance(value, tuple) and not 1 <= value[0] < value[1]:
            raise ValueError("a range begins with 1 or more, and ends with more than that")
        return value

    @property
    def most_workers(self) -> int | None:
        """The most that may train, if that is told."""
        return self.workers[1] if isinstance(self.workers, tuple) else self.workers if self.workers != "auto" else None


# Requests that have no texts in the queue: those that are still being read, and those to /info and /metrics.
_OTHER_REQUESTS = 256
# A serialized origin (RFC 6454, section 6.2).
_ORIGIN = re.compile(r"(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://[a-z0-9._\-\[\]:]+")


class ServeSpec(Spec):
    """The HTTP service. Never changes what is learned, nor what a text scores."""

    max_batch_tokens: int = Field(2048, ge=64)
    """Tokens that the model is given at once; a longer text runs alone. More serve a GPU better, and wait longer."""
    max_queued_texts: int = Field(512, ge=1)
    """In-flight texts of a replica; a request above it is rejected at once with 429. Half of it is always admitted."""
    max_wait_s: float = Field(5.0, gt=0)
    """Above half of max_queued_texts, a request that would wait longer at recent speed is rejected with 429."""
    max_texts_per_request: int = Field(256, ge=1)
    """Texts of one request. They are batched like those of many requests; a longer list is refused with 422."""
    max_chars_per_text: int = Field(100_000, ge=1)
    """A request with a longer text is refused with 422."""
    max_body_bytes: int = Field(4 * 2**20, ge=1024)
    """A longer request body is refused with 413 before it is read."""
    body_timeout_s: float = Field(10.0, gt=0)
    """A client that takes longer to send its body is refused with 408."""
    api_key_from: str | None = Field(None, pattern="^(env|file):.+$")
    """Where replicas find the key that clients must send as a bearer: `env:NAME` or `file:PATH`. Left out: none."""
    cors_origins: Names = ()
    """Origins, such as `https://app.example.com`, whose pages may use the service from a browser. Left out: none."""
    min_replicas: int = Field(1, ge=1)
    """Copies of the model that serve at all times."""
    max_replicas: int = Field(1, ge=1)
    """Copies that may be started under load; each takes its own memory."""
    target_ongoing_requests: float = Field(32.0, gt=0)
    """Requests in progress per replica above which another one is started."""
    cpus_per_replica: float = Field(1.0, gt=0)
    """CPUs that Ray sets aside for a replica."""
    threads: Annotated[int | Literal["auto"], _at_least(1)] = "auto"
    """Threads of a replica's matrix products. `auto`: the machine's cores divided by max_replicas."""
    gpu_share: float = Field(0.0, ge=0, le=1)
    """Part of a GPU that Ray sets aside for a replica, 1 being a whole one. 0: the CPU computes."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """As in training; `auto`: as the run was told. Where bf16 is asked for and cannot be had, fp32, which is said."""
    allow_new_labels: bool = False
    """Whether a hot reload may bring a bundle with other labels than the one that serves. Left out: it is refused."""
    log_requests: bool = True
    """One line of JSON for each request in the replicas' logs: id, status, counts and times, never a text."""

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
    def most_requests(self) -> int:
        """In progress at a replica. Above the bound of its queue: the replica can say better why it refuses."""
        return self.max_queued_texts + _OTHER_REQUESTS

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.max_texts_per_request > self.max_queued_texts:
            raise ValueError(
                f"max_texts_per_request {self.max_texts_per_request} is more than max_queued_texts "
                f"{self.max_queued_texts}: such a request would never be taken"
            )
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is more than max_replicas {self.max_replicas}")
        return self


class Recipe(Spec):
    """What a run is asked to do, section by section."""

    data: DataSpec = DataSpec()
    split: SplitSpec = SplitSpec()
    text: TextSpec = TextSpec()
    model: ModelSpec = ModelSpec()
    train: TrainSpec = TrainSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    scale: ScaleSpec = ScaleSpec()
    serve: ServeSpec = ServeSpec()

    @model_validator(mode="after")
    def _workers_have_rows(self) -> Self:
        if (self.scale.most_workers or 0) > self.train.rows_per_step:
            raise ValueError(
                f"scale.workers {self.scale.workers} is more than train.rows_per_step {self.train.rows_per_step}: "
                "some workers would never have a row"
            )
        return self

    @property
    def fingerprint(self) -> str:
        """sha256 of the resolved recipe; two runs that share it were asked to do the same."""
        return _digest(self.model_dump(mode="json"))

    @property
    def learning_fingerprint(self) -> str:
        """sha256 of all but `scale` and `serve`, which never change what is learned: what a resumed run must share."""
        return _digest(self.model_dump(mode="json", exclude={"scale", "serve"}))


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
