"""What a pool promises its callers: order, bounds, cancellation, threads, and an end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.pool.conftest import GUARD_SECONDS, Caller, MakePool, python, stop_at, wait_until, workers
from wasmeval import (
    DeadlineExceeded,
    Evaluator,
    InvalidArgument,
    Limits,
    ResourceExhausted,
    Status,
    Unavailable,
)
from wasmeval.limits import CEILINGS, DEFAULTS
from wasmeval.model import Job
from wasmeval.pool import PoolSettings
from wasmeval.pool.driven import AsyncPool
from wasmeval.runtimes import Catalogue

FOREVER = python("while True: pass", Limits(fuel=10**12, deadline_seconds=100.0))
SLEEP = python("import time\ntime.sleep(100)", Limits(deadline_seconds=100.0))


def test_results_keep_their_order(make_pool: MakePool) -> None:
    pool = make_pool(workers=2)
    jobs = [python(f"import time\ntime.sleep({(i * 7) % 20 / 1000})\n{i}") for i in range(200)]
    assert [result.value for result in pool.evaluate_many(jobs)] == list(range(200))


def test_both_languages_side_by_side(make_pool: MakePool) -> None:
    pool = make_pool(workers=2)
    limits = Limits().within(DEFAULTS, CEILINGS)
    jobs = [Job(("python", "javascript")[i % 2], f"{i} + 1".encode(), b"", limits) for i in range(100)]
    results = pool.evaluate_many(jobs)
    assert [result.value for result in results] == [i + 1 for i in range(100)]
    assert [result.runtime for result in results] == ["python", "javascript"] * 50


def test_a_full_queue_is_refused(make_pool: MakePool) -> None:
    pool = make_pool(workers=1, concurrency=2, queue_size=3)
    caller = Caller(pool, *[SLEEP] * 5)
    wait_until(lambda: (pool.stats().running, pool.stats().queued) == (2, 3))
    with pytest.raises(ResourceExhausted) as refused:
        pool.evaluate_many([python("1")])
    assert str(refused.value) == "the queue is full (3 waiting); retry later, or raise queue_size or workers"
    assert 0 < refused.value.retry_after_seconds < 10
    assert (pool.stats().running, pool.stats().queued) == (2, 3)
    # A batch of which not all fits leaves nothing behind.
    with pytest.raises(ResourceExhausted):
        pool.evaluate_many([python("1")] * 10)
    assert (pool.stats().running, pool.stats().queued) == (2, 3)
    pool.close()
    assert {result.status for result in caller.results()} == {Status.CANCELLED}


def test_a_queue_is_first_come_first_served(make_pool: MakePool) -> None:
    pool = make_pool(workers=1, concurrency=1, queue_size=100)
    done: list[int] = []
    assert pool._pool
    for index in range(50):
        pool._pool.submit(python("1"), lambda _, index=index: done.append(index))  # type: ignore[misc]
    pool._wait(lambda: len(done) == 50, GUARD_SECONDS)
    assert done == list(range(50))


def test_a_thousand_sleepers_leave_the_workers_to_others(make_pool: MakePool) -> None:
    pool = make_pool(workers=2)
    caller = Caller(pool, *[SLEEP] * 1000)
    wait_until(lambda: pool.stats().running == 1000)
    results = pool.evaluate_many([python("1 + 1")] * 50, timeout=GUARD_SECONDS)
    assert {result.value for result in results} == {2}
    assert pool.stats().running == 1000
    pool.close()
    assert {result.status for result in caller.results()} == {Status.CANCELLED}


def test_two_endless_loops_in_each_worker_leave_turns_to_others(make_pool: MakePool) -> None:
    pool = make_pool(workers=2)
    caller = Caller(pool, *[FOREVER] * 4)
    wait_until(lambda: pool.stats().running == 4)
    for _ in range(30):
        (result,) = pool.evaluate_many([python("1 + 1")], timeout=GUARD_SECONDS)
        assert result.value == 2
    assert pool.stats().running == 4
    pool.close()
    assert {result.status for result in caller.results()} == {Status.CANCELLED}


@pytest.mark.parametrize("job", [FOREVER, SLEEP], ids=["computing", "sleeping"])
def test_cancelling_stops_the_guest(make_pool: MakePool, job: Job) -> None:
    """Cancelled, it is gone before the next evaluation on that worker is over."""
    pool = make_pool(workers=1)
    assert pool._pool
    for _ in range(20):
        ended: list[object] = []
        ticket = pool._pool.submit(job, ended.append)
        (first,) = pool.evaluate_many([python("1")], timeout=GUARD_SECONDS)
        assert first.ok
        pool._pool.cancel(ticket)
        (second,) = pool.evaluate_many([python("2")], timeout=GUARD_SECONDS)
        assert second.ok
        pool._wait(lambda: pool.stats().running == 0, GUARD_SECONDS)
        assert ended == []
    assert pool.stats().restarts == 0


def test_a_time_out_stops_the_guest(make_pool: MakePool) -> None:
    pool = make_pool(workers=1)
    with pytest.raises(DeadlineExceeded, match=r"the time-out of 0\.1 s passed before the result arrived"):
        pool.evaluate_many([FOREVER, SLEEP], timeout=0.1)
    (result,) = pool.evaluate_many([python("1")], timeout=GUARD_SECONDS)
    assert result.ok
    pool._wait(lambda: pool.stats().running == 0, GUARD_SECONDS)
    assert pool.stats().restarts == 0


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_an_impossible_time_out_is_refused(make_pool: MakePool, timeout: float) -> None:
    pool = make_pool(workers=1)
    with pytest.raises(InvalidArgument, match="timeout"):
        pool.evaluate_many([python("1")], timeout=timeout)
    for generous in (1e9, 1e300, float("inf")):
        assert pool.evaluate_many([python("1")], timeout=generous)[0].ok


def test_threads_share_an_evaluator() -> None:
    with Evaluator(workers=2) as evaluator:
        failures: list[BaseException] = []

        def work(offset: int) -> None:
            try:
                for i in range(50):
                    assert evaluator.evaluate(f"{offset} + {i}").value == offset + i
                    if i % 10 == 0:
                        with pytest.raises(DeadlineExceeded):
                            evaluator.evaluate("import time\ntime.sleep(60)", timeout=0.01)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GUARD_SECONDS)
            assert not thread.is_alive()
        assert failures == []
        evaluator._pool._wait(lambda: evaluator._pool.stats().running == 0, GUARD_SECONDS)
        assert evaluator._pool.stats().restarts == 0


def test_closing_during_an_evaluation_ends_it_as_cancelled() -> None:
    evaluator = Evaluator(workers=1)
    callers = [Caller(evaluator._pool, job) for job in (FOREVER, SLEEP, SLEEP)]
    wait_until(lambda: evaluator._pool.stats().running == 3)
    pids = [worker.process.pid for worker in workers(evaluator)]
    evaluator.close()
    for caller in callers:
        (result,) = caller.results()
        assert result.error
        assert (result.status, result.error.message) == (
            Status.CANCELLED,
            "the evaluation was stopped: its pool is closing",
        )
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    evaluator.close()
    with pytest.raises(Unavailable, match="the pool is closing or closed"):
        evaluator.evaluate("1")


def run_script(script: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def test_after_a_fork_the_child_is_told(tmp_path: object) -> None:
    script = """
import os, wasmeval
evaluator = wasmeval.Evaluator(workers=1)
assert wasmeval.evaluate("1").value == 1
child = os.fork()
if not child:
    try:
        evaluator.evaluate("1")
    except wasmeval.Unavailable as error:
        print(error, flush=True)
    print(wasmeval.evaluate("2").value, flush=True)
    evaluator.close()
    os._exit(0)
os.waitpid(child, 0)
print(evaluator.evaluate("3").value, wasmeval.evaluate("4").value)
evaluator.close()
"""
    run = run_script(script)
    assert run.stdout.splitlines() == [
        "this evaluator belongs to the parent process; make a new one after a fork",
        "2",
        "3 4",
    ], run.stderr
    assert run.returncode == 0


def test_ctrl_c_stops_the_guest_and_leaves_the_evaluator_usable() -> None:
    script = """
import os, signal, sys, threading, wasmeval
from wasmeval import Limits
evaluator = wasmeval.Evaluator(workers=1)
for code in ("while True: pass", "import time\\ntime.sleep(99)"):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        evaluator.evaluate(code, limits=Limits(fuel=10**12, deadline_seconds=99.0))
    except KeyboardInterrupt:
        print("interrupted", evaluator.evaluate("1 + 1").value)
pool = evaluator._pool
pool._wait(lambda: pool.stats().running == 0, 60)
print(pool.stats())
evaluator.close()
"""
    run = run_script(script)
    assert run.stdout.splitlines() == [
        "interrupted 2",
        "interrupted 2",
        "PoolStats(workers=1, ready=1, running=0, queued=0, restarts=0)",
    ], run.stderr


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "evaluator.close(); del evaluator",
        "del evaluator",
        "import sys; sys.exit(0)",
        "import gc; gc.collect(); pool = evaluator._pool; del evaluator; gc.collect(); pool.close()",
        "import threading; threading.Thread(target=evaluator.evaluate, args=('1',)).start()",
        "import threading as t; t.Thread(target=evaluator.evaluate, args=('while True: pass',), daemon=True).start()",
    ],
)
def test_no_order_of_ends_aborts_the_process_or_leaves_a_worker(ending: str) -> None:
    script = f"""
import wasmeval
evaluator = wasmeval.Evaluator(workers=2)
assert evaluator.evaluate("1").value == 1
assert wasmeval.evaluate("1").value == 1
print(*[w.process.pid for e in (evaluator, wasmeval.embedded._shared[1]) for w in e._pool._pool._workers], flush=True)
{ending}
"""
    run = run_script(script)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    for pid in run.stdout.split():
        wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))


def test_a_parent_that_is_killed_leaves_no_worker() -> None:
    script = """
import os, signal, wasmeval
evaluator = wasmeval.Evaluator(workers=2)
evaluator.evaluate("1")
print(*[w.process.pid for w in evaluator._pool._pool._workers], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = run_script(script)
    assert run.returncode == -signal.SIGKILL
    assert len(run.stdout.split()) == 2
    for pid in run.stdout.split():
        wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))


async def test_the_asyncio_pool() -> None:
    pool = AsyncPool(PoolSettings(workers=2), Catalogue.installed())
    await pool.start()
    try:
        results = await asyncio.gather(*[pool.evaluate(python(f"{i}")) for i in range(100)])
        assert [result.value for result in results] == list(range(100))
        tasks = [asyncio.create_task(pool.evaluate(job)) for job in (FOREVER, SLEEP) * 5]
        while pool.stats().running < 10:
            await asyncio.sleep(0.002)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError)
            for each in await asyncio.gather(*tasks, return_exceptions=True)
        )
        end = time.monotonic() + GUARD_SECONDS
        while pool.stats().running:
            assert time.monotonic() < end
            await asyncio.sleep(0.002)
        assert (await pool.evaluate(python("1 + 1"))).value == 2
        assert pool.stats().restarts == 0
    finally:
        await pool.aclose()


async def test_draining_lets_what_runs_end() -> None:
    pool = AsyncPool(PoolSettings(workers=1, concurrency=2), Catalogue.installed())
    await pool.start()
    short = [
        asyncio.create_task(pool.evaluate(python(f"import time\ntime.sleep(0.1)\n{i}"))) for i in range(6)
    ]
    await asyncio.sleep(0)
    await pool.drain(GUARD_SECONDS)
    assert [(await task).value for task in short] == list(range(6))
    with pytest.raises(Unavailable):
        await pool.evaluate(python("1"))
    await pool.aclose()


async def test_draining_ends_what_runs_too_long() -> None:
    pool = AsyncPool(PoolSettings(workers=1, concurrency=2), Catalogue.installed())
    await pool.start()
    long = [asyncio.create_task(pool.evaluate(job)) for job in (FOREVER, SLEEP, SLEEP, FOREVER)]
    await asyncio.sleep(0)
    await pool.drain(0.05)
    assert [(await task).status for task in long] == [Status.CANCELLED] * 4
    await pool.aclose()
    await pool.aclose()


async def test_an_asyncio_worker_that_dies(tmp_path: object) -> None:
    pool = AsyncPool(PoolSettings(workers=2), Catalogue.installed())
    await pool.start()
    try:
        assert pool._pool
        tasks = [
            asyncio.create_task(pool.evaluate(python(f"import time\ntime.sleep(0.3)\n{i}")))
            for i in range(20)
        ]
        while pool.stats().running < 20:
            await asyncio.sleep(0.002)
        stop_at(pool._pool._workers[:1], 0).kill()
        assert [(await task).value for task in tasks] == list(range(20))
        while pool.stats().ready < 2:
            await asyncio.sleep(0.01)
        assert pool.stats().restarts == 1
    finally:
        await pool.aclose()
