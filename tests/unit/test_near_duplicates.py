"""Texts that are nearly the same: what a comparison of each with each finds, and nothing else."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcls.settings.recipe import TextSpec
from textcls.text import near_duplicates
from textcls.text.near_duplicates import Shingles, most_similar, near_pairs, repeats
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


def by_hand(queries: list[str], rows: list[str], threshold: float, *, same: bool) -> dict[tuple[int, int], float]:
    """Each with each."""
    found = {}
    for i, one in enumerate(sets(queries)):
        for j, other in enumerate(sets(rows)):
            similarity = len(one & other) / len(one | other)
            if similarity >= threshold and not (same and i == j):
                found[i, j] = similarity
    return found


def collected(queries: Shingles, rows: Shingles, threshold: float) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for query, row, similarity in near_pairs(queries, rows, threshold):
        pairs = list(zip(query.tolist(), row.tolist(), strict=True))
        assert pairs == sorted(set(pairs))
        assert not found.keys() & set(pairs), "each pair once"
        found |= dict(zip(pairs, similarity.tolist(), strict=True))
    return found


@given(TEXTS, TEXTS, st.sampled_from([0.5, 0.7, 0.9, 1.0]), st.sampled_from([1, 40, 2**20]))
def test_pairs_are_those_of_a_comparison_of_each_with_each(
    queries: list[str], rows: list[str], threshold: float, block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_BLOCK_PAIRS", "_BLOCK_SHINGLES", "_BLOCK_CHARS"):
            patch.setattr(near_duplicates, name, block)
        for others in (rows, queries):
            one = shingles(queries)
            other = one if others is queries else shingles(others)
            expected = by_hand(queries, others, threshold, same=others is queries)
            found = collected(one, other, threshold)
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
    row, similarity = most_similar(shingles(copies), shingles(texts))
    found = [i for i in near if row[i] == i]
    assert len(near) > 1000
    assert len(found) >= 0.99 * len(near)
    assert all(similarity[i] == pytest.approx(expected[i]) for i in found)


@given(TEXTS, TEXTS)
def test_the_most_similar_row_is_the_first_of_the_best(queries: list[str], rows: list[str]) -> None:
    row, similarity = most_similar(shingles(queries), shingles(rows), 0.9)
    pairs = by_hand(queries, rows, 0.9, same=False)
    for i in range(len(queries)):
        best = max((found for (query, _), found in pairs.items() if query == i), default=0.0)
        firsts = [j for (query, j), found in sorted(pairs.items()) if query == i and found == best]
        assert row[i] == (firsts[0] if firsts else -1)
        assert similarity[i] == pytest.approx(best)


def test_copies_with_small_edits_are_found_among_other_texts() -> None:
    chance = random.Random(0)
    vocabulary = ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 9))) for _ in range(800)]
    texts = [" ".join(chance.choices(vocabulary, k=25)) for _ in range(400)]
    copies = [f"{texts[7]} !", texts[11].upper(), f"re: {texts[200]}", texts[300].replace(" ", "  ")]
    row, similarity = most_similar(shingles([*copies, "something else"]), shingles(texts))
    assert row.tolist() == [7, 11, 200, 300, -1]
    assert similarity[1] == similarity[3] == 1
    assert repeats(shingles([*texts, *copies])).tolist() == [False] * len(texts) + [True] * len(copies)


def test_rows_of_one_template_are_not_compared_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_MOST_APART", 2)
    rows = shingles([f"your order {i:04d} has been shipped and will arrive in five working days" for i in range(300)])
    found = collected(rows, rows, 0.7)
    assert len(found) <= 300 * 4 * near_duplicates._BANDS < 300 * 299
    assert all((other, one) in found for one, other in found), "each pair twice"
    assert repeats(rows).tolist() == [False] + [True] * 299


def test_a_pair_is_compared_as_a_whole() -> None:
    one, swapped = TextInput("a b c d e f", "x y z u v w"), TextInput("x y z u v w", "a b c d e f")
    near = TextInput("a b c d e f", "x y z u v w !")
    row, _ = most_similar(Shingles.of([swapped, near], NORMALIZE), Shingles.of([one], NORMALIZE), 0.8)
    assert row.tolist() == [-1, 0]


def test_no_rows_have_no_duplicates() -> None:
    nothing, one = shingles([]), shingles(["a film"])
    assert most_similar(one, nothing)[0].tolist() == [-1]
    assert most_similar(nothing, one)[0].tolist() == []
    assert repeats(nothing).tolist() == []
    assert np.array_equal(repeats(one), [False])
