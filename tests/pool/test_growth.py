"""Nothing grows with the number of evaluations: no memory, no descriptor, no process, in the parent or in a worker."""

from __future__ import annotations

import os

import pytest

from tests.pool.conftest import MakePool, python, workers
from wasmeval import DeadlineExceeded, Limits
from wasmeval.limits import CEILINGS, DEFAULTS
from wasmeval.model import Job

MIB = 1 << 20


def anonymous_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def children() -> int:
    return sum(1 for entry in os.listdir("/proc") if entry.isdigit() and _parent(entry) == os.getpid())


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def test_nothing_grows(make_pool: MakePool) -> None:
    pool = make_pool(workers=1)
    (worker,) = workers(pool)
    pid, me = worker.process.pid, os.getpid()
    limits = Limits(output_bytes=100_000).within(DEFAULTS, CEILINGS)
    jobs = [
        Job("python", b"print('x' * 50_000); 1", b"", limits),
        Job("javascript", b"console.log('x'.repeat(50000)); 1", b"", limits),
        Job("python", b"1 / 0", b"", limits),
        Job("python", b"import os; print('x' * 90_000, flush=True); os._exit(3)", b"", limits),
        Job("python", b"import os; os.abort()", b"", limits),
        Job("python", b"import time; time.sleep(0.0001)", b"", limits),
        Job("javascript", b"throw new Error('x')", b"", limits),
        Job("python", b"bytes(10**9)", b"", limits),
        Job("python", b"while True: pass", b"", Limits(fuel=1_000_000).within(limits, CEILINGS)),
        Job("python", b"len(x)", b'{"x": "' + b"y" * 100_000 + b'"}', limits),
    ]

    def round(times: int) -> None:
        for _ in range(times):
            pool.evaluate_many(jobs, timeout=100)
        for _ in range(times // 2):
            with pytest.raises(DeadlineExceeded):
                pool.evaluate_many([python("while True: pass")] * 2, timeout=0.002)
        pool.evaluate_many(jobs, timeout=100)
        pool._wait(lambda: pool.stats().running == 0, 100)

    round(60)
    before = anonymous_bytes(pid), anonymous_bytes(me), descriptors(me), children()
    round(240)
    after = anonymous_bytes(pid), anonymous_bytes(me), descriptors(me), children()
    assert after[0] < before[0] + 12 * MIB, "the worker grew"
    assert after[1] < before[1] + 12 * MIB, "the parent grew"
    # What earlier tests left to the garbage collector may go meanwhile.
    assert after[2] <= before[2], "descriptors grew"
    assert after[3] == before[3], "processes grew"
    assert pool.stats().restarts == 0
    assert workers(pool)[0].process.pid == pid


def test_pools_come_and_go(make_pool: MakePool) -> None:
    make_pool(workers=1).close()
    me = os.getpid()
    import gc

    gc.collect()
    before = descriptors(me), children()
    for _ in range(5):
        pool = make_pool(workers=2)
        pool.evaluate_many([python("1")])
        pool.close()
        pool._poll.close()
    del pool
    gc.collect()
    assert (descriptors(me), children()) == before


def test_workers_come_and_go(make_pool: MakePool) -> None:
    pool = make_pool(workers=1)
    before = descriptors(os.getpid()), children()
    for _ in range(5):
        workers(pool)[0].process.kill()
        assert pool.evaluate_many([python("1")], timeout=100)[0].ok
    pool._wait(lambda: not pool._pool._dead, 100)  # type: ignore[union-attr]
    assert (descriptors(os.getpid()), children()) == before
    assert pool.stats().restarts == 5
