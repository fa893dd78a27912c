"""Hello: what a tunnel's first bytes ask for, from OpenSSL's own and from bytes that are none."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval.egress import HttpFailure
from wasmeval.egress.hello import Hello, server_name


def greeting(name: str | None) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


@pytest.mark.parametrize("step", [1, 7, 100, 10_000])
def test_the_name_is_found_in_pieces_of_any_size(step: int) -> None:
    data = greeting("good.test")
    hello = Hello("good.test")
    seen = [hello.feed(data[start : start + step]) for start in range(0, len(data), step)]
    assert seen == [False] * (len(seen) - 1) + [True]


def test_a_message_may_span_records() -> None:
    """As some clients send it on purpose."""
    message = greeting("good.test")[5:]
    records = b"".join(
        b"\x16\3\1" + len(piece).to_bytes(2, "big") + piece
        for start in range(0, len(message), 3)
        if (piece := message[start : start + 3])
    )
    assert Hello("good.test").feed(records)
    with pytest.raises(HttpFailure, match=r"asks for good\.test; it must ask for the tunnel's own host"):
        Hello("other.test").feed(records)


@pytest.mark.parametrize(
    ("host", "name", "fine"),
    [
        ("good.test", "good.test", True),
        ("good.test", "www.good.test", False),
        ("good.test", None, False),
        ("192.0.2.1", None, True),
        ("2001:db8::1", None, True),
        ("192.0.2.1", "good.test", False),
        ("xn--bcher-kva.test", "bücher.test", True),
    ],
)
def test_only_the_tunnels_own_name(host: str, name: str | None, fine: bool) -> None:
    if fine:
        assert Hello(host).feed(greeting(name))
    else:
        with pytest.raises(HttpFailure, match="must ask for the tunnel's own host") as caught:
            Hello(host).feed(greeting(name))
        assert caught.value.kind == 3


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1", b"\x80\x2e\1", b"\x16\2", b"\x16\3\1\0\0", b"\x16\3\1\xff\xff"]
)
def test_what_is_no_tls_is_refused_at_its_first_bytes(data: bytes) -> None:
    with pytest.raises(HttpFailure, match=r"what is sent through the tunnel to good\.test is not TLS"):
        Hello("good.test").feed(data)


def test_a_greeting_is_bounded() -> None:
    hello = Hello("good.test")
    with pytest.raises(HttpFailure, match="not TLS"):
        hello.feed(b"\x16\3\1\0\4\1\0\x40\1")


def test_two_names_are_refused() -> None:
    name = b"\0\0\0\x0e\0\x0c\0\0\x09good.test"
    body = b"\3\3" + bytes(32) + b"\0\0\2\x13\1\1\0"
    assert server_name(body + len(name).to_bytes(2, "big") + name) == "good.test"
    with pytest.raises(ValueError, match="several names"):
        server_name(body + (2 * len(name)).to_bytes(2, "big") + 2 * name)
    assert server_name(body) is None


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_greeting_or_refused(data: bytes, framed: bool) -> None:
    if framed:
        data = b"\x16\3\1" + (len(data) + 4).to_bytes(2, "big") + b"\1" + len(data).to_bytes(3, "big") + data
    with suppress(HttpFailure):
        Hello("good.test").feed(data)


@given(st.integers(5, 500), st.integers(0, 255))
def test_a_greeting_with_a_wrong_byte(at: int, byte: int) -> None:
    data = bytearray(greeting("good.test"))
    data[at % len(data)] = byte
    with suppress(HttpFailure):
        Hello("good.test").feed(bytes(data))
