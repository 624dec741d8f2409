"""Paths, globs and URIs of `data.csv` -> the files that they match.

In: the patterns. Out: the files, each with its size, in a fixed order. A pattern matches the same names locally and in
object storage. Not here: reading files (storage.py), what is in them (csv_shards.py).
"""

import difflib
import fnmatch
import glob
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from textcls import storage
from textcls.errors import DataError

_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True)
class InputFile:
    """A file to read: its absolute URI and its size in bytes."""

    uri: str
    size_bytes: int


def expand(patterns: Sequence[str]) -> list[InputFile]:
    """The files that the patterns match, in the order of the patterns; the matches of a glob are sorted.

    Args:
        patterns: paths, globs and URIs.

    Raises:
        DataError: a missing or empty file, a glob without a match, a directory, the same file twice.
    """
    files: dict[str, InputFile] = {}
    for pattern in patterns:
        uri = storage.absolute(pattern)
        matches = _remote_matches(uri) if storage.is_remote(uri) else _local_matches(uri)
        if not matches:
            raise DataError(f"{pattern}: no such file", todo=_near(uri))
        for file in matches:
            if file.uri in files:
                raise DataError(f"{file.uri} is named twice", todo="name each file once: its rows would be read twice")
            if file.size_bytes == 0:
                raise DataError(f"{file.uri} is empty (0 bytes)", expected="a CSV with at least one row")
            files[file.uri] = file
    return list(files.values())


def _local_matches(uri: str) -> list[InputFile]:
    if os.path.exists(uri) and not os.path.isfile(uri):
        raise _not_a_file(uri)
    with storage.explained(uri):
        # A file whose name contains a wildcard takes precedence over the matches of the wildcard.
        paths = [uri] if os.path.exists(uri) else sorted(set(glob.glob(uri, recursive=True)))
        return [InputFile(path, os.path.getsize(path)) for path in paths if os.path.isfile(path)]


def _remote_matches(uri: str) -> list[InputFile]:
    from pyarrow import fs

    store, path = storage.filesystem(uri)
    prefix = uri.removesuffix(path)
    with storage.explained(uri):
        infos = [store.get_file_info(path)]
        if infos[0].type == fs.FileType.Directory:
            raise _not_a_file(uri)
        if infos[0].type == fs.FileType.NotFound and _WILDCARDS & set(path):
            pattern = path.split("/")
            depth = next(i for i, part in enumerate(pattern) if _WILDCARDS & set(part))
            recursive = depth < len(pattern) - 1 or "**" in pattern
            below = fs.FileSelector("/".join(pattern[:depth]), recursive=recursive, allow_not_found=True)
            infos = store.get_file_info(below)
            infos = [info for info in infos if _matches(info.path.split("/"), pattern)]
    return sorted(
        (InputFile(prefix + info.path, info.size) for info in infos if info.type == fs.FileType.File),
        key=lambda file: file.uri,
    )


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a pattern, both split at `/`, by the rules of `glob.glob(recursive=True)`."""
    if not pattern:
        return not parts
    if pattern[0] == "**" and _matches(parts, pattern[1:]):
        return True
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(
        parts[1:], pattern if pattern[0] == "**" else pattern[1:]
    )


def _not_a_file(uri: str) -> DataError:
    return DataError(
        f"{uri} is not a file", expected="a CSV file", todo=f"name the files in it: {shlex.quote(f'{uri}/*.csv')}"
    )


def _near(uri: str) -> str:
    """A hint for a missing file: the most similar name in its directory."""
    if storage.is_remote(uri):
        return "check the bucket, the key and the credentials"
    folder = os.path.dirname(uri)
    if not os.path.isdir(folder):
        return f"there is no directory {folder}"
    with storage.explained(folder):
        close = difflib.get_close_matches(os.path.basename(uri), os.listdir(folder), n=1)
    return f"did you mean {os.path.join(folder, close[0])}?" if close else f"list the files in {folder}"
