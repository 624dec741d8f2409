"""The examples of a report, explained. `pytest tests/unit/test_explained_examples.py`"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import save_tiny_bundle
from textcls.batch import explained_sample
from textcls.batch.explained_sample import SampleFaithfulness
from textcls.data.row_tables import row_id, sample_mask
from textcls.inference.classifier import Classifier
from textcls.inference.explain import explain
from textcls.inference.explained_examples import label_to_explain, with_words
from textcls.reporting.page import report_page
from textcls.reporting.report import ExampleRow, Report
from textcls.settings.report import ReportSpec
from textcls.tasks.multi_label import MULTI_LABEL
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.text_input import TextInput
from textcls.training import explained_report, results
from textcls.training.run_dir import RunDir
from textcls.training.scaling import TrainingWorkers

TEXT = "The film was AWFUL, a café boring!"
LABELS = ("bad", "good", "so so")


def example(*texts: str, **changed: Any) -> ExampleRow:
    found: dict[str, Any] = {"kind": "confident_mistake", "file": "a.csv", "line": 2, "score": 0.9}
    return ExampleRow(**(found | {"labels": ("bad",), "predicted": ("good",), "texts": texts} | changed))


@pytest.fixture(scope="module")
def classifier(tiny_bundle: Path) -> Classifier:
    return Classifier.load(str(tiny_bundle), threads=1)


def effects_of(classifier: Classifier, one: str | TextInput, label: str) -> list[tuple[int, int, int, float]]:
    ((found,),) = explain(classifier, [one], labels=[label])
    return [(word.text, word.start, word.end, word.effect) for word in found.words]


def told(found: ExampleRow) -> list[tuple[int, int, int, float]]:
    return [(word.text, word.start, word.end, word.effect) for word in found.words or ()]


def test_the_words_are_those_of_the_explanation_of_the_answer(classifier: Classifier) -> None:
    (found,) = with_words(classifier, [example(TEXT)], [TextInput(TEXT)])
    assert found.explained == "good"
    assert told(found) == effects_of(classifier, TEXT, "good")
    assert [TEXT[start:end] for _, start, end, _ in told(found)][:4] == ["The", "film", "was", "AWFUL"]
    assert found.model_dump(exclude={"words", "explained"}) == example(TEXT).model_dump(exclude={"words", "explained"})


def test_of_a_text_that_is_cut_for_display_the_words_in_sight_have_the_effects_of_the_whole(
    classifier: Classifier,
) -> None:
    whole = "film great acting really awful plot"
    (found,) = with_words(classifier, [example(whole[:20] + "…")], [TextInput(whole)])
    assert [whole[start:end] for _, start, end, _ in told(found)] == ["film", "great", "acting"]
    assert told(found) == effects_of(classifier, whole, "good")[:3]
    (exact,) = with_words(classifier, [example(whole)], [TextInput(whole)])
    assert len(told(exact)) == 6, "a text that is shown whole has all its words"


def test_words_that_the_model_did_not_read_have_no_effect(classifier: Classifier) -> None:
    long = "film great " * 40
    (found,) = with_words(classifier, [example(long)], [TextInput(long)])
    assert told(found)
    assert len(told(found)) <= 30 < len(long.split()), "the bundle reads 32 tokens"


def test_a_pair_has_the_words_of_both_texts(pair_bundle: Path) -> None:
    of_pairs = Classifier.load(str(pair_bundle), threads=1)
    pair = TextInput("great film", "the plot was bad")
    (found,) = with_words(of_pairs, [example(*pair.segments)], [pair])
    assert [pair.segments[text][start:end] for text, start, end, _ in told(found)] == [
        *("great", "film"),
        *("the", "plot", "was", "bad"),
    ]
    assert told(found) == effects_of(of_pairs, pair, "good")


def test_an_example_that_cannot_be_scored_stays_as_it_is_and_so_do_its_neighbours(classifier: Classifier) -> None:
    found = with_words(classifier, [example(""), example(TEXT)], [TextInput(""), TextInput(TEXT)])
    assert found[0] == example("")
    assert told(found[1]) == effects_of(classifier, TEXT, "good")


@pytest.mark.parametrize(
    ("kind", "labels", "predicted", "expected"),
    [
        ("confident_mistake", ("d",), ("b",), "b"),
        ("confident_mistake", ("b",), ("b", "c", "d"), "c"),
        ("confident_mistake", ("a", "b", "d"), ("a",), "b"),
        ("confident_mistake", ("c",), (), "c"),
        ("confident_mistake", (), ("d",), "d"),
        ("unsure_right", ("b",), ("b",), "b"),
        ("unsure_right", ("b", "c"), ("b", "c"), "c"),
        ("unsure_right", (), (), "a"),
    ],
)
def test_of_several_labels_the_most_probable_one_that_is_wrong_is_explained(
    kind: Any, labels: tuple[str, ...], predicted: tuple[str, ...], expected: str
) -> None:
    one = example("x", kind=kind, labels=labels, predicted=predicted)
    assert label_to_explain(one, ["a", "b", "c", "d"]) == expected


def test_the_label_that_is_explained_stands_in_the_report_and_on_its_page(tiny_model_dir: Path, tmp_path: Path) -> None:
    several = Classifier.load(str(save_tiny_bundle(tiny_model_dir, tmp_path / "several", task=MULTI_LABEL)), threads=1)
    by_score = [name for name, _ in several.scores([TEXT]).ranked(0)]
    one = example(TEXT, labels=(by_score[0],), predicted=tuple(by_score))
    (found,) = with_words(several, [one], [TextInput(TEXT)])
    assert found.explained == by_score[1]
    assert told(found) == effects_of(several, TEXT, by_score[1])
    assert f"The marks are about the label <bdi>{by_score[1]}</bdi>." in report_page(report(found))
    assert "The marks are about" not in report_page(report(one))


def report(*examples: ExampleRow) -> Report:
    accuracy = {"value": 0.9, "low": 0.8, "high": 0.95}
    scores = SINGLE_LABEL.summarise(
        SINGLE_LABEL.counts(np.eye(3), np.arange(3), SINGLE_LABEL.default_thresholds(3)), LABELS
    )
    return Report.model_validate({"test": scores | {"accuracy": accuracy}, "examples": examples})


# --- faithfulness of a sample, as a side product ---------------------------------------------------------------------


def rows(lines: range) -> pa.Table:
    return pa.table({"row_id": [row_id(0, line) for line in lines], "text": [f"film {line}" for line in lines]})


def test_a_sample_does_not_depend_on_the_blocks() -> None:
    whole = sample_mask(rows(range(2, 1002)), 0.2)
    parts = [sample_mask(rows(range(start, start + 250)), 0.2) for start in (2, 252, 502, 752)]
    assert whole.tolist() == np.concatenate(parts).tolist()
    assert 150 < whole.sum() < 250
    assert sample_mask(rows(range(2, 1002)), 1.0).all()


def test_an_error_in_measuring_faithfulness_costs_that_alone(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = SampleFaithfulness.of(classifier, rows(range(2, 12)), 1.0)
    assert right.found().explanations == 10
    assert SampleFaithfulness.of(classifier, rows(range(2, 12)), 0.0) == SampleFaithfulness()

    def fails(*_: Any) -> None:
        raise MemoryError("no room\nat all")

    monkeypatch.setattr(explained_sample, "faithfulness", fails)
    wrong = SampleFaithfulness.of(classifier, rows(range(2, 12)), 1.0)
    for total in (right + wrong, wrong + right):
        with pytest.raises(RuntimeError, match=r"^MemoryError: no room$"):
            total.found()


# --- training: explained once the bundle is written ------------------------------------------------------------------


def test_the_explaining_process_gives_words_and_faithfulness_of_the_bundle(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explained_report.ray, "get", lambda reference: reference)
    explains: Callable[..., Any] = explained_report._explain._function
    test = rows(range(2, 12))
    found, tested = explains(
        str(tiny_bundle),
        SINGLE_LABEL,
        TrainingWorkers(1, use_gpu=False, cpus=1),
        (example(TEXT),),
        [TextInput(TEXT)],
        [(test.slice(0, 4), test.slice(0, 4).select(["text"])), (test.slice(4), test.slice(4).select(["text"]))],
        1.0,
    )
    assert told(found[0])
    assert found[0].explained == "good"
    assert tested.explanations == 10


OUTCOME: Any = SimpleNamespace(studied=None, state=SimpleNamespace(seconds=1.0))
RECIPE: Any = SimpleNamespace(report=ReportSpec(explain_rows=5))
DATA: Any = SimpleNamespace(blocks={"test": []}, inputs={"test": []})
WORKERS = TrainingWorkers(1, use_gpu=False, cpus=1)


def test_the_report_is_written_again_with_its_explanations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, plain, said = RunDir(str(tmp_path), resumed=False), report(example(TEXT)), list[str]()
    results._write(plain, run, said.append)
    before = (tmp_path / "report.html").read_text()
    words = [{"text": 0, "start": 4, "end": 8, "effect": 1.5}]
    monkeypatch.setattr(
        results,
        "explained",
        lambda *_: report(ExampleRow(**vars(example(TEXT)) | {"words": words, "explained": "good"})),
    )
    found = results._explained(plain, RECIPE, DATA, OUTCOME, run, WORKERS, said.append)
    assert Report.model_validate_json((tmp_path / "report.json").read_text()) == found
    assert found.examples[0].explained == "good"
    assert "The marks are about" not in before
    assert "The marks are about" in (tmp_path / "report.html").read_text()
    assert said == ["explaining rows of the report"]


def test_explanations_that_fail_cost_one_line_and_the_report_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plain, said = RunDir(str(tmp_path), resumed=False), report(example(TEXT)), list[str]()
    results._write(plain, run, said.append)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fails(*_: Any) -> None:
        raise TimeoutError("it took more than 600 s")

    monkeypatch.setattr(results, "explained", fails)
    assert results._explained(plain, RECIPE, DATA, OUTCOME, run, WORKERS, said.append) == plain
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert said[1:] == [
        "  explaining rows of the report failed; the job continues without it: TimeoutError: it took more than 600 s"
    ]


def test_a_report_without_texts_is_not_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "explained", None)
    recipe: Any = SimpleNamespace(report=ReportSpec())
    said: list[str] = []
    found = results._explained(
        report(example()), recipe, DATA, OUTCOME, RunDir(str(tmp_path), resumed=False), WORKERS, said.append
    )
    assert (found, said, list(tmp_path.iterdir())) == (report(example()), [], [])
