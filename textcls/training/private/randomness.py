"""Random numbers that nobody can compute without the run's secret: which rows a step takes, and its noise.

In: a key of 256 bits, the number of a step. Out: row numbers and normal deviates, the same whenever they are asked for.
Not here: where the key is kept (checkpoint.py), what is done with the numbers (poisson_plan.py, step.py).

Whoever knows the noise can subtract it, so neither `train.seed`, which stands in the bundle, nor a generator that is
seeded with few bits will do: torch's generator on CPUs takes 32 of its seed's 64 bits. SHAKE128 (FIPS 202) of the key
and the number of the step gives as many bytes as are needed, at 0.4 GB/s on one core, without any state to carry, and
nobody is known to tell them from chance with less than 2**128 trials. The key is drawn anew for each run, and shared by
its attempts: a step that is repeated after a failure has the same rows and the same noise, and reveals nothing more.

The deviates are of double precision (53 bits, up to 8.5 standard deviations). Their low bits are not those of real
numbers (Mironov 2012), which the proof of differential privacy assumes.
"""

import hashlib
import secrets
from concurrent.futures import ThreadPoolExecutor

import numpy as np

KEY_BYTES = 32
# Deviates that one thread draws at a time: 6 MB of random bytes.
_CHUNK = 1 << 20


def new_key() -> bytes:
    """A secret of the operating system."""
    return secrets.token_bytes(KEY_BYTES)


def sampled(key: bytes, step: int, rows: int, rate: float) -> np.ndarray:
    """int64, ascending: the rows of a step, each of which takes part with the same probability.

    Args:
        key: of the run.
        step: number of the step.
        rows: how many there are to choose from.
        rate: the probability; of a row, independent of all others.
    """
    if rate >= 1:
        return np.arange(rows)
    draws = np.frombuffer(_bytes(key, "rows", step, 0, 8 * rows), "<u8")
    return np.flatnonzero(draws < np.uint64(int(rate * 2**64)))


def normals(key: bytes, step: int, count: int, *, threads: int = 1) -> np.ndarray:
    """float32 [count]: independent deviates with mean 0 and standard deviation 1.

    Args:
        key: of the run.
        step: number of the step.
        count: how many.
        threads: how many compute them; the numbers do not depend on it.
    """
    found = np.empty(count, np.float32)

    def draw(chunk: int) -> None:
        part = found[chunk * _CHUNK : (chunk + 1) * _CHUNK]
        part[:] = _box_muller(_bytes(key, "noise", step, chunk, 12 * _CHUNK // 2))[: len(part)]

    with ThreadPoolExecutor(threads, thread_name_prefix="noise") as pool:
        list(pool.map(draw, range(-(-count // _CHUNK))))
    return found


def _bytes(key: bytes, purpose: str, step: int, part: int, count: int) -> bytes:
    assert len(key) == KEY_BYTES
    return hashlib.shake_128(key + f"textcls {purpose} {step} {part}".encode()).digest(count)


def _box_muller(raw: bytes) -> np.ndarray:
    """float64 [n]: normal deviates of 6 n random bytes, n even (Box, Muller 1958)."""
    pairs = len(raw) // 12
    radius_bits = np.frombuffer(raw, "<u8", pairs)
    angle_bits = np.frombuffer(raw, "<u4", pairs, 8 * pairs)
    radius = np.sqrt(-2 * np.log(((radius_bits >> np.uint64(11)) + 1) * 2.0**-53))
    angle = angle_bits * (2 * np.pi * 2.0**-32)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
