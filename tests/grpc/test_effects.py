"""A connection that is cut during a call: what may have had an effect is never sent a second time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.grpc.conftest import WAIT_SECONDS, Serving
from wasmeval import AsyncClient, Client, Evaluation, Folder, Unavailable
from wasmeval.model import Job
from wasmeval.offer import Offer
from wasmeval.testing import Answer, hang, succeed

Call = Callable[[str], Any]


class Wire:
    """What stands between a client and its service: connections that can be cut."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._service = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Ends every connection in the middle; new ones work."""
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(self._service)
                self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wire_to(target: str) -> Iterator[Wire]:
    with contextlib.closing(Wire(target)) as wire:
        yield wire


def awaited(target: str, **arguments: Any) -> Any:
    async def main() -> Any:
        async with AsyncClient(target) as client:
            return await client.evaluate("1", timeout=WAIT_SECONDS, **arguments)

    return asyncio.run(main())


def batched(target: str, **arguments: Any) -> Any:
    with Client(target) as client:
        return client.evaluate_batch([Evaluation("1", **arguments)], timeout=WAIT_SECONDS)[0]


def called(target: str, **arguments: Any) -> Any:
    with Client(target) as client:
        return client.evaluate("1", timeout=WAIT_SECONDS, **arguments)


def hang_once() -> Callable[[Job], Answer]:
    first = iter([True])
    return lambda job: hang() if next(first, False) else succeed(job)


@pytest.mark.parametrize("call", [called, awaited, batched])
def test_a_plain_evaluation_is_sent_again(serving: Serving, call: Call) -> None:
    with (
        serving(hang_once()) as server,
        wire_to(server.target) as wire,
        ThreadPoolExecutor() as executor,
    ):
        result = executor.submit(call, wire.target)
        server.wait_until(lambda: server.pool.jobs)
        wire.cut()
        assert result.result(WAIT_SECONDS).ok
        assert len(server.pool.jobs) == 2


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (called, {"mounts": ["data"]}),
        (awaited, {"mounts": ["data"]}),
        (batched, {"mounts": ["data"]}),
        (called, {"on_output": print}),
        (awaited, {"on_output": print}),
        (called, {"tools": {"tool": print}}),
    ],
)
def test_what_may_have_had_an_effect_is_not(
    serving: Serving, tmp_path: Path, call: Call, arguments: dict[str, Any]
) -> None:
    offer = Offer(folders={"data": Folder(tmp_path, read_only=False)})
    with (
        serving(hang_once(), offer=offer) as server,
        wire_to(server.target) as wire,
        ThreadPoolExecutor() as executor,
    ):
        result = executor.submit(call, wire.target, **arguments)
        server.wait_until(lambda: server.pool.jobs)
        wire.cut()
        with pytest.raises(Unavailable):
            result.result(WAIT_SECONDS)
        assert len(server.pool.jobs) == 1
        # Nobody is left who would come back: the next call is the second job.
        assert called(server.target).ok
        assert len(server.pool.jobs) == 2


@pytest.mark.parametrize("call", [called, awaited, batched])
def test_nothing_ran_where_nobody_listened(serving: Serving, tmp_path: Path, call: Call) -> None:
    offer = Offer(folders={"data": Folder(tmp_path)})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        target = f"127.0.0.1:{taken.getsockname()[1]}"
    with ThreadPoolExecutor() as executor:
        result = executor.submit(call, target, mounts=["data"])
        with pytest.raises(TimeoutError):
            result.result(0.5)
        with serving(listen=target, offer=offer) as server:
            assert result.result(WAIT_SECONDS).ok
            assert len(server.pool.jobs) == 1
