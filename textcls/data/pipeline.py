"""The data graph: CSV files -> tokenized splits in Ray's object store, every row accounted for.

In: a recipe and the tokenizer. Out: `PreparedData`: Arrow blocks per split, the account of law 1, label and token
statistics. The only module that builds a Ray Data graph for training. Not here: CSV rules (csv_shards.py), what makes
a row a reject (rows.py), splits (division.py).

    shards ─▶ read + clean ─▶ tokenize ─▶ blocks ─▶ describe ─▶ labels, account, checks ─▶ divide

A task holds one block of about 16 MB; the driver holds counts only. Blocks live in the object store, which spills to
disk when it is full.
"""

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data  # its first import sets the level of its log: before ray_session does

from textcls.data import checks
from textcls.data.account import EXAMPLES, Account, BlockSummary
from textcls.data.csv_layout import Layout, layout_notes
from textcls.data.csv_records import Shard, read_shard
from textcls.data.csv_shards import plan_shards
from textcls.data.division import clean_rows, divide
from textcls.data.input_files import expand
from textcls.data.remedies import Sources, remedy
from textcls.data.rows import CleanRow, Reject, RowCleaner
from textcls.data.spellings import Spellings
from textcls.settings.recipe import DataSpec, Recipe, TextSpec
from textcls.tasks.labels import label_order
from textcls.text.tokenizer import TokenizerFiles, encoder_of

# A block is cut at whichever comes first; small enough for many tasks, large enough to keep Ray's overhead below 1 %.
_BLOCK_ROWS = 20_000
_BLOCK_CHARS = 16 * 2**20
# place = file index << 40 | line: one number that orders rows as the files do (2**40 lines a file).
_LINE_BITS = 40
_OUTSIDE_WHERE = "outside_where"

_READ_SCHEMA = pa.schema(
    [
        ("place", pa.int64()),
        ("text", pa.large_string()),
        ("label", pa.string()),
        ("key_hi", pa.uint64()),
        ("key_lo", pa.uint64()),
        # The next three are set for rejects alone. Reason `outside_where`, once a shard, stands for no row: its value
        # counts the rows that were not read, and how cells are spelled that settings name.
        ("column", pa.string()),
        ("reason", pa.string()),
        ("value", pa.string()),
    ]
)


@dataclass(frozen=True)
class PreparedData:
    """Everything that training needs to know of the data.

    Attributes:
        labels: label names in id order.
        blocks: split name -> object references of tables (input_ids: list<int32>, label: int32).
        texts: split name -> object references of tables (text: string), rows as in `blocks`.
        class_counts: split name -> rows of each class, in id order.
        account: where every row went.
        tokens: length percentiles and the share of truncated rows.
        conflicts: (number, first examples) of texts that stand under two labels.
        fingerprint: sha256 over every clean row's place, text key and label.
    """

    labels: tuple[str, ...]
    blocks: dict[str, list[Any]]
    texts: dict[str, list[Any]]
    class_counts: dict[str, list[int]]
    account: Account
    tokens: dict[str, Any]
    conflicts: tuple[int, list[str]]
    fingerprint: str


class ReadData:
    """Rows read, cleaned and tokenized, not yet divided: what `--dry-run` looks at, and what is evaluated.

    Args:
        recipe: `data` and `text`; `split` for `divide`.
        tokenizer: the prepared tokenizer. Left out: the rows are not tokenized, and cannot be divided.

    Attributes:
        summary: counts over all blocks.
        files: the files read, in order.
        blocks: object references of tables of `_READ_SCHEMA` in row order, clean rows and rejects together.
    """

    def __init__(self, recipe: Recipe, tokenizer: TokenizerFiles | None = None) -> None:
        started = time.monotonic()
        self._recipe = recipe
        files = expand(recipe.data.csv)
        self.files = [file.uri for file in files]
        layouts, shards = plan_shards(files, recipe.data, run=run_on_ray)
        self._sources = Sources(files, layouts, shards, recipe.data)
        self.delimiter = layouts[0].delimiter
        self._notes = layout_notes(layouts)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = sys.stderr.isatty()
        context.print_on_execution_start = False
        # Block order is row order: the training plan names rows by position, today and when a run is resumed.
        context.execution_options.preserve_order = True
        dataset = ray.data.range(len(shards), override_num_blocks=len(shards)).map_batches(
            _read,
            batch_size=1,
            fn_kwargs={"shards": shards, "layouts": layouts, "data": recipe.data, "text": recipe.text},
        )
        if tokenizer is not None:
            dataset = dataset.map_batches(
                _tokenize, batch_size=None, batch_format="pyarrow", fn_kwargs={"tokenizer": tokenizer}
            )
        self.blocks: list[Any] = dataset.to_arrow_refs()
        described = [_describe.remote(block) for block in self.blocks]
        self._keys = [keys for _, keys in described]
        self.summary = BlockSummary()
        self._with_rejects = []
        for block, (summary, _) in zip(self.blocks, described, strict=True):
            found: BlockSummary = ray.get(summary)
            self.summary.add(found)
            if found.rejects:
                self._with_rejects.append(block)
        self.seconds = time.monotonic() - started

    def fingerprint(self) -> str:
        """sha256 over every clean row's place, text key and label."""
        return hashlib.sha256(b"".join(self.summary.digests)).hexdigest()

    def label_names(self) -> tuple[str, ...]:
        """Label names in id order: the recipe's, or those found."""
        return self._recipe.data.labels or label_order(self.summary.labels)

    def rejects(self) -> Iterator[pa.Table]:
        """Tables (file, line, column, reason, value) of every reject, in row order, block by block."""
        for block in self._with_rejects:
            yield ray.get(_rejects_of.remote(block, self.files))

    def told(self) -> Iterator[str]:
        """What was read, as lines for the user."""
        found, files = self.summary, len(self.files)
        yield (
            f"read {found.read:,} rows from {files:,} file{'s' if files != 1 else ''} "
            f"(delimiter {self.delimiter!r}) in {self.seconds:.1f} s"
            + (f"; {found.outside_where:,} others are {self._outside()}" if found.outside_where else "")
        )
        for note in self._notes:
            yield f"  note: {note}"
        for reason, number in found.reasons.most_common():
            yield f"  rejected {number:,}: {reason}, like {self.example_lines(reason)[0]}"

    def _outside(self) -> str:
        data = self._recipe.data
        return " or ".join(["outside data.where"] * bool(data.where) + ["in data.where_not"] * bool(data.where_not))

    def refuse_unfit(self, *, listed: bool = True) -> None:
        """Stops a job whose rows are of no use; see `checks.refuse_unfit`."""
        found = self.summary
        examples = [line for reason in found.reasons for line in self.example_lines(reason)]
        checks.refuse_unfit(
            self._recipe.data,
            read=found.read,
            outside_where=found.outside_where,
            reasons=found.reasons,
            examples=examples[:5],
            labels=self.label_names(),
            remedy=self._remedy,
            spellings=found.spellings,
            listed=listed,
        )

    def _remedy(self, reason: str) -> str:
        return remedy(reason, self._sources, [file_and_line(row["place"]) for row in self.summary.examples[reason]])

    def divide(self) -> PreparedData:
        """Divides the rows into splits; the blocks with texts go when this object does."""
        labels, recipe = self.label_names(), self._recipe
        keep_all = recipe.data.on_duplicate == "keep_all"
        found = divide(self.blocks, self._keys, labels, recipe.split, rows=self.summary.rows, keep_all=keep_all)
        return PreparedData(
            labels=labels,
            blocks=found.blocks,
            texts=found.texts,
            class_counts={name: found.counts[i].tolist() for i, name in enumerate(found.blocks)},
            account=self.account(found.counts),
            tokens=self.summary.tokens(recipe.text.max_tokens),
            conflicts=(found.conflicts, [self._spot(place) for place in found.conflict_places]),
            fingerprint=self.fingerprint(),
        )

    def account(self, counts: np.ndarray | None = None) -> Account:
        """Where the rows went; before they are divided, every split is 0.

        Args:
            counts: int64 [4, C], rows by split code and class.
        """
        train, val, test, duplicates = (int(n) for n in (counts.sum(axis=1) if counts is not None else np.zeros(4)))
        found = self.summary
        return Account(
            found.read, train, val, test, found.rejects, duplicates, found.outside_where, dict(found.reasons)
        )

    def example_lines(self, reason: str) -> list[str]:
        """The first few rejects of a reason, as `file:line column: value`."""
        return [
            f"{self._spot(row['place'])} {row['column'] or 'row'}: {row['value'] or '(empty)'}"
            for row in self.summary.examples[reason]
        ]

    def _spot(self, place: int) -> str:
        file, line = file_and_line(place)
        return f"{self.files[file]}:{line}"


def file_and_line(place: int) -> tuple[int, int]:
    """(index of the file, 1-based line in it) of a row's `place`."""
    return place >> _LINE_BITS, place & (1 << _LINE_BITS) - 1


def run_on_ray(function: Any, jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Runs a function on Ray once per tuple of arguments, results in order."""
    task = ray.remote(function)
    return cast(list[Any], ray.get([task.remote(*job) for job in jobs]))


def _read(
    batch: dict[str, np.ndarray], shards: Sequence[Shard], layouts: Sequence[Layout], data: DataSpec, text: TextSpec
) -> Iterator[pa.Table]:
    """Tables of `_READ_SCHEMA` of one shard's rows, clean rows and rejects together."""
    shard = shards[int(batch["id"][0])]
    layout = layouts[shard.file_index]
    cleaner = RowCleaner(layout, data, text)
    base = shard.file_index << _LINE_BITS
    columns: list[list[Any]] = [[] for _ in _READ_SCHEMA.names]
    places, texts, names, his, los, wrong_columns, reasons, values = columns
    chars = outside = 0

    def flush() -> pa.Table:
        arrays = [pa.array(column, kind) for column, kind in zip(columns, _READ_SCHEMA.types, strict=True)]
        for column in columns:
            column.clear()
        return pa.table(arrays, schema=_READ_SCHEMA)

    for line, fields in read_shard(shard, layout, data):
        row = cleaner(line, fields)
        if row is None:
            outside += 1
            continue
        if isinstance(row, CleanRow):
            places.append(base | row.line)
            texts.append(row.text)
            names.append(row.label)
            his.append(int.from_bytes(row.key[:8], "little"))
            los.append(int.from_bytes(row.key[8:], "little"))
            wrong_columns.append(None)
            reasons.append(None)
            values.append(None)
            chars += len(row.text)
        else:
            _append_reject(columns, base | row.line, row)
        if chars >= _BLOCK_CHARS or len(places) >= _BLOCK_ROWS:
            yield flush()
            chars = 0
    if cleaner.names_spellings or not places:  # Ray Data takes the columns away from a table without a row
        counts = json.dumps({"outside": outside, **vars(cleaner.spellings)})
        _append_reject(columns, base, Reject(0, "", _OUTSIDE_WHERE, counts))
    yield flush()


def _append_reject(columns: list[list[Any]], place: int, reject: Reject) -> None:
    fields = (place, None, None, 0, 0, reject.column, str(reject.reason), reject.value)
    for column, value in zip(columns, fields, strict=True):
        column.append(value)


def _tokenize(block: pa.Table, tokenizer: TokenizerFiles) -> pa.Table:
    """The block with `input_ids` (list<int32>, cut to the limit, no padding) and `tokens` (int32, before the cut)."""
    ids: list[list[int]] = []
    counts = np.empty(0, np.int32)
    if block.num_rows:
        # Rejects have no text; as empty strings they keep rows aligned and cost next to nothing.
        ids, counts = encoder_of(tokenizer)(pc.fill_null(block["text"], "").to_pylist())
    block = block.append_column("input_ids", pa.array(ids, pa.list_(pa.int32())))
    return block.append_column("tokens", pa.array(counts, pa.int32()))


@ray.remote(num_returns=2)
def _describe(block: pa.Table) -> tuple[BlockSummary, pa.Table]:
    """(counts of a block, its clean rows' place, key and label)."""
    rejects = _rejects(block)
    clean = clean_rows(block)
    outside = pc.equal(rejects["reason"], _OUTSIDE_WHERE)
    found = BlockSummary(rows=clean.num_rows, labels=_count(clean["label"]))
    for value in rejects.filter(outside)["value"].to_pylist():
        counts = json.loads(value)
        found.outside_where += counts["outside"]
        where = {column: Counter(cells) for column, cells in counts["where"].items()}
        found.spellings.add(Spellings(where, Counter(counts["labels"])))
    if "tokens" in clean.column_names:
        found.token_histogram = np.bincount(clean["tokens"].to_numpy(), minlength=1).astype(np.int64)
    rejects = rejects.filter(pc.invert(outside))
    found.reasons = _count(rejects["reason"])
    for row in rejects.to_pylist():
        examples = found.examples.setdefault(row["reason"], [])
        if len(examples) < EXAMPLES:
            examples.append(row)
    keys = clean.select(["place", "key_hi", "key_lo", "label"]).combine_chunks()
    digest = hashlib.sha256()
    for name in ("place", "key_hi", "key_lo"):
        digest.update(keys[name].to_numpy().tobytes())
    digest.update("\0".join(keys["label"].to_pylist()).encode())
    found.digests = [digest.digest()]
    return found, keys


def _rejects(block: pa.Table) -> pa.Table:
    return block.filter(pc.is_valid(block["reason"])).select(["place", "column", "reason", "value"])


def _count(column: pa.ChunkedArray) -> Counter[str]:
    return Counter({item["values"]: item["counts"] for item in column.value_counts().to_pylist()})


@ray.remote
def _rejects_of(block: pa.Table, files: list[str]) -> pa.Table:
    """The rejects of a block as the user reads them."""
    found = _rejects(block)
    found = found.filter(pc.not_equal(found["reason"], _OUTSIDE_WHERE))
    place = found["place"].to_numpy()
    return pa.table(
        {
            "file": pa.array([files[p >> _LINE_BITS] for p in place], pa.string()),
            "line": pa.array(place & (1 << _LINE_BITS) - 1, pa.int64()),
            "column": found["column"],
            "reason": found["reason"],
            "value": found["value"],
        }
    )
