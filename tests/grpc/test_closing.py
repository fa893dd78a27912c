"""Closing a client during its calls: they raise Unavailable, and their guests are stopped."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.grpc.conftest import WAIT_SECONDS, Running, Serving, serve_above
from wasmeval import AsyncClient, Client, Limits, Output, Result, Tool, ToolCall, Unavailable
from wasmeval.model import Job
from wasmeval.pool import PoolSettings
from wasmeval.pool.driven import AsyncPool
from wasmeval.runtimes import Catalogue
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


# Conversations.


@pytest.fixture(scope="module")
def real() -> Iterator[Running[AsyncPool]]:
    """A service with real guests: a scripted pool says nothing while a snippet runs."""
    catalogue = Catalogue.installed()
    with serve_above(lambda: AsyncPool(PoolSettings(workers=1), catalogue), catalogue) as server:
        yield server
        assert server.pool.stats().running == 0


TALKING = "print('on')\nimport time; time.sleep(600)"


def test_a_conversation_whose_client_is_closed_is_unavailable(real: Running[AsyncPool]) -> None:
    client = Client(real.target)
    with pytest.raises(Unavailable, match="this client was closed during"):
        client.evaluate(TALKING, on_output=lambda *_: client.close())
    with pytest.raises(Unavailable, match="this client is closed"):
        client.evaluate(TALKING, on_output=print)
    with pytest.raises(Unavailable, match="this client is closed"):
        client.converse(TALKING)
    real.wait_until(lambda: real.pool.stats().running == 0)


def test_a_silent_conversation_is_not_begun_again_after_its_client_was_closed(
    real: Running[AsyncPool],
) -> None:
    with ThreadPoolExecutor() as executor:
        client = Client(real.target)
        call = executor.submit(client.evaluate, "input()", stdin=Blocking())
        real.wait_until(lambda: real.pool.stats().running == 1)
        client.close()
        with pytest.raises(Unavailable, match="this client was closed during"):
            call.result(WAIT_SECONDS)
    real.wait_until(lambda: real.pool.stats().running == 0)


class Blocking:
    """Input that does not come."""

    def read1(self, size: int) -> bytes:
        threading.Event().wait()
        return b""


def test_an_awaited_conversation_whose_client_is_closed_is_unavailable(real: Running[AsyncPool]) -> None:
    async def main() -> None:
        client = AsyncClient(real.target)
        printed = asyncio.Event()
        call = asyncio.ensure_future(client.evaluate(TALKING, on_output=lambda *_: printed.set()))
        await printed.wait()
        await client.close()
        with pytest.raises(Unavailable, match="this client was closed during"):
            await call
        await nothing_is_left()

    asyncio.run(asyncio.wait_for(main(), WAIT_SECONDS))
    real.wait_until(lambda: real.pool.stats().running == 0)


def test_an_error_outside_async_with_leaves_no_task(real: Running[AsyncPool]) -> None:
    async def main() -> None:
        client = AsyncClient(real.target)
        conversation = client.converse(TALKING)
        assert await anext(conversation)
        await client.close()
        with pytest.raises(Unavailable, match="this client was closed during"):
            await anext(conversation)
        with pytest.raises(StopAsyncIteration):
            await anext(conversation)
        await nothing_is_left()

    asyncio.run(asyncio.wait_for(main(), WAIT_SECONDS))


def test_a_refused_conversation_leaves_no_task(real: Running[AsyncPool]) -> None:
    async def main() -> None:
        async with AsyncClient(real.target) as client:
            with pytest.raises(ValueError, match="empty"):
                await anext(client.converse(""))
            await nothing_is_left()

    asyncio.run(asyncio.wait_for(main(), WAIT_SECONDS))


async def nothing_is_left() -> None:
    """Returns when this task is the loop's only one, but for gRPC's own of the channel."""
    while any("_consume_request_iterator" in repr(task) for task in asyncio.all_tasks()):
        await asyncio.sleep(0.01)


def test_a_conversation_in_a_task_that_is_cancelled_stays_cancelled(real: Running[AsyncPool]) -> None:
    async def main() -> None:
        async with AsyncClient(real.target) as client:
            printed = asyncio.Event()
            call = asyncio.ensure_future(client.evaluate(TALKING, on_output=lambda *_: printed.set()))
            await printed.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(asyncio.wait_for(main(), WAIT_SECONDS))
    real.wait_until(lambda: real.pool.stats().running == 0)


def test_closing_a_conversation_elsewhere_ends_its_events(real: Running[AsyncPool]) -> None:
    async def main() -> list[Any]:
        async with AsyncClient(real.target) as client:
            conversation = client.converse(TALKING)
            events = [await anext(conversation)]
            asyncio.get_running_loop().call_later(0.1, conversation.close)
            return events + [event async for event in conversation]

    events = asyncio.run(asyncio.wait_for(main(), WAIT_SECONDS))
    with Client(real.target) as client, client.converse(TALKING) as conversation:
        events.append(next(conversation))
        threading.Timer(0.1, conversation.close).start()
        events += list(conversation)
    assert len(events) == 2
    assert not any(isinstance(event, Result) for event in events)
    real.wait_until(lambda: real.pool.stats().running == 0)


def test_a_conversation_that_is_dropped_is_closed(real: Running[AsyncPool]) -> None:
    """Its own deadline would end it too late for this test."""

    async def main() -> None:
        async with AsyncClient(real.target) as client:
            conversation: Any = client.converse(TALKING, limits=Limits(deadline_seconds=300))
            assert isinstance(await anext(conversation), Output)
            del conversation
            gc.collect()
            await asyncio.to_thread(real.wait_until, lambda: real.pool.stats().running == 0)

    asyncio.run(asyncio.wait_for(main(), WAIT_SECONDS))
    with Client(real.target) as client:
        conversation: Any = client.converse(TALKING, limits=Limits(deadline_seconds=300))
        assert isinstance(next(conversation), Output)
        del conversation
        gc.collect()
        real.wait_until(lambda: real.pool.stats().running == 0)


@pytest.mark.parametrize("closed", [True, False], ids=["closed while it runs", "read to its end"])
def test_a_conversation_that_is_over_leaves_no_thread_and_no_call(
    real: Running[AsyncPool], closed: bool
) -> None:
    """An interpreter that ends kills gRPC's threads wherever they are; with the lock of a call held that still exists,
    the call's destructor would wait for it for ever."""
    with Client(real.target) as client:
        conversation: Any = client.converse("print(1); tool()" if closed else "tool()", tools=[Tool("tool")])
        call, sender = weakref.ref(conversation._call), None
        gc.disable()
        try:
            for event in conversation:
                sender = conversation._sender.thread
                if closed:
                    conversation.close()
                elif isinstance(event, ToolCall):
                    event.reply(1)
            assert sender is not None
            assert not sender.is_alive()
            assert call() is None
        finally:
            gc.enable()
    real.wait_until(lambda: real.pool.stats().running == 0)
