"""Hop: one request to one server, checked, and its response. Loads httpcore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpcore

from wasmeval.egress.decoding import BadEncoding, Decoder, Identity, decoder_for
from wasmeval.egress.failure import failed
from wasmeval.egress.gate import Gate
from wasmeval.egress.meter import Meter, Record
from wasmeval.egress.network import explain
from wasmeval.egress.order import Headers, Order
from wasmeval.egress.outgoing import outgoing, size
from wasmeval.egress.scrub import Scrubber
from wasmeval.egress.target import Target

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
class Streamed:
    """A request's body that is not in its order: the headers that describe it, and its pieces. None for no body."""

    headers: Headers
    pieces: AsyncIterator[bytes] | None


@asynccontextmanager
async def hop(
    means: Means,
    record: Record,
    order: Order,
    target: Target,
    *,
    home: bool = True,
    streamed: Streamed | None = None,
) -> AsyncIterator[httpcore.Response]:
    """The response to `order` from `target`, checked before anything is resolved or sent; closed at the end.

    `home`: only then the rule's credential is added. Another origin that a redirect names must not be sent it, even
    if a rule of its own has one: it is the first server, not the guest, that chose this request. Raises HttpFailure,
    also for what goes wrong while the context reads.
    """
    rule = means.gate.rule_for(order.method, target)
    await means.gate.admit(target.host)
    means.meter.send(record, size(order, target))
    credential = means.gate.credential_for(rule, target) if home else None
    to, headers = outgoing(order, target, credential, streamed.headers if streamed else None)
    request = _request(order, to, headers, streamed)
    response: httpcore.Response | None = None
    try:
        response = await means.pool.handle_async_request(request)
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


def theirs_of(response: httpcore.Response) -> list[tuple[bytes, bytes]]:
    """The response's headers that are not the connection's own."""
    return [header for header in response.headers if header[0].lower() not in _HOP_BY_HOP]


def decoder_of(
    means: Means, method: str, target: Target, response: httpcore.Response
) -> tuple[Decoder, list[tuple[bytes, bytes]]]:
    """What undoes the response's encoding, and the headers that are true of the decoded body."""
    headers = theirs_of(response)
    encoding = b", ".join(value for name, value in headers if name.lower() == b"content-encoding")
    if not encoding or method == "HEAD" or response.status in (204, 304):
        return Identity(), headers
    decoder = decoder_for(encoding.decode("latin-1"))
    if decoder is not None:
        gone = (b"content-encoding", b"content-length")
        return decoder, [header for header in headers if header[0].lower() not in gone]
    if means.scrubber:
        raise failed("protocol", f"{target.authority} sent an encoding that it was not asked for")
    return Identity(), headers


async def in_turns(response: httpcore.Response) -> AsyncIterator[bytes]:
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


def _request(order: Order, target: Target, headers: Headers, streamed: Streamed | None) -> httpcore.Request:
    url = httpcore.URL(
        scheme=target.scheme.encode("ascii"),
        host=target.host.encode("ascii"),
        port=target.port,
        target=target.full_path.encode("ascii"),
    )
    content = order.body if streamed is None else streamed.pieces
    return httpcore.Request(order.method.encode("ascii"), url, headers=list(headers), content=content)
