"""The protocol of a task: everything that depends on how many labels a row has and on what a score means.

In: label cells, targets, logits and probabilities, as text and numpy arrays. Out: targets, probabilities, decisions,
counts and the names of metrics and columns; all that the rest of the code asks of a task and does not know itself.
Not here: the tasks (single_label.py, ...), how a name finds its task (registry.py), the loss in torch, which is chosen
by `problem_type` (training/optimizer.py).

    cell ─▶ label ─▶ target ─▶ stratum             logits ─▶ probabilities ─▶ decision ─▶ answer
    read_label       encode      strata                        counts ─▶ summary ─▶ headline

A label here is what a row's label cell says, as one text: one name, or several in a spelling that the task chooses. Its
target is what a network learns, `target_shape` numbers a row. Rows are handled many at a time; only `read_label` sees
single cells.

Shapes: N rows, U different labels, C label names. T is what the shape of a target adds: nothing, or one axis [C].
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np

from textcls.settings.recipe import DataSpec

FunctionToApply = Literal["softmax"]
"""What turns logits into scores in the tasks of this package, in the words of Hugging Face's text-classification."""


class RowCounts(Protocol):
    """What a set of scored rows adds up to; sums over parts equal the counts of the whole, in any process."""

    @property
    def rows(self) -> int:
        """Number of rows counted."""

    def __add__(self, other: Self, /) -> Self: ...


class HeadlineMetric(NamedTuple):
    """A metric that stands for a whole summary.

    Attributes:
        words: its name for people.
        sign: +1 if more of it is better, -1 if less of it is.
    """

    words: str
    sign: int


class LabelReader(Protocol):
    """Reads label cells under one set of rules; pure, so its results may be cached."""

    def __call__(self, cell: str, /) -> tuple[str, str]:
        """(label, reason): reason is empty, or `missing_label` or `unknown_label` for a reject."""


class Task(Protocol):
    """What a classifier predicts. Stateless and small: it is sent to every worker.

    Attributes:
        name: in the manifest of a bundle; never changes.
        problem_type: as in `config.json`; transformers and the training loop choose the network's loss by it.
        function_to_apply: what turns logits into scores, in the words of Hugging Face's text-classification task.
        headline_metrics: name -> metric, of those that may choose the best checkpoint, in the order of display.
        answer_columns: (name, `str` or a numpy type) of the columns of a prediction that hold the answer.
    """

    @property
    def name(self) -> str:
        """The name in a manifest."""

    @property
    def problem_type(self) -> str:
        """As in `config.json`."""

    @property
    def function_to_apply(self) -> str:
        """From logits to scores."""

    @property
    def headline_metrics(self) -> Mapping[str, HeadlineMetric]:
        """Metrics that may choose a checkpoint."""

    @property
    def answer_columns(self) -> Sequence[tuple[str, type]]:
        """Columns of an answer."""

    # --- rows --------------------------------------------------------------------------------------------------------

    def label_reader(self, data: DataSpec) -> LabelReader:
        """Reads label cells by `data.label_map` and `data.labels`."""

    def names_in(self, label: str) -> Sequence[str]:
        """The label names that a label consists of."""

    def encode(self, labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """[U, *T]: the target of each label; whole numbers for classes, floats for probabilities.

        Args:
            labels: labels of rows, whose names are all in `names`; may be empty.
            names: label names in the order of their ids.
        """

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """int32 [N], from 0 to C - 1: rows of one stratum keep the asked shares of each split."""

    def label_rows(self, targets: np.ndarray, classes: int) -> np.ndarray:
        """int64 [C]: rows that have each label name; a row with several counts for each of them."""

    def baseline_classes(self, targets: np.ndarray) -> np.ndarray:
        """int64 [N], from 0 to C - 1: what a classifier that knows one class a row learns, to be compared with."""

    # --- answers -----------------------------------------------------------------------------------------------------

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float64 [N, C] of logits [N, C]."""

    def decide(self, probabilities: np.ndarray, threshold: float) -> np.ndarray:
        """[N, *T]: the answer for each row, as the methods below take it. Rows of NaN count as not sure enough.

        Args:
            probabilities: float [N, C].
            threshold: below this confidence the answer is to abstain.
        """

    def abstained(self, decisions: np.ndarray) -> np.ndarray:
        """bool [N]: where the classifier is not sure enough to answer."""

    def words(self, decision: Any, names: Sequence[str]) -> str:
        """One row's answer as a text: label names, or `abstain`."""

    def confidence(self, probabilities: np.ndarray) -> np.ndarray:
        """float [N]: how sure the answers are that `decide` gives for probabilities [N, C]."""

    def answer(
        self, probabilities: np.ndarray, decision: Any, names: Sequence[str], most: int | None
    ) -> dict[str, Any]:
        """One row's answer as JSON over HTTP: at least `scores`, the `most` best {label, score}, the best first.

        Args:
            probabilities: float [C].
            decision: the row's, from `decide`.
            names: label names in the order of their ids.
            most: labels to give; None for all.
        """

    def answer_cells(
        self, probabilities: np.ndarray, decisions: np.ndarray, names: Sequence[str]
    ) -> Sequence[np.ndarray]:
        """The cells of `answer_columns` for N rows: arrays [N] of text or numbers. Rows of NaN may have any."""

    def answer_rows(self, decisions: np.ndarray, names: Sequence[str]) -> Mapping[str, int]:
        """Answer -> rows that have it, of those that occur."""

    # --- measures ----------------------------------------------------------------------------------------------------

    def counts(self, probabilities: np.ndarray, targets: np.ndarray, threshold: float = 0.0) -> RowCounts:
        """What N scored rows add up to; below the threshold the classifier abstains.

        Raises:
            ValueError: probabilities that are none, as of weights that are no longer finite.
        """

    def summarise(self, counts: RowCounts, names: Sequence[str]) -> dict[str, Any]:
        """The numbers that counts stand for, ready for JSON, in the layout that reports show."""

    def headline(self, summary: Mapping[str, Any]) -> dict[str, float]:
        """The few numbers of a summary that a line or a chart shows: all of `headline_metrics`, and `ece`."""

    def temperature_losses(self, logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """float64 [101]: the loss summed over N rows at each of `calibration.TEMPERATURES`."""

    def confidence_counts(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """int64 [2, 2000]: rows, and rows answered rightly, by confidence; see `calibration.lowest_threshold`."""


def no_counts(task: Task, names: Sequence[str]) -> RowCounts:
    """The counts of no rows."""
    return task.counts(np.empty((0, len(names))), task.encode((), names))


def selection_score(task: Task, headline: Mapping[str, float], metric: str) -> float:
    """How good a headline is by one of the task's metrics: more is better."""
    return task.headline_metrics[metric].sign * headline[metric]


def ranked(probabilities: np.ndarray, names: Sequence[str], most: int | None) -> list[tuple[str, float]]:
    """(label name, probability) of one row's probabilities [C], from the most probable label on."""
    order = np.argsort(-probabilities, kind="stable")[:most].tolist()
    return [(names[i], float(probabilities[i])) for i in order]
