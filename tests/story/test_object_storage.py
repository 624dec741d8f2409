"""A run that reads from and writes to object storage alone. `pytest tests/story/test_object_storage.py`"""

import json
import os
import subprocess
import sys
from pathlib import Path

from textcls import storage
from textcls.bundle import load_bundle
from textcls.directories import put_directory

TRAIN = Path(__file__).resolve().parents[2] / "jobs" / "train.py"
ROWS = ["text,label", *(f'"{word} film,\nnumber {i}",{word}' for i in range(80) for word in ("good", "bad"))]


def train(recipe: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TRAIN), "--recipe", str(recipe), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ, check=False)


def test_csv_model_and_run_live_in_a_bucket(s3, tiny_model_dir, tmp_path, monkeypatch, without_ray):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for i in range(2):
        part = [ROWS[0], *ROWS[1 + i :: 2]]
        storage.write_bytes(f"{s3}/data/part {i}.csv", "\r\n".join(part).encode())
    put_directory(str(tiny_model_dir), f"{s3}/models/tiny", last="config.json")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {{csv: '{s3}/data/*.csv', shard_bytes: 1000}}\n"
        f"model: {{pretrained: '{s3}/models/tiny'}}\n"
        "text: {max_tokens: 32}\n"
        "train: {epochs: 1, precision: fp32, checkpoint_every_steps: 2, learning_rate: 0.001}\n"
    )
    done = train(recipe, "--out", f"{s3}/runs/one")
    assert done.returncode == 0, done.stdout + done.stderr
    account = json.loads(storage.read_bytes(f"{s3}/runs/one/rows.json"))
    assert account["read"] == 160
    assert account["train"] + account["val"] + account["test"] == 160
    assert load_bundle(f"{s3}/runs/one/bundle").manifest.labels == ("bad", "good")
    assert storage.names_in(f"{s3}/runs/one") == [
        "bundle",
        "events.jsonl",
        "rejects.parquet",
        "report.html",
        "report.json",
        "report.png",
        "rows.json",
        "run.json",
        "tensorboard",
    ]
    events = [json.loads(line)["event"] for line in storage.read_bytes(f"{s3}/runs/one/events.jsonl").splitlines()]
    assert events[-2:] == ["tested", "bundle_written"]
    assert len(storage.names_in(f"{s3}/runs/one/tensorboard")) == 1
    again = without_ray("train", tmp_path, "--recipe", recipe, "--out", f"{s3}/runs/one").calmly(2)
    assert "finished run" in again.err
