"""Tools: each limit is kept and told, a tool's inside stays outside, and a guest that lies harms itself alone."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.guests import LIMITS, guest, pool_of, worker_pids
from wasmeval import Evaluator, HttpPolicy, InvalidArgument, Limits, Result, Status, Tool
from wasmeval.grants import Grants
from wasmeval.model import Job
from wasmeval.pool import BlockingPool
from wasmeval.wasm.calls import Operation, Outcome

LANGUAGES = ("python", "javascript")
CALL = {"python": "tool({})", "javascript": "await tool({})"}
CAUGHT = {
    "python": "try:\n    {code}\nexcept Exception as error:\n    told = [type(error).__name__, str(error)]\ntold",
    "javascript": "let told; try {{ {code} }} catch (error) {{ told = [error.name, error.message] }} told",
}
MANY = {
    "python": "[tool(i) for i in range({})][-1]",
    "javascript": "let last; for (let i = 0; i < {}; i++) last = await tool(i); last",
}
AT_ONCE = {
    "python": "import asyncio\nasync def main():\n    return await asyncio.gather(*(tool.aio(i) for i in range({})))\n"
    "asyncio.run(main())",
    "javascript": "await Promise.all(Array.from({{length: {}}}, (_, i) => tool(i)))",
}

languages = pytest.mark.parametrize("language", LANGUAGES)


def same(value: object = None) -> object:
    return value


def told(evaluator: Evaluator, language: str, code: str, tool: Callable[..., Any], limits: Limits) -> Result:
    """What the guest sees when it catches the error; uncaught it has to be the Result's."""
    uncaught = evaluator.evaluate(code, language=language, tools={"tool": tool}, limits=limits)
    assert uncaught.status is Status.ERROR, uncaught
    assert uncaught.error is not None
    code = CAUGHT[language].format(code=code.replace("\n", "\n    "))
    caught = evaluator.evaluate(code, language=language, tools={"tool": tool}, limits=limits)
    assert caught.value == [uncaught.error.type, uncaught.error.message]
    return uncaught


# Limits.


@languages
def test_more_calls_than_allowed(evaluator: Evaluator, language: str) -> None:
    limits = Limits(tool_calls=5)
    assert (
        evaluator.evaluate(
            MANY[language].format(5), language=language, tools={"tool": same}, limits=limits
        ).value
        == 4
    )
    result = told(evaluator, language, MANY[language].format(6), same, limits)
    assert result.error is not None
    assert result.error.type == "ToolLimitError"
    assert result.error.message == "more than 5 calls of tools; raise limits.tool_calls or call fewer"
    assert result.usage.tool_calls == 5


@languages
def test_more_calls_at_a_time_than_allowed(evaluator: Evaluator, language: str) -> None:
    def slow(number: int) -> int:
        time.sleep(0.05)
        return number

    limits = Limits(tool_calls_in_flight=3)
    result = evaluator.evaluate(
        AT_ONCE[language].format(3), language=language, tools={"tool": slow}, limits=limits
    )
    assert result.value == [0, 1, 2]
    result = told(evaluator, language, AT_ONCE[language].format(4), slow, limits)
    assert result.error is not None
    assert result.error.type == "ToolLimitError"
    assert "3 calls are under way already" in result.error.message
    assert "limits.tool_calls_in_flight" in result.error.message


@languages
@pytest.mark.parametrize(("size", "back"), [(2000, False), (10, True)], ids=["arguments", "answer"])
def test_more_bytes_in_a_call_than_allowed(
    evaluator: Evaluator, language: str, size: int, back: bool
) -> None:
    code = CALL[language].format(json.dumps("x" * size))
    result = told(
        evaluator, language, code, lambda _: "y" * 2000 if back else 1, Limits(tool_call_bytes=1000)
    )
    assert result.error is not None
    assert result.error.type == "ToolLimitError"
    assert "more than 1000" in result.error.message
    assert "limits.tool_call_bytes" in result.error.message


@languages
def test_more_bytes_in_all_calls_than_allowed(evaluator: Evaluator, language: str) -> None:
    limits = Limits(tool_bytes=100_000)
    result = told(evaluator, language, MANY[language].format(50), lambda _: "y" * 5000, limits)
    assert result.error is not None
    assert result.error.type == "ToolLimitError"
    assert "more than 100000 bytes" in result.error.message
    assert 15 < result.usage.tool_calls < 25


@languages
def test_a_call_that_takes_too_long(evaluator: Evaluator, language: str) -> None:
    release = threading.Event()

    def stuck(_: object) -> None:
        release.wait(30)

    try:
        result = told(evaluator, language, CALL[language].format(1), stuck, Limits(tool_seconds=0.1))
    finally:
        release.set()
    assert result.error is not None
    assert (result.error.type, result.error.message) == (
        "ToolLimitError",
        "the call took longer than 0.1 s; raise limits.tool_seconds",
    )


@languages
def test_waiting_counts_to_the_deadline_unless_told_otherwise(evaluator: Evaluator, language: str) -> None:
    def slow(_: object) -> str:
        time.sleep(0.4)
        return "there"

    call: dict[str, Any] = {
        "code": CALL[language].format(1),
        "language": language,
        "tools": {"tool": slow},
        "limits": Limits(deadline_seconds=0.2),
    }
    assert evaluator.evaluate(**call).status is Status.DEADLINE_EXCEEDED
    result = evaluator.evaluate(**call, tool_time_counts=False)
    assert (result.status, result.value) == (Status.OK, "there")
    # The clock goes on for everything else.
    endless = {"python": "\nwhile True: pass", "javascript": "; for (;;) {}"}[language]
    result = evaluator.evaluate(**{**call, "code": call["code"] + endless}, tool_time_counts=False)
    assert result.status is Status.DEADLINE_EXCEEDED


@languages
def test_waiting_uses_no_fuel(evaluator: Evaluator, language: str) -> None:
    def after(seconds: float) -> Callable[[object], int]:
        def tool(_: object) -> int:
            time.sleep(seconds)
            return 1

        return tool

    code = CALL[language].format(1)
    spent = {
        evaluator.evaluate(code, language=language, tools={"tool": after(seconds)}).usage.fuel
        for seconds in (0.0, 0.3)
    }
    assert len(spent) == 1


# What passes, and what does not.


@languages
def test_of_what_a_tool_raises_only_class_and_message_pass(evaluator: Evaluator, language: str) -> None:
    secret = "a-secret-on-the-way"

    def tool(_: object) -> None:
        local = secret
        try:
            raise OSError(local)
        except OSError as error:
            raise ValueError("no such city") from error

    result = evaluator.evaluate(CALL[language].format(1), language=language, tools={"tool": tool})
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("ValueError", "no such city")
    for text in (secret, "OSError", __file__, 'Traceback (most recent call last):\n  File "/'):
        assert text not in result.error.traceback


@languages
def test_what_is_no_json_is_an_error_on_either_side(evaluator: Evaluator, language: str) -> None:
    value = {"python": "{1, 2}", "javascript": "new Set([1])"}[language]
    result = evaluator.evaluate(CALL[language].format(value), language=language, tools={"tool": same})
    assert result.error is not None
    assert result.error.type == "TypeError"
    result = evaluator.evaluate(CALL[language].format(1), language=language, tools={"tool": lambda _: {1, 2}})
    assert result.error is not None
    assert result.error.type == "TypeError"
    assert "set" in result.error.message


@languages
@pytest.mark.parametrize("value", [None, True, 10**40, -1.5, '\N{SNOWMAN}\0"', [], {"a": [{}]}, float("inf")])
def test_values_pass_both_ways(evaluator: Evaluator, language: str, value: object) -> None:
    seen = []

    def tool(argument: object) -> object:
        seen.append(argument)
        return argument

    code = CALL[language].format("x")
    result = evaluator.evaluate(code, language=language, inputs={"x": value}, tools={"tool": tool})
    assert result.value == value
    assert seen == [value]


@languages
def test_a_tool_sees_plain_values_only(evaluator: Evaluator, language: str) -> None:
    kinds = set()

    def tool(value: object) -> None:
        kinds.update(type(each).__name__ for each in [value, *value.values()])  # type: ignore[attr-defined]

    value = '{"a": 1, "b": "x", "c": [1.5], "d": nothing}'
    code = CALL[language].format(value.replace("nothing", {"python": "None", "javascript": "null"}[language]))
    assert evaluator.evaluate(code, language=language, tools={"tool": tool}).status is Status.OK
    assert kinds == {"dict", "int", "str", "list", "NoneType"}


@pytest.mark.parametrize("name", ["a b", "", "class", "__x__", "1a", "a.b", "x\0"])
def test_a_name_that_is_none_is_refused(evaluator: Evaluator, name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        evaluator.evaluate("1", tools={name: same})
    assert refused.value.field == "tools[0].name"


def test_a_tool_is_no_input(evaluator: Evaluator) -> None:
    with pytest.raises(InvalidArgument, match="is the name of an input too"):
        evaluator.evaluate("1", inputs={"tool": 1}, tools={"tool": same})


@languages
def test_without_tools_nothing_can_be_called(evaluator: Evaluator, language: str) -> None:
    result = evaluator.evaluate(CALL[language].format(1), language=language)
    assert result.error is not None
    assert result.error.type in ("NameError", "ReferenceError")


# A guest that speaks to the host itself.

ASKING = guest(
    """(local.set $at (call $code))
       (block $done (loop $next
         (br_if $done (i32.ge_u (local.get $at) (i32.add (call $code) (call $code_len))))
         (local.set $size (i32.load (local.get $at)))
         (local.set $answer (call $ask (i32.add (local.get $at) (i32.const 4)) (local.get $size)))
         (if (i32.gt_s (local.get $answer) (i32.const 0)) (then (call $fetch (i32.const 1000000))))
         (local.set $at (i32.add (local.get $at) (i32.add (i32.const 4) (local.get $size))))
         (br $next)))
       (call $null)""",
    imports="""(import "wasmeval" "host_call" (func $ask (param i32 i32) (result i32)))
               (import "wasmeval" "host_read" (func $fetch (param i32)))""",
).replace(
    '(func (export "wasmeval_evaluate") (param $len i32) (result i64)',
    '(func (export "wasmeval_evaluate") (param $len i32) (result i64) '
    "(local $at i32) (local $size i32) (local $answer i32)",
)
_NAMES = st.sampled_from(
    [b'{"name": "tool", "args": []}', b'{"name": "other"}', b'{"name": ', b"[" * 50, b"\xff"]
)
_REQUEST = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda operation, rest: bytes([operation]) + rest,
        st.sampled_from(list(Operation)),
        st.binary(max_size=20),
    ),
    _NAMES.map(lambda body: bytes([Operation.CALL]) + body),
    st.builds(
        lambda timeout, call: struct.pack("<BqI", Operation.WAIT, timeout, call),
        st.sampled_from([-1, 0, 1000, 2**63 - 1]),
        st.integers(0, 4),
    ),
    st.builds(lambda number: struct.pack("<BI", Operation.DROP, number), st.integers(0, 2**32 - 1)),
)


TOOLS = Grants(tools=(Tool("tool"),), http=HttpPolicy((), request_bytes=1000))


class Answering:
    """A partner that notes what the guest asks for; `ask` answers."""

    def __init__(self) -> None:
        self.calls: deque[tuple[int, Operation, bytes]] = deque()
        self.seen: list[tuple[Operation, bytes]] = []

    def called(self, call: int, operation: Operation, body: bytes) -> None:
        self.calls.append((call, operation, body))
        self.seen.append((operation, body))

    def printed(self, stream: int, data: bytes) -> None:
        raise AssertionError("nobody listens")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingPool]:
    with pool_of(tmp_path_factory.mktemp("asking"), {"asking": ASKING}) as pool:
        yield pool


def ask(
    pool: BlockingPool, *requests: bytes, grants: Grants | None = TOOLS, limits: Limits = LIMITS
) -> tuple[Result, Answering]:
    """What comes of a guest that makes these host calls, each of which is answered with `1`."""
    code = b"".join(struct.pack("<I", len(request)) + request for request in requests)
    partner = Answering()
    running = pool.begin(Job("asking", code, b"", limits, grants), lambda _: partner)
    while running.outcome is None:
        running.wait(lambda: bool(partner.calls), 60)
        while partner.calls:
            call, _, _ = partner.calls.popleft()
            running.answer(call, Outcome.DONE, b"1")
    assert isinstance(running.outcome, Result)
    return running.outcome, partner


@example(requests=[bytes([Operation.HTTP]), struct.pack("<BI", Operation.DROP, 0)])
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(_REQUEST, max_size=12))
def test_wild_requests_to_the_host(pool: BlockingPool, requests: list[bytes]) -> None:
    before = worker_pids(pool)
    limits = replace(LIMITS, deadline_seconds=0.05)
    result, partner = ask(pool, *requests, limits=limits)
    assert result.status in (Status.OK, Status.DEADLINE_EXCEEDED), result
    assert worker_pids(pool) == before
    assert pool.stats().restarts == 0
    assert all(len(body) <= 1 << 20 for _, body in partner.seen)


def test_what_was_not_granted_never_leaves_the_worker(pool: BlockingPool) -> None:
    call = bytes([Operation.CALL]) + b'{"name": "tool"}'
    http = bytes([Operation.HTTP]) + struct.pack("<I", 2) + b"{}"
    read = struct.pack("<BII", Operation.READ, 1, 100)
    files = bytes([Operation.FILES]) + b"x" * 20
    for grants in (None, Grants(live=True)):
        result, partner = ask(pool, call, http, read, files, grants=grants)
        assert result.status is Status.OK
        assert partner.seen == []
    _, partner = ask(pool, call, http, read, files)
    assert [operation for operation, _ in partner.seen] == [Operation.CALL, Operation.HTTP, Operation.READ]


def test_drops_and_requests_without_end_do_not_flood_the_parent(pool: BlockingPool) -> None:
    drops = [struct.pack("<BI", Operation.DROP, number) for number in range(5000)]
    result, partner = ask(pool, *drops)
    assert (result.status, partner.seen) == (Status.OK, [])
    calls = [bytes([Operation.CALL]) + b'{"name": "tool"}'] * 5000
    result, partner = ask(pool, *calls, limits=replace(LIMITS, tool_calls=50, tool_calls_in_flight=256))
    assert (result.status, len(partner.seen)) == (Status.OK, 50)


def test_outcomes_that_nobody_fetches_are_bounded(pool: BlockingPool) -> None:
    calls = [bytes([Operation.CALL]) + b'{"name": "tool"}'] * 20_000
    result, partner = ask(pool, *calls, limits=replace(LIMITS, tool_calls=10, tool_calls_in_flight=256))
    assert (result.status, len(partner.seen)) == (Status.OK, 10)


def test_a_request_that_is_too_long_is_none(pool: BlockingPool) -> None:
    body = b'{"name": "tool", "args": ["' + b"x" * 300_000 + b'"]}'
    result, partner = ask(pool, bytes([Operation.CALL]) + body, limits=replace(LIMITS, tool_call_bytes=1000))
    assert (result.status, partner.seen) == (Status.OK, [])


def test_waiting_for_nothing_does_not_hang(pool: BlockingPool) -> None:
    for call in (0, 1, 77):
        result, _ = ask(pool, struct.pack("<BqI", Operation.WAIT, -1, call))
        assert result.status is Status.OK
