"""The main job from end to end: recipe in, bundle out.

In: a recipe and an --out. Out: the report; OUT holds the bundle, the report, the account and the rejects. Not here: the
three stages, which are `read` (inputs.py), `fit` (attempts.py) and `export` (results.py).

This module claims OUT, connects to Ray and calls them in order. Another caller may fit many recipes to the inputs of
one `read`.
"""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import asdict

from textcls.data import messages
from textcls.data.masked_messages import masked_messages
from textcls.encryption import NO_KEYS, Keys
from textcls.errors import InputError, StorageError
from textcls.on_ray.session import ray_session
from textcls.output.account import CONFLICTS, REJECTS
from textcls.output.lock import locked
from textcls.output.side_product import side_product
from textcls.reporting.report import Report
from textcls.settings.recipe import Recipe
from textcls.tasks.registry import task_of
from textcls.tasks.task import Task
from textcls.tracking.journal import Journal, open_journal
from textcls.tracking.mlflow import mlflow_requested
from textcls.training.attempts import fit
from textcls.training.inputs import TrainingInputs, find_sources, read
from textcls.training.private.budget import Budget, budget_of, require_opacus
from textcls.training.private.disclosure import budget_lines, other_runs, stated
from textcls.training.results import export
from textcls.training.run_dir import RunDir, claim_for_account
from textcls.training.scaling import TrainingWorkers, plan_training_workers, refuse_unsupported_precision

Say = Callable[[str], None]


def train(
    recipe: Recipe,
    out: str,
    *,
    resume: bool,
    say: Say,
    verbose: bool = False,
    task: Task | None = None,
    keys: Keys = NO_KEYS,
) -> Report | None:
    """Trains a classifier as the recipe asks and leaves its bundle in `out`; returns the report.

    The result is None if the report itself failed: the bundle is written all the same.

    Args:
        recipe: the resolved recipe.
        out: URI of a new directory, or of an interrupted run's with `resume`.
        resume: continue an interrupted run.
        say: takes one line for the user at a time.
        verbose: show Ray's own log lines as well.
        task: what is predicted. Left out: what `data.task` names.
        keys: the recipients, if files that hold texts are to be encrypted, and where the identity for decisions is.

    Raises:
        InputError: recipe, data, model or directory cannot be used; nothing is left but the account of why.
        StorageError: the disk or the network failed; what was complete is kept, and the run can be resumed.
        TrainingError: workers failed too often; the run can be resumed.
    """
    mlflow_requested()  # if MLflow is missing, no directory is claimed
    if recipe.privacy.epsilon is not None:
        require_opacus()
    with masked_messages(recipe.text, say, [out, recipe.model.pretrained, *recipe.data.csv]) as say, locked(out) as uri:
        run = RunDir.claim(uri, recipe, resume=resume, keys=keys)
        if run.replaces:
            say(f"{run.uri} held a run without a checkpoint: this one begins in its place")
        try:
            with open_journal(run.uri, run.run_id, recipe, say, resumed=run.resumed) as journal:
                return _trained(recipe, task or task_of(recipe.data), run, journal, say, verbose=verbose)
        except InputError:
            run.abandon()
            raise
        except StorageError as error:
            todo = f"{error.todo}; then the same command with --resume continues the run"
            raise StorageError(error.found, expected=error.expected, todo=todo) from error


def _trained(recipe: Recipe, task: Task, run: RunDir, journal: Journal, say: Say, *, verbose: bool) -> Report | None:
    sources = find_sources(recipe, task, say, commit=run.model_commit(), keys=run.keys)
    run.bind_model(sources.model)
    recipe = recipe.model_copy(update={"model": sources.model.pinned(recipe.model)})
    with ray_session(verbose=verbose):
        workers = _workers(recipe, sources.rehearsal, say)
        journal.record(
            "run_started",
            attempt=run.attempts_so_far() + 1,
            recipe=recipe.fingerprint,
            workers=workers.count,
            cpus_per_worker=workers.cpus,
            gpus=workers.count if workers.use_gpu else 0,
        )
        inputs = read(sources, recipe, run, say, keys=run.keys)
        account = inputs.data.account
        journal.record("data_prepared", data=inputs.data.fingerprint, **account.as_json())
        budget = _budget(recipe, inputs, run, say)
        say(f"training {recipe.model.pretrained} on {account.outcomes['train']:,} rows: {workers}")
        outcome = fit(inputs, recipe, run, workers, say=say, journal=journal, budget=budget)
        privacy = stated(budget, outcome.calibration) if budget is not None else None
        others = other_runs(run, inputs.data.fingerprint) if budget is not None else ()
        report = export(
            inputs, recipe, outcome, run, workers, say=say, journal=journal, privacy=privacy, other_runs=others
        )
    with side_product("removing the checkpoints", say):
        run.drop_checkpoints()
    return report


def _budget(recipe: Recipe, inputs: TrainingInputs, run: RunDir, say: Say) -> Budget | None:
    """The privacy budget of the run, shown to the user; None without privacy.

    Raises:
        RecipeError: no training of these rows has it.
    """
    if recipe.privacy.epsilon is None:
        return None
    say("finding the noise that privacy.epsilon needs")
    budget = Budget(**run.bind_privacy(lambda: asdict(budget_of(recipe, inputs.data.account.outcomes["train"]))))
    for line in budget_lines(budget, recipe):
        say(line)
    for sentence in other_runs(run, inputs.data.fingerprint):
        say(f"  warning: {sentence}")
    return budget


def dry_run(
    recipe: Recipe,
    *,
    say: Say,
    verbose: bool = False,
    task: Task | None = None,
    out: str = "",
    keys: Keys = NO_KEYS,
) -> None:
    """Reads and checks the data, shows what is in it, and trains nothing.

    Args:
        recipe: the resolved recipe.
        say: takes one line for the user at a time.
        verbose: show Ray's own log lines as well.
        task: what is predicted. Left out: what `data.task` names.
        out: URI of a directory for the account of rows, the rejects and the conflicts; a run may begin there later. ""
            writes nothing.
        keys: as in `train`.

    Raises:
        InputError: recipe, data or model cannot be used.
    """
    if recipe.privacy.epsilon is not None:
        require_opacus()
    with (
        masked_messages(recipe.text, say, [out, recipe.model.pretrained, *recipe.data.csv]) as say,
        locked(out) if out else nullcontext("") as uri,
    ):
        if uri:
            claim_for_account(uri)
        sources = find_sources(recipe, task or task_of(recipe.data), say, keys=keys)
        with ray_session(verbose=verbose):
            workers = _workers(recipe, sources.rehearsal, say)
            inputs = read(sources, recipe, None, say, account_in=uri, keys=keys)
        for line in messages.split_lines(inputs.data):
            say(f"  {line}")
        if recipe.privacy.epsilon is not None:
            for line in budget_lines(budget_of(recipe, inputs.data.account.outcomes["train"]), recipe):
                say(line)
        listed = f"rows.json, {keys.name(REJECTS)}" + f" and {keys.name(CONFLICTS)}" * bool(inputs.data.conflicts[0])
        say(f"would train with {workers}; " + (f"{listed} are in {out}" if out else "nothing is written"))


def _workers(recipe: Recipe, rehearsal: "Future[list[str]]", say: Say) -> TrainingWorkers:
    """The workers, once the rehearsal has succeeded; before a row is read.

    Raises:
        InputError: the cluster, its hardware or the model cannot do what the recipe asks for.
    """
    workers = plan_training_workers(recipe.scale)
    refuse_unsupported_precision(recipe.train.precision, workers)
    for line in rehearsal.result():
        say(f"  note: {line}")
    return workers
