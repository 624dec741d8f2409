"""The data graph: CSV files -> tokenized splits in Ray's object store, every row accounted for.

In: a recipe and the tokenizer. Out: `PreparedData`: Arrow blocks per split, the account of law 1, label and token
statistics. The only module that builds a Ray Data graph for training. Not here: CSV rules (csv_shards.py), what makes
a row a reject (rows.py), which split a text belongs to (split.py).

    shards ─▶ read + clean ─▶ tokenize ─▶ blocks ──▶ describe ─▶ labels, account, checks
                                            │            └─▶ keys by hash range ─▶ tally ─▶ assign ─┐
                                            └───────────────────────────────────── divide ◀─────────┘

A row's text crosses the network once at most; the split works on 36 bytes a row. A task holds one block of about
16 MB; the driver holds counts only. Blocks live in the object store, which spills to disk when it is full.
"""

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from textcls.data import split
from textcls.data.csv_layout import Layout
from textcls.data.csv_shards import Shard, plan_shards, read_shard
from textcls.data.input_files import expand
from textcls.data.rows import CleanRow, Reject, RowCleaner
from textcls.labels import label_order
from textcls.recipe import DataSpec, Recipe, TextSpec
from textcls.text import TokenizerFiles, encoder_of

# A block is cut at whichever comes first; small enough for many tasks, large enough to keep Ray's overhead below 1 %.
_BLOCK_ROWS = 20_000
_BLOCK_CHARS = 16 * 2**20
# place = file index << 40 | line: one number that orders rows as the files do (2**40 lines a file).
_LINE_BITS = 40
# Rows of one hash range handled by one process: about 300 MB while it sorts.
_ROWS_PER_PART = 4_000_000
_OUTSIDE_WHERE = "outside_where"
_EXAMPLES = 3

_READ_SCHEMA = pa.schema(
    [
        ("place", pa.int64()),
        ("text", pa.large_string()),
        ("label", pa.string()),
        ("key_hi", pa.uint64()),
        ("key_lo", pa.uint64()),
        # The next three are set for rejects alone. Reason `outside_where` stands for `value` rows that were not read.
        ("column", pa.string()),
        ("reason", pa.string()),
        ("value", pa.string()),
    ]
)


@dataclass(frozen=True)
class Account:
    """Law 1: read = train + val + test + rejects + duplicates, to the row."""

    read: int
    train: int
    val: int
    test: int
    rejects: int
    duplicates: int
    outside_where: int
    reject_reasons: dict[str, int]

    def balances(self) -> bool:
        """Whether every row read is somewhere."""
        return self.read == self.train + self.val + self.test + self.rejects + self.duplicates


@dataclass
class BlockSummary:
    """What one block, or several added up, hold: counts and a few examples, never rows."""

    rows: int = 0
    outside_where: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    token_histogram: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    digests: list[bytes] = field(default_factory=list)

    def add(self, other: "BlockSummary") -> None:
        """Adds the counts of a later block."""
        self.rows += other.rows
        self.outside_where += other.outside_where
        self.reasons += other.reasons
        for reason, examples in other.examples.items():
            self.examples[reason] = (self.examples.get(reason, []) + examples)[:_EXAMPLES]
        self.labels += other.labels
        bins = np.zeros(max(len(self.token_histogram), len(other.token_histogram)), np.int64)
        bins[: len(self.token_histogram)] += self.token_histogram
        bins[: len(other.token_histogram)] += other.token_histogram
        self.token_histogram = bins
        self.digests += other.digests

    @property
    def rejects(self) -> int:
        """Rows that were read and refused."""
        return self.reasons.total()

    @property
    def read(self) -> int:
        """Rows that matched `where`, or could not be matched against it."""
        return self.rows + self.rejects

    def tokens(self, max_tokens: int) -> dict[str, Any]:
        """Token-length percentiles before the cut, and the share of rows that the cut shortens."""
        running = np.cumsum(self.token_histogram)
        ranks = {str(p): int(np.searchsorted(running, p / 100 * running[-1])) for p in (50, 90, 95, 99, 100)}
        cut = int(self.token_histogram[max_tokens + 1 :].sum())
        return {
            "max_tokens": max_tokens,
            "percentiles": ranks,
            "truncated_rows": cut,
            "truncated_fraction": cut / max(self.rows, 1),
        }


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
    """Rows read, cleaned and tokenized, not yet divided: what `--dry-run` looks at.

    Attributes:
        summary: counts over all blocks.
        files: the files read, in order.
    """

    def __init__(self, recipe: Recipe, tokenizer: TokenizerFiles) -> None:
        started = time.monotonic()
        self._recipe = recipe
        files = expand(recipe.data.csv)
        self.files = [file.uri for file in files]
        layouts, shards = plan_shards(files, recipe.data, run=_run_on_ray)
        self.delimiter = layouts[0].delimiter
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = sys.stderr.isatty()
        context.print_on_execution_start = False
        # Block order is row order: the training plan names rows by position, today and when a run is resumed.
        context.execution_options.preserve_order = True
        dataset = (
            ray.data.range(len(shards), override_num_blocks=len(shards))
            .map_batches(
                _read,
                batch_size=1,
                fn_kwargs={"shards": shards, "layouts": layouts, "data": recipe.data, "text": recipe.text},
            )
            .map_batches(_tokenize, batch_size=None, batch_format="pyarrow", fn_kwargs={"tokenizer": tokenizer})
        )
        self._blocks = dataset.to_arrow_refs()
        described = [_describe.remote(block) for block in self._blocks]
        self._keys = [keys for _, keys in described]
        self.summary = BlockSummary()
        self._with_rejects = []
        for block, (summary, _) in zip(self._blocks, described, strict=True):
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

    def divide(self) -> PreparedData:
        """Divides the rows into splits; the text blocks are let go of as soon as they are divided."""
        labels = self.label_names()
        spec, keep_all = self._recipe.split, self._recipe.data.on_duplicate == "keep_all"
        parts = max(1, -(-self.summary.rows // _ROWS_PER_PART))
        by_block = [
            _as_list(_part_keys.options(num_returns=parts).remote(k, labels, spec.seed, parts)) for k in self._keys
        ]
        tallies = [_tally_part.remote(keep_all, *(block[p] for block in by_block)) for p in range(parts)]
        facts: list[tuple[np.ndarray, int, list[int]]] = [
            ray.get(_facts_of.remote(tally, len(labels))) for tally in tallies
        ]
        sizes = np.stack([sizes for sizes, _, _ in facts])
        cuts = split.cut_points(sizes.sum(axis=0), spec)
        before = np.cumsum(sizes, axis=0) - sizes
        codes = [
            _as_list(_assign_part.options(num_returns=len(by_block)).remote(tally, before[p], cuts))
            for p, tally in enumerate(tallies)
        ]
        divided = [
            _divide_block.options(num_returns=6).remote(
                block, labels, spec.seed, parts, *(of_part[b] for of_part in codes)
            )
            for b, block in enumerate(self._blocks)
        ]
        counts = sum((ray.get(of_block[-1]) for of_block in divided), np.zeros((4, len(labels)), np.int64))
        blocks = {name: [of_block[i] for of_block in divided] for i, name in enumerate(split.SPLITS[:3])}
        texts = {name: [of_block[3 + i] for of_block in divided] for i, name in enumerate(("train", "test"))}
        places = [place for _, _, places in facts for place in places]
        return PreparedData(
            labels=labels,
            blocks=blocks,
            texts=texts,
            class_counts={name: counts[i].tolist() for i, name in enumerate(split.SPLITS[:3])},
            account=self.account(counts),
            tokens=self.summary.tokens(self._recipe.text.max_tokens),
            conflicts=(sum(number for _, number, _ in facts), [self._spot(p) for p in sorted(places)[:_EXAMPLES]]),
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
        return [f"{self._spot(row['place'])} {row['column']}: {row['value']}" for row in self.summary.examples[reason]]

    def _spot(self, place: int) -> str:
        return f"{self.files[place >> _LINE_BITS]}:{place & (1 << _LINE_BITS) - 1}"


def _run_on_ray(function: Any, jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Runs a function on Ray once per tuple of arguments, results in order."""
    task = ray.remote(function)
    return cast(list[Any], ray.get([task.remote(*job) for job in jobs]))


def _as_list(refs: Any) -> list[Any]:
    """Ray hands back a bare reference, not a list, for a task with one result."""
    return refs if isinstance(refs, list) else [refs]


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
    if outside:
        _append_reject(columns, base, Reject(0, "", _OUTSIDE_WHERE, str(outside)))
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
    clean = block.filter(pc.is_null(block["reason"]))
    outside = pc.equal(rejects["reason"], _OUTSIDE_WHERE)
    found = BlockSummary(
        rows=clean.num_rows,
        outside_where=sum(int(value) for value in rejects.filter(outside)["value"].to_pylist()),
        labels=_count(clean["label"]),
        token_histogram=np.bincount(clean["tokens"].to_numpy(), minlength=1).astype(np.int64),
    )
    rejects = rejects.filter(pc.invert(outside))
    found.reasons = _count(rejects["reason"])
    for row in rejects.to_pylist():
        examples = found.examples.setdefault(row["reason"], [])
        if len(examples) < _EXAMPLES:
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


def _ids_of(column: pa.ChunkedArray, labels: Sequence[str]) -> np.ndarray:
    """int32 [N]: label ids of label names."""
    found: np.ndarray = pc.index_in(column, pa.array(labels)).to_numpy().astype(np.int32)
    return found


@ray.remote
def _part_keys(keys: pa.Table, labels: Sequence[str], seed: int, parts: int) -> Any:
    """A block's keys by hash range: one (hash, key_lo, label id, place) tuple of arrays per part."""
    hashes = split.shuffle_hash(keys["key_hi"].to_numpy(), seed)
    arrays = (hashes, keys["key_lo"].to_numpy(), _ids_of(keys["label"], labels), keys["place"].to_numpy())
    part = split.part_of(hashes, parts)
    divided = [tuple(array[part == p] for array in arrays) for p in range(parts)]
    return divided if parts > 1 else divided[0]


@ray.remote
def _tally_part(keep_all: bool, *blocks: tuple[np.ndarray, ...]) -> tuple[split.Tally, np.ndarray, list[int]]:
    """(tally, place, rows of each block) of one hash range over all blocks."""
    hashes, key_lo, label, place = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
    found = split.tally(hashes, key_lo, label, place, keep_all=keep_all)
    return found, place, [len(block[0]) for block in blocks]


@ray.remote
def _facts_of(part: tuple[split.Tally, np.ndarray, list[int]], classes: int) -> tuple[np.ndarray, int, list[int]]:
    """(rows that count by class, number of texts under two labels, places of the first few of them)."""
    found, place, _ = part
    return (
        found.class_sizes(classes),
        len(found.conflicts),
        sorted(place[found.conflicts].tolist())[:_EXAMPLES],
    )


@ray.remote
def _assign_part(part: tuple[split.Tally, np.ndarray, list[int]], before: np.ndarray, cuts: np.ndarray) -> Any:
    """Split codes of one hash range, block by block."""
    found, _, rows_of_block = part
    codes = split.assign(found, before, cuts)
    divided = np.split(codes, np.cumsum(rows_of_block)[:-1])
    return divided if len(divided) > 1 else divided[0]


@ray.remote
def _divide_block(
    block: pa.Table, labels: Sequence[str], seed: int, parts: int, *codes: np.ndarray
) -> tuple[pa.Table, pa.Table, pa.Table, pa.Table, pa.Table, np.ndarray]:
    """(train, val, test ids; train, test texts; int64 [4, C] rows by split and class) of one block."""
    clean = block.filter(pc.is_null(block["reason"]))
    label = _ids_of(clean["label"], labels)
    part = split.part_of(split.shuffle_hash(clean["key_hi"].to_numpy(), seed), parts)
    code = np.empty(clean.num_rows, np.int8)
    for p in range(parts):
        code[part == p] = codes[p]
    tokens = pa.table({"input_ids": clean["input_ids"], "label": label})

    def rows(table: pa.Table, which: int) -> pa.Table:
        return table.filter(pa.array(code == which)).combine_chunks()

    counts = np.zeros((4, len(labels)), np.int64)
    np.add.at(counts, (code, label), 1)
    return (
        *(rows(tokens, which) for which in (split.TRAIN, split.VAL, split.TEST)),
        rows(clean.select(["text"]), split.TRAIN),
        rows(clean.select(["text"]), split.TEST),
        counts,
    )
