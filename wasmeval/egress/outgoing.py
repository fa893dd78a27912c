"""Outgoing requests: the headers that go over the wire, the credential among them."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from wasmeval import __version__
from wasmeval.egress.ceiling import Credential
from wasmeval.egress.decoding import ACCEPTED
from wasmeval.egress.order import Headers, Order
from wasmeval.egress.target import Target

_DEFAULTS = ((b"Accept", b"*/*"), (b"User-Agent", f"wasmeval/{__version__}".encode("ascii")))

_RANGES = frozenset([b"range", b"if-range"])

# These say how long their body is even when it is empty. Source: RFC 9110, 8.6.
_WITH_BODY = frozenset(["POST", "PUT", "PATCH"])


def outgoing(
    order: Order, target: Target, credential: Credential | None, body: Headers | None = None
) -> tuple[Target, Headers]:
    """Where to send `order` and with which headers, once `credential` is added.

    `body` are the headers of a body that is not the order's own: of another client, which is sent no defaults. A
    request with a credential asks for no range: a server that echoes what it was sent could be asked for the secret
    in pieces, none of which is the secret.
    """
    if credential is None:
        return target, _headers(order, target, body)
    order = order.without(_RANGES)
    if credential.kind == "query":
        return target.with_parameter(credential.name, credential.secret), _headers(order, target, body)
    name, value = _header_of(credential)
    order = order.without(frozenset([name.lower()]))
    return target, (*_headers(order, target, body), (name, value))


def size(order: Order, target: Target) -> int:
    """Bytes that count as sent: what the guest decides, no matter what is added to it."""
    return len(order.method) + len(target.full_path) + _size(order.headers) + len(order.body)


def _size(headers: Headers) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)


def _headers(order: Order, target: Target, body: Headers | None) -> Headers:
    host = (b"Host", target.authority.encode("ascii"))
    if body is not None:
        return (host, *order.headers, *body)
    return (
        host,
        *order.headers,
        *_missing(order),
        (b"Accept-Encoding", accepted(order)),
        *_length(order),
    )


def _missing(order: Order) -> Iterator[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in order.headers}
    return (default for default in _DEFAULTS if default[0].lower() not in present)


def accepted(order: Order) -> bytes:
    """The encodings that a body may come in that is to be decoded."""
    # A part of a compressed body cannot be decoded.
    return b"identity" if any(name.lower() == b"range" for name, _ in order.headers) else ACCEPTED


def _length(order: Order) -> Headers:
    if order.body or order.method in _WITH_BODY:
        return ((b"Content-Length", str(len(order.body)).encode("ascii")),)
    return ()


def _header_of(credential: Credential) -> tuple[bytes, bytes]:
    secret = credential.secret.encode("ascii")
    if credential.kind == "bearer":
        return b"Authorization", b"Bearer " + secret
    if credential.kind == "basic":
        return b"Authorization", b"Basic " + base64.b64encode(secret)
    return credential.name.encode("ascii"), secret
