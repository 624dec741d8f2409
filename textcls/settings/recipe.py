"""The recipe: every setting of a run, its default, its bounds.

In: plain values. Out: one frozen, fully checked `Recipe` and its fingerprint. Not here: YAML and `--set`
(recipe_file.py); checks that need Ray, a model or the data, which are made as soon as those are known.

The docstring under each field is its documentation: `train.py --help-recipe` prints it, and recipe_table.py makes the
tables of jobs/recipes/README.md from it. A setting that trades two things has a worked example.
"""

import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from textcls.settings.report import ReportSpec
from textcls.settings.scale import ScaleSpec
from textcls.settings.serve import ServeSpec
from textcls.settings.spec import Name, Names, Spec, UnfitError, at_least, without_password
from textcls.settings.yaml_text import set_option

OF_NO_LEARNING = {"report", "scale", "serve"}
"""The sections that never change what is learned: a resumed run may have others."""


class DataSpec(Spec):
    """The labelled rows, and how to read them."""

    added_later: ClassVar[frozenset[str]] = frozenset(
        {"pair", "task", "labels_in", "label_delimiter", "label_columns", "label_cells", "on_conflict", "decisions"}
    )

    csv: Names = ()
    """CSV files: paths, globs or URIs (`s3://`, `gs://`, `package://NAME/path` inside an installed package)."""
    text_columns: Names = ("text",)
    """Columns that hold the text; several are joined by a space. Without a header: 0-based positions."""
    pair: tuple[Name, Name] | None = None
    """In place of `text_columns`: two columns whose texts the model reads as a pair, in this order, such as a question
    and an answer. Without a header: 0-based positions."""
    label_column: Name = "label"
    """Column that holds the label. Without a header: a 0-based position. A list stands for `label_columns`."""
    task: Literal["auto", "single_label", "multi_label"] = "auto"
    """What a text has: exactly one label, or any number of them, none included. `auto`: one label, unless labels are
    read from a cell of several or from columns."""
    labels_in: Literal["one", "cell", "columns"] = "one"
    """Where the labels of a row are. `one`: the label column holds one. `cell`: it holds any number, divided by
    `label_delimiter` or as a JSON list; an empty cell means no label. `columns`: each of `label_columns` holds 0 or 1.
    Default: `columns` if `label_columns` are given, `cell` if `task` is multi_label, else `one`."""
    label_delimiter: str = ","
    """What divides the labels in a cell: one or more characters. With `;`, the cell `billing; refund` has two labels.
    A cell that is a JSON list, like `["billing", "refund"]`, needs none."""
    label_columns: Names = ()
    """Columns of 0 and 1 (or true and false, yes and no), one for each label, by name or pattern: `topic_*`."""
    label_cells: dict[Name, bool] = Field({})
    """What other cells of `label_columns` mean: with `{x: 1, "": 0}`, a cell with an x is 1 and an empty one is 0. A
    row with a cell that is neither known nor listed, such as an empty one, is a reject."""
    on_conflict: Literal["first", "union", "reject"] = "first"
    """For rows with the same normalised text and different labels: use the labels of the first row in file order, all
    labels of these rows together (multi_label only), or none of these rows. With a row for each pair of text and
    label, `union` reads every text with all its labels. conflicts.parquet lists each such row."""
    decisions: Names = ()
    """The audit.csv of `textcls audit` with your decisions in its column `decision`: `keep`, `drop` or another label.
    Several files apply one after another. A decision holds for every row with this text and label, and is refused once
    no row has them. Dropped rows are rejects, but do not count for `max_reject_fraction`."""
    where: dict[Name, Names] = Field({})
    """Keep only rows whose column has one of these values. Other rows are counted as `outside_where` and not used."""
    where_not: dict[Name, Names] = Field({})
    """Skip rows whose column has one of these values, such as a word for a missing label. Counted as
    `outside_where`."""
    header: bool = True
    """Whether the first record of each file names its columns."""
    delimiter: str = "auto"
    """One character, `tab`, or `auto`: the one of `,` `;` tab `|` that splits the header into the requested columns."""
    quoting: Literal["minimal", "none"] = "minimal"
    """`minimal`: a cell that begins with a double quote is quoted. `none`: a quote is an ordinary character."""
    skip_initial_space: bool | Literal["auto"] = "auto"
    """Ignore blanks after a delimiter, so that a quote after them opens a cell. `auto`: decided by the first rows."""
    escape: Literal["none", "\\"] = "none"
    """`\\`: a backslash escapes the next character, as Spark and MySQL write a quote inside a cell."""
    encoding: str = "utf-8"
    """A Python codec name. A UTF-8 byte order mark is always skipped."""
    label_map: dict[Name, Name] = Field({})
    """Label as written in the CSV -> label name. A label that is not listed keeps its own name. With `labels_in` cell
    or columns, a label that is mapped to `""` is dropped from its row."""
    labels: Names | None = None
    """Label names in the order of their ids; any other label is a reject. Default: the labels in the data, sorted."""
    on_duplicate: Literal["keep_first", "keep_all"] = "keep_first"
    """For rows with the same normalised text: keep the first in file order, or keep all of them, in one split."""
    max_reject_fraction: float = Field(0.01, ge=0, le=1)
    """The run stops before training if a larger fraction of the rows is rejected. 0.01 of 8,000 rows: 81 rejects stop
    it."""
    max_cell_chars: int = Field(16 * 2**20, ge=1)
    """A longer cell is a reject. Bounds the memory that an unclosed quote can take."""
    shard_bytes: int = Field(32 * 2**20, ge=1)
    """A larger file is read by several tasks at once, each an exact byte range of about this size. The default reads
    1 GB as 30 shards; smaller shards occupy more CPUs, and each costs a task of Ray."""

    @model_validator(mode="before")
    @classmethod
    def _where_labels_are(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        content = dict(content)
        if isinstance(content.get("label_column"), (list, tuple)) and not content.get("label_columns"):
            content["label_columns"] = content.pop("label_column")
        if "labels_in" not in content:
            if content.get("label_columns"):
                content["labels_in"] = "columns"
            elif content.get("task") == "multi_label":
                content["labels_in"] = "cell"
        return content

    @field_validator("csv", "decisions")
    @classmethod
    def _no_passwords(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(without_password, value))

    @field_validator("text_columns")
    @classmethod
    def _some_text(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("expected one or more columns, each once")
        return value

    @field_validator("pair", mode="before")
    @classmethod
    def _two_columns(cls, value: object) -> object:
        if value is not None and (not isinstance(value, (list, tuple)) or len(value) != 2 or value[0] == value[1]):
            raise ValueError("expected two different columns, such as [question, answer]")
        return value

    @model_validator(mode="before")
    @classmethod
    def _texts_or_pair(cls, content: Any) -> Any:
        """A pair takes the place of the text columns, which null leaves out."""
        if isinstance(content, dict) and content.get("pair") is not None and "text_columns" in content:
            if content["text_columns"] is not None:
                raise UnfitError(
                    "text_columns and pair exclude each other: with a pair, leave text_columns out or set it to null",
                    todo=set_option("data.text_columns", None),
                )
            return {key: value for key, value in content.items() if key != "text_columns"}
        return content

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str) -> str:
        value = {"tab": "\t", "\\t": "\t"}.get(value, value)
        if value != "auto" and (len(value) != 1 or not value.isascii() or value in '"\r\n'):
            raise ValueError("expected 'auto', 'tab' or one ASCII character other than a quote or a line end")
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
            raise ValueError(f"Python has no text encoding {value!r}") from error
        return value

    @model_validator(mode="after")
    def _label_is_no_text(self) -> Self:
        for column in self.read_label_columns:
            if column in self.input_columns:
                name = "label_column" if self.labels_in != "columns" else "one of label_columns,"
                raise ValueError(f"{name} {column!r} is also a text column")
        return self

    @model_validator(mode="after")
    def _labels_fit_the_task(self) -> Self:
        if (self.labels_in == "columns") != bool(self.label_columns):
            raise ValueError(
                "labels_in columns needs label_columns, such as label_columns=[billing, refund]"
                if self.labels_in == "columns"
                else f"label_columns are not read with labels_in {self.labels_in}; leave one of the two out"
            )
        if self.task_name == "single_label" and self.labels_in == "cell":
            raise ValueError("labels_in cell reads several labels a row; set task to multi_label, or labels_in to one")
        if self.task_name == "single_label" and self.on_conflict == "union":
            several, one = set_option("data.task", "multi_label"), set_option("data.labels_in", "one")
            raise UnfitError(
                "on_conflict union gives a row several labels, which needs task multi_label",
                todo=f"where the label column holds one label a row: {several} {one}",
            )
        if self.label_cells and self.labels_in != "columns":
            raise ValueError(f"label_cells are not read with labels_in {self.labels_in}; leave one of the two out")
        if not self.label_delimiter or set(self.label_delimiter) & set('"\r\n'):
            raise ValueError("label_delimiter: expected one or more characters other than a quote or a line end")
        if self.labels_in == "cell" and self.label_delimiter == self.delimiter and self.quoting == "none":
            raise ValueError(f"label_delimiter {self.label_delimiter!r} also divides the columns, without quotes")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.skip_initial_space is True and self.delimiter == " ":
            raise ValueError("skip_initial_space would remove the delimiter ' '")
        if self.escape == self.delimiter:
            raise ValueError("escape and delimiter are the same character")
        if not self.header and (bad := [c for c in self.columns if not c.isdecimal()]):
            raise ValueError(f"without a header columns are 0-based positions, not {', '.join(map(repr, bad))}")
        if self.labels is not None:
            if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
                raise ValueError("expected two or more labels, each once")
            # Where a row may have no label, a label that is mapped to "" is none.
            none = set() if self.labels_in == "one" else {""}
            if stray := sorted(set(self.label_map.values()) - set(self.labels) - none):
                raise ValueError(f"label_map maps to {stray[0]!r}, which is not in labels {list(self.labels)}")
        return self

    @model_serializer(mode="wrap")
    def _without_unused_columns(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = self._as_before(write)
        if self.pair is not None:
            content.pop("text_columns", None)
        if self.task == "multi_label":
            content["labels_in"] = self.labels_in  # its default then is another one
        return content

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns of the model's input: those of the pair or, without one, the text columns."""
        return self.pair or self.text_columns

    @property
    def input_setting(self) -> str:
        """The setting that names the columns of the input."""
        return "data.text_columns" if self.pair is None else "data.pair"

    @property
    def label_setting(self) -> str:
        """The setting that names the columns of the labels."""
        return "data.label_columns" if self.labels_in == "columns" else "data.label_column"

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column a row must have, each once: input, labels, those of `where`, `where_not` and the slices."""
        named = (*self.input_columns, *self.read_label_columns, *self.where, *self.where_not, *self.slice_columns)
        return tuple(dict.fromkeys(named))

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """The columns of `report.slices`, where rows are read with them (data/slice_columns.py)."""
        return ()

    @property
    def read_label_columns(self) -> tuple[str, ...]:
        """The columns that labels are read from: `label_columns`, or the one `label_column`."""
        return self.label_columns if self.labels_in == "columns" else (self.label_column,)

    @property
    def task_name(self) -> str:
        """The name of the task: `task`, or the one that `labels_in` needs."""
        if self.task != "auto":
            return self.task
        return "single_label" if self.labels_in == "one" else "multi_label"


class SplitSpec(Spec):
    """How rows are split into train, val and test: by a hash of the text, within each class.

    10,000 rows with the defaults: 7,000 train, 1,000 val, 2,000 test.
    """

    added_later: ClassVar[frozenset[str]] = frozenset({"group_by", "fold"})

    val: float = Field(0.1, gt=0, lt=1)
    """Fraction of each class that selects the best checkpoint and fits the calibration."""
    test: float = Field(0.2, gt=0, lt=1)
    """Fraction of each class that is scored once, after training."""
    seed: int = Field(42, ge=0, lt=2**63)
    """Another seed gives another split."""
    group_by: Literal["none", "a", "b"] = "none"
    """For `data.pair`: whether all pairs with the same first (`a`) or second (`b`) text are in one split. Without it, a
    question that occurs in many pairs is trained on and tested with. A split then keeps its share as nearly as the
    sizes of these groups allow."""
    fold: Annotated[str, Field(pattern=r"^[1-9][0-9]*/[1-9][0-9]*$")] | None = None
    """`2/5`: the second of five folds, in place of `test`; `val` is then a fraction of the rows outside the fold. Five
    runs, 1/5 to 5/5, test every row once, each with a model that has not seen it; `textcls audit` does so. A label with
    one row is in no fold."""

    @field_validator("fold")
    @classmethod
    def _one_of_the_folds(cls, value: str | None) -> str | None:
        if value is not None:
            number, count = map(int, value.split("/"))
            if not 1 <= number <= count or not 2 <= count <= 1000:
                raise ValueError(f"{value!r}: expected K/N, a number K of 1 to N, and 2 to 1000 folds N, such as 2/5")
        return value

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} + test {self.test} leaves no training rows; keep the sum below 1")
        return self


class TextSpec(Spec):
    """How text becomes token ids. Stored in the bundle; training, batch jobs and HTTP all use it."""

    lowercase: bool = True
    """Lower-case the text, as part of the tokenizer's normalizer. Turn it off for a cased model."""
    unicode_form: Literal["NFC", "NFKC", "none"] = "NFC"
    """Unicode normalisation form, as part of the tokenizer's normalizer."""
    max_tokens: int = Field(128, ge=8)
    """A longer text is truncated to this many tokens, special tokens included, and reported as truncated. At most the
    model's own limit. 128 tokens are some 95 words of English; a text that fills 512 costs at least four times as much
    time and memory as one of 128."""
    on_long: Literal["truncate", "windows", "error"] = "truncate"
    """What becomes of a longer text: truncated; `windows` of max_tokens, a quarter of which overlaps; or refused in use
    and truncated in training. Windows share the label of their row in training, and its score is the mean over them.
    With 128 tokens, a text of 300 is 3 windows, at three times the cost in training and in use."""


class ModelSpec(Spec):
    """The pretrained encoder."""

    pretrained: str = "google-bert/bert-base-uncased"
    """Hub name, directory, `s3://`, `gs://` or `package://NAME/path`. Resolved once; a node that lacks it gets a
    copy."""
    revision: str = "main"
    """Hub revision. The run records the commit, for `--resume` and in the bundle's recipe."""
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """Expected sha256 of `model.safetensors`; another file is refused."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout of the hidden layers, the attention and the head. Default: the model's own."""

    @field_validator("pretrained")
    @classmethod
    def _no_password(cls, value: str) -> str:
        return without_password(value)


class TrainSpec(Spec):
    """The fine-tuning loop."""

    epochs: int = Field(3, ge=1)
    """Passes over the training rows."""
    rows_per_step: int = Field(32, ge=1)
    """Rows of one optimizer step, over all workers together (the global batch size). 7,000 training rows: 219 steps an
    epoch, with one worker or eight."""
    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay; biases and norms are exempt."""
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    """Fraction of all steps in which the learning rate rises from 0 to its peak; after it, it falls linearly to 0."""
    max_grad_norm: float = Field(1.0, gt=0)
    """A gradient with a larger norm is scaled down to this norm."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread evenly over all classes. 0.1 with two classes: targets of 0.95 and 0.05. Less
    confident scores, and less overfitting on few rows."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class has the same total weight in the loss. With 900 rows of one class and 100 of another, a
    row of the second weighs nine times as much: better recall of the rare class, at some cost in accuracy. With several
    labels a row, the rows that have a label weigh as much as those that do not, but at most 100 times as much each."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of matrix products. `auto`: bf16 where the hardware multiplies it, else fp32. `bf16` needs AVX-512 or a
    GPU."""
    select_by: Literal["macro_f1", "accuracy", "loss", "micro_f1", "map", "subset_accuracy"] = "macro_f1"
    """Validation metric that selects the best checkpoint. With one label a row: macro_f1, accuracy or loss; with
    several: macro_f1, micro_f1, map (mean average precision), subset_accuracy or loss."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many epochs without a better `select_by`. Default: run all epochs."""
    checkpoint_every_steps: int | None = Field(None, ge=1)
    """Also write a checkpoint after every so many steps. A failure loses the steps since the last one: at 3.5 steps/s,
    200 lose at most a minute. A checkpoint is three times the size of the model. Default: at the end of each epoch."""
    max_tokens_per_micro_batch: Annotated[int | Literal["auto"], at_least(512)] = "auto"
    """Padded tokens that a worker runs at once; a larger share of a batch runs as several micro-batches, with the same
    result. 32 rows of 512 tokens are 16,384 tokens: one micro-batch, or eight of 2,048 in an eighth of the memory for
    activations. `auto`: 16,384 on a GPU, 2,048 on CPUs, where smaller ones are also faster."""
    seed: int = Field(42, ge=0, lt=2**63)
    """Seeds the head's weights, the order of the rows and dropout."""


class CalibrationSpec(Spec):
    """Calibrated scores: of all answers with a score of 0.9, nine in ten are right. Fitted on the validation split."""

    temperature: bool = True
    """Divide the logits by the temperature with the least log loss; it is folded into the saved head. With several
    labels a row, each label with at least 20 validation rows has a temperature of its own."""
    min_precision: float | None = Field(None, gt=0, lt=1)
    """Answer `abstain` below a score threshold, the lowest above which this share of the answers is right. If 0.95
    needs a score of 0.8 and one text in five scores lower, four in five are answered. Default: always answer. With
    several labels a row, each label is given from the lowest score on with which this share of its rows is right,
    instead of the score with the best F1; for a text that may have a label but is given none, the answer is to
    abstain."""


class Recipe(Spec):
    """All settings of a run, by section."""

    added_later: ClassVar[frozenset[str]] = frozenset({"report"})

    data: DataSpec = DataSpec()
    split: SplitSpec = SplitSpec()
    text: TextSpec = TextSpec()
    model: ModelSpec = ModelSpec()
    train: TrainSpec = TrainSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    report: ReportSpec = ReportSpec()
    scale: ScaleSpec = ScaleSpec()
    serve: ServeSpec = ServeSpec()

    @model_validator(mode="after")
    def _workers_have_rows(self) -> Self:
        if (self.scale.max_workers or 0) > self.train.rows_per_step:
            raise ValueError(
                f"scale.workers {self.scale.workers} is more than train.rows_per_step {self.train.rows_per_step}: "
                "some workers would have no rows"
            )
        return self

    @model_validator(mode="after")
    def _pairs_are_grouped(self) -> Self:
        if self.data.pair is None and self.split.group_by != "none":
            raise ValueError(f"split.group_by {self.split.group_by} needs data.pair, the columns of the two texts")
        return self

    @model_validator(mode="after")
    def _pairs_have_no_windows(self) -> Self:
        if self.data.pair is not None and self.text.on_long == "windows":
            raise ValueError("text.on_long windows is for one text, not for data.pair: set text.on_long to truncate")
        return self

    @model_validator(mode="after")
    def _slices_are_no_texts(self) -> Self:
        self.report.check_columns(self.data.input_columns, header=self.data.header)
        return self

    @property
    def fingerprint(self) -> str:
        """sha256 of the resolved recipe; runs with equal settings share it."""
        return _digest(self.model_dump(mode="json"))

    @property
    def learning_fingerprint(self) -> str:
        """sha256 of all sections but `OF_NO_LEARNING`; a resumed run keeps it."""
        return _digest(self.model_dump(mode="json", exclude=OF_NO_LEARNING))


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
