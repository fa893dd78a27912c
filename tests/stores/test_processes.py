"""Several processes on one store: no update is lost, and a killed writer leaves nothing half."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.stores.writers import is_whole
from wasmeval.errors import NotFound
from wasmeval.stores import open_store
from wasmeval.stores.directory import DirectoryStore

ROOT = Path(__file__).resolve().parents[2]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """A process of tests/stores/writers.py."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stores.writers", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_processes_that_count_together_lose_no_update(shared_url: str) -> None:
    with open_store(shared_url) as store:
        store.create("counter", b"0")
        writers = [start("counting", shared_url, "25") for _ in range(3)]
        for writer in writers:
            _, errors = writer.communicate(timeout=120)
            assert writer.returncode == 0, errors.decode()
        record = store.get("counter")
        assert record is not None
        assert record.data == b"75"


def test_a_writer_killed_at_any_instant_leaves_everything_whole(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    url = f"dir:{folder}"
    seed = random.Random(7)
    for _ in range(12):
        with start("writing", url) as writer:
            assert writer.stdout is not None
            assert os.read(writer.stdout.fileno(), 1) == b"."
            time.sleep(seed.uniform(0, 0.05))
            writer.kill()
        with DirectoryStore(folder) as store:
            assert list((folder / "new").iterdir()) == []
            for key in store.keys():  # noqa: SIM118 (no dict)
                record = store.get(key)
                assert record is not None
                assert is_whole(record.data), key
            for key in store.blobs():
                assert is_whole(store.get_blob(key)), key
            # No lock outlives its holder, and the next writer changes what the last one left.
            for key in list(store.keys()):
                record = store.get(key)
                assert record is not None
                store.remove(key, store.swap(key, record.data, record.version))


def test_readers_never_see_a_half(tmp_path: Path) -> None:
    url = f"dir:{tmp_path / 'store'}"
    with open_store(url) as store, start("writing", url) as writer:
        assert writer.stdout is not None
        rounds = 0
        while rounds < 60:
            rounds += len(os.read(writer.stdout.fileno(), 100))
            for number in range(7):
                record = store.get(f"k{number}")
                assert record is None or is_whole(record.data)
                try:
                    assert is_whole(store.get_blob(f"blobs/k{number}"))
                except NotFound:
                    pass
        writer.kill()
