"""The laws of our errors: they say three things, survive pickling, and stand for an exit status."""

import pickle
import re

import pytest

from textcls import errors
from textcls.errors import InputError, TextclsError

DRAWN = re.findall(r"^    ((?:[│ ]   )*(?:[├└]── )?)(\w+) +(?:([12])\b)?", str(errors.__doc__), re.MULTILINE)


def family(cls: type[TextclsError]) -> list[type[TextclsError]]:
    return [cls, *(member for child in cls.__subclasses__() for member in family(child))]


CLASSES = [cls for cls in family(TextclsError) if cls.__module__ == errors.__name__]


def test_the_docstring_draws_the_hierarchy_and_the_exit_statuses() -> None:
    path: list[str] = []
    drawn: dict[str, str] = {}
    status: dict[str, int] = {}
    for indent, name, number in DRAWN:
        depth = len(indent) // 4
        path = [*path[:depth], name]
        drawn[name] = path[depth - 1] if depth else "Exception"
        status[name] = int(number) if number else status[drawn[name]]
    assert drawn == {cls.__name__: str(cls.__base__.__name__) for cls in CLASSES if cls.__base__}
    assert status == {cls.__name__: cls.exit_status for cls in CLASSES}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_has_an_exit_status_that_tells_input_from_the_rest(cls: type[TextclsError]) -> None:
    assert cls.exit_status == (2 if issubclass(cls, InputError) else 1)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(("expected", "todo"), [("", ""), ("a\nb", ""), ("", "run é"), ("x", "y")])
def test_every_error_survives_pickling(cls: type[TextclsError], expected: str, todo: str) -> None:
    error = cls("found 'x' in a.csv:3", expected=expected, todo=todo)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))  # as Ray carries it
        assert type(again) is cls
        assert (again.found, again.expected, again.todo) == (error.found, expected, todo)
        assert str(again) == str(error)
        assert again.args == error.args


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_says_what_was_found_what_was_expected_and_what_to_do(cls: type[TextclsError]) -> None:
    assert str(cls("found", expected="one", todo="two")).split("\n") == [
        "found",
        "  expected: one",
        "  to do:    two",
    ]
    assert str(cls("found")) == "found"


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_says_when_it_is_raised(cls: type[TextclsError]) -> None:
    assert cls.__doc__
    assert cls.__doc__ is not cls.__mro__[1].__doc__


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:hidden@server:80/x", "http://***@server:80/x"),
        ("'s3://hidden@bucket/a@b' and gs://a:hid/den", "'s3://***@bucket/a@b' and gs://a:hid/den"),
        ("https://me:hid@den@server/", "https://***@server/"),
        ("me@example.org wrote file:///a@b, s3://bucket/a:b@c", "me@example.org wrote file:///a@b, s3://bucket/a:b@c"),
    ],
)
def test_no_error_shows_the_user_and_password_of_a_url(text: str, shown: str) -> None:
    error = InputError(text, expected=text, todo=text)
    assert (error.found, error.expected, error.todo, error.args) == (shown, shown, shown, (shown,))
