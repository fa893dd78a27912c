"""Tunnel: bytes between a guest's client and a server, unseen but for the name that TLS asks for."""

from __future__ import annotations

import asyncio

from wasmeval.egress.asking import ProxyClient
from wasmeval.egress.failure import REFUSED, HttpFailure
from wasmeval.egress.hello import Hello
from wasmeval.egress.meter import Meter, Record

_PIECE = 64 * 1024


class Tunnel:
    """Between `client` and a server that is connected. It is `run` once, and closes the server's connection.

    Its bytes are counted both ways. It ends when both sides have closed theirs, when one breaks off, when nothing
    goes through for `seconds` of the policy, or with the HttpFailure of a limit or of a greeting that is not as
    `hello` wants it: then the client sees an error, and the record says why.
    """

    def __init__(
        self,
        client: ProxyClient,
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        meter: Meter,
        record: Record,
        hello: Hello,
    ) -> None:
        self._client = client
        self._stream = client.stream
        self._reader, self._writer = server
        self._meter = meter
        self._record = record
        self._hello = hello
        self._loop = asyncio.get_running_loop()
        self._moved = self._loop.time()

    async def run(self) -> None:
        """To its end. Raises HttpFailure."""
        ways: list[asyncio.Task[None]] = []
        try:
            await self._client.connected()
            ways = [self._loop.create_task(way) for way in (self._to_server(), self._to_client())]
            both: asyncio.Future[list[None]] = asyncio.gather(*ways)
            watch = self._loop.create_task(self._watch())
            ways.append(watch)
            await asyncio.wait((both, watch), return_when=asyncio.FIRST_COMPLETED)
            if both.done():
                both.result()
        except OSError:
            self._stream.abort()
        except HttpFailure as failure:
            self._stream.abort()
            if failure.kind != REFUSED:
                self._record.refused = f"the tunnel was cut: {failure.message}"
            raise
        finally:
            for way in ways:
                way.cancel()
            self._writer.transport.abort()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _to_server(self) -> None:
        data = self._client.rest
        greeting, greeted = b"", False
        while data or (data := await self._stream.read(_PIECE)):
            self._moved = self._loop.time()
            self._meter.send(self._record, len(data))
            if not greeted:
                greeting += data
                greeted = self._hello.feed(data)
                data = greeting if greeted else b""
            if data:
                self._writer.write(data)
                await self._writer.drain()
            data = b""
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def _to_client(self) -> None:
        while data := await self._reader.read(_PIECE):
            self._moved = self._loop.time()
            self._meter.receive_wire(len(data))
            self._meter.receive(self._record, len(data))
            await self._stream.write(data)
        self._stream.close()

    async def _watch(self) -> None:
        """Ends when nothing has moved for too long."""
        most = self._meter.policy.seconds
        while (left := self._moved + most - self._loop.time()) > 0:
            await asyncio.sleep(left)
