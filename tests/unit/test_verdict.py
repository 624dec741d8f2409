"""The verdict on a report: what a careful colleague would say, the most important finding first."""

import numpy as np
import pytest

from textcls.reporting.report import Report
from textcls.reporting.task_scores import TaskScores
from textcls.reporting.verdict import verdict_of
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.metrics import Counts, summarise

LABELS = ["bad", "fair", "good"]


def scores(right: int, rows: int, labels: list[str] = LABELS, predicted: list[int] | None = None) -> dict:
    """The scores of a classifier that is right for so many rows, whose labels take turns."""
    truth = np.arange(rows) % len(labels)
    answer = np.where(np.arange(rows) < right, truth, (truth + 1) % len(labels))
    answer = answer if predicted is None else np.array(predicted)
    return summarise(Counts.of(np.eye(len(labels))[answer], truth), labels)


def epochs(*scores: float, metric: str = "macro_f1") -> dict:
    """The history of a run that kept its best epoch."""
    best = (np.argmin if metric == "loss" else np.argmax)(scores)
    history = [{"epoch": i, "step": 10 * i, metric: score} for i, score in enumerate(scores, 1)]
    return {"history": history, "best": {"step": 10 * (int(best) + 1), "select_by": metric}, "stopped_early": False}


def told(**report) -> str:
    verdict = verdict_of(Report.model_validate(report))
    return "" if verdict is None else "\n".join([verdict.sentence, *verdict.notes])


def sentence(**report) -> str:
    return told(**report).partition("\n")[0]


# --- beside the baseline ---------------------------------------------------------------------------------------------


def test_a_classifier_above_the_baseline_beyond_chance_is_better_and_one_below_is_worse():
    good, poor = scores(1880, 2000), scores(1600, 2000)

    found = sentence(test=good, baseline=poor)
    assert found == "Clearly better than the TF-IDF baseline: accuracy 0.940 (0.929 to 0.950), against 0.800."
    assert sentence(test=poor, baseline=good).startswith("Clearly worse than the TF-IDF baseline: accuracy 0.800")


def test_a_difference_within_chance_is_called_so():
    found = sentence(test=scores(1810, 2000), baseline=scores(1800, 2000))
    assert found.startswith("Not distinguishable from the TF-IDF baseline: accuracy 0.905 (0.891 to 0.917)")


def test_where_the_rows_are_too_few_that_is_the_reason():
    found = told(test=scores(54, 60), baseline=scores(50, 60))
    assert found.startswith("Too few rows (60) to tell whether it is better than the TF-IDF baseline: accuracy 0.900")
    assert found.count("few") == 1


def test_few_rows_are_a_note_where_the_difference_is_clear_all_the_same():
    found = told(test=scores(50, 60), baseline=scores(10, 60)).splitlines()
    assert found[0].startswith("Clearly better")
    assert found[1] == "60 rows are too few to tell more: the accuracy lies between 0.72 and 0.91."


def test_rare_labels_count_where_the_accuracy_cannot_tell():
    rows = 3000
    truth = np.where(np.arange(rows) % 30 == 0, 1, 0)
    always = summarise(Counts.of(np.eye(2)[np.zeros(rows, int)], truth), LABELS[:2])
    half = np.where(np.arange(rows) % 60 <= 1, 1, 0)
    fair = summarise(Counts.of(np.eye(2)[half], truth), LABELS[:2])

    found = sentence(test=fair, baseline=always)
    assert found.startswith("Clearly better than the TF-IDF baseline: macro F1 0.741")


def test_scores_that_contradict_each_other_are_both_told():
    rows = 3000
    truth = np.where(np.arange(rows) % 10 == 0, 1, 0)
    keen = np.where((np.arange(rows) % 10 == 0) | (np.arange(rows) % 5 == 1), 1, 0)
    common = summarise(Counts.of(np.eye(2)[np.zeros(rows, int)], truth), LABELS[:2])
    eager = summarise(Counts.of(np.eye(2)[keen], truth), LABELS[:2])

    found = sentence(test=eager, baseline=common)
    assert found.startswith("Partly better, partly worse than the TF-IDF baseline: worse by accuracy 0.800")
    assert "; better by macro F1" in found


def test_without_a_baseline_nothing_is_said_of_it():
    assert told(test=scores(1880, 2000)) == ""
    assert told(test=scores(1880, 2000), baseline={"error": "no words"}) == ""


def test_an_evaluation_is_compared_with_the_bundle_s_own_test_split():
    def compared(right: int, rows: int) -> str:
        report = Report.model_validate({"test": scores(right, rows), "bundle": {"uri": "b", "digest": "d"}})
        found = verdict_of(report, own_test=TaskScores.model_validate(scores(1880, 2000)))
        return found.sentence if found else ""

    own = "on the test split of the bundle's own training"
    assert compared(700, 1000).startswith(f"Clearly worse than {own}: accuracy 0.700")
    assert compared(945, 1000).startswith(f"As good as {own}: accuracy 0.945")
    assert compared(37, 40).startswith(f"Too few rows (40) to tell whether it is as good as {own}")


# --- the answers -----------------------------------------------------------------------------------------------------


def test_one_answer_for_every_row_comes_before_everything_else():
    found = told(test=scores(0, 900, predicted=[2] * 900), baseline=scores(800, 900)).splitlines()
    assert found[0] == "The model predicts one label only: 'good' for each of 900 rows."
    assert found[1].startswith("Clearly worse")
    assert "never predicted" not in "".join(found)


def test_one_answer_is_no_finding_where_the_rows_have_one_label():
    one = summarise(Counts.of(np.eye(3)[[1] * 50], np.full(50, 1)), LABELS)
    assert "one label only" not in told(test=one)


def test_labels_that_are_never_predicted_are_named():
    rows = 2000
    truth = np.where(np.arange(rows) % 100 == 0, 2, np.arange(rows) % 2)
    answer = np.where(truth == 2, 1, truth)
    test = summarise(Counts.of(np.eye(3)[answer], truth), LABELS)

    found = told(test=test, baseline=scores(1000, 2000)).splitlines()
    assert found[0] == "1 label is never predicted correctly: 'good', with 20 rows in all."
    assert found[1].startswith("Clearly better")


def test_of_many_such_labels_three_are_named_on_one_printable_line():
    labels = ["a\nb", "x" * 90, *(f"label {i}" for i in range(8))]
    test = scores(0, 1000, labels)
    test["per_class"]["label 7"] |= {"recall": 0.5, "precision": 0.5}

    found = sentence(test=test)
    assert found.startswith(r"9 labels are never predicted correctly: 'a\nb', 'xxxx")
    assert found.endswith("and 6 more, with 900 rows in all.")
    assert len(found) < 160


# --- texts and training ----------------------------------------------------------------------------------------------


def tokens(unknown: float) -> dict:
    return {"percentiles": {"100": 90}, "truncated_fraction": 0.0, "unknown_fraction": unknown}


def test_many_unknown_tokens_are_told_with_what_helps():
    found = sentence(test=scores(1880, 2000), tokens=tokens(0.12))
    assert found.startswith("12% of the tokens are [UNK], unknown to the model's vocabulary: choose a model.pretrained")
    assert told(test=scores(1880, 2000), tokens=tokens(0.01)) == ""


def test_validation_that_still_improves_comes_with_a_setting_that_a_new_run_takes():
    found = told(test=scores(1880, 2000), **epochs(0.80, 0.85, 0.88))
    assert "still improving in the last epoch (macro F1 0.850 -> 0.880)" in found
    assert "--set train.epochs=5" in found
    advised = found.partition("--set ")[2].split()[0]
    assert parse_recipe("", [advised], source="recipe").train.epochs == 5


@pytest.mark.parametrize(
    "report",
    [
        epochs(0.80, 0.88, 0.85),
        epochs(0.80, 0.88, 0.881),
        epochs(0.88),
        epochs(0.5, 0.4, 0.45, metric="loss"),
        epochs(0.80, 0.88) | {"stopped_early": True},
    ],
    ids=["it fell", "it hardly rose", "one epoch", "a loss that rose", "patience ran out"],
)
def test_validation_that_does_not_improve_is_no_finding(report):
    assert told(test=scores(1880, 2000), **report) == ""


def test_a_loss_improves_by_falling():
    assert "(loss 0.400 -> 0.350)" in told(test=scores(1880, 2000), **epochs(0.5, 0.4, 0.35, metric="loss"))


# --- tasks -----------------------------------------------------------------------------------------------------------


def several(hits: int, support: int = 100, added: int = 10, rows: int = 1000, **more) -> dict:
    """The scores of a task with several labels a row, each label with the same counts."""
    f1 = 2 * hits / (support + hits + added)
    one = {"precision": hits / (hits + added), "recall": hits / support, "f1": f1, "support": support}
    return {"rows": rows, "macro_f1": f1, "macro_labels": 4, "per_class": dict.fromkeys("abcd", one), **more}


def test_several_labels_a_row_are_judged_by_macro_f1():
    found = sentence(test=several(80), baseline=several(50))
    assert found == "Clearly better than the TF-IDF baseline: macro F1 0.842 (0.810 to 0.866), against 0.625."
    assert sentence(test=several(51), baseline=several(50)).startswith("Not distinguishable")


def test_no_label_for_any_row_is_one_answer():
    test = several(0, no_label={"true": 100, "predicted": 1000})
    assert sentence(test=test) == "No label is predicted for any of the 1,000 rows."


def test_a_task_of_unknown_scores_has_no_verdict_and_is_no_error():
    assert verdict_of(Report.model_validate({"test": {"rows": 40, "mean_distance": 0.25}})) is None
    assert verdict_of(Report.model_validate({"test": summarise(Counts.zero(2), LABELS[:2])})) is None


def test_there_are_at_most_two_notes_and_equal_reports_have_equal_verdicts():
    report = Report.model_validate(
        {
            "test": scores(0, 60, predicted=[2] * 60),
            "baseline": scores(50, 60),
            "tokens": tokens(0.4),
            **epochs(0.1, 0.2),
        }
    )
    found = verdict_of(report)
    assert found is not None
    assert len(found.notes) == 2
    assert verdict_of(Report.model_validate(report.content())) == found


# --- slices ----------------------------------------------------------------------------------------------------------


def one_slice(by: str, value: str, share: float, *, worse: bool = True) -> dict:
    proportion = {"value": share, "low": share - 0.1, "high": share + 0.1}
    return {"by": by, "value": value, "rows": 120, "share": proportion, "worse": worse, "p_value": 0.001}


def sliced(*slices: dict) -> dict:
    overall = {"value": 0.9, "low": 0.88, "high": 0.92}
    return {"slices": {"metric": "accuracy", "overall": overall, "slices": slices}}


def test_the_worst_slice_is_named_and_the_others_counted():
    test, found = scores(1800, 2000), "are answered worse than the others: accuracy 0.500 in 120 rows, 0.900 over all"
    fax = one_slice("column channel", "fax", 0.5)
    assert told(test=test, **sliced(fax)) == f"Rows with channel fax {found}."
    long, fine = one_slice("length", "257 to 512", 0.7), one_slice("file", "a.csv", 0.4, worse=False)
    assert told(test=test, **sliced(long, fine, fax)) == f"Rows with channel fax {found}; so is 1 more slice."
    assert told(test=test, **sliced(fine)) == ""
    assert told(test=test, **sliced(long)).startswith("Texts of 257 to 512 tokens are")
    assert told(test=test, **sliced(one_slice("truncated", "yes", 0.7))).startswith("Truncated texts are")


def test_a_slice_cannot_break_the_line_of_a_verdict():
    found = told(test=scores(1800, 2000), **sliced(one_slice("column channel", "x\n" * 500, 0.5)))
    assert "\n" not in found
    assert len(found) < 250
