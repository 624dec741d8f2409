"""The command `textcls`: what it lists, how it names itself, which recipes it brings."""

import importlib
import io
import os
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from textcls import __main__ as textcls_command
from textcls.command_line import command, escape_unencodable, exit_status, say
from textcls.commands import audit as audit_command
from textcls.commands import mask as mask_command
from textcls.commands import predict as predict_command
from textcls.errors import InputError, StorageError
from textcls.settings.data import DataSpec
from textcls.settings.recipe_file import included_recipes, recipe_text

ROOT = Path(__file__).parents[2]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))


def run(*arguments: str) -> int:
    try:
        return textcls_command.main(arguments)
    except SystemExit as ended:  # argparse: --help, --version and what it refuses
        return int(ended.code or 0)


def test_help_lists_the_commands_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    listed = re.findall(r"^    (\w+) +(\S.*)$", capsys.readouterr().out, re.MULTILINE)
    assert dict(listed) == textcls_command.COMMANDS
    commands = ["audit", "evaluate", "explain", "forget", "mask", "predict", "rebundle", "seal", "serve", "train"]
    assert sorted(textcls_command.COMMANDS) == JOBS == commands


def test_the_version_is_the_project_s(capsys: pytest.CaptureFixture[str]) -> None:
    (version,) = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert run("--version") == 0
    assert capsys.readouterr().out == f"textcls {version}\n"


@pytest.mark.parametrize("arguments", [(), ("trian",), ("--verbose", "train")])
def test_a_command_that_does_not_exist_is_refused_by_name(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert all(name in capsys.readouterr().err for name in (["COMMAND"] if not arguments else arguments[:1]))


@pytest.mark.parametrize("job", JOBS)
def test_a_command_has_the_options_of_its_job(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(job, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: textcls {job} ")
    jobs_main = importlib.import_module(f"jobs.{job}").main
    assert jobs_main is importlib.import_module(f"textcls.commands.{job}").main


@pytest.mark.parametrize(
    ("started_as", "advised"),
    [
        ("jobs/evaluate.py", "python jobs/train.py"),
        ("./my checkout/jobs/predict.py", "python 'my checkout/jobs/train.py'"),
        ("bin/textcls", "textcls train"),
        ("textcls.exe", "textcls train"),
        ("site-packages/textcls/__main__.py", "python -m textcls train"),
    ],
)
def test_a_command_is_advised_the_way_that_this_one_was_started(
    started_as: str, advised: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [started_as])
    assert command("train") == advised
    assert shlex.split(command("train"))


def test_an_advised_command_to_list_the_keys_does_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--recipe", "base", "--out", "x", "--set", "train.epoch=2") == 2
    (advised,) = re.findall(r"to do: +(textcls .*) lists every key", capsys.readouterr().err)
    assert run(*shlex.split(advised)[1:]) == 0
    assert "train.epochs = " in capsys.readouterr().out


# --- recipes by name -------------------------------------------------------------------------------------------------


def test_a_recipe_that_comes_along_is_found_by_name_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(included_recipes()) == {path.stem for path in (ROOT / "jobs" / "recipes").glob("*.yaml")}
    for name in ("base", "quickstart"):
        assert recipe_text(name) == (ROOT / "jobs" / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def test_a_file_goes_before_a_recipe_of_its_name_and_a_directory_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base").mkdir()
    assert "google-bert" in recipe_text("base")
    Path("quickstart").write_text("model: {}", encoding="utf-8")
    assert recipe_text("quickstart") == "model: {}"


@pytest.mark.parametrize("name", ["quick", "quickstart.yml", "nowhere/base.yaml", "../base", ""])
def test_an_unknown_recipe_lists_those_that_exist(name: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"--recipe {name}")) as refused:
        recipe_text(name)
    assert "base, multi-label, pairs, private, quickstart" in str(refused.value)


# --- standard output -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_an_encoding_lacks_is_escaped(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "\N{LESS-THAN OR EQUAL TO} 3 · \N{CJK UNIFIED IDEOGRAPH-597D}"
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding))
    escape_unencodable()
    say(line)
    assert sys.stdout.buffer.getvalue() == line.encode(encoding, "backslashreplace") + b"\n"  # type: ignore[attr-defined]
    print(line, file=sys.stderr, flush=True)
    assert sys.stderr.buffer.getvalue() == line.encode(encoding, "backslashreplace") + b"\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("told", "first_file", "how"),
    [
        (predict_command.how_to_continue, "progress/job.json", "the same command continues"),
        (mask_command._how_to_continue, "progress/job.json", "the same command continues"),
        (audit_command._how_to_continue, "settings.json", "the same command with --resume continues"),
    ],
    ids=["predict", "mask", "audit"],
)
def test_ctrl_c_says_how_a_job_that_has_begun_continues(
    told: Callable[[Namespace], str], first_file: str, how: str, tmp_path: Path
) -> None:
    arguments = Namespace(out=str(tmp_path))
    assert told(arguments) == ""
    (tmp_path / first_file).parent.mkdir(exist_ok=True)
    (tmp_path / first_file).touch()
    assert told(arguments) == f"; {how} {tmp_path}"


def test_a_closed_standard_output_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    escape_unencodable()
    say("a line")
    sys.stdout.close()


def test_an_encoding_of_parquet_is_refused_in_words_and_is_part_of_a_csv_job_s_identity(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def predict(*arguments: str) -> int:
        return run(
            "predict", "--bundle", str(tiny_bundle), "--csv", "x.csv", "--out", str(tmp_path / "out"), *arguments
        )

    assert predict("--csv-encoding", "utf-8-sig") == 2
    told = capsys.readouterr().err
    assert "--csv-encoding utf-8-sig with --format parquet" in told
    assert "add --format csv" in told
    assert predict("--csv-encoding", "utf-16", "--format", "csv") == 2
    assert "utf-8-sig" in capsys.readouterr().err


def test_predictions_are_summed_up_as_an_equation_only_where_they_add_up() -> None:
    counts = {"rows": 4, "errors": {"missing_text": 1}, "truncated": 0}
    one, several = ({"labels": labels, **counts} for labels in ({"a": 3}, {"a": 3, "b": 2}))
    assert predict_command._summary_lines(one) == ["4 rows = labels (a 3) + errors (missing_text 1)"]
    assert predict_command._summary_lines(several) == ["4 rows: with each label (a 3, b 2); errors (missing_text 1)"]


def test_parts_of_two_encodings_never_stand_in_one_directory(tiny_bundle: Path, tmp_path: Path) -> None:
    from textcls.batch.predict import _identity
    from textcls.batch.predictions_dir import PredictionsDir
    from textcls.bundle import load_bundle

    bundle = load_bundle(str(tiny_bundle))
    first, second = (_identity(bundle, [], DataSpec(), "csv", name, False) for name in ("utf-8", "utf-8-sig"))
    PredictionsDir.claim(str(tmp_path / "out"), first, suffix="csv")
    with pytest.raises(InputError, match='csv_encoding was null, now "utf-8-sig"'):
        PredictionsDir.claim(str(tmp_path / "out"), second, suffix="csv")


def test_serve_needs_linux_and_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert run("serve", "--bundle", "anything") == 2
    assert "serve does not run on darwin" in capsys.readouterr().err


def test_a_user_without_a_name_and_a_home_is_given_a_home_that_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("HOME", "")  # so that what is set is undone
    monkeypatch.setattr(Path, "home", nameless)
    found: list[str] = []
    assert exit_status(lambda: found.append(os.environ["HOME"]), interrupted=lambda: "") == 0
    assert found == ["/nonexistent"]


def test_ctrl_c_while_out_cannot_be_read_is_an_interruption_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def unreachable() -> str:
        raise StorageError("s3://bucket/out cannot be read")

    assert exit_status(interrupt, interrupted=unreachable) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"
