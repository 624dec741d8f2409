"""Who may import whom. Read from the syntax tree, so an import inside a function counts like one at the top."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# Dependencies that no line of ours imports, and why they are declared all the same.
NOT_IMPORTED = {
    "pandas": "Ray Data works with it, and pins nothing",
}


# Extra -> the distribution that it brings, which a function imports for those who asked for it.
OPTIONAL = {"mlflow": "mlflow-skinny", "dp": "opacus"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# Not jobs/bench: a benchmark may import whatever it measures, and nothing imports a benchmark.
MODULES = {module_name(path): path for path in [*(ROOT / "textcls").rglob("*.py"), *(ROOT / "jobs").glob("*.py")]}


def imports_of(path: Path) -> set[str]:
    """Dotted names a file imports; `from textcls import storage` is `textcls.storage`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            deeper = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in deeper}
    return found


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


def first_parts(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_imports_run_one_way() -> None:
    """The layers of pyproject.toml: a new module needs no entry there, a new room does."""
    lint = subprocess.run([Path(sys.executable).with_name("lint-imports"), "--no-logo"], cwd=ROOT, capture_output=True)
    assert lint.returncode == 0, lint.stdout.decode()


def test_every_import_of_ours_names_a_module_that_exists() -> None:
    ours = {name for imported in IMPORTS.values() for name in imported if name.partition(".")[0] in ("textcls", "jobs")}
    assert ours - set(MODULES) == set()


# --- pyproject.toml --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def distribution(requirement: str) -> str:
    """Normalised name of a requirement such as `ray[train]==2.60.*`."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def test_what_is_imported_is_declared_and_what_is_declared_is_imported(project: dict[str, Any]) -> None:
    declared = {distribution(requirement) for requirement in project["project"]["dependencies"]}
    libraries = first_parts(set().union(*IMPORTS.values())) - sys.stdlib_module_names - {"textcls", "jobs"}
    known = packages_distributions()
    imported = {distribution(known[library][0]) if library in known else library for library in libraries}

    assert imported - declared == set(OPTIONAL.values())
    extras = project["project"]["optional-dependencies"]
    assert {name: distribution(*extras[name]) for name in OPTIONAL} == OPTIONAL
    assert declared - imported == set(NOT_IMPORTED)


def test_an_installed_textcls_has_all_packages(project: dict[str, Any]) -> None:
    packages = sorted(name for name, path in MODULES.items() if path.name == "__init__.py")
    # The recipes are files of jobs/, which an installed textcls has inside.
    assert project["tool"]["setuptools"]["package-dir"] == {"textcls.recipes": "jobs/recipes"}
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted([*packages, "textcls.recipes"])


def test_the_installed_command_is_a_function_that_exists(project: dict[str, Any]) -> None:
    from textcls.__main__ import main

    assert project["project"]["scripts"] == {"textcls": f"{main.__module__}:{main.__name__}"}
