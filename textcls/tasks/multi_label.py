"""The task in which each row has any number of labels, none included.

In: label cells, logits. Out: what the protocol in task.py asks for. A label is a set of names, spelled as a sorted JSON
list; a target is a 0 or 1 for each name (float32 [C]); probabilities are the sigmoid of the logits. A row is given
every label whose probability reaches the label's threshold. Not here: the numbers of a summary
(multi_label_metrics.py), the choice of thresholds (thresholds.py), shares of the splits (shares.py).

A row that is given no label is either answered with "no label" or abstained from: that is decided by its most probable
label. Thresholds are float64 [C + 1]: one for each label, and the probability below which the most probable label is
taken to be absent (1: nothing is abstained from). Decisions are bool [N, C + 1]: labels given, and abstained.
"""

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from textcls.settings.data import DataSpec
from textcls.settings.recipe import CalibrationSpec, SplitSpec
from textcls.tasks import multi_label_metrics
from textcls.tasks.calibration import best_temperature
from textcls.tasks.label_cells import names_reader
from textcls.tasks.labels import ABSTAIN, ABSTAIN_MEANS
from textcls.tasks.multi_label_metrics import MultiLabelCounts
from textcls.tasks.shares import stratified_shares
from textcls.tasks.task import HeadlineMetric, LabelReader, ReadLabel, ranked
from textcls.tasks.thresholds import FEW_ROWS, best_f1, for_precision, hits_and_given, surely_none_below

NO_LABEL = "no label"
"""The answer in words for a row that has none of the labels."""

_HALF = 0.5


@dataclass(frozen=True)
class MultiLabel:
    """Any number of labels a row; see `Task` for what each method promises."""

    name: str = "multi_label"
    problem_type: str = "multi_label_classification"
    function_to_apply: str = "sigmoid"
    scores_in_answer: bool = True
    share_of_right: str = "subset_accuracy"

    @property
    def headline_metrics(self) -> Mapping[str, HeadlineMetric]:
        """Macro F1 comes first: it is the default of `train.select_by`."""
        return {
            "macro_f1": HeadlineMetric("macro F1", +1),
            "micro_f1": HeadlineMetric("micro F1", +1),
            "map": HeadlineMetric("mean average precision", +1),
            "subset_accuracy": HeadlineMetric("subset accuracy", +1),
            "loss": HeadlineMetric("loss", -1),
        }

    @property
    def answer_columns(self) -> Sequence[tuple[str, type]]:
        """The labels given, as a JSON list, and whether the row is abstained from."""
        return (("labels", str), ("abstained", bool))

    # --- rows --------------------------------------------------------------------------------------------------------

    def reserved_names(self, abstains: bool) -> Mapping[str, str]:
        """`no label`, and in a classifier that abstains also `abstain`."""
        return {NO_LABEL: "is the prediction for texts that have none of the labels"} | (
            {ABSTAIN: ABSTAIN_MEANS} if abstains else {}
        )

    def label_reader(self, data: DataSpec) -> LabelReader:
        """A label is the set of names that the cells have, after `data.label_map`."""
        read_names = names_reader(data)

        def read(cells: tuple[str, ...], /) -> ReadLabel:
            names, found = read_names(cells)
            if found.reason == "missing_label" and data.labels_in == "one":
                names, found = (), ReadLabel("")  # an empty cell is the empty set
            return found if found.reason else found._replace(label=self.label_of(names))

        return read

    def names_in(self, label: str) -> Sequence[str]:
        """The names of the set, sorted."""
        return _names_of(label)

    def label_of(self, names: Sequence[str]) -> str:
        """The names as a sorted JSON list, each once."""
        return json.dumps(sorted(set(names)), ensure_ascii=False, separators=(",", ":"))

    def encode(self, labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """float32 [U, C]: 1 where a set has the name."""
        id_of = {name: i for i, name in enumerate(names)}
        targets = np.zeros((len(labels), len(names)), np.float32)
        for row, label in enumerate(labels):
            targets[row, [id_of[name] for name in _names_of(label)]] = 1
        return targets

    def decode(self, targets: np.ndarray, names: Sequence[str]) -> Sequence[str]:
        """Sets of names, each different one spelled once."""
        rows, place = np.unique(targets > _HALF, axis=0, return_inverse=True)
        spelled = [self.label_of([names[i] for i in np.flatnonzero(row).tolist()]) for row in rows]
        return [spelled[i] for i in place.reshape(-1).tolist()]

    def merge(self, labels: Sequence[str]) -> str:
        """The union of the sets."""
        return self.label_of([name for label in labels for name in _names_of(label)])

    def cut_points(self, labels: Sequence[str], rows: np.ndarray, names: Sequence[str], spec: SplitSpec) -> np.ndarray:
        """int64 [U, 2]: see `stratified_shares`."""
        return stratified_shares([_names_of(label) for label in labels], rows, spec, names)

    def label_rows(self, targets: np.ndarray, classes: int) -> np.ndarray:
        """int64 [C]: rows that have each label."""
        rows: np.ndarray = np.asarray(targets > _HALF).sum(axis=0, dtype=np.int64)
        return rows

    def baseline_targets(self, targets: np.ndarray) -> np.ndarray:
        """int64 [N, C]: 0 and 1."""
        return (targets > _HALF).astype(np.int64)

    # --- answers -----------------------------------------------------------------------------------------------------

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float64 [N, C], each between 0 and 1."""
        found: np.ndarray = 1 / (1 + np.exp(-np.clip(np.asarray(logits, np.float64), -700, None)))
        return found

    def default_thresholds(self, classes: int) -> np.ndarray:
        """float64 [C + 1]: one half for each label; nothing is abstained from."""
        return np.append(np.full(classes, _HALF), 1.0)

    def decide(self, probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """bool [N, C + 1]: labels given, and abstained."""
        with np.errstate(invalid="ignore"):
            given = probabilities >= thresholds[:-1]
            surely_none = (probabilities < thresholds[-1]).all(axis=1) | (
                (thresholds[-1] >= 1) & np.isfinite(probabilities).all(axis=1)
            )
        abstained = ~given.any(axis=1) & ~surely_none
        return np.column_stack([given, abstained])

    def thresholds_as_json(self, thresholds: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        """{thresholds: label name -> probability from which on it is given, no_label_below}."""
        by_name = dict(zip(names, thresholds[:-1].tolist(), strict=True))
        return {"thresholds": by_name, "no_label_below": float(thresholds[-1])}

    def abstained(self, decisions: np.ndarray) -> np.ndarray:
        """bool [N]."""
        found: np.ndarray = decisions[:, -1]
        return found

    def words(self, decision: Any, names: Sequence[str]) -> str:
        """Label names divided by commas, `no label` or `abstain`; a name that holds a comma or a quote is quoted."""
        if decision[-1]:
            return ABSTAIN
        given = (names[i] for i in np.flatnonzero(decision[:-1]).tolist())
        return (
            ", ".join(json.dumps(name, ensure_ascii=False) if '"' in name or "," in name else name for name in given)
            or NO_LABEL
        )

    def confidence(self, probabilities: np.ndarray) -> np.ndarray:
        """float [N]: how sure the least sure yes or no of a row is; at least one half."""
        found: np.ndarray = np.maximum(probabilities, 1 - probabilities).min(axis=1)
        return found

    def margins(self, probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """float [N]: the distance of a probability to the threshold of its label, for the label where it is least."""
        found: np.ndarray = np.abs(probabilities - thresholds[:-1]).min(axis=1)
        return found

    def answer(
        self, probabilities: np.ndarray, decision: Any, names: Sequence[str], limit: int | None
    ) -> dict[str, Any]:
        """{labels, abstained, scores}: the labels given, the most probable first."""
        by_score = ranked(probabilities, names, None)
        given = {names[i] for i in np.flatnonzero(decision[:-1]).tolist()}
        return {
            "labels": [label for label, _ in by_score if label in given],
            "abstained": bool(decision[-1]),
            "scores": [{"label": label, "score": score} for label, score in by_score[:limit]],
        }

    def answer_cells(
        self, probabilities: np.ndarray, decisions: np.ndarray, names: Sequence[str]
    ) -> Sequence[np.ndarray]:
        """JSON lists of label names in the order of their ids, and whether the row is abstained from."""
        cells = np.empty(len(decisions), object)
        spelled = {}
        packed = [row.tobytes() for row in decisions[:, :-1]]
        for row, key in enumerate(packed):
            if key not in spelled:
                given = [names[i] for i in np.flatnonzero(decisions[row, :-1]).tolist()]
                spelled[key] = json.dumps(given, ensure_ascii=False)
            cells[row] = spelled[key]
        return cells, self.abstained(decisions)

    def names_had(self, targets: np.ndarray, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The names of each set."""
        return _names_at(targets > _HALF, names)

    def names_given(
        self, probabilities: np.ndarray, thresholds: np.ndarray, names: Sequence[str]
    ) -> list[tuple[str, ...]]:
        """The names whose probability reaches their threshold."""
        return _names_at(self.decide(probabilities, thresholds)[:, :-1], names)

    def answer_rows(self, decisions: np.ndarray, names: Sequence[str]) -> Mapping[str, int]:
        """Label name -> rows that are given it; and the rows without a label, and those that are abstained from."""
        rows = Counter(dict(zip(names, decisions[:, :-1].sum(axis=0).tolist(), strict=True)))
        abstained = int(decisions[:, -1].sum())
        rows[NO_LABEL] += int((~decisions.any(axis=1)).sum())
        rows[ABSTAIN] += abstained
        return {name: number for name, number in rows.items() if number}

    # --- measures ----------------------------------------------------------------------------------------------------

    def counts(
        self, probabilities: np.ndarray, targets: np.ndarray, thresholds: np.ndarray | None = None
    ) -> MultiLabelCounts:
        """See `MultiLabelCounts.of`."""
        if thresholds is None:
            thresholds = self.default_thresholds(probabilities.shape[1])
        decisions = self.decide(probabilities, thresholds)
        return MultiLabelCounts.of(probabilities, targets, decisions[:, :-1], decisions[:, -1], thresholds[:-1])

    def right(self, probabilities: np.ndarray, targets: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """bool [N]: rows that are given exactly the labels that they have."""
        given = self.decide(probabilities, thresholds)[:, :-1]
        found: np.ndarray = (given == (targets > _HALF)).all(axis=1)
        return found

    def at_best_thresholds(self, counts: MultiLabelCounts) -> MultiLabelCounts:
        """Labels given by the thresholds with the best F1 on the counted rows; exact rows stay those of one half."""
        chosen = best_f1(counts.binned)
        hits, given = hits_and_given(counts.binned, chosen)
        return replace(counts, hits=hits, given=given, thresholds=chosen)

    def summarise(self, counts: Any, names: Sequence[str]) -> dict[str, Any]:
        """See `multi_label_metrics.summarise`."""
        return multi_label_metrics.summarise(counts, names)

    def headline(self, summary: Mapping[str, Any]) -> dict[str, float]:
        """Macro and micro F1, mean average precision, subset accuracy, log loss in nats, calibration error."""
        return {
            "macro_f1": summary["macro_f1"] or 0.0,
            "micro_f1": summary["micro_f1"],
            "map": summary["map"] or 0.0,
            "subset_accuracy": summary["subset_accuracy"]["value"],
            "loss": summary["log_loss"],
            "ece": summary["ece"],
        }

    def log_losses(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """float64 [C]: the binary log loss of each label, summed over N rows."""
        return multi_label_metrics.log_losses(probabilities, targets > _HALF)

    def row_losses(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """float64 [N]: the binary log losses of all labels, added up: -ln p(set), if the labels were independent."""
        found: np.ndarray = multi_label_metrics.cell_losses(probabilities, targets > _HALF).sum(axis=1)
        return found

    def best_other(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """float32 [N, C]: the labels with a probability of one half or more; where these are the row's own, all but
        the least sure one."""
        best = probabilities >= _HALF
        same = np.flatnonzero((best == (targets > _HALF)).all(axis=1))
        least_sure = np.abs(np.asarray(probabilities)[same] - _HALF).argmin(axis=1)
        best[same, least_sure] = ~best[same, least_sure]
        return best.astype(np.float32)

    def temperatures(self, losses: np.ndarray, label_rows: np.ndarray) -> np.ndarray:
        """float64 [C]: a temperature for each label whose rows determine one, and one for all the others.

        A label with less than 20 rows has none of its own; nor has one whose loss is least at the end of the scale, as
        where its rows are perfectly separated: each lower temperature would seem better still.
        """
        for_all = best_temperature(losses.sum(axis=1))
        own = [best_temperature(of_label) for of_label in losses.T]
        lowest = losses.argmin(axis=0)
        determined = (label_rows >= FEW_ROWS) & (lowest > 0) & (lowest < len(losses) - 1)
        return np.where(determined, own, for_all)

    def threshold_counts(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """int64 [2, C + 1, 1000]: rows, and rows that have a label, by label and score; last, by the highest score of a
        row, rows and rows without a label."""
        has: np.ndarray = np.asarray(targets > _HALF)
        highest = probabilities.max(axis=1, initial=0.0)[:, None]
        by_label = multi_label_metrics.binned(probabilities, has)
        none = np.logical_not(has.any(axis=1)).reshape(-1, 1)
        by_highest = multi_label_metrics.binned(highest, none)
        return np.concatenate([by_label, by_highest], axis=1)

    def choose_thresholds(self, counts: np.ndarray, spec: CalibrationSpec) -> np.ndarray:
        """float64 [C + 1]: see thresholds.py."""
        by_label, by_highest = counts[:, :-1], counts[:, -1]
        if spec.min_precision is None:
            return np.append(best_f1(by_label), 1.0)
        return np.append(
            for_precision(by_label, spec.min_precision),
            surely_none_below(by_highest, spec.min_precision),
        )


def _names_at(given: np.ndarray, names: Sequence[str]) -> list[tuple[str, ...]]:
    """The names where each row of bool [N, C] is true."""
    return [tuple(names[i] for i in np.flatnonzero(row).tolist()) for row in given]


@functools.lru_cache(maxsize=65536)
def _names_of(label: str) -> tuple[str, ...]:
    return tuple(json.loads(label))


MULTI_LABEL = MultiLabel()
