"""Sessions of an embedded evaluator: turns, forks, checkpoints, sleep, limits in total, ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.sessions.conftest import MakeSession
from wasmeval import (
    DeadlineExceeded,
    Evaluator,
    FailedPrecondition,
    InvalidArgument,
    Limits,
    ResourceExhausted,
    Status,
)
from wasmeval.errors import NotFound, SessionLost, SnapshotRefused
from wasmeval.stores import Store, open_store

KEY = b"k" * 32


def test_steps_run_one_at_a_time_in_the_order_they_came(begin: MakeSession) -> None:
    session = begin("python")
    session.evaluate("import time; seen = []")
    with ThreadPoolExecutor(8) as executor:
        calls = []
        for number in range(8):
            calls.append(executor.submit(session.evaluate, f"time.sleep(0.05); seen.append({number})"))
            time.sleep(0.01)
        assert all(call.result(30).ok for call in calls)
    assert session.evaluate("seen").value == list(range(8))


def test_a_step_may_refuse_to_wait(begin: MakeSession) -> None:
    session = begin("python")
    session.evaluate("x = 1")
    running = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        first = executor.submit(
            session.evaluate,
            "import time; print('on', flush=True); time.sleep(1); x",
            on_output=lambda *_: running.set(),
        )
        assert running.wait(30)
        with pytest.raises(ResourceExhausted, match="a step of this session is running"):
            session.evaluate("x", wait=False)
        assert first.result(30).value == 1
    assert session.evaluate("x", wait=False).value == 1


def test_a_time_out_covers_the_wait_for_the_turn(begin: MakeSession) -> None:
    session = begin("python")
    called, answered = threading.Event(), threading.Event()

    def ask() -> int:
        called.set()
        return answered.wait(30)

    with ThreadPoolExecutor(1) as executor:
        first = executor.submit(session.evaluate, "x = ask(); x", tools={"ask": ask})
        assert called.wait(30)
        with pytest.raises(DeadlineExceeded, match=r"the time-out of 0\.1 s passed"):
            session.evaluate("x = 'late'", timeout=0.1)
        assert not first.done()
        answered.set()
        assert first.result(30).value is True
    assert session.evaluate("x").value is True


def test_forks_go_their_own_ways(begin: MakeSession) -> None:
    session = begin("python")
    session.evaluate("x = [0]; open('f', 'w').write('0')")
    forks = [session.fork() for _ in range(5)]
    for number, fork in enumerate(forks, 1):
        fork.evaluate(f"x.append({number}); open('f', 'a').write('{number}')")
    assert [fork.evaluate("[x, open('f').read()]").value for fork in forks] == [
        [[0, n], f"0{n}"] for n in range(1, 6)
    ]
    assert session.evaluate("[x, open('f').read()]").value == [[0], "0"]
    assert len({session.id, *(fork.id for fork in forks)}) == 6
    for fork in forks:
        fork.close()


@pytest.mark.parametrize(
    ("language", "before", "draw"),
    [
        (
            "python",
            "import random, uuid, secrets; r = random.Random(); random.random(); r.random()",
            "[random.random(), r.random(), random.gauss(0, 1), str(uuid.uuid4()), secrets.token_hex()]",
        ),
        ("javascript", "Math.random()", "[Math.random(), crypto.randomUUID()]"),
    ],
)
def test_a_forked_pair_does_not_draw_the_same_numbers(
    begin: MakeSession, language: str, before: str, draw: str
) -> None:
    session = begin(language)
    assert session.evaluate(before).ok
    fork = session.fork()
    mine, its = session.evaluate(draw).value, fork.evaluate(draw).value
    session.hibernate()
    again = session.evaluate(draw).value
    for drawn in zip(mine, its, again, strict=True):
        assert len(set(drawn)) == 3
    fork.close()


def test_a_rolled_back_step_does_not_draw_the_same_numbers_again(begin: MakeSession) -> None:
    session = begin("python")
    session.evaluate("import random; random.random()")
    bad = session.evaluate("print(random.random())\nwhile True: pass", limits=Limits(fuel=50_000_000))
    assert bad.rolled_back
    assert session.evaluate("random.random()").value != float(bad.stdout)


def test_a_session_wakes_at_the_right_time(begin: MakeSession) -> None:
    session = begin("python")
    before = session.evaluate("import time; m = time.monotonic(); time.time()").value
    session.hibernate()
    time.sleep(0.3)
    now, passed = session.evaluate("[time.time(), time.monotonic() - m]").value
    assert now - before >= 0.3
    assert passed >= 0.3


def test_going_back_and_forth(begin: MakeSession) -> None:
    session = begin("python")
    marks = []
    for number in range(4):
        session.evaluate(f"x = {number}; open('f', 'w').write('{number}')")
        marks.append(session.checkpoint())
    assert [mark.step for mark in marks] == [1, 2, 3, 4]
    assert list(session.checkpoints) == marks
    for number in (2, 0, 3, 1):
        session.restore(marks[number] if number % 2 else marks[number].id)
        assert session.evaluate("[x, open('f').read()]").value == [number, str(number)]
    with pytest.raises(NotFound, match="no checkpoint 'nothing'"):
        session.restore("nothing")
    assert session.evaluate("x").value == 1


def test_a_checkpoint_outlives_what_is_stored_after_it(store: Store) -> None:
    with Evaluator(workers=1, store=store, snapshot_key=KEY) as evaluator:
        session = evaluator.session("python", durability="step")
        session.evaluate("x = 1")
        mark = session.checkpoint()
        blobs = len(list(store.blobs()))
        for number in range(3):
            session.restore(mark)
            if number:
                kill_workers(evaluator)
            assert session.evaluate("x += 1; x").value == 2
            assert session.evaluate("x += 1; x").value == 3
            assert len(list(store.blobs())) == blobs
        session.restore(mark)
        session.close()
    assert list(store.blobs()) == []


def test_the_last_checkpoint_is_gone_back_to_without_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    get_blob = store.get_blob
    monkeypatch.setattr(store, "get_blob", lambda key: (asked.append(key), get_blob(key))[1])
    with Evaluator(workers=1, store=store, snapshot_key=KEY) as evaluator:
        session = evaluator.session("python")
        session.evaluate("x = [0]; f = open('f', 'w'); import random")
        first = session.checkpoint()
        session.evaluate("x.append(1); f.write('one'); f.flush()")
        last = session.checkpoint()
        drawn = []
        for number in range(3):
            session.evaluate("x.append(2); f.write('two'); f.flush()")
            ended = session.evaluate("x.append(3); 0 / 0" if number else "import os; os._exit(1)")
            assert ended.rolled_back is not bool(number)
            session.restore(last)
            assert session.evaluate("[x, open('f').read()]").value == [[0, 1], "one"]
            drawn.append(session.evaluate("random.random()").value)
        assert asked == []
        assert len({*drawn}) == 3
        session.restore(first)
        assert session.evaluate("[x, open('f').read()]").value == [[0], ""]
        assert len(asked) == 1


def test_a_checkpoint_before_the_first_step_is_a_new_session(begin: MakeSession) -> None:
    session = begin("python")
    mark = session.checkpoint()
    session.evaluate("x = 1")
    session.restore(mark)
    assert session.evaluate("'x' in globals()").value is False


def test_what_all_steps_spend_is_bounded(begin: MakeSession) -> None:
    session = begin("python", total_fuel=300_000_000)
    assert session.evaluate("x = 1").ok
    ended = session.evaluate("while True: pass")
    assert (ended.status, ended.rolled_back) == (Status.FUEL_EXHAUSTED, True)
    assert (ended.limits.fuel or 0) < 300_000_000
    with pytest.raises(FailedPrecondition, match=r"has spent its total_fuel \(300000000\)"):
        session.evaluate("x")


def test_a_closed_session_is_gone(evaluator: Evaluator) -> None:
    with evaluator.session() as session:
        session.evaluate("x = 1")
        session.checkpoint()
    with pytest.raises(FailedPrecondition, match="the session is closed"):
        session.evaluate("x")
    with pytest.raises(NotFound, match=f"no session {session.id}"):
        evaluator.attach(session.id)
    session.close()


def test_ids_cannot_be_guessed_or_misused(evaluator: Evaluator) -> None:
    with evaluator.session() as session:
        assert len(session.id) == 32
        for wrong in ("", "../x", session.id.upper(), session.id + "a", "é" * 32):
            with pytest.raises(InvalidArgument, match="not the id of a session"):
                evaluator.attach(wrong)
        with pytest.raises(NotFound):
            evaluator.attach("a" * 32)
        assert evaluator.attach(session.id).evaluate("1").value == 1


def test_tools_files_and_input_are_each_steps_own(begin: MakeSession) -> None:
    session = begin("python")
    result = session.evaluate(
        "y = double(n); print(input()); y",
        inputs={"n": 21},
        tools={"double": lambda n: 2 * n},
        stdin="one\ntwo\n",
    )
    assert (result.value, result.stdout) == (42, "one\n")
    assert session.evaluate("[y, n]").value == [42, 21]
    late = session.evaluate("double(1)")
    assert late.status is Status.ERROR
    assert session.evaluate("open('in').read()", files={"in": b"a"}).value == "a"
    result = session.evaluate(
        "open('out', 'w').write('b'); open('in').read()", files={"in": b"c"}, outputs=["*"]
    )
    assert (result.value, {name: file.data for name, file in result.files.items()}) == (
        "c",
        {"in": b"c", "out": b"b"},
    )
    assert session.evaluate("open('out').read()", outputs=["nothing"]).value == "b"


def test_what_was_open_in_a_mounted_folder_is_closed_by_the_next_step(
    begin: MakeSession, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("outside")
    session = begin("python")
    assert session.evaluate("f = open('/mnt/data/f'); f.read(3)", mounts={"data": tmp_path}).value == "out"
    late = session.evaluate("f.seek(0); f.read()")
    assert late.status is Status.ERROR
    assert session.evaluate("open('own', 'w').write('x'); open('own').read()").value == "x"
    assert session.evaluate("import os; os.path.exists('/mnt/data/f')").value is False
    assert session.evaluate("open('/mnt/data/f').read()", mounts={"data": tmp_path}).value == "outside"


# Stores.


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"dir:{tmp_path}/store")


def test_a_sleeping_session_wakes_in_another_process_than_it_was_begun_in(store: Store) -> None:
    with Evaluator(workers=1, store=store, snapshot_key=KEY) as first:
        session = first.session("python")
        session.evaluate("x = [1, 2]; f = open('f', 'w+'); f.write('there'); f.flush()")
        mark = session.checkpoint()
        session.evaluate("x.append(3)")
        session.hibernate()
    with Evaluator(workers=1, store=store, snapshot_key=KEY) as second:
        session = second.attach(session.id)
        assert not session.info.is_live
        assert session.evaluate("f.seek(0); [x, f.read()]").value == [[1, 2, 3], "there"]
        session.restore(mark)
        assert session.evaluate("x").value == [1, 2]
        session.close()
    assert list(store.keys()) == []
    assert list(store.blobs()) == []


def test_with_durability_step_every_answered_step_survives_its_worker(store: Store) -> None:
    with Evaluator(workers=1, store=store, snapshot_key=KEY) as evaluator:
        session = evaluator.session("python", durability="step")
        for number in range(5):
            assert session.evaluate(f"x = {number}").ok
            kill_workers(evaluator)
            assert session.evaluate("x").value == number
        assert len(list(store.blobs())) == 1


def test_without_it_what_was_not_stored_is_lost_and_said_to_be(evaluator: Evaluator) -> None:
    with evaluator.session("python") as session:
        session.evaluate("x = 1")
        mark = session.checkpoint()
        session.evaluate("x = 2")
        kill_workers(evaluator)
        for _ in range(2):
            with pytest.raises(SessionLost, match="died after step 2, and it was last stored after step 0"):
                session.evaluate("x")
        session.restore(mark)
        assert session.evaluate("x").value == 1


def test_a_snapshot_of_another_key_is_refused(store: Store) -> None:
    with Evaluator(workers=1, store=store, snapshot_key=KEY) as evaluator:
        session = evaluator.session("python")
        session.evaluate("x = 1")
        session.hibernate()
    with Evaluator(workers=1, store=store, snapshot_key=b"another key of the operator") as evaluator:
        with pytest.raises(SnapshotRefused, match="seal is wrong"):
            evaluator.attach(session.id).evaluate("x")
        assert evaluator.evaluate("1").value == 1


def test_more_sessions_than_may_be_live_put_the_oldest_to_sleep(
    begin: MakeSession, evaluator: Evaluator
) -> None:
    from dataclasses import replace

    keeper = evaluator._retained()._keeper
    usual = keeper.settings
    keeper.settings = replace(usual, most_live=3)
    try:
        sessions = [begin("javascript") for _ in range(8)]
        for number, session in enumerate(sessions):
            session.evaluate(f"var x = {number}")
        assert [session.info.is_live for session in sessions] == [False] * 5 + [True] * 3
        assert [session.evaluate("x").value for session in sessions] == list(range(8))
    finally:
        keeper.settings = usual


def kill_workers(evaluator: Evaluator) -> None:
    """Kill -9, and wait until the pool knows."""
    pool = evaluator._pool._pool
    assert pool is not None
    before = pool.stats().restarts
    workers = list(pool._workers)
    for worker in workers:
        os.kill(worker.process.pid, signal.SIGKILL)
    while pool.stats().restarts < before + len(workers):
        evaluator.evaluate("1")
