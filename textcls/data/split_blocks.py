"""Blocks of rows -> blocks of each split, on Ray.

In: `ReadRows` with token ids. Out: `PreparedData`: blocks of each split, with the counts and facts that training needs.
Not here: which split a text belongs to (split.py, pure).

    keys of each block ─▶ by hash range ─▶ tally each range ─▶ cut points ─▶ assign each range ─▶ split each block

No process holds a stratum or a column; the text of a row stays on its node until its own block is split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray

from textcls.data import split
from textcls.data.read import ReadRows
from textcls.data.row_tables import TOKEN_COLUMNS, clean_rows, input_columns, target_column, targets_of
from textcls.data.summary import EXAMPLES, RowSummary
from textcls.output.account import Account
from textcls.settings.recipe import SplitSpec
from textcls.tasks.task import Task

# Rows of one hash range, handled by one process: about 300 MB while it sorts.
_ROWS_PER_RANGE = 4_000_000


@dataclass(frozen=True)
class PreparedData:
    """The rows of every split, tokenized, and what training needs to know of them.

    Attributes:
        task: what is predicted.
        labels: label names in id order.
        blocks: split name -> object references of tables (`row_tables.TOKEN_COLUMNS`, target: as the task encodes it).
        inputs: "train" and "test" -> object references of tables for `row_tables.inputs_of`, rows as in `blocks`.
        class_counts: split name -> rows that have each label name, in id order.
        account: where every row went.
        tokens: percentiles of token lengths, and the share of truncated rows.
        conflicts: (number of texts that have two labels, FILE:LINE of the first few).
        fingerprint: sha256 over the row id, the text key and the label of every clean row.
    """

    task: Task
    labels: tuple[str, ...]
    blocks: dict[str, list[Any]]
    inputs: dict[str, list[Any]]
    class_counts: dict[str, list[int]]
    account: Account
    tokens: dict[str, Any]
    conflicts: tuple[int, list[str]]
    fingerprint: str

    def rows_by_label(self) -> dict[str, dict[str, int]]:
        """Label name -> split name -> rows."""
        return {
            label: dict(zip(self.class_counts, rows, strict=True))
            for label, *rows in zip(self.labels, *self.class_counts.values(), strict=True)
        }


def training_account(summary: RowSummary, rows_by_split: Sequence[int] = (0, 0, 0, 0)) -> Account:
    """Where the rows of a training run went.

    Args:
        summary: counts of the rows that were read.
        rows_by_split: rows by split code; all 0 before the rows are split.
    """
    train, val, test, duplicates = map(int, rows_by_split)
    outcomes = {"train": train, "val": val, "test": test, "rejects": summary.rejects, "duplicates": duplicates}
    return Account(summary.read, outcomes, summary.outside_where, dict(summary.reasons))


class _Keys(NamedTuple):
    """The keys of rows in one hash range; each array is [N]."""

    hashes: np.ndarray
    key_lo: np.ndarray
    stratum: np.ndarray
    row_id: np.ndarray


class _Tallied(NamedTuple):
    """A tallied hash range, with the row ids and the number of rows that each block has in it."""

    tally: split.Tally
    row_id: np.ndarray
    rows_of_block: list[int]


class _Facts(NamedTuple):
    """What the driver needs of a tallied range: rows by stratum (int64 [C]), texts with two labels, the first few."""

    stratum_sizes: np.ndarray
    conflicts: int
    first_conflicts: list[int]


class _SplitBlock(NamedTuple):
    """A block's rows by split and their numbers, or references to them.

    Attributes:
        rows: int64 [4], rows by split code.
        label_rows: int64 [4, C], rows that have each label name, by split code.
    """

    train: Any
    val: Any
    test: Any
    train_inputs: Any
    test_inputs: Any
    rows: Any
    label_rows: Any


def split_rows(read: ReadRows, spec: SplitSpec, *, max_tokens: int) -> PreparedData:
    """Splits rows that were read with a tokenizer.

    Args:
        read: the rows.
        spec: shares and seed.
        max_tokens: the tokenizer's limit, for the statistics of lengths.
    """
    task, labels, blocks = read.task, read.labels, read.blocks
    keep_all = read.data.on_duplicate == "keep_all"
    ranges = max(1, -(-read.summary.rows // _ROWS_PER_RANGE))
    keys_by_range = _keys_by_range.options(num_returns=ranges)
    by_block = [_as_list(keys_by_range.remote(keys, task, labels, spec.seed, ranges)) for keys in read.keys]
    tallied = [_tally.remote(keep_all, *(of_block[i] for of_block in by_block)) for i in range(ranges)]
    facts: list[_Facts] = ray.get([_facts.remote(one, len(labels)) for one in tallied])
    sizes = np.stack([one.stratum_sizes for one in facts])
    cuts = split.cut_points(sizes.sum(axis=0), spec)
    before = np.cumsum(sizes, axis=0) - sizes
    assign = _assign.options(num_returns=len(blocks))
    codes = [_as_list(assign.remote(one, before[i], cuts)) for i, one in enumerate(tallied)]
    done = [
        _SplitBlock(*_split_block.remote(block, task, labels, spec.seed, ranges, *(of_range[b] for of_range in codes)))
        for b, block in enumerate(blocks)
    ]
    rows = np.sum(ray.get([one.rows for one in done]), axis=0)
    label_rows = np.sum(ray.get([one.label_rows for one in done]), axis=0)
    first_conflicts = sorted(row_id for one in facts for row_id in one.first_conflicts)[:EXAMPLES]
    return PreparedData(
        task=task,
        labels=labels,
        blocks={
            "train": [one.train for one in done],
            "val": [one.val for one in done],
            "test": [one.test for one in done],
        },
        inputs={"train": [one.train_inputs for one in done], "test": [one.test_inputs for one in done]},
        class_counts={name: label_rows[code].tolist() for code, name in enumerate(split.SPLITS[:3])},
        account=training_account(read.summary, rows),
        tokens=read.summary.token_lengths(max_tokens),
        conflicts=(sum(one.conflicts for one in facts), [read.location(row_id) for row_id in first_conflicts]),
        fingerprint=read.fingerprint,
    )


def _as_list(refs: Any) -> list[Any]:
    """Ray returns a bare reference, not a list, for a task with one result."""
    return refs if isinstance(refs, list) else [refs]


def _results(results: list[Any]) -> Any:
    """The counterpart of `_as_list` inside a task: Ray wants a bare value for a task with one result."""
    return results if len(results) > 1 else results[0]


@ray.remote
def _keys_by_range(keys: pa.Table, task: Task, labels: Sequence[str], seed: int, ranges: int) -> Any:
    """A block's `_Keys` in each hash range."""
    hashes = split.shuffle_hash(keys["key_hi"].to_numpy(), seed)
    strata = task.strata(targets_of(keys["label"], task, labels))
    of_block = _Keys(hashes, keys["key_lo"].to_numpy(), strata, keys["row_id"].to_numpy())
    range_of_row = split.range_of(hashes, ranges)
    return _results([_Keys(*(array[range_of_row == i] for array in of_block)) for i in range(ranges)])


@ray.remote
def _tally(keep_all: bool, *blocks: _Keys) -> _Tallied:
    """One hash range over all blocks."""
    keys = _Keys(*(np.concatenate(arrays) for arrays in zip(*blocks, strict=True)))
    tally = split.tally(keys.hashes, keys.key_lo, keys.stratum, keys.row_id, keep_all=keep_all)
    return _Tallied(tally, keys.row_id, [len(block.hashes) for block in blocks])


@ray.remote
def _facts(tallied: _Tallied, strata: int) -> _Facts:
    tally = tallied.tally
    first_conflicts = sorted(tallied.row_id[tally.conflicts].tolist())[:EXAMPLES]
    return _Facts(tally.stratum_sizes(strata), len(tally.conflicts), first_conflicts)


@ray.remote
def _assign(tallied: _Tallied, before: np.ndarray, cuts: np.ndarray) -> Any:
    """Split codes of the rows in one hash range, for each block; see `split.assign`."""
    codes = split.assign(tallied.tally, before, cuts)
    return _results(np.split(codes, np.cumsum(tallied.rows_of_block)[:-1]))


@ray.remote(num_returns=len(_SplitBlock._fields))
def _split_block(
    block: pa.Table, task: Task, labels: Sequence[str], seed: int, ranges: int, *codes_by_range: np.ndarray
) -> _SplitBlock:
    """The rows of one block by split, in order."""
    clean = clean_rows(block)
    targets = targets_of(clean["label"], task, labels)
    range_of_row = split.range_of(split.shuffle_hash(clean["key_hi"].to_numpy(), seed), ranges)
    codes = np.empty(clean.num_rows, np.int8)
    for i in range(ranges):
        codes[range_of_row == i] = codes_by_range[i]
    tokens = clean.select([name for name in TOKEN_COLUMNS if name in clean.column_names])
    tokens = tokens.append_column("target", target_column(targets))
    inputs = clean.select(input_columns(clean))

    def rows(table: pa.Table, code: int) -> pa.Table:
        return table.filter(pa.array(codes == code)).combine_chunks()

    return _SplitBlock(
        rows(tokens, split.TRAIN),
        rows(tokens, split.VAL),
        rows(tokens, split.TEST),
        rows(inputs, split.TRAIN),
        rows(inputs, split.TEST),
        np.bincount(codes, minlength=len(split.SPLITS)),
        np.stack([task.label_rows(targets[codes == code], len(labels)) for code in range(len(split.SPLITS))]),
    )
