"""YAML whose scalars stay text, and the reverse: the `--set` that stands for a value.

In: YAML. Out: dicts, lists, strings and None; `010`, `1.10`, `yes` and `12:30` stay the strings they look like, and
pydantic converts a string where a setting is a number. In the other direction: a value in, its `--set` out.
Not here: the settings (recipe.py), where overrides are applied (recipe_file.py).

Labels and columns are names: YAML's own rules would silently read those four as 8, 1.1, true and 750.
"""

import json
import re
import shlex
import unicodedata
from collections.abc import Mapping
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_NULL, _MERGE = _TAG + "null", _TAG + "merge"

# Invisible whatever their Unicode category: joiners, Hangul fillers, variation selectors, the blank of Braille.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\u2800\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Characters; YAML needs a question mark before a longer key of a mapping.
_LONGEST_KEY = 1000


class RepeatedKeyError(ValueError):
    """A key appears twice in a mapping.

    Attributes:
        key: the key.
    """

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


class _TextLoader(yaml.SafeLoader):
    """Reads every scalar as a string, except a bare null, `~` or nothing, which are None. A repeated key is an
    error."""

    commented = False
    repeated: str | None = None

    def scan_to_next_token(self) -> None:
        ahead = 0
        while self.peek(ahead) == " ":
            ahead += 1
        self.commented = self.commented or self.peek(ahead) == "#"
        super().scan_to_next_token()

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    self.repeated = key.value
                    problem = f"the key {key.value!r} appears twice in a mapping"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return node


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in (_NULL, _MERGE)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_TextLoader.yaml_constructors = {
    tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (_NULL, _TAG + "str", _TAG + "map", _TAG + "seq", None)
}
_TextLoader.yaml_constructors[_MERGE] = yaml.SafeLoader.construct_yaml_str  # `<<` elsewhere than as a key


def read_yaml(text: str) -> Any:
    """The content of YAML text: dicts, lists, strings and None.

    Raises:
        ValueError: invalid YAML.
        RepeatedKeyError: a key appears twice in a mapping.
    """
    return _read(text, lambda loader: loader.get_single_data())


def read_value(text: str) -> Any:
    """The value of a `--set`: literal text, unless it is quoted or a collection, which are YAML.

    YAML ends a bare word at ` #` and drops text after `---`; on a command line both belong to the value.

    Raises:
        ValueError: invalid YAML, or a comment in a collection.
        RepeatedKeyError: a key appears twice in a mapping.
    """
    stripped = text.strip(" \t\r\n")
    if (len(text) == 1 and not text.isalnum()) or re.fullmatch(r"[.-]+", stripped):
        # A single character such as | or ;, and a row of dots, are literal, although YAML gives some a meaning.
        return text if len(text) == 1 else stripped
    return _read(text, lambda loader: _value(loader, stripped)) if stripped else None


def _value(loader: _TextLoader, text: str) -> Any:
    node = loader.get_single_node()
    plain = node is None or (isinstance(node, yaml.ScalarNode) and node.style is None)
    if plain and text[0] not in "&!*" and "\n" not in text:
        return None if node is not None and node.tag == _NULL and node.value == text else text
    if loader.commented:
        raise yaml.YAMLError("' #' begins a comment in YAML; put a name that holds it in double quotes")
    return loader.construct_document(node)


def _read(text: str, what: Any) -> Any:
    loader = None
    try:
        loader = _TextLoader(text)
        return what(loader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        hint = "; ' #' begins a comment" if loader is not None and loader.commented else ""
        message = f"{error}{hint}"
        if loader is not None and loader.repeated is not None:
            raise RepeatedKeyError(message, loader.repeated) from None
        raise ValueError(message) from None
    finally:
        if loader is not None:
            loader.dispose()


def is_unseen(char: str) -> bool:
    """Whether a character is invisible and has no width: controls, direction marks, joiners, variation selectors."""
    return unicodedata.category(char) in ("Cc", "Cf") or bool(_UNSEEN.match(char))


def escaped(text: str) -> str:
    """The text with invisible characters as escapes of YAML and Python (`\\u200b`, `\\xa0`).

    A combining accent is also escaped where Unicode has the letter with the accent, because the two look alike.
    """
    composed = unicodedata.is_normalized("NFC", text)
    return "".join(
        char
        if char.isprintable() and not is_unseen(char) and (composed or not unicodedata.combining(char))
        else _escape(char)
        for char in text.replace("\\", "\\\\")
    )


def quoted(text: str) -> str:
    """The text in double quotes, which YAML reads back as the same text."""
    return '"' + escaped(text).replace('"', '\\"') + '"'


def set_option(key: str, value: Any) -> str:
    """The `--set` for a value, quoted for a shell and for `read_value`. Messages take every advised override from
    here."""
    override = shlex.quote(f"{key}={_flow(value, bare=True)}")
    # In a sentence, a comma or a full stop at the end would not look like part of the value.
    return f"--set '{override}'" if override[-1] in ",.:" else f"--set {override}"


def _flow(value: Any, *, bare: bool = False) -> str:
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if isinstance(value, str):
        # Letters, digits and a single punctuation character need no quotes.
        plain = bare and escaped(value) == value and re.fullmatch(r"[\w.-]+|[^\w\s]", value)
        return value if plain and read_value(value) == value else quoted(value)
    if isinstance(value, Mapping):
        pairs = (f"{'? ' * (len(key) > _LONGEST_KEY)}{quoted(key)}: {_flow(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    return f"[{', '.join(map(_flow, value))}]"


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
