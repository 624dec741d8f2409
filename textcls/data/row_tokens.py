"""Token ids of the rows of a table, as columns beside them.

In: a table of rows (row_tables.py) and a tokenizer. Out: the table with the columns that training and its statistics
read, and counts of placeholders. Pure. Not here: text -> token ids (text/tokenizer.py), Ray (read.py).
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textcls.data.row_tables import inputs_of
from textcls.text.tokenizer import tokenizer_of
from textcls.text.tokenizer_files import TokenizerFiles

# What training reads of `tokenized`, as far as a table has it.
TOKEN_COLUMNS = ("input_ids", "windows", "second")


def tokenized(table: pa.Table, tokenizer: TokenizerFiles, on_long: str = "truncate") -> pa.Table:
    """The table with the columns that training reads.

    Args:
        table: a table of `schema_of`.
        tokenizer: of the run.
        on_long: `TextSpec.on_long`.

    Returns:
        `input_ids`: list<int32>, cut to the tokenizer's limit, not padded. `tokens`: int32, the number before the cut.
        `unknown`: int32, how many of the input_ids stand for something that the vocabulary lacks.
        Where long texts become windows, `input_ids` holds all windows of the row, one after another, and `windows`:
        list<int32> the length of each.
        For pairs also `first_tokens` and `second_tokens`: int32, the number of each text before the cut, without
        special tokens; and `second`, int32, as `EncodedPairs.seconds`, if the model reads token types.
    """
    if "text_pair" in table.column_names:
        return _tokenized_pairs(table, tokenizer)
    encode = tokenizer_of(tokenizer, on_long) if on_long == "windows" else tokenizer_of(tokenizer)
    ids: list[list[int]] = []
    parts: list[list[list[int]]] = []
    lengths = np.empty(0, np.int32)
    # Rows without a text are encoded as empty strings: this keeps the columns aligned and costs next to nothing.
    if table.num_rows and on_long == "windows":
        parts, lengths = encode.windows(inputs_of(table))
        ids = [list(chain.from_iterable(of_row)) for of_row in parts]
    elif table.num_rows:
        ids, lengths = encode(inputs_of(table))
    column = pa.array(ids, pa.list_(pa.int32()))
    unknown = _unknown(column, encode.unknown_id)
    table = table.append_column("input_ids", column)
    if on_long == "windows":
        unknown = np.fromiter(map(encode.unknown, parts), np.int32, len(parts))
        windows = [list(map(len, of_row)) for of_row in parts]
        table = table.append_column("windows", pa.array(windows, pa.list_(pa.int32())))
    table = table.append_column("tokens", pa.array(lengths, pa.int32()))
    return table.append_column("unknown", pa.array(unknown, pa.int32()))


def _tokenized_pairs(table: pa.Table, tokenizer: TokenizerFiles) -> pa.Table:
    encode = tokenizer_of(tokenizer)
    pairs = encode.pairs(inputs_of(table))
    column = pa.array(pairs.ids, pa.list_(pa.int32()))
    added = {
        "unknown": _unknown(column, encode.unknown_id),
        "tokens": pairs.counts,
        "first_tokens": pairs.first_counts,
        "second_tokens": pairs.second_counts,
    }
    if pairs.seconds is not None:
        added["second"] = pairs.seconds
    table = table.append_column("input_ids", column)
    for name, numbers in added.items():
        table = table.append_column(name, pa.array(numbers, pa.int32()))
    return table


def _unknown(ids: pa.ListArray, unknown_id: int | None) -> np.ndarray:
    """int32 [N]: how many of the ids of each row are this one."""
    if unknown_id is None:
        return np.zeros(len(ids), np.int32)
    places = np.flatnonzero(ids.values.to_numpy() == unknown_id)
    before: np.ndarray = np.searchsorted(places, ids.offsets.to_numpy()).astype(np.int32)
    return np.diff(before)


def placeholder_counts(ids: pa.ChunkedArray, codes: np.ndarray, placeholders: Sequence[int]) -> np.ndarray:
    """int64 [3, K]: how many of each placeholder the rows of each split hold.

    Args:
        ids: `input_ids` of N rows.
        codes: int8 [N], split codes; other codes than 0, 1 and 2 are not counted.
        placeholders: K token ids.
    """
    column = ids.combine_chunks()
    values, lengths = column.flatten().to_numpy(), pc.list_value_length(column).to_numpy()
    places = np.flatnonzero(np.isin(values, placeholders))
    codes_of = codes[np.searchsorted(np.cumsum(lengths), places, side="right")]
    found = [[np.count_nonzero(values[places[codes_of == code]] == one) for one in placeholders] for code in range(3)]
    return np.array(found, np.int64).reshape(3, len(placeholders))
