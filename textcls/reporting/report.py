"""What a training run or an evaluation found, as one typed value: the content of report.json.

In: numbers that training and evaluation have computed. Out: a `Report`, which the terminal and the picture read, and
its JSON. Not here: computing the numbers (tasks/metrics.py), showing them (terminal.py, picture.py).

The task fills one part, `TaskScores`: a task with other scores adds its own keys to it, and they are shown as well.
Everything else is the same for every task. JSON holds the fields that were set and no others, so that reading a report
and writing it again changes nothing. A field that is None in a report was not measured.
"""

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

FORMAT_VERSION: Literal[1] = 1
"""Of report.json. Reports that do not state a version have this one."""


class _Part(BaseModel):
    """A part of a report. Keys that this version of textcls does not know are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Proportion(_Part):
    """A share of rows and its 95 % confidence interval; the value is None without rows."""

    value: float | None
    low: float
    high: float


class LabelScores(_Part):
    """How well one label is recognized."""

    precision: float
    recall: float
    f1: float
    support: int
    """Rows that have this label."""
    predicted: int | None = None
    """Rows that are predicted to have it; None in reports of earlier versions."""
    ap: float | None = None
    """Average precision: the area under the precision-recall curve."""
    threshold: float | None = None
    """The label is predicted from this probability on."""

    def hits(self) -> tuple[int, int, int]:
        """Rows of the label that are found, those that are missed, and other rows that are predicted to have it.

        Where `predicted` is missing, the third number is 0 for a label without a hit: its precision is 0, however often
        it is predicted.
        """
        hits = round(self.recall * self.support)
        if self.predicted is not None:
            return hits, self.support - hits, self.predicted - hits
        return hits, self.support - hits, round(hits / self.precision) - hits if hits else 0


class Confusion(_Part):
    """Which labels are predicted for which. Only pairs with rows: the size does not grow with the square of labels."""

    labels: tuple[str, ...]
    """Label names by label id."""
    support: tuple[int, ...]
    """Rows of each label."""
    pairs: tuple[tuple[int, int, int], ...]
    """(true label id, predicted label id, rows), by falling rows."""
    other_rows: int = 0
    """Rows of pairs that are not listed."""

    def most_confused(self, max_pairs: int) -> list[tuple[str, str, int, float]]:
        """(true label, predicted label, rows, share of the true label's rows) of the pairs with most rows, in order."""
        pairs = np.array(self.pairs, np.int64).reshape(-1, 3)
        wrong = pairs[pairs[:, 0] != pairs[:, 1]]
        worst = wrong[np.argsort(-wrong[:, 2], kind="stable")[:max_pairs]].tolist()
        names, support = self.labels, self.support
        return [(names[true], names[predicted], rows, rows / support[true]) for true, predicted, rows in worst]

    def matrix(self, max_cells: int) -> tuple[np.ndarray, np.ndarray]:
        """(int64 [n, n] rows by true and predicted label id, int64 [n] rows by true label id).

        Of more than `max_cells` labels, neighbours share one of the n = `max_cells` cells.
        """
        pairs, labels = np.array(self.pairs, np.int64).reshape(-1, 3), len(self.support)
        cells = min(labels, max_cells)
        cell_of = np.arange(labels) * cells // max(labels, 1)
        matrix, rows = np.zeros((cells, cells), np.int64), np.zeros(cells, np.int64)
        np.add.at(matrix, (cell_of[pairs[:, 0]], cell_of[pairs[:, 1]]), pairs[:, 2])
        np.add.at(rows, cell_of, np.array(self.support, np.int64))
        return matrix, rows


class CoOccurrence(_Part):
    """Which labels occur in the same rows, and which are predicted for the same rows. Only pairs with rows."""

    labels: tuple[str, ...]
    """Label names by label id."""
    support: tuple[int, ...]
    """Rows that have each label."""
    pairs: tuple[tuple[int, int, int, int], ...]
    """(label id, greater label id, rows that have both, rows for which both are predicted)."""
    other_pairs: int = 0
    """Pairs with rows that are not listed."""

    def most_misjudged(self, max_pairs: int) -> list[tuple[str, str, int, int]]:
        """(label, label, rows that have both, rows for which both are predicted) where these differ most, in order."""
        pairs = np.array(self.pairs, np.int64).reshape(-1, 4)
        gap = np.abs(pairs[:, 2] - pairs[:, 3])
        worst = np.argsort(-gap, kind="stable")[:max_pairs]
        names = self.labels
        return [
            (names[i], names[j], true, predicted) for i, j, true, predicted in pairs[worst[gap[worst] > 0]].tolist()
        ]

    def matrix(self, max_cells: int) -> np.ndarray:
        """float64 [n, n]: the rows of pairs of labels, as a share of the rows that have the rarer of the two.

        Below the diagonal are the rows that have both labels, above it those for which both are predicted, which may be
        more than all. The diagonal, and pairs with a label that no row has, are NaN. Of more than `max_cells` labels,
        neighbours share one of the n = `max_cells` cells.
        """
        pairs, labels = np.array(self.pairs, np.int64).reshape(-1, 4), len(self.support)
        cells = min(labels, max_cells)
        cell_of = np.arange(labels) * cells // max(labels, 1)
        first, second = cell_of[pairs[:, 0]], cell_of[pairs[:, 1]]
        both, rows = np.zeros((cells, cells)), np.zeros(cells)
        apart = first != second
        np.add.at(both, (second[apart], first[apart]), pairs[apart, 2])
        np.add.at(both, (first[apart], second[apart]), pairs[apart, 3])
        np.add.at(rows, cell_of, np.array(self.support, np.float64))
        rarer = np.minimum(rows[:, None], rows)
        np.fill_diagonal(rarer, 0)
        return np.divide(both, rarer, out=np.full_like(both, np.nan), where=rarer > 0)


class NoLabel(_Part):
    """Rows without any label."""

    true: int
    predicted: int


class ReliabilityBin(_Part):
    """Answers whose confidence lies in (low, high]: one a row, or one for each label of a row."""

    low: float
    high: float
    rows: int
    confidence: float
    """Mean confidence of these rows."""
    accuracy: float


class CoveragePoint(_Part):
    """What answering only from this confidence on would give."""

    confidence: float
    coverage: float
    """Share of the rows that would be answered."""
    accuracy: float


class Answered(_Part):
    """The rows that the classifier answers at its threshold, rather than abstaining."""

    rows: int
    coverage: float | None
    accuracy: float | None


class TaskScores(_Part):
    """How good a classifier is on some rows, as its task measures it.

    Only `rows` belongs to every task. A task leaves out what it has no such thing as, and adds scores of its own:
    every other key that holds a number is listed beside the known ones.
    """

    rows: int
    accuracy: Proportion | None = None
    subset_accuracy: Proportion | None = None
    """Rows whose labels are all right, and none too many."""
    micro_f1: float | None = None
    macro_f1: float | None = None
    macro_labels: int | None = None
    """Labels with rows, if the mean runs over these alone."""
    weighted_f1: float | None = None
    hamming_loss: float | None = None
    """Share of wrong answers among all rows and labels."""
    lrap: float | None = None
    """Label ranking average precision (Schapire and Singer 2000)."""
    map: float | None = None
    """Mean over labels of the average precision."""
    log_loss: float | None = None
    """In nats per row."""
    ece: float | None = None
    """Expected calibration error (Guo et al. 2017)."""
    per_class: dict[str, LabelScores] = {}
    """By label name, in the order of label ids."""
    confusion: Confusion | None = None
    co_occurrence: CoOccurrence | None = None
    no_label: NoLabel | None = None
    reliability: tuple[ReliabilityBin, ...] = ()
    """Bins that hold rows, by rising confidence."""
    coverage: tuple[CoveragePoint, ...] = ()
    answered: Answered | None = None

    def other_scores(self) -> dict[str, float]:
        """The numbers that the task added."""
        extra = self.model_extra or {}
        return {name: value for name, value in extra.items() if type(value) in (int, float)}


class Baseline(TaskScores):
    """The baseline's scores on the same rows, and what they took."""

    rows_used: int | None = None
    """Training rows that the baseline read."""
    features: int | None = None
    seconds: float | None = None


class NoBaseline(_Part):
    """Why there is no baseline."""

    error: str


class CalibrationSummary(_Part):
    """How scores were fitted to observed frequencies, as the bundle says it."""

    temperature: float
    temperatures: tuple[float, ...] | None = None
    """By label id, where each label has its own."""
    ece_before: float | None = None
    ece_after: float | None = None
    threshold: float = 0.0
    thresholds: tuple[float, ...] | None = None
    """Where there are several: the probability from which on each label is given, and others of the task."""
    min_precision: float | None = None


class Validation(_Part):
    """The validation split after an epoch; a task adds scores of its own."""

    step: int
    loss: float | None = None
    accuracy: float | None = None
    macro_f1: float | None = None

    def score(self, metric: str) -> float | None:
        """A score by name; None if it was not measured."""
        value = getattr(self, metric, None)
        return float(value) if isinstance(value, (int, float)) else None


class BestCheckpoint(_Part):
    """The checkpoint that became the bundle."""

    step: int
    select_by: str | None = None
    score: float | None = None


class TokenLengths(_Part):
    """Lengths of the rows in tokens before the cut."""

    percentiles: dict[str, int]
    """Percentile -> tokens; "100" is the longest row."""
    texts: tuple[dict[str, int], ...] = ()
    """For pairs, the same for each text, without special tokens."""
    truncated_fraction: float
    unknown_fraction: float | None = None
    """Share of the tokens that stand for something unknown to the vocabulary, [UNK]."""


class Speed(_Part):
    """What the training took."""

    seconds: float
    rows_per_s: float
    tokens_per_s: float
    first_step_at: float | None = None
    """Unix time at which the first optimizer step was done; None in a run that continued one."""
    precision: str | None = None
    workers: int | None = None
    device: str | None = None


class ScoredBundle(_Part):
    """The bundle that was evaluated."""

    uri: str
    digest: str


class Slice(_Part):
    """The rows that have one thing in common, such as a length, a file, or a value in a column."""

    by: str
    """What the rows are grouped by: "length", "truncated", "file", "column NAME", "confidence" or "label"."""
    value: str
    """What they have in common, for people: "65 to 128", "yes", a cell."""
    rows: int
    share: Proportion
    """Share of the rows that are answered rightly, as `SliceScores.metric` says."""
    worse: bool = False
    """Whether the slice is surely worse than all other rows."""
    p_value: float | None = None
    """Of the test against all other rows; None where the slice is not tested."""

    @property
    def words(self) -> str:
        """The rows in words, as the subject of a sentence."""
        kind, _, column = self.by.partition(" ")
        named = {
            "length": f"texts of {self.value} tokens",
            "truncated": "truncated texts" if self.value == "yes" else "texts that are not truncated",
            "file": f"rows of {self.value}",
            "column": f"rows with {column} {self.value}",
        }
        return named.get(kind, f"rows with {self.by} {self.value}")


class SliceScores(_Part):
    """Where a classifier does well and where it does not."""

    metric: str
    """What `share` is a share of, in words: "accuracy", "subset accuracy"."""
    overall: Proportion
    """Of all rows."""
    slices: tuple[Slice, ...] = ()
    """Grouped by `by`, in the order of display."""
    not_tested: dict[str, str] = {}
    """`by` -> why none of its slices is tested, as a sentence."""

    @property
    def tested(self) -> int:
        """How many slices were tested."""
        return sum(one.p_value is not None for one in self.slices)

    def surely_worse(self) -> list[Slice]:
        """The slices that are surely worse than all other rows, the worst first: by the upper end of the interval."""
        return sorted((one for one in self.slices if one.worse), key=lambda one: (one.share.high, one.by, one.value))


class WordEffect(_Part):
    """What one word of a text does to the score."""

    text: int
    """Which text of the row: 0, or 1 for the second of a pair."""
    start: int
    end: int
    """Where the word is, in code points of the text: [start, end)."""
    effect: float
    """On the logit; above 0 it speaks for the label."""


class ExampleRow(_Part):
    """A row that is worth reading."""

    kind: Literal["confident_mistake", "unsure_right"]
    """One of the wrong answers with the highest score, or of the right ones with the lowest."""
    file: str
    line: int
    """1-based line at which the row begins."""
    labels: tuple[str, ...]
    """What the row is labelled with; empty if no label applies."""
    predicted: tuple[str, ...]
    """What the classifier answers; empty for no label."""
    score: float
    """How sure the answer is, from 0 to 1."""
    texts: tuple[str, ...] | None = None
    """The text, or the two of a pair, cut where they are long; only with `report.texts`."""
    words: tuple[WordEffect, ...] | None = None
    """What each word of `texts` does to the score of a label; only with `report.texts`."""
    explained: str | None = None
    """The label of `words`: of a mistake one that is given wrongly or else missed, else the least sure one given."""


class Verdict(_Part):
    """What the figures mean, in words: see verdict.py."""

    sentence: str
    """The finding that matters most."""
    notes: tuple[str, ...] = ()
    """At most two others, the more important one first."""


class FaithfulnessScores(_Part):
    """Whether explanations say what the classifier does: what scores lose without words, on average."""

    method: str
    explanations: int
    """Explained labels of a sample of rows."""
    comprehensiveness: float
    """Lost without the words with the greatest effects (ERASER, DeYoung et al. 2020)."""
    sufficiency: float
    """Lost with these words alone; near 0 if they suffice."""
    random_comprehensiveness: float
    """Lost without as many words in random order."""
    random_sufficiency: float
    """Lost with as many words in random order alone."""


class Report(_Part):
    """The content of report.json. Only evaluation sets `title`, `bundle`, `files` and `faithfulness`."""

    format_version: Literal[1] = FORMAT_VERSION
    title: str = "Test split"
    """What the scored rows are."""
    verdict: Verdict | None = None
    test: TaskScores
    calibration: CalibrationSummary | None = None
    baseline: Baseline | NoBaseline | None = None
    history: tuple[Validation, ...] = ()
    """One entry an epoch."""
    curve: tuple[tuple[int, float], ...] = ()
    """(step, mean training loss since the previous point)."""
    best: BestCheckpoint | None = None
    stopped_early: bool | None = None
    faithfulness: FaithfulnessScores | None = None
    """Of the explanations of a sample of rows."""
    tokens: TokenLengths | None = None
    padding_ratio: float | None = None
    """Tokens computed, padding included, per real token."""
    speed: Speed | None = None
    slices: SliceScores | None = None
    examples: tuple[ExampleRow, ...] = ()
    """The most confident mistakes and the least sure right answers, in this order, the most extreme first."""
    rows: dict[str, Any] = {}
    """The account of rows, as rows.json has it."""
    recipe: dict[str, Any] | None = None
    """The settings of the training, as the bundle has them."""
    versions: dict[str, str] | None = None
    """Versions of the libraries of the training."""
    bundle: ScoredBundle | None = None
    files: tuple[str, ...] = ()
    """CSV files that were read."""
    written_at: float | None = None
    """Unix time."""

    def scored_baseline(self) -> Baseline | None:
        """The baseline's scores; None if there is none, or if it failed."""
        return self.baseline if isinstance(self.baseline, Baseline) else None

    def content(self) -> dict[str, Any]:
        """The content of report.json: the fields that were set."""
        return {"format_version": self.format_version} | self.model_dump(mode="json", exclude_unset=True)
