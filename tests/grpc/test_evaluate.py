"""What is sent arrives at the pool, and what the pool gives comes back, whole."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.grpc.conftest import Running, Serving
from wasmeval import (
    AsyncClient,
    Client,
    ErrorInfo,
    Evaluation,
    EvaluationError,
    InvalidArgument,
    Limits,
    Result,
    Status,
    Usage,
)
from wasmeval.limits import CEILINGS, DEFAULTS
from wasmeval.model import Job, RuntimeInfo

WHOLE = Result(
    Status.ERROR,
    stdout="out\n\N{SNOWMAN}\0",
    stderr="err",
    stdout_truncated=True,
    stderr_truncated=True,
    error=ErrorInfo("ValueError", "no", "Traceback ...", line=3, column=7),
    usage=Usage(12, 0.5, 30 << 20),
    limits=DEFAULTS,
    runtime="python",
)


def answer(result: Result) -> Callable[[Job], Result]:
    return lambda job: result


@pytest.mark.parametrize("status", list(Status))
def test_every_status_arrives(serving: Serving, status: Status) -> None:
    error = None if status is Status.OK else ErrorInfo("E", "m")
    with serving(answer(Result(status, error=error))) as server, Client(server.target) as client:
        result = client.evaluate("1")
    assert (result.status, result.error, result.ok) == (status, error, status is Status.OK)
    if status is not Status.OK:
        with pytest.raises(EvaluationError, match=f"^{status.value}: E: m$"):
            result.raise_for_status()


def test_a_result_arrives_whole(serving: Serving) -> None:
    with serving(answer(WHOLE)) as server, Client(server.target) as client:
        assert client.evaluate("1") == WHOLE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"", None),
        (b"null", None),
        (b"1" * 10_000, (10**10_000 - 1) // 9),
        (b'{"a":[1,2.5,"\xe2\x98\x83"]}', {"a": [1, 2.5, "\N{SNOWMAN}"]}),
        (b"[Infinity,-Infinity]", [math.inf, -math.inf]),
    ],
    ids=["none", "null", "huge", "nested", "infinite"],
)
def test_a_value_arrives_as_it_is(serving: Serving, text: bytes, value: object) -> None:
    with serving(answer(Result(Status.OK, value_json=text))) as server, Client(server.target) as client:
        result = client.evaluate("1")
    assert (result.value_json, result.value, result.value_is_json) == (text, value, True)


def test_a_value_that_is_no_json_is_marked(serving: Serving) -> None:
    text = b'{"repr":"<object>","type":"object"}'
    with (
        serving(answer(Result(Status.OK, text, value_is_json=False))) as server,
        Client(server.target) as client,
    ):
        assert client.evaluate("object()").value_is_json is False


def test_the_largest_reply_arrives(serving: Serving) -> None:
    """8 MiB of value, and twice 8 MiB that were not UTF-8, three bytes each."""
    text = "\N{REPLACEMENT CHARACTER}" * (8 << 20)
    result = Result(Status.OK, b'"' + b"x" * (8 << 20) + b'"', stdout=text, stderr=text)
    with serving(answer(result)) as server, Client(server.target) as client:
        assert client.evaluate("1") == result


def test_code_and_inputs_reach_the_pool(running: Running) -> None:
    inputs = {
        "xs": [1, 2.5, None, True, "\N{SNOWMAN}"],
        "nan": math.nan,
        "big": 7**20_000,
        "lone": "\ud800",
        "none": None,
    }
    with Client(running.target) as client:
        client.evaluate("f(\N{SNOWMAN})", inputs=inputs)
        client.evaluate("1", language="js")
    first, second = running.pool.jobs
    assert (first.runtime, first.code) == ("python", "f(\N{SNOWMAN})".encode())
    decoded = Result(Status.OK, first.inputs).value
    assert math.isnan(decoded.pop("nan"))
    del inputs["nan"]
    assert decoded == inputs
    assert (second.runtime, second.inputs) == ("javascript", b"")


def test_limits_are_filled_and_clamped(running: Running) -> None:
    with Client(running.target) as client:
        assert client.evaluate("1").limits == DEFAULTS
        asked = Limits(fuel=10, deadline_seconds=1e9, memory_bytes=1 << 50)
        limits = client.evaluate("1", limits=asked).limits
    assert limits == replace(
        DEFAULTS, fuel=10, deadline_seconds=CEILINGS.deadline_seconds, memory_bytes=CEILINGS.memory_bytes
    )
    assert running.pool.jobs[1].limits == limits


def test_runtimes_are_listed(running: Running) -> None:
    with Client(running.target) as client:
        listed = client.runtimes()
    assert [runtime.name for runtime in listed] == ["javascript", "python"]
    assert listed[1] == RuntimeInfo(
        "python", "1.2", "python!", ("python", "py"), "ab" * 32, 20 << 20, 24 << 20
    )


def test_both_clients_give_the_same(serving: Serving) -> None:
    async def main(target: str) -> tuple[object, ...]:
        async with AsyncClient(target) as client:
            batch = await client.evaluate_batch([Evaluation("1"), Evaluation("2", language="js")])
            return await client.evaluate("1", inputs={"x": 1}), batch, await client.runtimes()

    with serving() as server, Client(server.target) as client:
        batch = client.evaluate_batch([Evaluation("1"), Evaluation("2", language="js")])
        expected = client.evaluate("1", inputs={"x": 1}), batch, client.runtimes()
        assert asyncio.run(main(server.target)) == expected


def test_a_unix_socket_serves(serving: Serving, tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/socket"
    with serving(listen=target) as server, Client(target, api_key="key") as client:
        assert server.target == target
        assert client.evaluate("1").ok


def test_an_api_key_goes_only_to_this_machine(running: Running) -> None:
    port = running.target.rpartition(":")[2]
    with Client(f"localhost:{port}", api_key="key") as client:
        assert client.evaluate("1").ok
    for target in ("192.0.2.1:50051", "[2001:db8::1]:50051"):
        with pytest.raises(InvalidArgument, match=r"^api_key: would go to '.*' unencrypted"):
            Client(target, api_key="key")
    with pytest.raises(InvalidArgument, match=r"^api_key: must be printable ASCII"):
        Client(running.target, api_key="a\nb")
