"""The pretrained model as a local directory.

In: a `ModelSpec`. Out: a directory with `config.json`, `model.safetensors` and the tokenizer's files, hash checked.
Not here: building a module from it (training/model.py), the tokenizer (text.py).
"""

import hashlib
import json
import os
from typing import Any

from textcls import storage
from textcls.errors import ModelError
from textcls.recipe import ModelSpec

# Safe files only: weights as safetensors, everything else as text. Nothing that would be unpickled or run.
_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
_WEIGHTS = "model.safetensors"


def local_directory(spec: ModelSpec) -> str:
    """A directory on this machine that holds the pretrained model.

    A local path, a `package://` path and a hub snapshot are used where they lie; object storage is copied once into
    the cache of this machine.

    Raises:
        ModelError: nothing is there, the hub cannot be reached, there are no safetensors, or the hash is another one.
    """
    directory = _find(spec)

    def is_there(name: str) -> bool:
        return os.path.isfile(os.path.join(directory, name))

    in_parts = is_there(f"{_WEIGHTS}.index.json") and not is_there(_WEIGHTS)
    needed = ("config.json",) if in_parts else ("config.json", _WEIGHTS)
    if missing := [name for name in needed if not is_there(name)]:
        raise ModelError(
            f"{spec.pretrained}: no {' and no '.join(missing)} in {directory}",
            expected="a Hugging Face model directory with safetensors weights (.bin files are never unpickled)",
        )
    if spec.sha256 is not None:
        if in_parts:
            raise ModelError(
                f"{spec.pretrained}: model.sha256 is of one file, and these weights lie in several",
                todo=f"leave model.sha256 out, or save the weights as one {_WEIGHTS}",
            )
        weights = os.path.join(directory, _WEIGHTS)
        if (found := _sha256(weights)) != spec.sha256:
            raise ModelError(
                f"{weights}: sha256 is {found}",
                expected=spec.sha256,
                todo="install the file again, or correct model.sha256 if the new file is the one you want",
            )
    return directory


def _find(spec: ModelSpec) -> str:
    name = spec.pretrained
    if storage.is_remote(name):
        return storage.download_directory(storage.absolute(name), _cache(name))
    if "://" in name or os.path.isdir(os.path.expanduser(name)):
        directory = storage.absolute(name)
        if not os.path.isdir(directory):
            raise ModelError(f"{name}: there is no directory {directory}")
        return directory
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"{name}: there is no such directory", todo="check the path")
    from huggingface_hub import snapshot_download

    try:
        return str(snapshot_download(name, revision=spec.revision, allow_patterns=list(_FILES)))
    except Exception as error:  # the hub client has a dozen unrelated classes for "not there" and "no network"
        raise ModelError(
            f"the model {name!r} (revision {spec.revision}) is neither a directory here nor to be had from the hub: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            todo="check the name and the network, or download it elsewhere and --set model.pretrained=DIRECTORY",
        ) from error


def _cache(name: str) -> str:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(root, "textcls", "models", hashlib.sha256(name.encode()).hexdigest()[:24])


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_config(directory: str) -> dict[str, Any]:
    """The model's `config.json`.

    Raises:
        ModelError: it is not what transformers writes.
    """
    path = os.path.join(directory, "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error}", todo="copy the model again") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds no settings", expected="a JSON object", todo="copy the model again")
    return config
