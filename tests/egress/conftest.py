"""Real servers on loopback, and a guest's side of an exchange without a guest."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from wasmeval import grants
from wasmeval.egress import Credential, Egress, Exchange, HttpCeiling, HttpFailure

Answer = Callable[["Asked"], "bytes | list[bytes | float | None] | Awaitable[None]"]

LOOPBACK = ("127.0.0.1/32",)
ANY = grants.HttpRule("*:*", schemes=("http", "https"))


@dataclass
class Asked:
    """One request as it came in over the wire."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    raw: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, found
        return found[0] if found else None


@dataclass
class Server:
    """An HTTP/1.1 server that answers with the bytes that `answers` has for a path, exactly as they stand.

    A list sends its parts one by one; a number in it is a pause in seconds, None waits for ever.
    """

    port: int = 0
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while asked := await _asked(reader):
                self.asked.append(asked)
                answer = self.answers[asked.target.partition("?")[0]]
                parts = answer(asked) if callable(answer) else answer
                for part in [parts] if isinstance(parts, bytes) else parts:
                    if isinstance(part, bytes):
                        writer.write(part)
                        await writer.drain()
                    elif part is None:
                        await reader.read()  # until the client goes
                        return
                    else:
                        await asyncio.sleep(part)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()


async def _asked(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines]
    length = int(next((value for name, value in headers if name.lower() == "content-length"), "0"))
    return Asked(method, target, headers, await reader.readexactly(length), head)


@asynccontextmanager
async def running(tls: Any = None) -> AsyncIterator[Server]:
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        await server.serve(reader, writer)
        tasks.discard(task)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls, limit=1 << 24)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Trusted by what is opened after it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running() as one:
        yield one


@pytest.fixture
async def other() -> AsyncIterator[Server]:
    """Another server: the same address, another origin."""
    async with running() as one:
        yield one


def answer(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("utf-8") + body


def chunked(*parts: bytes, headers: Sequence[str] = ()) -> bytes:
    head = "\r\n".join(["HTTP/1.1 200 OK", *headers, "Transfer-Encoding: chunked", "", ""]).encode()
    return head + b"".join(chunk(part) for part in parts) + b"0\r\n\r\n"


def chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def redirect(location: str, status: str = "302 Found") -> bytes:
    return answer(b"", status, f"Location: {location}")


@dataclass
class Response:
    """The outcome of kind 0, as a guest sees it."""

    status: int
    reason: str
    url: str
    headers: list[tuple[str, str]]
    redirected: bool
    stream: int
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def encode(method: str, url: str, headers: Any = (), body: bytes = b"", **more: Any) -> bytes:
    head = json.dumps({"method": method, "url": url, "headers": [list(h) for h in headers], **more}).encode()
    return struct.pack("<I", len(head)) + head + body


class Guest:
    """What a guest does with an exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    async def begin(self, url: str, method: str = "GET", **more: Any) -> Response:
        outcome = await self.exchange.request(encode(method, url, **more))
        (length,) = struct.unpack_from("<I", outcome)
        head = json.loads(outcome[4 : 4 + length])
        head["headers"] = [tuple(pair) for pair in head["headers"]]
        return Response(**head, body=outcome[4 + length :])

    async def rest(self, stream: int) -> bytes:
        parts = []
        while part := await self.exchange.read(stream, 1 << 16):
            parts.append(part)
        return b"".join(parts)

    async def fetch(self, url: str, method: str = "GET", **more: Any) -> Response:
        response = await self.begin(url, method, **more)
        if response.stream:
            response.body += await self.rest(response.stream)
        return response

    async def fail(self, url: str, method: str = "GET", **more: Any) -> dict[str, Any]:
        """The failure that it must end in: its kind, and what its payload says."""
        with pytest.raises(HttpFailure) as caught:
            await self.fetch(url, method, **more)
        return {"kind": caught.value.kind, **json.loads(caught.value.payload)}


Open = Callable[..., Guest]


@pytest.fixture
async def open_guest() -> AsyncIterator[Open]:
    """Opens exchanges that may reach loopback and any host by any method, unless said otherwise."""
    opened: list[Egress] = []

    def open_one(
        *rules: grants.HttpRule,
        credentials: Mapping[str, Credential] | None = None,
        names: Mapping[str, Sequence[str]] | None = None,
        ceiling: HttpCeiling | None = None,
        **numbers: Any,
    ) -> Guest:
        async def resolve(host: str) -> Sequence[str]:
            try:
                return (names or {})[host]
            except KeyError:
                raise OSError(f"no such name: {host}") from None

        ceiling = ceiling or HttpCeiling(rules=(ANY,), private_networks=LOOPBACK)
        egress = Egress(ceiling, credentials, resolve=resolve)
        opened.append(egress)
        return Guest(egress.open(grants.HttpPolicy(rules or (ANY,), **numbers)))

    yield open_one
    for egress in opened:
        await egress.aclose()
