"""Compares one CPU worker with all threads with several of one thread each: `python jobs/bench/workers.py`

Trains one epoch of the quickstart each way, alternating for several rounds. The result is the reason for the default of
`scale.workers: auto` on CPUs.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from textcls.settings.recipe_file import parse_recipe
from textcls.training.run import train

_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "quickstart.yaml"


def main() -> None:
    """Prints rows/s of the training loop for each arrangement, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    cpus = os.cpu_count() or 1
    rates: dict[int, list[float]] = {1: [], cpus: []}
    for round_ in range(parser.parse_args().rounds):
        for workers, measured in rates.items():
            settings = [f"scale.workers={workers}", f"scale.cpus_per_worker={cpus // workers}", "train.epochs=1"]
            recipe = parse_recipe(_RECIPE.read_text(), settings)
            with tempfile.TemporaryDirectory() as out:
                report = train(recipe, out, resume=False, say=lambda line: None)
            assert report is not None
            assert report.speed is not None
            measured.append(report.speed.rows_per_s)
            print(f"round {round_ + 1}: {workers} x {cpus // workers} threads: {measured[-1]:.1f} rows/s", flush=True)
    one, many = (statistics.median(measured) for measured in rates.values())
    print(f"1 x {cpus}: {one:.1f} rows/s; {cpus} x 1: {many:.1f} rows/s; ratio {one / many:.2f}")


if __name__ == "__main__":
    main()
