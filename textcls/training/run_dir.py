"""What lies in the --out of a training run, and whether a run may use it.

In: a URI and a recipe. Out: a `RunDir`: the claimed directory, and the checkpoint to resume from. Not here: claiming
in general (output/claim.py), what checkpoints and bundles hold.

    OUT/run.json            identity of the run; written first
    OUT/events.jsonl        the events of the run, with their times
    OUT/rows.json           the account of rows
    OUT/rejects.parquet     every rejected row; with recipients rejects.parquet.age
    OUT/training/attempt-N  checkpoints, as Ray Train writes them; deleted when the bundle is complete
    OUT/tensorboard/        curves for TensorBoard
    OUT/report.json .html .png  results
    OUT/bundle/             written last: a run with a complete bundle is finished

Before its first checkpoint, a run has nothing to lose: a new run with any recipe may replace it. From then on it can
only be resumed, with --resume and the same recipe.

Each attempt has its own directory, so Ray Train never reads the half-written state of an attempt that was killed.
"""

import contextlib
import re
import secrets
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from textcls import storage
from textcls.bundle import MANIFEST as BUNDLE_MANIFEST
from textcls.encryption import NO_KEYS, Keys
from textcls.errors import RunDirError, TextclsError
from textcls.modeling.pretrained import Pretrained
from textcls.output.account import FILES as ACCOUNT_FILES
from textcls.output.claim import OutKind, claim, difference
from textcls.output.json_files import damaged, read_json, write_json
from textcls.settings.recipe import OF_NO_LEARNING, Recipe
from textcls.settings.yaml_text import set_option
from textcls.training.checkpoint import MANIFEST, check_checkpoint

_FORMAT = 1
IDENTITY = "run.json"
_RUN = OutKind(
    name="run",
    finished_name="a finished run",
    last_file=f"bundle/{BUNDLE_MANIFEST}",
    first_file=IDENTITY,
    replaceable=ACCOUNT_FILES | {"events.jsonl"},
)
_ACCOUNT = replace(_RUN, first_file="", replaceable=ACCOUNT_FILES)
# What else a run has written before its first checkpoint.
_BEFORE_FIRST_CHECKPOINT = _RUN.replaceable | {IDENTITY, "training", "tensorboard"}
_ATTEMPT = re.compile(r"attempt-(\d+)")


@dataclass(frozen=True)
class RunDir:
    """The directory of a run, claimed for a recipe.

    Attributes:
        uri: its absolute URI.
        resumed: whether the run began earlier.
        run_id: the random id by which events name the run; a resumed run keeps it.
        replaces: whether the run replaces one that had no checkpoint.
        keys: who may read the files that hold texts.
    """

    uri: str
    resumed: bool
    run_id: str = ""
    replaces: bool = False
    keys: Keys = NO_KEYS

    @classmethod
    def claim(cls, out: str, recipe: Recipe, *, resume: bool, keys: Keys = NO_KEYS) -> "RunDir":
        """Claims a directory for a new run or, with `resume`, for the run that began there.

        Args:
            out: URI of the directory.
            recipe: of the run.
            resume: continue an interrupted run.
            keys: who may read the files that hold texts; a run is resumed with the same recipients alone.

        Raises:
            RunDirError: it holds a finished run, an interrupted one with a checkpoint (without `resume`), a run of
                another recipe (with `resume`), or files of someone else.
            StorageError: it cannot be written.
        """
        claimed = claim(out, _RUN)
        uri = claimed.uri
        if not claimed.is_begun:
            if resume:
                raise RunDirError(f"{uri} holds no run to resume", todo="check --out, or leave --resume out")
            return cls._begin(uri, recipe, keys)
        run = cls(uri, resumed=True)
        identity = run._identity()
        if not resume:
            has_strange_files = claimed.names - _BEFORE_FIRST_CHECKPOINT or not all(
                map(_ATTEMPT.fullmatch, run._attempts())
            )
            if has_strange_files or run._checkpoints():
                raise RunDirError(
                    f"{uri} holds a run that was interrupted", todo="--resume continues it exactly; or name a new --out"
                )
            run._delete_unfinished()
            return replace(cls._begin(uri, recipe, keys), replaces=True)
        begun = Recipe.model_validate(identity["recipe"])
        if begun.learning_fingerprint != recipe.learning_fingerprint:
            raise RunDirError(
                f"{uri} holds a run of another recipe: {difference(_settings(begun), _settings(recipe))}",
                todo=f"{_options_of(begun, recipe)} resumes it; or name a new --out",
            )
        if (encrypted_to := tuple(identity.get("encrypt_to", ()))) != keys.recipients:
            options = "".join(f" --encrypt-to {one}" for one in encrypted_to)
            raise RunDirError(
                f"{uri} holds a run whose rejects are encrypted to {', '.join(encrypted_to) or 'no one'}, now to "
                f"{', '.join(keys.recipients) or 'no one'}",
                todo=f"--resume{options or ' without --encrypt-to'} resumes it; or name a new --out",
            )
        return replace(run, run_id=identity.get("id", ""), keys=keys)

    @classmethod
    def _begin(cls, uri: str, recipe: Recipe, keys: Keys) -> "RunDir":
        run = cls(uri, resumed=False, run_id=secrets.token_hex(6), keys=keys)
        identity = {"format": _FORMAT, "id": run.run_id, "recipe": recipe.model_dump(mode="json"), "data": None}
        write_json(uri, IDENTITY, identity | ({"encrypt_to": keys.recipients} if keys.recipients else {}))
        return run

    def _identity(self) -> dict[str, Any]:
        """The content of run.json, checked."""
        content, path = read_json(self.uri, IDENTITY), storage.join(self.uri, IDENTITY)
        try:
            if content["format"] != _FORMAT:
                raise RunDirError(f"{path} has format {content['format']}", expected=f"format {_FORMAT}")
            Recipe.model_validate(content["recipe"])
            content["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(path, str(error)) from error
        return content

    def model_commit(self) -> str:
        """The commit on the Hugging Face hub of the pretrained model that the run began with; "" if it has none."""
        commit: str = self._identity().get("model", {}).get("commit", "")
        return commit

    def bind_model(self, model: Pretrained) -> None:
        """Records the pretrained model of a new run; checks that a resumed run has the same one.

        Raises:
            RunDirError: the files of the model have changed since the run began.
        """
        identity = self._identity()
        begun = identity.get("model")
        if begun is None:
            model_identity = {"commit": model.commit, "digest": model.digest}
            write_json(self.uri, IDENTITY, identity | {"model": model_identity})
        elif begun["digest"] != model.digest:
            raise RunDirError(
                f"{model.directory} is not the model this run began with (sha256 of its files {model.digest[:12]}, "
                f"then {begun['digest'][:12]})",
                todo="put its files back to resume, or name a new --out",
            )

    def bind_data(self, fingerprint: str) -> None:
        """Records the rows of a new run; checks that a resumed run has the same ones.

        Args:
            fingerprint: of the clean rows, as `ReadRows.fingerprint`.

        Raises:
            RunDirError: the rows have changed since the run began.
        """
        identity = self._identity()
        if identity["data"] is None:
            write_json(self.uri, IDENTITY, identity | {"data": fingerprint})
        elif identity["data"] != fingerprint:
            raise RunDirError(
                "the CSV files, or those of data.exclude, are not those this run began with (fingerprint "
                f"{fingerprint[:12]}, then {identity['data'][:12]})",
                todo="restore them to resume, or name a new --out",
            )

    def bind_privacy(self, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The privacy budget of a run: that of a new one is computed and recorded, a resumed one keeps the record."""
        identity = self._identity()
        if "privacy" not in identity:
            identity["privacy"] = compute()
            write_json(self.uri, IDENTITY, identity)
        budget: dict[str, Any] = identity["privacy"]
        return budget

    def neighbours(self, most: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, identity) of the runs in directories beside this one; those that cannot be read are left out.

        Args:
            most: directories that are looked into.
        """
        parent, _, own = self.uri.rpartition("/")
        names = sorted(storage.names_in(parent)) if storage.exists(parent) else []
        for name in [name for name in names if name != own][:most]:
            with contextlib.suppress(TextclsError, OSError):
                uri = storage.join(parent, name)
                if storage.exists(storage.join(uri, IDENTITY)) and isinstance(
                    content := read_json(uri, IDENTITY), dict
                ):
                    yield name, content

    def abandon(self) -> None:
        """Deletes a new run that has no checkpoint yet, except the account of its rows."""
        if not self.resumed and not self._checkpoints():
            self._delete_unfinished()
            storage.delete_file(storage.join(self.uri, IDENTITY))

    def _delete_unfinished(self) -> None:
        for name in ("training", "tensorboard"):
            if storage.exists(directory := storage.join(self.uri, name)):
                storage.delete_directory(directory)

    def next_attempt(self) -> str:
        """URI of a new directory for the checkpoints of the next attempt.

        Ray Train takes its parent as the storage path and its name as the name of the run.
        """
        taken = [int(m[1]) for name in self._attempts() if (m := _ATTEMPT.fullmatch(name))]
        return storage.join(self.uri, "training", f"attempt-{max(taken, default=0) + 1:04d}")

    def attempts_so_far(self) -> int:
        """How many attempts have started training."""
        return len(self._attempts())

    def latest_checkpoint(self, fingerprint: str) -> str:
        """URI of the complete checkpoint with the highest step, its hashes checked; "" if there is none.

        Args:
            fingerprint: of recipe and data, which the checkpoint must have.

        Raises:
            RunDirError: that checkpoint is damaged or belongs to another run.
        """
        found = self._checkpoints()
        if not found:
            return ""
        _, _, uri = max(found)
        check_checkpoint(uri, fingerprint=fingerprint)
        return uri

    def has_checkpoint(self) -> bool:
        """Whether the run can be resumed later than at its first step."""
        return bool(self._checkpoints())

    def _checkpoints(self) -> list[tuple[str, str, str]]:
        """(step, attempt, URI) of each complete checkpoint.

        A checkpoint without a manifest is skipped: the process was killed while writing it. Resuming from the
        checkpoint before it gives the same weights.
        """
        found = []
        for attempt in filter(_ATTEMPT.fullmatch, self._attempts()):
            directory = storage.join(self.uri, "training", attempt)
            for name in storage.names_in(directory):
                uri = storage.join(directory, name)
                if name.startswith("step-") and storage.exists(storage.join(uri, MANIFEST)):
                    found.append((name, attempt, uri))
        return found

    def _attempts(self) -> list[str]:
        directory = storage.join(self.uri, "training")
        return storage.names_in(directory) if storage.exists(directory) else []

    def drop_checkpoints(self) -> None:
        """Deletes the checkpoints, which only an unfinished run needs."""
        storage.delete_directory(storage.join(self.uri, "training"))


def claim_for_account(uri: str) -> None:
    """Claims a directory for the account of rows alone, as a dry run leaves it; a new run may replace it.

    Raises:
        RunDirError: it holds a run, or files of someone else.
    """
    if storage.exists(storage.join(uri, IDENTITY)):
        raise RunDirError(f"{uri} holds a run", todo="name a new --out for the account of a dry run")
    claim(uri, _ACCOUNT)


def _settings(recipe: Recipe) -> dict[str, Any]:
    """SECTION.KEY -> value of each setting that a resumed run must keep."""
    sections = {name: getattr(recipe, name) for name in type(recipe).model_fields if name not in OF_NO_LEARNING}
    found: dict[str, Any] = {}
    for section, spec in sections.items():
        written = spec.model_dump(mode="json")
        # What a section leaves out has its default.
        found |= {f"{section}.{key}": written.get(key, getattr(spec, key)) for key in type(spec).model_fields}
    return found


def _options_of(begun: Recipe, now: Recipe) -> str:
    """The command-line options that turn a recipe back into the one that a run began with."""
    given = _settings(now)
    options = [
        f"--csv {shlex.join(value)}" if key == "data.csv" else set_option(key, value)
        for key, value in _settings(begun).items()
        if given[key] != value
    ]
    return " ".join(["--resume", *options])
