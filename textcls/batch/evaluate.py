"""Bundle + labelled CSV files -> the same report that training computes on its test split.

In: a verified bundle, settings, an --out. Out: the report. OUT holds report.json, report.html and report.png, the
account of rows and the rejects. Not here: reading and cleaning rows (data/), the actors (actor_pool.py), the metrics
(tasks/).

Rows are read and checked as for training, but not split: every row that can be scored is scored, duplicates included.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from textcls import storage
from textcls.batch.actor_pool import PoolSize, plan_pool, prefetched, run_on_pool
from textcls.batch.explained_sample import SampleFaithfulness, explained_examples
from textcls.batch.settings import EvaluateSpec, nothing_scored, with_small_shards
from textcls.bundle import Bundle, precision_asked
from textcls.data import messages
from textcls.data.input_files import InputFile, expand
from textcls.data.masked_messages import masked_messages
from textcls.data.read import ReadRows, read_rows
from textcls.data.row_findings import coded_rows, example_inputs, plan_slices, report_parts
from textcls.data.row_tables import clean_rows, file_and_line, inputs_of, targets_of
from textcls.data.rows import shown as shown_cell
from textcls.data.slice_columns import with_slices
from textcls.data.spellings import spelling_warnings
from textcls.data.summary import RowSummary, histogram
from textcls.encryption import NO_KEYS, Keys
from textcls.inference.classifier import Classifier, Scores
from textcls.inference.encoding import Encoded
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
from textcls.slices.findings import RowFindings, RowStudy, Studied
from textcls.tasks.task import RowCounts, Task, no_counts
from textcls.text.masks import masker_of

Say = Callable[[str], None]

EVALUATION = OutKind(
    name="report",
    finished_name="a finished report",
    last_file="report.json",
    replaceable=ACCOUNT_FILES | report_with_texts.NAMES | {"report.html", "report.png"},
)
# Rows that are scored together. The classifier sorts them by length, so that batches need little padding.
_ROWS_AT_ONCE = 2_048


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


@dataclass
class _BlockResult:
    """The result of one block of rows, or of several added up.

    Attributes:
        counts: of the rows that have scores.
        studied: slices and examples of these rows.
        summary: number and token lengths of these rows, and rejects by reason.
        truncated: rows whose text was cut.
        rejects: rows that the classifier rejected, in row order within a block.
        fp32: whether any row was scored in fp32.
        tested: explanations of a sample of rows.
    """

    counts: RowCounts
    studied: Studied
    summary: RowSummary = field(default_factory=RowSummary)
    truncated: int = 0
    rejects: list["_Unscored"] = field(default_factory=list)
    fp32: bool = False
    tested: SampleFaithfulness = field(default_factory=SampleFaithfulness)

    def add(self, other: "_BlockResult") -> None:
        """Adds the result of a later block."""
        self.counts += other.counts
        self.studied += other.studied
        self.summary.add(other.summary)
        self.truncated += other.truncated
        self.rejects += other.rejects
        self.fp32 |= other.fp32
        self.tested += other.tested


@dataclass(frozen=True)
class _Unscored:
    """A clean row whose text the classifier rejected.

    Attributes:
        row_id: see `row_tables`.
        reason: code of the error.
        value: the beginning of the text, masked and printable.
    """

    row_id: int
    reason: str
    value: str


@dataclass(frozen=True)
class _EvaluateBlock:
    """Scores one block of rows.

    Attributes:
        task: what is predicted.
        labels: label names in id order.
        study: finds slices and examples.
        explained: share of the rows whose explanations are tested.
    """

    task: Task
    labels: tuple[str, ...]
    study: RowStudy
    explained: float = 0.0

    def __call__(self, classifier: Classifier, block: pa.Table) -> Generator[int, None, _BlockResult]:
        """Yields the number of rows scored, part by part; returns the result of the block."""
        found = _BlockResult(no_counts(self.task, self.labels), Studied.of(self.study.no_rows))
        mask = masker_of(classifier.bundle.manifest.text)
        for rows, encoded in prefetched(self._encoded_parts(classifier, clean_rows(block))):
            scores = classifier.score_encoded(encoded)
            scored = np.array([error is None for error in scores.errors], bool)
            targets = targets_of(rows["label"], self.task, self.labels)
            refused = [
                _Unscored(rows["row_id"][i].as_py(), error.code, _shown_input(rows, i, mask))
                for i, error in enumerate(scores.errors)
                if error is not None
            ]
            texts = [] if scores.text_tokens is None else scores.text_tokens[scored].T
            summary = RowSummary(
                rows=int(scored.sum()),
                reasons=Counter(one.reason for one in refused),
                unknown=int(scores.unknown[scored].sum()),
                token_histogram=histogram(scores.tokens[scored]),
                text_histograms=[*map(histogram, texts)],
            )
            counts = self.task.counts(scores.probabilities[scored], targets[scored], classifier.thresholds)
            studied = Studied.of(partial(self._findings, classifier, scores, rows, targets, scored))
            in_fp32 = classifier.precision == "fp32"
            tested = SampleFaithfulness.of(classifier, rows, self.explained)
            found.add(_BlockResult(counts, studied, summary, int(scores.truncated.sum()), refused, in_fp32, tested))
            yield len(rows)
        return found

    def _findings(
        self, classifier: Classifier, scores: Scores, rows: pa.Table, targets: np.ndarray, scored: np.ndarray
    ) -> RowFindings:
        """Of the rows that have scores: bool [N]."""
        coded = coded_rows(
            rows.filter(pa.array(scored)), self.study.plan, scores.tokens[scored], scores.truncated[scored]
        )
        return self.study(coded, scores.probabilities[scored], targets[scored], classifier.thresholds)

    def _encoded_parts(self, classifier: Classifier, rows: pa.Table) -> Iterator[tuple[pa.Table, list[Encoded]]]:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows.slice(start, _ROWS_AT_ONCE)
            yield part, classifier.encode(inputs_of(part))


def _shown_input(rows: pa.Table, i: int, mask: Callable[[str], str]) -> str:
    (found,) = inputs_of(rows.slice(i, 1))
    return shown_cell(" ".join(found.segments), mask)


def _scored(
    read: ReadRows, bundle: Bundle, study: RowStudy, size: PoolSize, say: Say, explain_rows: int
) -> _BlockResult:
    """The sum over all blocks, in row order, whatever the order in which they finish."""
    explained = min(1.0, explain_rows / max(read.summary.rows, 1))
    work, board = _EvaluateBlock(bundle.task, bundle.manifest.labels, study, explained), ProgressBoard()
    started, done = time.monotonic(), 0

    def on_rows(rows: int) -> None:
        nonlocal done
        done += rows
        board.post(RowProgress(done, read.summary.rows, done / max(time.monotonic() - started, 1e-6), exact=True))

    with progress_display(board.take, say, verb="scoring"):
        by_block = dict(run_on_pool(work, read.blocks, size, bundle, on_rows=on_rows))
    total = _BlockResult(no_counts(bundle.task, bundle.manifest.labels), Studied.of(study.no_rows))
    for index in range(len(read.blocks)):
        total.add(by_block[index])
    return total


def _account(read: ReadRows, found: _BlockResult | None) -> Account:
    """Where the rows went; without a result, no row is evaluated yet."""
    reasons = read.summary.reasons + (found.summary.reasons if found else Counter())
    outcomes = {"evaluated": found.counts.rows if found else 0, "rejects": reasons.total()}
    return Account(read.summary.read, outcomes, read.summary.outside_where, dict(reasons), read.masked_rows)


def _tokens(bundle: Bundle, found: _BlockResult) -> dict[str, Any]:
    """As `RowSummary.token_lengths`, except that truncated rows are those that the classifier has cut."""
    limit = bundle.manifest.text.max_tokens
    return found.summary.token_lengths(limit) | {
        "truncated_rows": found.truncated,
        "truncated_fraction": found.truncated / max(found.summary.rows, 1),
        "unknown_fraction": found.summary.unknown_fraction(limit if found.truncated else None),
    }


def _classifier_rejects(read: ReadRows, found: _BlockResult) -> Iterator[pa.Table]:
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


def _example(read: ReadRows, found: _BlockResult, reason: str) -> str:
    """The first row that was rejected for a reason, as `FILE:LINE: TEXT`."""
    one = next(one for one in found.rejects if one.reason == reason)
    return f"{read.location(one.row_id)}: {one.value or '(empty)'}"
