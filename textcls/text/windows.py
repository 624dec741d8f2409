"""Long texts as windows: how far these overlap, and what the scores of its windows say of a text.

In: a limit of tokens; the probabilities of windows. Out: numbers. Training, evaluation, batch jobs and HTTP all take
them from here. Pure numpy. Not here: making windows (tokenizer.py), whether a bundle has them (`text.on_long`).

Shapes: W windows, N texts, C labels.
"""

import numpy as np

_OVERLAP = 0.25


def overlap_of(max_tokens: int) -> int:
    """Tokens that neighbouring windows of at most `max_tokens` tokens share: a quarter of the limit."""
    return int(max_tokens * _OVERLAP)


def mean_over_windows(probabilities: np.ndarray, lengths: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """float64 [N, C]: the probabilities of texts; NaN for a text without windows.

    A window counts by its tokens: the last one of a text is often short.

    Args:
        probabilities: float [W, C] of all windows, text by text.
        lengths: int [W], tokens of each window.
        windows: int [N], windows of each text.
    """
    sums_NC, tokens_N = np.zeros((len(windows), probabilities.shape[1])), np.zeros(len(windows))
    text_W = np.repeat(np.arange(len(windows)), windows)
    np.add.at(sums_NC, text_W, probabilities * lengths[:, None])
    np.add.at(tokens_N, text_W, lengths)
    with np.errstate(invalid="ignore"):
        means_NC: np.ndarray = sums_NC / tokens_N[:, None]
    return means_NC
