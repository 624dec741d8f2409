"""What an operator reads of a hot reload."""

import pytest

from textcls.serving.local.service import outcome_of

REFUSED = "/new: model.safetensors is damaged\n  to do:    copy it again"


@pytest.mark.parametrize(
    ("problems", "told"),
    [
        ([None, None], "now serving /new"),
        ([REFUSED], "refused: /new: model.safetensors is damaged to do: copy it again; still serving /old"),
        ([None, REFUSED], "1 of 2 replicas loaded it, the others are still serving /old"),
        ([], "no replica has reported"),
    ],
    ids=["loaded", "refused", "in part", "silent"],
)
def test_a_hot_reload_is_told_in_one_line_with_what_serves_then(problems: list[str | None], told: str) -> None:
    line = outcome_of(problems, "/new", "/old")
    assert told in line
    assert "\n" not in line
