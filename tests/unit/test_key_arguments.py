"""`--encrypt-to` and `--identity-file` reach the jobs of every command, and a secret key among them goes nowhere."""

import importlib
import re
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pyrage
import pytest

from textcls.__main__ import COMMANDS
from textcls.age_keys import IDENTITY, IDENTITY_FILE
from textcls.encryption import Keys
from textcls.errors import InputError
from textcls.sealed_directory import seal_directory

SECRET = pyrage.x25519.Identity.generate()
RECIPIENT, OTHER = sorted(str(one.to_public()) for one in (SECRET, pyrage.x25519.Identity.generate()))
DOCUMENT = Path(__file__).parents[2] / "jobs" / "README.md"

# Command -> its job, which takes `keys`, or the options that hold them.
JOBS = {
    "train": "textcls.training.run.train",
    "train --dry-run": "textcls.training.run.dry_run",
    "audit": "textcls.audit.run.audit",
    "evaluate": "textcls.batch.evaluate.evaluate",
    "predict": "textcls.batch.predict.predict",
    "explain": "textcls.batch.explain.explain_rows",
    "rebundle": "textcls.batch.rebundle.rebundle",
}


class Reached(InputError):
    """In place of the job."""


def parser_of(command: str) -> ArgumentParser:
    return importlib.import_module(f"textcls.commands.{command}").parser()


def options_of(command: str) -> set[str]:
    return {option for action in parser_of(command)._actions for option in action.option_strings}


@pytest.fixture
def identity_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (IDENTITY, IDENTITY_FILE):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "key.txt").write_text(str(SECRET))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "key.txt"


@pytest.mark.parametrize("command", JOBS)
def test_a_command_hands_its_keys_to_its_job(
    command: str, identity_file: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Any, Any]] = []

    def job(*arguments: Any, **options: Any) -> None:
        held = next((one.keys for one in arguments if hasattr(one, "keys") and isinstance(one.keys, Keys)), None)
        given.append((options.get("keys", held), arguments[0]))
        raise Reached("the job")

    monkeypatch.setattr(JOBS[command], job)
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    seal_directory(str(tiny_bundle), str(tmp_path / "b.age"), [str(SECRET.to_public())])
    name, *more = command.split()
    if "--bundle" in options_of(name):
        more += ["--bundle", "b.age"] + ["--set", "text.on_long=error"] * (name == "rebundle")
    else:
        more += ["--recipe", "base"]
    keys = ["--encrypt-to", OTHER, "--encrypt-to", RECIPIENT, "--identity-file", "key.txt"]
    main = importlib.import_module(f"textcls.commands.{name}").main
    assert main([*more, "--csv", "a.csv", "--out", "out", *keys]) == 2
    ((found, first),) = given
    assert found == Keys((RECIPIENT, OTHER), str(identity_file))
    if "b.age" in more:
        assert (first.uri, first.identity_file) == (str(tmp_path / "b.age"), str(identity_file))


def test_the_service_takes_the_file_of_the_identity(
    identity_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textcls.commands.serve import main

    given: list[str] = []

    def run_service(*_: Any, identity_file: str, **__: Any) -> None:
        given.append(identity_file)

    monkeypatch.setattr("textcls.serving.local.service.run_service", run_service)
    assert main(["--bundle", "b.age", "--identity-file", "key.txt"]) == 0
    assert main(["--bundle", "b"]) == 0
    assert given == [str(identity_file), ""]


@pytest.mark.parametrize("command", [command for command in JOBS if " " not in command])
def test_a_secret_key_for_a_public_one_is_refused_before_anything_else_and_not_repeated(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["--bundle", "b"] if "--bundle" in options_of(command) else ["--recipe", "base"]
    arguments = [*source, "--csv", "a.csv", "--out", "out", "--encrypt-to", str(SECRET)]
    assert importlib.import_module(f"textcls.commands.{command}").main(arguments) == 2
    printed = "".join(capsys.readouterr())
    assert "--encrypt-to, value 1, is a secret key" in printed
    assert str(SECRET)[16:40] not in printed


def test_every_command_that_reads_or_writes_texts_has_the_arguments_and_a_line_in_the_list() -> None:
    listed = DOCUMENT.read_text(encoding="utf-8").partition("## Encryption")[2].partition("### Sealed")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", listed, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    encrypting = {command for command in COMMANDS if "--encrypt-to" in options_of(command)}
    assert encrypting == named | {"seal"}
    assert {command for command in COMMANDS if "--identity-file" not in options_of(command)} == {"forget", "mask"}
