"""The pretrained model as a local directory: resolved once by name, and then identified by the hashes of its files.

In: a `ModelSpec`. Out: a directory with `config.json`, `model.safetensors` and the tokenizer's files, and their hashes.
Not here: the same files on another machine (training/model_files.py), building a module from them (modeling/build.py),
the tokenizer (text/tokenizer_files.py).
"""

import glob
import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from textcls import storage
from textcls.directories import cache_directory, download_directory
from textcls.errors import ModelError
from textcls.settings.recipe import ModelSpec
from textcls.settings.yaml_text import set_option

# Safe files only: weights as safetensors, everything else as text. Nothing that would be unpickled or run.
_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model in a local directory; picklable.

    Attributes:
        name: its name in the recipe.
        directory: its directory on the machine that resolved the name.
        files: name -> sha256 of every file that may be read.
        commit: its commit on the hub; "" if it is not from the hub.
    """

    name: str
    directory: str
    files: Mapping[str, str]
    commit: str = ""

    @property
    def digest(self) -> str:
        """sha256 of the names and hashes of all files."""
        return hashlib.sha256(json.dumps(dict(sorted(self.files.items()))).encode()).hexdigest()

    def pinned(self, spec: ModelSpec) -> ModelSpec:
        """The settings that find exactly this model again, even if a branch moves or a file changes."""
        pins = {"revision": self.commit or spec.revision, "sha256": self.files.get(_WEIGHTS)}
        return spec.model_copy(update=pins)


def find_model(spec: ModelSpec, *, commit: str = "") -> Pretrained:
    """The pretrained model that a recipe names, as a directory on this machine.

    A local path, a `package://` path and a hub snapshot are used in place; a model in object storage is copied once
    into this machine's cache.

    Args:
        spec: the name, revision and hash.
        commit: hub commit to use instead of the revision, for a resumed run.

    Raises:
        ModelError: the model does not exist, the hub cannot be reached, there are no safetensors, or the hash differs.
    """
    directory = os.path.realpath(_find(spec, commit or spec.revision))

    def is_there(name: str) -> bool:
        return os.path.isfile(os.path.join(directory, name))

    in_parts = is_there(f"{_WEIGHTS}.index.json") and not is_there(_WEIGHTS)
    needed = ("config.json",) if in_parts else ("config.json", _WEIGHTS)
    if missing := [name for name in needed if not is_there(name)]:
        raise ModelError(
            f"{spec.pretrained}: no {' and no '.join(missing)} in {directory}",
            expected="a Hugging Face model directory with safetensors weights (.bin files are never unpickled)",
            todo=_converted(spec.pretrained, directory) if missing == [_WEIGHTS] else "check the path",
        )
    if spec.sha256 is not None and in_parts:
        raise ModelError(
            f"{spec.pretrained}: model.sha256 is the hash of one file, and these weights are in several",
            todo=f"--set model.sha256=null, or save the weights as one {_WEIGHTS}",
        )
    files = hashes(directory)
    if spec.sha256 is not None and (found := files[_WEIGHTS]) != spec.sha256:
        raise ModelError(
            f"{os.path.join(directory, _WEIGHTS)}: sha256 is {found}",
            expected=spec.sha256,
            todo=f"install the file again, or, if the new file is the one you want, --set model.sha256={found}",
        )
    # The hub's client names the directory of a snapshot by its commit.
    snapshot = re.fullmatch(r".*/snapshots/([0-9a-f]{40})", directory)
    return Pretrained(spec.pretrained, directory, files, snapshot[1] if snapshot else "")


def _converted(name: str, directory: str) -> str:
    """The command that converts a model's weights to safetensors. It unpickles, so the user must trust the model."""
    source = directory if any(map(os.path.isfile, glob.glob(os.path.join(glob.escape(directory), "*.bin")))) else name
    target = f"{os.path.basename(name.rstrip('/'))}-safetensors"
    code = (
        f"from transformers import AutoModel, AutoTokenizer; "
        f"[kind.from_pretrained({source!r}).save_pretrained({target!r}) for kind in (AutoModel, AutoTokenizer)]"
    )
    return (
        f"if you trust its origin, convert it: python -c {shlex.quote(code)}; "
        f"then {set_option('model.pretrained', f'./{target}')}"
    )


def hashes(directory: str) -> dict[str, str]:
    """Name -> sha256 of the model files in a directory; empty if there is no such directory."""
    if not os.path.isdir(directory):
        return {}
    paths = {name: os.path.join(directory, name) for name in sorted(os.listdir(directory))}
    return {
        name: storage.sha256_of(path)
        for name, path in paths.items()
        if os.path.isfile(path) and any(fnmatch(name, pattern) for pattern in _FILES)
    }


def _find(spec: ModelSpec, revision: str) -> str:
    name = spec.pretrained
    if storage.is_remote(name):
        return download_directory(storage.absolute(name), cache_root())
    if "://" in name or os.path.isdir(os.path.expanduser(name)):
        directory = storage.absolute(name)
        if not os.path.isdir(directory):
            raise ModelError(f"{name}: there is no directory {directory}")
        return directory
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"{name}: there is no such directory", todo="check the path")
    from huggingface_hub import constants, snapshot_download

    # The hub client's own cache, shared with other programs, if this user can have one.
    own = None if _is_or_can_be_made(constants.HF_HUB_CACHE) else cache_directory("hub")
    try:
        return str(snapshot_download(name, revision=revision, allow_patterns=list(_FILES), cache_dir=own))
    except Exception as error:  # the hub client raises a dozen unrelated classes for "not found" and "no network"
        raise ModelError(
            f"the model {name!r} (revision {revision}) is not a directory, and cannot be downloaded from the hub: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            todo="check the name and the network, or download it elsewhere and --set model.pretrained=DIRECTORY",
        ) from error


def _is_or_can_be_made(directory: str) -> bool:
    """Whether a directory exists, even read-only, or can be created."""
    above = directory
    while not os.path.exists(above) and above != os.path.dirname(above):
        above = os.path.dirname(above)
    return above == directory or (os.path.isdir(above) and os.access(above, os.W_OK))


def cache_root() -> str:
    """The directory of this machine's copies of models."""
    return cache_directory("models")


def read_config(directory: str) -> dict[str, Any]:
    """The model's `config.json`.

    Raises:
        ModelError: the file is not a JSON object.
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


def most_tokens(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> int | None:
    """The most tokens that a pretrained model is made for, by its `config.json` and `tokenizer_config.json`.

    None if neither says. RoBERTa's kind begins to count positions after the padding token's id.
    """
    named = tokenizer_config.get("model_max_length")
    positions, pad = config.get("max_position_embeddings"), config.get("pad_token_id") or 0
    limits = [named] if isinstance(named, int) and named > 0 else []
    if isinstance(positions, int) and positions > 0:
        limits.append(positions - pad - 1 if 0 < pad < positions - 1 else positions)
    return min(limits, default=None)


def has_token_types(config: Mapping[str, Any]) -> bool:
    """Whether a model of this configuration tells the texts of a pair apart by token types; RoBERTa's kind does not."""
    types = config.get("type_vocab_size")
    return isinstance(types, int) and types > 1
