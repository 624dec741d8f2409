"""Rows are ranked by what a model that has not seen them thinks of their labels. Synthetic probabilities, no Ray."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_matrix

from textcls.audit.evidence import Copies, nearly_same, sheet_rows
from textcls.audit.held_out import EmbeddedRows, ScoredRows, judged
from textcls.audit.ranking import agreement, audited, confused_pairs, ranked, suspect
from textcls.audit.regression import regression_probabilities
from textcls.audit.run import _counted, _write_rows
from textcls.commands.audit import weakness
from textcls.data.row_tables import row_id
from textcls.settings.recipe import TextSpec
from textcls.tasks.multi_label import MULTI_LABEL
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.text_input import TextInput
from textcls.training.baseline import word_vectorizer

NAMES = ("bad", "good", "so so")


def rows_of(probabilities, targets, task=SINGLE_LABEL, names=NAMES):
    ids = np.arange(len(probabilities))
    return audited(task, names, ids, np.asarray(probabilities, float), np.asarray(targets), 1)


def test_the_label_of_the_largest_loss_comes_first_with_the_label_to_use_instead() -> None:
    found = ranked(rows_of([[0.7, 0.2, 0.1], [0.9, 0.05, 0.05], [0.3, 0.3, 0.4]], [0, 1, 2]))
    assert found.row_id.tolist() == [1, 2, 0]
    assert found.label.tolist() == ["good", "so so", "bad"]
    assert found.suggested.tolist() == ["bad", "so so", "bad"]
    assert found.p_given == pytest.approx([0.05, 0.4, 0.7])
    assert found.p_suggested == pytest.approx([0.9, 0.4, 0.7])
    assert found.margin == pytest.approx([-0.85, 0.1, 0.5])
    assert found.differs.tolist() == [True, False, False]


def test_models_that_know_nothing_of_the_labels_are_warned_of() -> None:
    targets = np.array([0] * 60 + [1] * 40)
    always_the_first = agreement(rows_of(np.tile([0.6, 0.3, 0.1], (100, 1)), targets))
    assert always_the_first["share"] == always_the_first["most_common_share"] == 0.6
    assert always_the_first["most_common_label"] == "bad"
    (warned,) = weakness(always_the_first, quick=True)
    assert "agree with 60.0% of the labels" in warned
    assert "60.0% of the rows that have 'bad'" in warned
    assert warned.endswith("without --quick")
    assert "train.epochs" in next(weakness(always_the_first, quick=False))
    knowing = agreement(rows_of(np.eye(3)[targets] * 0.8 + 0.05, targets))
    assert knowing["share"] == 1
    assert list(weakness(knowing, quick=True)) == []
    nothing = agreement(rows_of(np.empty((0, 3)), np.empty(0, int)))
    assert not nothing["better_than_most_common"]


def test_each_row_keeps_its_own_value_whatever_the_order() -> None:
    rows = rows_of([[0.7, 0.2, 0.1], [0.9, 0.05, 0.05], [0.3, 0.3, 0.4]], [0, 1, 2])
    assert np.isnan(rows.value).all()
    found = ranked(rows.with_values(np.array([2, 7, 0, 1]), np.array([0.2, 0.7, 0.0, 0.1])))
    assert (found.row_id / 10).tolist() == found.value.tolist() == [0.1, 0.2, 0.0]


def test_equal_losses_are_in_the_order_of_the_files() -> None:
    rows = rows_of([[0.5, 0.25, 0.25]] * 3 + [[1, 0, 0]], [1, 1, 1, 0])
    assert ranked(rows.take(np.array([3, 2, 0, 1]))).row_id.tolist() == [0, 1, 2, 3]


def test_of_several_labels_a_set_is_judged_whole_and_another_set_suggested() -> None:
    targets = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 0]], np.float32)
    found = rows_of([[0.9, 0.1, 0.2], [0.9, 0.8, 0.1], [0.1, 0.45, 0.2]], targets, MULTI_LABEL)
    assert found.loss == pytest.approx(-np.log([0.9 * 0.9 * 0.8, 0.9 * 0.2 * 0.9, 0.9 * 0.55 * 0.8]))
    assert found.label.tolist() == ['["bad"]', '["bad"]', "[]"]
    assert found.suggested.tolist() == ['["bad"]', '["bad","good"]', "[]"]
    # The next best set: without the least sure yes or no.
    assert found.margin[2] == pytest.approx(0.9 * 0.8 * (0.55 - 0.45))
    assert found.margin[1] == pytest.approx(0.9 * 0.9 * (0.2 - 0.8))


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_a_target_decodes_to_the_label_that_it_was_made_of(task) -> None:
    labels = ["good", "bad", "so so", "good"] if task is SINGLE_LABEL else ["[]", '["bad","good"]', '["so so"]', "[]"]
    assert list(task.decode(task.encode(labels, NAMES), NAMES)) == labels
    assert list(task.decode(task.encode([], NAMES), NAMES)) == []


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_the_losses_of_rows_add_up_to_those_of_calibration(task) -> None:
    draw = np.random.default_rng(0)
    p = draw.dirichlet((1, 1, 1), 50)
    targets = draw.integers(0, 3, 50) if task is SINGLE_LABEL else draw.integers(0, 2, (50, 3)).astype(np.float32)
    assert task.row_losses(p, targets).sum() == pytest.approx(task.log_losses(p, targets).sum())


def test_what_is_suspect_allows_for_a_model_that_is_more_sure_of_some_labels() -> None:
    # Rows of "bad" are usually at 0.6, those of "good" at 0.95: 0.65 for bad is much, 0.7 for good is little.
    p = [[0.6, 0.4, 0]] * 5 + [[0.05, 0.95, 0]] * 5 + [[0.65, 0.35, 0], [0.3, 0.7, 0]]
    found = rows_of(p, [0] * 5 + [1] * 5 + [1, 0])
    assert suspect(found).tolist() == [False] * 10 + [True, False]
    assert suspect(found.take(np.arange(0))).tolist() == []


def test_two_labels_that_nobody_can_tell_apart_are_named_and_one_that_is_only_missed_is_not() -> None:
    draw = np.random.default_rng(0)
    targets = np.repeat([0, 1, 2], 100)
    p = np.zeros((300, 3))
    p[np.arange(200), draw.integers(0, 2, 200)] = 1  # bad and good at random
    p[200:, 2] = 1
    p[200:250] = [0, 1, 0]  # half of "so so" is taken for good, and never the other way round
    (pair,) = confused_pairs(rows_of(p, targets), SINGLE_LABEL)
    assert pair["labels"] == ["bad", "good"]
    assert pair["hard_to_tell_apart"]
    assert 0.4 < pair["confused"] < 0.6
    assert pair["first_as_second"] + pair["second_as_first"] == (p[:200].argmax(axis=1) != targets[:200]).sum()


def test_pairs_of_several_labels_are_labels_that_take_each_other_s_place() -> None:
    names, targets = ("a", "b", "c"), np.array([[1, 0, 1], [0, 1, 1]] * 10, np.float32)
    swapped = np.where(np.arange(20)[:, None] < 12, targets[:, [1, 0, 2]], targets)
    (pair,) = confused_pairs(rows_of(np.clip(swapped, 0.1, 0.9), targets, MULTI_LABEL, names), MULTI_LABEL)
    assert pair["labels"] == ["a", "b"]
    assert (pair["first_as_second"], pair["second_as_first"], pair["rows"]) == (6, 6, 20)


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_the_quick_mode_ranks_wrong_labels_first(task) -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 3, 300)
    embeddings = (np.eye(3)[truth] * 4 + draw.normal(size=(300, 3))).astype(np.float32)
    given, wrong = truth.copy(), np.arange(300) % 10 == 0
    given[wrong] = (given[wrong] + 1) % 3
    targets = given.astype(np.int32) if task is SINGLE_LABEL else np.eye(3, dtype=np.float32)[given]
    folds = draw.integers(0, 5, 300)
    p = regression_probabilities(embeddings, None, targets, folds, task, 3)
    found = ranked(audited(task, NAMES, np.arange(300), p, targets, folds))
    assert wrong[found.row_id[:30]].mean() >= 0.85


def test_the_quick_mode_scores_no_row_with_a_model_that_has_seen_it() -> None:
    """Noise of as many dimensions as rows: whoever sees a row knows its label, whoever does not is at chance."""
    draw = np.random.default_rng(0)
    embeddings, targets = draw.normal(size=(200, 200)).astype(np.float32), draw.integers(0, 2, 200).astype(np.int32)
    folds = np.arange(200) % 5
    words = csr_matrix(np.arange(200)[:, None] == np.arange(200), dtype=np.float32)  # each row has a word of its own
    p = regression_probabilities(embeddings, words, targets, folds, SINGLE_LABEL, 2)
    assert (p.argmax(axis=1) == targets).mean() < 0.65


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_with_runs_a_row_has_the_mean_of_what_its_bundle_says_and_what_the_words_of_other_folds_say(task) -> None:
    draw = np.random.default_rng(0)
    given = draw.integers(0, 2, 40)
    targets = given.astype(np.int32) if task is SINGLE_LABEL else np.eye(2, dtype=np.float32)[given]
    inputs = [TextInput(("dull", "great")[one] + " film") for one in draw.permutation(given)]
    near = EmbeddedRows(
        draw.permutation(40), np.arange(40, dtype=np.int16) % 4 + 1, targets, np.zeros((40, 2), np.float32), inputs
    )
    of_bundles = draw.uniform(0.01, 0.99, (40, 2))
    order, unscored = draw.permutation(40), near.row_id[7]
    scored = [
        ScoredRows(near.row_id[part], of_bundles[part])
        for part in np.array_split(order[near.row_id[order] != unscored], 3)
    ]
    found = judged(near, scored, task, NAMES[:2], TextSpec(), say=lambda line: None)

    words = word_vectorizer(TextSpec(), rows=40, classes=2).fit_transform(inputs)
    of_words = regression_probabilities(None, words, targets, near.fold, task, 2)
    used = near.row_id != unscored
    expected = task.row_losses(((of_words + of_bundles) / 2)[used], targets[used])
    assert found.row_id.tolist() == near.row_id[used].tolist()
    np.testing.assert_allclose(found.loss, expected, rtol=1e-12)
    assert found.fold.tolist() == near.fold[used].tolist()


def test_copies_of_a_text_are_told_from_texts_that_are_alike() -> None:
    texts = ["a gripping, beautifully acted film", "a gripping, beautifully acted fim", "a dull film, badly acted"]
    copies = copies_of(texts, [0, 0, 0], inside=())
    assert [copies.of(row) for row in (1, 2, 3)] == [([2], 1), ([1], 1), ([], 0)]
    assert copies.across == {}


def copies_of(texts: list[str], targets: list[int], inside: Sequence[int]) -> Copies:
    """Of rows with the numbers 1, 2, ..., given from the last one on."""
    ids = np.arange(len(texts), 0, -1)
    inputs = [TextInput(text) for text in reversed(texts)]
    near = EmbeddedRows(ids, np.ones(len(ids)), np.zeros(len(ids)), np.ones((len(ids), 1), np.float32), inputs)
    given = np.array(targets)[::-1]
    return nearly_same(near, audited(SINGLE_LABEL, NAMES, ids, np.eye(3)[given], given, 1), TextSpec(), inside)


FILM = "a gripping, beautifully acted film that nobody should miss"


def test_a_copy_in_the_same_split_is_no_leakage() -> None:
    texts = [FILM, f"{FILM}!", "dull", f"{FILM} at all", f"{FILM}!?"]
    assert copies_of(texts, [0] * 5, inside=[1, 2, 3, 4, 5]).across == {}
    assert copies_of(texts, [0] * 5, inside=[2, 4]).across == {2: 5, 4: 1}  # the most similar one outside
    assert copies_of(texts, [0] * 5, inside=[3]).across == {}


def test_copies_are_counted_and_those_with_another_label_apart() -> None:
    texts = [FILM, f"{FILM}!", "a dull film, badly acted", "a dull film, badly actd", "so so"]
    assert _counted(copies_of(texts, [0, 0, 1, 2, 0], inside=())) == {"rows": 4, "with_another_label": 2}


def test_many_copies_of_a_text_take_a_few_bytes_a_row() -> None:
    copies = copies_of([f"{FILM} {n}" for n in range(2_000)], [0] * 1_000 + [1] * 1_000, inside=range(1, 1_001))
    nearest, number = copies.of(1_000)
    assert len(nearest) == 5
    assert number >= 50
    assert sum(getattr(copies, one.name).nbytes for one in fields(copies)) <= 2_000 * 64
    assert _counted(copies)["rows"] == 2_000


def test_every_row_is_written_with_the_row_outside_test_that_a_row_of_test_repeats(tmp_path: Path) -> None:
    rows = audited(SINGLE_LABEL, NAMES, np.array([1, 2, 3]), np.eye(3)[[0, 0, 1]] * 0.9, np.array([0, 0, 1]), 1)
    read = SimpleNamespace(files=["reviews.csv"], location=lambda one: f"reviews.csv:{one}")
    _write_rows(str(tmp_path), rows, read, {2: 9})
    found = pq.read_table(tmp_path / "audit.parquet").to_pydict()
    assert found["line"] == [1, 2, 3]
    assert found["nearly_same_outside_test"] == [None, "reviews.csv:9", None]


def test_words_add_to_what_embeddings_tell() -> None:
    draw = np.random.default_rng(0)
    targets = draw.integers(0, 2, 300).astype(np.int32)
    embeddings, folds = draw.normal(size=(300, 8)).astype(np.float32), draw.integers(0, 5, 300)
    words = csr_matrix(np.eye(2, dtype=np.float32)[targets])
    p = regression_probabilities(embeddings, words, targets, folds, SINGLE_LABEL, 2)
    assert (p.argmax(axis=1) == targets).mean() > 0.95


def test_a_line_of_the_sheet_has_the_row_its_place_and_what_speaks_for_another_label() -> None:
    texts = ["a fine film", "a fine, fine film", "dull", "a fine fllm"]
    ids = np.array([row_id(0, line) for line in (2, 3, 4, 5)])
    rows = audited(SINGLE_LABEL, NAMES, ids, np.eye(3)[[1, 1, 0, 1]] * 0.9 + 0.03, np.array([0, 1, 0, 1]), [1, 2, 1, 2])
    rows = ranked(rows.with_values(ids, np.array([-1.5, 0.5, 0.25, 1])))
    embeddings = np.array([[1, 0], [1, 0.1], [0, 1], [1, 0.2]], np.float32)
    near = EmbeddedRows(ids, np.array([1, 2, 1, 2]), np.zeros(4), embeddings, [TextInput(text) for text in texts])
    read = SimpleNamespace(files=["reviews.csv"], location=lambda one: f"reviews.csv:{one}")
    copies = nearly_same(near, rows, TextSpec(), ())
    (first,) = sheet_rows(rows.take(np.arange(1)), rows, near, copies, [], read, TextSpec())
    assert (first.file, first.line, first.label, first.suggested, first.fold) == ("reviews.csv", 2, "bad", "good", 1)
    assert first.evidence["similar"].split("; ") == [
        "reviews.csv:3 (good): a fine, fine film",
        "reviews.csv:5 (good): a fine fllm",  # the rows of the other fold, the nearest first
    ]
    assert first.evidence["same_text"] == ""
    assert first.input.text == "a fine film"
    assert first.numbers == pytest.approx([0.03, 0.93, -0.9, -np.log(0.03), -1.5])
