"""The report of a finished run with its explanations: the words of the examples, and whether explanations are faithful.

In: a report, the bundle that the run has written, and the test rows. Out: the report with more in it. Not here: the
explanations themselves (inference/), writing the report (results.py).
"""

from typing import Any

import pyarrow as pa
import ray

from textcls.bundle import load_bundle
from textcls.data.masked_messages import masked_errors
from textcls.data.prepared_rows import PreparedData
from textcls.data.row_tables import inputs_of, sample_mask
from textcls.inference.classifier import Classifier
from textcls.inference.explained_examples import with_words
from textcls.inference.faithfulness import Faithfulness, faithfulness
from textcls.reporting.report import ExampleRow, FaithfulnessScores, Report
from textcls.settings.report import ReportSpec
from textcls.tasks.registry import register
from textcls.tasks.task import Task
from textcls.text.text_input import TextInput
from textcls.training.scaling import TrainingWorkers


def source_blocks(data: PreparedData) -> list[tuple[Any, Any]]:
    """Object references of (test rows with `row_id`, their inputs in the same order)."""
    return list(zip(data.blocks["test"], data.inputs["test"], strict=True))


def explained(
    report: Report,
    spec: ReportSpec,
    data: PreparedData,
    inputs: list[TextInput],
    bundle: str,
    workers: TrainingWorkers,
    at_most_s: float,
) -> Report:
    """The report with what `spec` asks for, computed in a process with the resources of one training worker.

    Args:
        report: of the run.
        spec: settings.
        data: of the run.
        inputs: of the examples that the report has, whole; none leave these as they are.
        bundle: URI of the bundle that the run has written.
        workers: of the training.
        at_most_s: seconds that it may take.

    Raises:
        TimeoutError: it took longer.
    """
    examples = report.examples if inputs else ()
    share = min(1.0, spec.explain_rows / max(data.account.outcomes["test"], 1))
    started = _explain.options(num_cpus=workers.cpus, num_gpus=int(workers.use_gpu)).remote(
        bundle, data.task, workers, examples, inputs, source_blocks(data) if share else [], share
    )
    try:
        with_all_words, tested = ray.get(started, timeout=at_most_s)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(started, force=True)
        raise TimeoutError(f"it took more than {at_most_s:,.0f} s") from None
    changed: dict[str, Any] = {"examples": with_all_words} if examples else {}
    if tested.explanations:
        changed["faithfulness"] = FaithfulnessScores.model_validate(tested.as_json("leave_one_out"))
    return report.model_copy(update=changed)


# Not again if its process dies: one that is killed for its memory would be tried without end.
@ray.remote(max_retries=0)
def _explain(
    uri: str,
    task: Task,
    workers: TrainingWorkers,
    examples: tuple[ExampleRow, ...],
    inputs: list[TextInput],
    sources: list[tuple[Any, Any]],
    share: float,
) -> tuple[tuple[ExampleRow, ...], Faithfulness]:
    """(the examples with words, sums over the explanations of a sample of rows)."""
    register(task)  # a task from outside this package is registered in the driver alone
    device = "cuda" if workers.use_gpu else "cpu"
    classifier = Classifier.of(load_bundle(uri), device=device, threads=workers.cpus)
    tested = Faithfulness()
    with masked_errors(classifier.bundle.manifest.text):
        for rows, texts in sources:
            sample = pa.array(sample_mask(ray.get(rows), share))
            tested += faithfulness(classifier, inputs_of(ray.get(texts).filter(sample)))
        return with_words(classifier, examples, inputs), tested
