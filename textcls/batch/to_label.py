"""Scored rows without labels -> the rows to label next, in the order that helps most.

In: blocks of scored rows, then the candidates of all parts. Out: candidates, as many as were asked for and not as many
as there are rows; the rows to label, and their file. Not here: scoring (predict.py), margins (tasks/), where candidates
lie in --out (predictions_dir.py).

Most rows are those that the classifier is least sure of (uncertainty sampling by margin, Scheffer, Decomain, Wrobel
2001), spread over what they are about: k-means over the embeddings of twice as many candidates, and of each cluster the
least sure row (Zhdanov 2019). With five times as many candidates, rows of short reviews were no better than random
ones. Equal inputs and near-duplicates are there once. Every tenth row is drawn at random, by a hash of its input: only
on these is an accuracy unbiased, since the others are the hardest rows there are.

None of this depends on the order of rows, the files or the number of workers: rows with equal margins are ordered by
their hash.
"""

import csv
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from textcls.batch.prediction_rows import RowBlock, Scored, printable
from textcls.bundle import Bundle
from textcls.data.decisions import TO_LABEL_COLUMNS, escaped
from textcls.settings.data import DataSpec
from textcls.text.near_duplicates import Shingles, repeats
from textcls.text.normalizer import TextNormalizer
from textcls.text.text_input import TextInput

NAME = "to_label.csv"
RANDOM_SHARE = 0.1
"""Of the rows to label, how many are drawn at random."""
ROWS = 1000
"""Rows to label, unless another number is asked for."""

# Candidates for each row that is to be chosen by uncertainty.
_CANDIDATES = 2
# Clusters at a time; their time grows with the square.
_CLUSTERS = 500
# Digits of a margin that do not depend on the other texts of a batch.
_DIGITS = 5

SCHEMA = pa.schema(
    [
        ("margin", pa.float64()),
        ("hash", pa.uint64()),
        ("file_index", pa.int32()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("predicted", pa.string()),
        ("texts", pa.list_(pa.string())),
    ]
)
"""Of candidates: `hash` is equal for equal inputs, and an order at random; `texts` are the segments of the input."""

Embed = Callable[[Sequence[TextInput]], np.ndarray]
"""float32 [N, E] of N inputs."""


@dataclass(frozen=True)
class RankSpec:
    """How many rows to label are asked for.

    Attributes:
        rows: of the file.
    """

    rows: int

    @property
    def random(self) -> int:
        """Rows that are drawn at random."""
        return round(self.rows * RANDOM_SHARE)

    @property
    def uncertain(self) -> int:
        """Rows that the classifier is not sure of."""
        return self.rows - self.random

    @property
    def candidates(self) -> int:
        """Least sure rows among which these are chosen."""
        return _CANDIDATES * self.uncertain


def candidates(
    block: RowBlock,
    scores: Scored,
    thresholds: np.ndarray,
    normalize: TextNormalizer,
    *,
    file: str,
    file_index: int,
    mask: Callable[[str], str] = str,
) -> pa.Table:
    """A table of `SCHEMA` with the rows of a block that have scores.

    Args:
        block: the rows.
        scores: of the inputs of the block.
        thresholds: with which the task decides.
        normalize: as of the bundle; equal inputs are equal after it.
        file: URI of the file that the rows come from.
        file_index: its index among the files.
        mask: masks a text for people.
    """
    lines = [line for line, error in zip(block.lines, block.errors, strict=True) if error is None]
    scored = [i for i, error in enumerate(scores.errors) if error is None]
    task, probabilities = scores.task, scores.probabilities[scored]
    inputs = [block.inputs[i] for i in scored]
    # As a label cell may have it; where the classifier abstains, the answer that it withholds.
    predicted = [task.label_of(names) for names in task.names_given(probabilities, thresholds, scores.labels)]
    columns = [
        np.round(task.margins(probabilities, thresholds), _DIGITS),
        np.array([_hash(one, normalize) for one in inputs], np.uint64),
        [file_index] * len(scored),
        [printable(file)] * len(scored),
        [lines[i] for i in scored],
        predicted,
        [[mask(segment) for segment in one.segments] for one in inputs],
    ]
    return pa.table([pa.array(c, kind) for c, kind in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA)


def _hash(one: TextInput, normalize: TextNormalizer) -> int:
    """64 bits that have nothing to do with the split, which is made from the key itself."""
    return int.from_bytes(blake2b(one.key(normalize), digest_size=8, person=b"to label").digest(), "big")


def kept(tables: Sequence[pa.Table], spec: RankSpec) -> pa.Table:
    """The rows of tables of `SCHEMA` that can still be among the rows to label: as many as were asked for, about.

    Kept rows of kept rows are those of all rows, so that parts can be merged in any order.
    """
    table = pa.concat_tables([SCHEMA.empty_table(), *tables]).combine_chunks()
    hashes, margins = table["hash"].to_numpy(), table["margin"].to_numpy()
    order = np.lexsort((table["line"].to_numpy(), table["file_index"].to_numpy(), hashes))
    first = order[np.append(True, np.diff(hashes[order]) != 0)[: len(order)]]
    by_margin = first[np.lexsort((hashes[first], margins[first]))]
    rows = np.union1d(first[: spec.random], by_margin[: spec.candidates + spec.random])
    return table.take(pa.array(rows))


@dataclass(frozen=True)
class RowToLabel:
    """A row of the file.

    Attributes:
        why: `uncertain` or `random`.
        row: as in `SCHEMA`.
    """

    why: str
    row: dict[str, Any]


def to_label(candidates: pa.Table, spec: RankSpec, normalize: TextNormalizer, embed: Embed) -> list[RowToLabel]:
    """The rows to label, in order; fewer than asked for where there are not enough different ones.

    Args:
        candidates: `kept` of all parts.
        spec: how many.
        normalize: as of the bundle.
        embed: makes embeddings of some thousand inputs.
    """
    table = kept([candidates], spec).sort_by([("margin", "ascending"), ("hash", "ascending")])
    hashes = table["hash"].to_numpy()
    random = np.argsort(hashes)[: spec.random]
    others = np.setdiff1d(np.arange(len(table)), random)[: spec.candidates]
    inputs = [TextInput(*texts) for texts in table["texts"].to_pylist()]
    compared = np.concatenate([random, others])
    repeated = repeats(Shingles.of([inputs[row] for row in compared], normalize))[len(random) :]
    others = others[~repeated]
    if len(others) > spec.uncertain:
        others = others[_spread(embed([inputs[row] for row in others]), spec.uncertain)]
    rows = table.to_pylist()
    why = dict.fromkeys(others.tolist(), "uncertain") | dict.fromkeys(random.tolist(), "random")
    return [RowToLabel(why[row], rows[row]) for row in _mixed_evenly(others.tolist(), random.tolist())]


def _spread(embeddings_NE: np.ndarray, number: int) -> np.ndarray:
    """int64 [number]: places of rows that are spread over all, ascending; of similar ones the first.

    Args:
        embeddings_NE: in the order of preference.
        number: fewer than N.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rows, parts = len(embeddings_NE), -(-number // _CLUSTERS)
    directions_NE = embeddings_NE / np.maximum(np.linalg.norm(embeddings_NE, axis=1, keepdims=True), 1e-12)
    chosen = []
    for part in range(parts):
        start, stop = rows * part // parts, rows * (part + 1) // parts
        share = number * (part + 1) // parts - number * part // parts
        clusters = min(share, stop - start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # rows with equal embeddings
            means = KMeans(clusters, n_init=1, max_iter=20, random_state=0).fit(directions_NE[start:stop])
        chosen.append(start + np.unique(means.labels_, return_index=True)[1])
    found = np.concatenate(chosen)
    # There are fewer clusters where rows have equal embeddings, or a part has fewer rows than its share.
    rest = np.setdiff1d(np.arange(rows), found)[: number - len(found)]
    return np.sort(np.concatenate([found, rest]))


def _mixed_evenly(many: Sequence[int], few: Sequence[int]) -> Iterator[int]:
    """Both in their order, such that each stretch has its share of both."""
    total, given = len(many) + len(few), 0
    rest, some = iter(many), iter(few)
    for place in range(total):
        due = (place + 1) * len(few) // max(total, 1)
        yield next(some) if due > given else next(rest)
        given = due


def input_names(bundle: Bundle, data: DataSpec) -> tuple[str, ...]:
    """A name for each segment of an input: its column, or `text` for a text of several columns."""
    columns = data.input_columns
    return columns if len(columns) == 1 + bundle.manifest.pairs else ("text",)


def label_columns(bundle: Bundle) -> tuple[str, ...]:
    """The columns that the bundle's training read labels from: with them, labelled rows can be trained on."""
    try:
        data = DataSpec.model_validate(bundle.manifest.recipe.get("data", {}))
    except ValueError:  # a recipe of another version
        return ("label",)
    if data.labels_in != "columns":
        return data.read_label_columns
    # By the labels: the recipe may name their columns by a pattern.
    column_of = {name: column for column, name in data.label_map.items()}
    return tuple(column_of.get(name, name) for name in bundle.manifest.labels)


def sheet(
    rows: Sequence[RowToLabel], *, inputs: Sequence[str], labels: Sequence[str], encoding: str = "utf-8"
) -> bytes:
    """The content of the file: a table that a spreadsheet opens as text, never as formulas.

    Args:
        rows: in order.
        inputs: a name for each segment of an input.
        labels: names of the columns to fill in.
        encoding: `utf-8`, or `utf-8-sig` for Excel.
    """
    named = [name if name not in TO_LABEL_COLUMNS else f"input_{name}" for name in [*inputs, *labels]]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow([*TO_LABEL_COLUMNS, *map(escaped, named)])
    for rank, one in enumerate(rows, 1):
        row = one.row
        start = [rank, escaped(str(row["file"])), row["line"], one.why, f"{row['margin']:.4f}"]
        texts = [escaped(segment) for segment in row["texts"]]
        table.writerow([*start, escaped(str(row["predicted"])), *texts, *[""] * len(labels)])
    return text.getvalue().encode(encoding)
