"""The recipe: every setting of a run, its default, its bounds.

In: plain values. Out: one frozen, fully checked `Recipe` and its fingerprint. Not here: YAML and `--set`
(recipe_file.py); checks that need Ray, a model or the data, which are made as soon as those are known.

The docstring under each field is its documentation: `train.py --help-recipe` prints it, and recipe_table.py makes the
tables of jobs/recipes/README.md from it. A setting that trades two things has a worked example.
"""

import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from textcls.settings.data import DataSpec
from textcls.settings.mask_names import KINDS, MaskName, kinds
from textcls.settings.mask_patterns import check_names, check_patterns, named_patterns
from textcls.settings.privacy import PrivacySpec, refuse_unprivate, with_private_defaults
from textcls.settings.report import ReportSpec
from textcls.settings.scale import ScaleSpec
from textcls.settings.serve import ServeSpec
from textcls.settings.spec import Name, Spec, at_least, without_password

OF_NO_LEARNING = {"report", "scale", "serve"}
"""The sections that never change what is learned: a resumed run may have others."""


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

    added_later: ClassVar[frozenset[str]] = frozenset({"mask", "mask_patterns"})

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
    mask: Annotated[tuple[MaskName, ...], BeforeValidator(kinds)] = ()
    """Kinds of personal data that the model never sees: with `[email, phone]`, `write to a@example.com` is read as
    `write to [EMAIL]`. One or more of email, phone, url, ip, card, iban, cn_id, cn_mobile, cn_plate, passport and
    number (five or more digits in a row); their order does not matter. A kind with check digits (card, iban, cn_id) is
    masked for the model wherever its shape is found, and in what is written for people only where the check digits are
    right."""
    mask_patterns: Annotated[dict[Name, Name], BeforeValidator(named_patterns)] = Field({})
    """More to mask: name -> regular expression of Python. `{employee_id: 'E\\d{6}'}` puts `[EMPLOYEE_ID]` in place of
    E123456. They apply after email, url and iban and before the other kinds of `mask`, in the order of their names. A
    pattern that may match inside longer numbers or words wants `(?<![0-9A-Za-z])` in front. A pattern that could run
    for very long on some text is refused; `*` and `+` repeat at most 200 times."""

    @field_validator("mask")
    @classmethod
    def _in_one_order(cls, value: tuple[MaskName, ...]) -> tuple[MaskName, ...]:
        return tuple(name for name in get_args(MaskName) if name in value)

    @field_validator("mask_patterns")
    @classmethod
    def _usable(cls, value: dict[str, str]) -> dict[str, str]:
        check_names(list(value), KINDS)
        check_patterns(value)
        return dict(sorted(value.items()))

    def __hash__(self) -> int:
        fields = (getattr(self, name) for name in type(self).model_fields)
        return hash(tuple(tuple(one.items()) if isinstance(one, dict) else one for one in fields))


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
    epoch, with one worker or eight. If there are fewer training rows, an epoch is one step, and the run warns of it."""
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

    added_later: ClassVar[frozenset[str]] = frozenset({"report", "privacy"})

    data: DataSpec = DataSpec()
    split: SplitSpec = SplitSpec()
    text: TextSpec = TextSpec()
    model: ModelSpec = ModelSpec()
    train: TrainSpec = TrainSpec()
    privacy: PrivacySpec = PrivacySpec()
    calibration: CalibrationSpec = CalibrationSpec()
    report: ReportSpec = ReportSpec()
    scale: ScaleSpec = ScaleSpec()
    serve: ServeSpec = ServeSpec()

    @model_validator(mode="before")
    @classmethod
    def _private_training_has_other_defaults(cls, content: object) -> object:
        return with_private_defaults(content)

    @model_validator(mode="after")
    def _privacy_holds(self) -> Self:
        refuse_unprivate(dict(self))
        return self

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
