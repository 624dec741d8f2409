"""The suggested `text.max_tokens`: what it leaves whole, what it costs, and that the settings do what they say."""

import numpy as np

from textcls.data.token_limits import suggestion
from textcls.modeling.pretrained import most_tokens
from textcls.settings.recipe import TextSpec
from textcls.settings.recipe_file import parse_recipe


def told(lengths: list[int], limit: int, most: int | None = 512, *, on_long: str = "truncate", **more: bool) -> str:
    text = TextSpec(max_tokens=limit, on_long=on_long)
    return suggestion(np.bincount(lengths, minlength=1), text, most, **more) or ""


def advised(text: str) -> list[str]:
    return [option.split()[0].rstrip(";,") for option in text.split("--set ")[1:]]


# 100 rows of 1 to 100 tokens.
ROWS = list(range(1, 101))


def test_limits_for_95_and_99_percent_come_with_their_costs() -> None:
    found = told(ROWS, 64)
    assert found == (
        "--set text.max_tokens=96 leaves 96.0% of the rows whole, at 1.15 times the tokens (44 -> 50 a row); "
        "--set text.max_tokens=104 leaves 100.0% of the rows whole, at 1.15 times the tokens (44 -> 50 a row)"
    )


def test_an_advised_limit_does_what_it_says() -> None:
    for option, share in zip(advised(told(ROWS, 64)), (0.96, 1.0), strict=True):
        limit = parse_recipe("", [option], source="recipe").text.max_tokens
        assert sum(length <= limit for length in ROWS) / len(ROWS) == share
        assert told(ROWS, limit) == "" or limit < 99


def test_nothing_is_said_where_hardly_a_row_is_cut() -> None:
    assert told(ROWS, 99) == ""
    # No row is padded to the limit: a smaller one would save nothing.
    assert told(ROWS, 512) == ""
    assert told([], 64) == ""


def test_no_limit_is_advised_that_the_model_does_not_take() -> None:
    found = told([50] * 90 + [600] * 10, 128, 512)
    assert advised(found) == ["text.max_tokens=512", "text.on_long=windows"]
    assert "leaves 90.0% of the rows whole, at 1.66 times the tokens" in found
    assert "the model takes 512 tokens at most" in found
    assert parse_recipe("", advised(found), source="recipe").text.on_long == "windows"
    assert advised(told([50] * 90 + [600] * 10, 512, 512)) == ["text.on_long=windows"]


def test_pairs_and_rows_that_are_windows_already_are_not_advised_to_become_windows() -> None:
    long = [50] * 90 + [600] * 10
    assert "windows" not in told(long, 128, 512, pairs=True)
    assert told(long, 512, 512, pairs=True) == ""
    assert told(long, 128, 512, on_long="windows") == ""


def test_a_model_without_a_limit_of_its_own_takes_any() -> None:
    assert advised(told([50] * 90 + [600] * 10, 128, None)) == ["text.max_tokens=600"]


def test_the_model_s_limit_is_found_in_its_files() -> None:
    assert most_tokens({"max_position_embeddings": 512, "pad_token_id": 0}, {}) == 512
    # RoBERTa's kind begins to count after the padding token.
    assert most_tokens({"max_position_embeddings": 514, "pad_token_id": 1}, {}) == 512
    assert most_tokens({"max_position_embeddings": 512}, {"model_max_length": 256}) == 256
    assert most_tokens({"max_position_embeddings": 512}, {"model_max_length": int(1e30)}) == 512
    assert most_tokens({"max_position_embeddings": 1024, "pad_token_id": 50256}, {}) == 1024
    assert most_tokens({}, {}) is None
