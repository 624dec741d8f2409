"""The laws of textcls/tasks/labels.py: an order that no file layout can change, and names that look like one."""

from hypothesis import given
from hypothesis import strategies as st

from textcls.tasks.labels import label_order

NAMES = st.lists(st.text(max_size=8), max_size=12)


@given(names=NAMES, random=st.randoms())
def test_the_order_holds_each_name_once_and_does_not_depend_on_theirs(names: list[str], random) -> None:
    shuffled = [*names, *names]
    random.shuffle(shuffled)
    assert label_order(shuffled) == label_order(names)
    assert sorted(label_order(names)) == sorted(set(names))


@given(numbers=st.lists(st.integers(0, 10**12), min_size=1))
def test_numbers_stand_in_the_order_of_their_value(numbers: list[int]) -> None:
    assert label_order(map(str, numbers)) == tuple(map(str, sorted(set(numbers))))


def test_other_names_stand_in_the_order_of_their_code_points() -> None:
    assert label_order(["b", "a", "B", "ä"]) == ("B", "a", "b", "ä")
    # One name that is no number makes all of them names; so do a sign, and digits of another script.
    assert label_order(["10", "9", "x"]) == ("10", "9", "x")
    assert label_order(["10", "9", "-1"]) == ("-1", "10", "9")
    assert label_order(["10", "9", "²"]) == ("10", "9", "²")
    assert label_order([]) == ()


def test_numbers_of_equal_value_stay_two_labels_in_one_order() -> None:
    assert label_order(["1", "01", "2"]) == label_order(["2", "01", "1"]) == ("01", "1", "2")
