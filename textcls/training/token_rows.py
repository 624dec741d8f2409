"""Ragged token ids and targets -> padded tensors.

In: Arrow tables (input_ids: list<int32>, target: number or fixed-size list, for pairs second: int32), read in place
from the object store. Out: tensors of one batch, padded to its longest row and no further. Not here: which rows make a
batch (batch_plan.py), the meaning of a target (tasks/).

Shapes: B rows of a batch, L tokens of its longest row, N rows of the split; T as in tasks/task.py: nothing, or [C].
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
        attention_mask_BL: int64 of 0 and 1, or None if no row is padded (attention then skips the mask).
        targets_B: [B, *T], see `target_tensor`.
        token_types_BL: int64 of 0 and 1, or None if the model reads no token types.
    """

    input_ids_BL: torch.Tensor
    attention_mask_BL: torch.Tensor | None
    targets_B: torch.Tensor
    token_types_BL: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""

        def moved(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        ids_BL, targets_B = (tensor.to(device, non_blocking=True) for tensor in (self.input_ids_BL, self.targets_B))
        return Batch(ids_BL, moved(self.attention_mask_BL), targets_B, moved(self.token_types_BL))


class TokenRows:
    """The rows of one split, addressed by position; the token ids stay where they are.

    Attributes:
        lengths: int32 [N], tokens of each row after the cut.
        targets: [N, *T], as the task encoded them.
        seconds: int32 [N], where the second segment of each pair begins; None if the model reads no token types.
    """

    def __init__(self, tables: Sequence[Any]) -> None:
        values, offsets, targets, seconds = [], [], [], []
        for table in tables:
            for chunk in table.to_batches():  # columns of a table may be chunked differently, or not at all
                values.append(chunk["input_ids"].values.to_numpy())
                offsets.append(chunk["input_ids"].offsets.to_numpy())
                targets.append(_targets_of(chunk["target"]))
                if "second" in chunk.schema.names:
                    seconds.append(chunk["second"].to_numpy())
        self._values, self._offsets = values, offsets
        self._first_row = np.cumsum([0] + [len(target) for target in targets])
        self.targets = np.concatenate(targets) if targets else np.empty(0, np.int32)
        self.lengths = (
            np.concatenate([np.diff(o) for o in offsets]).astype(np.int32) if offsets else np.empty(0, np.int32)
        )

        self.seconds = np.concatenate(seconds) if seconds else None

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, rows: np.ndarray, pad_id: int) -> Batch:
        """The rows at these positions (int64 [B]) as one padded batch, in the order given."""
        chunks = np.searchsorted(self._first_row, rows, side="right") - 1
        starts = [self._offsets[c][row - self._first_row[c]] for c, row in zip(chunks, rows, strict=True)]
        lengths_B = self.lengths[rows]
        cut = zip(chunks, starts, lengths_B, strict=True)
        ids_BL, mask_BL = padded([self._values[c][start : start + length] for c, start, length in cut], pad_id)
        types_BL = None if self.seconds is None else token_types(self.seconds[rows], ids_BL.shape[1])
        return Batch(ids_BL, mask_BL, target_tensor(self.targets[rows]), types_BL)


def target_tensor(targets: np.ndarray) -> torch.Tensor:
    """[N, *T] as torch's losses take it: whole numbers as int64, others as they are."""
    return torch.from_numpy(targets.astype(np.int64) if targets.dtype.kind in "iu" else targets)


def _targets_of(column: Any) -> np.ndarray:
    """[N, *T] of an Arrow array of numbers or of lists of one length."""
    if not hasattr(column.type, "list_size"):
        found: np.ndarray = column.to_numpy()
        return found
    flat: np.ndarray = column.flatten().to_numpy()
    return flat.reshape(-1, column.type.list_size)
