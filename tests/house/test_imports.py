"""Who may import whom. Read from the syntax tree, so an import inside a function counts like one at the top."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# Every module, top to bottom: a line may import from the lines above it, not from its own and not from those below.
ORDER = """
    textcls
    textcls.plain_text
    textcls.errors textcls.yaml_text
    textcls.command_line textcls.recipe
    textcls.recipe_file textcls.labels textcls.storage textcls.metrics textcls.calibration textcls.report
    textcls.label_names textcls.ray_cluster
    textcls.ray_session
    textcls.text textcls.pretrained textcls.bundle textcls.report_chart

    textcls.output
    textcls.output.lock textcls.output.side_product

    textcls.data
    textcls.data.input_files textcls.data.csv_layout textcls.data.csv_scan textcls.data.split textcls.data.spellings
    textcls.data.checks textcls.data.account
    textcls.data.rejects textcls.data.encodings textcls.data.file_formats
    textcls.data.csv_records
    textcls.data.csv_head
    textcls.data.csv_shards
    textcls.data.rows textcls.data.division
    textcls.data.remedies
    textcls.data.pipeline

    textcls.training
    textcls.training.plan textcls.training.collate textcls.training.checkpoint textcls.training.precision
    textcls.training.baseline textcls.training.events textcls.training.export
    textcls.training.failures
    textcls.training.progress_display
    textcls.training.model textcls.training.model_files textcls.training.run_dir textcls.training.workers
    textcls.training.cpu_speed textcls.training.step textcls.training.scoring
    textcls.training.worker
    textcls.training.trainer

    textcls.inference
    textcls.inference.encoder
    textcls.inference.classifier textcls.inference.settings

    textcls.training.rehearsal
    textcls.training.run

    textcls.inference.prediction_rows textcls.inference.predictions_dir
    textcls.inference.workers
    textcls.inference.evaluate textcls.inference.predict

    textcls.serving
    textcls.serving.batcher textcls.serving.schema textcls.serving.counters textcls.serving.deployment
    textcls.serving.body textcls.serving.cors textcls.serving.openapi
    textcls.serving.scorer
    textcls.serving.api
    textcls.serving.app
    textcls.serving.private_sockets
    textcls.serving.haproxy_settings
    textcls.serving.haproxy
    textcls.serving.local_service

    textcls.commands
    textcls.commands.train textcls.commands.evaluate textcls.commands.predict textcls.commands.serve
    textcls.__main__

    jobs.train jobs.evaluate jobs.predict jobs.serve
"""

# Heavy libraries, and the only modules that may import them.
IMPORTERS = {
    "ray": """
        textcls.ray_cluster textcls.ray_session textcls.data.pipeline textcls.data.division
        textcls.training.worker textcls.training.workers textcls.training.progress_display textcls.training.trainer
        textcls.training.run textcls.training.events textcls.training.failures textcls.training.model_files
        textcls.inference.workers
        textcls.serving.app textcls.serving.private_sockets textcls.serving.local_service
    """,
    "torch": """
        textcls.training.collate textcls.training.model textcls.training.step textcls.training.scoring
        textcls.training.cpu_speed textcls.training.rehearsal textcls.training.precision textcls.training.workers
        textcls.training.checkpoint textcls.training.worker textcls.inference.encoder textcls.inference.classifier
    """,
    "transformers": """
        textcls.text textcls.training.model textcls.training.cpu_speed textcls.training.rehearsal
        textcls.inference.classifier
    """,
    "tokenizers": "textcls.text",
    "sklearn": "textcls.training.baseline",
    "matplotlib": "textcls.label_names textcls.report_chart",
    "huggingface_hub": "textcls.pretrained",
    "charset_normalizer": "textcls.data.encodings",
}

# Dependencies that no line of ours imports, and why they are declared all the same.
NOT_IMPORTED = {
    "pandas": "Ray Data works with it, and pins nothing",
}


# Extra -> the distribution that it brings, which a function imports for those who asked for it.
OPTIONAL = {"mlflow": "mlflow-skinny"}


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


def test_every_module_has_its_place_in_the_order() -> None:
    placed = ORDER.split()
    assert sorted(placed) == sorted(MODULES)


def test_imports_run_one_way() -> None:
    line_of = {name: number for number, line in enumerate(ORDER.splitlines()) for name in line.split()}
    backward = [
        f"{name} imports {other}"
        for name, imported in IMPORTS.items()
        for other in imported & set(line_of)
        if line_of[other] >= line_of.get(name, sys.maxsize)
    ]
    assert backward == []


def test_every_import_of_ours_names_a_module_that_exists() -> None:
    ours = {name for imported in IMPORTS.values() for name in imported if name.partition(".")[0] in ("textcls", "jobs")}
    assert ours - set(MODULES) == set()


@pytest.mark.parametrize("library", IMPORTERS)
def test_a_heavy_library_is_imported_only_where_it_belongs(library: str) -> None:
    found = {name for name, imported in IMPORTS.items() if library in first_parts(imported)}
    assert found == set(IMPORTERS[library].split())


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
