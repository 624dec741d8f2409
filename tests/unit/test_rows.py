"""Each row becomes a clean row, a reject with a reason, or nothing; nothing else can happen to it."""

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textcls.batch.settings import UnlabelledSpec
from textcls.data.csv_layout import Layout
from textcls.data.csv_records import CellTooLong
from textcls.data.rows import CleanRow, Reason, Reject, RowCleaner, TextReader, shown
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.tasks.registry import task_of
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.normalizer import build_normalizer
from textcls.text.text_input import TextInput

law = settings(deadline=None, derandomize=True, database=None)
cells = st.text(st.one_of(st.characters(), st.sampled_from(" \t\n\x00\x1f\udc80\udcffa")), max_size=12)


def cleaner(text: TextSpec | None = None, **data: Any) -> RowCleaner:
    spec = DataSpec(**data)
    return RowCleaner(
        Layout(",", len(spec.columns), tuple(range(len(spec.columns))), 1), spec, text or TextSpec(), task_of(spec)
    )


# Kind of rows -> (settings, cells of the label).
KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "one label": ({}, 1),
    "several labels": ({"labels_in": "cell"}, 1),
    "label columns": ({"label_columns": ("a", "b"), "task": "multi_label"}, 2),
    "pairs": ({"pair": ("text", "other")}, 1),
}
of_each_kind = pytest.mark.parametrize("kind", KINDS)


def outcome(fields: list[str], **data: Any) -> CleanRow | Reject | None:
    return cleaner(**data)(7, fields)


def reason(fields: list[str], **data: Any) -> tuple[str, str] | None:
    row = outcome(fields, **data)
    return (row.reason, row.column) if isinstance(row, Reject) else None


def test_a_good_row_keeps_text_and_label_as_written() -> None:
    row = outcome([" A  Text\n", " Pos "])
    assert isinstance(row, CleanRow)
    assert row[:3] == (7, TextInput(" A  Text\n"), " Pos ")


def test_several_text_columns_are_joined_by_a_space() -> None:
    row = outcome(["title", "", "body ", "pos"], text_columns=("a", "b", "c"))
    assert isinstance(row, CleanRow)
    assert row.input.text == "title  body "


@law
@given(texts=st.tuples(cells, cells), lowercase=st.booleans(), form=st.sampled_from(["NFC", "NFKC", "none"]))
def test_keys_are_equal_if_and_only_if_the_normalized_texts_are_white_space_aside(
    texts: tuple[str, str], lowercase: bool, form: str
) -> None:
    spec = TextSpec(lowercase=lowercase, unicode_form=form)
    one, other = (cleaner(spec)(1, [text, "pos"]) for text in texts)
    if isinstance(one, CleanRow) and isinstance(other, CleanRow):
        words = [build_normalizer(spec).normalize_str(text).split() for text in texts]
        assert (one.key == other.key) == (words[0] == words[1])
        assert len(one.key) == 16


@of_each_kind
def test_a_key_does_not_depend_on_the_label_the_line_or_the_process(kind: str) -> None:
    data, label_cells = KINDS[kind]
    texts = [["Some  TEXT", "some text\n"], ["Other", "other "]][: 2 if "pair" in data else 1]
    rows = [
        cleaner(**data)(line, [*(text[i] for text in texts), *[label] * label_cells])
        for i, (line, label) in enumerate(((7, "yes"), (99, "no")))
    ]
    (one, other) = (row for row in rows if isinstance(row, CleanRow))
    assert one.label != other.label
    of_process = {1: "f4059a637a026ee5278402fe34285c49", 2: "8996af08931d922e5e4bc22efbeadc1d"}[len(texts)]
    assert one.key == other.key == bytes.fromhex(of_process)


@law
@of_each_kind
@given(fields=st.lists(cells, max_size=5), labels=st.none() | st.just(("pos", "neg")), where=st.sets(cells, max_size=2))
def test_every_row_has_an_outcome_that_can_be_written_to_a_file(
    kind: str, fields: list[str], labels: tuple[str, ...] | None, where: set[str]
) -> None:
    data, _ = KINDS[kind]
    row = outcome(
        fields,
        **data,
        labels=None if "label_columns" in data else labels,
        where={"kind": tuple(where)} if where else {},
    )
    if row is None:
        assert fields[-1] not in where
    elif isinstance(row, CleanRow):
        (" ".join(row.input.segments) + row.label).encode()
        assert all(text.strip() for text in row.input.segments)
        assert row.label.strip()
    else:
        row.value.encode()
        assert row.value.isprintable()
        assert len(row.value) <= 120
        assert Reason(row.reason).explanation
        assert pickle.loads(pickle.dumps(row)) == row  # as Ray carries it


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u3000\xa0", "\x1c\x1d\x1e\x1f", "\x85\u2028"])
def test_blank_texts_and_labels_are_missing(blank: str) -> None:
    assert reason([blank, "pos"]) == (Reason.MISSING_TEXT, "text")
    assert reason(["text", blank]) == (Reason.MISSING_LABEL, "label")


def test_a_text_is_missing_only_if_all_its_columns_are_blank() -> None:
    assert reason([" ", "", "pos"], text_columns=("a", "b")) == (Reason.MISSING_TEXT, "a")
    assert reason([" ", "x", "pos"], text_columns=("a", "b")) is None


def test_labels_are_mapped_as_written_and_then_looked_up() -> None:
    spec: dict[str, Any] = {"label_map": {"1": "pos", "": "none"}, "labels": ("pos", "neg", "none")}
    for written, name in {"1": "pos", "neg": "neg", "": "none"}.items():
        row = outcome(["text", written], **spec)
        assert isinstance(row, CleanRow)
        assert row.label == name
    for written in ("Pos", " neg", "2"):
        assert reason(["text", written], **spec) == (Reason.UNKNOWN_LABEL, "label")
    assert reason(["text", "2"], label_map={"1": "pos"}) is None


def test_bytes_that_cannot_be_decoded_are_a_reject_where_they_are_used_and_nowhere_else() -> None:
    bad = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert reason([bad, "pos"]) == (Reason.UNDECODABLE, "text")
    assert reason(["ok", bad, "pos"], text_columns=("a", "b")) == (Reason.UNDECODABLE, "b")
    assert reason(["text", bad]) == (Reason.UNDECODABLE, "label")
    assert reason(["text", "pos", bad], where={"kind": "a"}) == (Reason.UNDECODABLE, "kind")
    unused = RowCleaner(Layout(",", 3, (0, 1), 1), DataSpec(), TextSpec(), SINGLE_LABEL)
    assert isinstance(unused(1, ["text", "pos", bad]), CleanRow)


def test_rows_outside_where_are_neither_clean_nor_rejects() -> None:
    spec: dict[str, Any] = {"where": {"kind": ("a", "b"), "year": "2024"}}
    assert isinstance(outcome(["text", "pos", "b", "2024"], **spec), CleanRow)
    assert outcome(["text", "pos", "c", "2024"], **spec) is None
    assert outcome(["", "", "a", "2023"], **spec) is None


def test_a_row_that_where_cannot_be_asked_of_is_a_reject() -> None:
    assert reason(["text", "pos"], where={"kind": "a"}) == (Reason.RAGGED_ROW, "")
    assert cleaner(where={"kind": "a"})(3, CellTooLong("more than 9 characters")) == Reject(
        3, "", Reason.CELL_TOO_LONG, "more than 9 characters"
    )


@pytest.mark.parametrize("fields", [["one"], ["one", "two", "three"]])
def test_a_ragged_row_says_how_many_fields_it_has(fields: list[str]) -> None:
    row = outcome(fields)
    assert isinstance(row, Reject)
    assert (row.reason, row.value) == (Reason.RAGGED_ROW, f"{len(fields)} fields, expected 2")


HEADED = Layout(",", 3, (1, 2), 1, header=("id", "text", "label"))


@pytest.mark.parametrize(
    "fields",
    [
        ["id", "text", "label"],
        ["\ufeffid", "Text", " label"],
        ['\ufeff"id"', "text", "label"],
        ["number", "text", "label"],
    ],
)
def test_the_header_once_more_is_a_reject_of_its_own(fields: list[str]) -> None:
    row = RowCleaner(HEADED, DataSpec(), TextSpec(), SINGLE_LABEL)(7, fields)
    assert isinstance(row, Reject)
    assert (row.reason, row.column) == (Reason.REPEATED_HEADER, "")


@pytest.mark.parametrize("fields", [["id", "text", "pos"], ["1", "a text", "label"], ["id", "the text", "label"]])
def test_a_name_of_the_header_here_and_there_is_a_text_or_a_label(fields: list[str]) -> None:
    assert isinstance(RowCleaner(HEADED, DataSpec(), TextSpec(), SINGLE_LABEL)(7, fields), CleanRow)


def test_a_header_of_numbers_or_of_one_column_is_not_looked_for() -> None:
    data = DataSpec(text_columns="0", label_column="1")
    numbers = RowCleaner(Layout(",", 2, (0, 1), 1, header=("0", "1")), data, TextSpec(), SINGLE_LABEL)
    assert isinstance(numbers(7, ["0", "1"]), CleanRow)
    assert TextReader(Layout(",", 1, (0,), 1, header=("text",)), UnlabelledSpec()).no_row(7, ["text"]) is None


def test_unlabelled_rows_tell_the_header_by_all_its_names() -> None:
    reader = TextReader(Layout(",", 3, (1,), 1, header=("id", "text", "label")), UnlabelledSpec())
    again = reader.no_row(7, ["id", "text", "label"])
    assert again is not None
    assert again.reason == Reason.REPEATED_HEADER
    assert reader.no_row(7, ["1", "text", "label"]) is None


@pytest.mark.parametrize(
    "fields",
    [
        ["Total", "", ""],
        ["", "TOTAL:", ""],
        ["合計", "1,234", ""],
        ["Grand total", "", "300"],
        ["", "Summe", ""],
        ["Total: ", "12.5 %"],
        ["总计"],
    ],
)
def test_a_total_below_the_table_is_a_reject_of_its_own(fields: list[str]) -> None:
    row = RowCleaner(HEADED, DataSpec(), TextSpec(), SINGLE_LABEL)(7, fields)
    assert isinstance(row, Reject)
    assert row.reason == Reason.TOTAL_LINE


@pytest.mark.parametrize("fields", [["1", "total", "pos"], ["2", "Total recall", "neg"], ["Total", "sum", "pos"]])
def test_a_row_with_text_and_label_is_a_row_whatever_its_words(fields: list[str]) -> None:
    assert isinstance(RowCleaner(HEADED, DataSpec(), TextSpec(), SINGLE_LABEL)(7, fields), CleanRow)


def test_a_row_without_a_label_is_no_total_because_of_a_word_in_it() -> None:
    row = RowCleaner(HEADED, DataSpec(), TextSpec(), SINGLE_LABEL)(7, ["1", "the total is wrong", ""])
    assert isinstance(row, Reject)
    assert row.reason == Reason.MISSING_LABEL


def test_shown_values_are_short_printable_lines() -> None:
    assert shown("naïve ☃") == "naïve ☃"
    assert shown("a\nb\tc\x00\u200b") == r"a\nb\tc\x00\u200b"
    assert shown(b"caf\xe9".decode("utf-8", "surrogateescape")) == r"caf\xe9"
    assert shown("x" * 120) == "x" * 120
    assert shown("x" * 121) == "x" * 119 + "…"
    assert len(shown("\n" * 200)) == 120


def test_reasons_read_as_plain_text_and_survive_pickling() -> None:
    for each in Reason:
        assert str(each) == each.value == f"{each}"
        assert pickle.loads(pickle.dumps(each)) is each  # as Ray carries it
