"""Proxy: answers connections of a guest that speak HTTP as to a proxy. Loads httpcore and h11."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import h11
import httpcore

from wasmeval.egress.asking import BadRequest, ProxyClient, Stream, headers_of
from wasmeval.egress.decoding import Decoder, Identity
from wasmeval.egress.failure import LIMIT, REFUSED, HttpFailure, failed, limit
from wasmeval.egress.hello import Hello
from wasmeval.egress.hop import Means, Streamed, decoder_of, hop, in_turns, theirs_of
from wasmeval.egress.hosts import canonical_host, split_port
from wasmeval.egress.meter import Meter, Record
from wasmeval.egress.network import connect
from wasmeval.egress.order import Order, check_method, theirs
from wasmeval.egress.outgoing import accepted, size
from wasmeval.egress.target import MOST_URL, Target, parse_target
from wasmeval.egress.tunnel import Tunnel

MOST_TUNNELS = 64
"""Of one evaluation at once; one more waits until another ends, within the policy's seconds."""


class Proxy:
    """The proxy of one evaluation: `CONNECT` for tunnels, absolute URLs for requests that are sent from here.

    `means` gives what its requests share. Each is checked and counted as a guest's own; see Exchange.
    """

    def __init__(self, means: Callable[[], Awaitable[Means]], meter: Meter) -> None:
        self._means = means
        self._meter = meter
        self._tunnels = asyncio.Semaphore(MOST_TUNNELS)

    async def serve(self, stream: Stream) -> None:
        """One connection, one request. What cannot be answered as it asks is answered with the reason why.

        Raises ConnectionError when the guest is gone.
        """
        client = ProxyClient(stream)
        try:
            try:
                async with asyncio.timeout(self._meter.policy.seconds):
                    request = await client.request()
            except BadRequest as failure:
                with self._meter.recorded(""):
                    raise failure
            if request is not None:
                await self._answer(client, request)
        except HttpFailure as failure:
            if client.began:
                stream.abort()
            else:
                await client.refuse(status_of(failure), failure.message)
        except TimeoutError:
            await client.refuse(408, "no request came in time")

    async def _answer(self, client: ProxyClient, request: h11.Request) -> None:
        method = request.method.decode("ascii")
        with self._meter.recorded(method) as record:
            if method == "CONNECT":
                await self._tunnel(client, request, record)
                return
            seconds = self._meter.policy.seconds
            try:
                async with asyncio.timeout(seconds):
                    await self._forward(client, request, record)
            except TimeoutError:
                raise late(seconds) from None

    # --- tunnels -------------------------------------------------------------------------------------------------

    async def _tunnel(self, client: ProxyClient, request: h11.Request, record: Record) -> None:
        target = _tunnel_target(request.target)
        record.host = target.authority
        means = await self._means()
        means.gate.check_tunnel(target)
        self._meter.send(record, size(_order("CONNECT", target, request), target))
        async with AsyncExitStack() as stack:
            seconds = self._meter.policy.seconds
            try:
                async with asyncio.timeout(seconds):
                    await stack.enter_async_context(self._tunnels)
                    await means.gate.admit(target.host)
                    server = await connect(means.gate.pins[target.host], target)
            except TimeoutError:
                raise late(seconds) from None
            record.status = 200
            await Tunnel(client, server, self._meter, record, Hello(target.host)).run()

    # --- requests ------------------------------------------------------------------------------------------------

    async def _forward(self, client: ProxyClient, request: h11.Request, record: Record) -> None:
        url = request.target.decode("ascii")
        if "://" not in url:
            raise BadRequest("this is a proxy: ask it with CONNECT HOST:PORT or with an absolute URL")
        target = parse_target(url)
        record.host, record.path = target.authority, target.path
        order = _order(check_method(record.method), target, request)
        means = await self._means()
        streamed = self._streamed(client, request, order, means, record)
        async with hop(means, record, order, target, streamed=streamed) as response:
            await self._deliver(client, means, record, order, target, response)

    def _streamed(
        self, client: ProxyClient, request: h11.Request, order: Order, means: Means, record: Record
    ) -> Streamed:
        """The body as it comes. Its response may be encoded as the client likes, unless it is to be looked through."""
        own = {name: (name, value) for name, value in request.headers}
        if means.scrubber:
            own[b"accept-encoding"] = (b"Accept-Encoding", accepted(order))
        names = (b"accept-encoding", b"content-length", b"transfer-encoding")
        headers = tuple(own[name] for name in names if name in own)
        has_body = b"content-length" in own or b"transfer-encoding" in own
        return Streamed(headers, self._counted(client.body(), record) if has_body else None)

    async def _counted(self, pieces: AsyncIterator[bytes], record: Record) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self._meter.send(record, len(piece))
            yield piece

    async def _deliver(
        self,
        client: ProxyClient,
        means: Means,
        record: Record,
        order: Order,
        target: Target,
        response: httpcore.Response,
    ) -> None:
        if response.status < 200:
            raise failed("protocol", f"{target.authority} answered {response.status}, which nobody asked for")
        decoder: Decoder = Identity()
        headers = theirs_of(response)
        if means.scrubber:
            decoder, headers = decoder_of(means, order.method, target, response)
        self._meter.receive(record, sum(len(name) + len(value) + 4 for name, value in headers))
        clean = means.scrubber.whole
        reason = clean(response.extensions.get("reason_phrase", b""))
        await client.begin(response.status, reason, [(clean(name), clean(value)) for name, value in headers])
        scrubbed = means.scrubber.stream()
        async for data in in_turns(response):
            for piece in decoder.feed(data):
                self._meter.receive(record, len(piece))
                await client.send(scrubbed.feed(piece))
        decoder.end()
        await client.send(scrubbed.end())
        await client.end()


def status_of(failure: HttpFailure) -> int:
    """The status that tells a client of `failure`."""
    if isinstance(failure, BadRequest):
        return 400
    if failure.name in ("http.seconds", "timeout"):
        return 504
    return {REFUSED: 403, LIMIT: 429}.get(failure.kind, 502)


def late(seconds: float) -> HttpFailure:
    """The policy's time for a request is up."""
    return limit("http.seconds", f"a request may take {seconds:g} s, to its last byte")


def _order(method: str, target: Target, request: h11.Request) -> Order:
    return Order(method, str(target), theirs(headers_of(request)), b"", False, None)


def _tunnel_target(text: bytes) -> Target:
    """Where `CONNECT` is to lead; raises BadRequest."""
    host, port = "", ""
    try:
        host, port = split_port(text.decode("ascii")[:MOST_URL])
        host = canonical_host(host)
    except ValueError as error:
        raise BadRequest(f"CONNECT takes HOST:PORT: {error}") from None
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise BadRequest("CONNECT takes HOST:PORT, the port a number from 1 to 65535")
    return Target("https", host, int(port), "", "", None)
