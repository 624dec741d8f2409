"""Which `text.max_tokens` suits the rows: how many it leaves whole, and what that costs.

In: how many rows have each number of tokens, the limit in use, and the model's own. Out: a sentence with settings, or
nothing where hardly any row is cut. A smaller limit that cuts no row saves nothing, since no row is padded to the
limit. Pure; not here: counting tokens (row_tables.py), finding the model's limit (training/inputs.py).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from textcls.settings.recipe import TextSpec
from textcls.settings.yaml_text import set_option

# Where the larger share of the rows is whole, nothing is said.
_SHARES = (0.95, 0.99)
# Limits are multiples of this: easier to remember, and kernels like them.
_STEP = 8


class _Limit(NamedTuple):
    """A limit, the share of the rows that it leaves whole, and the mean number of tokens a row that it keeps."""

    tokens: int
    whole: float
    mean: float

    @classmethod
    def of(cls, bins: np.ndarray, tokens: int) -> "_Limit":
        """What a limit does to rows by number of tokens."""
        rows = int(bins.sum())
        kept = bins @ np.minimum(np.arange(len(bins)), tokens)
        return cls(tokens, float(bins[: tokens + 1].sum() / rows), float(kept / rows))


def suggestion(bins: np.ndarray, text: TextSpec, most: int | None, *, pairs: bool = False) -> str | None:
    """The limits that leave 95 and 99 % of the rows whole, with their costs; None if the one in use is as good.

    Args:
        bins: int64 [L], rows by number of tokens before any cut.
        text: the settings in use.
        most: the most tokens that the model takes; None if it has no limit of its own.
        pairs: whether the rows are pairs of texts, which are never read as windows.
    """
    if text.on_long == "windows" or not bins.sum():
        return None
    now = _Limit.of(bins, text.max_tokens)
    if now.whole >= _SHARES[-1]:
        return None
    better = list(_better(bins, now, most))
    told = [
        f"{set_option('text.max_tokens', one.tokens)} leaves {one.whole:.1%} of the rows whole, at "
        f"{one.mean / now.mean:.2f} times the tokens ({now.mean:.0f} -> {one.mean:.0f} a row)"
        for one in better
    ]
    longest = better[-1] if better else now
    if longest.whole < _SHARES[0] and not pairs:
        whole = f"{set_option('text.on_long', 'windows')} trains on and scores whole texts, as windows"
        told.append(f"the model takes {most or longest.tokens} tokens at most; {whole}")
    return "; ".join(told) or None


def _better(bins: np.ndarray, now: _Limit, most: int | None) -> Iterator[_Limit]:
    """The limits above the one in use that leave the wanted shares whole, as far as the model goes."""
    running, last = np.cumsum(bins), now.tokens
    for share in _SHARES:
        needed = int(np.searchsorted(running, share * running[-1]))
        tokens = -(-needed // _STEP) * _STEP
        tokens = tokens if most is None else min(tokens, most)
        if tokens > last:
            last = tokens
            yield _Limit.of(bins, tokens)
