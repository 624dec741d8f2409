"""One job at a time in an --out. `pytest tests/unit/test_lock.py`"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from textcls import storage
from textcls.errors import RunDirError
from textcls.output import lock
from textcls.output.lock import NOTE, locked

HOLD = (
    "import sys; from textcls.output import lock; lock._RENEW_S = lock._SETTLE_S = 0.1\n"
    "with lock.locked(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run's directory, local and on object storage, and a lock with little patience."""
    for name, value in {"_RENEW_S": 0.5, "_SETTLE_S": 0.1, "_DEAD_AFTER_S": 2.0}.items():
        monkeypatch.setattr(lock, name, value)
    return str(tmp_path / "out") if request.param == "local" else f"{request.getfixturevalue('s3')}/out"


def held_by_another(place: str) -> subprocess.Popen[bytes]:
    other = subprocess.Popen([sys.executable, "-c", HOLD, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    return other


def test_a_second_job_is_refused_until_the_first_has_ended(place: str) -> None:
    other = held_by_another(place)
    try:
        for _ in range(2):
            with pytest.raises(RunDirError, match="is writing there") as refused, locked(place):
                pytest.fail("two jobs in one place")
            assert refused.value.found.startswith(place)
    finally:
        other.communicate()
    with locked(place):
        storage.write_bytes(storage.join(place, "x"), b"")
    assert storage.names_in(place) == ["x"]


def test_a_job_that_was_killed_holds_nothing(place: str) -> None:
    other = held_by_another(place)
    os.kill(other.pid, signal.SIGKILL)
    other.communicate()
    with locked(place):
        pass
    assert storage.names_in(place) == []


def test_of_two_jobs_that_begin_at_once_on_object_storage_one_goes_on(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"{s3}/out"

    def another_comes(_: float) -> None:
        storage.write_bytes(storage.join(place, NOTE), b'{"host": "far", "pid": 7}')

    monkeypatch.setattr(lock.time, "sleep", another_comes)
    with pytest.raises(RunDirError, match="process 7 on far is writing there"), locked(place):
        pytest.fail("two jobs in one place")
    assert storage.names_in(place) == [NOTE]
