"""ProxyClient: a client that speaks HTTP to the proxy, one request a connection. Loads h11."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Protocol

import h11

from wasmeval.egress.failure import REFUSED, HttpFailure
from wasmeval.egress.order import MOST_HEADER_BYTES, MOST_HEADERS, Headers
from wasmeval.egress.target import MOST_URL

_READ_BYTES = 64 * 1024
_SHOWN = 200
"""Characters of a reason: many clients show nothing else of a refused tunnel."""


class Stream(Protocol):
    """One connection of a guest's, a stream of bytes each way. Who opened it closes it once it was served."""

    async def read(self, most: int) -> bytes:
        """At least one byte and at most `most`; none when the guest has closed its side."""

    async def write(self, data: bytes) -> None:
        """As the guest takes it. Raises ConnectionError when it is gone."""

    def close(self) -> None:
        """Send no more; what the guest sends can still be read."""

    def abort(self) -> None:
        """When it is over, let the guest see an error and no end."""


class BadRequest(HttpFailure):
    """What came is no request to a proxy."""

    def __init__(self, message: str) -> None:
        super().__init__(REFUSED, {"message": message})


class ProxyClient:
    """What is asked for on `stream`, and how it is answered. A request that is none raises BadRequest."""

    def __init__(self, stream: Stream) -> None:
        self.began = False
        """Whether it was sent the head of an answer."""
        self.stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEADER_BYTES + MOST_URL)

    async def request(self) -> h11.Request | None:
        """What it asks for; None when it has gone without a word."""
        event = await self._event()
        if isinstance(event, h11.ConnectionClosed):
            return None
        assert isinstance(event, h11.Request)
        if len(event.headers) > MOST_HEADERS:
            raise BadRequest(f"the request has more than {MOST_HEADERS} headers")
        return event

    async def body(self) -> AsyncIterator[bytes]:
        """The pieces of the request's body, without its framing."""
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)

    async def begin(self, status: int, reason: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """The head of the answer; its body is framed as that says, in chunks when it does not."""
        self.began = True
        response = h11.Response(
            status_code=status, reason=reason, headers=[*headers, (b"Connection", b"close")]
        )
        await self._send(response)

    async def send(self, data: bytes) -> None:
        """A piece of the answer's body."""
        if data:
            await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """The answer is whole."""
        await self._send(h11.EndOfMessage())

    @property
    def rest(self) -> bytes:
        """What came after a request for a tunnel."""
        return bytes(self._http.trailing_data[0])

    async def connected(self) -> None:
        """From here on it is a tunnel."""
        self.began = True
        await self.stream.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

    async def refuse(self, status: int, message: str) -> None:
        """An answer that says why there is no other, in its reason too."""
        self.began = True
        plain = "".join(char if " " <= char <= "~" else "?" for char in message)
        lines = [
            f"HTTP/1.1 {status} {plain[:_SHOWN]}",
            "Content-Type: text/plain",
            f"Content-Length: {len(plain) + 1}",
            "Connection: close",
            "",
            plain,
        ]
        await self.stream.write("\r\n".join(lines).encode("ascii") + b"\n")

    async def _event(self) -> h11.Event:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self.stream.read(_READ_BYTES))
        except h11.RemoteProtocolError as error:
            raise BadRequest(f"this is no request to an HTTP proxy: {error}") from None
        assert not isinstance(event, type)
        return event

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self.stream.write(data)


def headers_of(request: h11.Request) -> Headers:
    """The request's headers, without those that its `Connection` names."""
    named = {
        name.strip().lower()
        for key, value in request.headers
        if key == b"connection"
        for name in value.split(b",")
    }
    raw = request.headers.raw_items()
    return tuple((bytes(name), bytes(value)) for name, value in raw if name.lower() not in named)
