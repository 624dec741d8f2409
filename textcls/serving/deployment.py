"""What the driver of the service and its replicas share: the deployment's name, its arguments and its key.

In: settings. Out: checked arguments, and the key. Not here: the application (app.py). Loads neither Ray nor torch: the
driver of a service on this machine needs no model.
"""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from textcls.errors import InputError
from textcls.settings.serve import ServeSpec

NAME = "Classifier"


class AppArgs(BaseModel):
    """Arguments of the application."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: str
    serve: ServeSpec = ServeSpec()
    identity_file: str = ""
    """On each node, the secret key that opens a sealed bundle; "": the environment of the node names it."""


def read_key(source: str | None) -> str | None:
    """The key at the place that `serve.api_key_from` names; None without one.

    Raises:
        InputError: the place holds no key, or one that is no valid header value.
    """
    if source is None:
        return None
    kind, _, place = source.partition(":")
    try:
        key = (os.environ.get(place, "") if kind == "env" else Path(place).read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"serve.api_key_from {source}: {error}", todo="write the key to that file, or name another one"
        ) from None
    if not key or not key.isascii() or not key.isprintable():
        found = "it holds no key" if not key else "the key has characters that are not valid in a header"
        raise InputError(
            f"serve.api_key_from {source}: {found}",
            expected="a key of printable ASCII characters",
            todo="export the variable" if kind == "env" else "write the key into the file",
        )
    return key
