"""Ragged token ids and targets -> padded tensors.

In: Arrow tables (input_ids: list<int32>, target: number or fixed-size list; with `text.on_long: windows` also windows:
list<int32>; for pairs second: int32), read in place from the object store. Out: tensors of one batch, padded to its
longest window and no further. Not here: which rows make a batch (batch_plan.py), the meaning of a target (tasks/).

A row is one window, or several if its text is long. A step takes whole rows; a batch of tensors holds windows.

Shapes: B windows of a batch, L tokens of its longest, N rows and W windows of the split; T as in tasks/task.py:
nothing, or [C].
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from textcls.modeling.batching import padded, token_types


class Batch(NamedTuple):
    """Tensors of one (micro-)batch.

    Attributes:
        input_ids_BL: int64.
        attention_mask_BL: int64 of 0 and 1, or None if no window is padded (attention then skips the mask).
        targets_B: [B, *T], see `target_tensor`; a window has the target of its row.
        shares_B: float32, what a window counts in the mean over the windows of its row; 1 for a row of one window.
        token_types_BL: int64 of 0 and 1, or None if the model reads no token types.
    """

    input_ids_BL: torch.Tensor
    attention_mask_BL: torch.Tensor | None
    targets_B: torch.Tensor
    shares_B: torch.Tensor
    token_types_BL: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        moved = (None if part is None else part.to(device, non_blocking=True) for part in self)
        return Batch(*moved)  # type: ignore[arg-type]


class TokenRows:
    """The rows of one split, addressed by position; the token ids stay where they are.

    Attributes:
        lengths: int32 [N], tokens of each row in all of its windows.
        targets: [N, *T], as the task encoded them.
        window_lengths: int32 [W], tokens of each window; those of a row lie together, in the order of the rows.
        windows_of_row: int32 [N], the number of windows of each row.
        seconds: int32 [N], where the second segment of each pair begins; None if the model reads no token types.
    """

    def __init__(self, tables: Sequence[Any]) -> None:
        values, offsets = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
        windows, targets, seconds = [np.empty(0, np.int32)], [], []
        for table in tables:
            for chunk in table.to_batches():  # columns of a table may be chunked differently, or not at all
                values.append(chunk["input_ids"].values.to_numpy())
                of_rows = chunk["input_ids"].offsets.to_numpy()
                of_windows, counts = _windows_of(chunk, of_rows)
                offsets.append(of_windows)
                windows.append(counts)
                targets.append(_targets_of(chunk["target"]))
                if "second" in chunk.schema.names:
                    seconds.append(chunk["second"].to_numpy())
        self._values, self._offsets = values, offsets
        # Window numbers at which the chunks begin, and the rows.
        self._first_of_chunk = np.cumsum([0] + [len(of_chunk) - 1 for of_chunk in offsets])
        self.windows_of_row = np.concatenate(windows)
        self._first_of_row = np.cumsum(self.windows_of_row) - self.windows_of_row
        self.targets = np.concatenate(targets) if targets else np.empty(0, np.int32)
        self.window_lengths = np.concatenate([np.diff(of_chunk) for of_chunk in offsets]).astype(np.int32)
        self._row_of_window = np.repeat(np.arange(len(self.targets), dtype=np.int32), self.windows_of_row)
        self.lengths = self.window_lengths
        if len(self.window_lengths) > len(self.targets):
            self.lengths = np.add.reduceat(self.window_lengths, self._first_of_row, dtype=np.int32)
        self.seconds = np.concatenate(seconds) if seconds else None

    def __len__(self) -> int:
        return len(self.targets)

    def windows_of(self, rows: np.ndarray) -> np.ndarray:
        """int64: the numbers of all windows of these rows (int64), row by row in the order given."""
        counts = self.windows_of_row[rows]
        first = self._first_of_row[rows] - (np.cumsum(counts) - counts)
        windows: np.ndarray = np.repeat(first, counts) + np.arange(counts.sum())
        return windows

    def batch(self, windows: np.ndarray, pad_id: int) -> Batch:
        """The windows of these numbers (int64 [B]) as one padded batch, in the order given."""
        chunks = np.searchsorted(self._first_of_chunk, windows, side="right") - 1
        starts = [self._offsets[c][one - self._first_of_chunk[c]] for c, one in zip(chunks, windows, strict=True)]
        cut = zip(chunks, starts, self.window_lengths[windows], strict=True)
        ids_BL, mask_BL = padded([self._values[c][start : start + length] for c, start, length in cut], pad_id)
        rows = self._row_of_window[windows]
        shares = (1 / self.windows_of_row[rows]).astype(np.float32)
        types_BL = None if self.seconds is None else token_types(self.seconds[rows], ids_BL.shape[1])
        return Batch(ids_BL, mask_BL, target_tensor(self.targets[rows]), torch.from_numpy(shares), types_BL)


def target_tensor(targets: np.ndarray) -> torch.Tensor:
    """[N, *T] as torch's losses take it: whole numbers as int64, others as they are."""
    return torch.from_numpy(targets.astype(np.int64) if targets.dtype.kind in "iu" else targets)


def _windows_of(chunk: Any, of_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(where each window begins among the token ids, and where the last one ends; int32 [N] windows of each row).

    Args:
        chunk: an Arrow record batch.
        of_rows: int [N + 1], where each row begins, and where the last one ends.
    """
    if "windows" not in chunk.schema.names:
        return of_rows, np.ones(len(of_rows) - 1, np.int32)
    lengths = chunk["windows"].flatten().to_numpy()
    counts = np.diff(chunk["windows"].offsets.to_numpy())
    return of_rows[0] + np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), counts


def _targets_of(column: Any) -> np.ndarray:
    """[N, *T] of an Arrow array of numbers or of lists of one length."""
    if not hasattr(column.type, "list_size"):
        found: np.ndarray = column.to_numpy()
        return found
    flat: np.ndarray = column.flatten().to_numpy()
    return flat.reshape(-1, column.type.list_size)
