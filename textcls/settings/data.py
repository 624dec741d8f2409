"""The `data` section of a recipe: the labelled rows, and how to read them.

In: plain values. Out: a frozen, checked `DataSpec`. Not here: the other sections (recipe.py); what needs the files
themselves (data/).
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from textcls.settings.spec import Name, Names, Spec, UnfitError, without_password
from textcls.settings.yaml_text import set_option


class DataSpec(Spec):
    """The labelled rows, and how to read them."""

    added_later: ClassVar[frozenset[str]] = frozenset(
        {
            *("pair", "task", "labels_in", "label_delimiter", "label_columns", "label_cells", "on_conflict"),
            *("decisions", "exclude", "exclude_by"),
        }
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
    exclude: Names = ()
    """Files of what is to be forgotten: a CSV with the texts (columns as in the data), or hashes of texts from `textcls
    forget`, which take out every copy of a text, also in other case or spacing; or, with `exclude_by`, keys. These rows
    are in no split, are rejects without a value, and do not count for `max_reject_fraction`. The bundle's manifest
    lists the digest of the entries."""
    exclude_by: Name | None = None
    """A column with keys, such as customer numbers: rows whose key is in a file of `exclude`, one a line or in a CSV
    with this column, are taken out. The same text under another key stays. Without a header: a 0-based position."""
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

    @field_validator("csv", "decisions", "exclude")
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
    def _keys_are_excluded(self) -> Self:
        if self.exclude_by is not None and not self.exclude:
            raise ValueError(f"exclude_by {self.exclude_by!r} needs exclude, the files with keys of this column")
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
        """Every column a row must have, each once: input, labels, filters, `exclude_by` and the slices."""
        key = () if self.exclude_by is None else (self.exclude_by,)
        named = (*self.input_columns, *self.read_label_columns, *self.where, *self.where_not, *key, *self.slice_columns)
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
