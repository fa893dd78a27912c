"""A thousand evaluations that wait for a tool, and what the others notice of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any

from bench.machine import children, private_dirty_bytes
from bench.measure import Samples
from bench.report import Figure, Row, number, pair, times
from bench.rows.fairness import small
from bench.rows.names import RUNTIMES
from bench.serving import Serving, serving
from bench.settings import Settings
from wasmeval import wire
from wasmeval.v1 import wasmeval_pb2 as pb

_COUNT = 1000
_WORKERS = 2
_CODE = {"python": "tool(1)", "javascript": "await tool(1)"}


def rows(settings: Settings) -> Iterator[Row]:
    """Small evaluations at a steady pace on two workers, with and without a thousand that wait; memory of each."""
    rounds, seconds = settings.of((4, 3.0), (1, 1.0))
    with serving(_WORKERS) as service:
        for runtime, name in RUNTIMES.items():
            idle, busy = Samples(), Samples()
            memory = 0.0
            for _ in range(rounds):
                idle.seconds += small(service, "python", seconds)
                before = _memory(service)
                with waiting(service, runtime, _COUNT):
                    memory = (_memory(service) - before) / _COUNT
                    busy.seconds += small(service, "python", seconds)
            p50, p99 = busy.p50 / idle.p50, busy.p99 / idle.p99
            yield Row(
                f"{_COUNT:,} evaluations waiting for a tool on {_WORKERS} workers, {name}: p50 / p99 of small ones "
                "beside them",
                f"{pair(busy)}: **{number(p50)}x / {number(p99)}x**",
                f"idle service {pair(idle)}",
                figures=[
                    *times("waiting_small", busy, runtime=runtime),
                    *times("waiting_small", idle, peer="idle service", runtime=runtime),
                    Figure("waiting_ratio", "ratio", p50, {"quantile": "p50", "runtime": runtime}),
                    Figure("waiting_ratio", "ratio", p99, {"quantile": "p99", "runtime": runtime}),
                ],
            )
            yield Row(
                f"memory of one evaluation that waits for a tool, front and workers together, {name}",
                f"**{number(memory / 1e6)} MB**",
                figures=[Figure("waiting_memory", "MB", memory / 1e6, {"runtime": runtime, "n": _COUNT})],
            )


@contextmanager
def waiting(service: Serving, language: str, count: int) -> Iterator[None]:
    """`count` evaluations that have called a tool and get no answer meanwhile."""
    start = pb.Start(
        evaluation=pb.EvaluateRequest(code=_CODE[language], language=language), tools=[pb.Tool(name="tool")]
    )
    start.evaluation.limits.deadline_seconds = 120.0
    start.evaluation.limits.tool_seconds = 120.0
    message = pb.ConverseRequest(start=start).SerializeToString()
    converse: Any = service.channel.stream_stream(wire.CONVERSE)
    with ExitStack() as stack:
        for _ in range(count):
            said: SimpleQueue[bytes | None] = SimpleQueue()
            said.put(message)
            replies = converse(iter(said.get, None))
            stack.callback(replies.cancel)
            stack.callback(said.put, None)
            if not pb.ConverseResponse.FromString(next(replies)).HasField("tool_call"):
                raise RuntimeError("an evaluation ended that should wait")
        # What the starts left to do: instances to prepare.
        time.sleep(0.5)
        yield
    time.sleep(0.5 + count * 0.002)


def _memory(service: Serving) -> int:
    return sum(map(private_dirty_bytes, [service.pid, *children(service.pid)]))
