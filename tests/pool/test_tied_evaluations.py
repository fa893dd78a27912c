"""What an evaluation did outside is never done twice: one that called, printed or read is not run again elsewhere."""

from __future__ import annotations

import os
import signal
from collections import deque

import pytest

from tests.pool.conftest import MakePool, python, workers
from wasmeval import Limits, Result, Status, Tool
from wasmeval.grants import Grants
from wasmeval.limits import CEILINGS, DEFAULTS
from wasmeval.model import Job
from wasmeval.pool import BlockingPool
from wasmeval.wasm.calls import Operation, Outcome

LIMITS = Limits(deadline_seconds=60.0).within(DEFAULTS, CEILINGS)
ASLEEP = "import time; time.sleep(60)"
GRANTS = Grants(tools=(Tool("tool"),), live=True, stdin=True)


class Partner:
    """Notes what comes."""

    def __init__(self) -> None:
        self.calls: deque[tuple[int, Operation]] = deque()
        self.text = b""

    def called(self, call: int, operation: Operation, body: bytes) -> None:
        self.calls.append((call, operation))

    def printed(self, stream: int, data: bytes) -> None:
        self.text += data


def lose_the_worker(pool: BlockingPool) -> None:
    (worker,) = workers(pool)
    os.kill(worker.process.pid, signal.SIGKILL)


@pytest.mark.parametrize("code", ["tool()", "print('x', flush=True)\n" + ASLEEP, "input()"])
def test_one_that_had_an_effect_is_not_run_again(make_pool: MakePool, code: str) -> None:
    pool = make_pool(workers=1)
    partner = Partner()
    running = pool.begin(Job("python", code.encode(), b"", LIMITS, GRANTS), lambda _: partner)
    running.wait(lambda: bool(partner.calls or partner.text), 60)
    lose_the_worker(pool)
    running.wait(lambda: False, 60)
    result = running.outcome
    assert isinstance(result, Result)
    assert result.status is Status.CRASHED
    assert result.error is not None
    assert "it was not run again" in result.error.message
    assert len(partner.calls) <= 1
    assert pool.evaluate_many([python("1")])[0].value == 1


def test_one_that_had_none_is_run_again_with_its_files(make_pool: MakePool) -> None:
    pool = make_pool(workers=1)
    partner = Partner()
    # It runs no longer than its first look at the clock, and waits there for the kill.
    code = "import time\nif not open('again').read():\n    pass\ntime.sleep(0.5)\ntool(open('again').read())"
    grants = Grants(files={"again": b"kept"}, tools=(Tool("tool"),))
    running = pool.begin(Job("python", code.encode(), b"", LIMITS, grants), lambda _: partner)
    running.wait(lambda: pool.stats().running == 1, 60)
    lose_the_worker(pool)
    running.wait(lambda: bool(partner.calls), 60)
    assert running.outcome is None
    ((call, operation),) = partner.calls
    assert operation is Operation.CALL
    running.answer(call, Outcome.DONE, b'"answered"')
    running.wait(lambda: False, 60)
    assert isinstance(running.outcome, Result)
    assert running.outcome.value == "answered"
    assert pool.stats().restarts == 1


def test_input_that_waited_for_a_worker_arrives(make_pool: MakePool) -> None:
    pool = make_pool(workers=1, concurrency=1)
    first = pool.begin(Job("python", b"input()", b"", LIMITS, GRANTS), lambda _: Partner())
    second = pool.begin(Job("python", b"input() + input()", b"", LIMITS, GRANTS), lambda _: Partner())
    assert pool.stats().queued == 1
    second.feed(b"a\nb", False)
    second.feed(b"\n", True)
    first.feed(b"x\n", True)
    for running, value in ((first, "x"), (second, "ab")):
        running.wait(lambda: False, 60)
        assert isinstance(running.outcome, Result)
        assert running.outcome.value == value


def test_stopping_gives_a_result_wherever_it_is(make_pool: MakePool) -> None:
    pool = make_pool(workers=1, concurrency=1)
    job = Job("python", ("print('on')\n" + ASLEEP).encode(), b"", LIMITS, GRANTS)
    partner = Partner()
    runs, waits = pool.begin(job, lambda _: partner), pool.begin(job, lambda _: Partner())
    runs.wait(lambda: bool(partner.text), 60)
    for running, printed in ((waits, ""), (runs, "on\n")):
        running.stop()
        running.wait(lambda: False, 60)
        assert isinstance(running.outcome, Result)
        assert (running.outcome.status, running.outcome.stdout) == (Status.CANCELLED, printed)
        running.stop()
    assert pool.stats().running == pool.stats().queued == 0
