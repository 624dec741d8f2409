"""What an operator reads of a hot reload."""

from typing import Any

import pytest

from textcls.serving.local_service import outcome_of

TOOK: dict[str, Any] = {"loads": 1, "labels": ["a"], "problem": ""}
REFUSED = TOOK | {"problem": "/new: model.safetensors is damaged\n  to do:    copy it again"}


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        ([TOOK, TOOK], "now serving /new"),
        ([REFUSED], "refused: /new: model.safetensors is damaged to do: copy it again; still serving /old"),
        ([TOOK, REFUSED], "1 of 2 replicas took it, the others are still serving /old"),
        ([], "no replica has told"),
    ],
    ids=["loaded", "refused", "in part", "silent"],
)
def test_a_hot_reload_is_told_in_one_line_with_what_serves_then(outcomes: list[dict[str, Any]], told: str) -> None:
    line = outcome_of(outcomes, "/new", "/old")
    assert told in line
    assert "\n" not in line
