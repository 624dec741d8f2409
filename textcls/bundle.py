"""What a run leaves behind: a Hugging Face model directory plus a manifest, `bundle.json`.

In: a local directory that holds a trained model. Out: the same files at a URI, with a manifest that names each by size
and sha256 and says how the model is to be used; and back again, if every byte is as it was written.
Not here: the model itself, what the manifest says (manifest.py).

Nothing is unpickled or run, neither torch nor transformers is imported, and a local bundle is loaded without a network.

The hashes find damage and mix-ups, not forgery: whoever can write a bundle can write its manifest too.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import JsonValue

from textcls import age_keys, encryption, storage
from textcls.directories import cache_directory, download_directory, put_directory
from textcls.errors import BundleError
from textcls.manifest import (
    Calibration,
    Excluded,
    FileRecord,
    Manifest,
    Origin,
    Privacy,
    manifest_bytes,
    read_manifest,
)
from textcls.sealed_directory import OpenedDirectory, open_sealed
from textcls.settings.recipe import Recipe, TextSpec
from textcls.tasks.registry import known_names, task_named
from textcls.tasks.task import Task

MANIFEST = "bundle.json"

_NEEDED = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
# Data formats only: no pickles (.bin, .pt, .ckpt, ...) and no code. A `.model` is a SentencePiece vocabulary.
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.(json|safetensors|txt|model|md)")
_LIBRARIES = ("torch", "transformers", "tokenizers", "ray")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        uri: where it was loaded from.
        directory: local directory that `from_pretrained` can be given.
        manifest: what it says about itself.
        task: what is predicted.
        digest: sha256 that names this bundle and no other; two bundles that share it hold the same bytes.
        opened: of a sealed bundle, what keeps `directory` alive.
        identity_file: with which it was opened, for other processes; "" if it is plain or opened by the environment.
    """

    uri: str
    directory: str
    manifest: Manifest
    task: Task
    digest: str
    opened: OpenedDirectory | None = field(default=None, compare=False, repr=False)
    identity_file: str = field(default="", compare=False)

    def with_text(self, text: TextSpec) -> "Bundle":
        """The bundle as it would be with other text settings, in memory; its files and its digest stay the same."""
        return replace(self, manifest=self.manifest.model_copy(update={"text": text}))


def write_bundle(model_dir: str, uri: str, **contents: Any) -> Manifest:
    """The manifest of a bundle published at a URI.

    Args:
        model_dir: see `make_bundle`.
        uri: where the bundle goes; nothing may be there yet.
        contents: see `make_bundle`.

    Raises:
        BundleError: see `make_bundle`.
        RunDirError: the URI is taken.
        StorageError: no space, no permission, the network fails; nothing that loads is left behind.
    """
    manifest = make_bundle(model_dir, **contents)
    put_directory(model_dir, storage.absolute(uri), last=MANIFEST)
    return manifest


def make_bundle(
    model_dir: str,
    *,
    task: Task,
    labels: Sequence[str],
    text: TextSpec,
    metrics: Mapping[str, JsonValue],
    recipe: Recipe,
    data_fingerprint: str,
    excluded: Excluded | None = None,
    calibration: Calibration | None = None,
    privacy: Privacy | None = None,
) -> Manifest:
    """Makes a bundle of a local directory, where it lies; returns its manifest.

    Args:
        model_dir: local directory of `save_pretrained` files, the tokenizer's included; gets a `bundle.json`.
        task: what is predicted.
        labels: label names in the order of their ids, as in `config.json`.
        text: the text settings in use, as in the tokenizer's files.
        metrics: the result on the test split, finite numbers.
        recipe: the resolved recipe.
        data_fingerprint: identifies the rows the run learned from.
        excluded: what `data.exclude` took out.
        calibration: what was folded into the head. Left out: nothing.
        privacy: of private training.

    Raises:
        BundleError: a file is missing or of an unsafe kind, or `config.json` has other labels or another problem type.
        StorageError: the manifest cannot be written.
    """
    names = sorted(set(os.listdir(model_dir)) - {MANIFEST})
    _check_names(model_dir, names)
    if missing := sorted(set(_NEEDED) - set(names)):
        raise BundleError(f"{model_dir}: no {', no '.join(missing)}", expected="a saved model with its tokenizer")
    _check_config(os.path.join(model_dir, "config.json"), labels, task)
    manifest = Manifest(
        task=task.name,
        scoring=task.function_to_apply,
        labels=tuple(labels),
        pairs=recipe.data.pair is not None,
        text=text,
        calibration=calibration or Calibration(),
        metrics=dict(metrics),
        recipe=recipe.model_dump(mode="json"),
        recipe_fingerprint=recipe.fingerprint,
        data_fingerprint=data_fingerprint,
        excluded=excluded,
        versions=library_versions(),
        files={name: _record(model_dir, name) for name in names},
        privacy=privacy,
    )
    _write_manifest(model_dir, manifest)
    return manifest


def library_versions() -> dict[str, str]:
    """Versions of Python, textcls and what a bundle was made with."""
    return {"python": platform.python_version()} | {name: version_of(name) for name in ("textcls", *_LIBRARIES)}


def make_linked_bundle(bundle: Bundle, directory: str, *, metrics: Mapping[str, JsonValue], origin: Origin) -> str:
    """Makes another bundle of the same files in an empty local directory; returns its digest.

    Args:
        bundle: as the new one shall be used, see `Bundle.with_text`.
        directory: gets links to the files, and a `bundle.json`.
        metrics: the result of the new bundle, finite numbers.
        origin: what it is made of.

    Raises:
        StorageError: the manifest cannot be written.
    """
    for name in bundle.manifest.files:
        os.symlink(os.path.join(os.path.abspath(bundle.directory), name), os.path.join(directory, name))
    return _write_manifest(directory, bundle.manifest.model_copy(update={"metrics": dict(metrics), "origin": origin}))


def stated_metrics(scores: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The metrics that a bundle states: a task's summary without its matrices, whose place is the report."""
    return {name: value for name, value in scores.items() if name not in ("confusion", "co_occurrence")}


def _write_manifest(directory: str, manifest: Manifest) -> str:
    """Writes the manifest of the files in a local directory; returns its digest."""
    raw = manifest_bytes(manifest.model_dump(mode="json"))
    storage.write_bytes(os.path.join(os.path.abspath(directory), MANIFEST), raw)
    digest: str = json.loads(raw)["manifest_sha256"]
    return digest


def load_bundle(uri: str, *, cache: str | None = None, identity_file: str = "") -> Bundle:
    """A bundle of which every byte has been checked against its manifest.

    Args:
        uri: local directory, `s3://`, `gs://` or `package://NAME/path`; or a sealed bundle, NAME.age.
        cache: local directory for copies of remote bundles. Left out: see `cache_directory`. Sealed ones have none.
        identity_file: of the secret key that opens a sealed bundle; "": the environment names it.

    Raises:
        BundleError: no manifest, another format version, a task that this process does not know, a file that is
            missing, damaged, unlisted or of an unsafe kind; the message names the file.
        StorageError: storage cannot be read, or the copy of a remote bundle cannot be written.
    """
    uri = storage.absolute(uri)
    if encryption.is_encrypted(uri):
        opened = open_sealed(uri, age_keys.identities(identity_file), needs=MANIFEST)
        return replace(_verified(uri, opened.path), opened=opened, identity_file=identity_file)
    if not storage.exists(storage.join(uri, MANIFEST)):
        inner = storage.join(uri, "bundle")  # as a training run leaves it
        is_run = storage.exists(storage.join(inner, MANIFEST))
        raise BundleError(
            f"{uri} has no {MANIFEST}: not a bundle, or an unfinished one",
            todo=f"--bundle {shlex.quote(inner)}" if is_run else "check the path",
        )
    if not storage.is_remote(uri):
        return _verified(uri, uri)
    copy = download_directory(uri, cache or cache_directory("bundles"))
    try:
        return _verified(uri, copy)
    except BundleError:
        shutil.rmtree(copy, ignore_errors=True)  # the copy may be what is damaged: the next try gets a new one
        raise


def precision_asked(bundle: Bundle, precision: str = "auto") -> str:
    """The precision, or for `auto` that of the bundle's run; a recipe of another version may not have it."""
    if precision != "auto":
        return precision
    train = bundle.manifest.recipe.get("train")
    found = train.get("precision") if isinstance(train, dict) else None
    return found if found in ("fp32", "bf16") else "auto"


def _verified(uri: str, directory: str) -> Bundle:
    """The bundle in a local directory, after a look at every byte; messages name `uri`."""
    manifest, digest = read_manifest(storage.read_bytes(storage.join(directory, MANIFEST)), storage.join(uri, MANIFEST))
    _check_names(storage.join(uri, MANIFEST), manifest.files)
    task = _task_of(manifest, storage.join(uri, MANIFEST))
    found = set(storage.names_in(directory)) - {MANIFEST}
    todo = "copy or train the bundle again"
    if missing := sorted(set(manifest.files) - found):
        raise BundleError(f"{uri}: {missing[0]} is missing", expected=f"every file that {MANIFEST} lists", todo=todo)
    if unlisted := sorted(found - set(manifest.files)):
        # from_pretrained would look at it too; an adapter_config.json, say, changes the model.
        raise BundleError(
            f"{uri}: {unlisted[0]} does not belong to the bundle",
            expected=f"no file that {MANIFEST} does not list",
            todo="move it away",
        )
    for name, record in manifest.files.items():
        if (is_now := _record(directory, name)) != record:
            raise BundleError(
                f"{storage.join(uri, name)} is damaged: {is_now.size_bytes} bytes with sha256 {is_now.sha256}",
                expected=f"{record.size_bytes} bytes with sha256 {record.sha256}",
                todo=todo,
            )
    return Bundle(uri, directory, manifest, task, digest)


def _task_of(manifest: Manifest, name: str) -> Task:
    """The task that a manifest names; the scores of another would mean something else."""
    task = task_named(manifest.task)
    if task is None:
        raise BundleError(
            f"{name}: task is {manifest.task!r}",
            expected=f"one that this version of textcls knows: {', '.join(known_names())}",
            todo="use the version of textcls that wrote the bundle, or train it again",
        )
    if manifest.scoring != task.function_to_apply:
        raise BundleError(
            f"{name}: scoring is {manifest.scoring!r}",
            expected=f"{task.function_to_apply!r}, as for each bundle of task {task.name}",
        )
    return task


def _record(directory: str, name: str) -> FileRecord:
    path = os.path.join(directory, name)
    if not os.path.isfile(path):
        raise BundleError(f"{path} is not a file", expected="a bundle's files, side by side")
    with storage.explained(path), open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(sha256=digest, size_bytes=file.tell())


def _check_names(place: str, names: Iterable[str]) -> None:
    """No pickles, no code, no paths that lead elsewhere."""
    for name in names:
        if not _SAFE_NAME.fullmatch(name):
            raise BundleError(
                f"{place}: {name!r} must not be in a bundle",
                expected="files of the kinds .json, .safetensors, .txt, .model and .md, side by side",
                todo="move it away, or save it as one of these",
            )


def _check_config(path: str, labels: Sequence[str], task: Task) -> None:
    """`config.json` must say what the manifest says, since other programs look only there."""
    config = json.loads(storage.read_bytes(path))
    # transformers leaves the names out when they are the ones it would make up.
    found = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    if found != {str(i): label for i, label in enumerate(labels)}:
        raise BundleError(f"{path}: id2label is {found}", expected=f"the labels {list(labels)}, in this order")
    if (kind := config.get("problem_type")) != task.problem_type:
        raise BundleError(f"{path}: problem_type is {kind!r}", expected=f"{task.problem_type!r}")


def version_of(name: str) -> str:
    """The installed version of a distribution, or `not installed`."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # textcls as a runtime_env's working_dir
        return "not installed"
