"""A session's worker dies or hangs: what was stored goes on, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from wasmeval import Evaluator, SessionLost, Status
from wasmeval.pool import core
from wasmeval.pool.process import WorkerProcess


@pytest.fixture
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=1) as evaluator:
        yield evaluator


def worker_of(evaluator: Evaluator) -> WorkerProcess:
    (worker,) = evaluator._pool._workers.values()
    return worker


def test_a_session_goes_on_in_the_next_worker(evaluator: Evaluator) -> None:
    with evaluator.session(durability="step") as session:
        session.evaluate("x = 1")
        os.kill(worker_of(evaluator).process.pid, signal.SIGKILL)
        lost = session.evaluate("x = 2")
        assert (lost.status, lost.rolled_back) == (Status.CRASHED, True)
        assert session.evaluate("x").value == 1


def test_a_worker_that_does_not_tell_a_state_is_replaced(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "STATE_SECONDS", 0.5)
    session = evaluator.session()
    session.evaluate("x = 1")
    os.kill(worker_of(evaluator).process.pid, signal.SIGSTOP)
    with pytest.raises(SessionLost):
        session.hibernate()
    assert evaluator.evaluate("1 + 1").value == 2
    session.close()
