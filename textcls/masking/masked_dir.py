"""What lies in the --out of a mask job, and how parts become files.

In: a URI, the identity of a job, its input files. Out: a `MaskedDir`: the claimed directory, and which parts are
finished. Not here: claiming in general (output/claim.py), what a part holds (masked_rows.py).

    OUT/progress/job.json           identity of the job; written first
    OUT/progress/part-00000.csv     the masked records of a shard; appears whole or not at all
    OUT/progress/part-00000.parquet its rejects, if there are any
    OUT/progress/part-00000.json    its counts; written last, the part is then finished
    OUT/csv/NAME                    a masked file; its parts are deleted once it is there
    OUT/rejects.parquet             the rows that could not be parsed
    OUT/masked.json                 counts of all files; written last, then progress/ is deleted
"""

import posixpath
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from textcls import storage
from textcls.data.file_formats import is_compressed
from textcls.output.account import REJECTS
from textcls.output.claim import OutKind, claim_or_continue
from textcls.output.json_files import read_json, write_json

MANIFEST = "masked.json"
IDENTITY = "progress/job.json"
FORMAT_VERSION = 1
_MASKED = OutKind(
    name="masked files",
    finished_name="finished masked files",
    last_file=MANIFEST,
    first_file=IDENTITY,
    replaceable=frozenset({"progress", REJECTS}),
)
_RECORD = re.compile(r"part-(\d{5,})\.json")


@dataclass(frozen=True)
class MaskedDir:
    """The directory of a mask job, claimed for it; picklable.

    Attributes:
        uri: its absolute URI.
        resumed: whether the job began earlier.
    """

    uri: str
    resumed: bool = False

    @classmethod
    def claim(cls, out: str, identity: Mapping[str, Any]) -> Self:
        """Claims a directory for a new job, or for the same job that began there.

        Raises:
            RunDirError: it holds finished files, another job's, or files of someone else.
            StorageError: it cannot be written.
        """
        claimed = claim_or_continue(out, _MASKED, {"format_version": FORMAT_VERSION, **identity})
        return cls(claimed.uri, resumed=claimed.is_begun)

    def _progress(self, index: int, suffix: str) -> str:
        return storage.join(self.uri, f"progress/part-{index:05d}.{suffix}")

    def part_uri(self, index: int) -> str:
        """URI of the records of a shard."""
        return self._progress(index, "csv")

    def finish_part(self, index: int, record: Mapping[str, Any], rejects: pa.Table) -> None:
        """Marks a part that has been written as finished.

        Args:
            index: of the shard.
            record: counts of its rows, ready for JSON.
            rejects: of `REJECT_SCHEMA`.
        """
        if len(rejects):
            with storage.written_whole(self._progress(index, "parquet")) as file:
                pq.write_table(rejects, file)
        write_json(self.uri, f"progress/part-{index:05d}.json", record)

    def records(self) -> dict[int, dict[str, Any]]:
        """Index -> record of each finished part."""
        names = storage.names_in(storage.join(self.uri, "progress"))
        found = [int(match[1]) for name in names if (match := _RECORD.fullmatch(name))]
        return {index: self.record(index) for index in found}

    def record(self, index: int) -> dict[str, Any]:
        """The record of a finished part."""
        return read_json(self.uri, f"progress/part-{index:05d}.json")

    def rejects(self, index: int) -> pa.Table:
        """The rejects of a part that has some."""
        return pq.read_table(pa.BufferReader(storage.read_bytes(self._progress(index, "parquet"))))

    def join(self, name: str, parts: Sequence[int]) -> None:
        """Makes a file of its parts, in order, and deletes these; does nothing if the file is there."""
        uri = storage.join(self.uri, "csv", name)
        if not storage.exists(uri):
            with storage.written_whole(uri) as file:
                for index in parts:
                    with storage.open_input(self.part_uri(index)) as part:
                        shutil.copyfileobj(part, file, storage.BUFFER_BYTES)
        for index in parts:
            if storage.exists(self.part_uri(index)):
                storage.delete_file(self.part_uri(index))

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Writes the manifest of all files: the job is finished."""
        write_json(self.uri, MANIFEST, {"format_version": FORMAT_VERSION, **manifest})
        storage.delete_directory(storage.join(self.uri, "progress"))

    def abandon(self) -> None:
        """Deletes all that the job has written: it was refused."""
        for folder in ("csv", "progress"):
            if storage.names_in(storage.join(self.uri, folder)):
                storage.delete_directory(storage.join(self.uri, folder))


def file_names(uris: Sequence[str]) -> list[str]:
    """The name of the masked file of each input: its own, without the ending of a compression; each name once."""
    taken: set[str] = set()
    names = []
    for uri in uris:
        name = posixpath.basename(uri)
        name = posixpath.splitext(name)[0] if is_compressed(name) else name
        stem, ending = posixpath.splitext(name)
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}{ending}"
        taken.add(name)
        names.append(name)
    return names
