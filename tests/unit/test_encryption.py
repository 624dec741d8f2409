"""Encrypted files: what comes back, what is refused, and what is never written or repeated."""

import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyrage
import pytest

from textcls import encryption, storage
from textcls.age_keys import IDENTITY, IDENTITY_FILE, OwnKey, checked_recipients, identities
from textcls.encryption import Keys
from textcls.errors import InputError, StorageError

MARKER = b"a text that nobody else may read, "


def pair() -> tuple[str, str]:
    """(recipient, identity) of a new pair."""
    new = pyrage.x25519.Identity.generate()
    return str(new.to_public()), str(new)


RECIPIENT, SECRET = pair()
OPENS = [pyrage.x25519.Identity.from_str(SECRET)]


@pytest.fixture(autouse=True)
def no_identity_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(IDENTITY, raising=False)
    monkeypatch.delenv(IDENTITY_FILE, raising=False)


def refused(error: pytest.ExceptionInfo[Any], *secrets: str) -> str:
    """The whole message, in which no secret stands."""
    text = f"{error.value} {error.value.args} {error.value.__cause__} {error.value.__context__}"
    for secret in secrets:
        assert secret.strip().casefold()[20:40] not in text.casefold()
    return str(error.value)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3_000_000])
def test_what_is_written_comes_back_to_each_recipient_and_to_no_one_else(tmp_path: Path, size: int) -> None:
    content, uri = os.urandom(size), str(tmp_path / "f.age")
    pairs = [pair() for _ in range(3)]
    with encryption.written_whole(uri, [recipient for recipient, _ in pairs]) as file:
        for start in range(0, size, 70_001):
            file.write(content[start : start + 70_001])
        assert file.tell() == size
    raw = Path(uri).read_bytes()
    assert raw.startswith(b"age-encryption.org/v1\n-> X25519 ")
    assert raw.count(b"\n-> X25519 ") == 3
    for _, secret in pairs:
        assert encryption.read_bytes(uri, [pyrage.x25519.Identity.from_str(secret)]) == content
    with pytest.raises(InputError) as error:
        encryption.read_bytes(uri, OPENS)
    assert f"is not encrypted to the identity at hand, {RECIPIENT}" in refused(error, SECRET)
    assert not encryption.can_open(uri, OPENS)
    assert encryption.can_open(uri, [*OPENS, pyrage.x25519.Identity.from_str(pairs[1][1])])


def test_files_of_object_storage_are_the_same(s3: str) -> None:
    uri = f"{s3}/x/f.age"
    with encryption.written_whole(uri, [RECIPIENT]) as file:
        file.write(MARKER * 10_000)
    assert encryption.read_bytes(uri, OPENS) == MARKER * 10_000
    assert MARKER[:12] not in storage.read_bytes(uri)
    encryption.write_bytes(uri, b"another", [RECIPIENT])
    with encryption.open_input(uri, OPENS) as again:
        assert again.read() == b"another"
    with pytest.raises(ZeroDivisionError), encryption.written_whole(f"{s3}/x/g.age", [RECIPIENT]) as file:
        file.write(b"%d" % (1 // 0))
    assert storage.names_in(f"{s3}/x") == ["f.age"]


def test_parquet_and_text_files_are_written_as_to_any_file(tmp_path: Path) -> None:
    table = pa.table({"text": [f"row {i}" for i in range(100_000)]})
    with encryption.written_whole(str(tmp_path / "t.age"), [RECIPIENT]) as file:
        pq.write_table(table, file)
    with encryption.open_input(str(tmp_path / "t.age"), OPENS) as again:
        assert pq.read_table(again).equals(table)
    with encryption.written_whole(str(tmp_path / "c.age"), [RECIPIENT]) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", newline="")
        text.write("é\r\n")
        text.detach()
    assert encryption.read_bytes(str(tmp_path / "c.age"), OPENS) == "\ufeffé\r\n".encode()


def test_without_recipients_a_file_stays_plain(tmp_path: Path) -> None:
    with encryption.written_whole(str(tmp_path / "a"), ()) as file:
        file.write(b"plain")
    encryption.write_bytes(str(tmp_path / "b"), b"plain", ())
    assert [encryption.read_bytes(str(tmp_path / name), []) for name in "ab"] == [b"plain"] * 2


def open_files() -> Iterator[bytes]:
    """The content of every regular file that this process has open, named or not."""
    for name in os.listdir("/proc/self/fd"):
        path = Path("/proc/self/fd") / name
        if path.is_file():
            yield path.read_bytes()


@pytest.mark.parametrize("place", ["local", "remote"])
def test_the_plaintext_is_on_no_disk_at_any_moment(
    place: str, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    uri = str(tmp_path / "out" / "f.age") if place == "local" else f"{s3}/f.age"

    def everything() -> list[bytes]:
        return [*(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()), *open_files()]

    with encryption.written_whole(uri, [RECIPIENT]) as file:
        file.write(MARKER * 500_000)
        file.flush()
        assert any(len(content) > 10_000_000 for content in everything()), "the file that is written is looked at"
        assert not any(MARKER in content for content in everything())
    assert not any(MARKER in content for content in everything())


def test_a_file_whose_writer_fails_never_appears(tmp_path: Path) -> None:
    with pytest.raises(TypeError), encryption.written_whole(str(tmp_path / "f.age"), [RECIPIENT]) as file:
        file.writelines([MARKER * 100_000, None])  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []


class FullDisk(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("size", [10, 10_000_000])
def test_a_full_disk_is_reported_as_such_however_late_it_is_noticed(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    @contextmanager
    def written_whole(uri: str) -> Iterator[Any]:
        with storage.explained(uri):
            yield FullDisk()

    monkeypatch.setattr(storage, "written_whole", written_whole)
    with (
        pytest.raises(StorageError, match="no room to write"),
        encryption.written_whole(str(tmp_path / "f.age"), [RECIPIENT]) as file,
    ):
        file.writelines([bytes(size)] * 2)


# --- damage ----------------------------------------------------------------------------------------------------------


def test_a_file_that_is_cut_or_changed_anywhere_is_refused_until_it_is_copied_again(tmp_path: Path) -> None:
    path = tmp_path / "f.age"
    encryption.write_bytes(str(path), MARKER * 6_000, [RECIPIENT])  # several chunks
    whole = path.read_bytes()
    places = [*range(0, len(whole), len(whole) // 20), len(whole) - 17, len(whole) - 1]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1
        for content in (whole[:place], bytes(changed)):
            path.write_bytes(content)
            with pytest.raises(InputError) as error:
                encryption.read_bytes(str(path), OPENS)
            assert refused(error, SECRET).startswith(f"{path} is ")
    assert "copy or write it again" in str(error.value)
    path.write_bytes(whole)
    assert encryption.read_bytes(str(path), OPENS) == MARKER * 6_000


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.age").write_bytes(b"PAR1 and then no file of age" * 100)
    with pytest.raises(InputError, match="damaged, incomplete or no file of age"):
        encryption.read_bytes(str(tmp_path / "f.age"), OPENS)


def test_a_missing_file_and_a_failing_network_are_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="check the path"):
        encryption.read_bytes(str(tmp_path / "f.age"), OPENS)
    encryption.write_bytes(str(tmp_path / "f.age"), bytes(1_000_000), [RECIPIENT])

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage, "open_input", lambda uri: Failing())
    with pytest.raises(StorageError, match="Input/output error"):
        encryption.read_bytes(str(tmp_path / "f.age"), OPENS)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_recipients_are_sorted_and_each_is_there_once() -> None:
    one, two = sorted([RECIPIENT, pair()[0]])
    assert checked_recipients([two, f" {one}\n", two]) == (one, two)
    assert checked_recipients([]) == ()


@pytest.mark.parametrize("form", [str, str.lower, lambda key: f"  {key}\n", lambda key: key[:-1]], ids=range(4))
def test_a_secret_key_in_place_of_a_public_one_is_refused_and_not_repeated(form: Any) -> None:
    with pytest.raises(InputError) as error:
        checked_recipients([RECIPIENT, form(SECRET)])
    assert "--encrypt-to, value 2, is a secret key" in refused(error, SECRET)
    assert "give the public key" in str(error.value)
    assert checked_recipients([str(OPENS[0].to_public())]) == (RECIPIENT,)


@pytest.mark.parametrize(
    "wrong", ["", "age1", RECIPIENT[:-1], RECIPIENT[:-1] + "i", "ssh-ed25519 AAAA", SECRET[16:]], ids=range(6)
)
def test_what_is_no_public_key_is_refused(wrong: str) -> None:
    with pytest.raises(InputError) as error:
        checked_recipients([wrong])
    assert "value 1, is no public key of age" in refused(error, SECRET)
    assert "copy the whole key" in str(error.value)
    assert (wrong in str(error.value)) == wrong.startswith("age1") or not wrong
    assert checked_recipients([RECIPIENT]) == (RECIPIENT,)


def test_identities_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [pair() for _ in range(2)]
    (tmp_path / "named").write_text(f"# created: today\n# public key: {RECIPIENT}\n{SECRET}\n")
    (tmp_path / "of environment").write_text(others[0][1])

    def found(file: str = "") -> list[str]:
        return [str(one.to_public()) for one in identities(file)]

    assert found() == []
    assert found(str(tmp_path / "named")) == [RECIPIENT]
    monkeypatch.setenv(IDENTITY, f"\n{others[1][1]}\n{SECRET}")
    assert found() == [others[1][0], RECIPIENT]
    monkeypatch.setenv(IDENTITY_FILE, str(tmp_path / "of environment"))
    assert found() == [others[0][0], others[1][0], RECIPIENT]
    assert found(str(tmp_path / "named")) == [RECIPIENT], "the argument replaces the environment"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (SECRET[:-1], "line 1, is no identity of age"),
        (f"# mine\n{SECRET.lower()}x", "line 2, is no identity of age"),
        (RECIPIENT, "line 1, is a public key"),
        ("# nothing\n", "holds no identity"),
        ("\udcff", "not UTF-8"),
    ],
    ids=["cut", "longer", "public key", "nothing", "no text"],
)
def test_what_is_no_identity_is_refused_and_not_repeated_until_it_is_one(
    content: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "key.txt"
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(InputError) as error:
        identities(str(path))
    assert told in refused(error, SECRET)
    assert str(path) in str(error.value)
    path.write_text(SECRET)
    assert len(identities(str(path))) == 1


@pytest.mark.parametrize("content", ["garbage", "FILE", "# nothing"])
def test_a_variable_that_holds_no_key_is_told_the_two_that_work(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key.txt"
    path.write_text(SECRET)
    monkeypatch.setenv(IDENTITY, str(path) if content == "FILE" else content)
    with pytest.raises(InputError) as error:
        identities()
    assert f"put the key itself there, or set {IDENTITY_FILE} to the file" in error.value.todo
    monkeypatch.setenv(IDENTITY, SECRET)
    assert len(identities()) == 1
    monkeypatch.delenv(IDENTITY)
    monkeypatch.setenv(IDENTITY_FILE, str(path))
    assert len(identities()) == 1


def test_a_missing_file_of_identities_can_be_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name the file that `age-keygen -o FILE` has written"):
        identities(str(tmp_path / "key.txt"))


def test_an_encrypted_file_without_an_identity_comes_with_the_ways_to_give_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "f.age")
    encryption.write_bytes(uri, MARKER, [RECIPIENT])
    with pytest.raises(InputError) as error:
        encryption.read_bytes(uri, identities())
    assert f"--identity-file FILE, or set {IDENTITY_FILE} or {IDENTITY}" in str(error.value)
    (tmp_path / "key.txt").write_text(SECRET)
    assert encryption.read_bytes(uri, identities(str(tmp_path / "key.txt"))) == MARKER
    with monkeypatch.context() as patch:
        patch.setenv(IDENTITY_FILE, str(tmp_path / "key.txt"))
        assert encryption.read_bytes(uri, identities()) == MARKER
    monkeypatch.setenv(IDENTITY, SECRET)
    assert encryption.read_bytes(uri, identities()) == MARKER


def test_what_travels_holds_no_secret_and_a_process_s_own_key_does_not_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(IDENTITY, SECRET)
    keys = Keys((RECIPIENT,), str(tmp_path / "key.txt"))
    assert pickle.loads(pickle.dumps(keys)) == keys  # as Ray carries it
    assert SECRET.encode() not in pickle.dumps(keys)
    assert [keys.name("a.csv"), Keys().name("a.csv")] == ["a.csv.age", "a.csv"]
    own = OwnKey()
    with pytest.raises(TypeError):
        pickle.dumps(own)
    encryption.write_bytes(str(tmp_path / "f.age"), MARKER, [RECIPIENT, own.recipient])
    assert encryption.read_bytes(str(tmp_path / "f.age"), own.identities()) == MARKER
