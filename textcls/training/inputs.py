"""The first stage of a run: the pretrained model, its tokenizer, and the rows, ready to train on.

In: a recipe. Out: `TrainingInputs`, which any number of runs with the same data, text and model settings may share.
Not here: how rows are read and split (data/), training on them (attempts.py).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import ray
from rich.filesize import decimal

from textcls.data import checks, conflicts, messages
from textcls.data.decisions import Decisions, read_decisions, refuse_unmet, rows_decided
from textcls.data.exclusion import Exclusion
from textcls.data.exclusion_files import read_exclusion
from textcls.data.input_files import InputFile, expand
from textcls.data.prepared_rows import PreparedData, training_account
from textcls.data.read import ReadRows, read_rows
from textcls.data.slice_columns import with_slices
from textcls.data.split_blocks import split_rows
from textcls.encryption import NO_KEYS, Keys
from textcls.errors import RecipeError
from textcls.modeling.pretrained import Pretrained, find_model, has_token_types, most_tokens, read_config
from textcls.output.account import unused_patterns, write_account, write_conflicts, write_rejects
from textcls.output.side_product import side_product
from textcls.settings.recipe import Recipe
from textcls.settings.yaml_text import set_option
from textcls.tasks.task import Task
from textcls.text.tokenizer_files import TokenizerFiles, prepare_tokenizer, read_tokenizer_config
from textcls.training.rehearsal import begin_rehearsal
from textcls.training.run_dir import RunDir

Say = Callable[[str], None]

# RoBERTa's kind has some.
_POSITIONS_NOT_FOR_TOKENS = 4
# Steps of an epoch that are advised where the rows make only one.
_STEPS_OF_FEW_ROWS = 10


@dataclass(frozen=True)
class Sources:
    """Where a run's inputs come from; found without Ray.

    Attributes:
        task: what is predicted.
        files: the CSV files.
        decisions: about single rows.
        exclusion: rows that are not used.
        model: the pretrained model.
        tokenizer: the prepared tokenizer.
        rehearsal: of training, export and scoring with the untrained model; its result are notes for the user.
    """

    task: Task
    files: Sequence[InputFile]
    decisions: Sequence[Decisions]
    exclusion: Exclusion | None
    model: Pretrained
    tokenizer: TokenizerFiles
    rehearsal: "Future[list[str]]"


@dataclass(frozen=True)
class TrainingInputs:
    """What a run trains on. Its blocks lie in the object store of a Ray session, and `fit` does not change them.

    Attributes:
        model: the pretrained model.
        tokenizer: the prepared tokenizer.
        data: tokenized splits in the object store.
    """

    model: Pretrained
    tokenizer: TokenizerFiles
    data: PreparedData


def find_sources(recipe: Recipe, task: Task, say: Say, *, commit: str = "", keys: Keys = NO_KEYS) -> Sources:
    """Finds files, model and tokenizer before Ray's slow start, so that a misspelt name fails at once.

    The rehearsal goes on while Ray starts.

    Args:
        recipe: the resolved recipe.
        task: what is predicted.
        say: shows one line to the user.
        commit: of the pretrained model on the hub, if the run began with one.
        keys: where the identity for encrypted decisions is.

    Raises:
        InputError: no such file, model or metric, or a tokenizer that cannot be used.
    """
    if recipe.train.select_by not in task.headline_metrics:
        raise RecipeError(
            f"train.select_by is {recipe.train.select_by!r}",
            expected=f"a metric of task {task.name}: {', '.join(task.headline_metrics)}",
        )
    files, decisions = expand(recipe.data.csv), read_decisions(recipe.data, task, keys)
    exclusion = read_exclusion(recipe.data, recipe.text)
    model = find_model(recipe.model, commit=commit)
    config = read_config(model.directory)
    positions = config.get("max_position_embeddings")
    token_types = recipe.data.pair is not None and has_token_types(config)
    tokenizer = prepare_tokenizer(model.directory, recipe.text, token_types=token_types)
    rehearsal = begin_rehearsal(recipe, tokenizer, model.directory, task)
    if isinstance(positions, int) and recipe.text.max_tokens > positions - _POSITIONS_NOT_FOR_TOKENS:
        rehearsal.result()  # most likely refused, and sooner without Ray
    number = f"{len(files):,} file{'s' if len(files) != 1 else ''}"
    say(f"reading {number}, {decimal(sum(file.size_bytes for file in files))}")
    return Sources(task, files, decisions, exclusion, model, tokenizer, rehearsal)


def read(
    sources: Sources, recipe: Recipe, run: RunDir | None, say: Say, *, account_in: str = "", keys: Keys = NO_KEYS
) -> TrainingInputs:
    """Reads, checks and splits the rows; writes the account before any check can stop the run.

    Args:
        sources: from `find_sources`.
        recipe: the resolved recipe.
        run: the claimed directory, for the account, the rejects and the conflicts; None: there is no run.
        say: shows one line to the user.
        account_in: URI of the directory for these files where there is no run; "" writes none.
        keys: the recipients, if rejects and conflicts are to be encrypted.

    Raises:
        InputError: the rows cannot be used.
    """
    rows = read_rows(
        sources.files,
        with_slices(recipe.data, recipe.report.slices),
        recipe.text,
        sources.tokenizer,
        task=sources.task,
        group_by=recipe.split.group_by,
        decisions=sources.decisions,
        exclusion=sources.exclusion,
    )
    uri = run.uri if run is not None else account_in
    decided = rows_decided(sources.decisions, rows.summary.decided)
    details: dict[str, Any] = {"decisions": decided} if decided else {}
    if uri:
        with _account_of(run, say):
            write_account(uri, training_account(rows.summary, masked_rows=rows.masked_rows), **details)
            write_rejects(uri, rows.rejects(), keys)
    for line in (*messages.read_lines(rows), *messages.decision_lines(decided)):
        say(line)
    messages.check_rows(rows, listed=bool(uri))
    refuse_unmet(sources.decisions, rows.summary.decided, rows.summary.labels, rows.data, rows.task)
    checks.refuse_reserved(rows.data, sources.task, rows.labels, recipe.calibration.min_precision)
    prepared = split_rows(rows, recipe.split, max_tokens=recipe.text.max_tokens)
    assert prepared.account.is_balanced, prepared.account
    if uri:
        with _account_of(run, say):
            write_account(uri, prepared.account, labels=prepared.rows_by_label(), **details)
            _list_conflicts(uri, rows, prepared, keys)
    say(f"  {prepared.account}")
    if masked := prepared.account.masked_line:
        say(f"  {masked}")
    for warning in unused_patterns(prepared.account):
        say(f"  warning: {warning}")
    checks.refuse_conflicts(rows.data, prepared.account.read, prepared.account.reject_reasons)
    checks.refuse_empty_splits(rows.data, recipe.split, rows.labels, prepared.class_counts)
    say(f"  {messages.token_line(prepared, recipe.text)}")
    for line in (*messages.text_lines(rows, prepared, recipe.text), *messages.label_lines(rows.summary)):
        say(f"  {line}")
    model = sources.model.directory
    most = most_tokens(read_config(model), read_tokenizer_config(model))
    for note in messages.limit_notes(rows, recipe.text, most):
        say(f"  {note}")
    for warning in (
        *messages.warning_lines(rows, prepared),
        *step_warnings(recipe, prepared.account.outcomes["train"]),
    ):
        say(f"  warning: {warning}")
    if run is not None:
        run.bind_data(prepared.fingerprint)
    return TrainingInputs(sources.model, sources.tokenizer, prepared)


def step_warnings(recipe: Recipe, rows: int) -> list[str]:
    """What the user should know of steps with fewer rows than asked for; private training has a note of its own.

    Args:
        recipe: the resolved recipe.
        rows: training rows.
    """
    train, fewer = recipe.train, max(rows // _STEPS_OF_FEW_ROWS, recipe.scale.max_workers or 1, 1)
    if recipe.privacy.epsilon is not None or train.rows_per_step <= rows:
        return []
    found = f"train.rows_per_step {train.rows_per_step:,} is more than the {rows:,} training rows: an epoch is one step"
    advice = f"; {-(-rows // fewer):,} steps an epoch with {set_option('train.rows_per_step', fewer)}"
    return [f"{found}, {train.epochs:,} in all{advice if fewer < rows else ''}"]


def _list_conflicts(uri: str, rows: ReadRows, prepared: PreparedData, keys: Keys) -> None:
    """Writes the rows with equal texts and different labels, and those of them that are rejects."""
    if not prepared.conflicts[0]:
        return
    write_conflicts(uri, (conflicts.located(ray.get(ref), rows.files) for ref in prepared.conflict_tables), keys)
    if rows.data.on_conflict == "reject":
        column = rows.data.read_label_columns[0]
        of_conflicts = (conflicts.rejects(ray.get(ref), rows.files, column) for ref in prepared.conflict_tables)
        write_rejects(uri, chain(rows.rejects(), of_conflicts), keys)


def _account_of(run: RunDir | None, say: Say) -> AbstractContextManager[None]:
    """For writing rows.json and rejects.parquet. A new run needs them; a resumed one has them, and hours to lose."""
    return side_product("writing the account again", say) if run and run.resumed else nullcontext()
