"""Closing a client during its calls: they raise Unavailable, and their guests are stopped."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.grpc.conftest import WAIT_SECONDS, Serving
from wasmeval import AsyncClient, Client, Unavailable
from wasmeval.model import Job
from wasmeval.testing import Answer, hang, succeed


def script(job: Job) -> Answer:
    return hang() if job.code == b"hang" else succeed(job)


def test_a_call_whose_client_is_closed_is_unavailable(serving: Serving) -> None:
    with serving(script) as server, ThreadPoolExecutor() as executor:
        client = Client(server.target)
        call = executor.submit(client.evaluate, "hang")
        server.wait_until(lambda: server.pool.jobs)
        client.close()
        with pytest.raises(Unavailable, match="this client was closed"):
            call.result(WAIT_SECONDS)
        server.wait_until(lambda: server.pool.stopped)
        with Client(server.target) as another:
            assert another.evaluate("1").ok


def test_an_awaited_call_whose_client_is_closed_is_unavailable(serving: Serving) -> None:
    async def main() -> None:
        client = AsyncClient(server.target)
        call = asyncio.ensure_future(client.evaluate("hang"))
        while not server.pool.jobs:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(Unavailable, match="this client was closed"):
            await call

    with serving(script) as server:
        asyncio.run(main())
        server.wait_until(lambda: server.pool.stopped)


def test_a_task_that_is_cancelled_stays_cancelled(serving: Serving) -> None:
    async def main() -> None:
        client = AsyncClient(server.target)
        call = asyncio.ensure_future(client.evaluate("hang"))
        while not server.pool.jobs:
            await asyncio.sleep(0.01)
        call.cancel()
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await call

    with serving(script) as server:
        asyncio.run(main())
        server.wait_until(lambda: server.pool.stopped)
