"""A sealed bundle is the bundle itself, in one encrypted file that is opened on no disk."""

import gc
import io
import logging
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyrage
import pytest
from transformers import pipeline

from textcls import encryption
from textcls.age_keys import IDENTITY, IDENTITY_FILE
from textcls.bundle import MANIFEST, load_bundle
from textcls.commands.seal import main, parser
from textcls.errors import BundleError, InputError
from textcls.inference.classifier import Classifier
from textcls.inference.embeddings import Embedder
from textcls.inference.explain import explain
from textcls.sealed_directory import open_sealed, seal_directory
from textcls.text.text_input import TextInput

SECRET, OTHER = (pyrage.x25519.Identity.generate() for _ in range(2))
RECIPIENT, OTHER_RECIPIENT = str(SECRET.to_public()), str(OTHER.to_public())
TEXTS = ["the film was really great", "its plot was awful", "", "街 café, " * 30, "fine!"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The identity is in the environment; temporary files have a folder of their own."""
    monkeypatch.setenv(IDENTITY, str(SECRET))
    monkeypatch.delenv(IDENTITY_FILE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture(params=["in memory", "on a disk"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "on a disk":
        monkeypatch.delattr(os, "memfd_create")
    return str(request.param)


@pytest.fixture
def sealed(tiny_bundle: Path, tmp_path: Path) -> Path:
    found = tmp_path / "bundle.age"
    seal_directory(str(tiny_bundle), str(found), [RECIPIENT])
    return found


def temporary(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "temporary").iterdir())


def content(directory: Path | str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def test_a_sealed_bundle_is_the_bundle_itself(sealed: Path, tiny_bundle: Path, place: str) -> None:
    plain, opened = load_bundle(str(tiny_bundle)), load_bundle(str(sealed))
    assert (opened.digest, opened.manifest, opened.task) == (plain.digest, plain.manifest, plain.task)
    assert opened.uri == str(sealed)
    assert opened.opened.in_memory == (place == "in memory")
    assert content(opened.directory) == content(tiny_bundle)
    one, other = Classifier.of(plain, device="cpu"), Classifier.of(opened, device="cpu")
    scores, same = one.scores(TEXTS), other.scores(TEXTS)
    np.testing.assert_array_equal(scores.probabilities, same.probabilities)
    assert [scores.label(i) for i in range(len(TEXTS))] == [same.label(i) for i in range(len(TEXTS))]
    inputs = [TextInput(TEXTS[0])]
    for method in ("leave_one_out", "integrated_gradients"):
        assert explain(one, inputs, method=method) == explain(other, inputs, method=method)
    np.testing.assert_array_equal(Embedder.of_bundle(plain)(inputs), Embedder.of_bundle(opened)(inputs))
    of_transformers = pipeline("text-classification", opened.directory, device="cpu")(TEXTS[0])
    assert of_transformers[0]["score"] == pytest.approx(float(scores.probabilities[0].max()), abs=1e-5)


def test_no_byte_of_an_opened_bundle_is_on_a_disk_where_the_system_has_files_in_memory(
    sealed: Path, tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = Classifier.load(str(sealed), device="cpu")
    directory = Path(classifier.bundle.directory)
    assert temporary(tmp_path) == [directory]
    assert directory.stat().st_mode & 0o077 == 0
    assert {os.readlink(path).rpartition("/")[0] for path in directory.iterdir()} == {"/proc/self/fd"}
    marks = [path.read_bytes()[-200:] for path in tiny_bundle.iterdir()]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files == [sealed]
    assert not any(mark in sealed.read_bytes() for mark in marks)
    assert not (tmp_path / "cache").exists()
    assert caplog.records == []


def test_an_opened_bundle_is_gone_with_the_object_that_holds_it(sealed: Path, tmp_path: Path, place: str) -> None:
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    first = load_bundle(str(sealed))
    second = load_bundle(str(sealed)).with_text(first.manifest.text)
    gc.collect()
    assert len(temporary(tmp_path)) == 2
    del first
    gc.collect()
    assert temporary(tmp_path) == [Path(second.directory)]
    assert (Path(second.directory) / MANIFEST).is_file()
    del second
    gc.collect()
    assert temporary(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_where_there_is_no_memory_for_files_one_line_says_where_they_are(
    sealed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    bundle = load_bundle(str(sealed))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{sealed} is decrypted to {bundle.directory}:" in record.getMessage()
    assert Path(bundle.directory).stat().st_mode & 0o077 == 0


KILLED = """
import os, signal, sys
if sys.argv[2] == "on a disk":
    del os.memfd_create
from textcls.bundle import load_bundle
bundle = load_bundle(sys.argv[1])
if sys.argv[3] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["killed", "ended"])
def test_what_a_killed_process_left_is_deleted_by_the_next_one(
    sealed: Path, tiny_bundle: Path, tmp_path: Path, place: str, end: str
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, sealed, place, end], cwd=ROOT, capture_output=True)
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 0), done.stderr
    left = temporary(tmp_path)
    assert len(left) == (end == "killed")
    if left and place == "in memory":
        assert all(path.is_symlink() for path in left[0].iterdir()), "links to files that are gone"
    strange = tmp_path / "temporary" / "textcls-opened-by-no-one"
    strange.write_text("a file of someone else")
    bundle = load_bundle(str(sealed))
    assert sorted(temporary(tmp_path)) == sorted([Path(bundle.directory), strange])


def test_directories_in_use_are_left_alone(sealed: Path) -> None:
    used = [load_bundle(str(sealed)) for _ in range(4)]
    assert all((Path(bundle.directory) / MANIFEST).is_file() for bundle in used)


def test_a_bundle_is_sealed_and_opened_in_object_storage_without_a_copy(
    s3: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    arguments = ["--bundle", str(tiny_bundle), "--out", f"{s3}/b.age", "--encrypt-to", RECIPIENT]
    assert main(arguments) == 0
    assert load_bundle(f"{s3}/b.age").digest == load_bundle(str(tiny_bundle)).digest
    assert not (tmp_path / "cache").exists()


def test_the_same_bundle_has_the_same_plaintext_which_tar_unpacks(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    for path in sorted(tiny_bundle.iterdir(), reverse=True):
        (copy / path.name).write_bytes(path.read_bytes())
        os.utime(copy / path.name, (1, 1))
        (copy / path.name).chmod(0o600)
    tars = []
    for directory in (tiny_bundle, copy):
        seal_directory(str(directory), str(tmp_path / "b.age"), [RECIPIENT])
        tars.append(encryption.read_bytes(str(tmp_path / "b.age"), [SECRET]))
    assert tars[0] == tars[1]
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-x", "-C", tmp_path / "unpacked"], input=tars[0], check=True)
    assert content(tmp_path / "unpacked") == content(tiny_bundle)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_sealed_bundle_opens_for_its_recipients_alone_and_can_be_sealed_for_another(
    sealed: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.txt").write_text(str(OTHER))
    with pytest.raises(InputError, match="is not encrypted to the identity at hand"):
        load_bundle(str(sealed), identity_file=str(tmp_path / "key.txt"))
    new = tmp_path / "new.age"
    assert main(["--bundle", str(sealed), "--out", str(new), "--encrypt-to", OTHER_RECIPIENT]) == 0
    with pytest.raises(InputError, match="is not encrypted to the identity at hand"):
        load_bundle(str(new))
    found = load_bundle(str(new), identity_file=str(tmp_path / "key.txt"))
    assert (found.digest, found.identity_file) == (load_bundle(str(tiny_bundle)).digest, str(tmp_path / "key.txt"))
    monkeypatch.delenv(IDENTITY)
    with pytest.raises(InputError, match="there is no identity to open it"):
        load_bundle(str(sealed))


def test_a_cut_or_changed_file_is_refused_and_leaves_nothing(sealed: Path, tmp_path: Path, place: str) -> None:
    whole = sealed.read_bytes()
    for cut in (0, 100, 1_000, len(whole) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[cut] ^= 1
        for damaged in (whole[:cut], bytes(changed)):
            sealed.write_bytes(damaged)
            with pytest.raises(InputError, match=r"(damaged, incomplete or no file|not encrypted to)"):
                load_bundle(str(sealed))
    gc.collect()
    assert temporary(tmp_path) == []
    sealed.write_bytes(whole)
    load_bundle(str(sealed))


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry, inside in entries:
            entry.size = len(inside)
            tar.addfile(entry, io.BytesIO(inside))
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    return found


HARMLESS = (entry("config.json"), b"{}")


@pytest.mark.parametrize(
    "wrong",
    [
        entry("/etc/passwd"),
        entry("../up.json"),
        entry("a/b.json"),
        entry("./config2.json"),
        entry(".."),
        entry("folder", tarfile.DIRTYPE),
        entry("link.json", tarfile.SYMTYPE, "/etc/passwd"),
        entry("link.json", tarfile.LNKTYPE, "config.json"),
        entry("pipe", tarfile.FIFOTYPE),
        entry("device", tarfile.CHRTYPE),
        entry("config.json"),
        entry("x" * 230),
    ],
    ids=lambda one: f"{one.type.decode()} {one.name[:20]}",
)
def test_a_tar_that_holds_anything_but_files_side_by_side_is_refused(
    wrong: tarfile.TarInfo, tmp_path: Path, place: str
) -> None:
    uri = str(tmp_path / "b.age")
    encryption.write_bytes(uri, tar_of(HARMLESS, (wrong, b"")), [RECIPIENT])
    with pytest.raises(InputError) as refused:
        open_sealed(uri, [SECRET], needs="config.json")
    assert f"{wrong.name!r} must not be in a sealed bundle" in str(refused.value)
    assert "seal the bundle with `textcls seal`" in refused.value.todo
    assert temporary(tmp_path) == []


def test_a_file_without_a_bundle_is_refused_until_one_is_sealed(tiny_bundle: Path, tmp_path: Path) -> None:
    uri = str(tmp_path / "b.age")
    encryption.write_bytes(uri, b"no tar at all" * 1_000, [RECIPIENT])
    with pytest.raises(InputError, match="holds no sealed bundle") as refused:
        load_bundle(uri)
    assert "seal the bundle with `textcls seal`" in refused.value.todo
    encryption.write_bytes(uri, tar_of(HARMLESS), [RECIPIENT])
    with pytest.raises(InputError, match=f"has no {MANIFEST}") as refused:
        load_bundle(uri)
    assert "seal the directory that holds it" in refused.value.todo
    os.unlink(uri)
    assert main(["--bundle", str(tiny_bundle), "--out", uri, "--encrypt-to", RECIPIENT]) == 0
    load_bundle(uri)


def test_the_hashes_of_the_manifest_are_checked_as_ever(tiny_bundle: Path, tmp_path: Path) -> None:
    for name, told in {
        "config.json": "config.json is damaged",
        "adapter_config.json": "does not belong to the bundle",
    }.items():
        directory = tmp_path / name
        directory.mkdir()
        for path in tiny_bundle.iterdir():
            (directory / path.name).write_bytes(path.read_bytes())
        (directory / name).write_text("{}")
        seal_directory(str(directory), f"{directory}.age", [RECIPIENT])
        with pytest.raises(BundleError, match=told):
            load_bundle(f"{directory}.age")


def test_a_missing_sealed_bundle_is_a_wrong_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="check the path"):
        load_bundle(str(tmp_path / "b.age"))


# --- the command -----------------------------------------------------------------------------------------------------


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err.partition("to do:")[2].strip()


def test_a_command_that_cannot_seal_comes_with_what_to_add(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--bundle", str(tiny_bundle), "--out", str(tmp_path / "b"))
    assert refusal(capsys, *given) == "name who may open the bundle: --encrypt-to age1..."
    option, out = refusal(capsys, *given, "--encrypt-to", RECIPIENT).split()
    assert main([*given, "--encrypt-to", RECIPIENT, option, out]) == 0
    assert f"--bundle {out}" in capsys.readouterr().out
    assert load_bundle(out).digest == load_bundle(str(tiny_bundle)).digest
    again = [*given, "--encrypt-to", RECIPIENT, option, out]
    assert "move it away, or name another --out" in refusal(capsys, *again)
    os.rename(out, f"{out}.old")
    assert main(again) == 0


def test_what_cannot_be_opened_is_not_sealed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "b.age"
    assert main(["--bundle", str(tmp_path), "--out", str(out), "--encrypt-to", RECIPIENT]) == 2
    assert "has no bundle.json" in capsys.readouterr().err
    assert not out.exists()


def test_the_secret_key_cannot_be_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", "b", "--out", "b.age", "--encrypt-to", str(SECRET)]) == 2
    assert str(SECRET)[16:40] not in capsys.readouterr().err
    options = {option for action in parser()._actions for option in action.option_strings}
    assert options == {"-h", "--help", "--bundle", "--out", "--encrypt-to", "--identity-file"}
