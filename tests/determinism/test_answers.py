"""Answers that were given before are given again, and no other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wasmeval import Deterministic, Evaluation, Evaluator, Limits, Status, StoreUnavailable, open_store
from wasmeval.answers import Answers
from wasmeval.model import Job, Result
from wasmeval.receipts import Notary
from wasmeval.sessions import Sealer
from wasmeval.stores import Store
from wasmeval.worker import frames

KEY = b"k" * 32
CODE = "import random\n(random.random(), x)"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"dir:{tmp_path / 'store'}") as store:
        yield store


@pytest.fixture
def evaluator(store: Store) -> Iterator[Evaluator]:
    with Evaluator(workers=1, store=store, snapshot_key=KEY) as evaluator:
        yield evaluator


def ask(evaluator: Evaluator, **changed: Any) -> Result:
    asked = {"code": CODE, "inputs": {"x": 1}, "deterministic": True, "cache": True, **changed}
    return evaluator.evaluate(**asked)


def test_the_second_time_it_is_known(evaluator: Evaluator, store: Store) -> None:
    first = ask(evaluator, files={"a": b"1"}, outputs=["a"])
    second = ask(evaluator, files={"a": b"1"}, outputs=["a"])
    assert (first.cached, second.cached) == (False, True)
    assert replace(second, cached=False) == first
    assert second.recording
    assert evaluator.replay(second.recording).is_same
    # Another process with the same store and key knows it too.
    with Evaluator(workers=1, store=store, snapshot_key=KEY) as other:
        assert ask(other, files={"a": b"1"}, outputs=["a"]).cached


@pytest.mark.parametrize(
    "changed",
    [
        {"code": CODE + " "},
        {"inputs": {"x": 2}},
        {"inputs": {"x": 1, "y": 1}},
        {"deterministic": Deterministic(1)},
        {"deterministic": Deterministic(start_time=1e9)},
        {"limits": Limits(fuel=10**10)},
        {"files": {"a": b"1"}},
        {"outputs": ["a"]},
        {"code": "[Math.random(), x]", "language": "javascript"},
    ],
)
def test_another_question_has_another_answer(evaluator: Evaluator, changed: dict[str, Any]) -> None:
    ask(evaluator)
    assert not ask(evaluator, **changed).cached
    assert ask(evaluator).cached
    assert ask(evaluator, **changed).cached


def test_failures_of_the_snippet_are_answers_and_others_are_not(evaluator: Evaluator) -> None:
    for code, status in (("1 / 0", Status.ERROR), ("while True: pass", Status.FUEL_EXHAUSTED)):
        limits = Limits(fuel=5_000_000)
        results = [ask(evaluator, code=code, limits=limits) for _ in range(2)]
        assert [(result.status, result.cached) for result in results] == [(status, False), (status, True)]
    limits = Limits(fuel=10**12, deadline_seconds=0.1)
    assert not any(ask(evaluator, code="while True: pass", limits=limits).cached for _ in range(2))


def test_a_batch_runs_what_is_not_known(evaluator: Evaluator) -> None:
    asked = [Evaluation(CODE, inputs={"x": x}, deterministic=True, cache=True) for x in range(3)]
    evaluator.evaluate_batch(asked[1:2])
    plain = Evaluation("5")
    results = evaluator.evaluate_batch([*asked, plain])
    assert [result.cached for result in results] == [False, True, False, False]
    assert [result.value[1] for result in results[:3]] == [0, 1, 2]
    assert results[3].value == 5
    assert all(result.recording for result in results[:3])


def test_what_was_tampered_with_is_not_believed(evaluator: Evaluator, store: Store, tmp_path: Path) -> None:
    first = ask(evaluator)
    (path,) = [each for each in (tmp_path / "store").rglob("*") if each.is_file() and "answers" in str(each)]
    whole = path.read_bytes()
    other = ask(evaluator, inputs={"x": 2})
    (second,) = [
        each
        for each in (tmp_path / "store").rglob("*")
        if each.is_file() and "answers" in str(each) and each != path
    ]
    for wrong in (whole[:-1], whole[:20], b"", bytes([whole[0] ^ 1]) + whole[1:], second.read_bytes()):
        path.write_bytes(wrong)
        again = ask(evaluator)
        assert not again.cached
        assert again.value == first.value
    assert other.value[1] == 2
    with Evaluator(workers=1, store=store, snapshot_key=b"another key, 24 bytes.") as stranger:
        assert not ask(stranger).cached


def _parts(store: Store, **options: Any) -> tuple[Answers, Notary, Job, Result]:
    notary = Notary(KEY, {"python": "00"}, "1")
    job = Job("python", b"1", b"", Limits(), deterministic=Deterministic(), world=Deterministic().world())
    result = notary.attest(job, Result(Status.OK, b"1", limits=Limits(), runtime="python"))
    return Answers(store, Sealer(KEY), notary, **options), notary, job, result


def test_an_answer_is_forgotten_in_time(store: Store) -> None:
    now = [1000.0]
    answers, _, job, result = _parts(store, seconds=10.0, clock=lambda: now[0])
    answers.keep(job, result)
    for later in (1000.0, 1009.9, 1019.9):
        now[0] = later
        assert answers.find(job)
        answers.sweep()
    now[0] = 1020.0
    assert answers.find(job) is None
    assert len(list(store.blobs())) == 1
    answers.sweep()
    assert list(store.blobs()) == []


def test_no_more_is_stored_than_may_be(store: Store) -> None:
    now = [1000.0]
    answers, notary, job, result = _parts(store, seconds=10.0, most_bytes=5 * 4096, clock=lambda: now[0])
    jobs = [replace(job, code=str(i).encode()) for i in range(40)]
    for each in jobs:
        answers.keep(each, notary.attest(each, replace(result, receipt=None)))
    kept = sum(answers.find(each) is not None for each in jobs)
    assert kept == 5
    # One that begins now knows what there is.
    again = Answers(store, Sealer(KEY), notary, seconds=10.0, most_bytes=6 * 4096, clock=lambda: now[0])
    for each in jobs[10:]:
        again.keep(each, notary.attest(each, replace(result, receipt=None)))
    assert sum(again.find(each) is not None for each in jobs) == 6
    now[0] = 1011.0
    answers.keep(jobs[-1], notary.attest(jobs[-1], replace(result, receipt=None)))
    assert answers.find(jobs[-1])


def test_a_store_that_fails_knows_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, _, job, result = _parts(store)

    def fail(*_: object) -> Any:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(store, "put_blob", fail)
    answers.keep(job, result)
    monkeypatch.setattr(store, "get_blob", fail)
    assert answers.find(job) is None
    answers.keep(job, replace(result, receipt=None))


def test_old_answers_go_without_a_service(store: Store) -> None:
    now = [1000.0]
    answers, notary, job, result = _parts(store, seconds=10.0, clock=lambda: now[0])
    for day in range(5):
        now[0] = 1000.0 + 10 * day
        each = replace(job, code=str(day).encode())
        answers.keep(each, notary.attest(each, replace(result, receipt=None)))
    assert len(list(store.blobs())) == 2


def test_what_was_printed_is_told_again(evaluator: Evaluator) -> None:
    heard: list[tuple[str, str]] = []
    code = "import sys\nprint('out')\nprint('err', file=sys.stderr)"
    for _ in range(2):
        ask(evaluator, code=code, inputs=None, on_output=lambda *told: heard.append(told))
    assert heard == [("stdout", "out\n"), ("stderr", "err\n")] * 2


def test_a_cancelled_evaluation_is_no_answer(evaluator: Evaluator) -> None:
    """Also when its worker calls it repeatable."""
    notary = Notary(KEY, {"python": "00"}, "1")
    job = Job("python", b"1", b"", Limits(), deterministic=Deterministic(), world=Deterministic().world())
    for status in (Status.CANCELLED, Status.CRASHED):
        limits = evaluator.evaluate("1").limits
        body = frames.encode_result(1, Result(status, limits=limits))[5:]
        decoded = frames.decode_result(body, replace(job, limits=limits))
        assert decoded.unrepeatable
        assert notary.attest(job, decoded).receipt is None
        plain = frames.decode_result(body, replace(job, limits=limits, world=None, deterministic=None))
        assert plain.unrepeatable == ""
    # In the middle of sending its files, which take the longest part.
    code = "for i in range(500): open(f'{i}.txt', 'w').write('x' * 100_000)"
    for delay in range(1, 60):
        with evaluator.converse(code, outputs=["*"], deterministic=True) as conversation:
            time.sleep(0.01 * delay)
            conversation.cancel()
            *_, last = conversation
        assert isinstance(last, Result)
        assert (last.receipt is None) == (last.status is Status.CANCELLED)
        if last.error and "while its files were sent" in last.error.message:
            return
    raise AssertionError("it was never cancelled while its files were sent")
