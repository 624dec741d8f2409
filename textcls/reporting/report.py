"""What a training run or an evaluation found, as one typed value: the content of report.json.

In: numbers that training and evaluation have computed. Out: a `Report`, which the terminal and the picture read, and
its JSON. Not here: computing the numbers (tasks/metrics.py), showing them (terminal.py, picture.py).

The task fills one part, `TaskScores`: a task with other scores adds its own keys to it, and they are shown as well.
Everything else is the same for every task. JSON holds the fields that were set and no others, so that reading a report
and writing it again changes nothing. A field that is None in a report was not measured.
"""

from typing import Any, Literal

from pydantic import Field

from textcls.reporting.task_scores import Part, Proportion, TaskScores

FORMAT_VERSION: Literal[1] = 1
"""Of report.json. Reports that do not state a version have this one."""


class Baseline(TaskScores):
    """The baseline's scores on the same rows, and what they took."""

    rows_used: int | None = None
    """Training rows that the baseline read."""
    features: int | None = None
    seconds: float | None = None


class NoBaseline(Part):
    """Why there is no baseline."""

    error: str


class CalibrationSummary(Part):
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


class Validation(Part):
    """The validation split after an epoch; a task adds scores of its own."""

    step: int
    loss: float | None = None
    accuracy: float | None = None
    macro_f1: float | None = None

    def score(self, metric: str) -> float | None:
        """A score by name; None if it was not measured."""
        value = getattr(self, metric, None)
        return float(value) if isinstance(value, (int, float)) else None


class BestCheckpoint(Part):
    """The checkpoint that became the bundle."""

    step: int
    select_by: str | None = None
    score: float | None = None


class PrivacySummary(Part):
    """The bound on what the weights reveal about any single training row, as the bundle says it."""

    epsilon: float
    delta: float
    unit: str
    accountant: str
    sampling_rate: float
    steps: int
    noise_multiplier: float
    max_grad_norm: float
    not_covered: tuple[str, ...]
    """What may still reveal something, one sentence each."""
    other_runs: tuple[str, ...] = ()
    """Runs that are known to have used the same rows, one sentence each; epsilons add up."""


class TokenLengths(Part):
    """Lengths of the rows in tokens before the cut."""

    percentiles: dict[str, int]
    """Percentile -> tokens; "100" is the longest row."""
    texts: tuple[dict[str, int], ...] = ()
    """For pairs, the same for each text, without special tokens."""
    truncated_fraction: float
    unknown_fraction: float | None = None
    """Share of the tokens that stand for something unknown to the vocabulary, [UNK]."""


class Speed(Part):
    """What the training took."""

    seconds: float
    rows_per_s: float
    tokens_per_s: float
    first_step_at: float | None = None
    """Unix time at which the first optimizer step was done; None in a run that continued one."""
    precision: str | None = None
    workers: int | None = None
    device: str | None = None


class ScoredBundle(Part):
    """The bundle that was evaluated."""

    uri: str
    digest: str


class Slice(Part):
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
    def of_column(self) -> bool:
        """Whether the value is a cell of the CSV, or a range of them."""
        return self.by.startswith("column ")

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


class SliceScores(Part):
    """Where a classifier does well and where it does not."""

    metric: str
    """What `share` is a share of, in words: "accuracy", "subset accuracy"."""
    overall: Proportion
    """Of all rows."""
    slices: tuple[Slice, ...] = ()
    """Grouped by `by`, in the order of display."""
    not_tested: dict[str, str] = Field({})
    """`by` -> why none of its slices is tested, as a sentence."""
    left_out: dict[str, str] = Field({})
    """`by` -> why none of its slices is here, as a sentence."""

    @property
    def tested(self) -> int:
        """How many slices were tested."""
        return sum(one.p_value is not None for one in self.slices)

    def surely_worse(self) -> list[Slice]:
        """The slices that are surely worse than all other rows, the worst first: by the upper end of the interval."""
        return sorted((one for one in self.slices if one.worse), key=lambda one: (one.share.high, one.by, one.value))


class WordEffect(Part):
    """What one word of a text does to the score."""

    text: int
    """Which text of the row: 0, or 1 for the second of a pair."""
    start: int
    end: int
    """Where the word is, in code points of the text: [start, end)."""
    effect: float
    """On the logit; above 0 it speaks for the label."""


class ExampleRow(Part):
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


class Verdict(Part):
    """What the figures mean, in words: see verdict.py."""

    sentence: str
    """The finding that matters most."""
    notes: tuple[str, ...] = ()
    """At most two others, the more important one first."""


class FaithfulnessScores(Part):
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


class Report(Part):
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
    privacy: PrivacySummary | None = None
    faithfulness: FaithfulnessScores | None = None
    """Of the explanations of a sample of rows."""
    tokens: TokenLengths | None = None
    padding_ratio: float | None = None
    """Tokens computed, padding included, per real token."""
    speed: Speed | None = None
    slices: SliceScores | None = None
    examples: tuple[ExampleRow, ...] = ()
    """The most confident mistakes and the least sure right answers, in this order, the most extreme first."""
    rows: dict[str, Any] = Field({})
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
