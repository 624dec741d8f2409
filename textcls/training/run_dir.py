"""What lies in a run's --out, and whether a run may use it.

In: a URI. Out: a claim on it, and the checkpoint to continue from. Not here: what the files hold.

    OUT/run.json            identity of the run; written first
    OUT/events.jsonl        what happened, and when
    OUT/rows.json           the account of law 1
    OUT/rejects.parquet     every reject
    OUT/training/attempt-N  checkpoints, as Ray Train keeps them; removed when the bundle is complete
    OUT/tensorboard/        the curves, for TensorBoard
    OUT/report.json .png    results
    OUT/bundle/             written last: a run with a complete bundle is finished

A run owns its directory from its first checkpoint on: only --resume with its recipe goes on, and nothing is written
over. Before that there is nothing to lose: any recipe may begin anew in its place, whatever ended it.

Each attempt has a directory of its own, so Ray Train never sees the state that a killed attempt left half-written.
"""

import json
import re
import secrets
import shlex
from dataclasses import dataclass, replace
from typing import Any

from textcls import storage
from textcls.bundle import MANIFEST as BUNDLE_MANIFEST
from textcls.errors import RunDirError
from textcls.modeling.pretrained import Pretrained
from textcls.output.lock import NOTE as LOCK_NOTE
from textcls.plain_text import json_text
from textcls.settings.recipe import Recipe
from textcls.settings.yaml_text import set_option
from textcls.training.checkpoint import MANIFEST, check_checkpoint

_FORMAT = 1
# What a run that was refused for its data leaves: the account of why. The next try may write over it.
_ACCOUNT = {"rows.json", "rejects.parquet", "events.jsonl"}
# What else a run leaves that ended before its first checkpoint.
_BEGUN = {"run.json", "training", "tensorboard"}
_ATTEMPT = re.compile(r"attempt-(\d+)")


@dataclass(frozen=True)
class RunDir:
    """A run's directory, claimed by a recipe.

    Attributes:
        uri: where it is.
        resumed: whether the run was begun earlier.
        run_id: what events call it, however often it is resumed.
        replaces: whether it begins in the place of a run that kept no checkpoint.
    """

    uri: str
    resumed: bool
    run_id: str = ""
    replaces: bool = False

    @classmethod
    def claim(cls, out: str, recipe: Recipe, *, resume: bool) -> "RunDir":
        """Takes an empty directory, or that of a run without a checkpoint, for a new run; or, with `resume`, its own.

        Raises:
            RunDirError: it holds a finished run, an interrupted one with a checkpoint (without `resume`), another
                recipe's run (with `resume`), or something that is no run.
            StorageError: it cannot be written.
        """
        uri = storage.absolute(out)
        names = (set(storage.names_in(uri)) if storage.exists(uri) else set()) - {LOCK_NOTE}
        if "run.json" not in names:
            if names - _ACCOUNT:
                raise RunDirError(
                    f"{uri} is not empty and holds no run ({', '.join(sorted(names)[:3])}, ...)",
                    todo="name a new directory with --out",
                )
            if resume:
                raise RunDirError(f"{uri} holds no run to resume", todo="check --out, or leave --resume out")
            return cls._begun(uri, recipe)
        if storage.exists(storage.join(uri, "bundle", BUNDLE_MANIFEST)):
            raise RunDirError(
                f"{uri} holds a finished run; its bundle is {storage.join(uri, 'bundle')}",
                todo="name a new directory with --out; a finished run is never continued or written over",
            )
        run = cls(uri, resumed=True)
        begun = Recipe.model_validate(run._identity()["recipe"])
        if not resume:
            if (
                not run._checkpoints()
                and not names - _ACCOUNT - _BEGUN
                and all(map(_ATTEMPT.fullmatch, run._attempts()))
            ):
                run._delete_unfinished()
                return replace(cls._begun(uri, recipe), replaces=True)
            raise RunDirError(
                f"{uri} holds a run that was interrupted", todo="--resume continues it exactly; or name a new --out"
            )
        if begun.learning_fingerprint != recipe.learning_fingerprint:
            raise RunDirError(
                f"{uri} holds a run of another recipe: {_difference(begun, recipe)}",
                todo=f"{_way_back(begun, recipe)} resumes it; or name a new --out",
            )
        return replace(run, run_id=run._identity().get("id", ""))

    @classmethod
    def _begun(cls, uri: str, recipe: Recipe) -> "RunDir":
        run = cls(uri, resumed=False, run_id=secrets.token_hex(6))
        identity = {"format": _FORMAT, "id": run.run_id, "recipe": recipe.model_dump(mode="json"), "data": None}
        run.write_json("run.json", identity)
        return run

    def _identity(self) -> dict[str, Any]:
        path = storage.join(self.uri, "run.json")
        try:
            content: dict[str, Any] = json.loads(storage.read_bytes(path))
            if content["format"] != _FORMAT:
                raise RunDirError(f"{path} has format {content['format']}", expected=f"format {_FORMAT}")
            Recipe.model_validate(content["recipe"])
            content["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise RunDirError(
                f"{path} is damaged: {str(error).splitlines()[0]}", todo="name a new --out and start again"
            ) from error
        return content

    def model_commit(self) -> str:
        """The hub's commit of the pretrained model that the run began with; "" if it has none."""
        commit: str = self._identity().get("model", {}).get("commit", "")
        return commit

    def bind_model(self, model: Pretrained) -> None:
        """Notes which pretrained model the run fine-tunes; a resumed run must find the same.

        Raises:
            RunDirError: its files have changed since the run began.
        """
        identity = self._identity()
        begun = identity.get("model")
        if begun is None:
            self.write_json("run.json", identity | {"model": {"commit": model.commit, "digest": model.digest}})
        elif begun["digest"] != model.digest:
            raise RunDirError(
                f"{model.directory} is not the model this run began with (sha256 of its files {model.digest[:12]}, "
                f"then {begun['digest'][:12]})",
                todo="put its files back to resume, or name a new --out",
            )

    def bind_data(self, fingerprint: str) -> None:
        """Notes which rows the run learns from; a resumed run must find the same.

        Raises:
            RunDirError: the rows have changed since the run began.
        """
        identity = self._identity()
        if identity["data"] is None:
            self.write_json("run.json", identity | {"data": fingerprint})
        elif identity["data"] != fingerprint:
            raise RunDirError(
                f"the CSV files are not those this run began with (fingerprint {fingerprint[:12]}, "
                f"then {identity['data'][:12]})",
                todo="restore them to resume, or name a new --out",
            )

    def abandon(self) -> None:
        """Gives up a run before its first checkpoint: only the account of its rows stays."""
        if not self.resumed and not self._checkpoints():
            self._delete_unfinished()
            storage.delete_file(storage.join(self.uri, "run.json"))

    def _delete_unfinished(self) -> None:
        for name in ("training", "tensorboard"):
            if storage.exists(place := storage.join(self.uri, name)):
                storage.delete_directory(place)

    def next_attempt(self) -> str:
        """URI of a directory for a new attempt's checkpoints; its parent and name are what Ray Train asks for."""
        taken = [int(m[1]) for name in self._attempts() if (m := _ATTEMPT.fullmatch(name))]
        return storage.join(self.uri, "training", f"attempt-{max(taken, default=0) + 1:04d}")

    def attempts_so_far(self) -> int:
        """How often the run has come as far as training."""
        return len(self._attempts())

    def latest_checkpoint(self, run_id: str) -> str:
        """URI of the checkpoint that is furthest on, hashes checked; "" if there is none.

        Raises:
            RunDirError: that checkpoint is damaged or another run's.
        """
        found = self._checkpoints()
        if not found:
            return ""
        _, _, uri = max(found)
        check_checkpoint(uri, run_id=run_id)
        return uri

    def _checkpoints(self) -> list[tuple[str, str, str]]:
        """(step, attempt, URI) of each complete checkpoint.

        A directory without a manifest is what a kill in the middle of writing leaves, and is passed over: from the
        checkpoint before it the run ends with the same weights.
        """
        found = []
        for attempt in filter(_ATTEMPT.fullmatch, self._attempts()):
            place = storage.join(self.uri, "training", attempt)
            for name in storage.names_in(place):
                uri = storage.join(place, name)
                if name.startswith("step-") and storage.exists(storage.join(uri, MANIFEST)):
                    found.append((name, attempt, uri))
        return found

    def _attempts(self) -> list[str]:
        place = storage.join(self.uri, "training")
        return storage.names_in(place) if storage.exists(place) else []

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Writes a small file, whole or not at all."""
        storage.write_bytes(storage.join(self.uri, name), json_text(content, indent=1, default=list).encode())

    def drop_checkpoints(self) -> None:
        """Frees what only an unfinished run needs."""
        storage.delete_directory(storage.join(self.uri, "training"))


def _way_back(begun: Recipe, now: Recipe) -> str:
    """The options under which a recipe is again the one that a run began with."""
    was, given = (recipe.model_dump(mode="json", exclude={"scale", "serve"}) for recipe in (begun, now))
    options = [
        f"--csv {shlex.join(value)}" if (section, key) == ("data", "csv") else set_option(f"{section}.{key}", value)
        for section, values in was.items()
        for key, value in values.items()
        if given[section][key] != value
    ]
    return " ".join(["--resume", *options])


def _difference(one: Recipe, other: Recipe) -> str:
    """The first key in which two recipes differ."""
    for section, values in one.model_dump(mode="json", exclude={"scale"}).items():
        now = other.model_dump(mode="json")[section]
        for key, value in values.items():
            if now[key] != value:
                return f"{section}.{key} was {value!r}, now {now[key]!r}"
    return "same settings"
