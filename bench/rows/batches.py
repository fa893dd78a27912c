"""Batches of 64: evaluations a second against the bare instance loop, which is all that a worker can give."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from bench.companion import Companion
from bench.measure import quantile
from bench.report import Figure, Row, number
from bench.rows.names import RUNTIMES
from bench.serving import serving
from bench.settings import Settings
from wasmeval import Client, Evaluation, Evaluator

_BATCH = 64
_TARGET = 0.85
_IN_FLIGHT = 2
"""Batches at a time: while the client reads one reply, the workers have the other batch."""

Rate = Callable[[], float]


def rows(settings: Settings) -> Iterator[Row]:
    """For each runtime: one worker against one loop, then all workers against as many loops at once."""
    workers = settings.workers
    with ExitStack() as stack:
        loops = [stack.enter_context(Companion.module("bare")) for _ in range(workers)]
        counts = {1, workers}
        clients = {
            n: stack.enter_context(Client(stack.enter_context(serving(n)).target)) for n in sorted(counts)
        }
        evaluators = {n: stack.enter_context(Evaluator(n)) for n in sorted(counts)}
        for runtime, name in RUNTIMES.items():
            rates: dict[str, Rate] = {}
            size = settings.of(768, 256)
            for n in sorted(counts):
                rates[f"loop {n}"] = partial(_loops, loops[:n], runtime, size)
                for kind, runner in (("gRPC", clients[n]), ("embedded", evaluators[n])):
                    rates[f"{kind} {n}"] = partial(_batches, runner, runtime, n * size // _BATCH)
            measured = _in_turns(rates, settings.of(6, 2))
            for n in sorted(counts):
                yield _row(name, runtime, n, measured)


def _row(name: str, runtime: str, workers: int, rates: Mapping[str, float]) -> Row:
    loop = rates[f"loop {workers}"]
    by_grpc, embedded = rates[f"gRPC {workers}"], rates[f"embedded {workers}"]
    beside = f"bare loop in {workers} process{'es at once' if workers > 1 else ''} {number(loop)} a second"
    if workers > 1:
        beside += f"; {workers} x the loop alone {number(workers * rates['loop 1'])}"
    shared: dict[str, str | int | float] = {"runtime": runtime, "workers": workers}
    return Row(
        f"batches of {_BATCH}, {name}, {workers} worker{'s' if workers > 1 else ''}",
        f"gRPC {number(by_grpc)} a second: **{number(by_grpc / loop)}x**; "
        f"embedded {number(embedded)}: {number(embedded / loop)}x",
        beside,
        f">= {_TARGET}x per worker",
        by_grpc / loop >= _TARGET,
        [
            Figure("batch_rate", "1/s", by_grpc, {**shared, "through": "grpc"}),
            Figure("batch_rate", "1/s", embedded, {**shared, "through": "embedded"}),
            Figure("batch_rate", "1/s", loop, {**shared, "peer": "bare loop"}),
            Figure("batch_ratio", "ratio", by_grpc / loop, {**shared, "through": "grpc"}),
            Figure("batch_ratio", "ratio", embedded / loop, {**shared, "through": "embedded"}),
        ],
    )


def _in_turns(rates: Mapping[str, Rate], rounds: int) -> dict[str, float]:
    """The median rate of each, measured in turns."""
    measured: dict[str, list[float]] = {name: [] for name in rates}
    for number_ in range(rounds + 1):
        for name, rate in rates.items():
            value = rate()
            # The first round warms up.
            if number_:
                measured[name].append(value)
    return {name: quantile(values, 0.5) for name, values in measured.items()}


def _loops(loops: list[Companion], runtime: str, count: int) -> float:
    """Evaluations a second of all the loops together."""
    for loop in loops:
        loop.tell(runtime=runtime, code="1+1", count=count)
    return sum(1 / float(loop.answer()["seconds"][0]) for loop in loops)


def _batches(runner: Client | Evaluator, language: str, batches: int) -> float:
    evaluations = [Evaluation("1+1", language)] * _BATCH

    def run(_: int) -> None:
        for result in runner.evaluate_batch(evaluations):
            result.raise_for_status()

    with ThreadPoolExecutor(_IN_FLIGHT) as threads:
        list(threads.map(run, range(_IN_FLIGHT)))
        start = time.perf_counter()
        list(threads.map(run, range(batches)))
        return batches * _BATCH / (time.perf_counter() - start)
