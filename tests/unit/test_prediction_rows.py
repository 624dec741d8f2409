"""Every record of a CSV becomes one row of predictions, in order, whatever it holds."""

import codecs
import csv
import io
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcls.batch.prediction_rows import (
    BlockSize,
    Columns,
    prediction_table,
    printable,
    read_blocks,
    table_writer,
)
from textcls.batch.settings import UnlabelledSpec
from textcls.data.csv_records import read_shard
from textcls.data.csv_shards import column_names, plan_shards
from textcls.data.input_files import expand
from textcls.data.rows import TextReader
from textcls.errors import DataError
from textcls.tasks.single_label import SINGLE_LABEL

SIZE = BlockSize(rows=3, text_chars=1000, chars=1000)
LABELS = ("bad", "good")


@dataclass
class Lengths:
    """Scores that tell the text they are of: its length in tokens; a text that begins with `!` has an error."""

    texts: list[str]
    text_tokens: np.ndarray | None = None
    task = SINGLE_LABEL
    labels = LABELS

    @property
    def probabilities(self) -> np.ndarray:
        good = np.array([len(text) / 1000 for text in self.texts], np.float32).reshape(-1, 1)
        failed = np.array([error is not None for error in self.errors], bool).reshape(-1, 1)
        return np.where(failed, np.float32(np.nan), np.hstack([good, 1 - good]))

    @property
    def decisions(self) -> np.ndarray:
        return np.array([int(len(text) < 500) for text in self.texts], np.int32)

    @property
    def tokens(self) -> np.ndarray:
        return np.array([len(text) for text in self.texts], np.int32)

    @property
    def truncated(self) -> np.ndarray:
        return np.array([len(text) > 10 for text in self.texts], bool)

    @property
    def unknown(self) -> np.ndarray:
        return np.array([text.count("a") for text in self.texts], np.int32)

    @property
    def errors(self) -> list[object]:
        return [SimpleNamespace(code="empty_text") if text.startswith("!") else None for text in self.texts]


def predicted(path: Path, *, all_scores: bool = False, size: BlockSize = SIZE, **data: object) -> pa.Table:
    """The predictions for a file."""
    spec = UnlabelledSpec(csv=(str(path),), **data)
    files = expand(spec.csv)
    layouts, shards = plan_shards(files, spec)
    columns = Columns.plan([column_names(layouts[0])], SINGLE_LABEL, LABELS, all_scores=all_scores)
    reader = TextReader(layouts[0], spec)
    tables = [
        prediction_table(block, Lengths([one.text for one in block.inputs]), columns, file=shard.uri, file_index=0)
        for shard in shards
        for block in read_blocks(read_shard(shard, layouts[0], spec), reader, size)
    ]
    return pa.concat_tables([columns.schema.empty_table(), *tables])


NASTY = (
    b"\xef\xbb\xbfid;text;id;label\r\n"
    b'1;"two\r\nlines";a;pos\r\n'
    b"2;;b;\r\n"
    b"3;too;many;fields;here\r\n"
    b"\r\n"
    b"4;short\r\n"
    b"5;caf\xe9;c;neg\r\n"
    b"6;fine;\xff\\;neg\r\n"
    b"7;nul \0 inside;d;\0\r\n"
    b"8;!refused;e;neg\r\n"
    b'9;"a ""quoted"" text";f;"x;y"\r\n'
)


def test_every_record_is_one_row_with_its_cells_its_place_and_its_outcome(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_bytes(NASTY)
    rows = predicted(tmp_path / "n.csv").to_pylist()
    assert [row["line"] for row in rows] == [2, 4, 5, 7, 8, 9, 10, 11, 12]
    assert {row["file"] for row in rows} == {str(tmp_path / "n.csv")}
    assert [row["error"] for row in rows] == [
        *(None, "missing_text", "ragged_row", "ragged_row", "undecodable", None, None, "empty_text", None)
    ]
    assert [row["text"] for row in rows] == [
        *("two\r\nlines", "", None, None, "caf\\xe9", "fine", "nul \0 inside", "!refused", 'a "quoted" text')
    ]
    assert [row["id"] for row in rows] == ["1", "2", None, None, "5", "6", "7", "8", "9"]
    assert [row["id_2"] for row in rows] == ["a", "b", None, None, "c", "\\xff\\", "d", "e", "f"]
    assert [row["input_label"] for row in rows] == ["pos", "", None, None, "neg", "neg", "\0", "neg", "x;y"]
    # Each row has its own text's scores, not a neighbour's.
    assert [row["tokens"] for row in rows] == [10, None, None, None, None, 4, 12, 8, 15]
    assert [row["truncated"] for row in rows] == [False, None, None, None, None, False, True, False, True]
    assert [row["unknown_tokens"] for row in rows] == [0, None, None, None, None, 0, 0, 0, 1]
    assert [row["score"] is None for row in rows] == [row["label"] is None for row in rows]
    assert [row["label"] for row in rows] == ["good", None, None, None, None, "good", "good", None, "good"]
    assert rows[5]["score"] == pytest.approx(0.996)


@pytest.mark.parametrize("size", [BlockSize(1, 9, 9), BlockSize(4, 10**6, 10**6), BlockSize(10**6, 20, 10**6)])
def test_blocks_change_nothing(tmp_path: Path, size: BlockSize) -> None:
    (tmp_path / "n.csv").write_bytes(NASTY)
    assert predicted(tmp_path / "n.csv", size=size).equals(
        predicted(tmp_path / "n.csv", size=BlockSize(99, 9**9, 9**9))
    )


def test_shards_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_bytes(NASTY)
    whole = predicted(tmp_path / "n.csv")
    for shard_bytes in (7, 30, 64):
        assert predicted(tmp_path / "n.csv", shard_bytes=shard_bytes).equals(whole)


def test_a_cell_over_the_limit_is_a_row_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text(f"text,id\nfine,1\n{'x' * 50},2\nalso,3\n")
    rows = predicted(tmp_path / "n.csv", max_cell_chars=20).to_pylist()
    assert [(row["line"], row["error"], row["id"]) for row in rows] == [
        *((2, None, "1"), (3, "cell_too_long", None), (4, None, "3"))
    ]


def test_a_header_once_more_is_a_row_with_its_cells_and_an_error(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_bytes(b"text,label\none,pos\n\xef\xbb\xbftext,label\ntwo,neg\n")
    rows = predicted(tmp_path / "n.csv").to_pylist()
    assert [(row["line"], row["text"], row["error"]) for row in rows] == [
        (2, "one", None),
        (3, "\ufefftext", "repeated_header"),
        (4, "two", None),
    ]


def test_a_second_header_in_another_order_ends_the_job(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_bytes(b"text,label\none,pos\nlabel,text\nneg,two\n")
    with pytest.raises(DataError, match=r"n\.csv:3: a second header, in another order: label, text"):
        predicted(tmp_path / "n.csv")


def test_each_label_has_its_score_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("text\nfour\n!\n")
    rows = predicted(tmp_path / "n.csv", all_scores=True).to_pylist()
    assert rows[0]["score_bad"] == pytest.approx(0.004)
    assert rows[0]["score_good"] == pytest.approx(0.996)
    assert (rows[1]["score_bad"], rows[1]["score_good"]) == (None, None)


def test_without_a_header_columns_are_called_by_their_position(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("one,a\ntwo,b\n")
    rows = predicted(tmp_path / "n.csv", header=False, text_columns="0").to_pylist()
    assert [(row["0"], row["1"], row["line"]) for row in rows] == [("one", "a", 1), ("two", "b", 2)]


def test_a_file_without_rows_gives_none(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("text,id\n")
    table = predicted(tmp_path / "n.csv")
    assert (len(table), table.column_names[:2]) == (0, ["text", "id"])


# --- columns ---------------------------------------------------------------------------------------------------------

OURS = ["file", "line", "label", "score", "tokens", "truncated", "unknown_tokens", "error"]


def test_our_columns_keep_their_names_and_those_of_the_input_give_way() -> None:
    columns = Columns.plan([["text", "label", "error", "input_error", "text"]], SINGLE_LABEL, LABELS, all_scores=False)
    assert columns.schema.names == ["text", "input_label", "input_error", "input_input_error", "text_2", *OURS]
    assert columns.renamed == {
        "input_label": "label",
        "input_error": "error",
        "input_input_error": "input_error",
        "text_2": "text",
    }


def test_a_column_gives_way_to_a_score_only_where_scores_are_asked_for() -> None:
    for all_scores, name in ((False, "score_good"), (True, "input_score_good")):
        assert Columns.plan([["score_good"]], SINGLE_LABEL, LABELS, all_scores=all_scores).inputs == (name,)


def test_files_may_differ_in_their_columns() -> None:
    columns = Columns.plan([["text", "a"], ["b", "text"], ["text", "text"]], SINGLE_LABEL, LABELS, all_scores=False)
    assert columns.inputs == ("text", "a", "b", "text_2")
    assert columns.positions == ((0, 1, None, None), (1, None, 0, None), (0, None, None, 1))


@given(st.lists(st.lists(st.sampled_from(["a", "label", "input_label", "a_2", "", "file", "\udcff"]))))
def test_no_two_columns_have_one_name_and_no_field_is_left_out(headers: list[list[str]]) -> None:
    columns = Columns.plan(headers, SINGLE_LABEL, LABELS, all_scores=True)
    names = columns.schema.names
    assert len(set(names)) == len(names)
    for header, positions in zip(headers, columns.positions, strict=True):
        assert sorted(p for p in positions if p is not None) == list(range(len(header)))


def test_bytes_that_cannot_be_decoded_are_spelt_out() -> None:
    assert printable(b"caf\xe9".decode("utf-8", "surrogateescape")) == r"caf\xe9"
    assert printable("\ud800x") == r"\ud800x"
    assert printable("café 🎬") == "café 🎬"


# --- files -----------------------------------------------------------------------------------------------------------

cells = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))


@given(st.lists(st.tuples(cells, cells, st.booleans() | st.none(), st.floats(width=32, allow_nan=False) | st.none())))
def test_a_csv_part_says_what_a_parquet_part_says(rows: list[tuple[object, ...]]) -> None:
    schema = pa.schema([("a", pa.string()), ("é,\n", pa.string()), ("c", pa.bool_()), ("d", pa.float32())])
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    table = pa.table([pa.array(values, kind) for values, kind in zip(columns, schema.types, strict=True)], schema)
    files = {}
    for suffix, encoding in (("parquet", "utf-8"), ("csv", "utf-8"), ("excel", "utf-8-sig")):
        files[suffix] = io.BytesIO()
        with table_writer(files[suffix], schema, suffix, encoding) as writer:
            writer.write_table(table)
    assert files["excel"].getvalue() == codecs.BOM_UTF8 + files["csv"].getvalue()
    parquet = pq.read_table(io.BytesIO(files["parquet"].getvalue())).to_pylist()
    header, *found = csv.reader(io.StringIO(files["csv"].getvalue().decode(), newline=""))
    assert header == schema.names
    assert len(found) == len(parquet) == len(rows)
    for text, row in zip(found, parquet, strict=True):
        assert text[0] == (row["a"] or "")
        assert text[1] == (row["é,\n"] or "")
        assert text[2] == {None: "", True: "true", False: "false"}[row["c"]]
        assert (np.float32(text[3]) if text[3] else None) == row["d"]
