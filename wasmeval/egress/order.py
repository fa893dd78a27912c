"""Order: a guest's request as it asked for it, checked as far as that goes without its URL."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, replace
from typing import Any

from wasmeval.egress.failure import refused
from wasmeval.egress.rules import FORBIDDEN_METHODS

MOST_HEAD = 256 * 1024
"""Bytes of the JSON head."""
MOST_HEADERS = 128
MOST_HEADER_BYTES = 64 * 1024
"""Of all headers together, names included."""

Headers = tuple[tuple[bytes, bytes], ...]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_METHOD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# Headers that say how the message is framed or how the connection is used. They are ours to set, a guest's are left
# out: client libraries set them as a matter of course.
_OURS = frozenset([
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer",
    "proxy-authorization", "proxy-authenticate", "upgrade", "expect", "http2-settings", "accept-encoding",
])  # fmt: skip

_PRIVATE = frozenset([b"authorization", b"cookie", b"cookie2"])
_OF_BODY = frozenset([b"content-type", b"content-encoding", b"content-language", b"content-location"])


@dataclass(frozen=True, slots=True)
class Order:
    """What the guest wants sent. `seconds` is its own time-out, if it has one; `url` is not parsed yet."""

    method: str
    url: str
    headers: Headers
    body: bytes
    follow: bool
    seconds: float | None

    def without(self, names: frozenset[bytes]) -> Order:
        return replace(self, headers=tuple(h for h in self.headers if h[0].lower() not in names))

    def for_another_origin(self) -> Order:
        """Without what was meant for the first origin only. Source: Fetch standard, HTTP-redirect fetch."""
        return self.without(_PRIVATE)

    def redirected(self, status: int) -> Order:
        """The request that a redirect with `status` asks for. Source: Fetch standard, HTTP-redirect fetch."""
        to_get = (status in (301, 302) and self.method == "POST") or (
            status == 303 and self.method not in ("GET", "HEAD")
        )
        return replace(self.without(_OF_BODY), method="GET", body=b"") if to_get else self


def parse_order(request: bytes) -> Order:
    """The order in an `http` operation, its first byte left out. Every byte is hostile; raises HttpFailure."""
    if len(request) < 4:
        raise refused("the request has no head")
    (length,) = struct.unpack_from("<I", request)
    if length > min(MOST_HEAD, len(request) - 4):
        raise refused(f"the request's head of {length} bytes is cut off or has more than {MOST_HEAD}")
    # Loaded late: most evaluations send nothing, and a command line is to start at once.
    import orjson

    try:
        head = orjson.loads(request[4 : 4 + length])
    except orjson.JSONDecodeError:
        raise refused("the request's head is not JSON") from None
    if not isinstance(head, dict):
        raise refused("the request's head is not a JSON object")
    return Order(
        method=check_method(head.get("method")),
        url=_text(head.get("url"), "url"),
        headers=_headers(head.get("headers")),
        body=request[4 + length :],
        follow=_follow(head.get("redirect", "follow")),
        seconds=_seconds(head.get("seconds")),
    )


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise refused(f"the request's {name} is not a string")
    return value


def check_method(value: Any) -> str:
    """`value` in capitals; raises HttpFailure when it is no method that can be sent."""
    method = _text(value, "method")
    if not _METHOD.fullmatch(method) or method.upper() in FORBIDDEN_METHODS:
        raise refused(f"{method[:40]!r} is not a method that can be sent")
    return method.upper()


def _headers(value: Any) -> Headers:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MOST_HEADERS:
        raise refused(f"the request's headers are not a list of at most {MOST_HEADERS} pairs")
    headers = tuple(_header(pair) for pair in value)
    if sum(len(name) + len(content) for name, content in headers) > MOST_HEADER_BYTES:
        raise refused(f"the request's headers have more than {MOST_HEADER_BYTES} bytes")
    return theirs(headers)


def theirs(headers: Headers) -> Headers:
    """Those of `headers` that are not ours to set."""
    return tuple(header for header in headers if header[0].lower().decode("ascii") not in _OURS)


def _header(pair: Any) -> tuple[bytes, bytes]:
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        raise refused("a header of the request is not a pair of strings")
    name, content = pair[0], pair[1].strip(" \t")
    if not _TOKEN.fullmatch(name):
        raise refused(f"{name[:40]!r} is not a header's name")
    if not _VALUE.fullmatch(content):
        raise refused(f"the value of the header {name[:40]} has a control character, or one outside latin-1")
    return name.encode("ascii"), content.encode("latin-1")


def _follow(value: Any) -> bool:
    if value not in ("follow", "manual"):
        raise refused("the request's redirect is neither 'follow' nor 'manual'")
    return bool(value == "follow")


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        raise refused("the request's seconds are not a positive number")
    return float(value)
