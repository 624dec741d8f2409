"""What textcls/data/checks.py refuses and warns of, and that each sentence names what the user has to look at."""

from typing import Any

import pytest

from textcls.data import checks
from textcls.errors import DataError
from textcls.settings.data import DataSpec
from textcls.settings.recipe import SplitSpec

GOOD: dict[str, Any] = {
    "read": 1000,
    "outside_where": 0,
    "reasons": {"missing_text": 6, "ragged_row": 4},
    "examples": ["a.csv:3: text: missing_text ''"],
    "labels": ("negative", "positive"),
}


def refusal(data: DataSpec | None = None, **change: Any) -> str:
    with pytest.raises(DataError) as caught:
        checks.refuse_unfit(data or DataSpec(), **(GOOD | change))
    return str(caught.value)


def test_data_with_rejects_up_to_the_limit_is_fit() -> None:
    checks.refuse_unfit(DataSpec(), **GOOD)
    checks.refuse_unfit(DataSpec(max_reject_fraction=0), **(GOOD | {"reasons": {}}))
    checks.refuse_unfit(DataSpec(), **(GOOD | {"outside_where": 10**6}))


def test_a_file_without_rows_is_refused() -> None:
    assert "a header and no row" in refusal(read=0, reasons={}, labels=())


def test_a_filter_that_nothing_passes_is_named_with_its_values() -> None:
    text = refusal(DataSpec(where={"source": ("imdb", "yelp")}), read=0, outside_where=1234, reasons={}, labels=())
    for part in ("1,234 rows", "source in ['imdb', 'yelp']", "data.where={}"):
        assert part in text


def test_rejects_alone_are_refused_with_reasons_and_examples() -> None:
    text = refusal(read=10, labels=())
    for part in ("every one of the 10 rows", "6 missing_text, 4 ragged_row", "a.csv:3", "data.text_columns"):
        assert part in text


def test_one_reject_too_many_is_refused_with_counts_share_limit_and_examples() -> None:
    text = refusal(reasons={"ragged_row": 4, "missing_text": 7})
    for part in (
        "11 of 1,000 rows (1.1%)",
        "7 missing_text, 4 ragged_row",
        "a.csv:3",
        "at most 1.0%",
        "rejects.parquet",
    ):
        assert part in text
    assert "data.max_reject_fraction" in text


def test_one_single_label_is_refused_by_name() -> None:
    text = refusal(labels=("positive",))
    for part in ("all 990 rows", "'positive'", "two or more labels", "data.label_column"):
        assert part in text


def test_a_label_column_that_is_an_id_is_refused_by_example() -> None:
    many = tuple(f"id-{n}" for n in range(1500))
    text = refusal(DataSpec(label_column="row_id"), read=2000, reasons={}, labels=many)
    for part in ("'row_id'", "1,500 different labels in 2,000 rows", "'id-0'", "data.label_column"):
        assert part in text
    # Many labels with rows to learn each from are a task like any other.
    checks.refuse_unfit(DataSpec(), read=10_000, outside_where=0, reasons={}, examples=[], labels=many)


def test_labels_without_a_training_row_are_refused_by_name() -> None:
    counts = {"train": [5, 0, 0], "val": [1, 1, 0], "test": [1, 1, 0]}
    with pytest.raises(DataError, match="no training rows for 'b', 'c'") as caught:
        checks.refuse_empty_splits(DataSpec(), SplitSpec(), ["a", "b", "c"], counts)
    assert "--set 'data.where_not=" in caught.value.todo


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_a_row_is_refused_by_name(split: str) -> None:
    counts = {"train": [2, 1], "val": [1, 0], "test": [0, 1]}
    checks.refuse_empty_splits(DataSpec(), SplitSpec(), ["a", "b"], counts)
    with pytest.raises(DataError, match=rf"split\.{split} gets none") as caught:
        checks.refuse_empty_splits(DataSpec(), SplitSpec(), ["a", "b"], counts | {split: [0, 0]})
    assert caught.value.todo.startswith("add rows")


# --- warnings --------------------------------------------------------------------------------------------------------

TOKENS = {"unknown_fraction": 0.0}


def test_good_data_gives_no_warning() -> None:
    assert checks.warnings(DataSpec(), ["a", "b"], {"a": 10, "b": 99}, (0, []), TOKENS) == []


def test_each_warning_names_what_it_is_about() -> None:
    found = checks.warnings(
        DataSpec(),
        ["Pos", "pos", "rare"],
        {"Pos": 50, "pos": 60, "rare": 9},
        (1200, ["a.csv:7", "b.csv:9"]),
        {"unknown_fraction": 0.25},
    )
    parts = [
        ("'pos' (60 rows) and 'Pos' (50 rows)", "case"),
        ("if labels that look alike are the same", "data.label_map"),
        ("fewer than 10 rows", "'rare' (9)"),
        ("1,200 texts", "a.csv:7, b.csv:9"),
        ("25%", "[UNK]", "model.pretrained"),
    ]
    assert len(found) == len(parts)
    for sentence, expected in zip(found, parts, strict=True):
        assert all(part in sentence for part in expected)


def test_of_many_rare_labels_the_first_ten_are_named() -> None:
    labels = [f"label{n:02}" for n in range(25)]
    (sentence,) = checks.warnings(DataSpec(), labels, {}, (0, []), TOKENS)
    assert [label for label in labels if label in sentence] == labels[:10]
    assert "and 15 more" in sentence
