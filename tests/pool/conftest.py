"""Pools of real workers, small and for one test each."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wasmeval import Evaluator, Limits
from wasmeval.limits import CEILINGS, DEFAULTS
from wasmeval.model import Job, Result
from wasmeval.pool import BlockingPool, PoolSettings
from wasmeval.runtimes import Catalogue

GUARD_SECONDS = 120
"""Nothing in these tests takes as long; it ends a test that would hang."""

MakePool = Callable[..., BlockingPool]


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    """Starts pools, all workers ready, and closes them in the end."""
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> BlockingPool:
            pool = BlockingPool(PoolSettings(**{"workers": 1, **settings}), Catalogue.installed())
            stack.callback(pool.close)
            pool.start()
            pool._wait(lambda: pool.stats().ready == pool.stats().workers, GUARD_SECONDS)
            return pool

        yield make


def python(code: str, limits: Limits | None = None) -> Job:
    """A job of the Python runtime."""
    return Job("python", code.encode(), b"", (limits or Limits()).within(DEFAULTS, CEILINGS))


class Caller(threading.Thread):
    """Evaluates `jobs` on a thread of its own; `join` gives the results or raises what was raised."""

    def __init__(self, pool: BlockingPool, *jobs: Job) -> None:
        super().__init__(daemon=True)
        self._pool, self._jobs = pool, jobs
        self._outcome: list[Result] | BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._outcome = self._pool.evaluate_many(self._jobs)
        except BaseException as error:
            self._outcome = error

    def results(self) -> list[Result]:
        self.join(GUARD_SECONDS)
        assert not self.is_alive(), "it hangs"
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome


def wait_until(condition: Callable[[], Any]) -> Any:
    """What `condition()` gives once it holds; fails when it never does."""
    end = time.monotonic() + GUARD_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)
    return found


def workers(pool: BlockingPool | Evaluator) -> list[Any]:
    """The pool's side of its workers."""
    blocking = pool._pool if isinstance(pool, Evaluator) else pool
    assert blocking._pool
    return blocking._pool._workers


def stop_at(workers: list[Any], number: int) -> Any:
    """The process of the worker that runs evaluation `number` (0: between two slices), stopped in the middle of it."""

    def stopped() -> Any:
        for worker in workers:
            if worker.blamed == number:
                os.kill(worker.process.pid, signal.SIGSTOP)
                # A stop takes effect when the process next runs.
                while (state := _state(worker.process.pid)) not in "Tt":
                    assert state not in "ZX"
                if worker.blamed == number:
                    return worker.process
                os.kill(worker.process.pid, signal.SIGCONT)
        return None

    return wait_until(stopped)


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]
