"""What an input is, from the row to the tokenizer, the table and the request."""

import pickle

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcls.data import row_tables
from textcls.serving.refusals import Refusal
from textcls.serving.request_schema import read_predict, read_task
from textcls.settings.recipe import TextSpec
from textcls.settings.serve import ServeSpec
from textcls.text.normalizer import normalizer_of
from textcls.text.text_input import TextInput

NORMALIZE = normalizer_of(TextSpec())


def key(text: str) -> bytes:
    return TextInput(text).key(NORMALIZE)


def test_inputs_are_duplicates_whatever_their_case_their_form_and_their_white_space() -> None:
    assert key("A  Café\n") == key("a cafe\u0301") != key("a cafe")
    assert len(key("")) == 16


def test_a_key_is_the_one_that_earlier_versions_computed() -> None:
    # A run that an earlier version began has its rows split by it.
    assert key("Some  TEXT") == bytes.fromhex("f4059a637a026ee5278402fe34285c49")


def test_a_pair_has_a_key_of_its_own_which_depends_on_the_order() -> None:
    one, swapped = TextInput("a", "b").key(NORMALIZE), TextInput("b", "a").key(NORMALIZE)
    assert len({one, swapped, key("a"), key("a b"), key("a\nb"), TextInput("a b", "").key(NORMALIZE)}) == 5
    assert TextInput(" A\n", "B").key(NORMALIZE) == one


def test_pairs_that_are_grouped_by_a_text_share_half_of_their_key() -> None:
    def half(one: TextInput, group_by: str) -> bytes:
        return one.key(NORMALIZE, group_by)[:8]

    pairs = [TextInput("a", "b"), TextInput(" A", "c"), TextInput("d", "c")]
    assert half(pairs[0], "a") == half(pairs[1], "a") != half(pairs[2], "a")
    assert half(pairs[0], "b") != half(pairs[1], "b") == half(pairs[2], "b")
    assert len({one.key(NORMALIZE, "a") for one in pairs}) == 3


@pytest.mark.parametrize("blank", ["", " ", "\t\u3000"])
def test_an_input_without_a_character_is_blank(blank: str) -> None:
    assert TextInput(blank).is_blank
    assert not TextInput(f"{blank}x").is_blank
    assert TextInput("x", blank).is_blank
    assert TextInput(blank, "x").is_blank
    assert not TextInput("x", "x").is_blank


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)))
def test_inputs_are_columns_of_a_table_and_back(texts: list[str | None]) -> None:
    one, other = (pa.array(column, pa.large_string()) for column in (texts, texts[::-1]))
    assert row_tables.inputs_of(pa.table({"text": one})) == [TextInput(text or "") for text in texts]
    pairs = row_tables.inputs_of(pa.table({"text": one, "text_pair": other}))
    assert pairs == [TextInput(*(text or "" for text in pair)) for pair in zip(texts, texts[::-1], strict=True)]


def test_an_input_travels_between_processes() -> None:
    one = TextInput("a text", "another")
    carried = pickle.loads(pickle.dumps(one))  # as Ray carries it
    assert carried == one
    assert type(carried) is TextInput


def test_every_spelling_of_a_request_becomes_the_same_inputs() -> None:
    limits, one = ServeSpec(max_chars_per_text=6), TextInput("a text")
    for body in (b'"a text"', b'["a text"]'):
        assert read_predict(b'{"inputs": %b}' % body, limits).inputs == (one,)
    for body in (b'"a text"', b'["a text"]', b'{"text": "a text"}', b'[{"text": "a text"}]', b'[["a text"]]'):
        assert read_task(b'{"inputs": %b}' % body, limits).inputs == (one,)
    with pytest.raises(Refusal, match="text 1 has 7 characters"):
        read_predict(b'{"inputs": ["a text", "a text!"]}', limits)
