"""Calls of tools over gRPC, and how soon output is seen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from queue import SimpleQueue
from typing import Any

from bench.measure import Samples, Turn, in_turns, timed
from bench.report import Figure, Row, number, pair, times
from bench.rows.names import RUNTIMES
from bench.serving import Serving, serving
from bench.settings import Settings
from wasmeval import Client, Limits, wire
from wasmeval.v1 import wasmeval_pb2 as pb

_TARGET = 1.5
_TEN = 10
_MANY = Limits(tool_calls=65_536, deadline_seconds=120.0)

_LOOPS = {
    "python": "for _ in range({count}): tool(1)",
    "javascript": "for (let i = 0; i < {count}; i++) await tool(1)",
}
_PRINTING = {
    "python": "print('x')\nimport time; time.sleep(0.05)",
    "javascript": "console.log('x'); await new Promise(done => setTimeout(done, 50))",
}


def rows(settings: Settings) -> Iterator[Row]:
    """A call's round trip against the stream's echo; ten calls against ten evaluations; the first byte of output."""
    with serving(settings.workers) as service, Client(service.target) as client:
        yield from _round_trips(service, settings)
        yield from _ten(client, settings)
        yield from _first_bytes(client, settings)


def _round_trips(service: Serving, settings: Settings) -> Iterator[Row]:
    turns = {"echo": Turn(lambda count: _echoes(service, count), 200, 0)}
    for runtime in RUNTIMES:
        turns[runtime] = Turn(lambda count, language=runtime: _calls(service, language, count), 200, 0)  # type: ignore[misc]
    samples = in_turns(turns, settings.of(20, 2))
    echo = samples["echo"]
    for runtime, name in RUNTIMES.items():
        call = samples[runtime]
        yield Row(
            f"a tool call's round trip over gRPC, {name}, bare messages, p50 / p99",
            f"{pair(call)}: **{number(call.p50 / echo.p50)}x** the echo",
            f"an echo on a stream of the same server {pair(echo)}",
            f"<= {_TARGET}x",
            call.p50 / echo.p50 <= _TARGET,
            [
                *times("tool_call", call, runtime=runtime),
                *times("stream_echo", echo),
                Figure("tool_call_ratio", "ratio", call.p50 / echo.p50, {"runtime": runtime, "peer": "echo"}),
            ],
        )


def _ten(client: Client, settings: Settings) -> Iterator[Row]:
    for runtime, name in RUNTIMES.items():
        turns = {
            "tools": Turn(timed(partial(_call_ten, client, runtime)), 20),
            "evaluations": Turn(timed(partial(_evaluate_ten, client, runtime)), 20),
        }
        samples = in_turns(turns, settings.of(10, 2))
        tools, evaluations = samples["tools"], samples["evaluations"]
        yield Row(
            f"{_TEN} tool calls in one evaluation through `Client`, {name}, p50 / p99",
            f"{pair(tools)}: **{number(tools.p50 / evaluations.p50)}x**",
            f"{_TEN} evaluations one after the other {pair(evaluations)}",
            figures=[
                *times("ten_tool_calls", tools, runtime=runtime),
                *times("ten_evaluations", evaluations, runtime=runtime),
            ],
        )


def _call_ten(client: Client, language: str) -> None:
    code = _LOOPS[language].format(count=_TEN)
    client.evaluate(code, language=language, tools={"tool": _same}).raise_for_status()


def _evaluate_ten(client: Client, language: str) -> None:
    for _ in range(_TEN):
        client.evaluate("1", language=language).raise_for_status()


def _same(value: object) -> object:
    return value


def _first_bytes(client: Client, settings: Settings) -> Iterator[Row]:
    for runtime, name in RUNTIMES.items():
        samples = Samples([_first_byte(client, runtime) for _ in range(settings.of(200, 10))])
        yield Row(
            f"live output's first byte after the call began, through `Client`, {name}, p50 / p99",
            pair(samples),
            figures=times("first_output", samples, runtime=runtime),
        )


def _first_byte(client: Client, language: str) -> float:
    arrived: list[float] = []
    start = time.perf_counter()
    client.evaluate(
        _PRINTING[language], language=language, on_output=lambda *_: arrived.append(time.perf_counter())
    ).raise_for_status()
    return arrived[0] - start


def _echoes(service: Serving, count: int) -> list[float]:
    said: SimpleQueue[bytes | None] = SimpleQueue()
    message = _answer(1)
    said.put(message)
    replies = service.echo()(iter(said.get, None))
    taken = []
    last = time.perf_counter()
    for _ in replies:
        now = time.perf_counter()
        taken.append(now - last)
        if len(taken) == count:
            said.put(None)
            break
        last = time.perf_counter()
        said.put(message)
    return taken


def _calls(service: Serving, language: str, count: int) -> list[float]:
    """From an answer to the next call: the client's message, the guest's turn, the service's message."""
    evaluation = pb.EvaluateRequest(code=_LOOPS[language].format(count=count + 1), language=language)
    evaluation.limits.tool_calls = _MANY.tool_calls or 0
    start = pb.Start(evaluation=evaluation, tools=[pb.Tool(name="tool")])
    said: SimpleQueue[bytes | None] = SimpleQueue()
    said.put(pb.ConverseRequest(start=start).SerializeToString())
    replies: Any = service.channel.stream_stream(wire.CONVERSE)(iter(said.get, None))
    taken = []
    last = 0.0
    for reply in replies:
        now = time.perf_counter()
        event = pb.ConverseResponse.FromString(reply)
        if not event.HasField("tool_call"):
            break
        if last:
            taken.append(now - last)
        message = _answer(event.tool_call.call_id)
        last = time.perf_counter()
        said.put(message)
    said.put(None)
    if len(taken) != count:
        raise RuntimeError(f"{len(taken)} of {count} calls came")
    return taken


def _answer(call: int) -> bytes:
    return pb.ConverseRequest(tool_result=pb.ToolResult(call_id=call, value=b"1")).SerializeToString()
