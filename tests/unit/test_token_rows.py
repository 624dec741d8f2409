"""The laws of textcls/training/token_rows.py: a batch holds its windows, padded to the longest and no further."""

import numpy as np
import pyarrow as pa
import torch
from hypothesis import given
from hypothesis import strategies as st

from textcls.training.token_rows import TokenRows

PAD = 7
ROW = st.tuples(st.lists(st.integers(0, 30_000), min_size=1, max_size=9), st.integers(0, 3))
# Arrow tables of several chunks, each a slice out of the middle of a longer array: so they come from the object store.
CHUNK = st.tuples(st.lists(ROW, max_size=5), st.integers(0, 3), st.integers(0, 3))


def arrow_table(chunks: list[tuple[list, int, int]]) -> tuple[pa.Table, list]:
    """(table, the rows it holds): of each chunk so many rows at the front and the end lie outside the slice."""
    tables, kept = [], []
    for rows, before, after in chunks:
        table = pa.table(
            {
                "input_ids": pa.array([ids for ids, _ in rows], pa.list_(pa.int32())),
                "target": pa.array([label for _, label in rows], pa.int32()),
            }
        )
        stop = max(before, len(rows) - after)
        tables.append(table.slice(before, stop - before))
        kept += rows[before:stop]
    return pa.concat_tables(tables), kept


def test_columns_may_be_chunked_differently() -> None:
    """As after filtering a block from which every row goes to another split."""
    ids = pa.chunked_array([[[1, 2]], [[3]]], pa.list_(pa.int32()))
    uneven = pa.table({"input_ids": ids, "target": pa.chunked_array([[0, 1]], pa.int32())})
    empty = pa.table({"input_ids": pa.chunked_array([], pa.list_(pa.int32())), "target": pa.array([], pa.int32())})
    found = TokenRows([empty, uneven])
    assert found.batch(np.array([1, 0]), PAD).input_ids_BL.tolist() == [[3, PAD], [1, 2]]


@given(parts=st.lists(st.lists(CHUNK, min_size=1, max_size=3), max_size=3), data=st.data())
def test_a_batch_is_its_rows_in_the_order_given(parts: list, data: st.DataObject) -> None:
    built = [arrow_table(part) for part in parts]
    rows = [row for _, kept in built for row in kept]
    found = TokenRows([table for table, _ in built])

    assert len(found) == len(rows)
    assert found.lengths.tolist() == [len(ids) for ids, _ in rows]
    assert found.targets.tolist() == [label for _, label in rows]
    assert (found.lengths.dtype, found.targets.dtype) == (np.int32, np.int32)
    if not rows:
        return

    places = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=12))
    batch = found.batch(np.array(places), PAD)
    chosen = [rows[place] for place in places]
    longest = max(len(ids) for ids, _ in chosen)
    padded = [ids + [PAD] * (longest - len(ids)) for ids, _ in chosen]
    mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in chosen]

    assert found.windows_of(np.array(places)).tolist() == places
    assert batch.input_ids_BL.tolist() == padded
    assert (batch.shares_B == 1).all()
    assert batch.targets_B.tolist() == [label for _, label in chosen]
    assert batch.input_ids_BL.dtype == batch.targets_B.dtype == torch.int64
    if any(0 in row for row in mask):
        assert batch.attention_mask_BL is not None
        assert batch.attention_mask_BL.tolist() == mask
        assert batch.attention_mask_BL.dtype == torch.int64
    else:
        assert batch.attention_mask_BL is None


@given(
    parts=st.lists(st.lists(CHUNK, min_size=1, max_size=3), min_size=1, max_size=3), data=st.data(), longest=st.just(4)
)
def test_rows_of_several_windows_are_found_window_by_window(parts: list, data: st.DataObject, longest: int) -> None:
    """Each row is cut into windows of at most `longest` tokens here."""
    built = [arrow_table(part) for part in parts]
    rows = [row for _, kept in built for row in kept]
    windows = [[ids[i : i + longest] for i in range(0, len(ids), longest)] for ids, _ in rows]
    tables, taken = [], 0
    for table, kept in built:
        lengths = [list(map(len, of_row)) for of_row in windows[taken : taken + len(kept)]]
        # A row before the first, so that the column begins inside its values.
        column = pa.array([[9], *lengths], pa.list_(pa.int32())).slice(1)
        tables.append(table.append_column("windows", column))
        taken += len(kept)
    found = TokenRows(tables)

    assert len(found) == len(rows)
    assert found.lengths.tolist() == [len(ids) for ids, _ in rows]
    assert found.window_lengths.tolist() == [len(window) for of_row in windows for window in of_row]
    assert found.windows_of_row.tolist() == list(map(len, windows))
    if not rows:
        return

    places = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=6))
    numbers = found.windows_of(np.array(places))
    batch = found.batch(numbers, PAD)
    expected = [(window, place) for place in places for window in windows[place]]
    assert [
        row[:length] for row, length in zip(batch.input_ids_BL.tolist(), found.window_lengths[numbers], strict=True)
    ] == [window for window, _ in expected]
    assert batch.targets_B.tolist() == [rows[place][1] for _, place in expected]
    np.testing.assert_allclose(batch.shares_B, [1 / len(windows[place]) for _, place in expected], rtol=1e-6)


def test_the_token_ids_stay_where_they_are() -> None:
    values = pa.array(range(10), pa.int32())
    table = pa.table(
        {
            "input_ids": pa.ListArray.from_arrays(pa.array([0, 4, 10], pa.int32()), values),
            "target": pa.array([0, 1], pa.int32()),
        }
    )
    before = pa.total_allocated_bytes()
    rows = TokenRows([table] * 1000)
    assert pa.total_allocated_bytes() == before
    assert rows.batch(np.array([1999]), PAD).input_ids_BL.tolist() == [[4, 5, 6, 7, 8, 9]]


def test_a_batch_moves_whole() -> None:
    table, _ = arrow_table([([([1, 2], 0), ([3], 1)], 0, 0)])
    rows = TokenRows([table])
    for places in ([0, 1], [0]):
        batch = rows.batch(np.array(places), PAD)
        moved = batch.to(torch.device("meta"))
        assert [None if part is None else part.device.type for part in moved] == [
            None if part is None else "meta" for part in batch
        ]
