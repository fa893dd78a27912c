"""Deterministic sessions: the same steps leave the same state, whatever happens in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from wasmeval import (
    Deterministic,
    EmbeddedSession,
    Evaluator,
    InvalidArgument,
    Limits,
    Recording,
    Result,
    Status,
    open_store,
)
from wasmeval.session import SessionOptions
from wasmeval.sessions.record import Course, SessionRecord, decode

STEPS = [
    "import random, time, os\nseen = [random.random(), time.time()]\nopen('a.txt', 'w').write(str(seen))",
    "class C: pass\nthings = {C(): os.urandom(3) for _ in range(20)}\nseen.append(time.monotonic())",
    "raise ValueError(random.random())",
    "time.sleep(2)\nseen += [os.stat('a.txt').st_mtime, random.gauss(0, 1), hash(C())]\nseen",
    "big = list(range(300_000))\nseen.append(sum(map(id, things)) % 1009)\nseen",
]
SCRIPT = [
    "const seen = [Math.random(), Date.now()]; seen",
    "const kept = new Map([[{}, crypto.randomUUID()]]); kept.size",
    "seen.push(Math.random(), performance.now()); [seen, [...kept.values()]]",
]
KEY = b"k" * 32


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=2, snapshot_key=KEY) as evaluator:
        yield evaluator


def payload(result: Result) -> bytes:
    assert result.receipt, (result.status, result.error, result.unrepeatable)
    return result.receipt.payload


@pytest.mark.parametrize(("language", "steps"), [("python", STEPS), ("javascript", SCRIPT)])
def test_the_same_steps_leave_the_same_state(evaluator: Evaluator, language: str, steps: list[str]) -> None:
    def undisturbed(session: EmbeddedSession) -> None:
        pass

    def asleep(session: EmbeddedSession) -> None:
        session.hibernate()

    def rolled_back(session: EmbeddedSession) -> None:
        endless = "for (;;) Math.random()" if language == "javascript" else "while True: random.random()"
        if language == "python":
            endless = "import random\n" + endless
        assert session.evaluate(endless, limits=Limits(fuel=3_000_000)).rolled_back

    def looked_at(session: EmbeddedSession) -> None:
        session.checkpoint()

    told = []
    for disturb in (undisturbed, asleep, rolled_back, looked_at):
        with evaluator.session(language, deterministic=True) as session:
            receipts = []
            for code in steps:
                receipts.append(payload(session.evaluate(code)))
                disturb(session)
            told.append((receipts, session.checkpoint().digest))
    assert all(each == told[0] for each in told)
    assert len(told[0][1]) == 64


def test_a_killed_worker_changes_nothing(tmp_path: Path) -> None:
    digests = []
    for kills in (False, True):
        store = open_store(f"dir:{tmp_path / str(kills)}")
        with (
            store,
            Evaluator(workers=1, store=store, snapshot_key=KEY) as evaluator,
            evaluator.session(deterministic=Deterministic(3), durability="step") as session,
        ):
            receipts = []
            for code in STEPS:
                while (result := session.evaluate(code)).status is Status.CRASHED:
                    # It was sent to a worker whose death nobody had noticed.
                    assert result.rolled_back
                receipts.append(payload(result))
                if kills:
                    (worker,) = evaluator._pool._pool._workers
                    os.kill(worker.process.pid, signal.SIGKILL)
                    worker.process.wait()
            digests.append((receipts, session.checkpoint().digest))
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    "steps",
    [
        # A number that was given to no file.
        [
            "import os; open('a', 'w').close()",
            "try: open('/no', 'w')\nexcept OSError: pass",
            "open('b', 'w').close(); os.stat('b').st_ino",
        ],
        # A file that is cut where a chunk ends, and grows again.
        [
            "f = open('b', 'wb+'); f.write(b'x' * 600_000); f.truncate(262_144 * 2); f.flush()",
            "f.truncate(550_000); f.seek(0, 2)",
        ],
    ],
)
def test_files_are_the_same_after_sleep(evaluator: Evaluator, steps: list[str]) -> None:
    told = []
    for sleeps in (False, True):
        with evaluator.session(deterministic=True) as session:
            receipts = []
            for code in steps:
                receipts.append(payload(session.evaluate(code)))
                if sleeps:
                    session.hibernate()
            told.append((receipts, session.checkpoint().digest))
    assert told[0] == told[1]


def test_its_clock_stands_still_between_steps(evaluator: Evaluator) -> None:
    with evaluator.session(deterministic=Deterministic(start_time=1e9)) as session:
        session.evaluate("import time")
        first = session.evaluate("time.sleep(1); time.time()")
        second = session.evaluate("time.time()")
        monotonic = session.evaluate("time.monotonic()")
    assert 1e9 + 1 <= first.value < second.value < 1e9 + 1.01
    assert 2 < monotonic.value < 2.01


def test_going_back_goes_back_in_time(evaluator: Evaluator) -> None:
    code = "import random, time, os\n(random.random(), os.urandom(4).hex(), time.time())"
    with evaluator.session(deterministic=True) as session:
        session.evaluate("x = 1")
        before = session.checkpoint()
        first = session.evaluate(code)
        after = session.checkpoint()
        session.restore(before)
        again = session.evaluate(code)
        assert session.checkpoint().digest == after.digest != before.digest
    assert payload(first) == payload(again)


def test_forks_differ_and_each_is_the_same_again(evaluator: Evaluator) -> None:
    def forks() -> list[object]:
        drawn: list[object] = []
        with evaluator.session(deterministic=True) as session:
            session.evaluate("import random; random.random()")
            for _ in range(2):
                with session.fork() as fork, fork.fork() as grandchild:
                    fork.hibernate()
                    drawn.append(fork.evaluate("random.random()").value)
                    drawn.append(grandchild.evaluate("random.random()").value)
                    receipt = fork.evaluate("1").receipt
                    assert receipt
                    assert receipt.forked
            drawn.append(session.evaluate("random.random()").value)
        return drawn

    first = forks()
    assert len(set(map(str, first))) == 5
    assert forks() == first


def test_receipts_are_a_chain(evaluator: Evaluator) -> None:
    with evaluator.session(deterministic=True) as session:
        results = [session.evaluate(code) for code in ("x = 1", "1 / 0", "x")]
        bad = session.evaluate("while True: pass", limits=Limits(fuel=1_000_000))
        last = session.evaluate("x")
    previous = ""
    for number, result in enumerate([*results, last], 1):
        assert result.receipt
        assert (result.receipt.step, result.receipt.previous) == (number, previous)
        previous = result.receipt.digest
    # It has not happened; what it was is known all the same.
    assert bad.receipt
    assert bad.receipt.previous == results[-1].receipt.digest  # type: ignore[union-attr]
    assert bad.receipt.step == last.receipt.step  # type: ignore[union-attr]


@pytest.fixture
def recordings(evaluator: Evaluator) -> list[Recording]:
    answers = iter(range(10, 20))
    with evaluator.session(deterministic=Deterministic(5, 1e9)) as session:
        results = [
            session.evaluate("import random, time\nxs = [random.random(), time.time()]"),
            session.evaluate("xs.append(ask())", tools={"ask": lambda: next(answers)}),
            session.evaluate("xs.append(input())", stdin="typed"),
            session.evaluate("xs + [random.random()]", inputs={"y": 1}),
        ]
    assert results[-1].value[2:4] == [10, "typed"]
    return [result.recording for result in results if result.recording]


def test_a_session_is_replayed_step_by_step(evaluator: Evaluator, recordings: list[Recording]) -> None:
    replay = evaluator.replay(*recordings)
    assert (replay.differences, replay.is_sealed) == ((), True)
    assert evaluator.replay(*recordings[:2]).is_same
    assert replay.result.receipt
    assert replay.result.receipt.seal == ""
    changed = replace(
        recordings[2],
        request=recordings[2].request._replace(code="xs.append(input().upper())"),
    )
    assert (
        evaluator.replay(*recordings[:2], changed, recordings[3]).differences[0].startswith("step 3: code: ")
    )


@pytest.mark.parametrize("order", [[1], [1, 0], [0, 2], [0, 0], [0, 1, 3]])
def test_steps_out_of_order_are_refused(
    evaluator: Evaluator, recordings: list[Recording], order: list[int]
) -> None:
    with pytest.raises(InvalidArgument, match="recordings"):
        evaluator.replay(*[recordings[index] for index in order])


def test_a_fork_is_not_replayed_by_itself(evaluator: Evaluator) -> None:
    with evaluator.session(deterministic=True) as session, session.fork() as fork:
        recording = fork.evaluate("1").recording
    assert recording
    with pytest.raises(InvalidArgument, match="fork"):
        evaluator.replay(recording)


def test_a_step_of_another_session_is_none_of_its_own(evaluator: Evaluator) -> None:
    with evaluator.session(deterministic=True) as session:
        result = session.evaluate("x = 1")
        assert result.status is Status.OK
        assert session.info.options.deterministic == Deterministic()
    with pytest.raises(InvalidArgument, match="transcript"):
        evaluator.session(deterministic=Deterministic(transcript=b""))
    with evaluator.session() as session:
        assert session.evaluate("1").receipt is None
        assert session.checkpoint().digest == ""


def test_records_are_read_as_they_were_written() -> None:
    plain = SessionRecord("a" * 32, "", "python", "python", "00", SessionOptions(), 1.0, 2.0)
    # As a version wrote and reads it that knew nothing of this.
    told = json.loads(plain.encode())
    assert "course" not in told
    assert "deterministic" not in told["options"]
    assert decode(plain.encode()) == plain
    course = Course.begin(7).advanced(5, "ab").marked("1-ff").forked(3)[0]
    fixed = replace(plain, options=SessionOptions(deterministic=Deterministic(7)), course=course)
    assert decode(fixed.encode()) == fixed
    assert course.back("1-ff").elapsed_ns == 5


def test_a_session_is_the_same_in_another_process(evaluator: Evaluator, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import wasmeval\n"
        f"steps = {STEPS!r}\n"
        "with wasmeval.Evaluator(workers=1) as e, e.session(deterministic=True) as s:\n"
        "    for code in steps: s.evaluate(code)\n"
        "    print(s.checkpoint().digest)\n"
    )
    import sys

    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    with evaluator.session(deterministic=True) as session:
        for code in STEPS:
            session.evaluate(code)
        assert session.checkpoint().digest == done.stdout.strip()
