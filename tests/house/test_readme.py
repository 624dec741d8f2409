"""What the README says can be typed, found and looked up: commands parse, paths exist, tables match the code."""

import ast
import importlib
import importlib.util
import re
import shlex
import tomllib
from argparse import ArgumentParser
from pathlib import Path

import pytest

from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import describe_keys, keys_of, parse_recipe, recipe_text

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
INLINE = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL))


def shell_commands() -> list[str]:
    """Every command of the shell blocks, and every job's in the prose, on one line each."""
    lines = [line for kind, text in BLOCKS if kind == "bash" for line in text.replace("\\\n", " ").splitlines()]
    commands = [command.strip() for line in lines for command in line.split("&&") if command.strip()]
    return commands + [code for code in INLINE if re.match(_A_JOB, code)]


# What runs a job is parsed from `python jobs/X.py` or `textcls X` on, whatever submits it.
_A_JOB = r"python jobs/\w+(/\w+)?\.py .*|textcls (train|evaluate|predict|serve) .*"
JOBS = [found[0] for command in shell_commands() if (found := re.search(_A_JOB, command))]


def parser_of(job: str) -> ArgumentParser:
    return importlib.import_module(f"textcls.commands.{Path(job).stem}").parser()


# --- commands --------------------------------------------------------------------------------------------------------


def test_the_readme_shows_how_to_install_train_and_test() -> None:
    commands = shell_commands()
    assert any(command.startswith("pip install -e ") for command in commands)
    assert any("quickstart.yaml" in command for command in JOBS)
    assert "pytest" in commands


@pytest.mark.parametrize("command", JOBS)
def test_every_job_command_parses(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    program, job, *arguments = shlex.split(command)
    job = f"jobs/{job}.py" if program == "textcls" else job
    assert (ROOT / job).is_file()
    if job.startswith("jobs/bench/"):
        options = {argument for argument in arguments if argument.startswith("--")}
        source = (ROOT / job).read_text(encoding="utf-8")
        assert {option for option in options if f'"{option}"' not in source} == set()
        return
    status, parsed = 0, None
    try:
        parsed = parser_of(job).parse_args(arguments)
    except SystemExit as ended:  # --help-recipe ends well, a wrong argument does not
        status = ended.code
    assert status == 0, capsys.readouterr().err
    if recipe := getattr(parsed, "recipe", None):
        parse_recipe(recipe_text(recipe), parsed.overrides, source=recipe)


def test_every_recipe_key_that_is_mentioned_exists() -> None:
    keys = set(keys_of(Recipe))
    sections = {key for key in keys if "." not in key}
    mentioned = {found[1] for found in re.finditer(r"--set ['\"]?([\w.]+)=", README)} - {"section.key"}
    dotted = {code for code in INLINE if re.fullmatch(r"\w+\.\w+", code) and not code.endswith((".py", ".safetensors"))}
    mentioned |= {code for code in dotted if code.partition(".")[0] in sections}
    assert mentioned
    assert mentioned - keys == set()


def test_every_extra_that_is_installed_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = {name for found in re.findall(r"pip install -e '\.\[([\w,]+)\]'", README) for name in found.split(",")}
    assert asked == set(extras)


def test_the_check_script_runs_the_readme_s_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    installs = [command for command in shell_commands() if command.startswith("pip install")]
    assert any(command.removeprefix("pip install ") in script for command in installs)
    assert "-m pytest" in script


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "python"])
def test_every_python_example_parses_and_imports_what_is_there(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("textcls"):
            assert importlib.util.find_spec(node.module)


def test_every_link_into_the_tree_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


# --- the recipe's table ----------------------------------------------------------------------------------------------


def test_the_recipe_s_table_says_what_the_code_says() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| (.*) \|$", README, re.MULTILINE)
    assert [tuple(cell.replace("\\|", "|") for cell in row) for row in rows] == list(describe_keys())


# --- the tree --------------------------------------------------------------------------------------------------------


def drawn_tree() -> dict[str, str]:
    """Path -> what the README says of it, as drawn under "The tree"."""
    (text,) = re.findall(r"^## The tree\n+```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    found, folders = {}, [""]
    for line in text.splitlines():
        indent, name, about = re.fullmatch(r"( *)(\S+) *(.*)", line).groups()  # type: ignore[union-attr]
        depth = len(indent) // 2
        path = folders[depth] + name
        found[path] = about
        folders[depth + 1 :] = [path]
    return found


TREE = drawn_tree()


def holds(folder: str) -> list[str]:
    """Names of what a folder has of its own."""
    passed_over = ("__init__.py", "__pycache__")
    place = ROOT / folder
    return sorted(path.name for path in place.iterdir() if path.name not in passed_over) if place.is_dir() else []


@pytest.mark.parametrize("path", TREE)
def test_what_the_tree_draws_is_there(path: str) -> None:
    if path.endswith("/"):
        assert bool(holds(path)) != TREE[path].endswith("(to come)")
    else:
        assert (ROOT / path).is_file()


def test_the_tree_draws_every_job_and_every_folder() -> None:
    jobs = [path.relative_to(ROOT).as_posix() for path in (ROOT / "jobs").rglob("*.py")]
    folders = [path for place in ("textcls", "tests") for path in (ROOT / place).iterdir() if path.is_dir()]
    places = [*jobs, *(f"{path.relative_to(ROOT).as_posix()}/" for path in folders if path.name != "__pycache__")]
    assert [path for path in places if path not in TREE] == []


@pytest.mark.parametrize("folder", ["jobs/recipes/"])
def test_a_folder_drawn_in_one_line_names_what_it_holds(folder: str) -> None:
    named = re.findall(r"\w+\.(?:ya?ml|py)", TREE[folder])
    assert sorted(named) == holds(folder)
