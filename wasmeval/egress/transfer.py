"""Transfer: one request of a guest, its redirects included, from the first check to the last byte. Loads httpcore."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass

import httpcore

from wasmeval.egress.body import Body
from wasmeval.egress.decoding import Decoder
from wasmeval.egress.failure import HttpFailure, failed, limit
from wasmeval.egress.hop import Means, decoder_of, hop, in_turns
from wasmeval.egress.meter import Record
from wasmeval.egress.order import Order
from wasmeval.egress.target import Target, join_target, parse_target

_REDIRECTS = frozenset([301, 302, 303, 307, 308])

# A redirect's own body is read when it is so short, so that its connection can be used again.
_REDIRECT_BODY_BYTES = 16 * 1024


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
            with self._means.meter.recorded(order.method) as record:
                target = join_target(base, url) if base else parse_target(url)
                record.host, record.path = target.authority, target.path
                if base and base.origin != target.origin:
                    home, order = False, order.for_another_origin()
                async with hop(self._means, record, order, target, home=home) as response:
                    location = self._location(response) if order.follow else None
                    if location is None:
                        await self._deliver(record, order.method, target, response, hops > 0)
                        return
                    await _drain(response)
            if hops >= most:
                raise failed("redirects", f"the request was redirected more than {most} times")
            base, url, order = target, location, order.redirected(response.status)

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
        decoder, headers = decoder_of(self._means, method, target, response)
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

    async def _pump(self, record: Record, response: httpcore.Response, decoder: Decoder) -> None:
        scrubbed = self._means.scrubber.stream()
        async for data in in_turns(response):
            for piece in decoder.feed(data):
                self._means.meter.receive(record, len(piece))
                await self.body.put(scrubbed.feed(piece))
        decoder.end()
        await self.body.put(scrubbed.end())


async def _drain(response: httpcore.Response) -> None:
    """Read the rest of a redirect, if there is little of it."""
    lengths = [value for name, value in response.headers if name.lower() == b"content-length"]
    if lengths and lengths[0].isdigit() and int(lengths[0][:12]) <= _REDIRECT_BODY_BYTES:
        async for _ in response.aiter_stream():
            pass


def _late(seconds: float, most: float) -> HttpFailure:
    """Whose time is up: the policy's, or the guest's own."""
    if seconds >= most:
        return limit("http.seconds", f"a request may take {most:g} s, to its last byte")
    return failed("timeout", f"the request took longer than its {seconds:g} s")
