"""What someone has who installs the wheel and has no checkout: the command `textcls`, its recipes and its pages."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from .conftest import BOUND_S, CHECKOUT

BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "textcls", "jobs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network from a copy of what it is built from."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / name, source)
    _run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", built, source)
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `textcls` of a virtual environment that has the wheel, and every other package from this one."""
    environment = tmp_path_factory.mktemp("environment")
    _run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--no-compile", wheel)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Such a line does not read the files *.pth of the place it names, so an editable textcls there is not found.
    (packages / "tests.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return environment / "bin" / "textcls"


def _run(*command: Any, at: Path | None = None, **variables: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= variables
    done = subprocess.run(
        [str(word) for word in command], cwd=at, env=environment, capture_output=True, text=True, timeout=BOUND_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package_and_the_recipes(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.partition("/")[0].endswith(".dist-info")}
    package = {
        path for path in (CHECKOUT / "textcls").rglob("*.*") if "__pycache__" not in path.parts and path.suffix != ".md"
    }
    recipes = {f"textcls/recipes/{path.name}" for path in (CHECKOUT / "jobs" / "recipes").glob("*.yaml")}
    assert names == {path.relative_to(CHECKOUT).as_posix() for path in package} | recipes
    assert names >= {"textcls/py.typed", "textcls/serving/pages/try.html", "textcls/recipes/quickstart.yaml"}
    assert names >= {f"textcls/reporting/pages/{name}" for name in ("report.html", "explanations.html", "style.css")}


def test_an_installed_textcls_works_from_an_empty_directory_and_prints_in_any_encoding(
    installed: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "reviews.csv").write_text(
        "text,label\n" + "".join(f"review {n} is {'good' if n % 2 else 'bad'},{n % 2}\n" for n in range(60))
    )
    model = f"model.pretrained={tiny_model_dir}"
    train = (installed, "train", "--recipe", "base", "--set", model, "--set", "text.max_tokens=32")
    shown = _run(*train, "--csv", "reviews.csv", "--dry-run", at=tmp_path, PYTHONIOENCODING="ascii")
    assert "60 = " in shown
    assert "50 % \\u2264 " in shown, "the sign for at most is no ASCII"
    assert "nothing is written" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["reviews.csv"]
