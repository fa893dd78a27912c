"""Promises: what waits is bounded in bytes, a backlog is sent whole, and a pool that failed comes back."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.pool.conftest import MakePool, python
from wasmeval import Limits, ResourceExhausted, Status, Unavailable
from wasmeval.limits import CEILINGS, DEFAULTS
from wasmeval.model import Job
from wasmeval.pool import BlockingPool
from wasmeval.pool.process import State, WorkerProcess

MIB = 1 << 20


def big(size: int) -> Job:
    """A job of `size` bytes."""
    return Job("python", b"0 #" + b"x" * (size - 3), b"", Limits().within(DEFAULTS, CEILINGS))


def test_what_waits_and_runs_is_bounded_in_bytes(make_pool: MakePool) -> None:
    pool = make_pool(held_bytes=2 * MIB)
    with pytest.raises(ResourceExhausted, match=r"hold 1048576 bytes of code, inputs and files, of 2097152"):
        pool.evaluate_many([big(MIB), big(2 * MIB)])
    # What was refused and what was cancelled with it no longer counts.
    pool._wait(lambda: pool.stats().running == 0, 60)
    assert [result.status for result in pool.evaluate_many([big(MIB), big(MIB)])] == [Status.OK] * 2
    assert pool._pool is not None
    assert pool._pool._held_bytes == 0


def test_one_evaluation_alone_is_never_too_large(make_pool: MakePool) -> None:
    assert make_pool(held_bytes=1).evaluate_many([python("6 * 7")])[0].value == 42


def test_a_backlog_is_sent_whole_and_in_order() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    worker = WorkerProcess(process, ours, mmap.mmap(-1, mmap.PAGESIZE), 0.0)
    parts = [bytes([number]) * (3 * MIB + number) for number in range(20)]
    for part in parts:
        worker.send(part)
    assert worker.wants_write
    received = bytearray()
    while worker.wants_write:
        received += theirs.recv(MIB)
        worker.flush()
    theirs.setblocking(False)
    while len(received) < sum(map(len, parts)):
        received += theirs.recv(MIB)
    assert received == b"".join(parts)
    worker.kill()
    theirs.close()
    process.wait()


def test_cancelling_what_a_dead_worker_held_does_not_matter(make_pool: MakePool) -> None:
    pool = make_pool()
    assert pool._pool is not None
    with pool._turn:
        ticket = pool._pool.submit(big(MIB), lambda _: None)
        worker = ticket.worker
        assert worker is not None
        pool._pool._lost(worker, "died")
        assert worker.state is State.GONE
        pool._pool.cancel(ticket)
        ticket.worker = worker
        pool._pool.cancel(ticket)
    assert pool.evaluate_many([python("6 * 7")], timeout=60)[0].value == 42


def test_a_pool_that_could_start_no_worker_comes_back(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool()
    real = WorkerProcess.spawn

    def refuse(*_: object) -> WorkerProcess:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(WorkerProcess, "spawn", refuse)
    assert pool._pool is not None
    os.kill(pool._pool._workers[0].process.pid, signal.SIGKILL)
    with pytest.raises(Unavailable, match="no worker can be started"):
        fail_until_unavailable(pool)
    monkeypatch.setattr(WorkerProcess, "spawn", real)
    for _ in range(10):
        try:
            assert pool.evaluate_many([python("6 * 7")])[0].value == 42
            break
        except Unavailable:
            continue
    else:
        pytest.fail("the pool stayed unavailable")


def fail_until_unavailable(pool: BlockingPool) -> None:
    """Evaluate until the pool has given up."""
    for _ in range(20):
        pool.evaluate_many([python("1")], timeout=60)


def test_output_counts_towards_the_workers_memory(make_pool: MakePool) -> None:
    pool = make_pool(worker_memory_bytes=20 * MIB)
    limits = Limits(output_bytes=8 * MIB, deadline_seconds=30)
    code = "import sys, time\nsys.stdout.write('x' * (7 << 20))\nsys.stdout.flush()\ntime.sleep(3)\n1"
    results = pool.evaluate_many([python(code, limits) for _ in range(6)])
    statuses = {result.status for result in results}
    assert Status.MEMORY_EXCEEDED in statuses
    evicted = next(result for result in results if result.status is Status.MEMORY_EXCEEDED)
    assert evicted.error is not None
    assert "worker_memory_bytes" in evicted.error.message
    assert pool.evaluate_many([python("6 * 7")])[0].value == 42
