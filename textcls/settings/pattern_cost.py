"""How long a regular expression can take: a limit on the steps per character, whatever the text.

In: the tree of a pattern. Out: the most steps of an engine at one place of a text, or a `ValueError` with a text that
has too many. Not here: the tree (pattern_tree.py); running a pattern.

An engine that backtracks, like both of ours, tries every way to read a text before it gives up: `(a+)+b` reads n
letters a in 2^(n-1) ways. Oniguruma has no time limit; after ten million steps at one place it panics. Patterns that
are tried on a sample of texts prove nothing, because the service reads others. So all texts are covered. The pattern
becomes an automaton, and the numbers of ways that lead to each of its states are followed from character to character.
Larger numbers include smaller ones, so only the largest are kept. In the end either nothing larger is left to follow,
which proves that no text has more ways than that; or a text with more than `MOST_WAYS` is found and shown; or the
search is cut off, and the pattern is refused as too intricate. The search counts steps, not time: its answer never
differs.
"""

import functools
import heapq
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from textcls.settings.pattern_tree import Atomic, Chars, Choice, Look, Node, Repeat, Sequence, parts_of, widths

MOST_WAYS = 32
"""Ways to read one text."""
MOST_STEPS = 50_000
"""Steps from one place of a text on: tries times characters. Oniguruma panics after 200 times as many."""

_MOST_STATES = 1000
_MOST_FOLLOWED = 1000
# Longer repeats are taken for unlimited ones, which have all the ways of these; the next is tried for a long pattern.
_WRITTEN_OUT = (64, 20, 6, 1)


def check_cost(tree: Node) -> int:
    """The most steps of an engine from one place of a text on, for a pattern that cannot run away.

    Raises:
        ValueError: some text can be read in more than `MOST_WAYS` ways, or takes more than `MOST_STEPS` steps, or the
            pattern is too intricate to tell.
    """
    if isinstance(tree, Choice):
        return _few(sum(map(check_cost, tree.options)))  # one after another
    return _few(_most_tries(_automaton(tree)) * (1 + widths(tree)[1] + _looked_ahead(tree)))


def _few(steps: int) -> int:
    if steps > MOST_STEPS:
        raise ValueError(
            f"it could take {steps} steps at one place of a text, more than {MOST_STEPS}: give repeats within repeats "
            "a limit, such as {1,20} in place of +"
        )
    return steps


def _automaton(tree: Node) -> "_Automaton":
    """The automaton of a pattern; of a long one with the longest repeats taken for unlimited ones."""
    for written_out in _WRITTEN_OUT:
        try:
            return _Automaton(tree, written_out)
        except _TooLongError:
            continue
    raise ValueError(f"it is too long to be checked: more than {_MOST_STATES} characters")


class _TooLongError(Exception):
    """An automaton would have too many states."""


def _looked_ahead(node: Node) -> int:
    """The most characters that the conditions of a pattern read."""
    within = sum(map(_looked_ahead, parts_of(node)))
    return within + (widths(node.body)[1] if isinstance(node, Look) and node.body is not None else 0)


class _Automaton:
    """States that each read one character, but for the start, the end, and those that stand for a look-behind.

    Args:
        tree: the pattern.
        written_out: longer repeats are taken for unlimited ones.

    Attributes:
        sets: the characters of each state.
        follow: ways from a state to the next, by state: how many lead where without reading a character.
    """

    def __init__(self, tree: Node, written_out: int) -> None:
        self._written_out = written_out
        self.sets: list[Chars | None] = [None]
        self.follow: list[dict[int, int]] = [{}]
        self._state(self._extend({0: 1}, tree), None)

    def _extend(self, ends: Mapping[int, int], node: Node) -> dict[int, int]:
        """Adds the states of a node after the states `ends`; returns the states after it, with the ways to each."""
        if isinstance(node, Chars):
            return self._state(ends, node)
        if isinstance(node, Sequence):
            return functools.reduce(self._extend, node.parts, dict(ends))
        if isinstance(node, Choice):
            return _sum(*(self._extend(ends, option) for option in node.options))
        if isinstance(node, Repeat):
            return self._extend_repeat(ends, node)
        if isinstance(node, Atomic):
            return self._extend(ends, node.body)
        if node.body is not None and node.sign.startswith("?<"):  # its own steps are tried
            self._state(ends, None, check_cost(node.body))
        elif node.body is not None:  # read beside what follows
            self._extend(ends, node.body)
        return dict(ends)

    def _state(self, ends: Mapping[int, int], reads: Chars | None, tries: int = 1) -> dict[int, int]:
        if len(self.sets) > _MOST_STATES:
            raise _TooLongError
        state = len(self.sets)
        self.sets.append(reads)
        self.follow.append({})
        self._connect(ends, {state: tries})
        return {state: 1}

    def _extend_repeat(self, ends: Mapping[int, int], node: Repeat) -> dict[int, int]:
        if node.most is None or node.most > self._written_out:
            before = len(self.sets)
            after = self._extend(ends, node.body)
            firsts = self._firsts(ends, before)
            self._connect(after, firsts)
            return after if node.least else _sum(ends, after)
        reached, left = dict(ends), []
        for i in range(node.most):
            if i >= node.least:
                left.append(reached)
            reached = self._extend(reached, node.body)
        return _sum(*left, reached)

    def _firsts(self, ends: Mapping[int, int], before: int) -> dict[int, int]:
        """The states from number `before` on that follow directly, with the ways to each from one place."""
        state, ways = next(iter(ends.items()))
        return {to: found // ways for to, found in self.follow[state].items() if to >= before}

    def _connect(self, ends: Mapping[int, int], firsts: Mapping[int, int]) -> None:
        for state, ways in ends.items():
            for to, more in firsts.items():
                self.follow[state][to] = self.follow[state].get(to, 0) + ways * more


def _sum(*counts: Mapping[int, int]) -> dict[int, int]:
    total: dict[int, int] = {}
    for one in counts:
        for state, ways in one.items():
            total[state] = total.get(state, 0) + ways
    return total


def _most_tries(automaton: _Automaton) -> int:
    """The most states that are tried for one character of any text, each as often as ways lead to it.

    Raises:
        ValueError: see `check_cost`.
    """
    count = len(automaton.sets)
    step_SS = np.zeros((count, count), np.int64)
    for state, follow in enumerate(automaton.follow):
        for to, ways in follow.items():
            step_SS[state, to] = min(ways, MOST_STEPS)
    alphabet = [(char, np.array(reads)) for char, reads in _alphabet(automaton.sets)]
    start_S = np.zeros(count, np.int64)
    start_S[0] = 1
    kept_KS, most, number = start_S[None], 1, itertools.count()
    to_follow = [(-1, next(number), "", start_S)]
    while to_follow and len(kept_KS) <= _MOST_FOLLOWED:
        _, _, text, ways_S = heapq.heappop(to_follow)
        from_ = ways_S.nonzero()[0]
        reached_S = ways_S[from_] @ step_SS[from_]
        most = max(most, int(reached_S.sum()))
        for char, reads_S in alphabet:
            found_S = np.minimum(reached_S * reads_S, MOST_WAYS + 1)
            total = int(found_S.sum())
            if total > MOST_WAYS:
                raise ValueError(
                    f"it could run for very long: the text {text + char!r} can be read in more than {MOST_WAYS} ways, "
                    "and a longer one in many more. Write it so that each character fits in one place alone, such as "
                    "a+ in place of (a+)+, or give repeats a limit, such as {1,5}"
                )
            held = found_S.nonzero()[0]
            if held.size and not (kept_KS[:, held] >= found_S[held]).all(axis=1).any():
                kept_KS = np.vstack([kept_KS, found_S])
                heapq.heappush(to_follow, (-total, next(number), text + char, found_S))
    if to_follow:
        raise ValueError(
            "it is too intricate to tell how long it could run: write it with fewer alternatives and repeats"
        )
    return most


def _alphabet(sets: list[Chars | None]) -> list[tuple[str, tuple[bool, ...]]]:
    """A character for each group of characters that the states read alike, with the states that read it.

    A character that is read by some of the states of another one is left out: all its ways are ways of the other.
    """
    distinct = list(dict.fromkeys(one for one in sets if one is not None))
    found: dict[frozenset[int], str] = {}
    for char in _examples(distinct):
        readers = frozenset(i for i, one in enumerate(distinct) if _reads(one, char))
        if readers:
            found.setdefault(readers, char)
    most = [readers for readers in found if not any(readers < other for other in found)]
    index = {one: i for i, one in enumerate(distinct)}
    return [(found[readers], tuple(one is not None and index[one] in readers for one in sets)) for readers in most]


def _examples(sets: list[Chars]) -> Iterator[str]:
    """Characters among which is one of every group that the sets can tell apart, printable ones first."""
    text, groups = _all_characters()
    edges = {0, 0x21, 0x7F, len(text), *(edge for one in sets for a, b in one.ranges for edge in (a, b + 1))}
    spans = sorted(itertools.pairwise(sorted(edges)), key=lambda span: not 0x21 <= span[0] < 0x7F)
    for first, last in spans:
        for group in groups:
            match = group.search(text, first, last)
            if match is not None:
                yield match[0]


@functools.cache
def _all_characters() -> tuple[str, list[Any]]:
    """Every character at its code point, and patterns of the groups that `\\d`, `\\w` and `\\s` can tell apart."""
    import regex

    text = "".join(map(chr, range(0x110000)))
    text = text[:0xD800] + "\ue000" * 0x800 + text[0xE000:]  # halves of surrogate pairs are no characters
    return text, [regex.compile(group) for group in (r"[^\W\d]", r"\d", r"\s", r"[^\w\s]")]


@functools.lru_cache(maxsize=65536)
def _reads(chars: Chars, char: str) -> bool:
    import regex

    within = any(first <= ord(char) <= last for first, last in chars.ranges)
    within = within or any(regex.match(category, char) is not None for category in chars.categories)
    return within != chars.negated
