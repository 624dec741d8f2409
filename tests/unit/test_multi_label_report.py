"""The report of a task with several labels a row: its figures, its tables and its picture."""

import itertools
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.unit.test_reports import NASTY, cells, draw_report, printed, size_of
from textcls.bundle import stated_metrics
from textcls.reporting.intervals import f1_interval
from textcls.reporting.label_matrix import draw_co_occurrence
from textcls.reporting.label_names import DrawnNames
from textcls.reporting.picture import PNG_SIZE
from textcls.reporting.report import Report
from textcls.reporting.task_scores import CoOccurrence, LabelScores
from textcls.reporting.verdict import verdict_of
from textcls.tasks.multi_label import MultiLabel

THREE, MANY = ["billing", "delivery", "refund"], [f"topic {i}" for i in range(40)]


def summary_of(labels: list[str], seed: int = 0, rows: int = 400) -> dict:
    """What a task with several labels a row reports, counted in the plainest way."""
    draw = np.random.default_rng(seed)
    has = draw.random((rows, len(labels))) < np.linspace(0.5, 0.05, len(labels))
    given = has ^ (draw.random(has.shape) < 0.1)
    hits, support, predicted = (has & given).sum(0), has.sum(0), given.sum(0)
    figures = zip(labels, hits / np.maximum(predicted, 1), hits / np.maximum(support, 1), support, strict=True)
    per_class = {
        name: {"precision": p, "recall": r, "f1": 2 * p * r / (p + r or 1), "support": int(s), "ap": 0.8765}
        | {"threshold": 0.3125}
        for name, p, r, s in figures
    }
    pairs = [
        [i, j, int((has[:, i] & has[:, j]).sum()), int((given[:, i] & given[:, j]).sum())]
        for i, j in itertools.combinations(range(len(labels)), 2)
    ]
    right = float((has == given).all(axis=1).mean())
    return {
        "rows": rows,
        "micro_f1": 2 * float(hits.sum() / (support + predicted).sum()),
        "macro_f1": float(np.mean([one["f1"] for one in per_class.values()])),
        "macro_labels": len(labels),
        "subset_accuracy": {"value": right, "low": right - 0.05, "high": right + 0.05},
        "hamming_loss": float((has != given).mean()),
        "lrap": 0.9123,
        "map": 0.8123,
        "log_loss": 0.21,
        "ece": 0.0312,
        "per_class": per_class,
        "co_occurrence": {"labels": labels, "support": support.tolist(), "pairs": pairs, "other_pairs": 0},
        "reliability": [
            {"low": low, "high": low + 0.5, "rows": rows * len(labels) // 2, "confidence": low + 0.2, "accuracy": 0.5}
            for low in (0.0, 0.5)
        ],
        "no_label": {"true": 12, "predicted": 34},
    }


def report_of(labels: list[str]) -> dict:
    epochs = [{"epoch": n, "step": 10 * n, "loss": 1 / n, "micro_f1": 0.7, "macro_f1": 0.6, "map": 0.5} for n in (1, 2)]
    return {"test": summary_of(labels), "baseline": summary_of(labels, seed=1), "history": epochs}


def test_reading_and_writing_it_changes_nothing():
    report = report_of(THREE)
    assert Report.model_validate(report).content()["test"] == report["test"]


def test_what_the_task_counts_is_what_the_report_reads():
    task, draw = MultiLabel(), np.random.default_rng(0)
    has = (draw.random((500, 3)) < [0.5, 0.3, 0.1]).astype(np.float32)
    scored = 1 / (1 + np.exp(2 - 4 * has - draw.normal(size=has.shape)))

    def summary(probabilities: np.ndarray) -> dict:
        return task.summarise(task.counts(probabilities, has, task.default_thresholds(3)), THREE)

    good, never = summary(scored), summary(scored / 3)
    assert {*summary_of(THREE), "answered"} == set(good)
    report = Report.model_validate({"test": good, "baseline": never})
    assert report.content()["test"] == json.loads(json.dumps(good))
    assert verdict_of(report).sentence.startswith("Clearly better than the TF-IDF baseline: macro F1")
    swapped = verdict_of(Report.model_validate({"test": never, "baseline": good}))
    assert swapped.sentence == "No label is predicted for any of the 500 rows."
    for name, one in report.test.per_class.items():
        given = scored[:, THREE.index(name)] >= 0.5
        true = has[:, THREE.index(name)] == 1
        assert one.hits() == ((given & true).sum(), (~given & true).sum(), (given & ~true).sum())


def test_a_bundle_states_the_scores_and_not_which_labels_come_together():
    scores = summary_of(THREE)
    assert set(scores) - set(stated_metrics(scores)) == {"co_occurrence"}


def test_its_scores_are_in_the_table_under_their_usual_names():
    report = report_of(THREE)
    lines = {cells(line)[0].strip(): cells(line)[1:] for line in printed(report).splitlines() if len(cells(line)) > 1}

    for name, key in [
        ("micro F1", "micro_f1"),
        ("macro F1", "macro_f1"),
        ("mean average precision", "map"),
        ("label ranking average precision", "lrap"),
        ("Hamming loss", "hamming_loss"),
    ]:
        assert [cell.strip() for cell in lines[name]] == [f"{report[side][key]:.4f}" for side in ("test", "baseline")]
    assert lines["subset accuracy"][0].strip() == f"{report['test']['subset_accuracy']['value']:.4f}"
    assert not {"accuracy", "weighted F1", "macro labels"} & set(lines)
    assert "rows without a label: 12; predicted to have none: 34" in printed(report)


def test_a_mean_that_leaves_labels_out_says_over_how_many_it_runs():
    report = report_of(THREE)
    report["test"]["macro_labels"] = 2
    assert "macro F1 of 2 labels" in printed(report)


def test_each_label_has_its_average_precision_and_threshold():
    (line,) = [line for line in printed(report_of(THREE)).splitlines() if "0.3125" in line and "billing" in line]
    assert [cell.strip() for cell in cells(line)][5:7] == ["0.8765", "0.3125"]


def test_hits_follow_from_precision_recall_and_rows():
    one = LabelScores(precision=0.6, recall=0.75, f1=2 / 3, support=12)
    assert one.hits() == (9, 3, 6)
    assert LabelScores(precision=0.0, recall=0.0, f1=0.0, support=12).hits() == (0, 12, 0)


def test_a_label_without_a_hit_is_listed_with_the_rows_that_are_predicted_to_have_it():
    task = MultiLabel()
    # billing is right; delivery is predicted for every row but those that have it; no row has refund.
    has = np.array([[1, 1, 0]] * 2 + [[1, 0, 0]] * 6, np.float32)
    given = np.array([[0.9, 0.1, 0.8]] * 2 + [[0.9, 0.7, 0.2]] * 6)
    report = {"test": task.summarise(task.counts(given, has), THREE)}
    text = printed(report)
    lines = [[cell.strip() for cell in cells(line)] for line in text[text.index("Most often wrong") :].splitlines()]
    assert lines[4:6] == [["delivery", "2", "2", "6"], ["refund", "0", "0", "2"]]
    interval = f1_interval(Report.model_validate(report).test.per_class["delivery"])
    assert interval.high < f1_interval(LabelScores(precision=0, recall=0, f1=0, support=2)).high


def test_the_labels_with_most_wrong_answers_are_listed():
    report = report_of(THREE)
    report["test"]["per_class"]["refund"] = {"precision": 0.6, "recall": 0.75, "f1": 2 / 3, "support": 1200}
    text = printed(report)
    lines = [[cell.strip() for cell in cells(line)] for line in text[text.index("Most often wrong") :].splitlines()]
    assert lines[4] == ["refund", "1,200", "300", "600"]


def test_pairs_that_are_predicted_together_too_often_or_too_seldom_are_listed_by_the_difference():
    pairs = [(0, 1, 50, 48), (0, 2, 3, 30), (1, 2, 20, 1), (2, 3, 4, 4)]
    together = CoOccurrence.model_validate({"labels": list("abcd"), "support": [90, 80, 40, 9], "pairs": pairs})
    assert together.most_misjudged(9) == [("a", "c", 3, 30), ("b", "c", 20, 1), ("a", "b", 50, 48)]


def test_the_matrix_has_true_pairs_below_the_diagonal_and_predicted_ones_above():
    pairs = [(0, 1, 20, 10), (0, 2, 4, 0)]
    together = CoOccurrence.model_validate({"labels": list("abcd"), "support": [100, 40, 8, 0], "pairs": pairs})
    expected = [
        [np.nan, 10 / 40, 0, np.nan],
        [20 / 40, np.nan, 0, np.nan],
        [4 / 8, 0, np.nan, np.nan],
        [np.nan] * 4,
    ]
    np.testing.assert_equal(together.matrix(99), np.array(expected))
    assert together.matrix(2).shape == (2, 2)


@pytest.mark.parametrize(("predicted", "told"), [(8, False), (12, True)])
def test_the_matrix_says_what_a_cell_of_more_than_all_rows_means(predicted, told):
    pairs = [(0, 1, 4, predicted)]
    together = CoOccurrence.model_validate({"labels": ["a", "b"], "support": [100, 8], "pairs": pairs})
    axes = Figure().add_subplot()
    draw_co_occurrence(axes, together, DrawnNames.of(["a", "b"]))
    texts = [text.get_text() for text in axes.texts]
    assert f"{predicted / 8:.1%}" in texts
    assert ("above the diagonal: predicted; over 100 %: too often" in texts) == told


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("labels", [THREE, NASTY, MANY], ids=["3", "nasty", "40"])
def test_the_picture_has_its_size_and_shows_which_labels_come_together(labels):
    report = report_of(labels)
    other = report_of(labels)
    other["test"]["co_occurrence"]["pairs"] = [[0, 1, 1, 30]]

    assert size_of(draw_report(report)) == PNG_SIZE
    assert draw_report(report) != draw_report(other)


def test_the_curves_are_of_the_scores_that_the_history_has():
    report = report_of(THREE)
    without = {**report, "history": [{**epoch, "micro_f1": None} for epoch in report["history"]]}
    assert draw_report(report) != draw_report(without)


def test_temperatures_and_abstaining_of_several_labels_are_in_words():
    calibration = {"temperature": 1.0, "temperatures": [0.8, 1.25, 1.1], "thresholds": [0.3, 0.4, 0.5, 0.1]}
    report = {**report_of(THREE), "calibration": calibration | {"ece_before": 0.09, "ece_after": 0.02}}
    text = " ".join(printed(report).split())
    assert "a temperature for each label, 0.80 to 1.25: ECE on the validation split 0.090 -> 0.020" in text
    assert "abstains" not in text
    report["test"]["answered"] = {"rows": 300, "coverage": 0.75, "accuracy": 0.9511}
    text = " ".join(printed(report).split())
    assert "answers 75.0% of the test rows, 0.9511 of them with exactly their labels" in text


def test_no_test_rows_leave_dashes():
    empty = {"rows": 0, "macro_f1": None, "subset_accuracy": {"value": None, "low": 0.0, "high": 1.0}, "map": None}
    assert "Test split: 0 rows" in printed({"test": empty})
    assert size_of(draw_report({"test": empty})) == PNG_SIZE
