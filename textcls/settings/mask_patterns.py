"""A user's own patterns of what is masked: their names, and whether both engines can run them.

In: a name and a regular expression, as a recipe gives them. Out: the same, or a `ValueError` that says what to change.
Not here: the kinds that are built in (text/masks.py); replacing (text/normalizer.py for the model, text/masks.py for
people).

A pattern runs in two engines: Oniguruma, as part of `tokenizer.json`, and the package `regex`.
"""

import functools
import re
import shlex
import unicodedata
from collections.abc import Mapping

from textcls.settings.pattern_cost import check_cost
from textcls.settings.pattern_tree import anchors, parsed, widths
from textcls.settings.spec import UnfitError

MOST_NAME_CHARS = 30
_NAME = re.compile(r"[A-Za-z]+(?:_[A-Za-z]+)*")
# Tokens in brackets that tokenizers have anyway.
_WRITTEN = {"\a": r"\a", "\b": r"\b", "\v": r"\v", "\f": r"\f"}
_OF_TOKENIZERS = {"mask", "cls", "sep", "pad", "unk", "bos", "eos", "unused"}


def placeholder_of(name: str) -> str:
    """What replaces a value of this kind: `[EMPLOYEE_ID]` for `employee_id`."""
    return f"[{name.upper()}]"


def check_names(names: list[str], built_in: tuple[str, ...]) -> None:
    """Refuses names that cannot be placeholders.

    Raises:
        ValueError: a name is not made of letters, is too long, or is that of a token, of a built-in kind or, but for
            upper and lower case, of another pattern.
    """
    seen: set[str] = set()
    for name in names:
        if not _NAME.fullmatch(name) or len(name) > MOST_NAME_CHARS:
            raise ValueError(
                f"{name!r} cannot be the name of a pattern: expected letters of English, which a _ may divide, "
                f"at most {MOST_NAME_CHARS} characters, such as employee_id"
            )
        if name.lower() in built_in:
            raise ValueError(f"{name!r} is the name of a built-in kind; choose another, such as own_{name.lower()}")
        if name.lower() in _OF_TOKENIZERS:
            raise ValueError(f"{placeholder_of(name)} is a token of BERT's kind; choose another name for {name!r}")
        if name.lower() in seen:
            raise ValueError(f"two patterns have the placeholder {placeholder_of(name)}; choose another name for one")
        seen.add(name.lower())


@functools.lru_cache(maxsize=128)
def portable(pattern: str) -> str:
    """The pattern as both engines read it alike.

    Raises:
        ValueError: it is not one that they can share, it could run away, or it matches an empty text.
    """
    tree = parsed(pattern)
    check_cost(tree)
    for anchor in anchors(tree):
        raise ValueError(f"{anchor} is not supported: a value is looked for anywhere in a text; leave out {anchor}")
    if widths(tree)[0] == 0:
        raise ValueError("it matches an empty text; write it so that a match has at least one character")
    return str(tree)


def pattern_option(name: str, pattern: str) -> str:
    """The `--set` for one pattern, which takes it as it is; quoted for a shell."""
    return f"--set {shlex.quote(f'text.mask_patterns.{name}={pattern}')}"


def named_patterns(value: object) -> object:
    """The value itself.

    Raises:
        UnfitError: it is no mapping, such as a pattern without a name.
    """
    if value is None or isinstance(value, Mapping):
        return value
    pattern = value if isinstance(value, str) and _is_usable(value) else r"E\d{6}"
    raise UnfitError("expected a name for each pattern", todo=pattern_option("own", pattern))


def _is_usable(pattern: str) -> bool:
    try:
        check_patterns({"own": pattern})
    except ValueError:
        return False
    return True


def _refuse_controls(name: str, pattern: str) -> None:
    """Refuses characters that nobody types, and that an escape in YAML's double quotes becomes.

    Raises:
        UnfitError: with the pattern as it was meant.
    """
    held = [char for char in pattern if unicodedata.category(char) == "Cc" and char not in "\t\n\r"]
    if not held:
        return
    meant = "".join(_WRITTEN.get(char, f"\\x{ord(char):02x}") if char in held else char for char in pattern)
    quotes = "" if "'" in meant else f" In a recipe: {name}: '{meant}'"
    raise UnfitError(
        f"the pattern {name} ({pattern!r}) holds the control character {held[0]!r}: in double quotes, YAML reads "
        f"{_WRITTEN.get(held[0], 'an escape')} as that",
        todo=f"put the pattern in single quotes, or give it by its name: {pattern_option(name, meant)}{quotes}",
    )


def check_patterns(patterns: Mapping[str, str]) -> None:
    """Refuses patterns that cannot be used.

    Raises:
        ValueError: see `portable`; or a pattern matches within the placeholder of one of them.
    """
    import regex
    from tokenizers import Regex

    for name, pattern in patterns.items():
        _refuse_controls(name, pattern)
        try:
            written = portable(pattern)
            Regex(written)
            compiled = regex.compile(written)
        except Exception as error:  # tokenizers raises bare Exception
            raise ValueError(f"the pattern {name} ({pattern!r}) cannot be used: {error}") from None
        for other in patterns:
            if compiled.search(placeholder_of(other)):
                raise ValueError(
                    f"the pattern {name} ({pattern!r}) matches within {placeholder_of(other)}, which replaces {other}; "
                    "give the pattern something that placeholders lack, such as a digit"
                )
