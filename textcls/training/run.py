"""The main job from end to end: recipe in, bundle out.

In: a recipe and an --out. Out: the report; OUT holds the bundle, the report, the account and the rejects. Not here: how
any of it is done; this is the order of things, and what the user is told on the way.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyarrow as pa
import ray
from rich.filesize import decimal

from textcls import storage
from textcls.data import checks, messages
from textcls.data.input_files import InputFile, expand
from textcls.data.read import read_rows
from textcls.data.split_blocks import PreparedData, split_rows, training_account
from textcls.errors import InputError, RecipeError, StorageError, one_line
from textcls.modeling.pretrained import Pretrained, find_model, read_config
from textcls.on_ray.session import ray_session
from textcls.output.account import write_account, write_rejects
from textcls.output.json_files import write_json
from textcls.output.lock import locked
from textcls.output.side_product import side_product
from textcls.reporting.picture import draw_report
from textcls.reporting.report import (
    Baseline,
    BestCheckpoint,
    CalibrationSummary,
    NoBaseline,
    Report,
    Speed,
    TaskScores,
    TokenLengths,
    Validation,
)
from textcls.settings.recipe import Recipe
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.tasks.task import Task
from textcls.text.text_input import TextInput
from textcls.text.tokenizer import TokenizerFiles, prepare_tokenizer
from textcls.tracking.journal import Journal, open_journal
from textcls.tracking.mlflow import mlflow_requested
from textcls.training.attempts import fit
from textcls.training.export import export_bundle
from textcls.training.loop import TrainOutcome
from textcls.training.rehearsal import begin_rehearsal
from textcls.training.run_dir import RunDir
from textcls.training.scaling import TrainingWorkers, plan_training_workers, refuse_unsupported_precision

Say = Callable[[str], None]

# RoBERTa's kind has some.
_POSITIONS_NOT_FOR_TOKENS = 4

# The least that a baseline may take; a longer run grants it as much as its training took.
_BASELINE_S = 600.0


def train(
    recipe: Recipe, out: str, *, resume: bool, say: Say, verbose: bool = False, task: Task = SINGLE_LABEL
) -> Report | None:
    """Trains a classifier as the recipe asks and leaves its bundle in `out`; returns the report.

    The result is None if the report itself failed: the bundle is written all the same.

    Args:
        recipe: the resolved recipe.
        out: URI of a new directory, or of an interrupted run's with `resume`.
        resume: continue an interrupted run.
        say: takes one line for the user at a time.
        verbose: show Ray's own log lines as well.
        task: what is predicted.

    Raises:
        InputError: recipe, data, model or directory cannot be used; nothing is left but the account of why.
        StorageError: the disk or the network failed; what was complete is kept, and the run can be resumed.
        TrainingError: workers failed too often; the run can be resumed.
    """
    mlflow_requested()  # if MLflow is missing, no directory is claimed
    with locked(out) as uri:
        run = RunDir.claim(uri, recipe, resume=resume)
        if run.replaces:
            say(f"{run.uri} held a run without a checkpoint: this one begins in its place")
        try:
            with open_journal(run.uri, run.run_id, recipe, say, resumed=run.resumed) as journal:
                return _trained(recipe, task, run, journal, say, verbose=verbose)
        except InputError:
            run.abandon()
            raise
        except StorageError as error:
            todo = f"{error.todo}; then the same command with --resume continues the run"
            raise StorageError(error.found, expected=error.expected, todo=todo) from error


def _trained(recipe: Recipe, task: Task, run: RunDir, journal: Journal, say: Say, *, verbose: bool) -> Report | None:
    files = expand(recipe.data.csv)
    model, tokenizer, rehearsal = _found(recipe, task, files, say, commit=run.model_commit())
    run.bind_model(model)
    recipe = recipe.model_copy(update={"model": model.pinned(recipe.model)})
    with ray_session(verbose=verbose):
        workers = _workers(recipe, rehearsal, say)
        journal.record(
            "run_started",
            attempt=run.attempts_so_far() + 1,
            recipe=recipe.fingerprint,
            workers=workers.count,
            cpus_per_worker=workers.cpus,
            gpus=workers.count if workers.use_gpu else 0,
        )
        prepared = _prepare(recipe, task, files, tokenizer, run, say)
        journal.record("data_prepared", data=prepared.fingerprint, **prepared.account.as_json())
        say(f"training {recipe.model.pretrained} on {prepared.account.outcomes['train']:,} rows: {workers}")
        outcome = fit(recipe, model, prepared, tokenizer, run, workers, say, journal)
        scores = task.summarise(outcome.test, prepared.labels)
        baseline = _baseline(recipe, prepared, outcome, say)
        # From here on only the bundle can fail the run.
        report = _leave_report(lambda: _report(recipe, prepared, outcome, scores, baseline), run, say)
        # The last file: a run that has a bundle is finished. Trackers may be slow to fail, so they come after it.
        manifest = export_bundle(recipe, prepared, tokenizer, outcome, run.uri, _metrics(scores))
        journal.record("tested", step=outcome.state.best_step, **_headline(task, scores, baseline))
        journal.record("bundle_written", bytes=sum(file.size_bytes for file in manifest.files.values()))
    with side_product("removing the checkpoints", say):
        run.drop_checkpoints()
    return report


def _leave_report(make: Callable[[], Report], run: RunDir, say: Say) -> Report | None:
    """Writes report.json and report.png. None of it may fail a run whose model is trained."""
    report = None
    with side_product("the report", say):
        report = make()
    if report is not None:
        with side_product("report.json", say):
            write_json(run.uri, "report.json", report.content())
        with side_product("report.png", say):
            storage.write_bytes(storage.join(run.uri, "report.png"), draw_report(report))
    return report


def _metrics(scores: dict[str, Any]) -> dict[str, Any]:
    """The metrics that the bundle states: the test scores without the confusion, whose place is the report."""
    return {name: value for name, value in scores.items() if name != "confusion"}


def _headline(task: Task, scores: dict[str, Any], baseline: dict[str, Any]) -> dict[str, float]:
    """The task's headline, and the baseline's accuracy if there is such a thing."""
    of_baseline = {} if "error" in baseline else task.headline(baseline)
    compared = {f"baseline_{name}": value for name, value in of_baseline.items() if name == "accuracy"}
    return task.headline(scores) | compared


def dry_run(recipe: Recipe, *, say: Say, verbose: bool = False, task: Task = SINGLE_LABEL) -> None:
    """Reads and checks the data, tells what is in it, and trains nothing.

    Raises:
        InputError: recipe, data or model cannot be used.
    """
    files = expand(recipe.data.csv)
    _, tokenizer, rehearsal = _found(recipe, task, files, say)
    with ray_session(verbose=verbose):
        workers = _workers(recipe, rehearsal, say)
        prepared = _prepare(recipe, task, files, tokenizer, None, say)
    for line in messages.split_lines(prepared):
        say(f"  {line}")
    say(f"would train with {workers}; nothing is written")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")


def _found(
    recipe: Recipe, task: Task, files: Sequence[InputFile], say: Say, *, commit: str = ""
) -> "tuple[Pretrained, TokenizerFiles, Future[list[str]]]":
    """Model, tokenizer, and the rehearsal of both, which goes on while Ray starts.

    They and the files are looked for before Ray's slow start: a misspelt name fails at once.
    """
    if recipe.train.select_by not in task.headline_metrics:
        raise RecipeError(
            f"train.select_by is {recipe.train.select_by!r}",
            expected=f"a metric of task {task.name}: {', '.join(task.headline_metrics)}",
        )
    model = find_model(recipe.model, commit=commit)
    positions = read_config(model.directory).get("max_position_embeddings")
    tokenizer = prepare_tokenizer(model.directory, recipe.text)
    rehearsal = begin_rehearsal(recipe, tokenizer, model.directory, task)
    if isinstance(positions, int) and recipe.text.max_tokens > positions - _POSITIONS_NOT_FOR_TOKENS:
        rehearsal.result()  # most likely refused, and sooner without Ray
    say(f"reading {_counted(len(files), 'file')}, {decimal(sum(file.size_bytes for file in files))}")
    return model, tokenizer, rehearsal


def _workers(recipe: Recipe, rehearsal: "Future[list[str]]", say: Say) -> TrainingWorkers:
    """The workers, once nothing speaks against training on them; before a row is read.

    Raises:
        InputError: the cluster, its hardware or the model cannot do what the recipe asks for.
    """
    workers = plan_training_workers(recipe.scale)
    refuse_unsupported_precision(recipe.train.precision, workers)
    for line in rehearsal.result():
        say(f"  note: {line}")
    return workers


def _prepare(
    recipe: Recipe, task: Task, files: Sequence[InputFile], tokenizer: TokenizerFiles, run: RunDir | None, say: Say
) -> PreparedData:
    """Reads, checks and splits the rows; writes the account before any check can stop the run."""
    read = read_rows(files, recipe.data, recipe.text, tokenizer, task=task)
    if run is not None:
        with _account_of(run, say):
            write_account(run.uri, training_account(read.summary))
            write_rejects(run.uri, read.rejects())
    for line in messages.read_lines(read):
        say(line)
    messages.refuse_unfit(read, listed=run is not None)
    checks.refuse_reserved(recipe.data, read.labels, recipe.calibration.min_precision)
    prepared = split_rows(read, recipe.split, max_tokens=recipe.text.max_tokens)
    assert prepared.account.is_balanced, prepared.account
    if run is not None:
        with _account_of(run, say):
            write_account(run.uri, prepared.account, labels=prepared.rows_by_label())
    say(f"  {prepared.account}")
    checks.refuse_empty_splits(recipe.data, recipe.split, read.labels, prepared.class_counts)
    say(f"  {messages.token_line(prepared, recipe.text)}")
    for warning in checks.warnings(
        recipe.data,
        read.labels,
        read.summary.labels,
        prepared.conflicts,
        prepared.tokens,
        read.summary.spellings,
        recipe.text.on_long,
    ):
        say(f"  warning: {warning}")
    if run is not None:
        run.bind_data(prepared.fingerprint)
    return prepared


def _account_of(run: RunDir, say: Say) -> AbstractContextManager[None]:
    """For writing rows.json and rejects.parquet. A new run needs them; a resumed one has them, and hours to lose."""
    return side_product("writing the account again", say) if run.resumed else nullcontext()


def _report(
    recipe: Recipe,
    prepared: PreparedData,
    outcome: TrainOutcome,
    scores: dict[str, Any],
    baseline: dict[str, Any],
) -> Report:
    state = outcome.state
    seconds = max(state.seconds, 1e-9)
    return Report(
        test=TaskScores.model_validate(scores),
        calibration=CalibrationSummary.model_validate(outcome.calibration.model_dump()),
        baseline=(NoBaseline if "error" in baseline else Baseline).model_validate(baseline),
        history=tuple(Validation.model_validate(epoch) for epoch in state.history),
        curve=tuple(state.curve),
        best=BestCheckpoint(step=state.best_step, select_by=recipe.train.select_by, score=state.best_score),
        stopped_early=state.stopped_early,
        tokens=TokenLengths.model_validate(prepared.tokens),
        padding_ratio=state.padded_tokens / max(state.real_tokens, 1),
        speed=Speed(
            seconds=state.seconds,
            rows_per_s=state.rows / seconds,
            tokens_per_s=state.real_tokens / seconds,
            first_step_at=outcome.first_step_at,
            precision="bf16" if outcome.bf16 else "fp32",
            workers=outcome.world_size,
            device=outcome.device,
        ),
        rows=prepared.account.as_json(),
        written_at=time.time(),
    )


def _baseline(recipe: Recipe, prepared: PreparedData, outcome: TrainOutcome, say: Say) -> dict[str, Any]:
    """The baseline's scores, or {"error": why there are none}: a comparison must not fail a finished run."""
    say("scoring a TF-IDF + logistic regression baseline on the same rows")
    rows = {split: prepared.account.outcomes[split] for split in ("train", "test")}
    # Waiting for a CPU included; it takes a minute where training takes many.
    at_most_s = max(_BASELINE_S, outcome.state.seconds)
    started = _train_baseline.remote(recipe, prepared.task, prepared.labels, rows, prepared.inputs, prepared.blocks)
    try:
        found: dict[str, Any] = ray.get(started, timeout=at_most_s)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(started, force=True)
        found = {"error": f"no baseline: it took more than {at_most_s:,.0f} s"}
    except Exception as error:  # killed, out of memory, its rows lost with a node, a bug in a library
        found = {"error": f"no baseline: {one_line(error)}"}
    if "error" in found:
        say(f"  {found['error']}; the run goes on without it")
    return found


# Not again if its process dies: one that is killed for its memory would be tried without end.
@ray.remote(max_retries=0)
def _train_baseline(
    recipe: Recipe,
    task: Task,
    labels: tuple[str, ...],
    rows: dict[str, int],
    inputs: dict[str, list[Any]],
    blocks: dict[str, list[Any]],
) -> Any:
    """The baseline's result, in a process of its own: the driver holds no texts."""
    from textcls.training.baseline import MAX_ROWS, train_baseline

    def column(source: dict[str, list[Any]], split: str, name: str) -> list[Any]:
        """Every n-th value, so that at most MAX_ROWS are ever held; one block at a time."""
        stride, first = -(-rows[split] // MAX_ROWS), 0
        values: list[Any] = []
        for block in source[split]:
            found = ray.get(block)[name]
            values += found.take(pa.array(range(-first % stride, len(found), stride), pa.int64())).to_pylist()
            first += len(found)
        return values

    def read_inputs(split: str) -> list[TextInput]:
        columns = (column(inputs, split, name) for name in TextInput._fields)
        return [TextInput(*cells) for cells in zip(*columns, strict=True)]

    return train_baseline(
        read_inputs("train"),
        column(blocks, "train", "target"),
        read_inputs("test"),
        column(blocks, "test", "target"),
        labels,
        task=task,
        seed=recipe.train.seed,
        spec=recipe.text,
    )
