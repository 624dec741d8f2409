"""Rows of token ids -> micro-batches that fit in memory, and padded tensors of each.

In: lengths of rows in tokens; ragged token ids. Out: row numbers of each micro-batch; tensors padded to the longest row
of the micro-batch. Not here: which rows form a training step (training/batch_plan.py).

Shapes: B rows of a batch, L tokens of its longest row.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch


def micro_batches(
    rows: np.ndarray, lengths: np.ndarray, max_tokens: int, max_padding: int | None = None
) -> list[np.ndarray]:
    """The rows as micro-batches of at most `max_tokens` padded tokens each, from the longest rows to the shortest.

    Rows of similar length share a micro-batch, and a run that does not fit in memory fails in its first one. A row
    longer than `max_tokens` is a micro-batch of its own. With 2,048 tokens, 40 rows of 128 become 16 + 16 + 8 rows.

    Args:
        rows: row numbers.
        lengths: tokens of every row, indexed by row number.
        max_tokens: the most tokens of a micro-batch, padding included.
        max_padding: the most padding tokens of a micro-batch; above it, another micro-batch costs less than the
            padding.
    """
    by_length = rows[np.argsort(lengths[rows], kind="stable")[::-1]]
    parts = []
    start = 0
    while start < len(by_length):
        longest = max(1, int(lengths[by_length[start]]))
        stop = start + max(1, max_tokens // longest)
        if max_padding is not None:
            padding = np.cumsum(longest - lengths[by_length[start:stop]])
            stop = start + max(1, int(np.searchsorted(padding, max_padding, side="right")))
        parts.append(by_length[start:stop])
        start = stop
    return parts


def padded(rows: Sequence[Sequence[int] | np.ndarray], pad_id: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(input_ids_BL, attention_mask_BL) of at least one row of token ids, as in `Batch`."""
    lengths_B = np.fromiter(map(len, rows), np.int64, len(rows))
    longest = int(lengths_B.max())
    ids_BL = np.full((len(rows), longest), pad_id, np.int64)
    for row_L, ids, length in zip(ids_BL, rows, lengths_B.tolist(), strict=True):
        row_L[:length] = ids
    mask_BL = None
    if int(lengths_B.min()) < longest:
        mask_BL = torch.from_numpy((np.arange(longest) < lengths_B[:, None]).astype(np.int64))
    return torch.from_numpy(ids_BL), mask_BL


def token_types(seconds_B: np.ndarray, longest: int) -> torch.Tensor:
    """int64 [B, longest] of 0 and 1: each row has type 1 from the place on where its second segment begins."""
    return torch.from_numpy((np.arange(longest) >= seconds_B[:, None]).astype(np.int64))


def tokens_at_once(limit: int | Literal["auto"], device: torch.device) -> int:
    """The most padded tokens of a micro-batch. `auto`: 16,384 on a GPU; on CPUs 2,048, which their caches hold.

    On 2 cores, steps of 32 rows of up to 512 tokens take half as long with 2,048 as with 16,384.
    """
    if limit != "auto":
        return limit
    return 2048 if device.type == "cpu" else 16384
