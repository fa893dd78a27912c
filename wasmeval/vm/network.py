"""Network: the host's end of a microVM's way to a network, the connections of its guest to a proxy.

`guest/network.py` is the other end, and has the protocol. The guest is hostile, its kernel and its relay as well: every
frame is checked, what it sends and does not read is bounded, and a frame that cannot be is the end of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from time import monotonic
from typing import Protocol

logger = logging.getLogger(__name__)

WINDOW = 131072
"""Bytes of one connection and direction that wait for their reader; see guest/network.py."""
MOST_CONNECTIONS = 128
MOST_FRAME = 65536

# One that both sides have closed is over at the guest a little sooner than here, and another may have taken its place.
_MOST_LIVE = 2 * MOST_CONNECTIONS

_ABORTED = 0xFFFFFFFF
_ENDED = 0
_HEADER = struct.Struct("<II")

# As much as one connection puts at once: the others get theirs in between.
_PIECE = 32768
_READ_BYTES = 256 * 1024
_OUT_BYTES = 256 * 1024

# Frames cost the same however short they are. Where a flood of short ones comes, taking them gets a quarter of the
# loop's time at most; an honest relay sends many together only when a client writes single bytes.
_SHORT_BYTES = 256
_FREE_FRAMES = 64
_SHARE = 3.0

PROXY = "http://127.0.0.1:3128"
ENVIRONMENT = {
    "http_proxy": PROXY,
    "https_proxy": PROXY,
    "HTTP_PROXY": PROXY,
    "HTTPS_PROXY": PROXY,
    "no_proxy": "localhost,127.0.0.1,::1",
    "NO_PROXY": "localhost,127.0.0.1,::1",
    "NODE_USE_ENV_PROXY": "1",
}
"""Variables by which programs in the guest find the relay; for jobs that have an HTTP policy."""

_NO_POLICY = b"this evaluation may send no HTTP requests; give it `http`"
_REFUSAL = b"HTTP/1.1 403 %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b\n" % (
    _NO_POLICY, len(_NO_POLICY) + 1, _NO_POLICY,
)  # fmt: skip


class NetworkViolation(Exception):
    """What came over the channel is not as agreed. The guest is not to be trusted any further: kill its machine."""


class Gateway(Protocol):
    """Answers for one evaluation's connections; an egress.Exchange is one."""

    async def serve(self, stream: Connection) -> None:
        """Be the proxy of one connection, to its end. Cancelled when the guest breaks it off."""


class Network:
    """The connections of one machine. `gateway` answers those that begin from now on; without one all are refused.

    `sock` is the channel's end, closed with this. `run` serves until the channel ends; on one event loop.
    """

    def __init__(self, sock: socket.socket, gateway: Gateway | None = None) -> None:
        self.gateway = gateway
        self._sock = sock
        self._frames = Frames()
        self._writer: asyncio.StreamWriter | None = None
        self._connections: dict[int, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last = 0
        self._closed = False

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def run(self) -> None:
        """Serve the guest until the channel ends, or is closed here. Raises NetworkViolation; all is closed then."""
        try:
            if self._closed:
                return
            self._sock.setblocking(False)
            reader, self._writer = await asyncio.open_connection(sock=self._sock, limit=_READ_BYTES)
            self._writer.transport.set_write_buffer_limits(high=_OUT_BYTES)
            with contextlib.suppress(ConnectionError):
                while (data := await reader.read(_READ_BYTES)) and not self._closed:
                    began = monotonic()
                    frames = self._frames.feed(data)
                    for number, payload in frames:
                        self._take(number, payload)
                    # A guest that does not read what it is sent is not heard either.
                    await self._writer.drain()
                    if len(frames) > max(_FREE_FRAMES, len(data) // _SHORT_BYTES):
                        await asyncio.sleep(_SHARE * (monotonic() - began))
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Break off every connection and close the channel. Safe to call twice."""
        self._closed = True
        self._connections.clear()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            if self._writer is not None:
                self._writer.transport.abort()
            self._sock.close()

    # --- what comes ----------------------------------------------------------------------------------------------

    def _take(self, number: int, payload: bytes) -> None:
        if not number:
            self._control(payload)
            return
        if number > self._last:
            self._open(number)
        connection = self._connections.get(number)
        # One that is over here: its last frames crossed that on their way.
        if connection is not None:
            connection.take(payload)

    def _open(self, number: int) -> None:
        if number != self._last + 1:
            raise NetworkViolation(f"connection {number} after {self._last}")
        if len(self._connections) >= _MOST_LIVE:
            raise NetworkViolation(f"more than {_MOST_LIVE} connections")
        self._last = number
        connection = self._connections[number] = Connection(self, number)
        connection.task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(connection.task)
        connection.task.add_done_callback(self._tasks.discard)

    def _control(self, payload: bytes) -> None:
        if len(payload) % _HEADER.size:
            raise NetworkViolation(f"{len(payload)} bytes of credits")
        for number, credit in _HEADER.iter_unpack(payload):
            if not 0 < number <= self._last:
                raise NetworkViolation(f"credit for connection {number} of {self._last}")
            connection = self._connections.get(number)
            if connection is None:
                continue
            if credit == _ABORTED:
                self._forget(connection)
                connection.broke_off()
            else:
                connection.grant(credit)

    # --- what goes -----------------------------------------------------------------------------------------------

    async def _serve(self, connection: Connection) -> None:
        code = _ABORTED
        try:
            if self.gateway is None:
                await connection.write(_REFUSAL)
            else:
                await self.gateway.serve(connection)
            code = _ENDED
        except ConnectionError:
            pass  # the guest has gone
        except Exception as error:
            # A bug of ours, or of a server's making, is no reason to stop the others. Its message may quote the guest.
            logger.error("internal error in a connection of a guest: %s", type(error).__name__)
        finally:
            if self._forget(connection):
                self.put(0, _HEADER.pack(connection.number, _ABORTED if connection.aborted else code))

    def _forget(self, connection: Connection) -> bool:
        """Whether it was still there."""
        return self._connections.pop(connection.number, None) is not None

    def put(self, number: int, payload: bytes) -> None:
        """Send a frame, soon."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(_HEADER.pack(number, len(payload)) + payload)

    async def drain(self) -> None:
        """Wait until there is room for more."""
        if self._writer is not None:
            await self._writer.drain()


class Connection:
    """One connection of the guest's, as a stream of bytes each way. Every wait in it ends when the guest is gone."""

    def __init__(self, network: Network, number: int) -> None:
        self.number = number
        self.task: asyncio.Task[None] | None = None
        self.aborted = False
        self._network = network
        self._data = bytearray()
        self._last = False  # the guest sends no more
        self._room = WINDOW  # bytes that it may send
        self._owed = 0  # bytes that were read and not given credit for
        self._credit = WINDOW  # bytes that it may be sent
        self._closed = False  # it is sent no more
        self._news = asyncio.Event()
        self._granted = asyncio.Event()

    async def read(self, most: int) -> bytes:
        """At least one byte and at most `most`; none when the guest has closed its side."""
        while not self._data and not self._last:
            self._news.clear()
            await self._news.wait()
        data = bytes(self._data[:most])
        del self._data[:most]
        self._owed += len(data)
        if self._owed >= WINDOW // 4 and not self._last:
            self._room += self._owed
            self._network.put(0, _HEADER.pack(self.number, self._owed))
            self._owed = 0
        return data

    async def write(self, data: bytes) -> None:
        """Send it, as the guest takes it. Raises ConnectionError when this side was closed."""
        view = memoryview(data)
        while view:
            while not self._credit:
                self._granted.clear()
                await self._granted.wait()
            if self._closed:
                raise ConnectionResetError("this side was closed")
            piece = view[: min(_PIECE, self._credit)]
            self._credit -= len(piece)
            self._network.put(self.number, bytes(piece))
            view = view[len(piece) :]
            await self._network.drain()

    def close(self) -> None:
        """Send no more; what the guest sends can still be read."""
        if not self._closed:
            self._closed = True
            self._network.put(self.number, b"")

    def abort(self) -> None:
        """When it is over, let the guest's client see an error and no end."""
        self.aborted = True

    # --- for Network ---------------------------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """What the guest sent; nothing is its end."""
        if self._last:
            raise NetworkViolation(f"{len(data)} bytes of connection {self.number} after its end")
        if len(data) > self._room:
            raise NetworkViolation(f"{len(data)} bytes where {self._room} may come")
        self._room -= len(data)
        self._data += data
        self._last = not data
        self._news.set()

    def grant(self, credit: int) -> None:
        """The guest's client took so many bytes."""
        if not 0 < credit <= WINDOW - self._credit:
            raise NetworkViolation(f"credit of {credit} where {WINDOW - self._credit} are on their way")
        self._credit += credit
        self._granted.set()

    def broke_off(self) -> None:
        """The guest's client is gone."""
        if self.task is not None:
            self.task.cancel()


class Frames:
    """Makes frames of the bytes of a channel. Holds less than one."""

    def __init__(self) -> None:
        self._coming = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Connection and bytes of all that are whole now. Raises NetworkViolation."""
        coming = self._coming
        coming += data
        view = memoryview(coming)
        frames = []
        at = 0
        try:
            while len(coming) - at >= _HEADER.size:
                number, length = _HEADER.unpack_from(coming, at)
                if length > MOST_FRAME:
                    raise NetworkViolation(f"a frame of {length} bytes")
                end = at + _HEADER.size + length
                if end > len(coming):
                    break
                frames.append((number, bytes(view[at + _HEADER.size : end])))
                at = end
        finally:
            view.release()
        del coming[:at]
        return frames
