"""Blocks of rows -> blocks of each split, on Ray.

In: `ReadRows` with token ids. Out: `PreparedData` (prepared_rows.py): blocks of each split, with the counts and facts
that training needs. Not here: which split a text belongs to (split.py, pure).

    keys of each block ─▶ by hash range ─▶ tally each range ─▶ cut points ─▶ assign each range ─▶ split each block

No process holds a stratum or a column; the text of a row stays on its node until its own block is split.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray

from textcls.data import split
from textcls.data.conflicts import Resolved, resolve
from textcls.data.folds import Fold, index_and_count
from textcls.data.prepared_rows import PreparedData, training_account
from textcls.data.read import ReadRows
from textcls.data.row_findings import plan_slices
from textcls.data.row_tables import clean_rows, input_columns, target_column, targets_of
from textcls.data.row_tokens import TOKEN_COLUMNS, placeholder_counts
from textcls.data.slice_columns import is_slice
from textcls.data.summary import EXAMPLES
from textcls.settings.data import DataSpec
from textcls.settings.recipe import SplitSpec
from textcls.tasks.shares import fold_offsets
from textcls.tasks.task import Task

# Rows of one hash range, handled by one process: about 300 MB while it sorts.
_ROWS_PER_RANGE = 4_000_000


class _Keys(NamedTuple):
    """The keys of a block's rows in one hash range; each array is [N].

    Attributes:
        label: int32, places in `labels`.
        labels: the different labels.
    """

    hashes: np.ndarray
    key_lo: np.ndarray
    row_id: np.ndarray
    label: np.ndarray
    labels: tuple[str, ...]

    def part(self, rows: np.ndarray) -> "_Keys":
        """The keys of some rows."""
        return _Keys(self.hashes[rows], self.key_lo[rows], self.row_id[rows], self.label[rows], self.labels)


class _Tallied(NamedTuple):
    """A tallied hash range, and the number of rows that each block has in it."""

    resolved: Resolved
    rows_of_block: list[int]


class _Facts(NamedTuple):
    """What the driver needs of a tallied range.

    Attributes:
        rows_of_label: rows that count, by label.
        conflicts: number of texts with several labels.
        first_conflicts: row ids of the first few.
    """

    rows_of_label: dict[str, int]
    conflicts: int
    first_conflicts: list[int]


class _Assigned(NamedTuple):
    """What a block's rows in one hash range become: int8 [N] split codes, and row -> new label."""

    codes: np.ndarray
    relabelled: dict[int, str]


class _SplitBlock(NamedTuple):
    """A block's rows by split and their numbers, or references to them.

    Attributes:
        rows: int64 [5], rows by split code.
        label_rows: int64 [3, C], rows that have each label name, by split code.
        placeholders: int64 [3, K], placeholders of each kind of personal data, by split code.
    """

    train: Any
    val: Any
    test: Any
    train_inputs: Any
    val_inputs: Any
    test_inputs: Any
    rows: Any
    label_rows: Any
    placeholders: Any


def split_rows(read: ReadRows, spec: SplitSpec, *, max_tokens: int) -> PreparedData:
    """Splits rows that were read with a tokenizer.

    Args:
        read: the rows.
        spec: shares and seed.
        max_tokens: the tokenizer's limit, for the statistics of lengths.
    """
    task, labels, blocks = read.task, read.labels, read.blocks
    ranges = max(1, -(-read.summary.rows // _ROWS_PER_RANGE))
    keys_by_range = _keys_by_range.options(num_returns=ranges)
    by_block = [_as_list(keys_by_range.remote(keys, spec.seed, ranges)) for keys in read.keys]
    tally = _tally.options(num_returns=3)
    tallied, facts_refs, conflicts = zip(
        *(tally.remote(read.data, spec, task, labels, *(of_block[i] for of_block in by_block)) for i in range(ranges)),
        strict=True,
    )
    facts: list[_Facts] = ray.get(list(facts_refs))
    strata = _in_order(task, labels, {label for one in facts for label in one.rows_of_label})
    sizes = np.array([[one.rows_of_label.get(label, 0) for label in strata] for one in facts], np.int64)
    fold, cuts = _fold_and_cuts(task, strata, sizes.sum(axis=0), labels, spec)
    before = np.cumsum(sizes, axis=0) - sizes
    assign, strata_ref = _assign.options(num_returns=len(blocks)), ray.put(strata)
    assigned = [_as_list(assign.remote(one, strata_ref, before[i], cuts, fold)) for i, one in enumerate(tallied)]
    counted = {kind: token for kind, token in read.placeholders.items() if token >= 0}
    ids = tuple(counted.values())
    done = [
        _SplitBlock(*_split_block.remote(block, task, labels, spec.seed, ranges, ids, *(one[b] for one in assigned)))
        for b, block in enumerate(blocks)
    ]
    rows = np.sum(ray.get([one.rows for one in done]), axis=0)
    label_rows = np.sum(ray.get([one.label_rows for one in done]), axis=0)
    placeholders = np.sum(ray.get([one.placeholders for one in done]), axis=0)
    of_splits = list(enumerate(split.SPLITS[:3]))
    first_conflicts = sorted(row_id for one in facts for row_id in one.first_conflicts)[:EXAMPLES]
    return PreparedData(
        task=task,
        labels=labels,
        blocks={
            "train": [one.train for one in done],
            "val": [one.val for one in done],
            "test": [one.test for one in done],
        },
        inputs={
            "train": [one.train_inputs for one in done],
            "val": [one.val_inputs for one in done],
            "test": [one.test_inputs for one in done],
        },
        class_counts={name: label_rows[code].tolist() for code, name in of_splits},
        account=training_account(
            read.summary,
            rows,
            read.masked_rows,
            {name: dict(zip(counted, placeholders[code].tolist(), strict=True)) for code, name in of_splits if counted},
        ),
        tokens=read.summary.token_lengths(max_tokens),
        conflicts=(sum(one.conflicts for one in facts), [read.location(row_id) for row_id in first_conflicts]),
        conflict_tables=list(conflicts),
        fingerprint=read.fingerprint,
        files=tuple(read.files),
        slices=plan_slices([one.test for one in done], read.files, read.data.slice_columns),
        excluded=read.excluded,
    )


def _fold_and_cuts(
    task: Task, strata: Sequence[str], rows: np.ndarray, labels: Sequence[str], spec: SplitSpec
) -> tuple[Fold | None, np.ndarray]:
    """(the fold of `split.fold`, the cut points of the rows that it does not hold)."""
    if not (place := index_and_count(spec)):
        return None, task.cut_points(strata, rows, labels, spec)
    sets = [task.names_in(label) for label in strata]
    fold = Fold(*place, fold_offsets(sets, rows, place[1], labels, spec.seed))
    return fold, task.cut_points(strata, fold.others(rows), labels, spec.model_copy(update={"test": 0.0}))


def _in_order(task: Task, names: Sequence[str], labels: Iterable[str]) -> tuple[str, ...]:
    """Labels in the order of the ids of their names, which depends on nothing but the labels."""
    id_of = {name: i for i, name in enumerate(names)}
    return tuple(sorted(labels, key=lambda label: [id_of[name] for name in task.names_in(label)]))


def _as_list(refs: Any) -> list[Any]:
    """Ray returns a bare reference, not a list, for a task with one result."""
    return refs if isinstance(refs, list) else [refs]


def _results(results: list[Any]) -> Any:
    """The counterpart of `_as_list` inside a task: Ray wants a bare value for a task with one result."""
    return results if len(results) > 1 else results[0]


@ray.remote
def _keys_by_range(keys: pa.Table, seed: int, ranges: int) -> Any:
    """A block's `_Keys` in each hash range."""
    hashes = split.shuffle_hash(keys["key_hi"].to_numpy(), seed)
    label = keys["label"].combine_chunks().dictionary_encode()
    labels = tuple(label.dictionary.to_pylist())
    of_block = _Keys(hashes, keys["key_lo"].to_numpy(), keys["row_id"].to_numpy(), label.indices.to_numpy(), labels)
    range_of_row = split.range_of(hashes, ranges)
    return _results([of_block.part(np.flatnonzero(range_of_row == i)) for i in range(ranges)])


@ray.remote
def _tally(
    data: DataSpec, spec: SplitSpec, task: Task, names: Sequence[str], *blocks: _Keys
) -> tuple[_Tallied, _Facts, pa.Table]:
    """One hash range over all blocks: (the tally, its facts, a table of the rows in conflict)."""
    labels = _in_order(task, names, {label for block in blocks for label in block.labels})
    places = {label: place for place, label in enumerate(labels)}
    label = np.concatenate([np.array([places[one] for one in b.labels], np.int32)[b.label] for b in blocks])
    hashes, key_lo, row_id = (np.concatenate(arrays) for arrays in zip(*(block[:3] for block in blocks), strict=True))
    keep_all, by_hash = data.on_duplicate == "keep_all", spec.group_by != "none"
    tally = split.tally(hashes, key_lo, label, row_id, keep_all=keep_all, by_hash=by_hash)
    resolved = resolve(tally, labels, label, row_id, task, data.on_conflict)
    sizes = resolved.tally.stratum_sizes(len(resolved.labels)).tolist()
    facts = _Facts(
        rows_of_label={label: rows for label, rows in zip(resolved.labels, sizes, strict=True) if rows},
        conflicts=len(tally.conflicts),
        first_conflicts=sorted(row_id[tally.conflicts].tolist())[:EXAMPLES],
    )
    return _Tallied(resolved, [len(block.hashes) for block in blocks]), facts, resolved.table


@ray.remote
def _assign(tallied: _Tallied, strata: Sequence[str], before: np.ndarray, cuts: np.ndarray, fold: Fold | None) -> Any:
    """`_Assigned` of the rows in one hash range, for each block; see `split.assign`."""
    resolved, places = tallied.resolved, {label: place for place, label in enumerate(strata)}
    place_of = np.array([places.get(label, 0) for label in resolved.labels], np.int32)  # no row: any place will do
    codes = split.assign(replace(resolved.tally, stratum=place_of[resolved.tally.stratum]), before, cuts, fold)
    ends = np.cumsum(tallied.rows_of_block)
    assigned = [_Assigned(of_block, {}) for of_block in np.split(codes, ends[:-1])]
    for row, label in resolved.relabelled.items():
        block = int(np.searchsorted(ends, row, side="right"))
        assigned[block].relabelled[row - int(ends[block] - tallied.rows_of_block[block])] = label
    return _results(assigned)


@ray.remote(num_returns=len(_SplitBlock._fields))
def _split_block(
    block: pa.Table,
    task: Task,
    labels: Sequence[str],
    seed: int,
    ranges: int,
    placeholders: Sequence[int],
    *assigned: _Assigned,
) -> _SplitBlock:
    """The rows of one block by split, in order; one `_Assigned` for each hash range."""
    clean = clean_rows(block)
    targets = targets_of(clean["label"], task, labels)
    range_of_row = split.range_of(split.shuffle_hash(clean["key_hi"].to_numpy(), seed), ranges)
    codes = np.empty(clean.num_rows, np.int8)
    for i, of_range in enumerate(assigned):
        rows = np.flatnonzero(range_of_row == i)
        codes[rows] = of_range.codes
        if of_range.relabelled:
            targets[rows[list(of_range.relabelled)]] = task.encode(list(of_range.relabelled.values()), labels)
    tokens = clean.select([name for name in TOKEN_COLUMNS if name in clean.column_names])
    tokens = tokens.append_column("target", target_column(targets))
    inputs = clean.select(input_columns(clean))

    facts = clean.select([name for name in clean.column_names if name in ("row_id", "tokens") or is_slice(name)])
    with_facts = pa.table([*tokens.columns, *facts.columns], [*tokens.column_names, *facts.column_names])

    def rows_of(table: pa.Table, code: int) -> pa.Table:
        return table.filter(pa.array(codes == code)).combine_chunks()

    return _SplitBlock(
        rows_of(tokens, split.TRAIN),
        rows_of(tokens, split.VAL),
        rows_of(with_facts, split.TEST),
        rows_of(inputs, split.TRAIN),
        rows_of(inputs, split.VAL),
        rows_of(inputs, split.TEST),
        np.bincount(codes, minlength=len(split.SPLITS)),
        np.stack([task.label_rows(targets[codes == code], len(labels)) for code in range(3)]),
        # Rows that are not tokenized hold none to count.
        placeholder_counts(clean["input_ids"], codes, placeholders) if placeholders else np.zeros((3, 0), np.int64),
    )
