"""`python -m bench.stores URL`: what putting a snapshot and swapping its record cost; JSON lines.

A store of its own is best: keys below `bench/` are written, and removed again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

from bench import machine
from wasmeval.stores import Store, open_store

T = TypeVar("T")

BLOB_BYTES = 100_000
RECORD_BYTES = 500


def main() -> None:
    """Measure the store at the URL of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    with open_store(arguments.url) as store:
        samples = measure(store, arguments.rounds)
        common = {"store": store.name, "machine": machine.describe(), "commit": machine.commit()}
    for name, seconds in samples.items():
        figures = {"p50": statistics.median(seconds), "p90": sorted(seconds)[int(len(seconds) * 0.9)]}
        for quantile, value in figures.items():
            dimensions = {"quantile": quantile, "n": len(seconds), **common}
            print(
                json.dumps(
                    {"metric": name, "unit": "ms", "value": round(value * 1e3, 3), "dimensions": dimensions}
                )
            )


def measure(store: Store, rounds: int) -> dict[str, list[float]]:
    """Seconds that each call took, by its name; `sleep` is a put and a swap, as one session needs."""
    blob, record = os.urandom(BLOB_BYTES), os.urandom(RECORD_BYTES)
    version = store.create("bench/record", record)
    samples: dict[str, list[float]] = {name: [] for name in ("put_blob", "swap", "sleep", "get", "get_blob")}
    for number in range(rounds):
        key = f"bench/{number}"
        put, _ = timed(lambda: store.put_blob(key, blob))  # noqa: B023
        swap, version = timed(lambda: store.swap("bench/record", record, version))  # noqa: B023
        get, _ = timed(lambda: store.get("bench/record"))
        get_blob, _ = timed(lambda: store.get_blob(key))  # noqa: B023
        for name, seconds in zip(samples, (put, swap, put + swap, get, get_blob), strict=True):
            samples[name].append(seconds)
    for number in range(rounds):
        store.remove_blob(f"bench/{number}")
    store.remove("bench/record", version)
    return samples


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and what `call` returned."""
    start = time.perf_counter()
    value = call()
    return time.perf_counter() - start, value


if __name__ == "__main__":
    main()
