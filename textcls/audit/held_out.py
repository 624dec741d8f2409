"""Rows that a fold holds out, and what a model that has not seen them says of their labels; on Ray.

In: rows that were read, and folds. Out: `HeldOut` tables of each fold, and the `AuditedRows` of all, by bundles of runs
on the other rows or by the quick mode. Not here: the runs (run.py), the order of the rows (ranking.py).
"""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from textcls.audit.ranking import AuditedRows, audited, places_of
from textcls.audit.regression import regression_probabilities
from textcls.batch.actor_pool import plan_pool, run_on_pool
from textcls.bundle import Bundle
from textcls.data.read import ReadRows
from textcls.data.row_tables import input_columns, inputs_of
from textcls.data.split_blocks import split_rows
from textcls.inference.classifier import Classifier
from textcls.inference.embeddings import Embedder
from textcls.output.account import Account
from textcls.progress import ProgressBoard, RowProgress, progress_display
from textcls.settings.recipe import Recipe, TextSpec
from textcls.settings.scale import ScaleSpec
from textcls.tasks.task import Task
from textcls.text.text_input import TextInput
from textcls.training.baseline import word_vectorizer

Say = Callable[[str], None]

# Rows that are scored together; sorted by length, so that batches need little padding.
_ROWS_AT_ONCE = 2_048


@dataclass(frozen=True)
class HeldOut:
    """The rows of one fold.

    Attributes:
        number: of the fold, from 1.
        account: of the split with this fold as its test part; the split's other rows are not kept.
        tables: object references of tables with row_id, the columns of the input, and target.
    """

    number: int
    account: Account
    tables: list[Any]


def held_out(read: ReadRows, recipe: Recipe, number: int) -> HeldOut:
    """The rows of a fold.

    Args:
        read: all rows.
        recipe: of the run with this fold (`split.fold`).
        number: of the fold, from 1.
    """
    data = split_rows(read, recipe.split, max_tokens=recipe.text.max_tokens)
    pairs = zip(data.inputs["test"], data.blocks["test"], strict=True)
    return HeldOut(number, data.account, [_with_targets.remote(inputs, tokens) for inputs, tokens in pairs])


def text_bytes(read: ReadRows) -> int:
    """Bytes of the texts of all rows."""
    return sum(ray.get([_text_bytes.remote(block) for block in read.blocks]))


@ray.remote
def _text_bytes(block: pa.Table) -> int:
    return int(block.select(input_columns(block)).nbytes)


@ray.remote
def _with_targets(inputs: pa.Table, tokens: pa.Table) -> pa.Table:
    return inputs.append_column("target", tokens["target"]).append_column("row_id", tokens["row_id"])


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """Rows that a model could score.

    Attributes:
        row_id: int64 [N].
        probabilities: float [N, C].
    """

    row_id: np.ndarray
    probabilities: np.ndarray


def scored_by_bundle(fold: HeldOut, bundle: Bundle, scale: ScaleSpec, say: Say) -> list[ScoredRows]:
    """What a bundle says of the rows that its run has not seen; rows that it cannot score are left out.

    Args:
        fold: the rows.
        bundle: of the run on the other rows.
        scale: the actors that score.
        say: shows one line to the user.
    """
    rows, board, started, done = fold.account.outcomes["test"], ProgressBoard(), time.monotonic(), 0

    def on_rows(number: int) -> None:
        nonlocal done
        done += number
        board.post(RowProgress(done, rows, done / max(time.monotonic() - started, 1e-6), exact=True))

    size = plan_pool(scale, items=len(fold.tables))
    with progress_display(board.take, say, verb=f"scoring fold {fold.number}"):
        return [found for _, found in run_on_pool(_scored, fold.tables, size, bundle, on_rows=on_rows)]


def _scored(classifier: Classifier, table: pa.Table) -> Generator[int, None, ScoredRows]:
    """Yields the number of rows scored, part by part; returns the probabilities."""
    row_id, probabilities = [], []
    for start in range(0, max(len(table), 1), _ROWS_AT_ONCE):
        part = table.slice(start, _ROWS_AT_ONCE)
        scores = classifier.scores(inputs_of(part))
        is_scored = np.array([error is None for error in scores.errors], bool)
        row_id.append(part["row_id"].to_numpy()[is_scored])
        probabilities.append(scores.probabilities[is_scored])
        yield len(part)
    return ScoredRows(np.concatenate(row_id), np.concatenate(probabilities))


@dataclass(frozen=True, eq=False)
class EmbeddedRows:
    """The held-out rows of all folds, in any fixed order.

    Attributes:
        row_id: int64 [N].
        fold: int16 [N], from 1.
        targets: [N, *T].
        embeddings: float32 [N, E]; rows without a word are left out.
        inputs: of each row.
    """

    row_id: np.ndarray
    fold: np.ndarray
    targets: np.ndarray
    embeddings: np.ndarray
    inputs: Sequence[TextInput]


def embedded(folds: Sequence[HeldOut], embedder: Embedder, say: Say) -> EmbeddedRows:
    """The embeddings of all held-out rows, computed in this process, which then holds all texts.

    Args:
        folds: all of them.
        embedder: of the pretrained encoder.
        say: shows one line to the user.
    """
    inputs: list[TextInput] = []
    columns: list[tuple[np.ndarray, ...]] = []
    for fold in folds:
        for ref in fold.tables:
            table = ray.get(ref)
            number = np.full(len(table), fold.number, np.int16)
            texts = inputs_of(table)
            columns.append((table["row_id"].to_numpy(), number, targets_in(table), embedder(texts)))
            inputs += texts
        say(f"  embedded fold {fold.number}: {sum(len(one[0]) for one in columns):,} rows so far")
    row_id, number, targets, found = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    usable = np.flatnonzero(np.isfinite(found).all(axis=1))
    texts = [inputs[row] for row in usable.tolist()]
    return EmbeddedRows(row_id[usable], number[usable], targets[usable], found[usable], texts)


def judged(
    rows: EmbeddedRows,
    scored: Sequence[ScoredRows] | None,
    task: Task,
    labels: Sequence[str],
    text: TextSpec,
    say: Say,
) -> AuditedRows:
    """The verdicts on all rows.

    Args:
        rows: of all folds.
        scored: by the bundles; rows that no bundle could score are left out. None: the quick mode.
        task: what is predicted.
        labels: label names in id order.
        text: text settings, whose normalizer words go through.
        say: shows one line to the user.
    """

    def on_fold(number: int) -> None:
        say(f"  judged fold {number}")

    say("  counting words")
    words = word_vectorizer(text, rows=len(rows.inputs), classes=len(labels)).fit_transform(rows.inputs)
    embeddings = rows.embeddings if scored is None else None
    probabilities = regression_probabilities(
        embeddings, words, rows.targets, rows.fold, task, len(labels), on_fold=on_fold
    )
    usable = np.ones(len(rows.row_id), bool)
    if scored is not None:
        usable, by_bundle = _in_order(rows.row_id, scored)
        probabilities = (probabilities[usable] + by_bundle) / 2
    return audited(task, labels, rows.row_id[usable], probabilities, rows.targets[usable], rows.fold[usable])


def _in_order(row_ids: np.ndarray, scored: Sequence[ScoredRows]) -> tuple[np.ndarray, np.ndarray]:
    """(bool [N], which of the rows were scored; float [n, C], the probabilities of these in their order)."""
    found = np.concatenate([one.row_id for one in scored])
    usable = np.isin(row_ids, found)
    return usable, np.concatenate([one.probabilities for one in scored])[places_of(row_ids[usable], found)]


def targets_in(table: pa.Table) -> np.ndarray:
    """[N, *T]: the column `target`."""
    column = table["target"].combine_chunks()
    if not hasattr(column.type, "list_size"):
        found: np.ndarray = column.to_numpy()
        return found
    flat: np.ndarray = column.flatten().to_numpy()
    return flat.reshape(-1, column.type.list_size)
