"""What lies in the --out of a prediction, and whether a job may write there.

In: a URI and the identity of a job. Out: a `PredictionsDir`: the claimed directory, and which parts are finished.
Not here: claiming in general (output/claim.py), what a part holds (prediction_rows.py).

    OUT/progress/job.json         identity of the job; written first
    OUT/parts/part-00000.parquet  rows in input order; appears whole or not at all
    OUT/progress/to-label-00000.parquet  rows of that part that may be worth a label, if these are asked for
    OUT/progress/part-00000.json  counts of that part; written after the part, which is then finished
    OUT/to_label.csv              if asked for, the rows to label next
    OUT/explanations.html         of `explain`, as many of the rows as fit on a page
    OUT/predictions.json          counts of all parts; written last, then progress/ is deleted
    OUT/refused.json              instead, if no row could be scored: another job may replace it and its parts

With recipients, every file that holds texts is encrypted and its name ends with `.age`: all but the JSON files.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from textcls import encryption, storage
from textcls.encryption import NO_KEYS, Keys
from textcls.output.claim import OutKind, claim_or_continue
from textcls.output.json_files import read_json, write_json
from textcls.output.lock import NOTE as LOCK_NOTE

MANIFEST = "predictions.json"
FORMAT_VERSION = 2
"""Of the files of a job. Version 2 added the column `unknown_tokens`: a job that began with 1 cannot be continued."""
IDENTITY = "progress/job.json"
_REFUSED = "refused.json"
_FOLDERS = ("parts", "progress")
_PREDICTIONS = OutKind(
    name="predictions",
    finished_name="finished predictions",
    last_file=MANIFEST,
    first_file=IDENTITY,
    replaceable=frozenset({"progress"}),
)
_RECORD = re.compile(r"part-(\d{5,})\.json")


@dataclass(frozen=True)
class PredictionsDir:
    """The directory of a prediction, claimed for a job; picklable.

    Attributes:
        uri: its absolute URI.
        suffix: `parquet` or `csv`.
        keys: who may read the files that hold texts.
        own_recipient: of the process that runs the job, for files that the job reads again; "" if it reads none.
        resumed: whether the job began earlier.
    """

    uri: str
    suffix: str
    keys: Keys = NO_KEYS
    own_recipient: str = ""
    resumed: bool = False

    @classmethod
    def claim(
        cls, out: str, identity: Mapping[str, Any], *, suffix: str, keys: Keys = NO_KEYS, own_recipient: str = ""
    ) -> "PredictionsDir":
        """Claims a directory for a new job, or for the same job that began there.

        Args:
            out: URI of the directory.
            identity: everything that the rows of a part depend on; ready for JSON.
            suffix: `parquet` or `csv`.
            keys: who may read the files that hold texts; a job continues with the same recipients alone.
            own_recipient: see `PredictionsDir`.

        Raises:
            RunDirError: it holds finished predictions, another job's, or files of someone else.
            StorageError: it cannot be written.
        """
        _delete_refused(storage.absolute(out))
        # Left out without recipients: jobs that began before there were any have no such key.
        encrypted = {"encrypt_to": keys.recipients} if keys.recipients else {}
        claimed = claim_or_continue(out, _PREDICTIONS, {"format_version": FORMAT_VERSION, **identity, **encrypted})
        found = cls(claimed.uri, suffix, keys, own_recipient, resumed=claimed.is_begun)
        if found.resumed:
            found._delete_half_written()
        return found

    def part_name(self, index: int) -> str:
        """Path of a part in OUT."""
        return "parts/" + self.keys.name(f"part-{index:05d}.{self.suffix}")

    def part_uri(self, index: int) -> str:
        """URI of a part."""
        return storage.join(self.uri, self.part_name(index))

    def file_uri(self, name: str) -> str:
        """URI of a file in OUT that holds texts, by its name as a plain file."""
        return storage.join(self.uri, self.keys.name(name))

    def write_record(self, index: int, record: Mapping[str, Any]) -> None:
        """Marks a part that has been written as finished.

        Args:
            index: of the part.
            record: counts of its rows, ready for JSON.
        """
        write_json(self.uri, f"progress/part-{index:05d}.json", record)

    def recipients(self, *, read_again: bool = False) -> tuple[str, ...]:
        """Who may read a file that holds texts, and the job itself if it reads it again; none: it stays plain."""
        own = (self.own_recipient,) if read_again and self.own_recipient else ()
        return (*self.keys.recipients, *own) if self.keys.recipients else ()

    def write_candidates(self, index: int, table: pa.Table) -> None:
        """Writes the rows of a part that may be worth a label."""
        with encryption.written_whole(self.candidates_uri(index), self.recipients(read_again=True)) as file:
            pq.write_table(table, file)

    def candidates(self, index: int, opened_by: Sequence[Any] = ()) -> pa.Table:
        """What `write_candidates` wrote; `opened_by` are identities."""
        with encryption.open_input(self.candidates_uri(index), opened_by) as file:
            return pq.read_table(file)

    def candidates_uri(self, index: int) -> str:
        """URI of the rows of a part that may be worth a label."""
        return storage.join(self.uri, "progress", self.keys.name(f"to-label-{index:05d}.parquet"))

    def records(self) -> dict[int, dict[str, Any]]:
        """Index -> record of each finished part."""
        parts = {f"parts/{name}" for name in storage.names_in(storage.join(self.uri, "parts"))}
        found = {}
        for name in storage.names_in(storage.join(self.uri, "progress")):
            if (match := _RECORD.fullmatch(name)) and self.part_name(index := int(match[1])) in parts:
                found[index] = read_json(self.uri, f"progress/{name}")
        return found

    def unreadable(self, finished: Iterable[int], opened_by: Sequence[Any]) -> list[int]:
        """The finished parts of which the job cannot read again what an earlier start has written.

        Args:
            finished: indexes of parts.
            opened_by: the identities at hand.
        """
        if not self.own_recipient:
            return []
        aside = set(storage.names_in(storage.join(self.uri, "progress")))

        def uri_of(index: int) -> str:
            uri = self.candidates_uri(index)
            return uri if uri.rpartition("/")[2] in aside else self.part_uri(index)

        return [index for index in finished if not encryption.can_open(uri_of(index), opened_by)]

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Writes the manifest of all parts: the predictions are finished."""
        write_json(self.uri, MANIFEST, {"format_version": FORMAT_VERSION, **manifest})
        storage.delete_directory(storage.join(self.uri, "progress"))

    def refuse(self, manifest: Mapping[str, Any]) -> None:
        """Ends a job that could not score any row: the parts stay, with the error of each row, until the next job."""
        write_json(self.uri, _REFUSED, {"format_version": FORMAT_VERSION, **manifest})
        storage.delete_directory(storage.join(self.uri, "progress"))

    def abandon(self) -> None:
        """Empties the directory if the job is new and has finished no part."""
        if not self.resumed and not self.records():
            for folder in _FOLDERS:
                storage.delete_directory(storage.join(self.uri, folder))

    def _delete_half_written(self) -> None:
        """Deletes the temporary files of processes that were killed; nothing ever reads them."""
        for folder in _FOLDERS:
            directory = storage.join(self.uri, folder)
            for name in storage.names_in(directory):
                if name.endswith(".tmp"):
                    storage.delete_file(storage.join(directory, name))


def _delete_refused(uri: str) -> None:
    """Deletes what a job left that could not score any row, if nothing else lies there."""
    names = set(storage.names_in(uri)) if storage.exists(storage.join(uri, _REFUSED)) else set()
    if names and not names - {_REFUSED, LOCK_NOTE, *_FOLDERS}:
        for folder in _FOLDERS:
            storage.delete_directory(storage.join(uri, folder))
        storage.delete_file(storage.join(uri, _REFUSED))  # last: if killed before, the next job tries again
