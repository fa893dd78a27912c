"""A guest's relay as a process, its host's end in this one, and the clients that go through both."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.egress.conftest import ANY, LOOPBACK
from wasmeval.egress import Credential, Egress, Exchange, HttpCeiling
from wasmeval.grants import HttpPolicy, HttpRule
from wasmeval.vm.network import Network

RELAY = Path(__file__).parents[2] / "wasmeval/vm/guest/network.py"


@dataclass
class Line:
    """One machine's network: a relay that listens on `port` of loopback, and what serves it."""

    port: int
    network: Network
    exchange: Exchange | None
    process: subprocess.Popen[bytes]
    task: asyncio.Task[None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ask(self, request: bytes | str) -> bytes:
        """All that comes back to `request`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request.encode() if isinstance(request, str) else request)
        try:
            return await asyncio.wait_for(reader.read(-1), 20)
        finally:
            writer.transport.abort()

    async def get(self, url: str, *headers: str) -> bytes:
        host = url.split("/")[2]
        return await self.ask("\r\n".join([f"GET {url} HTTP/1.1", f"Host: {host}", *headers, "", ""]))

    async def tunnel(self, where: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A tunnel that was opened."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
        return reader, writer

    async def quiet(self) -> None:
        """Wait until no connection is open at the host."""
        async with asyncio.timeout(10):
            while self.network.connections:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def machine(
    *rules: HttpRule,
    names: Mapping[str, Sequence[str]] | None = None,
    ceiling: HttpCeiling | None = None,
    credentials: Mapping[str, Credential] | None = None,
    policy: bool = True,
    python: str = sys.executable,
    **numbers: Any,
) -> AsyncIterator[Line]:
    async def resolve(host: str) -> Sequence[str]:
        try:
            return (names or {})[host]
        except KeyError:
            raise OSError(f"no such name: {host}") from None

    egress = Egress(ceiling or HttpCeiling((ANY,), private_networks=LOOPBACK), credentials, resolve=resolve)
    exchange = egress.open(HttpPolicy(rules or (ANY,), **{"requests": 256, **numbers})) if policy else None
    ours, theirs = socket.socketpair()
    told, tells = os.pipe()
    argv = [python, "-I", "-S", "-B", str(RELAY), "--channel", str(theirs.fileno())]
    argv += ["--listen", "127.0.0.1:0", "--ready", str(tells)]
    process = subprocess.Popen(argv, pass_fds=(theirs.fileno(), tells))
    theirs.close()
    os.close(tells)
    with open(told, encoding="ascii") as file:
        port = int(file.readline())
    network = Network(ours, exchange)
    task = asyncio.create_task(network.run())
    line = Line(port, network, exchange, process, task)
    try:
        yield line
    finally:
        await network.aclose()
        with suppress(BaseException):
            await asyncio.wait_for(task, 5)
        await egress.aclose()
        process.wait(10)
        assert process.returncode == 0
        assert ours.fileno() == -1
        assert network.connections == 0
