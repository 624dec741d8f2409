"""Compares two Ray tasks that read and clean one big CSV with one task: `python jobs/bench/csv_read.py`

One task reads the file from start to end, without a scan. Two tasks scan it first, and then read its shards. The two
alternate for several rounds; each round gives a ratio. In each round the rows, their line numbers and their text keys
must equal those of Python's csv module. The csv module alone and the scan alone are measured as upper bounds, and the
peak memory of a task for a tenth of the rows and for all of them.
"""

import argparse
import csv
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import ray

from textcls.data.csv_layout import Layout
from textcls.data.csv_records import Shard, read_shard
from textcls.data.csv_scan import scan_range
from textcls.data.csv_shards import plan_shards
from textcls.data.input_files import expand
from textcls.data.rows import CleanRow, RowCleaner
from textcls.settings.data import DataSpec
from textcls.settings.recipe import TextSpec
from textcls.tasks.single_label import SINGLE_LABEL
from textcls.text.normalizer import normalizer_of

_ROOT = str(Path(__file__).resolve().parent.parent.parent)
_DATA, _TEXT = DataSpec(), TextSpec()
_LEAST_RATIO = 1.7
_MOST_GROWTH_MB = 20


class Digest(NamedTuple):
    """A digest of rows in any order: number of clean rows, number of rejects, and a sum over keys and line numbers."""

    rows: int = 0
    rejects: int = 0
    checksum: int = 0

    def __add__(self, other: object) -> "Digest":
        assert isinstance(other, Digest)
        checksum = (self.checksum + other.checksum) % 2**64
        return Digest(self.rows + other.rows, self.rejects + other.rejects, checksum)


def main() -> int:
    """Prints the rounds, the medians and the memory; returns 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", help="directory for the files (default: a temporary one)")
    arguments = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        large, small = f"{directory}/large.csv", f"{directory}/small.csv"
        write_csv(large, arguments.megabytes * 10**6)
        write_csv(small, arguments.megabytes * 10**5)
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            runtime_env={"env_vars": {"PYTHONPATH": _ROOT}},
        )
        try:
            is_faster = _compare(large, arguments.rounds)
            is_flat = _compare_memory(small, large)
        finally:
            ray.shutdown()
    return 0 if is_faster and is_flat else 1


def write_csv(path: str, size_bytes: int) -> None:
    """Writes rows (id, text of about 100 to 2000 characters, label) of which one in 200 is a reject."""
    rng = random.Random(0)
    words = ["".join(rng.choices("aeinorstlmdu", k=rng.randint(2, 9))) for _ in range(5000)] + ["café", "naïve", "Öl"]

    def body() -> bytes:
        text = " ".join(rng.choices(words, k=rng.randint(15, 330)))
        if rng.random() < 0.4:
            text = f'{text[:60]}\n\nShe said "{text[60:90]}", and left.\n{text[90:]}'
        label = rng.choice(["positive", "negative"]) if rng.random() > 0.005 else ""
        return b',"%s",%s\n' % (text.replace('"', '""').encode(), label.encode())

    bodies = [body() for _ in range(20_000)]
    with open(path, "wb") as file:
        written = file.write(b"id,text,label\n")
        number = 0
        while written < size_bytes:
            number += 1
            written += file.write(b"%d%b" % (number, rng.choice(bodies)))


def read_and_clean(shards: Sequence[Shard], layout: Layout) -> Digest:
    """The digest of some shards."""
    cleaner = RowCleaner(layout, _DATA, _TEXT, SINGLE_LABEL)
    rows = rejects = checksum = 0
    for shard in shards:
        for line, fields in read_shard(shard, layout, _DATA):
            row = cleaner(line, fields)
            if isinstance(row, CleanRow):
                rows += 1
                checksum += _number(row.key, row.line)
            else:
                rejects += 1
    return Digest(rows, rejects, checksum % 2**64)


def _number(key: bytes, line: int) -> int:
    return int.from_bytes(key[:8], "little") ^ line << 20


def digest_by_csv_module(path: str) -> Digest:
    """The same digest, computed with Python's csv module alone."""
    digest = [0, 0, 0]
    normalize = normalizer_of(_TEXT)
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        next(reader)
        line = reader.line_num + 1
        for _, text, label in reader:
            key = blake2b(" ".join(normalize(text).split()).encode(), digest_size=16).digest()
            digest[0 if label else 1] += 1
            digest[2] += _number(key, line) if label else 0
            line = reader.line_num + 1
    return Digest(digest[0], digest[1], digest[2] % 2**64)


def csv_module_alone(path: str) -> None:
    """Parses the file and discards the records."""
    with open(path, encoding="utf-8", newline="") as file:
        for _ in csv.reader(file):
            pass


def _on_ray(function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> list[Any]:
    task = ray.remote(function)
    results: list[Any] = ray.get([task.remote(*job) for job in jobs])
    return results


def one_task(path: str) -> Digest:
    """The file as one shard, read by one Ray task."""
    layouts, _ = plan_shards(expand([path]), _DATA.model_copy(update={"shard_bytes": 2**50}))
    (digest,) = _on_ray(read_and_clean, [([Shard(path, 0)], layouts[0])])
    assert isinstance(digest, Digest)
    return digest


def two_tasks(path: str) -> Digest:
    """The file scanned, then read shard by shard, by as many Ray tasks at once as there are CPUs."""
    layouts, shards = plan_shards(expand([path]), _DATA, run=_on_ray)
    return sum(_on_ray(read_and_clean, [([shard], layouts[0]) for shard in shards]), Digest())


def _compare(path: str, rounds: int) -> bool:
    """Prints the rounds; returns whether two tasks reach the bar, with the same rows."""
    size = os.path.getsize(path)
    load = os.getloadavg()[0]  # before our own load; if it is not near 0, other work distorts the ratio
    expected = _on_ray(digest_by_csv_module, [(path,), (path,)])[0]  # on both workers, which warms them
    print(
        f"{size / 1e6:,.0f} MB, {expected.rows:,} rows, {expected.rejects:,} rejects; load average before: {load:.1f}"
    )
    alone: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [
        ("csv module", csv_module_alone, (path,)),
        ("scan", scan_range, (path, ",", 0, size)),
    ]
    for name, function, job in alone:
        start = time.perf_counter()
        _on_ray(function, [job])
        print(f"{name} alone: {size / 1e9 / (time.perf_counter() - start):.2f} GB/s on one CPU")
    one: list[float] = []
    two: list[float] = []
    for number in range(rounds):
        for times, way in ((one, one_task), (two, two_tasks)):
            start = time.perf_counter()
            found = way(path)
            times.append(time.perf_counter() - start)
            if found != expected:
                raise SystemExit(f"{way.__name__} gives {found}, the csv module {expected}")
        print(f"round {number + 1}: one {one[-1]:.2f} s, two {two[-1]:.2f} s, ratio {one[-1] / two[-1]:.2f}")
    ratios = [a / b for a, b in zip(one, two, strict=True)]
    ratio: float = statistics.median(ratios)
    print(
        f"median: one {statistics.median(one):.2f} s ({size / 1e6 / statistics.median(one):.0f} MB/s), "
        f"two {statistics.median(two):.2f} s; ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
        f"bar {_LEAST_RATIO}; rows identical to the csv module's in every round"
    )
    return ratio >= _LEAST_RATIO


def _peak_mb(path: str) -> float:
    import resource

    layouts, shards = plan_shards(expand([path]), _DATA)
    read_and_clean(shards, layouts[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _compare_memory(small: str, large: str) -> bool:
    """Prints the peak memory of tasks that scan and read a whole file; returns whether the larger file needs no
    more."""
    # One call per process, so that the peak of the process is the task's.
    task = ray.remote(max_calls=1)(_peak_mb)
    peaks: dict[str, float] = {path: ray.get(task.remote(path)) for path in (small, large)}
    for path, peak in peaks.items():
        print(f"peak memory of a task that scans and reads {os.path.getsize(path) / 1e6:,.0f} MB: {peak:.0f} MB")
    growth = peaks[large] - peaks[small]
    print(f"growth {growth:.1f} MB, bar {_MOST_GROWTH_MB}")
    return growth <= _MOST_GROWTH_MB


if __name__ == "__main__":
    sys.exit(main())
