"""The last stage of a run: the trained model's scores beside a baseline's, the report, and the bundle.

In: the inputs of the run and what `fit` returned. Out: report.json, report.html, report.png and the bundle in OUT, and
the report. Not here: the baseline's model (baseline.py), the files of a bundle (export.py), explanations
(explained_report.py), what a report holds (reporting/).

Nothing but the bundle may fail a run whose model is trained. Explanations are those of the bundle, so the report is
written once without them, before the bundle, and again with them.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import ray

from textcls import storage
from textcls.bundle import library_versions, stated_metrics
from textcls.data.masked_messages import masked_errors
from textcls.data.prepared_rows import PreparedData
from textcls.data.row_findings import example_inputs, report_parts
from textcls.data.row_tables import input_columns
from textcls.errors import one_line
from textcls.manifest import Privacy
from textcls.output.json_files import write_json
from textcls.output.side_product import side_product
from textcls.reporting import report_with_texts
from textcls.reporting.page import report_page
from textcls.reporting.picture import draw_report
from textcls.reporting.report import (
    Baseline,
    BestCheckpoint,
    CalibrationSummary,
    NoBaseline,
    PrivacySummary,
    Report,
    Speed,
    TokenLengths,
    Validation,
)
from textcls.reporting.task_scores import TaskScores
from textcls.reporting.verdict import judged
from textcls.settings.recipe import Recipe
from textcls.slices.findings import RowStudy
from textcls.tasks.task import Task
from textcls.text.text_input import TextInput
from textcls.tracking.journal import Journal
from textcls.training.explained_report import explained, source_blocks
from textcls.training.export import export_bundle
from textcls.training.inputs import TrainingInputs
from textcls.training.loop_result import TrainOutcome
from textcls.training.run_dir import RunDir
from textcls.training.scaling import TrainingWorkers

Say = Callable[[str], None]

# The least time that a baseline or explanations may take; a longer run allows as much time as its training took.
_LEAST_S = 600.0


def export(
    inputs: TrainingInputs,
    recipe: Recipe,
    outcome: TrainOutcome,
    run: RunDir,
    workers: TrainingWorkers,
    *,
    say: Say,
    journal: Journal,
    privacy: Privacy | None = None,
    other_runs: Sequence[str] = (),
) -> Report | None:
    """Writes report and bundle to the run's directory; returns the report, or None if making it failed.

    Args:
        inputs: from `read`.
        recipe: the resolved recipe.
        outcome: from `fit`.
        run: the claimed directory.
        workers: of the training.
        say: shows one line to the user.
        journal: takes the events.
        privacy: of private training.
        other_runs: that are known to have used the same rows, one sentence each.

    Raises:
        StorageError: the bundle cannot be written; the run can be resumed and will export it then.
    """
    data = inputs.data
    scores = data.task.summarise(outcome.test, data.labels)
    baseline = _baseline(recipe, data, outcome, say)
    of_rows = _of_rows(recipe, data, outcome, say)
    if privacy is not None:
        of_rows["privacy"] = PrivacySummary.model_validate(privacy.model_dump() | {"other_runs": other_runs})
    report = _leave_report(lambda: _report(recipe, data, outcome, scores, baseline, of_rows), run, say)
    # A run that has a bundle is finished. Trackers may be slow to fail, so they come after it.
    manifest = export_bundle(recipe, data, inputs.tokenizer, outcome, run.uri, stated_metrics(scores), privacy)
    journal.record("tested", step=outcome.state.best_step, **_headline(data.task, scores, baseline))
    journal.record("bundle_written", bytes=sum(file.size_bytes for file in manifest.files.values()))
    return _explained(report, recipe, data, outcome, run, workers, say) if report is not None else None


def _leave_report(make: Callable[[], Report], run: RunDir, say: Say) -> Report | None:
    """Writes report.json, report.html and report.png. None of it may fail a run whose model is trained."""
    report = None
    with side_product("the report", say):
        report = make()
    if report is not None:
        with side_product("the verdict", say):
            report = judged(report)
        _write(report, run, say)
        with side_product("report.png", say):
            storage.write_bytes(
                storage.join(run.uri, "report.png"), draw_report(report_with_texts.for_all(report, run.keys))
            )
    return report


def _write(report: Report, run: RunDir, say: Say) -> None:
    with side_product("the report with texts", say):
        report_with_texts.write_with_texts(report, run.uri, run.keys)
    report = report_with_texts.for_all(report, run.keys)
    with side_product("report.json", say):
        write_json(run.uri, "report.json", report.content())
    with side_product("report.html", say):
        storage.write_bytes(storage.join(run.uri, "report.html"), report_page(report).encode())


def _explained(
    report: Report,
    recipe: Recipe,
    data: PreparedData,
    outcome: TrainOutcome,
    run: RunDir,
    workers: TrainingWorkers,
    say: Say,
) -> Report:
    """The report with the explanations that were asked for, written again; as it is, if these fail."""
    spec = recipe.report
    studied = outcome.studied if spec.texts and report.examples else None
    if studied is None and not spec.explain_rows:
        return report
    with side_product("explaining rows of the report", say):
        say("explaining rows of the report")
        at_most_s, bundle = max(_LEAST_S, outcome.state.seconds), storage.join(run.uri, "bundle")
        inputs = example_inputs(studied.found(), source_blocks(data), recipe.text) if studied is not None else []
        report = explained(report, spec, data, inputs, bundle, workers, at_most_s)
        _write(report, run, say)
    return report


def _headline(task: Task, scores: dict[str, Any], baseline: dict[str, Any]) -> dict[str, float]:
    """The task's headline, and the baseline's accuracy if there is such a thing."""
    of_baseline = {} if "error" in baseline else task.headline(baseline)
    compared = {f"baseline_{name}": value for name, value in of_baseline.items() if name == "accuracy"}
    return task.headline(scores) | compared


def _report(
    recipe: Recipe,
    prepared: PreparedData,
    outcome: TrainOutcome,
    scores: dict[str, Any],
    baseline: dict[str, Any],
    of_rows: dict[str, Any],
) -> Report:
    state = outcome.state
    seconds = max(state.seconds, 1e-9)
    chosen_by = recipe.train.select_by if recipe.privacy.epsilon is None else None  # private training keeps the last
    return Report(
        test=TaskScores.model_validate(scores),
        calibration=CalibrationSummary.model_validate(outcome.calibration.model_dump()),
        baseline=(NoBaseline if "error" in baseline else Baseline).model_validate(baseline),
        history=tuple(Validation.model_validate(epoch) for epoch in state.history),
        curve=tuple(state.curve),
        best=BestCheckpoint(step=state.best_step, select_by=chosen_by, score=state.best_score),
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
        **of_rows,
        rows=prepared.account.as_json(),
        recipe=recipe.model_dump(mode="json"),
        versions=library_versions(),
        written_at=time.time(),
    )


def _of_rows(recipe: Recipe, prepared: PreparedData, outcome: TrainOutcome, say: Say) -> dict[str, Any]:
    """Slices and examples of the test rows, as parts of a report; none if finding them failed."""
    study = RowStudy(prepared.task, prepared.labels, prepared.slices)
    if outcome.studied is not None:
        with side_product("finding slices and examples", say):
            findings = outcome.studied.found()
            sources = source_blocks(prepared)
            shown = example_inputs(findings, sources, recipe.text) if recipe.report.texts else []
            return report_parts(study, findings, prepared.files, shown)
    return {}


def _baseline(recipe: Recipe, prepared: PreparedData, outcome: TrainOutcome, say: Say) -> dict[str, Any]:
    """The baseline's scores, or {"error": why there are none}: a comparison must not fail a finished run."""
    say("scoring a TF-IDF + logistic regression baseline on the same rows")
    rows = {split: prepared.account.outcomes[split] for split in ("train", "val", "test")}
    # Waiting for a CPU included; it takes a minute where training takes many.
    at_most_s = max(_LEAST_S, outcome.state.seconds)
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
        columns = (column(inputs, split, name) for name in input_columns(ray.get(inputs[split][0])))
        return [TextInput(*cells) for cells in zip(*columns, strict=True)]

    with masked_errors(recipe.text):
        return train_baseline(
            read_inputs("train"),
            column(blocks, "train", "target"),
            read_inputs("test"),
            column(blocks, "test", "target"),
            labels,
            task=task,
            val=(read_inputs("val"), column(blocks, "val", "target")),
            seed=recipe.train.seed,
            spec=recipe.text,
        )
