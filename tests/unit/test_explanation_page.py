"""The page of explanations: every text as it is, its words marked, nothing run, and never too large."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textcls.inference.explain import Explanation, Method, Word
from textcls.reporting.explanation_page import ExplainedRow, explanation_page
from textcls.reporting.marked_words import MOST_LISTED, MOST_MARKED, marked, ranked
from textcls.reporting.page_template import MOST_BYTES
from textcls.text.words import TextSpan


def explanation(label: str, words: Sequence[Word], method: Method = "leave_one_out", **more) -> Explanation:
    return Explanation(label, method, score=0.9, logit=2.2, words=tuple(words), **more)


class Elements(HTMLParser):
    """(tag, attributes, text) of each element of some kinds, and every tag."""

    def __init__(self, page: str, *kinds: str) -> None:
        super().__init__()
        self.kinds, self.found, self.tags = kinds, [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag in self.kinds:
            self.found.append([tag, dict(attributes), ""])

    def handle_data(self, data):
        if self.found:
            self.found[-1][2] += data


def words_of(*texts: str) -> list[Word]:
    """Each word with an effect of its own, every second one against the label."""
    found = [(i, match) for i, text in enumerate(texts) for match in re.finditer(r"\S+", text)]
    return [Word(i, m.start(), m.end(), (-1) ** n * (1 + n), 0.5) for n, (i, m) in enumerate(found)]


def row(*texts: str, label: str = "good", **more) -> ExplainedRow:
    return ExplainedRow("mails.csv", 7, texts, [explanation(label, words_of(*texts))], **more)


def page(*rows: ExplainedRow) -> str:
    return explanation_page(rows, title="Explanations")


def test_words_are_marked_by_line_weight_and_the_change_in_score() -> None:
    words = [Word(0, 0, 4, 2.0, 0.31), Word(0, 9, 13, -1.0), Word(0, 5, 8, 0.1)]
    shown = page(ExplainedRow("a.csv", 1, ["fine but dull"], [explanation("good", words)]))
    marks = [(one["class"], one["title"]) for tag, one, _ in Elements(shown, "mark").found if "title" in one]
    assert marks == [
        ("for s4", "+2.00 on the logit; without it the score is 0.310"),
        ("against s2", "-1.00 on the logit"),
    ]
    assert "underline solid" in shown
    assert "underline dashed" in shown
    assert ">for</td>" in shown
    assert ">against</td>" in shown


@given(
    st.text(max_size=400),
    st.lists(st.tuples(st.integers(-5, 400), st.integers(-5, 400), st.floats(-9, 9))),
    st.none() | st.integers(-5, 400),
)
def test_the_parts_of_a_text_are_the_text_whatever_the_words(
    text: str, places: list[tuple[int, int, float]], cut: int | None
) -> None:
    unseen = [] if cut is None else [TextSpan(0, cut, len(text))]
    [parts] = marked([text], [Word(0, *place) for place in places], unseen)
    shown = "".join(part.text for part in parts)
    assert len(shown) + sum(part.left_out for part in parts) == len(text)
    if not any(part.left_out for part in parts):
        assert shown == text


def test_a_word_is_found_by_code_points_in_either_text_of_a_pair() -> None:
    texts = ("Ein 👩‍🚀 flog", "да, 很好")
    words = words_of(*texts)
    found = marked(texts, words)
    shown = [part.text for parts in found for part in parts if part.effect is not None]
    assert shown == [texts[word.text][word.start : word.end] for word in words]
    assert {part.text for part in ranked(texts, words)} == set(shown)


def test_words_of_a_text_that_was_cut_are_left_out() -> None:
    words = [Word(0, 0, 4, 1.0), Word(0, 5, 9, -3.0), Word(1, 0, 2, 5.0), Word(0, -3, 2, 4.0)]
    assert [part.text for part in ranked(["fine"], words)] == ["fine"]
    assert [(part.text, part.step) for part in marked(["fine but"], words)[0]] == [("fine", 4), (" but", 0)]


def test_nothing_on_the_page_is_run_or_turns_the_text_around() -> None:
    nasty = "<script>x()</script> \u202e\x1b[31m \" onmouseover='x()' &lt;"
    shown = page(row(nasty, nasty, label=nasty, truth=[nasty]), ExplainedRow(nasty, 1, [nasty], error=nasty))
    shown += explanation_page([], title=nasty, about=[(nasty, nasty)])
    assert "script" not in Elements(shown).tags
    assert "\u202e" not in shown
    assert "\x1b" not in shown
    attributes = [name for _, found, _ in Elements(shown, "mark", "span", "p", "bdi").found for name in found]
    assert set(attributes) <= {"class", "title", "dir"}


def test_what_the_model_did_not_read_is_struck_through_and_counted() -> None:
    words = [Word(0, 0, 4, 1.0), Word(0, 5, 8, 0.01)]
    one = explanation("good", words, unseen=(TextSpan(0, 9, 1_313), TextSpan(1, 3, 5)))
    shown = page(ExplainedRow("a.csv", 1, ["fine but" + " dull" * 261, "so so"], [one]))
    struck = [text.strip() for tag, _, text in Elements(shown, "s", "small", "p").found if tag == "s"]
    assert len(struck) == 2
    assert re.fullmatch("(dull ?)+", struck[0])
    assert struck[1] == "so"
    assert "did not read what is struck through, the last 1,306 characters" in " ".join(shown.split())
    assert "did not read" not in page(row("fine but dull"))


def test_words_of_next_to_no_effect_do_not_look_as_if_they_decided() -> None:
    words = [Word(0, 0, 4, 0.008, 0.9), Word(0, 9, 13, -0.03)]
    shown = page(ExplainedRow("a.csv", 1, ["fine but dull"], [explanation("good", words)]))
    assert "No word has much effect: the strongest changes the logit by 0.0300." in shown
    assert [one["class"] for _, one, _ in Elements(shown, "mark").found if "title" in one] == ["against s1"]
    assert "The 2 strongest of 2 words" in shown
    assert "No word has much effect" not in page(row("fine but dull"))


def test_tokens_that_the_vocabulary_lacks_are_counted() -> None:
    shown = [" ".join(page(row("好 很好", unknown_tokens=number)).split()) for number in (15, 1, 0)]
    assert "15 of the tokens that the model read are [UNK]" in shown[0]
    assert "1 of the tokens that the model read is [UNK]" in shown[1]
    assert "[UNK]" not in shown[2]


def test_line_breaks_of_a_text_stay() -> None:
    assert "one\ntwo" in page(ExplainedRow("a.csv", 1, ["one\r\ntwo"]))


def test_a_text_of_4000_words_is_shown_around_its_strongest_words() -> None:
    text = " ".join(f"word{n}" for n in range(4_000))
    shown = page(row(text))
    marks = [one for _, one, _ in Elements(shown, "mark", "span").found if "title" in one]
    assert len(marks) == MOST_MARKED
    assert "characters left out" in shown
    assert "word3999" in shown
    assert f"The {MOST_LISTED} strongest of 4,000 words" in shown
    assert len(shown.encode()) < 60_000


@pytest.mark.parametrize("texts", [("short text",), (" ".join(f"好{n}" for n in range(4_000)),) * 2])
def test_a_page_is_bounded_and_says_what_is_left_out(texts: tuple[str, ...]) -> None:
    one = row(*texts)
    shown = page(*[one] * 1_000)
    assert MOST_BYTES / 2 < len(shown.encode()) <= MOST_BYTES
    kept = Elements(shown).tags.count("article")
    assert f"{1_000 - kept:,} further rows are not shown" in shown
    # Of a million rows, only those that are shown are computed.
    assert f"{10**6 - kept:,} further" in explanation_page(repeat(one), title="Explanations", total_rows=10**6)


def test_rows_without_explanations_are_shown_with_their_reason() -> None:
    shown = page(ExplainedRow("a.csv", 3, ["  "], error="white space only"), ExplainedRow("a.csv", 4, [""], truth=()))
    assert "No explanation: white space only" in shown
    assert "no label" in shown


def test_what_gradients_leave_over_is_said() -> None:
    one = explanation("good", words_of("fine"), method="integrated_gradients", rest=0.25, remainder=-0.0012)
    shown = page(ExplainedRow("a.csv", 1, ["fine"], [one]))
    assert "special tokens: +0.250; not assigned to any token: -0.0012" in shown


def test_equal_rows_give_equal_bytes() -> None:
    assert page(row("fine but dull")) == page(row("fine but dull"))
