"""What is quick stays quick: the library imports lightly, and a job answers before anything heavy is loaded."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JOBS = sorted((ROOT / "jobs").glob("*.py"))
HEAVY = ("ray", "torch", "transformers", "tokenizers", "sklearn", "scipy", "matplotlib", "pandas")
# What every command loads before it knows what it is asked to do.
LIGHT = [
    "errors",
    "plain_text",
    "command_line",
    "storage",
    "progress",
    "bundle",
    "__main__",
    "commands",
    "settings",
    "tasks",
    "output",
    "reporting",
]
# 0.3 s where this was written; Ray and torch together are 5 s.
MOST_CPU_S = 3.0

LOAD_EACH = """
import importlib, json, sys
modules, heavy = json.loads(sys.argv[1])
for module in modules:
    before = set(sys.modules)
    importlib.import_module(module)
    loaded = sorted({name.partition(".")[0] for name in set(sys.modules) - before} & set(heavy))
    if loaded:
        print(module, "loads", *loaded)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def test_light_modules_load_nothing_heavy() -> None:
    names = [path.relative_to(ROOT).with_suffix("").parts for path in (ROOT / "textcls").rglob("*.py")]
    light = sorted(".".join(parts).removesuffix(".__init__") for parts in names if parts[1] in LIGHT)
    assert len(light) > len(LIGHT)
    done = run("-c", LOAD_EACH, json.dumps([light, HEAVY]))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def quickly(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a job that must end before anything heavy is loaded; its standard error is free of the import times."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run("-X", "importtime", *arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    loaded = re.findall(r"^import time: .*\| +(\w+)[\w.]*$", done.stderr, re.MULTILINE)
    assert "argparse" in loaded
    assert set(loaded) & set(HEAVY) == set()
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < MOST_CPU_S
    done.stderr = re.sub(r"^import time: .*\n", "", done.stderr, flags=re.MULTILINE)
    return done


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.name)
def test_a_job_helps_before_anything_heavy_is_loaded(job: Path) -> None:
    done = quickly(str(job), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: " in done.stdout


def test_the_recipe_s_keys_are_listed_before_anything_heavy_is_loaded() -> None:
    done = quickly("jobs/train.py", "--help-recipe")
    assert (done.returncode, done.stderr) == (0, "")
    assert 'model.pretrained = "google-bert/bert-base-uncased"' in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "jobs/recipes/quickstart.yaml", "--out", "x", "--set", "train.epoch=2"), "train.epochs"),
        (("--recipe", "jobs/recipes/quickstart.yml", "--out", "x"), "quickstart.yml"),
        (("--recipe", "jobs/recipes/base.yaml", "--out", "x"), "--csv"),
        (("--recipe", "jobs/recipes/quickstart.yaml"), "--out"),
    ],
    ids=["key", "file", "csv", "out"],
)
def test_a_mistake_is_told_with_exit_status_2_before_anything_heavy_is_loaded(
    arguments: tuple[str, ...], message: str
) -> None:
    done = quickly("jobs/train.py", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bundle", "nowhere"), "nowhere"),
        (("--bundle", "nowhere", "--set", "serve.thread=2"), "serve.threads"),
        (("--bundle", "nowhere", "--set", "train.epochs=2"), "serve.KEY"),
    ],
    ids=["bundle", "key", "section"],
)
def test_a_service_that_cannot_start_says_so_before_anything_heavy_is_loaded(
    arguments: tuple[str, ...], message: str
) -> None:
    done = quickly("jobs/serve.py", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
