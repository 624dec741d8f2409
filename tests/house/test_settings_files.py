"""Every settings file in the tree is one that its reader takes."""

import stat
import tomllib
from pathlib import Path

import pytest
import yaml

from textcls.settings.recipe import Recipe
from textcls.settings.recipe_file import describe_keys, keys_of, parse_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "jobs" / "recipes").glob("*.yaml"))
CLUSTER = sorted(path for pattern in ("*.yaml", "*.yml") for path in (ROOT / "cluster").rglob(pattern))


def test_the_recipes_are_found() -> None:
    assert {"quickstart.yaml", "multi-label.yaml", "pairs.yaml", "base.yaml"} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_parses(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    recipe = parse_recipe(text, source=path.name)
    # A recipe that says nothing would parse as well.
    assert set(yaml.safe_load(text)) >= {"data", "model"}
    assert parse_recipe(text, source=path.name).fingerprint == recipe.fingerprint


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_begins_with_what_it_is_for(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_every_recipe_key_is_documented() -> None:
    described = {key: text for key, _, text in describe_keys()}
    assert set(described) == {key for key in keys_of(Recipe) if "." in key}
    assert [key for key, text in described.items() if len(text) < 15 or not text.endswith(".")] == []


@pytest.mark.parametrize("path", [*CLUSTER, ROOT / "pyproject.toml"], ids=lambda path: path.name)
def test_every_cluster_and_project_file_parses(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    documents = [tomllib.loads(text)] if path.suffix == ".toml" else list(yaml.safe_load_all(text))
    assert documents
    assert all(documents)


def test_the_service_s_file_is_one_that_ray_serve_and_the_service_take() -> None:
    from ray.serve.schema import ServeDeploySchema

    from textcls.serving.deployment import NAME, AppArgs

    content = yaml.safe_load((ROOT / "cluster" / "serve.yaml").read_text(encoding="utf-8"))
    (application,) = ServeDeploySchema.model_validate(content).applications
    module, _, name = application.import_path.partition(":")
    assert (module, name) == ("textcls.serving.app", "app")
    args = AppArgs.model_validate(application.args)
    (deployment,) = application.deployments
    assert deployment.name == NAME
    assert deployment.user_config == {"bundle": args.bundle}


def test_the_check_script_can_be_started() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")


def test_the_licence_is_the_one_that_is_declared() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"] == "Apache-2.0"
    first = (ROOT / "LICENSE").read_text(encoding="utf-8").split()[:4]
    assert first == ["Apache", "License", "Version", "2.0,"]
