"""A service over real gRPC on loopback, in a thread of this process, above a pool that each test scripts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

from wasmeval.model import Job
from wasmeval.residence import Residence
from wasmeval.runtimes import Blob, Catalogue, Runtime
from wasmeval.server import Pool, Server
from wasmeval.service import Service
from wasmeval.testing import Answer, ScriptedPool, succeed

T = TypeVar("T")
P = TypeVar("P", bound=Pool)

WAIT_SECONDS = 60
"""No promise: after this long a test that hangs fails."""


@dataclass
class Running(Generic[P]):
    """A service under test: where it listens, and its parts, which live in the event loop of its thread."""

    target: str
    pool: P
    service: Service
    server: Server
    loop: asyncio.AbstractEventLoop

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives in the service's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT_SECONDS)

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Returns when `condition` holds."""

        async def poll() -> None:
            async with asyncio.timeout(WAIT_SECONDS):
                while not condition():
                    await asyncio.sleep(0.002)

        self.call(poll())


Serving = Callable[..., AbstractContextManager[Running[ScriptedPool]]]


def runtime(name: str, *languages: str) -> Runtime:
    """A runtime as a manifest would describe it; no image is behind it."""
    image = Blob(Path("none"), "ab" * 32, 1)
    return Runtime(name, "1.2", f"{name}!", languages, image, None, "", 20 << 20, 24 << 20, 1 << 20, 1000, "")


CATALOGUE = Catalogue((runtime("javascript", "javascript", "js"), runtime("python", "python", "py")))


def serve_scripted(
    script: Callable[[Job], Answer] = succeed,
    *,
    listen: str = "127.0.0.1:0",
    running: int = 64,
    queue_size: int = 64,
    **settings: Any,
) -> AbstractContextManager[Running[ScriptedPool]]:
    """A service whose pool answers by `script`, stopped in the end; `settings` are the Service's."""
    return serve_above(
        lambda: ScriptedPool(script, running=running, queue_size=queue_size), CATALOGUE, listen, **settings
    )


@contextmanager
def serve_above(
    make_pool: Callable[[], P],
    catalogue: Catalogue,
    listen: str = "127.0.0.1:0",
    residence: Callable[[], Residence] | None = None,
    **settings: Any,
) -> Iterator[Running[P]]:
    """A service above any pool, with sessions that `residence` gives once there is the pool, stopped in the end."""

    async def start() -> Running[P]:
        pool = make_pool()
        home = residence() if residence else None
        service = Service(pool, catalogue, residence=home, **settings)
        server = Server(service, listen)
        await pool.start()
        await server.start()
        if home is not None:
            watching.append(asyncio.ensure_future(home.watch()))
        return Running(server.address.target, pool, service, server, loop)

    watching: list[asyncio.Future[None]] = []
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(start(), loop).result(WAIT_SECONDS)
        try:
            yield server
        finally:
            for task in watching:
                loop.call_soon_threadsafe(task.cancel)
            server.call(server.server.stop())
            server.call(server.pool.aclose())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_SECONDS)
        loop.close()


@pytest.fixture
def serving() -> Serving:
    """Starts services with scripted pools."""
    return serve_scripted


@pytest.fixture
def running(serving: Serving) -> Iterator[Running[ScriptedPool]]:
    """A service where every evaluation succeeds."""
    with serving() as server:
        yield server
