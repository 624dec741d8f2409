"""Makes foreign text (labels, columns, cells, file names) safe to print.

In: any string, or content for JSON. Out: one printable line, or JSON that people can read; neither can break a line,
control a terminal or change the direction of the text after it. Not here: the files of predictions, which hold the
unchanged values.
"""

import json
import unicodedata
from typing import Any

# Join several emoji into one; join letters, or keep them apart, in Persian and in scripts of India.
_JOINER, _NON_JOINER = "\u200d", "\u200c"
_VIRAMA = 9  # the combining class of the signs that join consonants


def visible(text: str, max_chars: int | None = None) -> str:
    """The text as one printable line, with unprintable characters as escapes such as `\\n` or `\\u202e`.

    A byte that could not be decoded appears as `\\xNN`. Printable text is returned unchanged.

    Args:
        text: any string.
        max_chars: the longest result in characters; a longer one ends with an ellipsis.
    """
    text = text if max_chars is None else text[: max_chars + 1]
    if not text.isprintable():
        text = "".join(char if _is_visible(text, i) else _escape(char) for i, char in enumerate(text))
    return text if max_chars is None or len(text) <= max_chars else text[: max_chars - 1] + "…"


def visible_lines(text: str) -> str:
    """A message of several lines, each printable, and all but the first indented by four spaces or more.

    So a line break inside a foreign name cannot start a line that looks like part of our message.
    """
    first, *others = text.split("\n")
    indented = (line if line.startswith("    ") else f"    {line.lstrip(' ')}" for line in others)
    return "\n".join(map(visible, [first, *indented]))


def json_text(content: Any, **options: Any) -> str:
    """JSON with the letters of every script as they are, and with unprintable characters escaped.

    Args:
        content: as of `json.dumps`.
        **options: more arguments of `json.dumps`.
    """
    text = json.dumps(content, ensure_ascii=False, **options)
    if text.isascii():
        return text
    # JSON is ASCII outside its strings, so every other character is inside a string.
    return "".join(
        char if char == "\n" or _is_visible(text, i) else json.dumps(char)[1:-1] for i, char in enumerate(text)
    )


def _is_visible(text: str, i: int) -> bool:
    char = text[i]
    if char not in (_JOINER, _NON_JOINER):
        return char.isprintable()
    # As in names of the internet (RFC 5892, appendix A): elsewhere they would only hide a difference between texts.
    before, after = text[max(i - 1, 0) : i], text[i + 1 : i + 2]
    if before and unicodedata.combining(before) == _VIRAMA:
        return True
    joins = _is_emoji if char == _JOINER else _is_arabic_letter
    return bool(before and after) and joins(before) and joins(after)


def _is_emoji(char: str) -> bool:
    return unicodedata.category(char) in ("So", "Sk") or char == "\ufe0f"


def _is_arabic_letter(char: str) -> bool:
    return char.isalpha() and unicodedata.bidirectional(char) == "AL"


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # Python's surrogate for a byte that it could not decode
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()
