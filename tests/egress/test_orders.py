"""Orders: a guest's bytes are a request that can be sent, or are refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.egress.conftest import Open, Server, answer, encode
from wasmeval.egress import HttpFailure
from wasmeval.egress.order import MOST_HEADER_BYTES, Order, parse_order
from wasmeval.egress.target import parse_target


def parsed(parse: Callable[[Any], Any], value: Any) -> Any:
    """What `parse` makes of it, None when it is refused; nothing else may be raised."""
    try:
        return parse(value)
    except HttpFailure as failure:
        return None if failure.kind == 3 else failure


def refusal(request: bytes) -> str:
    with pytest.raises(HttpFailure) as caught:
        parse_order(request)
    assert caught.value.kind == 3
    return str(json.loads(caught.value.payload)["message"])


@given(st.binary(max_size=200))
def test_any_bytes_are_an_order_or_refused(request_bytes: bytes) -> None:
    assert parsed(parse_order, request_bytes) is None or isinstance(parse_order(request_bytes), Order)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x), max_leaves=6
)


@given(JSON, JSON, JSON | st.lists(st.lists(st.text(max_size=5), min_size=2, max_size=2)), JSON, JSON)
def test_any_values_in_the_head(method: Any, url: Any, headers: Any, redirect: Any, seconds: Any) -> None:
    head = json.dumps(
        {"method": method, "url": url, "headers": headers, "redirect": redirect, "seconds": seconds}
    ).encode()
    order = parsed(parse_order, struct.pack("<I", len(head)) + head)
    assert order is None or not any(
        byte in name + value for name, value in order.headers for byte in b"\r\n\0"
    )


HEADS: dict[bytes, str] = {
    b"": "the request has no head",
    b"\1\0\0": "the request has no head",
    b"\2\0\0\0{": "the request's head of 2 bytes is cut off or has more than 262144",
    b"\xff\xff\xff\xff{}": "the request's head of 4294967295 bytes is cut off or has more than 262144",
    b"\1\0\0\0{": "the request's head is not JSON",
    b"\2\0\0\0[]": "the request's head is not a JSON object",
    b"\2\0\0\0{}": "the request's method is not a string",
}


@pytest.mark.parametrize(("request_bytes", "message"), HEADS.items())
def test_broken_heads(request_bytes: bytes, message: str) -> None:
    assert refusal(request_bytes) == message


def test_deep_json_is_refused() -> None:
    head = b"[" * 100_000
    assert refusal(struct.pack("<I", len(head)) + head) == "the request's head is not JSON"


@pytest.mark.parametrize(
    "method", ["", "G T", "GET\r\nX: y", "GET /", "CONNECT", "connect", "TRACE", "TRACK", "É", "A" * 33, "\0"]
)
def test_methods_that_cannot_be_sent(method: str) -> None:
    assert refusal(encode(method, "http://a.test/")).endswith("is not a method that can be sent")


def test_methods_are_in_capitals() -> None:
    assert parse_order(encode("patch", "http://a.test/")).method == "PATCH"


INJECTIONS = [
    ("X-A", "b\r\nX-Evil: 1"), ("X-A", "b\nX-Evil: 1"), ("X-A", "b\rX-Evil: 1"), ("X-A", "b\0"),
    ("X-A", "\x7f"), ("X-A", "\x1b[0m"), ("X-A\r\nX-Evil", "1"), ("X-A:", "1"), ("X A", "1"), ("", "1"),
    ("X\u00e9", "1"), ("X-A", "\u2028"), ("X-A", "\u010d\u010a"), (":authority", "evil"), ("X\t", "1"),
]  # fmt: skip


@pytest.mark.parametrize("header", INJECTIONS)
def test_nothing_can_be_injected_by_a_header(header: tuple[str, str]) -> None:
    assert "header" in refusal(encode("GET", "http://a.test/", [header]))


OURS = [
    "Host",
    "CONTENT-LENGTH",
    "Transfer-Encoding",
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Upgrade",
]
OURS += ["Proxy-Authorization", "Expect", "HTTP2-Settings", "Accept-Encoding"]


@pytest.mark.parametrize("name", OURS)
async def test_framing_is_ours_alone(server: Server, open_guest: Open, name: str) -> None:
    server.answers["/"] = answer(b"x")
    guest = open_guest()
    assert (
        await guest.fetch(server.url(), "POST", headers=[(name, "999999"), ("X-A", "1")], body=b"abc")
    ).body == b"x"
    asked = server.asked[0]
    assert "999999" not in asked.raw.decode()  # more digits than a port has, which the raw text holds too
    assert (asked.body, asked.header("content-length"), asked.header("x-a")) == (b"abc", "3", "1")
    assert asked.header("host") == f"127.0.0.1:{server.port}"


def test_too_many_and_too_long_headers() -> None:
    assert "at most 128" in refusal(encode("GET", "http://a.test/", [("X", "1")] * 129))
    long = [("X", "y" * (MOST_HEADER_BYTES // 2))] * 3
    assert (
        refusal(encode("GET", "http://a.test/", long)) == "the request's headers have more than 65536 bytes"
    )


@pytest.mark.parametrize("seconds", [0, -1, True, "1", [], 1e400])
def test_wrong_seconds(seconds: object) -> None:
    assert "seconds" in refusal(encode("GET", "http://a.test/", seconds=seconds)) or seconds == 1e400


URLS = [
    "", "a.test", "/path", "//a.test/", "ftp://a.test/", "file:///etc/passwd", "javascript:1", "data:,x",
    "ws://a.test/", "http:a.test", "http://", "http:///x", "http://?x", "http://user@a.test/",
    "http://user:pw@a.test/", "http://:pw@a.test/", "http://a.test\\@b.test/", "http://a.test:0/",
    "http://a.test:99999/", "http://a.test:x/", "http://a.test:-1/", "http://a b/", "http://a.test\r\n/",
    "http://a.test/\n", "http://a.test/\0", "http://[::1/", "http://[::1]x/", "http://::1/",
    "http://a..test/", "http://.test/", "http://a.test../", "http://%31/", "http://127.1/",
    "http://0177.0.0.1/", "http://0x7f000001/", "http://2130706433/", "http://127.0.0.1.2/",
    "http://0x7f.1/", "http://017700000001/", "http://127.0.0.0x1/",
    "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/", "http://" + "a" * 300 + "/",
    "http://a.test/" + "x" * 8192, "http://[fe80::1%25eth0]/x y", "http://a.test%00.b.test/",
    "http://a.test\t/",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
async def test_urls_that_cannot_be_requested(open_guest: Open, url: str) -> None:
    guest = open_guest()
    failure = await guest.fail(url)
    assert failure["kind"] == 3, failure
    assert [(use.allowed, use.status, use.refused) for use in guest.exchange.uses] == [
        (False, 0, failure["message"] if len(failure["message"]) <= 256 else failure["message"][:256] + "...")
    ]


SPELLINGS = {
    "HTTP://A.TEST": "http://a.test/",
    "http://a.test.:80/": "http://a.test/",
    "https://a.test:443/x/../y": "https://a.test/y",
    "http://b\u00fccher.test/\u00e9?\u00e9": "http://xn--bcher-kva.test/%C3%A9?%C3%A9",
    "http://127\u30020\u30020\u30021/": "http://127.0.0.1/",
    "http://[0:0:0:0:0:0:0:1]:8080/": "http://[::1]:8080/",
    "http://a.test/a b?c d#e f": "http://a.test/a%20b?c%20d",
    "http://a.test?": "http://a.test/?",
}


@pytest.mark.parametrize(("url", "sent"), SPELLINGS.items())
def test_a_url_has_one_spelling(url: str, sent: str) -> None:
    assert str(parse_target(url)) == sent


@given(st.text(max_size=40).map(lambda text: "http://" + text) | st.text(max_size=40))
def test_any_url_is_taken_apart_or_refused(url: str) -> None:
    target = parsed(parse_target, url)
    if target is None:
        return
    text = str(target)
    assert text.isascii() and text.isprintable() and " " not in text
    assert parse_target(text) == target
