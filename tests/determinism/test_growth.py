"""Deterministic evaluations leave nothing behind in their worker, which collects no cycles."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import pytest

from wasmeval import Deterministic, Evaluator, Tool
from wasmeval.determinism import World
from wasmeval.grants import Grants
from wasmeval.limits import CEILINGS, DEFAULTS, Limits
from wasmeval.transcript import Kind, MalformedTranscript, Player, Recorder
from wasmeval.wasm.calls import Calls, Operation, Outcome, Waiting
from wasmeval.wasm.recorded import Diverged, RecordedCalls, RecordedStdin, ReplayedCalls, ReplayedStdin

MIB = 1 << 20
LIMITS = Limits().within(DEFAULTS, CEILINGS)
GRANTS = Grants(tools=(Tool("f"),), files={"a": bytes(1000)})


class Clock:
    def pass_time(self, pause: int) -> None:
        pass


def call(calls: Calls) -> None:
    calls.operate(bytes((Operation.CALL,)) + b"{}")


def wait(calls: Calls) -> object:
    return calls.operate(bytes((Operation.WAIT,)) + (-1).to_bytes(8, "little", signed=True) + bytes(4))


def test_calls_are_in_no_cycle() -> None:
    sent: list[Any] = []
    clock: Any = Clock()
    gc.collect()
    gc.disable()
    try:
        recorder = Recorder()
        recorded = RecordedCalls(GRANTS, LIMITS, lambda *told: sent.append(told), clock, recorder)
        call(recorded)
        assert isinstance(wait(recorded), Waiting)
        recorded.answer(1, Outcome.DONE, b"5")
        assert recorded.take()[8:] == b"5"
        replayed = ReplayedCalls(GRANTS, LIMITS, clock, Recorder(), Player(recorder.data))
        call(replayed)
        answer = wait(replayed)
        assert isinstance(answer, bytes)
        assert answer[8:] == b"5"
        diverged = ReplayedCalls(GRANTS, LIMITS, clock, Recorder(), Player(b""))
        with pytest.raises(Diverged):
            call(diverged)
        inputs = RecordedStdin(recorder), ReplayedStdin(recorder, Player(recorder.data))
        del recorded, replayed, diverged, inputs
        assert not [each for each in gc.get_objects() if isinstance(each, RecordedCalls | RecordedStdin)]
    finally:
        gc.enable()
    assert len(sent) == 1


def anonymous_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def test_a_worker_does_not_grow() -> None:
    with Evaluator(workers=1) as evaluator:
        (worker,) = evaluator._pool._pool._workers
        large = bytes(200_000)
        given: dict[str, Any] = {"files": {"a": large}, "tools": {"f": lambda: "x" * 100_000}}
        recording = evaluator.evaluate("len(f())", deterministic=True, **given).recording
        assert recording
        damaged = bytearray(recording.transcript)
        second = 10 + int.from_bytes(damaged[6:10], "little")
        damaged[second + 1] = 77
        wrong = replace(recording, transcript=bytes(damaged))

        def round(times: int) -> None:
            for _ in range(times):
                evaluator.evaluate("len(f())", deterministic=True, **given)
                evaluator.evaluate("print(input())", stdin="x" * 50_000, deterministic=True)
                assert evaluator.replay(recording).is_same
                assert not evaluator.replay(wrong).is_same

        round(30)
        before = anonymous_bytes(worker.process.pid)
        round(100)
        # Each round would leave more than half a megabyte.
        assert anonymous_bytes(worker.process.pid) < before + 8 * MIB


def test_what_is_malformed_holds_nothing() -> None:
    recorder = Recorder()
    recorder.add(Kind.BEGAN, b"{}", 1, Operation.CALL)
    recorder.add(Kind.ANSWERED, b"", 1, 99)
    clock: Any = Clock()
    calls = ReplayedCalls(GRANTS, LIMITS, clock, Recorder(), Player(recorder.data))
    call(calls)
    with pytest.raises(MalformedTranscript) as raised:
        wait(calls)
    assert raised.value.__context__ is None


def test_worlds_are_plain_values() -> None:
    world = Deterministic(3).world()
    assert isinstance(world, World)
    assert world == Deterministic(3).world() != Deterministic(4).world()
