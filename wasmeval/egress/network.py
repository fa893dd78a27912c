"""Network: connections that go to checked addresses only. Loaded at the first request, for httpcore takes its time."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

import httpcore

from wasmeval.egress.failure import HttpFailure, failed
from wasmeval.egress.meter import Meter
from wasmeval.egress.target import Target

MOST_CONNECTIONS = 32
"""Of one evaluation at once; a further request waits until one is free, within its own seconds."""

_KEEP_SECONDS = 15.0
_NEXT_ADDRESS_SECONDS = 5.0
"""How long an address is tried when there is another. Unmeasured."""

_READ_BYTES = 64 * 1024

Pins = Mapping[str, tuple[str, ...]]
"""Canonical host to the addresses that were checked for it."""


def open_pool(context: ssl.SSLContext, pins: Pins, meter: Meter) -> httpcore.AsyncConnectionPool:
    """One evaluation's connections: no proxy, no cookies, no retries, nothing from the environment."""
    return httpcore.AsyncConnectionPool(
        ssl_context=context,
        max_connections=MOST_CONNECTIONS,
        keepalive_expiry=_KEEP_SECONDS,
        http2=False,
        retries=0,
        network_backend=PinnedBackend(pins, meter),
    )


async def connect(
    addresses: tuple[str, ...], target: Target
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection for a tunnel, to the first of the checked `addresses` that takes one. Raises HttpFailure."""
    *others, last = addresses
    for address in others:
        try:
            async with asyncio.timeout(_NEXT_ADDRESS_SECONDS):
                return await asyncio.open_connection(address, target.port, limit=_READ_BYTES)
        except OSError:  # TimeoutError is one
            continue
    try:
        return await asyncio.open_connection(last, target.port, limit=_READ_BYTES)
    except OSError as error:
        raise failed("connect", f"could not connect to {target.authority}{_reason(error)}") from None


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the addresses in `pins` and resolves nothing.

    What was checked is what is connected to, whatever a name server says in between. TLS is not concerned: httpcore
    asks for the certificate of the URL's host.
    """

    def __init__(self, pins: Pins, meter: Meter) -> None:
        self._pins = pins
        self._meter = meter
        self._tcp = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        *others, last = self._pins[host]
        for address in others:
            try:
                return await self._connect(address, port, _NEXT_ADDRESS_SECONDS)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._connect(last, port, None)

    async def _connect(self, address: str, port: int, seconds: float | None) -> httpcore.AsyncNetworkStream:
        return MeteredStream(await self._tcp.connect_tcp(address, port, seconds), self._meter)


class MeteredStream(httpcore.AsyncNetworkStream):
    """A connection whose incoming bytes are counted, TLS's own not."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(min(max_bytes, _READ_BYTES), timeout)
        self._meter.receive_wire(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return MeteredStream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._meter)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def explain(error: Exception, where: str) -> HttpFailure:
    """What the guest may know of httpcore's `error`.

    Its own text is not handed on: it may name an address behind the host, or a header that we added.
    """
    cause = error if isinstance(error, OSError) else _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return failed("tls", f"the certificate of {where} does not verify: {cause.verify_message}")
    if isinstance(cause, ssl.SSLError):
        return failed("tls", f"TLS with {where} failed: {cause.reason or 'connection closed'}")
    if isinstance(error, httpcore.ConnectError):
        return failed("connect", f"could not connect to {where}{_reason(cause)}")
    if isinstance(error, httpcore.TimeoutException):
        return failed("timeout", f"{where} did not answer in time")
    if isinstance(error, httpcore.NetworkError | OSError):
        return failed("connect", f"the connection to {where} was lost")
    return failed("protocol", f"{where} does not speak HTTP as it should, or ended the connection early")


def _reason(cause: BaseException | None) -> str:
    """An operating system's word for `cause`, from wherever in its chain of causes it stands."""
    while cause is not None:
        errors = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause,)
        for error in errors:
            if isinstance(error, OSError) and error.errno:
                return f": {os.strerror(error.errno)}"
        cause = _cause(cause)
    return ""


def _cause(error: BaseException) -> BaseException | None:
    # The pool raises again `from None`, which forgets the cause; the context is the same exception.
    return error.__cause__ or error.__context__
