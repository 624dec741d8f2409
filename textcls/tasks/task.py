"""The protocol of a task: everything that depends on how many labels a row has and on what a score means.

In: label cells, targets, logits and probabilities, as text and numpy arrays. Out: targets, probabilities, decisions,
counts and the names of metrics and columns; all that the rest of the code asks of a task and does not know itself.
Not here: the tasks (single_label.py, ...), how a name finds its task (registry.py), the loss in torch, which is chosen
by `problem_type` (training/optimizer.py).

    cells ─▶ label ─▶ target                        logits ─▶ probabilities ─▶ decision ─▶ answer
    label_reader  encode                                       counts ─▶ summary ─▶ headline
                └▶ cut_points: rows of each split              threshold_counts ─▶ thresholds

A label here is what a row's label cells say, as one text: one name, or a set of names in the one spelling that the task
chooses. Its target is what a network learns. Rows are handled many at a time; only `label_reader` sees single cells.

Shapes: N rows, U different labels, C label names. T is what the shape of a target adds: nothing, or one axis [C]. D is
the same for a decision, K for thresholds: their number and meaning are the task's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np

from textcls.settings.data import DataSpec
from textcls.settings.recipe import CalibrationSpec, SplitSpec

FunctionToApply = Literal["softmax", "sigmoid"]
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


class ReadLabel(NamedTuple):
    """What the label cells of a row say.

    Attributes:
        label: in the task's spelling; any text where there is a reason.
        reason: empty, or why the row is a reject: `missing_label`, `unknown_label`, `several_labels` or
            `not_yes_or_no`.
        place: which cell is at fault.
        written: the names as the cells have them, before `data.label_map`.
    """

    label: str
    reason: str = ""
    place: int = 0
    written: tuple[str, ...] = ()


class LabelReader(Protocol):
    """Reads the label cells of a row under one set of rules; pure, so its results may be cached."""

    def __call__(self, cells: tuple[str, ...], /) -> ReadLabel:
        """What the cells of `data.read_label_columns` say, in that order."""


class Task(Protocol):
    """What a classifier predicts. Stateless and small: it is sent to every worker.

    Attributes:
        name: in the manifest of a bundle; never changes.
        problem_type: as in `config.json`; transformers and the training loop choose the network's loss by it.
        function_to_apply: what turns logits into scores, in the words of Hugging Face's text-classification task.
        headline_metrics: name -> metric, of those that may choose the best checkpoint, in the order of display.
        scores_in_answer: whether predictions hold the score of every label even if it is not asked for.
        answer_columns: (name, `str` or a numpy type) of the columns of a prediction that hold the answer.
        share_of_right: the key of a summary that holds the share of rows for which `right` is true.
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
    def scores_in_answer(self) -> bool:
        """Whether every score is part of an answer."""

    @property
    def answer_columns(self) -> Sequence[tuple[str, type]]:
        """Columns of an answer."""

    @property
    def share_of_right(self) -> str:
        """The metric that is a share of rows."""

    # --- rows --------------------------------------------------------------------------------------------------------

    def reserved_names(self, abstains: bool) -> Mapping[str, str]:
        """Names that no label may have -> what they say as an answer, to follow "which"; some only if it abstains."""

    def label_reader(self, data: DataSpec) -> LabelReader:
        """Reads label cells by `data.labels_in`, `data.label_map` and `data.labels`."""

    def names_in(self, label: str) -> Sequence[str]:
        """The label names that a label consists of."""

    def label_of(self, names: Sequence[str]) -> str:
        """The label of a row that has these names, as many as the task takes."""

    def encode(self, labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """[U, *T]: the target of each label; whole numbers for classes, floats for probabilities.

        Args:
            labels: labels of rows, whose names are all in `names`; may be empty.
            names: label names in the order of their ids.
        """

    def decode(self, targets: np.ndarray, names: Sequence[str]) -> Sequence[str]:
        """The label of each target [N, *T]: what `encode` makes targets of."""

    def merge(self, labels: Sequence[str]) -> str:
        """The one label of rows with equal inputs and these labels, where `data.on_conflict` is `union`."""

    def cut_points(self, labels: Sequence[str], rows: np.ndarray, names: Sequence[str], spec: SplitSpec) -> np.ndarray:
        """int64 [U, 2]: of the rows with each label, those before the first number are test, before the second val.

        Args:
            labels: the different labels, in any order that depends on nothing but the labels.
            rows: int64 [U], how many rows have each.
            names: label names in the order of their ids.
            spec: the shares; each label name keeps them as nearly as its rows allow.
        """

    def label_rows(self, targets: np.ndarray, classes: int) -> np.ndarray:
        """int64 [C]: rows that have each label name; a row with several counts for each of them."""

    def baseline_targets(self, targets: np.ndarray) -> np.ndarray:
        """What scikit-learn's classifiers learn: int64 [N] of classes, or [N, C] of 0 and 1."""

    # --- answers -----------------------------------------------------------------------------------------------------

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float64 [N, C] of logits [N, C]."""

    def default_thresholds(self, classes: int) -> np.ndarray:
        """float64 [K]: the thresholds of `decide` before any are chosen; with them nothing is abstained from."""

    def decide(self, probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """[N, *D]: the answer for each row, as the methods below take it. Rows of NaN count as not sure enough.

        Args:
            probabilities: float [N, C].
            thresholds: float64 [K], from `default_thresholds` or `choose_thresholds`.
        """

    def thresholds_as_json(self, thresholds: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        """Thresholds [K] for people and programs: what /info says about them."""

    def abstained(self, decisions: np.ndarray) -> np.ndarray:
        """bool [N]: where the classifier is not sure enough to answer."""

    def words(self, decision: Any, names: Sequence[str]) -> str:
        """One row's answer as a text: label names, or `abstain`."""

    def confidence(self, probabilities: np.ndarray) -> np.ndarray:
        """float [N]: how sure the answers are that `decide` gives for probabilities [N, C]."""

    def margins(self, probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """float [N]: how far probabilities [N, C] are from another decision; the least sure rows have 0.

        Args:
            probabilities: float [N, C].
            thresholds: as of `decide`.
        """

    def answer(
        self, probabilities: np.ndarray, decision: Any, names: Sequence[str], limit: int | None
    ) -> dict[str, Any]:
        """One row's answer as JSON over HTTP: at least `scores`, the `limit` best {label, score}, the best first.

        Args:
            probabilities: float [C].
            decision: the row's, from `decide`.
            names: label names in the order of their ids.
            limit: the number of labels to give; None for all.
        """

    def answer_cells(
        self, probabilities: np.ndarray, decisions: np.ndarray, names: Sequence[str]
    ) -> Sequence[np.ndarray]:
        """The cells of `answer_columns` for N rows: arrays [N] of text or numbers. Rows of NaN may have any."""

    def names_had(self, targets: np.ndarray, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The label names of N targets, in the order of their ids."""

    def names_given(
        self, probabilities: np.ndarray, thresholds: np.ndarray, names: Sequence[str]
    ) -> list[tuple[str, ...]]:
        """The label names of N answers, in the order of their ids; if abstained from, those of the answer withheld."""

    def answer_rows(self, decisions: np.ndarray, names: Sequence[str]) -> Mapping[str, int]:
        """Answer -> rows that have it, of those that occur."""

    # --- measures ----------------------------------------------------------------------------------------------------

    def counts(self, probabilities: np.ndarray, targets: np.ndarray, thresholds: np.ndarray | None = None) -> RowCounts:
        """What N scored rows add up to, with the decisions of these thresholds or the default ones.

        Raises:
            ValueError: probabilities that are none, as of weights that are no longer finite.
        """

    def right(self, probabilities: np.ndarray, targets: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """bool [N]: the rows that are answered rightly; of those abstained from, the answer that is withheld counts."""

    def at_best_thresholds(self, counts: Any) -> Any:
        """The counts as they are with thresholds chosen on the counted rows themselves: to compare checkpoints by."""

    def summarise(self, counts: RowCounts, names: Sequence[str]) -> dict[str, Any]:
        """The numbers that counts stand for, ready for JSON, in the layout that reports show."""

    def headline(self, summary: Mapping[str, Any]) -> dict[str, float]:
        """The few numbers of a summary that a line or a chart shows: all of `headline_metrics`, and `ece`."""

    def log_losses(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """float64 [] or [C]: -ln p(target) summed over N rows, for all of the target or for each label name."""

    def row_losses(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """float64 [N]: -ln p(target) of each row, for all of the target, of probabilities [N, C]."""

    def best_other(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """[N, *T]: the most probable target of each row other than its own."""

    def temperatures(self, losses: np.ndarray, label_rows: np.ndarray) -> float | np.ndarray:
        """What to divide the logits by, one number or float64 [C].

        Args:
            losses: float64 [101] or [101, C], the sum of `log_losses` at each of `calibration.TEMPERATURES`.
            label_rows: int64 [C], rows that have each label name, among those that the losses are of.
        """

    def threshold_counts(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """int64 [...]: what thresholds are chosen by; adds up over rows."""

    def choose_thresholds(self, counts: np.ndarray, spec: CalibrationSpec) -> np.ndarray:
        """float64 [K], from the sum of `threshold_counts`."""


def no_counts(task: Task, names: Sequence[str]) -> RowCounts:
    """The counts of no rows."""
    return task.counts(np.empty((0, len(names))), task.encode((), names))


def selection_score(task: Task, headline: Mapping[str, float], metric: str) -> float:
    """How good a headline is by one of the task's metrics: more is better."""
    return task.headline_metrics[metric].sign * headline[metric]


def ranked(probabilities: np.ndarray, names: Sequence[str], limit: int | None) -> list[tuple[str, float]]:
    """(label name, probability) of one row's probabilities [C], from the most probable label on."""
    order = np.argsort(-probabilities, kind="stable")[:limit].tolist()
    return [(names[i], float(probabilities[i])) for i in order]
