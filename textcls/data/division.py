"""Blocks of rows -> blocks of each split, on Ray.

In: the blocks of pipeline.py and their keys (36 bytes a row). Out: for each block its training, validation and test
rows. Not here: which split a text belongs to (split.py, pure).

    keys of each block ─▶ by hash range ─▶ tally a range ─▶ cut points ─▶ assign a range ─▶ divide each block

No process holds a class or a column; a text stays on its node until its own block is divided.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from textcls.data import split
from textcls.data.account import EXAMPLES
from textcls.settings.recipe import SplitSpec

# Rows of one hash range, handled by one process: about 300 MB while it sorts.
_ROWS_PER_PART = 4_000_000


@dataclass(frozen=True)
class Division:
    """The rows of every split.

    Attributes:
        blocks: split name -> object references of tables (input_ids: list<int32>, label: int32).
        texts: "train" and "test" -> object references of tables (text: string), rows as in `blocks`.
        counts: int64 [4, C], rows by split code and class.
        conflicts: texts that stand under two labels.
        conflict_places: places of the first few of them.
    """

    blocks: dict[str, list[Any]]
    texts: dict[str, list[Any]]
    counts: np.ndarray
    conflicts: int
    conflict_places: list[int]


def divide(
    blocks: Sequence[Any], keys: Sequence[Any], labels: Sequence[str], spec: SplitSpec, *, rows: int, keep_all: bool
) -> Division:
    """Divides blocks into splits.

    Args:
        blocks: object references of tables with a `reason` (null for clean rows), `text`, `label`, `input_ids`, key_hi.
        keys: object references of their clean rows' place, key_hi, key_lo and label.
        labels: label names in id order.
        spec: shares and seed.
        rows: clean rows in all.
        keep_all: whether duplicates are kept.
    """
    parts = max(1, -(-rows // _ROWS_PER_PART))
    part_keys = _part_keys.options(num_returns=parts)
    by_block = [_as_list(part_keys.remote(of_block, labels, spec.seed, parts)) for of_block in keys]
    tallies = [_tally_part.remote(keep_all, *(of_block[p] for of_block in by_block)) for p in range(parts)]
    facts: list[tuple[np.ndarray, int, list[int]]] = [ray.get(_facts_of.remote(t, len(labels))) for t in tallies]
    sizes = np.stack([of_part for of_part, _, _ in facts])
    cuts = split.cut_points(sizes.sum(axis=0), spec)
    before = np.cumsum(sizes, axis=0) - sizes
    assign_part = _assign_part.options(num_returns=len(blocks))
    codes = [_as_list(assign_part.remote(tally, before[p], cuts)) for p, tally in enumerate(tallies)]
    divided = [
        _divide_block.options(num_returns=6).remote(block, labels, spec.seed, parts, *(of_part[b] for of_part in codes))
        for b, block in enumerate(blocks)
    ]
    return Division(
        blocks={name: [of_block[i] for of_block in divided] for i, name in enumerate(split.SPLITS[:3])},
        texts={name: [of_block[3 + i] for of_block in divided] for i, name in enumerate(("train", "test"))},
        counts=sum((ray.get(of_block[-1]) for of_block in divided), np.zeros((4, len(labels)), np.int64)),
        conflicts=sum(number for _, number, _ in facts),
        conflict_places=sorted(place for _, _, places in facts for place in places)[:EXAMPLES],
    )


def clean_rows(block: pa.Table) -> pa.Table:
    """A block without its rejects."""
    return block.filter(pc.is_null(block["reason"]))


def _as_list(refs: Any) -> list[Any]:
    """Ray hands back a bare reference, not a list, for a task with one result."""
    return refs if isinstance(refs, list) else [refs]


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
        sorted(place[found.conflicts].tolist())[:EXAMPLES],
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
    clean = clean_rows(block)
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
