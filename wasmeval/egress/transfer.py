"""Transfer: one request of a guest, its redirects included, from the first check to the last byte. Loads httpcore."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import httpcore

from wasmeval.egress.body import Body
from wasmeval.egress.decoding import BadEncoding, Decoder, Identity, decoder_for
from wasmeval.egress.failure import REFUSED, HttpFailure, failed, limit
from wasmeval.egress.gate import Gate
from wasmeval.egress.meter import Meter, Record
from wasmeval.egress.network import explain
from wasmeval.egress.order import Headers, Order
from wasmeval.egress.outgoing import outgoing, size
from wasmeval.egress.scrub import Scrubber
from wasmeval.egress.target import Target, join_target, parse_target

_REDIRECTS = frozenset([301, 302, 303, 307, 308])

# A redirect's own body is read when it is so short, so that its connection can be used again.
_REDIRECT_BODY_BYTES = 16 * 1024

# Parsing costs for each piece of a body, however short: a server that sends single bytes would hold up the front
# process. An event stream's pieces have some hundred bytes, and 16 MiB of honest ones are far fewer.
_FREE_PIECES = 65_536
_PIECE_BYTES = 64
_TURN_PIECES = 64

# The connection's own business, not the guest's. Source: RFC 9110, 7.6.1.
_HOP_BY_HOP = frozenset(
    [b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"]
)


@dataclass(frozen=True, slots=True)
class Means:
    """What the requests of one evaluation share."""

    gate: Gate
    meter: Meter
    scrubber: Scrubber
    pool: httpcore.AsyncConnectionPool


@dataclass(frozen=True, slots=True)
class Head:
    """A response without its body, as the guest may see it."""

    status: int
    reason: str
    url: str
    headers: list[tuple[str, str]]
    redirected: bool


class Transfer:
    """Runs as a task of its own; `head` and `body` are what others wait for. Cancelling it aborts the connection."""

    def __init__(self, means: Means, order: Order) -> None:
        self.head: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self.body = Body()
        self._means = means
        self._order = order

    async def run(self) -> None:
        """The whole of it. A failure is set in `head`, or in `body` once the head has come."""
        most = self._means.meter.policy.seconds
        seconds = min(most, self._order.seconds or most)
        try:
            async with asyncio.timeout(seconds):
                await self._follow()
            self.body.end()
        except HttpFailure as failure:
            self._fail(failure)
        except TimeoutError:
            self._fail(_late(seconds, most))
        except BaseException:
            self._fail(failed("gone", "the request was given up"))
            raise

    def _fail(self, failure: HttpFailure) -> None:
        if self.head.done():
            self.body.fail(failure)
        else:
            self.head.set_exception(failure)
            self.head.exception()  # seen: whoever asked may be gone by now

    async def _follow(self) -> None:
        """One hop after the other until there is a response to deliver."""
        order, url, most = self._order, self._order.url, self._means.meter.policy.redirects
        base: Target | None = None
        home = True  # no hop has left the origin that the guest asked for
        for hops in itertools.count():
            with self._recorded(order.method) as record:
                target = join_target(base, url) if base else parse_target(url)
                record.host, record.path = target.authority, target.path
                if base and base.origin != target.origin:
                    home, order = False, order.for_another_origin()
                async with self._response(record, order, target, home) as response:
                    location = self._location(response) if order.follow else None
                    if location is None:
                        await self._deliver(record, order.method, target, response, hops > 0)
                        return
                    await _drain(response)
            if hops >= most:
                raise failed("redirects", f"the request was redirected more than {most} times")
            base, url, order = target, location, order.redirected(response.status)

    @contextmanager
    def _recorded(self, method: str) -> Iterator[Record]:
        """One entry of the Result's list, which says why when the request is refused."""
        record = self._means.meter.begin(method)
        try:
            yield record
        except HttpFailure as failure:
            if failure.kind == REFUSED:
                record.refused = failure.message
            raise
        finally:
            self._means.meter.end(record)

    @asynccontextmanager
    async def _response(
        self, record: Record, order: Order, target: Target, home: bool
    ) -> AsyncIterator[httpcore.Response]:
        """The response to one hop, checked before anything is resolved or sent; closed at the end.

        `home`: only then the rule's credential is added. Another origin that a redirect names must not be sent it, even
        if a rule of its own has one: it is the first server, not the guest, that chose this request.
        """
        gate = self._means.gate
        rule = gate.rule_for(order.method, target)
        await gate.admit(target.host)
        self._means.meter.send(record, size(order, target))
        request = _request(
            order, *outgoing(order, target, gate.credential_for(rule, target) if home else None)
        )
        response: httpcore.Response | None = None
        try:
            response = await self._means.pool.handle_async_request(request)
            record.status = response.status
            yield response
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            # An OSError: TLS that breaks in the middle comes as it is.
            raise explain(error, target.authority) from None
        except BadEncoding:
            raise failed(
                "protocol", f"the body from {target.authority} is not as its Content-Encoding says"
            ) from None
        finally:
            if response is not None:
                await response.aclose()

    def _location(self, response: httpcore.Response) -> str | None:
        """Where `response` redirects to. A secret in it is not carried on to where that leads."""
        found = [value for name, value in response.headers if name.lower() == b"location"]
        if response.status not in _REDIRECTS or not found:
            return None
        location = self._means.scrubber.whole(found[0])
        try:
            return location.decode("utf-8")
        except UnicodeDecodeError:
            return location.decode("latin-1")

    async def _deliver(
        self, record: Record, method: str, target: Target, response: httpcore.Response, redirected: bool
    ) -> None:
        """Hand the response on: its head at once, its body as it comes and as the guest takes it."""
        if response.status < 200:
            raise failed("protocol", f"{target.authority} answered {response.status}, which nobody asked for")
        decoder, headers = self._decoder(method, target, response)
        self._means.meter.receive(record, sum(len(name) + len(value) + 4 for name, value in headers))
        clean = self._means.scrubber.whole
        head = Head(
            status=response.status,
            reason=clean(response.extensions.get("reason_phrase", b"")).decode("latin-1"),
            url=self._means.scrubber.text(str(target)),
            headers=[
                (clean(name).decode("latin-1"), clean(value).decode("latin-1")) for name, value in headers
            ],
            redirected=redirected,
        )
        if not self.head.done():
            self.head.set_result(head)
        await self._pump(record, response, decoder)

    def _decoder(
        self, method: str, target: Target, response: httpcore.Response
    ) -> tuple[Decoder, list[tuple[bytes, bytes]]]:
        """What undoes the response's encoding, and the headers that are true of the decoded body."""
        headers = [header for header in response.headers if header[0].lower() not in _HOP_BY_HOP]
        encoding = b", ".join(value for name, value in headers if name.lower() == b"content-encoding")
        if not encoding or method == "HEAD" or response.status in (204, 304):
            return Identity(), headers
        decoder = decoder_for(encoding.decode("latin-1"))
        if decoder is not None:
            gone = (b"content-encoding", b"content-length")
            return decoder, [header for header in headers if header[0].lower() not in gone]
        if self._means.scrubber:
            raise failed("protocol", f"{target.authority} sent an encoding that it was not asked for")
        return Identity(), headers

    async def _pump(self, record: Record, response: httpcore.Response, decoder: Decoder) -> None:
        scrubbed = self._means.scrubber.stream()
        async for data in _in_turns(response):
            for piece in decoder.feed(data):
                self._means.meter.receive(record, len(piece))
                await self.body.put(scrubbed.feed(piece))
        decoder.end()
        await self.body.put(scrubbed.end())


async def _in_turns(response: httpcore.Response) -> AsyncIterator[bytes]:
    """The pieces of the body; others get a turn in between, and a flood of tiny pieces ends."""
    count = total = 0
    async for data in response.aiter_stream():
        count += 1
        total += len(data)
        if count > _FREE_PIECES and total < count * _PIECE_BYTES:
            raise failed(
                "protocol",
                f"the body comes in more than {_FREE_PIECES} pieces of less than {_PIECE_BYTES} bytes",
            )
        yield data
        if count % _TURN_PIECES == 0:
            await asyncio.sleep(0)


async def _drain(response: httpcore.Response) -> None:
    """Read the rest of a redirect, if there is little of it."""
    lengths = [value for name, value in response.headers if name.lower() == b"content-length"]
    if lengths and lengths[0].isdigit() and int(lengths[0][:12]) <= _REDIRECT_BODY_BYTES:
        async for _ in response.aiter_stream():
            pass


def _request(order: Order, target: Target, headers: Headers) -> httpcore.Request:
    url = httpcore.URL(
        scheme=target.scheme.encode("ascii"),
        host=target.host.encode("ascii"),
        port=target.port,
        target=target.full_path.encode("ascii"),
    )
    return httpcore.Request(order.method.encode("ascii"), url, headers=list(headers), content=order.body)


def _late(seconds: float, most: float) -> HttpFailure:
    """Whose time is up: the policy's, or the guest's own."""
    if seconds >= most:
        return limit("http.seconds", f"a request may take {most:g} s, to its last byte")
    return failed("timeout", f"the request took longer than its {seconds:g} s")
