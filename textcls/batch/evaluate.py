"""Bundle + labelled CSV files -> the same report that training computes on its test split.

In: a verified bundle, settings, an --out. Out: the report. OUT holds report.json, report.html and report.png, the
account of rows and the rejects. Not here: reading and cleaning rows (data/), what an actor does with a block
(evaluate_block.py), the actors (actor_pool.py), the metrics (tasks/).

Rows are read and checked as for training, but not split: every row that can be scored is scored, duplicates included.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from textcls import storage
from textcls.batch.actor_pool import PoolSize, plan_pool, run_on_pool
from textcls.batch.evaluate_block import BlockResult, EvaluateBlock
from textcls.batch.explained_sample import explained_examples
from textcls.batch.settings import EvaluateSpec, nothing_scored, with_small_shards
from textcls.bundle import Bundle, precision_asked
from textcls.data import messages
from textcls.data.input_files import InputFile, expand
from textcls.data.masked_messages import masked_messages
from textcls.data.read import ReadRows, read_rows
from textcls.data.row_findings import example_inputs, plan_slices, report_parts
from textcls.data.row_tables import file_and_line
from textcls.data.slice_columns import with_slices
from textcls.data.spellings import spelling_warnings
from textcls.encryption import NO_KEYS, Keys
from textcls.modeling.precision import fp32_note
from textcls.on_ray.session import ray_session
from textcls.output.account import FILES as ACCOUNT_FILES
from textcls.output.account import REJECT_SCHEMA, REJECTS, Account, write_account, write_rejects
from textcls.output.claim import OutKind, claim
from textcls.output.json_files import write_json
from textcls.output.lock import locked
from textcls.output.side_product import side_product
from textcls.progress import ProgressBoard, RowProgress, progress_display
from textcls.reporting import report_with_texts
from textcls.reporting.page import report_page
from textcls.reporting.picture import draw_report
from textcls.reporting.report import CalibrationSummary, FaithfulnessScores, Report, ScoredBundle, TokenLengths
from textcls.reporting.task_scores import TaskScores
from textcls.reporting.verdict import judged
from textcls.slices.findings import RowStudy, Studied
from textcls.tasks.task import no_counts

Say = Callable[[str], None]

EVALUATION = OutKind(
    name="report",
    finished_name="a finished report",
    last_file="report.json",
    replaceable=ACCOUNT_FILES | report_with_texts.NAMES | {"report.html", "report.png"},
)


def evaluate(
    bundle: Bundle, spec: EvaluateSpec, out: str, *, keys: Keys = NO_KEYS, say: Say, verbose: bool = False
) -> Report:
    """Scores labelled rows with a bundle and writes the report to `out`; returns it.

    Args:
        bundle: a verified bundle.
        spec: from `evaluate_settings`.
        out: URI of a new directory.
        keys: the recipients, if files that hold texts are to be encrypted.
        say: shows the user one line.
        verbose: show Ray's own log lines as well.

    Raises:
        InputError: files, settings, rows or directory cannot be used.
        StorageError: the disk or the network failed.
        ScoringError: workers died more often than `scale.max_failures` allows.
    """
    files = expand(spec.data.csv)
    places = [out, bundle.uri, *(file.uri for file in files)]
    with masked_messages(bundle.manifest.text, say, places) as say, locked(out) as uri:
        claim(uri, EVALUATION)
        _, report = measured(bundle, spec, files, uri, keys, say, verbose=verbose)
        # Its report.json is the last file: an --out with a report is finished.
        write_report(report, uri, keys, say)
    return report


def measured(
    bundle: Bundle,
    spec: EvaluateSpec,
    files: Sequence[InputFile],
    uri: str,
    keys: Keys,
    say: Say,
    *,
    verbose: bool,
) -> tuple[dict[str, Any], Report]:
    """(the task's summary, the report) of the rows of some files; writes the account of rows and the rejects.

    Args:
        bundle: scores the rows.
        spec: from `evaluate_settings`.
        files: the CSV files of the settings.
        uri: of a claimed directory.
        keys: the recipients, if the rejects are to be encrypted.
        say: shows the user one line.
        verbose: show Ray's own log lines as well.

    Raises:
        TextclsError: see `evaluate`.
    """
    data = with_small_shards(spec.data, files)
    with ray_session(verbose=verbose):
        read = read_rows(files, with_slices(data, spec.report.slices), bundle.manifest.text, task=bundle.task)
        write_account(uri, _account(read, None))
        write_rejects(uri, read.rejects(), keys)
        for line in messages.read_lines(read):
            say(line)
        messages.check_rows(read)
        for warning in spelling_warnings(data, read.summary.labels, read.summary.spellings):
            say(f"  warning: {warning}")
        plan = plan_slices(read.blocks, read.files, spec.report.slices)
        study = RowStudy(bundle.task, bundle.manifest.labels, plan)
        size = plan_pool(spec.scale, items=len(read.blocks))
        say(f"scoring {read.summary.rows:,} rows, duplicates included: {size}")
        found = _scored(read, bundle, study, size, say, spec.report.explain_rows)
        if note := fp32_note(precision_asked(bundle), "fp32" if found.fp32 else "bf16"):
            say(f"  {note}")
        for reason, number in found.summary.reasons.most_common():
            say(f"  rejected {number:,}: {reason}, like {_example(read, found, reason)}")
        write_rejects(uri, chain(read.rejects(), _classifier_rejects(read, found)), keys)
        account = _account(read, found)
        assert account.is_balanced, account
        write_account(uri, account)
        if not found.counts.rows:
            raise nothing_scored(
                account.reject_reasons, spec.data, files, where=f"{uri}/{keys.name(REJECTS)} lists them"
            )
        of_rows: dict[str, Any] = {}
        with side_product("finding slices and examples", say):
            findings = found.studied.found()
            sources = [(one, one) for one in read.blocks]
            shown = example_inputs(findings, sources, bundle.manifest.text) if spec.report.texts else []
            of_rows = report_parts(study, findings, read.files, shown)
            with side_product("explaining the examples", say):
                if shown:
                    say(f"explaining the {len(shown)} rows that the report shows")
                    of_rows["examples"] = explained_examples(of_rows["examples"], shown, size, bundle)
    say(f"  {account}")
    if masked := account.masked_line:
        say(f"  {masked}")
    scores = bundle.task.summarise(found.counts, bundle.manifest.labels)
    report = Report(
        title="Evaluation",
        test=TaskScores.model_validate(scores),
        calibration=CalibrationSummary.model_validate(bundle.manifest.calibration.model_dump()),
        tokens=TokenLengths.model_validate(_tokens(bundle, found)),
        **of_rows,
        rows=account.as_json(),
        bundle=ScoredBundle(uri=bundle.uri, digest=bundle.digest),
        files=tuple(read.files),
        recipe=dict(bundle.manifest.recipe),
        versions=dict(bundle.manifest.versions),
        written_at=time.time(),
    )
    with side_product("measuring how faithful explanations are", say):
        if (tested := found.tested.found()).explanations:
            means = FaithfulnessScores.model_validate(tested.as_json("leave_one_out"))
            report = report.model_copy(update={"faithfulness": means})
    with side_product("the verdict", say):
        own = bundle.manifest.metrics
        report = judged(report, own_test=TaskScores.model_validate(own) if own else None)
    return scores, report


def write_report(report: Report, uri: str, keys: Keys, say: Say) -> None:
    """Writes report.html, report.png and then report.json to a directory; with recipients, texts apart from these."""
    with side_product("the report with texts", say):
        report_with_texts.write_with_texts(report, uri, keys)
    report = report_with_texts.for_all(report, keys)
    with side_product("report.html", say):
        storage.write_bytes(storage.join(uri, "report.html"), report_page(report).encode())
    with side_product("report.png", say):
        storage.write_bytes(storage.join(uri, "report.png"), draw_report(report))
    write_json(uri, "report.json", report.content())


def _scored(
    read: ReadRows, bundle: Bundle, study: RowStudy, size: PoolSize, say: Say, explain_rows: int
) -> BlockResult:
    """The sum over all blocks, in row order, whatever the order in which they finish."""
    explained = min(1.0, explain_rows / max(read.summary.rows, 1))
    work, board = EvaluateBlock(bundle.task, bundle.manifest.labels, study, explained), ProgressBoard()
    started, done = time.monotonic(), 0

    def on_rows(rows: int) -> None:
        nonlocal done
        done += rows
        board.post(RowProgress(done, read.summary.rows, done / max(time.monotonic() - started, 1e-6), exact=True))

    with progress_display(board.take, say, verb="scoring"):
        by_block = dict(run_on_pool(work, read.blocks, size, bundle, on_rows=on_rows))
    total = BlockResult(no_counts(bundle.task, bundle.manifest.labels), Studied.of(study.no_rows))
    for index in range(len(read.blocks)):
        total.add(by_block[index])
    return total


def _account(read: ReadRows, found: BlockResult | None) -> Account:
    """Where the rows went; without a result, no row is evaluated yet."""
    reasons = read.summary.reasons + (found.summary.reasons if found else Counter())
    outcomes = {"evaluated": found.counts.rows if found else 0, "rejects": reasons.total()}
    return Account(read.summary.read, outcomes, read.summary.outside_where, dict(reasons), read.masked_rows)


def _tokens(bundle: Bundle, found: BlockResult) -> dict[str, Any]:
    """As `RowSummary.token_lengths`, except that truncated rows are those that the classifier has cut."""
    limit = bundle.manifest.text.max_tokens
    return found.summary.token_lengths(limit) | {
        "truncated_rows": found.truncated,
        "truncated_fraction": found.truncated / max(found.summary.rows, 1),
        "unknown_fraction": found.summary.unknown_fraction(limit if found.truncated else None),
    }


def _classifier_rejects(read: ReadRows, found: BlockResult) -> Iterator[pa.Table]:
    """The rows that the classifier rejected, as rejects.parquet has them."""
    if found.rejects:
        locations = [file_and_line(one.row_id) for one in found.rejects]
        arrays = [
            [read.files[file] for file, _ in locations],
            [line for _, line in locations],
            [""] * len(locations),
            [one.reason for one in found.rejects],
            [one.value for one in found.rejects],
        ]
        yield pa.table(
            [pa.array(values, kind) for values, kind in zip(arrays, REJECT_SCHEMA.types, strict=True)],
            schema=REJECT_SCHEMA,
        )


def _example(read: ReadRows, found: BlockResult, reason: str) -> str:
    """The first row that was rejected for a reason, as `FILE:LINE: TEXT`."""
    one = next(one for one in found.rejects if one.reason == reason)
    return f"{read.location(one.row_id)}: {one.value or '(empty)'}"
