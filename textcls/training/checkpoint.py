"""Training state as files, and back, exactly.

In: a module, its optimizer and a `TrainingState`. Out: a directory from which a run continues bit for bit:
`config.json` and `model.safetensors` (a model directory already), `optimizer.safetensors`, in private training
`private.key` with the run's secret, and `checkpoint.json`, written last, with the state and a sha256 per file. Nothing
is pickled. Not here: where checkpoints are kept (Ray Train) and which one a run continues from (run_dir.py).
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from textcls import storage
from textcls.directories import download_directory
from textcls.errors import RunDirError
from textcls.plain_text import json_text

MANIFEST = "checkpoint.json"
KEY = "private.key"
"""The secret of private training. It is nowhere else, for its owner alone, and deleted with the checkpoints."""
_FORMAT = 1


@dataclass
class TrainingState:
    """How far a run is. With the recipe it determines everything else: random state is seeded by step, not carried.

    Attributes:
        step: optimizer steps done.
        epoch: epochs done.
        best_score: the best value of `select_by` so far (higher is better), None before the first validation.
        best_step: step of that value.
        best_uri: checkpoint directory of that value.
        stale_epochs: epochs since then.
        stopped_early: whether patience ran out.
        curve: (step, mean training loss per row since the entry before).
        history: validation results by epoch.
        open_loss: loss summed since the last entry of `curve`.
        open_rows: rows of `open_loss`.
        padded_tokens: tokens run, padding included.
        real_tokens: tokens run, without padding.
        rows: rows trained on.
        seconds: time spent in steps.
    """

    step: int = 0
    epoch: int = 0
    best_score: float | None = None
    best_step: int = 0
    best_uri: str = ""
    stale_epochs: int = 0
    stopped_early: bool = False
    curve: list[tuple[int, float]] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    open_loss: float = 0.0
    open_rows: int = 0
    padded_tokens: int = 0
    real_tokens: int = 0
    rows: int = 0
    seconds: float = 0.0


def write_checkpoint(
    directory: str, model: Any, optimizer: Any, state: TrainingState, *, fingerprint: str, key: bytes = b""
) -> None:
    """Writes a checkpoint into an empty local directory; the manifest comes last and makes it complete.

    Args:
        directory: where to.
        model: the bare module (never its data-parallel wrapper).
        optimizer: AdamW over the module's parameters.
        state: how far the run is.
        fingerprint: of recipe and data; a checkpoint with another one is refused.
        key: the secret of private training.
    """
    from safetensors.torch import save_file

    write_weights(directory, model)
    moments = {}
    for name, parameter in model.named_parameters():
        if of_one := optimizer.state.get(parameter):
            moments[f"exp_avg.{name}"] = of_one["exp_avg"]
            moments[f"exp_avg_sq.{name}"] = of_one["exp_avg_sq"]
    save_file(moments, os.path.join(directory, "optimizer.safetensors"))
    if key:
        with open(os.path.join(directory, KEY), "wb", opener=storage.open_for_owner) as file:
            file.write(key)
    content = {
        "format": _FORMAT,
        "run_id": fingerprint,
        "progress": asdict(state),
        "files": {name: storage.sha256_of(os.path.join(directory, name)) for name in sorted(os.listdir(directory))},
    }
    with open(os.path.join(directory, MANIFEST), "w", encoding="utf-8") as manifest:
        manifest.write(json_text(content, indent=1))


def read_checkpoint(directory: str, model: Any, optimizer: Any, *, fingerprint: str) -> TrainingState:
    """Puts a checkpoint's weights and moments into a module and its optimizer; returns how far the run was.

    Raises:
        RunDirError: see `check_checkpoint`.
    """
    import torch
    from safetensors.torch import load_file

    state = check_checkpoint(directory, fingerprint=fingerprint)
    read_weights(directory, model)
    moments = load_file(os.path.join(directory, "optimizer.safetensors"))
    for name, parameter in model.named_parameters():
        if f"exp_avg.{name}" in moments:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(state.step), device=parameter.device),
                "exp_avg": moments[f"exp_avg.{name}"].to(parameter.device),
                "exp_avg_sq": moments[f"exp_avg_sq.{name}"].to(parameter.device),
            }
    return state


def read_key(directory: str) -> bytes:
    """The secret of private training in a checkpoint that `check_checkpoint` accepts."""
    with open(os.path.join(directory, KEY), "rb") as file:
        return file.read()


def write_weights(directory: str, model: Any) -> None:
    """Writes a module's configuration and weights, under the names that its parameters have in memory."""
    model.save_pretrained(directory, save_original_format=False)


def read_weights(directory: str, model: Any) -> None:
    """Puts a checkpoint's weights into a module."""
    from safetensors.torch import load_file

    # Tied weights are stored once; anything else that does not fit was found by the manifest's hashes.
    missing, unexpected = model.load_state_dict(load_file(os.path.join(directory, "model.safetensors")), strict=False)
    assert not unexpected, unexpected
    assert not set(missing) & {name for name, _ in model.named_parameters()}, missing


def check_checkpoint(uri: str, *, fingerprint: str, hashes: bool = True) -> TrainingState:
    """The state in a checkpoint that may be used.

    Args:
        uri: the checkpoint's directory.
        fingerprint: of the run that reads it.
        hashes: also read and hash every file.

    Raises:
        RunDirError: incomplete, damaged (the message names the file), or another run's.
    """
    try:
        content = json.loads(storage.read_bytes(storage.join(uri, MANIFEST)))
        found, files = content["run_id"], content["files"]
        state = TrainingState(**content["progress"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirError(f"{storage.join(uri, MANIFEST)} is damaged: {error}", todo=_go_back(uri)) from error
    if found != fingerprint:
        raise RunDirError(
            f"{uri} is a checkpoint of another run ({found[:12]}, this one is {fingerprint[:12]})",
            todo="use another --out, or remove it",
        )
    for name, expected in files.items() if hashes else ():
        if storage.sha256_of(storage.join(uri, name)) != expected:
            raise RunDirError(f"{storage.join(uri, name)} is damaged: its sha256 has changed", todo=_go_back(uri))
    state.curve = [(int(step), float(loss)) for step, loss in state.curve]
    return state


@contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """A local directory with a checkpoint's files; a remote one is copied for as long as the block lasts."""
    if not storage.is_remote(uri):
        yield uri
        return
    with tempfile.TemporaryDirectory(prefix="textcls-checkpoint-") as cache:
        yield download_directory(uri, cache, owner_only=(KEY,))


def _go_back(uri: str) -> str:
    return f"check the disk; remove {uri} and --resume continues from the checkpoint before it, to the same result"
