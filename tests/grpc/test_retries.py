"""The client tries again after UNAVAILABLE and RESOURCE_EXHAUSTED, within its time, and never after anything else."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable

import pytest

from tests.grpc.conftest import WAIT_SECONDS, Serving
from wasmeval import (
    AsyncClient,
    Client,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
    WasmevalError,
)
from wasmeval.model import Job
from wasmeval.testing import Answer, succeed


def failing(times: int, error: WasmevalError) -> Callable[[Job], Answer]:
    """A script that fails so many times before it succeeds."""
    left = iter(range(times))
    return lambda job: error if next(left, None) is not None else succeed(job)


@pytest.mark.parametrize("error", [Unavailable("away"), ResourceExhausted("full", 0.02)])
def test_a_refused_evaluation_is_tried_again(serving: Serving, error: WasmevalError) -> None:
    async def main() -> bool:
        async with AsyncClient(server.target) as client:
            return (await client.evaluate("1", timeout=WAIT_SECONDS)).ok

    with serving(failing(3, error)) as server, Client(server.target) as client:
        assert client.evaluate("1", timeout=WAIT_SECONDS).ok
        assert len(server.pool.jobs) == 4
    with serving(failing(3, error)) as server:
        assert asyncio.run(main())


def test_what_does_not_get_better_is_raised_in_time(serving: Serving) -> None:
    with serving(failing(10**6, ResourceExhausted("full", 0.05))) as server, Client(server.target) as client:
        with pytest.raises(ResourceExhausted, match="full") as caught:
            client.evaluate("1", timeout=0.5)
        assert caught.value.retry_after_seconds == 0.05
        assert 2 <= len(server.pool.jobs) <= 10


@pytest.mark.parametrize("error", [Internal("broken"), InvalidArgument("code", "wrong")])
def test_nothing_else_is_tried_again(serving: Serving, error: WasmevalError) -> None:
    with serving(failing(1, error)) as server, Client(server.target) as client:
        with pytest.raises(type(error), match=str(error)):
            client.evaluate("1")
        assert len(server.pool.jobs) == 1
        assert client.evaluate("1").ok


def test_a_service_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with Client(f"127.0.0.1:{taken.getsockname()[1]}") as client, pytest.raises(Unavailable):
            client.evaluate("1", timeout=0.3)


def test_a_client_outlasts_a_restart_of_the_service(serving: Serving) -> None:
    with serving() as server, Client(server.target) as client:
        assert client.evaluate("1").ok
        server.call(server.server.stop())
        again = threading.Event()

        def restart() -> None:
            with serving(listen=server.target):
                again.wait(30)

        thread = threading.Thread(target=restart)
        thread.start()
        try:
            assert client.evaluate("1", timeout=WAIT_SECONDS).ok
        finally:
            again.set()
            thread.join(30)
