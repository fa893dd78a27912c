"""A worker that dies, hangs or lies costs what it was running, and nothing else."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import pytest

from tests.pool.conftest import Caller, MakePool, python, stop_at, wait_until, workers
from wasmeval import Limits, SetupError, Status
from wasmeval.model import Job, Result
from wasmeval.pool import BlockingPool, PoolSettings
from wasmeval.runtimes import Catalogue
from wasmeval.worker import frames

LOST = "the worker was lost ({}) while it ran this evaluation"


def assert_healthy(pool: BlockingPool, restarts: int) -> None:
    (result,) = pool.evaluate_many([python("1 + 1")], timeout=60)
    assert (result.status, result.value) == (Status.OK, 2)
    count = len(workers(pool))
    pool._wait(lambda: pool.stats().ready == count, 60)
    stats = pool.stats()
    assert (stats.running, stats.queued, stats.restarts) == (0, 0, restarts)


def blamed(pool: BlockingPool) -> bool:
    return any(worker.blamed for worker in workers(pool))


def test_kill_9_in_the_middle_of_a_batch(make_pool: MakePool) -> None:
    """Only the one that ran ends `crashed`; those it held besides run again, and nobody sees it."""
    pool = make_pool(workers=2)
    # One endless loop for a worker, and around it what sleeps or waits its turn.
    jobs = [python("while True: pass")]
    jobs += [python(f"import time\ntime.sleep(0.3)\n{i}") for i in range(40)]
    caller = Caller(pool, *jobs)
    wait_until(lambda: pool.stats().running == 41)
    stop_at(workers(pool), 1).kill()
    results = caller.results()
    assert [(result.status, result.value) for result in results[1:]] == [(Status.OK, i) for i in range(40)]
    (first, *_) = results
    assert first.error
    assert (first.status, first.error.message) == (Status.CRASHED, LOST.format("died"))
    assert_healthy(pool, 1)


def test_kill_9_of_a_worker_with_sleepers_only(make_pool: MakePool) -> None:
    pool = make_pool(workers=1)
    caller = Caller(pool, *[python(f"import time\ntime.sleep(0.5)\n{i}") for i in range(20)])
    wait_until(lambda: pool.stats().running == 20)
    stop_at(workers(pool), 0).kill()
    assert [result.value for result in caller.results()] == list(range(20))
    assert_healthy(pool, 1)


def test_kill_9_of_idle_workers(make_pool: MakePool) -> None:
    pool = make_pool(workers=2)
    for worker in workers(pool):
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait(60)
    results = pool.evaluate_many([python(str(i)) for i in range(10)], timeout=60)
    assert [result.value for result in results] == list(range(10))
    assert_healthy(pool, 2)


def test_kill_9_again_and_again(make_pool: MakePool) -> None:
    """What is not at fault runs again, but not for ever."""
    pool = make_pool(workers=1)
    caller = Caller(pool, python("import time\ntime.sleep(30)"))
    for round in range(3):
        wait_until(lambda: pool.stats().ready == 1 and pool.stats().running == 1)
        wait_until(lambda round=round: pool.stats().restarts == round)
        stop_at(workers(pool), 0).kill()
        wait_until(lambda round=round: pool.stats().restarts == round + 1)
    (result,) = caller.results()
    assert result.error
    assert (result.status, result.error.message) == (
        Status.CRASHED,
        "3 workers were lost while they held this evaluation; it was not at fault",
    )
    assert_healthy(pool, 3)


def test_a_worker_that_hangs_is_killed_and_replaced(make_pool: MakePool) -> None:
    pool = make_pool(workers=1, grace_seconds=0.2)
    caller = Caller(pool, python("while True: pass", Limits(fuel=10**12, deadline_seconds=1.0)))
    process = stop_at(workers(pool), 1)
    (result,) = caller.results()
    assert result.error
    assert (result.status, result.error.message) == (
        Status.DEADLINE_EXCEEDED,
        "the deadline of 1 s passed, and the guest was killed with its worker",
    )
    assert process.wait(60) == -signal.SIGKILL
    assert_healthy(pool, 1)


def test_a_worker_that_hangs_between_slices_is_noticed_too(make_pool: MakePool) -> None:
    pool = make_pool(workers=1, grace_seconds=0.2)
    caller = Caller(pool, python("import time\ntime.sleep(0.2)\n7", Limits(deadline_seconds=1.0)))
    wait_until(lambda: pool.stats().running == 1 and not blamed(pool))
    worker = workers(pool)[0]
    os.kill(worker.process.pid, signal.SIGSTOP)
    (result,) = caller.results()
    if worker.process.poll() is None:  # it had answered before it was stopped
        os.kill(worker.process.pid, signal.SIGCONT)
    assert (result.status, result.value) == (Status.OK, 7)
    (again,) = pool.evaluate_many([python("1 + 1")], timeout=60)
    assert again.value == 2


def a_result(number: int, job: Job, **changes: object) -> bytes:
    result = Result(Status.OK, b"1", limits=job.limits, runtime="python")
    return frames.encode_result(
        number, Result(**{**{f: getattr(result, f) for f in ("status", "value_json")}, **changes})
    )  # type: ignore[arg-type]


SLEEPER = python("import time\ntime.sleep(0.2)\n5")

# What a worker that was taken over might send in place of an answer.
LIES = {
    "garbage": b"\xff" * 64,
    "zeros": bytes(64),
    "huge-frame": struct.pack("<IB", 2**32 - 1, 6),
    "over-the-largest": struct.pack("<IB", frames.LARGEST_FRAME + 1, 6),
    "unknown-kind": frames.encode(frames.Kind.EVALUATE, b""),
    "kind-99": struct.pack("<IB", 0, 99),
    "second-ready": frames.encode(frames.Kind.READY, b'{"jail": []}'),
    "nobodys-result": a_result(4242, SLEEPER),
    "empty-result": frames.encode(frames.Kind.RESULT, b""),
    "value-too-large": a_result(1, SLEEPER, value_json=b"1" * 2_000_000),
    "ok-without-value": a_result(1, SLEEPER, value_json=b""),
    "failed": frames.encode(frames.Kind.FAILED, b"oops"),
    "failed-and-more": frames.encode(frames.Kind.FAILED, b"oops") * 3 + a_result(1, SLEEPER) + b"\0" * 100,
    "malformed-twice": a_result(7, SLEEPER) + a_result(8, SLEEPER),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_worker_that_lies_is_replaced(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch, lie: bytes
) -> None:
    pool = make_pool(workers=1)
    (worker,) = workers(pool)
    caller = Caller(pool, *[SLEEPER] * 5)
    wait_until(lambda: pool.stats().running == 5)
    real, told = worker.channel, [lie]

    class Liar:
        """The worker's socket, and what it says first."""

        def recv(self, size: int) -> bytes:
            return told.pop() if told else real.recv(size)

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    worker.channel = Liar()
    results = caller.results()
    # They were not at fault: they ran again elsewhere.
    assert [(result.status, result.value) for result in results] == [(Status.OK, 5)] * 5
    assert_healthy(pool, 1)


def test_workers_that_cannot_start(tmp_path: Path) -> None:
    from tests.guests import guest, pool_of

    # Compiled, then damaged: no worker can load it.
    with pool_of(tmp_path, {"good": guest("(call $null)")}):
        pass
    for compiled in (tmp_path / "cache").glob("*.cwasm"):
        # Of the same size: a shorter one would be noticed and made anew.
        compiled.write_bytes(bytes(compiled.stat().st_size))
    pool = BlockingPool(
        PoolSettings(workers=2, cache_dir=tmp_path / "cache"), Catalogue.installed(tmp_path / "images")
    )
    with pytest.raises(SetupError, match="workers cannot be started: SetupError: wasmtime: "):
        pool.start()
    pool.close()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_cache_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    pool = BlockingPool(PoolSettings(workers=1, cache_dir=folder), Catalogue.installed())
    with pytest.raises(SetupError, match="could be written by others"):
        pool.start()
    assert list(folder.iterdir()) == []


def test_a_cache_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    pool = BlockingPool(PoolSettings(workers=1, cache_dir=tmp_path / "link"), Catalogue.installed())
    with pytest.raises(SetupError, match=r"is a symbolic link, .*; remove the link, or"):
        pool.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder another user's")
def test_a_cache_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    pool = BlockingPool(PoolSettings(workers=1, cache_dir=folder), Catalogue.installed())
    with pytest.raises(SetupError, match="could be written by others"):
        pool.start()


def test_a_system_that_starts_no_process(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool goes on with what it has, and starts the missing worker when it can again."""
    from wasmeval.pool.process import WorkerProcess

    pool = make_pool(workers=2)
    real = WorkerProcess.spawn
    refusals = []

    def refuse(*_: object) -> WorkerProcess:
        refusals.append(1)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(WorkerProcess, "spawn", refuse)
    os.kill(workers(pool)[0].process.pid, signal.SIGKILL)
    results = pool.evaluate_many(
        [python(f"import time\ntime.sleep(0.2)\n{i}") for i in range(10)], timeout=60
    )
    assert [result.value for result in results] == list(range(10))
    assert refusals
    monkeypatch.setattr(WorkerProcess, "spawn", real)
    pool._wait(lambda: pool.stats().ready == 2, 60)
    assert_healthy(pool, 1)
