"""Small JSON files in an --out: written whole or not at all, and read back with a clear error if they are damaged.

In: content that is ready for JSON. Out: a file that people can read, and its content again. Not here: which files an
--out holds (training/run_dir.py, batch/predictions_dir.py).
"""

import json
from collections.abc import Mapping
from typing import Any

from textcls import storage
from textcls.errors import RunDirError
from textcls.plain_text import json_text


def write_json(out: str, name: str, content: Mapping[str, Any]) -> None:
    """Writes OUT/NAME, whole or not at all.

    Args:
        out: URI of a claimed --out.
        name: path in it.
        content: ready for JSON.

    Raises:
        StorageError: no space, no permission, the network fails.
    """
    storage.write_bytes(storage.join(out, name), (json_text(content, indent=1) + "\n").encode())


def read_json(out: str, name: str) -> dict[str, Any]:
    """The content of OUT/NAME.

    Raises:
        RunDirError: it is not a JSON object.
    """
    uri = storage.join(out, name)
    try:
        content = json.loads(storage.read_bytes(uri))
    except ValueError as error:
        raise damaged(uri, str(error)) from error
    if not isinstance(content, dict):
        raise damaged(uri, "it holds no JSON object")
    return content


def damaged(uri: str, why: str) -> RunDirError:
    """The error for a file that cannot be what its job has written."""
    return RunDirError(f"{uri} is damaged: {why.splitlines()[0]}", todo="name a new --out and start again")
