"""What the documents say can be typed, found and looked up: commands parse, paths exist, tables match the code."""

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
from textcls.settings.recipe_table import with_tables

ROOT = Path(__file__).parents[2]
PATHS = [
    ROOT / "README.md",
    *sorted((ROOT / ".github").glob("*.md")),
    *(path for folder in ("cluster", "jobs", "textcls") for path in sorted((ROOT / folder).rglob("*.md"))),
]
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PATHS}
README = DOCUMENTS["README.md"]
EVERYTHING = "\n".join(DOCUMENTS.values())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

_A_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# A job is parsed from `python jobs/X.py` or `textcls X` on, whatever submits it.
_NAMES = "train|audit|evaluate|predict|explain|serve|rebundle|forget|mask|seal"
_A_JOB = rf"python jobs/\w+(/\w+)?\.py .*|textcls ({_NAMES}) .*"


def blocks(text: str, kind: str) -> list[str]:
    return [block for found, block in _A_BLOCK.findall(text) if found == kind]


def inline(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", _A_BLOCK.sub("", text))


def shell_commands(text: str) -> list[str]:
    """Every command of the shell blocks, and every job's in the prose, on one line each."""
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    commands = [command.strip() for line in lines for command in line.split("&&") if command.strip()]
    return commands + [code for code in inline(text) if re.match(_A_JOB, code)]


COMMANDS = shell_commands(EVERYTHING)
JOBS = list(dict.fromkeys(found[0] for command in COMMANDS if (found := re.search(_A_JOB, command))))


def parser_of(job: str) -> ArgumentParser:
    return importlib.import_module(f"textcls.commands.{Path(job).stem}").parser()


def test_the_documents_are_found() -> None:
    subjects = {"cluster", "jobs", "jobs/recipes", "jobs/bench", "textcls", "textcls/serving"}
    assert set(DOCUMENTS) >= {"README.md", *(f"{folder}/README.md" for folder in subjects)}
    assert set(DOCUMENTS) >= {f".github/{name}.md" for name in ("CONTRIBUTING", "SECURITY", "CHANGELOG")}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_begins_with_its_title_and_the_readme_leads_to_it(name: str) -> None:
    assert DOCUMENTS[name].startswith("# ")
    assert name == "README.md" or f"]({name})" in README


def test_the_readme_is_read_in_ten_minutes() -> None:
    assert README.count("\n") <= 200


# --- commands --------------------------------------------------------------------------------------------------------


def test_the_readme_begins_with_how_to_install_train_and_test() -> None:
    (train, test, *_) = blocks(README, "bash")
    installs, job = shell_commands(f"```bash\n{train}```")
    assert installs.startswith("pip install -e ")
    assert "quickstart.yaml" in job
    assert shell_commands(f"```bash\n{test}```") == ["pip install -e '.[demo,test]'", "pytest"]


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


def test_every_pytest_command_names_tests_that_exist() -> None:
    codes = [*COMMANDS, *inline(EVERYTHING)]
    named = [
        word for code in codes if re.match(r"pytest\b", code) for word in code.split() if word.startswith("tests/")
    ]
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_module_that_is_run_exists() -> None:
    modules = {found for command in COMMANDS for found in re.findall(r"python -m (textcls[\w.]*)", command)}
    assert modules
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_every_recipe_key_that_is_mentioned_exists() -> None:
    keys = set(keys_of(Recipe))
    sections = {key for key in keys if "." not in key}
    mentioned = {found[1] for found in re.finditer(r"--set ['\"]?([\w.]+)=", EVERYTHING)} - {"section.key"}
    files = (".html", ".json", ".png", ".py", ".safetensors", ".yaml")
    dotted = {
        code for code in inline(EVERYTHING) if re.fullmatch(r"\w+\.\w+(=\S+)?", code) and not code.endswith(files)
    }
    mentioned |= {code.partition("=")[0] for code in dotted if code.partition(".")[0] in sections}
    assert mentioned
    assert mentioned - keys == set()


def test_every_extra_that_is_installed_exists() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    asked = {name for found in re.findall(r"pip install -e '\.\[([\w,]+)\]'", EVERYTHING) for name in found.split(",")}
    assert asked == set(extras)


def test_the_check_script_runs_the_readme_s_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    installs = [command for command in COMMANDS if command.startswith("pip install")]
    assert any(command.removeprefix("pip install ") in script for command in installs)
    assert "-m pytest" in script


@pytest.mark.parametrize("text", blocks(EVERYTHING, "python"))
def test_every_python_example_parses_and_imports_what_is_there(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("textcls"):
            assert importlib.util.find_spec(node.module)


# --- links -----------------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _A_BLOCK.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_into_the_tree_leads_somewhere(name: str) -> None:
    dead = []
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", DOCUMENTS[name]):
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_is_named_exists(name: str) -> None:
    """A path in code font counts from the root, or from the document's own folder."""
    named = [code for code in inline(DOCUMENTS[name]) if re.fullmatch(r"\.?(\w+/)+[\w-]*(\.\w+)?", code)]
    ours = [code for code in named if code.split("/")[0] in ("cluster", "jobs", "tests", "textcls", ".github", ".ci")]
    places = (ROOT, (ROOT / name).parent, ROOT / "textcls")
    assert [code for code in ours if not any((place / code).exists() for place in places)] == []


# --- tables and drawings ---------------------------------------------------------------------------------------------


def test_the_table_of_settings_says_what_the_docstrings_say() -> None:
    table = DOCUMENTS["jobs/recipes/README.md"]
    assert with_tables(table) == table, "python -m textcls.settings.recipe_table jobs/recipes/README.md"
    assert all(f"| `{key}` |" in table for key in keys_of(Recipe) if "." in key)


def test_the_terminal_prints_every_setting_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parser_of("jobs/train.py").parse_args(["--help-recipe"])
    printed = capsys.readouterr().out
    words = " ".join(printed.split())
    assert [key for key, default, text in describe_keys() if f"{key} = {default} {text}" not in words] == []
    assert "\\n" not in printed


def test_every_event_of_a_run_is_listed() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "textcls").rglob("*.py"))
    recorded = set(re.findall(r'\b(?:record|report_event|Event|StopReason)\(\s*"(\w+)"', code))
    section = DOCUMENTS["jobs/README.md"].partition("and `event`:")[2].partition("No event contains")[0]
    events = set(inline(section))
    assert recorded - events == set()
    assert [name for name in events if f'"{name}"' not in code] == []
    assert len(recorded) >= 8


def test_the_rooms_are_drawn_as_the_import_contract_has_them() -> None:
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    rooms = DOCUMENTS["textcls/README.md"].partition("## Rooms")[2]
    drawn = [line.strip() for line in re.findall(r"^    (\w.*)$", rooms.partition("```")[0], re.MULTILINE)]
    assert drawn == layers


def listed(text: str, heading: str) -> dict[str, str]:
    """Path -> what a document says of it, as drawn in the block under a heading."""
    found, folders = {}, [""]
    for line in blocks(text.partition(f"## {heading}\n")[2], "")[0].splitlines():
        indent, name, about = re.fullmatch(r"( *)(\S+) *(.*)", line).groups()  # type: ignore[union-attr]
        depth = len(indent) // 2
        path = folders[depth] + name
        found[path] = about
        folders[depth + 1 :] = [path]
    return found


def contents(folder: Path) -> set[str]:
    """The modules and folders of a folder, a slash behind each folder."""
    passed_over = ("__init__.py", "__pycache__", "README.md", "py.typed")
    paths = [path for path in folder.iterdir() if path.name not in passed_over]
    return {path.name + "/" * path.is_dir() for path in paths if path.is_file() or any(path.iterdir())}


def test_the_readme_s_tree_draws_every_folder() -> None:
    drawn = set(listed(README, "The tree"))
    assert [path for path in drawn if not (ROOT / path).exists()] == []
    folders = {f"{top}/{name}" for top in ("jobs", "tests") for name in contents(ROOT / top) if name.endswith("/")}
    assert folders - drawn == set()
    assert {"jobs/", "textcls/", "cluster/", "tests/"} <= drawn


def test_every_room_of_the_library_is_described() -> None:
    assert set(listed(DOCUMENTS["textcls/README.md"], "Rooms")) == contents(ROOT / "textcls")


def test_the_benchmarks_and_the_recipes_are_described() -> None:
    bench, recipes = DOCUMENTS["jobs/bench/README.md"], DOCUMENTS["jobs/recipes/README.md"]
    assert [name for name in contents(ROOT / "jobs" / "bench") if f"`{name}`" not in bench] == []
    assert [name for name in contents(ROOT / "jobs" / "recipes") if f"`{name}`" not in recipes] == []


def test_every_file_for_a_cluster_is_described() -> None:
    paths = {path.relative_to(ROOT / "cluster").as_posix() for path in (ROOT / "cluster").rglob("*") if path.is_file()}
    document = DOCUMENTS["cluster/README.md"].partition("Kubernetes needs")[0]
    assert {name for name in re.findall(r"`([\w./-]+)`", document) if "." in name or name == "Dockerfile"} == (
        paths - {"README.md"}
    )
    named = re.findall(r"(?<![\w/])cluster/(?:[\w-]+/)*[\w.-]*\w", EVERYTHING)
    assert [path for path in named if not (ROOT / path).exists()] == []
