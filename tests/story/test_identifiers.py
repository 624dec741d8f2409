"""With `text.mask`, no identifier is in any byte that jobs leave: outputs, logs, checkpoints, files of Ray."""

import csv
import json
import re
import shutil
import signal
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.identifiers import EVERY, identifiers, left_in, texts_of, traces

from .conftest import BOUND_S, Ended, Running, free_port, reviews, step_of, train_command

PLANTED = [value for _, value in identifiers(50)]

# All jobs in one process and one session of Ray, each as `textcls` runs it; prints a line with each exit status.
JOBS = """
import json, sys
import ray
from textcls.__main__ import main
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=True)
for arguments in json.load(open(sys.argv[1])):
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code
    print("status", status, flush=True)
ray.shutdown()
"""


# Files that quote cells, texts or words.
WITH_CELLS = (
    *("dry/rejects.parquet", "refused/rejects.parquet"),
    *("run/rejects.parquet", "run/report.json", "run/report.html"),
    *("evaluated/rejects.parquet", "evaluated/report.json", "evaluated/report.html"),
    *("predicted/parts/part-00000.parquet", "predicted/to_label.csv", "as-csv/parts/part-00000.csv"),
    *("explained/parts/part-00000.parquet", "explained/explanations.html"),
    *("audited/audit.csv", "masked/csv/reviews.csv"),
)


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="who-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def plant(folder: Path) -> Path:
    """A CSV with every identifier in texts, in another column, in labels, and in rows that cannot be read."""
    path, rows = folder / "reviews.csv", reviews(200)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", "from"])
        for i, (text, label) in enumerate(rows):
            value = PLANTED[i % len(PLANTED)]
            words = text.split()
            text = " ".join([*words[: i % 5], value, *words[i % 5 :]]) if i % 2 else text
            table.writerow([text, label, value])
        for i, value in enumerate(PLANTED):
            table.writerow([f"its plot was {value}", "positive" if i % 2 else "negative", "x"])
            table.writerow([f"its plot was {value}", "negative" if i % 2 else "positive", "x"])
            table.writerow([f"the film {i}", value, "bad label"])
            table.writerow([value, "positive", "ragged", "row"])
            table.writerow(["", "positive", value])
            table.writerow([f"{value} {'and so on ' * 40}", "negative", "long"])
    with path.open("ab") as file:
        for value in PLANTED:
            file.write(f'"undecodable {value} '.encode() + b'\xff",positive,x\r\n')
            file.write(f"Total {value},,\r\n".encode())
    return path


def write_recipe(folder: Path, model: Path, path: Path) -> None:
    recipe = {
        "data": {"csv": str(path), "max_reject_fraction": 1.0},
        "text": {"max_tokens": 32, "mask": list(EVERY.mask), "mask_patterns": dict(EVERY.mask_patterns)},
        "model": {"pretrained": str(model)},
        "train": {
            "epochs": 1,
            "rows_per_step": 4,
            "learning_rate": 0.001,
            "precision": "fp32",
            "checkpoint_every_steps": 20,
        },
        "report": {"texts": True, "slices": ["from"], "explain_rows": 20},
        "scale": {"cpus_per_worker": 1},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def asked(url: str, path: str, body: bytes | None) -> tuple[int, bytes]:
    request = urllib.request.Request(f"{url}{path}", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()


def served(bundle: Path, home: Path, env: dict[str, str]) -> Ended:
    """Starts the service, sends it every identifier in all kinds of requests, and stops it."""
    port = free_port()
    command = [sys.executable, "-m", "textcls", "serve", "--bundle", bundle, "--port", port, "--verbose"]
    running, url = (
        Running([*command, "--set", "serve.log_requests=true"], cwd=home, env=env),
        f"http://127.0.0.1:{port}",
    )

    def ready() -> bool:
        with suppress(OSError):
            return asked(url, "/ready", None)[0] == 200
        return False

    try:
        running.until(ready)
        texts = [f"the film of {value}" for value in PLANTED]
        assert asked(url, "/predict", json.dumps({"inputs": texts}).encode())[0] == 200
        for value in PLANTED:
            body = json.dumps({"text": f"its plot was {value}"}).encode()
            assert asked(url, "/explain", body)[0] == 200
            for path, wrong in (("/predict", {"inputs": {"a": value}}), ("/explain", {"text": [value]})):
                status, answer = asked(url, path, json.dumps(wrong).encode())
                assert status in (400, 422)
                assert not any(trace in answer for trace in traces(value)), answer
            assert asked(url, "/explain", body[:-1])[0] == 400
            label = asked(url, "/explain", json.dumps({"text": "a film", "label": value}).encode())
            assert label[0] == 422
            assert value.encode() not in label[1]
        running.signal(signal.SIGTERM)
        return running.ended()
    finally:
        running.kill()


def test_no_identifier_is_left_in_any_byte(
    tiny_model_dir: Path, tmp_path: Path, shell: dict[str, str], ray_folder: Path
) -> None:
    inputs, home = tmp_path / "in", tmp_path / "left"
    inputs.mkdir()
    home.mkdir()
    path = plant(inputs)
    (inputs / "no-header.csv").write_text("".join(f"{value},{value}\n" for value in PLANTED[:20]))
    (inputs / "two-headers.csv").write_text(f"text,label,from\na film,good,x\nlabel,text,{PLANTED[0]}\n")
    write_recipe(home, tiny_model_dir, path)
    env = shell | {"RAY_TMPDIR": str(ray_folder), "TMPDIR": str(ray_folder), "XDG_CACHE_HOME": str(home / "cache")}

    # A run that is killed leaves a checkpoint, and what Ray had no time to remove.
    running = Running(train_command("--recipe", "recipe.yaml", "--out", "run", "--verbose"), cwd=home, env=env)
    try:
        running.until(lambda: step_of(home / "run") > 0)
    finally:
        running.kill()
    assert list(left_in(home, PLANTED)) == []
    assert list(left_in(ray_folder, PLANTED)) == []

    use = ["--bundle", "run/bundle", "--csv", str(path), "--verbose"]
    recipe = ["--recipe", "recipe.yaml", "--verbose"]
    jobs: list[tuple[int, list[Any]]] = [
        (0, ["train", *recipe, "--dry-run", "--out", "dry"]),
        (2, ["train", *recipe, "--out", "refused", "--set", "data.max_reject_fraction=0.01"]),
        (2, ["train", *recipe, "--out", "labels", "--set", "data.labels=[good, so so]"]),
        (2, ["train", *recipe, "--out", "header", "--csv", str(inputs / "no-header.csv")]),
        (2, ["train", *recipe, "--out", "order", "--csv", str(inputs / "two-headers.csv")]),
        (0, ["train", *recipe, "--out", "run", "--resume"]),
        (0, ["evaluate", *use, "--out", "evaluated", "--set", "report.texts=true", "--set", "report.slices=from"]),
        (0, ["predict", *use, "--out", "predicted", "--mask-columns", "--rank-by", "uncertainty"]),
        (0, ["predict", *use, "--out", "as-csv", "--mask-columns", "--format", "csv"]),
        (0, ["explain", *use, "--out", "explained", "--rows", "60"]),
        (0, ["audit", *recipe, "--out", "audited", "--quick", "--folds", "2"]),
        (
            0,
            [
                *("mask", "--csv", str(path), "--out", "masked", "--mask", ",".join(EVERY.mask), "--verbose"),
                *("--set", "data.max_reject_fraction=1"),
                *("--set", f"text.mask_patterns={json.dumps(dict(EVERY.mask_patterns))}"),
            ],
        ),
    ]
    (home / "jobs.json").write_text(json.dumps([arguments for _, arguments in jobs]))
    running = Running([sys.executable, "-c", JOBS, "jobs.json"], cwd=home, env=env)
    try:
        out, err = running.process.communicate(timeout=3 * BOUND_S)
    finally:
        running.kill()
    statuses = [line for line in out.decode().splitlines() if line.startswith("status ")]
    assert statuses == [f"status {status}" for status, _ in jobs], (out + err).decode()
    ended = served(home / "run" / "bundle", home, env)
    assert ended.status == 0, ended

    (home / "output").write_bytes(out + err + ended.out.encode() + ended.err.encode())
    assert "[EMAIL]" in (home / "output").read_text(), "messages quote cells"
    for name in WITH_CELLS:
        (file,) = home.glob(name)
        assert re.search(rb"\[(?:EMAIL|PHONE|URL|CARD)\]", texts_of(file)), f"{name} quotes cells"
    assert list(left_in(home, PLANTED)) == []
    assert any((ray_folder / "ray").rglob("ray-data/*.log")), "Ray's logs are there"
    assert list(left_in(ray_folder, PLANTED)) == []
