"""What a caller's own functions may do during a conversation, the same for a service and for workers of one's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.grpc.conftest import WAIT_SECONDS, Running, serve_above
from wasmeval import AsyncClient, Client, Evaluator, HttpPolicy, HttpRule, InvalidArgument, Limits, Result
from wasmeval.inputs import MAX_CONTAINERS
from wasmeval.pool import PoolSettings
from wasmeval.pool.driven import AsyncPool
from wasmeval.runtimes import Catalogue

Evaluate = Callable[..., Result]


@pytest.fixture(scope="module")
def real() -> Iterator[Running[AsyncPool]]:
    catalogue = Catalogue.installed()
    with serve_above(lambda: AsyncPool(PoolSettings(workers=1), catalogue), catalogue) as server:
        yield server


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=1) as evaluator:
        yield evaluator


@pytest.fixture(params=["client", "async client", "evaluator"])
def evaluate(request: pytest.FixtureRequest, real: Running[AsyncPool], evaluator: Evaluator) -> Evaluate:
    """`evaluate` of each kind; the one after the test works."""

    def awaited(code: str, **arguments: Any) -> Result:
        async def main() -> Result:
            async with AsyncClient(real.target) as client:
                return await client.evaluate(code, **arguments)

        return asyncio.run(main())

    def called(code: str, **arguments: Any) -> Result:
        with Client(real.target) as client:
            return client.evaluate(code, **arguments)

    kinds: dict[str, Evaluate] = {
        "client": called,
        "async client": awaited,
        "evaluator": evaluator.evaluate,
    }
    kind = kinds[request.param]
    return lambda code, **arguments: kind(code, timeout=WAIT_SECONDS, **arguments)


CAUGHT = (
    "try:\n    tool()\nexcept BaseException as error:\n    told = [type(error).__name__, str(error)]\ntold"
)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("x" * (17 << 20), f"{(17 << 20) + 2} bytes of JSON, more than {8 << 20}; return less"),
        ([[]] * MAX_CONTAINERS, f"more than {MAX_CONTAINERS} arrays and objects together"),
    ],
    ids=["bytes", "containers"],
)
def test_an_answer_that_is_too_large_harms_its_call_alone(
    evaluate: Evaluate, value: Any, reason: str
) -> None:
    kind, text = evaluate(CAUGHT, tools={"tool": lambda: value}).value
    assert kind == "TypeError"
    assert reason in text


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError("gone")])
def test_a_tool_that_would_end_the_program_is_answered(evaluate: Evaluate, error: BaseException) -> None:
    def tool() -> None:
        raise error

    async def tool_async() -> None:
        raise error

    for function in (tool, tool_async):
        assert evaluate(CAUGHT, tools={"tool": function}).value[1] == str(error)


@pytest.mark.parametrize("ends", ["taken back", "evaluation over"])
def test_an_async_tool_is_cancelled_when_nobody_waits_any_more(evaluate: Evaluate, ends: str) -> None:
    cancelled = threading.Event()

    async def tool() -> None:
        try:
            await asyncio.sleep(WAIT_SECONDS)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    limits = Limits(tool_seconds=0.2) if ends == "taken back" else Limits(deadline_seconds=0.2)
    result = evaluate(CAUGHT, tools={"tool": tool}, limits=limits)
    assert (result.status.value == "ok") == (ends == "taken back")
    assert cancelled.wait(WAIT_SECONDS)


def test_more_tools_at_once_than_there_are_cpus(evaluate: Evaluate) -> None:
    together = threading.Barrier(40)

    def tool() -> int:
        return together.wait(WAIT_SECONDS)

    code = (
        "import asyncio\nasync def main():\n    return await asyncio.gather(*(tool.aio() for _ in range(40)))\n"
        "sorted(asyncio.run(main()))"
    )
    limits = Limits(tool_calls_in_flight=40, deadline_seconds=WAIT_SECONDS)
    assert evaluate(code, tools={"tool": tool}, limits=limits).value == list(range(40))


def test_input_that_comes_in_empty_pieces(evaluate: Evaluate) -> None:
    code = "import sys\nsys.stdin.read()"
    assert evaluate(code, stdin=[b"", b"a", b"", b"", b"b", b""]).value == "ab"
    assert evaluate(code, stdin=iter(["ä", "", "ö"])).value == "äö"


def test_what_the_input_raises_ends_the_snippet(evaluate: Evaluate) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"a\n"
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        evaluate("input()\ninput()", stdin=chunks())
    with pytest.raises(InvalidArgument, match="stdin: must give bytes or str, not int"):
        evaluate("input()", stdin=[5])
    assert evaluate("1 + 1").value == 2


def test_an_async_on_output_is_awaited_where_there_is_a_loop(
    real: Running[AsyncPool], evaluator: Evaluator
) -> None:
    shown: list[str] = []

    async def show(_: str, text: str) -> None:
        await asyncio.sleep(0)
        shown.append(text)

    async def main() -> None:
        async with AsyncClient(real.target) as client:
            await client.evaluate("print(1)", on_output=show)
            await client.evaluate("print(2)", on_output=lambda *given: show(*given))

    asyncio.run(main())
    assert shown == ["1\n", "2\n"]
    with Client(real.target) as client:
        for kind in (client.evaluate, evaluator.evaluate):
            for function in (show, lambda *given: show(*given)):
                with pytest.raises(InvalidArgument, match="on_output: is async, which only AsyncClient"):
                    kind("print(3)", on_output=function)
    assert shown == ["1\n", "2\n"]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("code", 5),
        ("files", {"a": 5}),
        ("files", [1]),
        ("files", {"../a": b""}),
        ("outputs", 5),
        ("outputs", "x"),
        ("outputs", 0),
        ("http", 5),
        ("http", HttpPolicy((HttpRule("*"),), requests=-1)),
        ("http", HttpPolicy((HttpRule("*", methods="GET"),))),  # type: ignore[arg-type]
        ("http", HttpPolicy((HttpRule("*", schemes="http"),))),  # type: ignore[arg-type]
        ("http", HttpPolicy((HttpRule("*"),), seconds="x")),  # type: ignore[arg-type]
        ("tools", [5]),
        ("on_output", 5),
        ("stdin", 5),
        ("stdin", "\ud800"),
    ],
)
@pytest.mark.parametrize("talks", [False, True])
def test_a_part_of_a_wrong_type_is_named(evaluate: Evaluate, part: str, value: Any, talks: bool) -> None:
    arguments: dict[str, Any] = {"on_output": print} if talks else {}
    arguments |= {part: value}
    with pytest.raises(InvalidArgument) as refused:
        evaluate(arguments.pop("code", "1"), **arguments)
    assert refused.value.field.partition(".")[0] == part


@pytest.mark.parametrize("value", ["data", 5, [5]])
def test_mounts_of_a_wrong_type_are_named(real: Running[AsyncPool], value: Any) -> None:
    with Client(real.target) as client:
        for arguments in ({}, {"on_output": print}):
            with pytest.raises(InvalidArgument, match=r"^mounts: must be a sequence of str"):
                client.evaluate("1", mounts=value, **arguments)
        with pytest.raises(InvalidArgument, match=r"^mounts: must be a sequence of str"):
            client.converse("1", mounts=value)
