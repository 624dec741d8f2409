"""Who may use an --out: a new job, or the very job that began there and now continues.

In: the URI of an --out, and what its kind of job writes there. Out: a `Claim`, or the reason why there is none.
Not here: two jobs at once (lock.py), what the files hold.

    not there, empty, or only files that the next job may replace  ─▶ a new job takes it
    the first file is there, the last one is not                   ─▶ its own job may continue
    the last file is there                                         ─▶ refused: finished results are never overwritten
    anything else                                                  ─▶ refused: it belongs to someone else
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from textcls import storage
from textcls.errors import RunDirError
from textcls.output.json_files import read_json, write_json
from textcls.output.lock import NOTE as LOCK_NOTE
from textcls.plain_text import json_text


@dataclass(frozen=True)
class OutKind:
    """What one kind of job writes in its --out.

    Attributes:
        name: of what it writes, such as "run", for messages.
        finished_name: of the complete result, such as "a finished run".
        last_file: path of the file that is written last: with it the result is complete.
        first_file: path of the file that is written first and identifies the job; "" if such jobs never continue.
        replaceable: names that the next job may replace, such as the account of a job that was refused.
    """

    name: str
    finished_name: str
    last_file: str
    first_file: str = ""
    replaceable: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Claim:
    """An --out that a job may use.

    Attributes:
        uri: its absolute URI.
        names: what lies in it.
        is_begun: whether a job has begun there: it may only be continued or, if it has nothing to lose, be replaced.
    """

    uri: str
    names: frozenset[str]
    is_begun: bool


def claim(out: str, kind: OutKind) -> Claim:
    """Claims an --out for a job; changes nothing in it.

    Args:
        out: URI of a directory, which need not exist.
        kind: what the job will write there.

    Raises:
        RunDirError: it holds a finished result or files of someone else.
    """
    uri = storage.absolute(out)
    names = frozenset(storage.names_in(uri) if storage.exists(uri) else ()) - {LOCK_NOTE}
    if storage.exists(storage.join(uri, kind.last_file)):
        raise RunDirError(
            f"{uri} holds {kind.finished_name}: {storage.join(uri, kind.last_file)}",
            todo="name a new directory with --out; finished results are never continued or overwritten",
        )
    is_begun = bool(kind.first_file) and storage.exists(storage.join(uri, kind.first_file))
    if not is_begun and (others := names - kind.replaceable):
        raise RunDirError(
            f"{uri} is not empty and holds no {kind.name} ({', '.join(sorted(others)[:3])}, ...)",
            todo="name a new directory with --out",
        )
    return Claim(uri, names, is_begun)


def claim_or_continue(out: str, kind: OutKind, identity: Mapping[str, Any]) -> Claim:
    """Claims an --out for a new job, whose identity is written there, or for the same job that began there.

    Args:
        out: URI of a directory, which need not exist.
        kind: what the job will write there.
        identity: everything that what it writes depends on, ready for JSON.

    Raises:
        RunDirError: as `claim`; or another job began there.
        StorageError: it cannot be written.
    """
    claimed = claim(out, kind)
    wanted = json.loads(json.dumps(identity))
    if not claimed.is_begun:
        write_json(claimed.uri, kind.first_file, wanted)
    elif (begun := read_json(claimed.uri, kind.first_file)) != wanted:
        raise RunDirError(
            f"{claimed.uri} holds {kind.name} of another job: {difference(begun, wanted)}",
            todo="give the same command to continue them, or name a new --out",
        )
    return claimed


def difference(begun: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first key in which two identities of jobs differ, with both values, as one phrase."""
    for key in sorted({*begun, *now}):
        was, wanted = begun.get(key), now.get(key)
        if isinstance(was, Mapping) and isinstance(wanted, Mapping) and was != wanted:
            return f"{key}: {difference(was, wanted)}"
        if was != wanted:
            return f"{key} was {json_text(was)}, now {json_text(wanted)}"
    return "nothing"
