"""Ctrl-C at any moment leaves an evaluator that works: no lock stays taken."""

from __future__ import annotations

import gc
import random
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from wasmeval import Evaluation, Evaluator


class Interrupted(BaseException):
    """What the signal raises here, as Ctrl-C raises KeyboardInterrupt."""


def raise_interrupted(_number: int, _frame: FrameType | None) -> None:
    raise Interrupted


@pytest.fixture
def no_collector_callbacks() -> Iterator[None]:
    """Hypothesis leaves one for the rest of the run. What is raised in it is swallowed, and pytest's report of that
    parses source again in the middle of whatever was being parsed, which CPython 3.11 takes for an error."""
    callbacks = gc.callbacks[:]
    gc.callbacks.clear()
    # Nor is what other tests have left collected in between: what is raised in a `__del__` is swallowed as well.
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.callbacks[:] = callbacks


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread"
)
@pytest.mark.usefixtures("no_collector_callbacks")
def test_an_interrupt_at_any_moment_leaves_the_evaluator_usable() -> None:
    chance = random.Random(3)
    with Evaluator(workers=1) as evaluator:
        # What they load is there then: an interrupt in the middle of an import is the interpreter's business.
        evaluator.evaluate("1")
        evaluator.evaluate("1", tools={"tool": print})
        before = signal.signal(signal.SIGALRM, raise_interrupted)
        interrupted = 0
        try:
            for number in range(400):
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.003))
                    if number % 3:
                        evaluator.evaluate("1 + 1", tools={"tool": print} if number % 2 else None)
                    else:
                        evaluator.evaluate_batch([Evaluation("1"), Evaluation("2")])
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except Interrupted:
                    interrupted += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert interrupted > 50
        # Without a time-out a lock that stayed taken would hang the test.
        done: list[object] = []
        thread = threading.Thread(target=lambda: done.append(evaluator.evaluate("6 * 7").value), daemon=True)
        thread.start()
        thread.join(60)
        assert done == [42]
