"""What lies in a prediction's --out, and whether a job may write there.

In: a URI and the identity of a job. Out: a claim on it, and which parts are finished. Not here: what a part holds
(prediction_rows.py).

    OUT/progress/job.json         identity of the job; written first
    OUT/parts/part-00000.parquet  rows in input order; appears whole or not at all
    OUT/progress/part-00000.json  what that part holds, in numbers; written after it: the part is finished
    OUT/predictions.json          all of it; written last: the prediction is finished, and progress/ goes
    OUT/refused.json              in its place if no row could be scored: another job may write over it and its parts
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from textcls import storage
from textcls.errors import RunDirError
from textcls.output.lock import NOTE as LOCK_NOTE
from textcls.plain_text import json_text

MANIFEST = "predictions.json"
_REFUSED = "refused.json"
FORMAT_VERSION = 1
_RECORD = re.compile(r"part-(\d{5,})\.json")


@dataclass(frozen=True)
class PredictionsDir:
    """A directory, claimed by a job; picklable.

    Attributes:
        uri: where it is.
        suffix: `parquet` or `csv`.
        continued: whether the job was begun earlier.
    """

    uri: str
    suffix: str
    continued: bool = False

    @classmethod
    def claim(cls, out: str, identity: Mapping[str, Any], *, suffix: str) -> "PredictionsDir":
        """Takes an empty directory, one whose predictions were refused, or the one that this very job began.

        Args:
            out: URI of the directory.
            identity: whatever changes the rows of a part; ready for JSON.
            suffix: `parquet` or `csv`.

        Raises:
            RunDirError: it holds finished predictions, another job's, or something else.
            StorageError: it cannot be written.
        """
        uri = storage.absolute(out)
        names = (set(storage.names_in(uri)) if storage.exists(uri) else set()) - {LOCK_NOTE}
        if MANIFEST in names:
            raise RunDirError(
                f"{uri} holds finished predictions",
                todo="name a new directory with --out; finished predictions are never written over",
            )
        job = storage.join(uri, "progress", "job.json")
        wanted = json.loads(json.dumps({"format_version": FORMAT_VERSION, **identity}))
        if _REFUSED in names and not names - {_REFUSED, "parts", "progress"}:
            for folder in ("parts", "progress"):
                storage.delete_directory(storage.join(uri, folder))
            storage.delete_file(storage.join(uri, _REFUSED))  # last: a kill before it leaves what may be taken again
            names = set()
        if not storage.exists(job):
            if names - {"progress"}:
                raise RunDirError(
                    f"{uri} is not empty and holds no predictions ({', '.join(sorted(names)[:3])}, ...)",
                    todo="name a new directory with --out",
                )
            storage.write_bytes(job, _as_json(wanted))
            return cls(uri, suffix)
        begun = _read(job)
        if begun != wanted:
            raise RunDirError(
                f"{uri} holds predictions that were begun otherwise: {_difference(begun, wanted)}",
                todo="give the same command to continue them, or name a new --out",
            )
        found = cls(uri, suffix, continued=True)
        found._sweep()
        return found

    def part_name(self, index: int) -> str:
        """Path of a part below OUT."""
        return f"parts/part-{index:05d}.{self.suffix}"

    def part_uri(self, index: int) -> str:
        """Where a part is written."""
        return storage.join(self.uri, self.part_name(index))

    def write_record(self, index: int, record: Mapping[str, Any]) -> None:
        """Notes that a part, which has been written, is finished."""
        storage.write_bytes(storage.join(self.uri, "progress", f"part-{index:05d}.json"), _as_json(record))

    def records(self) -> dict[int, dict[str, Any]]:
        """Index -> record of each finished part."""
        progress = storage.join(self.uri, "progress")
        parts = set(storage.names_in(storage.join(self.uri, "parts")))
        found = {}
        for name in storage.names_in(progress):
            if (match := _RECORD.fullmatch(name)) and f"{name.removesuffix('.json')}.{self.suffix}" in parts:
                found[int(match[1])] = _read(storage.join(progress, name))
        return found

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Makes the predictions finished."""
        storage.write_bytes(storage.join(self.uri, MANIFEST), _as_json({"format_version": FORMAT_VERSION, **manifest}))
        storage.delete_directory(storage.join(self.uri, "progress"))

    def refuse(self, manifest: Mapping[str, Any]) -> None:
        """Ends a job none of whose rows could be scored: the parts stay, and say why, until another job comes."""
        storage.write_bytes(storage.join(self.uri, _REFUSED), _as_json({"format_version": FORMAT_VERSION, **manifest}))
        storage.delete_directory(storage.join(self.uri, "progress"))

    def abandon(self) -> None:
        """Gives up a job that this start began and that finished no part: the directory is free again."""
        if not self.continued and not self.records():
            for folder in ("parts", "progress"):
                storage.delete_directory(storage.join(self.uri, folder))

    def _sweep(self) -> None:
        """Removes what a killed process was writing: files under a name of their own, never read."""
        for folder in ("parts", "progress"):
            place = storage.join(self.uri, folder)
            for name in storage.names_in(place):
                if name.endswith(".tmp"):
                    storage.delete_file(storage.join(place, name))


def _as_json(content: Mapping[str, Any]) -> bytes:
    return (json_text(content, indent=1) + "\n").encode()


def _read(uri: str) -> dict[str, Any]:
    try:
        content = json.loads(storage.read_bytes(uri))
    except ValueError as error:
        raise RunDirError(f"{uri} is damaged: {error}", todo="name a new --out and start again") from error
    if not isinstance(content, dict):
        raise RunDirError(f"{uri} is damaged: no mapping", todo="name a new --out and start again")
    return content


def _difference(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first thing in which two identities differ."""
    for key in sorted({*begun, *wanted}):
        one, other = begun.get(key), wanted.get(key)
        if isinstance(one, dict) and isinstance(other, dict) and one != other:
            return f"{key}: {_difference(one, other)}"
        if one != other:
            return f"{key} was {json_text(one)}, now {json_text(other)}"
    return "nothing"
