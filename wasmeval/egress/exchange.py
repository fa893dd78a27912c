"""Exchange: the HTTP of one evaluation."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wasmeval.egress.body import MOST_HELD
from wasmeval.egress.failure import HttpFailure, failed, limit
from wasmeval.egress.meter import Meter
from wasmeval.egress.order import Order, parse_order
from wasmeval.grants import HttpUse

if TYPE_CHECKING:
    from wasmeval.egress.asking import Stream
    from wasmeval.egress.hop import Means
    from wasmeval.egress.proxy import Proxy
    from wasmeval.egress.transfer import Head, Transfer

_FIRST_STREAM = 1 << 30
"""Streams are numbered from here, so that none has the number of a call: the guest's `drop` takes either."""

MOST_OPEN = 32
"""Responses that are begun and not read to their end: as many as there are connections."""

# How long a response waits for the rest of a short body, which mostly comes with its head: one answer in place of
# two. Unmeasured.
_GATHER_SECONDS = 0.002

Connect = Callable[[], Awaitable["Means"]]


@dataclass(frozen=True, slots=True)
class _Running:
    transfer: Transfer
    task: asyncio.Task[None]


class Exchange:
    """All requests of one evaluation: its own connections, names and counts, shared with no other. `aclose` ends it.

    Any number of requests and reads may be under way. Cancelling a `request` aborts its connection. One that is
    refused or fails raises HttpFailure and changes nothing for the others. Used by one event loop.
    """

    def __init__(self, meter: Meter, connect: Connect, closed: Callable[[Exchange], None]) -> None:
        self._meter = meter
        self._connect = connect
        self._on_close = closed
        self._means: asyncio.Future[Means] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._streams: dict[int, _Running] = {}
        self._numbers = itertools.count(_FIRST_STREAM)
        self._proxy: Proxy | None = None
        self._closed = False

    @property
    def uses(self) -> list[HttpUse]:
        """All requests so far, those under way too; each hop of a redirect by itself."""
        return self._meter.uses()

    async def request(self, body: bytes) -> bytes:
        """Send the `http` operation `body`, its first byte left out; the outcome of kind 0.

        It has as much of the response's body as has come; the rest is `read` from the stream that its head names.
        Raises HttpFailure.
        """
        order = self._order(body)
        means = await self._connected()
        running = self._start(means, order)
        try:
            head = await running.transfer.head
            await _gathered(running.transfer)
        except BaseException:
            running.task.cancel()
            raise
        return self._outcome(head, running)

    async def serve(self, stream: Stream) -> None:
        """Be the proxy of one connection of the guest's, to its end; its requests count among the others.

        Whoever calls closes `stream` afterwards. Raises ConnectionError when the guest is gone; the end of the exchange
        cancels it.
        """
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            # Loads what the proxy takes, off the loop. The guest is told of a failure when it asks for something.
            with contextlib.suppress(HttpFailure):
                await self._connected()
            if self._proxy is None:
                from wasmeval.egress.proxy import Proxy

                self._proxy = Proxy(self._connected, self._meter)
            await self._proxy.serve(stream)
        finally:
            self._running.discard(task)

    async def read(self, stream: int, most: int) -> bytes:
        """At least one byte of `stream` and at most `most` (or 256 KiB); none at its end. Raises HttpFailure.

        A stream that has ended, either way, is forgotten.
        """
        running = self._streams.get(stream)
        if running is None:
            raise failed(
                "gone", f"there is no stream {stream}: it was read to its end, dropped, or never begun"
            )
        try:
            data = await running.transfer.body.read(max(1, min(most, MOST_HELD)))
        except HttpFailure:
            self._streams.pop(stream, None)
            raise
        if not data:
            self._streams.pop(stream, None)
        return data

    def drop(self, stream: int) -> None:
        """Give up `stream` and its connection; nothing happens when there is none."""
        running = self._streams.pop(stream, None)
        if running is not None:
            running.task.cancel()

    async def aclose(self) -> None:
        """Abort whatever is under way and close every connection. Safe to call twice."""
        self._closed = True
        self._on_close(self)
        self._streams.clear()
        running = list(self._running)
        for task in running:
            task.cancel()
        means, self._means = self._means, None
        try:
            await asyncio.gather(*running, return_exceptions=True)
        finally:
            if means is not None:
                await _close(means)

    def _order(self, body: bytes) -> Order:
        if self._closed:
            raise failed("gone", "the evaluation is over")
        if len(self._streams) >= MOST_OPEN:
            raise limit(
                "http.open", f"{MOST_OPEN} responses are not read to their end; read, close or drop some"
            )
        try:
            return parse_order(body)
        except HttpFailure as failure:
            record = self._meter.begin("")
            record.refused = failure.message
            self._meter.end(record)
            raise

    async def _connected(self) -> Means:
        if self._means is None:
            self._means = asyncio.ensure_future(self._connect())
        # Shielded: another request may wait for the same, whatever becomes of this one.
        means = await asyncio.shield(self._means)
        if self._closed:
            raise failed("gone", "the evaluation is over")
        return means

    def _start(self, means: Means, order: Order) -> _Running:
        from wasmeval.egress.transfer import Transfer

        transfer = Transfer(means, order)
        task = asyncio.get_running_loop().create_task(transfer.run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return _Running(transfer, task)

    def _outcome(self, head: Head, running: _Running) -> bytes:
        data = running.transfer.body.take(MOST_HELD)
        stream = 0
        if not running.transfer.body.finished:
            stream = next(self._numbers)
            self._streams[stream] = running
        document = {
            "status": head.status,
            "reason": head.reason,
            "url": head.url,
            "headers": head.headers,
            "redirected": head.redirected,
            "stream": stream,
        }
        text = json.dumps(document).encode("ascii")
        return struct.pack("<I", len(text)) + text + data


async def _gathered(transfer: Transfer) -> None:
    try:
        async with asyncio.timeout(_GATHER_SECONDS):
            await transfer.body.gathered()
    except TimeoutError:
        pass


async def _close(connecting: asyncio.Future[Means]) -> None:
    connecting.cancel()
    try:
        means = await connecting
    except (asyncio.CancelledError, Exception):  # it was not connected yet, or never could be
        return
    await means.pool.aclose()
