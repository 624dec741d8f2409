"""Slices that are surely worse are found, chance is not; counts do not depend on who counted what."""

import json
from collections import Counter
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, fisher_exact

from textcls.reporting.report import SliceScores
from textcls.slices.findings import MOST_EXAMPLES, RowFindings, RowStudy
from textcls.slices.groups import (
    EMPTY,
    MOST_VALUES,
    OTHERS,
    CellCounts,
    CodedRows,
    ColumnGroup,
    FileGroup,
    RowFacts,
    SlicePlan,
)
from textcls.slices.significance import significant, worse_p_value
from textcls.slices.summary import summarise_slices
from textcls.tasks.metrics import wilson_interval
from textcls.tasks.multi_label import MULTI_LABEL
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.tasks.task import Task

LABELS = ("bad", "good", "so so")
THRESHOLDS = {"single_label": np.zeros(1), "multi_label": np.array([0.3, 0.5, 0.6, 1.0])}


def column(cells: list[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def group_of(cells: list[str | None]) -> ColumnGroup:
    return ColumnGroup.of("source", CellCounts.of(column(cells)))


def facts(rows: int, cells: dict[str, list[str | None]], seed: int = 0) -> RowFacts:
    chance = np.random.default_rng(seed)
    tokens = chance.integers(3, 200, rows).astype(np.int32)
    files = np.sort(chance.integers(0, 2, rows))
    row_id = files << 40 | np.arange(2, rows + 2)
    return RowFacts(row_id, files, tokens, tokens > 128, [column(of_column) for of_column in cells.values()])


def studied(task: Task, rows: int, cells: dict[str, list[str | None]]) -> tuple[RowStudy, CodedRows]:
    of_rows = facts(rows, cells)
    columns = tuple(ColumnGroup.of(name, CellCounts.of(column(of_column))) for name, of_column in cells.items())
    plan = SlicePlan(FileGroup.of(["a.csv", "b.csv"], Counter(of_rows.file.tolist())), columns)
    return RowStudy(task, LABELS, plan), plan.coded(of_rows)


def scored(task: Task, rows: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and targets that they fit in most rows."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(size=(rows, len(LABELS))) * 2
    p = task.probabilities(logits)
    if task is SINGLE_LABEL:
        return p, np.where(chance.random(rows) < 0.8, p.argmax(axis=1), chance.integers(0, 3, rows)).astype(np.int32)
    return p, ((p > 0.5) ^ (chance.random(p.shape) < 0.1)).astype(np.float32)


def found_of(study: RowStudy, findings: RowFindings) -> dict[tuple[str, str], dict]:
    content = summarise_slices(study, findings)
    assert json.loads(json.dumps(content)) == content
    SliceScores.model_validate(content)
    return {(one["by"], one["value"]): one for one in content["slices"]}


# --- statistics ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 300), st.integers(0, 300))
def test_the_p_value_of_a_slice_is_fisher_s(wrong: int, right: int, other_wrong: int, other_right: int) -> None:
    table = [[wrong, right], [other_wrong, other_right]]
    rows = wrong + right
    found = worse_p_value(rows, right, rows + other_wrong + other_right, right + other_right)
    assert found == pytest.approx(fisher_exact(table, alternative="greater").pvalue, rel=1e-7, abs=1e-12)


def test_the_p_value_of_many_rows_is_fisher_s_and_takes_no_time() -> None:
    for wrong in (4_800, 5_000, 5_200, 6_000, 50_000):
        found = worse_p_value(100_000, 100_000 - wrong, 2_000_000, 1_900_000)
        exact = fisher_exact([[wrong, 100_000 - wrong], [100_000 - wrong, 1_800_000 + wrong]], alternative="greater")
        assert found == pytest.approx(exact.pvalue, rel=1e-4, abs=1e-300)
    assert worse_p_value(10**8, 9 * 10**7, 10**9, 9 * 10**8) == pytest.approx(0.5, abs=0.01)
    assert worse_p_value(10**8, 9 * 10**7 + 10**6, 10**9, 9 * 10**8) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_significance_is_benjamini_and_hochberg_s(p_values: list[float]) -> None:
    adjusted = false_discovery_control(p_values, method="bh")
    expected = [bool(one <= 0.05) for one in adjusted]
    close = np.abs(adjusted - 0.05) < 1e-12
    assert [a or b for a, b in zip(significant(p_values), close, strict=True)] == [
        a or b for a, b in zip(expected, close, strict=True)
    ]


def test_significance_by_hand() -> None:
    # The example of Benjamini and Hochberg (1995), section 3.2: four of fifteen at 5 %.
    p_values = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240]
    p_values += [0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert significant(p_values) == [True] * 4 + [False] * 11
    assert significant([]) == []


def test_chance_is_not_found() -> None:
    """20 columns that mean nothing: a false alarm in at most one seed of twenty."""
    alarms = 0
    for seed in range(200):
        chance = np.random.default_rng(seed)
        right = chance.random(600) < 0.9
        p_values = []
        for values in chance.integers(2, 9, 20).tolist():
            codes = chance.integers(0, values, 600)
            for value in range(values):
                if (codes == value).sum() >= 30:
                    inside = right[codes == value]
                    p_values.append(worse_p_value(len(inside), int(inside.sum()), 600, int(right.sum())))
        alarms += any(significant(p_values))
    assert alarms <= 10


def test_a_bad_value_is_found_beside_twenty_columns_that_mean_nothing() -> None:
    chance = np.random.default_rng(0)
    rows = 2_000
    p, targets = scored(SINGLE_LABEL, rows)
    source = chance.choice(["mail", "chat", "phone", "fax"], rows, p=[0.5, 0.3, 0.15, 0.05])
    fax = np.flatnonzero(source == "fax")
    targets[fax[::2]] = (p[fax[::2]].argmax(axis=1) + 1) % 3
    cells = {"source": source.tolist()}
    cells |= {f"null {i}": chance.choice(list("abcdef"), rows).tolist() for i in range(20)}
    study, coded = studied(SINGLE_LABEL, rows, cells)
    found = found_of(study, study(coded, p, targets, THRESHOLDS["single_label"]))
    assert [key for key, one in found.items() if one.get("worse")] == [("column source", "fax")]
    assert found["column source", "fax"]["rows"] == len(fax)
    assert found["column source", "fax"]["p_value"] < 1e-6


def test_few_rows_are_shown_and_not_tested() -> None:
    p, targets = scored(SINGLE_LABEL, 400)
    rare = ["rare"] * 29 + ["common"] * 371
    targets[:29] = (p[:29].argmax(axis=1) + 1) % 3
    study, coded = studied(SINGLE_LABEL, 400, {"source": rare})
    found = found_of(study, study(coded, p, targets, THRESHOLDS["single_label"]))
    assert found["column source", "rare"] == {
        "by": "column source",
        "value": "rare",
        "rows": 29,
        "share": dict(zip(("value", "low", "high"), (0.0, *wilson_interval(0, 29)), strict=True)),
    }
    assert "p_value" in found["column source", "common"]


# --- counting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL], ids=lambda task: task.name)
def test_slices_are_those_of_a_plain_count(task: Task) -> None:
    rows = 500
    p, targets = scored(task, rows)
    of_rows = facts(rows, {})
    names = np.random.default_rng(5).choice(["mail", "chat", ""], rows)
    study, coded = studied(task, rows, {"source": names.tolist()})
    thresholds = THRESHOLDS[task.name]
    content = summarise_slices(study, study(coded, p, targets, thresholds))
    found = {(one["by"], one["value"]): one for one in content["slices"]}
    right = task.right(p, targets, thresholds)
    expected = {
        ("column source", "mail"): names == "mail",
        ("column source", EMPTY): names == "",
        ("file", "b.csv"): of_rows.file == 1,
        ("truncated", "yes"): of_rows.tokens > 128,
        ("length", "17 to 32"): (of_rows.tokens > 16) & (of_rows.tokens <= 32),
        ("confidence", "0.7 to under 0.8"): (task.confidence(p) >= 0.7) & (task.confidence(p) < 0.8),
        ("label", "good"): (targets == 1) if task is SINGLE_LABEL else targets[:, 1] > 0.5,
    }
    for key, inside in expected.items():
        assert found[key]["rows"] == inside.sum()
        assert found[key]["share"]["value"] == pytest.approx(right[inside].mean())
    summary = task.summarise(task.counts(p, targets, thresholds), LABELS)
    assert content["overall"] == summary[task.share_of_right]
    assert content["metric"] == task.share_of_right.replace("_", " ")
    for by, total in Counter(one["by"] for one in content["slices"]).items():
        if by != "label":
            assert sum(one["rows"] for one in content["slices"] if one["by"] == by) == rows, (by, total)
    assert set(content["not_tested"]) == {"confidence", "label"}
    assert not any("p_value" in one for one in content["slices"] if one["by"] in content["not_tested"])
    if task is SINGLE_LABEL:
        recall = summary["per_class"]["good"]["recall"]
        assert found["label", "good"]["share"]["value"] == pytest.approx(recall)


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL], ids=lambda task: task.name)
def test_findings_do_not_depend_on_the_workers_or_on_the_order(task: Task) -> None:
    rows = 300
    p, targets = scored(task, rows)
    p = np.round(p, 2) if task is MULTI_LABEL else np.eye(3)[p.argmax(axis=1)] * 0.7 + 0.1  # many equal scores
    cells = {"source": np.random.default_rng(5).choice(["mail", "chat", ""], rows).tolist()}
    study, coded = studied(task, rows, cells)
    thresholds = THRESHOLDS[task.name]
    whole = study(coded, p, targets, thresholds)
    for seed in range(5):
        chance = np.random.default_rng(seed)
        parts = np.array_split(chance.permutation(rows), chance.integers(2, 9))
        total = study.no_rows()
        for part in parts:
            total = total + study(coded.take(part), p[part], targets[part], thresholds)
        assert total.counts.tolist() == whole.counts.tolist()
        assert total.total.tolist() == whole.total.tolist()
        assert (total.mistakes, total.unsure) == (whole.mistakes, whole.unsure)


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL], ids=lambda task: task.name)
def test_examples_are_those_of_a_full_sort(task: Task) -> None:
    rows = 400
    p, targets = scored(task, rows)
    study, coded = studied(task, rows, {})
    thresholds = THRESHOLDS[task.name]
    total = study.no_rows()
    for part in np.array_split(np.arange(rows), 7):
        total = total + study(coded.take(part), p[part], targets[part], thresholds)
    right, sure = task.right(p, targets, thresholds), task.confidence(p)
    wrong = sorted(np.flatnonzero(~right), key=lambda i: (-sure[i], i))[:MOST_EXAMPLES]
    unsure = sorted(np.flatnonzero(right), key=lambda i: (sure[i], i))[:MOST_EXAMPLES]
    assert [one.row_id for one in total.mistakes] == coded.row_id[wrong].tolist()
    assert [one.row_id for one in total.unsure] == coded.row_id[unsure].tolist()
    for one, i in zip(total.mistakes, wrong, strict=True):
        assert one.score == sure[i]
        if task is SINGLE_LABEL:
            assert (one.labels, one.predicted) == ((LABELS[targets[i]],), (LABELS[p[i].argmax()],))
        else:
            assert one.labels == tuple(np.array(LABELS)[targets[i] > 0.5].tolist())
            assert one.predicted == tuple(np.array(LABELS)[p[i] >= thresholds[:-1]].tolist())


def test_no_rows_have_no_slices() -> None:
    study, _ = studied(SINGLE_LABEL, 10, {"source": ["a"] * 10})
    content = summarise_slices(study, study.no_rows())
    assert content["slices"] == []
    assert content["overall"]["value"] is None


# --- what divides rows -----------------------------------------------------------------------------------------------


def test_a_missing_cell_is_a_value() -> None:
    group = group_of(["a", None, "", "  ", " a"])
    assert group.values == (EMPTY, "a", OTHERS)
    assert group.codes(column(["a", None, "", "  ", " a", "z"])).tolist() == [1, 0, 0, 0, 1, 2]


def test_of_many_values_those_with_most_rows_are_slices_and_the_others_are_one() -> None:
    cells: list[str | None] = [f"v{i:03}" for i in range(100) for _ in range(1 + (i >= 70))]
    group = group_of(cells)
    assert group.values == (EMPTY, *(f"v{i:03}" for i in range(70, 100)), OTHERS)
    assert Counter(group.codes(column(cells)).tolist())[MOST_VALUES + 1] == 70


def test_many_numbers_are_ranges_of_about_as_many_rows() -> None:
    cells: list[str | None] = [str(i / 10) for i in range(1000)]
    group = group_of([*cells, "", "nan"])
    assert group.values[:3] == (EMPTY, "under 10", "10 to under 20")
    assert group.values[-1] == "90 or more"
    rows = Counter(group.codes(column(cells)).tolist())
    assert sorted(rows) == list(range(1, 11))
    assert set(rows.values()) == {100}
    assert group.codes(column(["", "nan", "-5", "10", "9.99", "1e9"])).tolist() == [0, 0, 1, 2, 1, 10]
    few = group_of(["10", "9", "8"] * 20)
    assert few.values == (EMPTY, "8", "9", "10", OTHERS)


def test_words_among_many_numbers_are_slices_beside_the_ranges() -> None:
    numbers: list[str | None] = [str(i / 10) for i in range(1000)]
    cells: list[str | None] = [*numbers, *["n/a"] * 40, "unknown", "", "nan"]
    group = group_of(cells)
    assert group.edges == group_of(numbers).edges
    assert group.values == (*group_of(numbers).values, "n/a", OTHERS)
    asked: list[str | None] = ["", "nan", "-5", "9.99", "1e9", "n/a", "unknown", "never counted", "under 10", OTHERS]
    assert group.codes(column(asked)).tolist() == [0, 0, 1, 1, 10, 11, 12, 12, 12, 12]
    # Names that happen to be numbers now and then stay names.
    assert group_of([*numbers, *[f"id {i}" for i in range(200)]]).edges == ()


def test_few_numbers_are_few_ranges_so_that_each_has_rows_to_test() -> None:
    cells: list[str | None] = [str(i) for i in range(240)]
    assert Counter(group_of(cells).codes(column(cells)).tolist()) == {1: 60, 2: 60, 3: 60, 4: 60}
    assert len(group_of(cells[:40]).edges) == 1


def test_values_of_one_row_are_listed_only_where_there_are_few() -> None:
    ids: list[str | None] = [f"id {i}" for i in range(100)]
    assert group_of([*ids, "id 7"]).values == (EMPTY, "id 7", OTHERS)
    assert group_of(ids[:3]).values == (EMPTY, "id 0", "id 1", "id 2", OTHERS)


def test_ranges_of_large_numbers_are_kept_apart() -> None:
    group = group_of([str(1_700_000_000 + i) for i in range(1000)])
    assert len(group.edges) == 9
    assert len(set(group.values)) == len(group.values)


def test_a_column_of_different_cells_takes_bounded_memory_and_keeps_its_common_ones() -> None:
    total = CellCounts()
    for block in range(5):
        ids = [f"id {block} {i}" for i in range(8_000)]
        total.add(CellCounts.of(column([*ids, *["common"] * 50])))
        assert len(total.rows) <= 10_000
    assert total.left_out
    assert total.rows["common"] == 250
    group = ColumnGroup.of("id", total)
    assert group.values == (EMPTY, "common", OTHERS)


def test_of_many_files_those_with_most_rows_are_slices() -> None:
    files = [f"{i}.csv" for i in range(40)]
    group = FileGroup.of(files, {i: 1 + i for i in range(40)})
    assert group.values == (*files[10:], "(other files)")
    assert group.numbers[:11] == (30,) * 10 + (0,)


def test_the_common_values_do_not_depend_on_the_order_of_few_cells() -> None:
    parts = [["a", "b"] * 3, ["b", "c"], ["c"] * 5]
    found = set()
    for order in permutations(parts):
        total = CellCounts()
        for part in order:
            total.add(CellCounts.of(column(part)))
        found.add(ColumnGroup.of("x", total))
    assert len(found) == 1
