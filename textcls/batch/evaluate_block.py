"""One block of labelled rows -> counts of right and wrong answers, on an actor.

In: a classifier and a block of clean rows. Out: a `BlockResult`, which adds up to that of all rows. Not here: reading
the rows and reporting the sum (evaluate.py), the counts (tasks/), slices and examples (data/row_findings.py).
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa

from textcls.batch.actor_pool import prefetched
from textcls.batch.explained_sample import SampleFaithfulness
from textcls.data.row_findings import coded_rows
from textcls.data.row_tables import clean_rows, inputs_of, targets_of
from textcls.data.rows import shown as shown_cell
from textcls.data.summary import RowSummary, histogram
from textcls.inference.classifier import Classifier, Scores
from textcls.inference.encoding import Encoded
from textcls.slices.findings import RowFindings, RowStudy, Studied
from textcls.tasks.task import RowCounts, Task, no_counts
from textcls.text.masks import masker_of

# Rows that are scored together. The classifier sorts them by length, so that batches need little padding.
_ROWS_AT_ONCE = 2_048


@dataclass
class BlockResult:
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
    rejects: list["Unscored"] = field(default_factory=list)
    fp32: bool = False
    tested: SampleFaithfulness = field(default_factory=SampleFaithfulness)

    def add(self, other: "BlockResult") -> None:
        """Adds the result of a later block."""
        self.counts += other.counts
        self.studied += other.studied
        self.summary.add(other.summary)
        self.truncated += other.truncated
        self.rejects += other.rejects
        self.fp32 |= other.fp32
        self.tested += other.tested


@dataclass(frozen=True)
class Unscored:
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
class EvaluateBlock:
    """Scores one block of rows; picklable.

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

    def __call__(self, classifier: Classifier, block: pa.Table) -> Generator[int, None, BlockResult]:
        """Yields the number of rows scored, part by part; returns the result of the block."""
        found = BlockResult(no_counts(self.task, self.labels), Studied.of(self.study.no_rows))
        mask = masker_of(classifier.bundle.manifest.text)
        for rows, encoded in prefetched(self._encoded_parts(classifier, clean_rows(block))):
            scores = classifier.score_encoded(encoded)
            scored = np.array([error is None for error in scores.errors], bool)
            targets = targets_of(rows["label"], self.task, self.labels)
            refused = [
                Unscored(rows["row_id"][i].as_py(), error.code, _shown_input(rows, i, mask))
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
            found.add(BlockResult(counts, studied, summary, int(scores.truncated.sum()), refused, in_fp32, tested))
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
