"""What every module keeps to: a name that says what it is, a docstring that says what it does, and nothing unsafe."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "textcls").rglob("*.py"))
JOBS = sorted((ROOT / "jobs").rglob("*.py"))
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if path.name != "__init__.py")
ROOMS = [path for path in LIBRARY if path.name != "__init__.py"]

MOST_LINES = 380
NAMELESS = {"utils", "util", "helpers", "common", "base", "manager", "misc", "core", "tools"}
# What runs or unpickles what it reads; weights are safetensors, settings are YAML and JSON.
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "yaml.load", "yaml.unsafe_load", "os.system"}
UNSAFE_ARGUMENTS = {"trust_remote_code", "allow_pickle", "shell"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_the_modules_are_found() -> None:
    assert len(ROOMS) > 20
    assert len(JOBS) > 0


@pytest.mark.parametrize("path", [*LIBRARY, *JOBS, *TESTS], ids=relative)
def test_a_module_s_name_says_what_it_holds(path: Path) -> None:
    assert path.stem not in NAMELESS
    assert path.parent.name not in NAMELESS


@pytest.mark.parametrize("path", JOBS, ids=relative)
def test_no_job_hides_a_standard_module(path: Path) -> None:
    # `python jobs/x.py` puts jobs/ first on sys.path, where `import x` then finds the job.
    assert path.stem not in sys.stdlib_module_names


@pytest.mark.parametrize("path", ROOMS, ids=relative)
def test_a_module_says_what_goes_in_what_comes_out_and_what_it_does_not_do(path: Path) -> None:
    text = ast.get_docstring(tree(path)) or ""
    assert re.search(r"^In: ", text, re.MULTILINE), "In: ... begins a line"
    assert "Out: " in text
    assert "ot here: " in text
    assert len(re.findall(r"[.?](?=\s|$)", text)) >= 2, "two sentences"


@pytest.mark.parametrize("path", [*JOBS, *TESTS], ids=relative)
def test_a_job_and_a_test_file_say_what_they_are_about(path: Path) -> None:
    assert ast.get_docstring(tree(path))


@pytest.mark.parametrize("path", ROOMS, ids=relative)
def test_what_is_public_is_documented(path: Path) -> None:
    bare = []
    for scope in ast.walk(tree(path)):
        if isinstance(scope, ast.Module) or (isinstance(scope, ast.ClassDef) and not scope.name.startswith("_")):
            bare += [
                node.name
                for node in scope.body
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ]
    assert bare == []


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.name == "__init__.py"], ids=relative)
def test_an_init_file_re_exports_nothing(path: Path) -> None:
    body = tree(path).body
    # The package itself says what it is; the others are empty.
    assert [type(node) for node in body] == ([ast.Expr] if path.parent.name == "textcls" else [])


@pytest.mark.parametrize("path", [*ROOMS, *JOBS], ids=relative)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES


@pytest.mark.parametrize("path", [path for path in ROOMS if path.stem != "command_line"], ids=relative)
def test_the_library_never_prints(path: Path) -> None:
    # What the user is told goes through `say` or a file that was handed in.
    printed = [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printed == []


@pytest.mark.parametrize("path", ROOMS, ids=relative)
def test_nothing_runs_at_import(path: Path) -> None:
    running = (ast.For, ast.While, ast.With, ast.Try, ast.Delete, ast.Assert, ast.Raise)
    found = []
    for node in tree(path).body:
        is_call = isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
        if is_call or isinstance(node, running):
            found.append(f"line {node.lineno}: {ast.unparse(node).splitlines()[0]}")
    assert found == []


@pytest.mark.parametrize("path", [*ROOMS, *JOBS], ids=relative)
def test_nothing_read_is_ever_run_or_unpickled(path: Path) -> None:
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [name for name in names if name.partition(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.Call):
            found += [name for name in [ast.unparse(node.func)] if name in UNSAFE_CALLS]
            found += [
                f"{argument.arg}={ast.unparse(argument.value)}"
                for argument in node.keywords
                if argument.arg in UNSAFE_ARGUMENTS and ast.unparse(argument.value) != "False"
            ]
    assert found == []


# --- every file ------------------------------------------------------------------------------------------------------

PLACES = [ROOT / name for name in ("textcls", "jobs", "tests", "cluster", ".ci", ".github")]
FILES = [
    path
    for path in [*ROOT.iterdir(), *(inner for place in PLACES for inner in place.rglob("*"))]
    if path.is_file() and path.suffix not in (".pyc", ".png") and path.name != ".git"
]
# /home/ray is the home of Ray's container images, on every machine that runs one.
MACHINE_PATH = re.compile(r"(?<![\w.$}~*-])/(?:root|work|home(?!/ray\b)|Users|mnt|workspace)/\w")


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_no_file_names_a_place_of_one_machine(path: Path) -> None:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    assert [f"line {n}: {line.strip()}" for n, line in enumerate(lines, 1) if MACHINE_PATH.search(line)] == []
