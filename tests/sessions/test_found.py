"""Defects that were found and are still to be mended: each of these fails."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wasmeval import DeadlineExceeded, Evaluator, Limits, NotFound, Status
from wasmeval.limits import MIB
from wasmeval.pool import BlockingPool, PoolSettings
from wasmeval.runtimes import Catalogue


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=1) as evaluator:
        yield evaluator


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_idle_sessions_take_no_more_than_the_worker_may() -> None:
    """`worker_memory_bytes` counts what runs; what rests, and its mirror, counts nowhere."""
    with Evaluator(workers=1) as evaluator:
        evaluator._pool.close()
        settings = PoolSettings(workers=1, worker_memory_bytes=128 * MIB)
        evaluator._pool = BlockingPool(settings, Catalogue.installed())
        evaluator._pool.start()
        (worker,) = evaluator._pool._workers.values()
        before = resident_bytes(worker.process.pid)
        for _ in range(6):
            evaluator.session().evaluate("x = b'x' * (48 << 20); 0")
        evaluator.evaluate("0")
        assert resident_bytes(worker.process.pid) - before < 256 * MIB


def test_files_of_many_steps_keep_to_the_workspaces_limits(evaluator: Evaluator) -> None:
    """Workspace.put counts, but never refuses: a session's steps add up."""
    limits = Limits(workspace_bytes=8 * MIB, workspace_files=10)
    with evaluator.session(limits=limits) as session:
        for step in range(3):
            files = {f"{step}-{at}": b"x" * (7 * MIB // 8) for at in range(8)}
            session.evaluate("import os; os.listdir()", files=files)
        assert session.evaluate("import os; len(os.listdir())").value <= 10


def test_a_step_whose_time_out_passes_as_it_ends_is_rolled_back_or_counted(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has ended the step before it hears of the cancellation, and keeps what the step did."""
    with evaluator.session() as session:
        session.evaluate("x = 1")
        with monkeypatch.context() as patched:
            # This thread had no CPU between the time-out and the cancellation.
            patched.setattr(BlockingPool, "_lead", lambda *_: time.sleep(0.3))
            with pytest.raises(DeadlineExceeded):
                session.evaluate("x = 2", timeout=0.2)
        assert session.evaluate("x").value == 1


def test_a_session_of_an_evaluator_ends_with_its_life(evaluator: Evaluator) -> None:
    """Nothing looks after an evaluator's own sessions: see Residence.watch for a service's."""
    session = evaluator.session(life_seconds=0.2)
    session.evaluate("x = 1")
    time.sleep(0.4)
    with pytest.raises(NotFound):
        session.evaluate("x")


def test_an_idle_session_of_an_evaluator_goes_to_sleep(evaluator: Evaluator) -> None:
    with evaluator.session(idle_seconds=0.2) as session, evaluator.session() as other:
        session.evaluate("x = 1")
        time.sleep(0.4)
        assert other.evaluate("1").status is Status.OK
        assert not session.info.is_live


def test_fuel_of_cancelled_steps_counts(evaluator: Evaluator) -> None:
    with evaluator.session(total_fuel=1 << 50) as session:
        for _ in range(2):
            with pytest.raises(DeadlineExceeded):
                session.evaluate("while True: pass", timeout=0.3)
        assert session.info.fuel > 0
