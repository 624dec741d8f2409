"""Pairs of texts, from the settings to the batch: rows, token ids and token types are those that transformers makes."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_tokenizers import by_transformers
from textcls.batch.settings import UnlabelledSpec, evaluate_settings, predict_settings
from textcls.bundle import load_bundle
from textcls.data import row_tables, row_tokens
from textcls.data.csv_layout import Layout
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.data.remedies import CsvFiles, remedy
from textcls.data.rows import CleanRow, Reason, Reject, RowCleaner
from textcls.data.summary import RowSummary
from textcls.errors import DataError, RecipeError
from textcls.settings.data import DataSpec
from textcls.settings.recipe import Recipe, TextSpec
from textcls.settings.recipe_file import parse_recipe
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.pair_frame import PairFrame, longest_first
from textcls.text.text_input import TextInput
from textcls.text.tokenizer import InputTokenizer
from textcls.text.tokenizer_files import TokenizerFiles, prepare_tokenizer
from textcls.training.token_rows import TokenRows

PAIR = "data.pair=[question, answer]"
LIMIT = 12
BERT = [None, 0, None, 1, None]
WORDS = st.lists(st.sampled_from(["great", "the film", "!", "幸", "Café"]), min_size=1, max_size=20).map(" ".join)


@pytest.fixture(scope="module")
def files(tiny_model_dir: Path) -> TokenizerFiles:
    return prepare_tokenizer(str(tiny_model_dir), TextSpec(max_tokens=LIMIT), token_types=True)


# --- settings --------------------------------------------------------------------------------------------------------


def test_a_pair_takes_the_place_of_the_text_columns() -> None:
    data = parse_recipe("", [PAIR, "data.where.lang=en"]).data
    assert data.columns == ("question", "answer", "label", "lang")
    assert UnlabelledSpec(pair=("a", "b")).columns == ("a", "b")
    positions = parse_recipe("data: {header: false, pair: [2, 0], label_column: 1}").data
    assert positions.columns == ("2", "0", "1")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.pair=question"], "expected two different columns"),
        (["data.pair=[a, a]"], "expected two different columns"),
        (["data.pair=[a, b, c]"], "expected two different columns"),
        (["data.pair=[a, label]"], "'label' is also a text column"),
        ([PAIR, "data.text_columns=text"], "exclude each other"),
        ([PAIR, "text.on_long=windows"], "set text.on_long to truncate"),
        ([PAIR, "data.header=false"], "0-based positions, not 'question', 'answer'"),
    ],
    ids=str,
)
def test_settings_that_make_no_pair_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe("", overrides)


def test_null_leaves_the_text_columns_of_a_recipe_out() -> None:
    text = "data: {text_columns: [title, body]}"
    assert parse_recipe(text, [PAIR, "data.text_columns=null"]).data.pair == ("question", "answer")


def test_a_recipe_of_one_text_is_written_as_before_and_one_of_pairs_is_read_back() -> None:
    one, pairs = parse_recipe(""), parse_recipe("", [PAIR])
    assert "pair" not in one.model_dump(mode="json")["data"]
    assert one.fingerprint == "be46acdd16b087d64885419c5b01cbed843ad1a98aff7e977c25d3f95414528f"
    assert Recipe.model_validate(json.loads(json.dumps(pairs.model_dump(mode="json")))) == pairs
    assert pairs.learning_fingerprint not in (one.learning_fingerprint, parse_recipe("", ["data.pair=[a, b]"]))


def test_a_batch_job_reads_the_kind_of_input_that_its_bundle_scores(pair_bundle: Path, tiny_bundle: Path) -> None:
    pairs, one = load_bundle(str(pair_bundle)), load_bundle(str(tiny_bundle))
    for settings in (predict_settings, evaluate_settings):
        assert settings(pairs, ["a.csv"], []).data.pair == ("question", "answer")
        with pytest.raises(RecipeError, match="scores pairs of texts") as caught:
            settings(pairs, ["a.csv"], ["data.pair=null"])
        advised = caught.value.todo.split()[1].rstrip(",").replace("[NAME,NAME]", "[a,b]")
        assert settings(pairs, ["a.csv"], [advised]).data.pair == ("a", "b")
        with pytest.raises(RecipeError, match="scores one text") as caught:
            settings(one, ["a.csv"], ["data.pair=[a,b]", "data.text_columns=null"])
        assert settings(one, ["a.csv"], [caught.value.todo.split()[1]]).data.text_columns == ("NAME",)


def test_a_column_of_a_pair_that_is_missing_comes_with_the_setting_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("Question,answers,label\na,b,c\n")
    data = parse_recipe("", [PAIR, f"data.csv={tmp_path}/p.csv"]).data
    with pytest.raises(DataError, match="no column 'question' or 'answer'") as caught:
        plan_shards(expand(data.csv), data)
    advised = shlex.split(caught.value.todo)[1]
    assert parse_recipe("", [advised]).data.pair == ("Question", "answers")


def test_an_empty_column_of_a_pair_comes_with_the_setting_that_names_another(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("question,answer,reply,label\n" + "a,,long enough,c\n" * 20)
    data = parse_recipe("", [PAIR, f"data.csv={tmp_path}/p.csv"]).data
    advised = remedy(Reason.MISSING_TEXT, CsvFiles.whole(expand(data.csv), data))
    assert "column 'answer' is empty; is it column 'reply'?" in advised
    assert parse_recipe("", [shlex.split(advised.partition("--set ")[2])[0]]).data.pair == ("question", "reply")


# --- rows ------------------------------------------------------------------------------------------------------------


def outcome(*fields: str) -> CleanRow | Reject | None:
    data = DataSpec(pair=("question", "answer"))
    return RowCleaner(Layout(",", 3, (0, 1, 2), 1), data, TextSpec(), SINGLE_LABEL)(7, fields)


def test_the_two_columns_are_read_as_written_in_their_order() -> None:
    row = outcome(" Why?", "So  it is\n", "pos")
    assert isinstance(row, CleanRow)
    assert row.input == TextInput(" Why?", "So  it is\n")


@pytest.mark.parametrize("bad", ["", " \t", "caf\udce9"])
def test_a_missing_or_broken_text_is_a_reject_with_its_column(bad: str) -> None:
    reason = Reason.MISSING_TEXT if not bad.strip() else Reason.UNDECODABLE
    for place, column in enumerate(("question", "answer")):
        fields = ["a", "b", "pos"]
        fields[place] = bad
        row = outcome(*fields)
        assert isinstance(row, Reject)
        assert (row.column, row.reason) == (column, reason)


@pytest.mark.parametrize("typed", [True, False])
def test_tables_of_pairs_hold_the_tokens_of_both_texts(tmp_path: Path, tiny_model_dir: Path, typed: bool) -> None:
    (tmp_path / "p.csv").write_text("question,answer,label\na,great film,0\n,x,1\ngreat great,a,1\n")
    data = parse_recipe("", [PAIR, f"data.csv={tmp_path}/p.csv"]).data
    layouts, shards = plan_shards(expand(data.csv), data)
    (read,) = row_tables.read_tables(shards[0], layouts[0], data, TextSpec(), SINGLE_LABEL)
    assert read.schema == row_tables.schema_of(data)
    files = prepare_tokenizer(str(tiny_model_dir), TextSpec(max_tokens=LIMIT), token_types=typed)
    table = row_tokens.tokenized(read, files)
    assert table.slice(0, 0).schema == row_tokens.tokenized(read.slice(0, 0), files).schema
    clean = row_tables.clean_rows(table)
    assert row_tables.inputs_of(clean) == [TextInput("a", "great film"), TextInput("great great", "a")]
    numbers = {name: clean[name].to_pylist() for name in ("tokens", "first_tokens", "second_tokens")}
    assert numbers == {"tokens": [6, 6], "first_tokens": [1, 2], "second_tokens": [2, 1]}
    assert ("second" in table.column_names) == typed
    found = RowSummary()
    for part in (table.slice(0, 1), table.slice(1)):
        found.add(row_tables.summarize(part, SINGLE_LABEL))
    percentiles = [of_text["100"] for of_text in found.token_lengths(LIMIT)["texts"]]
    assert percentiles == [2, 2]


# --- token ids -------------------------------------------------------------------------------------------------------


# Whether token types are asked for -> the tokenizer as transformers loads it, which takes a while.
_LOADED: dict[bool, Any] = {}


@pytest.mark.parametrize("typed", [True, False])
@given(texts=st.lists(st.tuples(WORDS, WORDS), max_size=6))
def test_pairs_are_encoded_as_transformers_encodes_them(
    tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory, typed: bool, texts: list[tuple[str, str]]
) -> None:
    files = prepare_tokenizer(str(tiny_model_dir), TextSpec(max_tokens=LIMIT), token_types=typed)
    if typed not in _LOADED:
        _LOADED[typed] = by_transformers(files, tiny_model_dir, tmp_path_factory.mktemp("tokenizer"))
    theirs, ours = _LOADED[typed], InputTokenizer(files)
    found = ours.pairs([TextInput(*pair) for pair in texts])
    assert (found.seconds is not None) == typed
    for i, (one, other) in enumerate(texts):
        expected = theirs(one, other, truncation=True)
        assert found.ids[i] == expected["input_ids"]
        assert ("token_type_ids" in expected) == typed
        if found.seconds is not None:
            types = (np.arange(len(found.ids[i])) >= found.seconds[i]).astype(int).tolist()
            assert types == expected["token_type_ids"]
        assert found.counts[i] == len(theirs(one, other)["input_ids"])
        lengths = [len(theirs(text, add_special_tokens=False)["input_ids"]) for text in (one, other)]
        assert [found.first_counts[i], found.second_counts[i]] == lengths


def test_one_text_is_encoded_as_before_beside_pairs(files: TokenizerFiles) -> None:
    tokenizer, long = InputTokenizer(files), [TextInput("great " * 30)]
    before = tokenizer(long)[0]
    tokenizer.pairs([TextInput("great " * 30, "film")])
    assert tokenizer(long)[0] == before
    assert len(before[0]) == LIMIT


def test_a_tokenizer_of_pairs_says_so_in_its_own_files(files: TokenizerFiles, tmp_path: Path) -> None:
    files.save(str(tmp_path))
    assert TokenizerFiles.load(str(tmp_path)) == files
    assert json.loads(files.config_json)["model_input_names"] == ["input_ids", "token_type_ids", "attention_mask"]


def test_of_a_long_pair_the_longer_text_is_cut_first() -> None:
    assert longest_first(100, 10, 60) == (50, 10)
    assert longest_first(100, 30, 60) == (30, 30)
    assert longest_first(10, 100, 60) == (10, 50)
    assert longest_first(9, 8, 9) == (5, 4)
    assert longest_first(30, 30, 60) == (30, 30)


def test_a_sample_of_a_pair_has_the_special_tokens_of_each_pair(files: TokenizerFiles) -> None:
    tokenizer = InputTokenizer(files, of_pairs=True)
    frame = tokenizer.pairs([TextInput("great", "great")])
    for length in range(frame.counts[0], LIMIT + 1):
        ids, second = tokenizer.sample(length), tokenizer.sample_second(length)
        assert len(ids) == length
        assert second is not None
        assert [ids[0], ids[second - 1], ids[-1]] == [frame.ids[0][0], frame.ids[0][2], frame.ids[0][-1]]


@pytest.mark.parametrize(
    ("of_text", "types"),
    [
        ((0, None, 1, None, None), (0, 0, 1, 1, 2)),  # XLNet
        ((None, 0, None, 1, None), (2, 0, 0, 1, 1)),  # Funnel Transformer
        ((None, 1, None, 0, None), (0, 0, 0, 1, 1)),
        ((None, 0, None, 1, 0), (0, 0, 0, 1, 1)),
        ((None, 0, None, 1, None), (1, 1, 1, 0, 0)),
        ((None, 0, None, 1, None), (0, 1, 1, 1, 1)),
    ],
    ids=str,
)
def test_a_pair_in_another_order_or_with_other_token_types_is_refused(
    of_text: tuple[int | None, ...], types: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"it (gives|does not put)"):
        PairFrame.of(list(range(5)), list(of_text), list(types))


def test_a_frame_has_the_types_of_bert_or_none() -> None:
    bert = PairFrame.of([2, 9, 3, 9, 3], BERT, [0, 0, 0, 1, 1])
    roberta = PairFrame.of([0, 9, 2, 2, 9, 2], [None, 0, None, None, 1, None], [0] * 6)
    assert bert.around([7, 8], [5]) == [2, 7, 8, 3, 5, 3]
    assert bert.second(2, 1) == 4
    assert roberta.around([7, 8], [5]) == [0, 7, 8, 2, 2, 5, 2]
    assert roberta.second(2, 1) == 7


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_of_pairs_has_the_types_of_its_tokens() -> None:
    table = pa.table(
        {
            "input_ids": pa.array([[2, 9, 3, 9, 3], [2, 8, 8, 3, 8, 8, 3]], pa.list_(pa.int32())),
            "target": pa.array([0, 1], pa.int32()),
            "second": pa.array([3, 4], pa.int32()),
        }
    )
    batch = TokenRows([table.slice(1), table]).batch(np.array([0, 1]), 0)
    assert batch.token_types_BL is not None
    assert batch.token_types_BL.tolist() == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]]
    assert TokenRows([table.drop(["second"])]).batch(np.array([0]), 0).token_types_BL is None
