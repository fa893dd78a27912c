"""A step that ends badly leaves the session as it was before it, and says so; one that raises leaves what it did."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sessions.conftest import MakeSession
from wasmeval import DeadlineExceeded, Evaluator, FailedPrecondition, Limits, Status
from wasmeval.limits import MIB
from wasmeval.pool.core import Pool
from wasmeval.pool.ticket import Ticket

BAD_PYTHON = {
    Status.FUEL_EXHAUSTED: ("while True: pass", Limits(fuel=50_000_000)),
    Status.DEADLINE_EXCEEDED: ("import time; time.sleep(60)", Limits(deadline_seconds=0.2)),
    Status.MEMORY_EXCEEDED: ("y = 'x' * 200_000_000", Limits(memory_bytes=64 * MIB)),
}
BAD_JAVASCRIPT = {
    Status.FUEL_EXHAUSTED: ("for (;;);", Limits(fuel=50_000_000)),
    Status.DEADLINE_EXCEEDED: ("await new Promise(r => setTimeout(r, 60000))", Limits(deadline_seconds=0.2)),
    Status.MEMORY_EXCEEDED: (
        "const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))",
        Limits(memory_bytes=32 * MIB),
    ),
}


@pytest.mark.parametrize("status", BAD_PYTHON)
def test_a_bad_step_of_python_leaves_no_trace(begin: MakeSession, status: Status) -> None:
    session = begin("python")
    session.evaluate("import pathlib; x = [1]; f = open('a', 'w+'); f.write('one'); f.flush()")
    code, limits = BAD_PYTHON[status]
    for _ in range(2):
        bad = session.evaluate(
            f"x.append(2); f.write('two'); f.flush(); open('b', 'w').close()\n{code}", limits=limits
        )
        assert (bad.status, bad.rolled_back) == (status, True)
        after = session.evaluate("[x, pathlib.Path('a').read_text(), pathlib.Path('b').exists(), f.tell()]")
        assert (after.value, after.rolled_back) == ([[1], "one", False, 3], False)
    assert session.info.steps == 3


@pytest.mark.parametrize("status", BAD_JAVASCRIPT)
def test_a_bad_step_of_javascript_leaves_no_trace(begin: MakeSession, status: Status) -> None:
    session = begin("javascript")
    session.evaluate("const fs = require('fs'); let x = [1]; fs.writeFileSync('a', 'one')")
    code, limits = BAD_JAVASCRIPT[status]
    for _ in range(2):
        bad = session.evaluate(f"x.push(2); fs.writeFileSync('a', 'two'); {{ {code} }}", limits=limits)
        assert (bad.status, bad.rolled_back) == (status, True)
        assert session.evaluate("[x, fs.readFileSync('a', 'utf8')]").value == [[1], "one"]


def test_a_step_that_ends_its_interpreter_is_rolled_back(begin: MakeSession) -> None:
    session = begin("python")
    session.evaluate("import os; x = 1")
    ended = session.evaluate("x = 2; os._exit(3)")
    assert (ended.status, ended.rolled_back) == (Status.ERROR, True)
    assert session.evaluate("x").value == 1


def test_a_first_step_that_ends_badly_leaves_a_session_that_has_not_begun(begin: MakeSession) -> None:
    session = begin("python")
    assert session.evaluate("x = 1\nwhile True: pass", limits=Limits(fuel=50_000_000)).rolled_back
    assert session.evaluate("'x' in globals()").value is False
    assert session.info.steps == 1


def test_a_step_that_raises_leaves_what_it_did(begin: MakeSession) -> None:
    session = begin("python")
    raised = session.evaluate("x = 1\nraise ValueError('no')")
    assert (raised.status, raised.rolled_back) == (Status.ERROR, False)
    assert session.evaluate("x").value == 1
    ended = session.evaluate("x = 2\nimport sys; sys.exit(3)")
    assert (ended.status, ended.rolled_back) == (Status.ERROR, False)
    assert session.evaluate("x").value == 2


def test_a_value_that_is_too_large_leaves_what_the_step_did(begin: MakeSession) -> None:
    session = begin("python")
    result = session.evaluate("x = 'a' * 1000", limits=Limits(output_bytes=100))
    assert (result.status, result.rolled_back) == (Status.OUTPUT_EXCEEDED, False)
    assert session.evaluate("len(x)").value == 1000


def test_a_step_that_is_given_up_is_rolled_back(begin: MakeSession) -> None:
    session = begin("python")
    session.evaluate("x = 1")
    with pytest.raises(DeadlineExceeded):
        session.evaluate("x = 2\nimport time; time.sleep(60)", timeout=0.3)
    assert session.evaluate("x").value == 1


MUCH_FUEL = 10_000_000
"""Less than a loop spends until its caller gives it up, and more than all else in these tests."""


def test_a_step_that_is_given_up_has_spent_its_fuel(begin: MakeSession) -> None:
    session = begin("python")
    session.evaluate("x = 1")
    spent = session.info.fuel
    assert spent < MUCH_FUEL
    for more in ({}, {"on_output": print}):
        with pytest.raises(DeadlineExceeded):
            session.evaluate("while True: pass", timeout=0.3, **more)  # type: ignore[arg-type]
        assert session.evaluate("x").value == 1
        assert session.info.fuel - spent > MUCH_FUEL
        spent = session.info.fuel
    # Nor is it forgotten when the session sleeps at once.
    session.hibernate()
    session.evaluate("x")
    session.hibernate()
    assert session.evaluate("x").value == 1
    spent = session.info.fuel
    with pytest.raises(DeadlineExceeded):
        session.evaluate("while True: pass", timeout=0.3)
    session.hibernate()
    assert session.info.fuel - spent > MUCH_FUEL
    assert session.evaluate("x").value == 1
    assert session.info.fuel - spent > MUCH_FUEL


def test_who_gives_up_every_step_comes_to_the_end_of_its_fuel(begin: MakeSession) -> None:
    session = begin("python", total_fuel=1_000_000_000)
    session.evaluate("x = 1")

    def give_up() -> None:
        for _ in range(20):
            with contextlib.suppress(DeadlineExceeded):
                session.evaluate("import time; n = 100_000\nwhile n: n -= 1\ntime.sleep(60)", timeout=0.3)

    with pytest.raises(FailedPrecondition, match="has spent its total_fuel"):
        give_up()


def test_memory_is_the_sessions_own_limit_too(begin: MakeSession) -> None:
    session = begin("python", limits=Limits(memory_bytes=64 * MIB))
    result = session.evaluate("x = 'x' * 100_000_000", limits=Limits(memory_bytes=512 * MIB))
    assert (result.status, result.limits.memory_bytes) == (Status.MEMORY_EXCEEDED, 64 * MIB)


def test_other_sessions_of_the_worker_are_untouched(begin: MakeSession) -> None:
    sessions = [begin("python") for _ in range(6)]
    for number, session in enumerate(sessions):
        session.evaluate(f"x = {number}")
    stop = threading.Event()

    def spoil() -> None:
        while not stop.is_set():
            assert (
                sessions[0]
                .evaluate("x = 'bad'\nwhile True: pass", limits=Limits(fuel=20_000_000))
                .rolled_back
            )

    spoiler = threading.Thread(target=spoil)
    spoiler.start()
    end = time.monotonic() + 1
    while time.monotonic() < end:
        assert [session.evaluate("x").value for session in sessions[1:]] == [1, 2, 3, 4, 5]
    stop.set()
    spoiler.join(30)
    assert sessions[0].evaluate("x").value == 0


def test_an_unlinked_file_that_was_closed_takes_no_room_in_a_copy(begin: MakeSession) -> None:
    session = begin("python", limits=Limits(workspace_bytes=4 * MIB))
    session.evaluate("import os; f = open('a', 'w+b'); f.write(b'x' * 3_000_000); f.flush(); os.unlink('a')")
    session.evaluate("f.close()")
    fork = session.fork()
    assert session.evaluate("while True: pass", limits=Limits(fuel=50_000_000)).rolled_back
    for each in (session, fork):
        assert each.evaluate("open('b', 'wb').write(b'x' * 3_000_000)").value == 3_000_000
    fork.close()


def test_a_step_that_is_stopped_while_its_files_are_sent_leaves_no_trace(
    begin: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin("python", limits=Limits(workspace_bytes=64 * MIB))
    session.evaluate("x = 1")
    keep_file = Pool._keep_file

    def stop_at_once(pool: Pool, ticket: Ticket, path: str, data: bytes) -> None:
        keep_file(pool, ticket, path, data)
        pool.stop(ticket)

    with monkeypatch.context() as patched:
        patched.setattr(Pool, "_keep_file", stop_at_once)
        stopped = session.evaluate("x = 2; open('f', 'wb').truncate(60_000_000); 0", outputs=["f"])
    assert (stopped.status, stopped.rolled_back) == (Status.CANCELLED, True)
    after = session.evaluate("import os; [x, os.listdir()]", outputs=["*"])
    assert (after.value, session.info.steps) == ([1, []], 2)


def test_a_step_that_its_evaluators_end_cuts_off_is_rolled_back() -> None:
    evaluator = Evaluator(workers=1)
    session = evaluator.session()
    with ThreadPoolExecutor(1) as threads:
        sleeping = threads.submit(session.evaluate, "import time; time.sleep(5)")
        while not evaluator._pool.stats().running:
            time.sleep(0.01)
        evaluator.close()
        assert (sleeping.result().status, sleeping.result().rolled_back) == (Status.CANCELLED, True)


def test_a_session_that_cannot_go_on_is_stored_over_by_nothing(evaluator: Evaluator) -> None:
    session = evaluator.session(durability="step")
    session.evaluate("x = 1")
    session.hibernate()
    live = session._held.live
    # As if its own worker had lied, or another version had written it.
    nonsense = b"no state at all, and long enough to have a header"
    live.place = evaluator._pool.open_session("python", [nonsense])
    broken = session.evaluate("x")
    assert (broken.status, broken.rolled_back) == (Status.CRASHED, True)
    session.hibernate()
    assert session.evaluate("x").value == 1
    session.close()
