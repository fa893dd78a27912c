"""Small evaluations beside greedy and beside sleeping ones, against the same service with nothing else to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.measure import Samples
from bench.report import Figure, Row, number, pair, times
from bench.rows.names import RUNTIMES
from bench.serving import Serving, serving
from bench.settings import Settings
from wasmeval import Limits, wire

_RATE = 100.0
_LOOPS_EACH = 2
_SLEEPERS = 1000
_SLEEPING_WORKERS = 2
_END_SECONDS = 30.0
_FOREVER = Limits(fuel=10**12, deadline_seconds=120.0)

_LOOP = {"python": "while True: pass", "javascript": "while (true) {}"}
_SLEEP = "import time; time.sleep(100)"


def loops(settings: Settings) -> Iterator[Row]:
    """Two endless loops in each worker, small evaluations at a steady pace."""
    rounds, seconds = settings.of((4, 3.0), (1, 1.0))
    with serving(settings.workers) as service:
        for runtime, name in RUNTIMES.items():
            idle, busy = Samples(), Samples()
            for _ in range(rounds):
                idle.seconds += small(service, runtime, seconds)
                with _crowd(service, _LOOP[runtime], runtime, _LOOPS_EACH * settings.workers):
                    busy.seconds += small(service, runtime, seconds)
            yield _row(
                f"{_LOOPS_EACH} endless loops in each of {settings.workers} workers beside {_RATE:g} small "
                f"evaluations a second, {name}: p50 / p99 of the small ones",
                f"loops_{runtime}",
                idle,
                busy,
                (3.0, 4.0),
            )


def sleepers(settings: Settings) -> Iterator[Row]:
    """A thousand sleeping evaluations on two workers, small ones at a steady pace."""
    rounds, seconds = settings.of((4, 3.0), (1, 1.0))
    idle, busy = Samples(), Samples()
    with serving(_SLEEPING_WORKERS) as service:
        for _ in range(rounds):
            idle.seconds += small(service, "python", seconds)
            with _crowd(service, _SLEEP, "python", _SLEEPERS):
                busy.seconds += small(service, "python", seconds)
    what = f"{_SLEEPERS:,} sleeping evaluations on {_SLEEPING_WORKERS} workers: p50 / p99 of the others"
    yield _row(what, "sleepers", idle, busy, (1.1, None))


def _row(what: str, metric: str, idle: Samples, busy: Samples, targets: tuple[float, float | None]) -> Row:
    p50, p99 = busy.p50 / idle.p50, busy.p99 / idle.p99
    most50, most99 = targets
    return Row(
        what,
        f"{pair(busy)}: **{number(p50)}x / {number(p99)}x**",
        f"idle service {pair(idle)}",
        f"<= {most50:g}x" + (f" / <= {most99:g}x" if most99 else ""),
        p50 <= most50 and (most99 is None or p99 <= most99),
        [
            *times(f"{metric}_small", busy),
            *times(f"{metric}_small", idle, peer="idle service"),
            Figure(f"{metric}_ratio", "ratio", p50, {"quantile": "p50"}),
            Figure(f"{metric}_ratio", "ratio", p99, {"quantile": "p99"}),
        ],
    )


def small(service: Serving, language: str, seconds: float) -> list[float]:
    """How long each of the small evaluations took, from when it was due: a slow one does not hold up the next."""
    call, message = service.evaluating("1+1", language)
    count = int(_RATE * seconds)
    taken: list[float] = []
    finished = threading.Event()
    futures = []

    def send(due: float) -> None:
        future = call.future(message)

        def done(_: object) -> None:
            taken.append(time.perf_counter() - due)
            if len(taken) == count:
                finished.set()

        future.add_done_callback(done)
        futures.append(future)

    for _ in range(10):
        call(message)
    begin = time.perf_counter()
    for index in range(count):
        due = begin + index / _RATE
        time.sleep(max(0.0, due - time.perf_counter()))
        # Not `due`: what our own sleep is late by is not the service's.
        send(time.perf_counter())
    if not finished.wait(_END_SECONDS):
        raise RuntimeError(f"{count - len(taken)} small evaluations were not answered in {_END_SECONDS:g} s")
    for future in futures:
        wire.decode_reply(future.result()).raise_for_status()
    return taken


@contextmanager
def _crowd(service: Serving, code: str, language: str, count: int) -> Iterator[None]:
    """`count` evaluations that do not end by themselves; cancelled, and gone, in the end."""
    call, message = service.evaluating(code, language, _FOREVER)
    futures = []
    try:
        for _ in range(count):
            futures.append(call.future(message))
        _settle(service, count)
        early = sum(future.done() for future in futures)
        if early:
            raise RuntimeError(f"{early} of {count} evaluations ended before their time")
        yield
    finally:
        for future in futures:
            future.cancel()
        _settle(service, 0)


def _settle(service: Serving, count: int) -> None:
    """Wait until what was just sent has started, or what was cancelled is gone."""
    # Unmeasured: starting one takes about half a millisecond of a worker.
    time.sleep(0.5 + count * 0.002)
