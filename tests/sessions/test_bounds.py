"""What sessions may take together, and how long: in workers, in workspaces, and of time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from wasmeval import Evaluator, Limits, NotFound, Status
from wasmeval.limits import MIB


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=1) as evaluator:
        yield evaluator


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_idle_sessions_take_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rests, and its mirror, counts: those that were left alone longest are put to sleep."""
    with Evaluator(workers=1) as evaluator:
        with evaluator.session() as first:
            first.evaluate("0")
        keeper = evaluator._retained()._keeper
        keeper.settings = replace(keeper.settings, most_live_bytes=256 * MIB)
        (worker,) = evaluator._pool._workers.values()
        before = resident_bytes(worker.process.pid)
        sessions = [evaluator.session() for _ in range(6)]
        for number, session in enumerate(sessions):
            session.evaluate(f"x = b'%d' % {number} * (48 << 20); 0")
        evaluator.evaluate("0")
        assert resident_bytes(worker.process.pid) - before < 384 * MIB
        assert [session.evaluate("x[:1]").value["repr"] for session in sessions] == [
            f"b'{n}'" for n in range(6)
        ]


def test_files_of_many_steps_keep_to_the_workspaces_limits(evaluator: Evaluator) -> None:
    """Workspace.put counts, but never refuses: a session's steps add up."""
    limits = Limits(workspace_bytes=8 * MIB, workspace_files=10)
    with evaluator.session(limits=limits) as session:
        for step in range(3):
            files = {f"{step}-{at}": b"x" * (7 * MIB // 8) for at in range(8)}
            result = session.evaluate("import os; os.listdir()", files=files)
            assert (result.ok, result.rolled_back) == (step == 0, step > 0)
            assert step == 0 or "No space left on device: the files of this step" in result.error.message
        assert session.evaluate("import os; len(os.listdir())").value == 8


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
        time.sleep(1.1)
        assert other.evaluate("1").status is Status.OK
        assert not session.info.is_live
