"""What someone sees who watches a run at a terminal."""

import os
import pty
import re
from pathlib import Path

from .conftest import BOUND_S, User

_BAR = re.compile(r"step [\d,]+ of 210 · loss \d\.\d{3} · [\d,]+ tokens/s · \d+:\d\d left")


def test_terminal_shows_a_bar_with_loss_rate_and_time_left(cluster_user: User, tmp_path: Path) -> None:
    shown, terminal = pty.openpty()
    user = User(cluster_user.home, cluster_user.shell | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"})
    running = user.starts(
        *("--out", "out", "--set", "train.epochs=1"), stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    try:
        seen = _all_of(shown)
        assert running.process.wait(BOUND_S) == 0, seen
    finally:
        running.kill()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert "\x1b" not in text
    assert "�" not in text
    assert _BAR.search(text)
    assert "epoch 1 of 1: validation macro F1" in text
    assert "Traceback" not in text
    assert re.search(r"^\d+\.\d s in all, first step after \d+\.\d s\r?$", text, re.MULTILINE)


def _all_of(shown: int) -> str:
    """Everything that is written to a terminal until its last writer leaves."""
    pieces = []
    try:
        while piece := os.read(shown, 65536):
            pieces.append(piece)
    except OSError:  # how Linux says that nobody writes any more
        pass
    os.close(shown)
    return b"".join(pieces).decode(errors="replace")
