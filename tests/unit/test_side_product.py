"""A side product that fails costs one line. `pytest tests/unit/test_side_product.py`"""

import pytest

from textcls.errors import StorageError
from textcls.output.side_product import side_product


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "MemoryError"),
        (KeyError("accuracy"), "KeyError: 'accuracy'"),
        (StorageError("/full: no room", todo="free some space"), "/full: no room"),
        (ValueError("http://me:hidden@server/x\nand more"), "ValueError: http://***@server/x"),
    ],
)
def test_a_failure_is_one_line_that_names_what_is_missing_and_why(error: Exception, told: str) -> None:
    said: list[str] = []
    with side_product("report.png", said.append):
        raise error
    assert said == [f"  report.png failed; the job continues without it: {told}"]


def test_what_works_is_not_mentioned_and_an_interruption_is_not_a_failure() -> None:
    said: list[str] = []
    with side_product("report.png", said.append):
        pass
    with pytest.raises(KeyboardInterrupt), side_product("report.png", said.append):
        raise KeyboardInterrupt
    assert said == []
