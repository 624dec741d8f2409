"""Texts that are nearly the same: what a comparison of each with each finds, and nothing else."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcls.settings.recipe import TextSpec
from textcls.text import near_duplicates
from textcls.text.near_duplicates import Shingles, near_pairs, repeats
from textcls.text.normalizer import normalizer_of
from textcls.text.text_input import TextInput

NORMALIZE = normalizer_of(TextSpec())
WORDS = ["great", "film", "a", "the plot", "boring", "café", "映画", "10/10", "!", "dull"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join), min_size=1, max_size=30)


def shingles(texts: list[str]) -> Shingles:
    return Shingles.of([TextInput(text) for text in texts], NORMALIZE)


def sets(texts: list[str]) -> list[set[str]]:
    spelt = [" ".join(text.lower().split()) for text in texts]
    return [{text[i : i + 5] for i in range(max(1, len(text) - 4))} for text in spelt]


def by_hand(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    """Each with each."""
    found = {}
    for i, one in enumerate(sets(texts)):
        for j, other in enumerate(sets(texts)):
            similarity = len(one & other) / len(one | other)
            if similarity >= threshold and i != j:
                found[i, j] = similarity
    return found


def collected(rows: Shingles, threshold: float = near_duplicates.THRESHOLD) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for row, other, similarity in near_pairs(rows, threshold):
        pairs = list(zip(row.tolist(), other.tolist(), strict=True))
        assert pairs == sorted(set(pairs))
        assert not found.keys() & set(pairs), "each pair once"
        found |= dict(zip(pairs, similarity.tolist(), strict=True))
    assert all((other, row) in found for row, other in found), "either way round"
    return found


@given(TEXTS, st.sampled_from([0.5, 0.7, 0.9, 1.0]), st.sampled_from([1, 40, 2**20]))
def test_pairs_are_those_of_a_comparison_of_each_with_each(texts: list[str], threshold: float, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_BLOCK_PAIRS", "_BLOCK_SHINGLES", "_BLOCK_CHARS"):
            patch.setattr(near_duplicates, name, block)
        expected = by_hand(texts, threshold)
        found = collected(shingles(texts), threshold)
        assert found == {pair: pytest.approx(expected[pair]) for pair in found}
        assert {pair for pair, similarity in expected.items() if similarity >= 0.9} <= found.keys()


def test_of_pairs_at_the_threshold_hardly_one_is_missed() -> None:
    chance = random.Random(1)
    texts, copies = [], []
    for _ in range(2000):
        text = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz ", k=60)).strip()
        at = chance.randrange(5, 50)
        texts.append(text)
        copies.append(f"{text[:at]}{chance.choice('éàü')}{text[at + 1 :]}{chance.choice(['', '!', ' ...'])}")
    expected = {
        i: len(one & other) / len(one | other)
        for i, (one, other) in enumerate(zip(sets(copies), sets(texts), strict=True))
    }
    near = [i for i, similarity in expected.items() if 0.7 <= similarity < 0.9]
    pairs = collected(shingles([*texts, *copies]))
    found = [i for i in near if (i, len(texts) + i) in pairs]
    assert len(near) > 1000
    assert len(found) >= 0.99 * len(near)
    assert all(pairs[i, len(texts) + i] == pytest.approx(expected[i]) for i in found)


def test_copies_with_small_edits_are_found_among_other_texts() -> None:
    chance = random.Random(0)
    vocabulary = ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 9))) for _ in range(800)]
    texts = [" ".join(chance.choices(vocabulary, k=25)) for _ in range(400)]
    copies = [f"{texts[7]} !", texts[11].upper(), f"re: {texts[200]}", texts[300].replace(" ", "  ")]
    pairs = collected(shingles([*texts, *copies, "something else"]))
    assert {pair for pair in pairs if pair[0] < pair[1]} == {(7, 400), (11, 401), (200, 402), (300, 403)}
    assert pairs[11, 401] == pairs[300, 403] == 1
    assert repeats(shingles([*texts, *copies])).tolist() == [False] * len(texts) + [True] * len(copies)


def test_rows_of_one_template_are_not_compared_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_MOST_APART", 2)
    rows = shingles([f"your order {i:04d} has been shipped and will arrive in five working days" for i in range(300)])
    assert len(collected(rows)) <= 300 * 4 * near_duplicates._BANDS < 300 * 299
    assert repeats(rows).tolist() == [False] + [True] * 299


def test_a_pair_is_compared_as_a_whole() -> None:
    one, swapped = TextInput("a b c d e f", "x y z u v w"), TextInput("x y z u v w", "a b c d e f")
    near = TextInput("a b c d e f", "x y z u v w !")
    assert collected(Shingles.of([one, swapped, near], NORMALIZE), 0.8).keys() == {(0, 2), (2, 0)}


def test_no_rows_have_no_duplicates() -> None:
    nothing, one = shingles([]), shingles(["a film"])
    assert collected(nothing) == collected(one) == {}
    assert repeats(nothing).tolist() == []
    assert np.array_equal(repeats(one), [False])
