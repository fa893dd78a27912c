"""Decoding: compressed bodies come whole, and grow no further than they may."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.egress.conftest import Open, Server, answer
from wasmeval.egress.decoding import PIECE, BadEncoding, decoder_for


def raw_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush()


WAYS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, " GZIP ": gzip.compress}


def decoded(encoding: str, data: bytes, size: int) -> bytes:
    decoder = decoder_for(encoding)
    assert decoder
    pieces = [
        piece for start in range(0, len(data), size) for piece in decoder.feed(data[start : start + size])
    ]
    decoder.end()
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


@given(st.sampled_from(sorted(WAYS)), st.binary(max_size=300), st.integers(0, 2000), st.integers(1, 70_000))
def test_any_body_in_any_pieces(encoding: str, body: bytes, times: int, size: int) -> None:
    assert decoded(encoding, WAYS[encoding](body * times), size) == body * times


def test_deflate_without_an_envelope() -> None:
    assert decoded("deflate", raw_deflate(b"hello" * 100_000), 100) == b"hello" * 100_000


def test_members_of_gzip_follow_each_other() -> None:
    data = gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two") + b"\0" * 50
    for size in (1, 7, 10_000):
        assert decoded("gzip", data, size) == b"onetwo"


def test_an_empty_body_is_one() -> None:
    assert decoded("gzip", b"", 1) == b""


@pytest.mark.parametrize(
    "data", [b"plain text", gzip.compress(b"hello")[:-3], gzip.compress(b"hello" * 99)[:20] + b"\xff" * 99]
)
def test_what_is_no_gzip_is_an_error(data: bytes) -> None:
    with pytest.raises(BadEncoding):
        decoded("gzip", data, 10)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_end(data: bytes, size: int) -> None:
    try:
        decoded("deflate", data, size)
    except BadEncoding:
        pass


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "\0"])
def test_other_encodings_are_not_known(encoding: str) -> None:
    assert decoder_for(encoding) is None


async def test_a_compressed_response_is_handed_on_decoded(server: Server, open_guest: Open) -> None:
    server.answers["/"] = answer(gzip.compress(b"hello" * 1000), "200 OK", "Content-Encoding: gzip", "X-A: 1")
    response = await open_guest().fetch(server.url())
    assert response.body == b"hello" * 1000
    assert [response.header(name) for name in ("content-encoding", "content-length", "x-a")] == [
        None,
        None,
        "1",
    ]


async def test_an_encoding_that_nobody_asked_for_is_handed_on_as_it_is(
    server: Server, open_guest: Open
) -> None:
    server.answers["/"] = answer(b"\x0b\x02", "200 OK", "Content-Encoding: br")
    response = await open_guest().fetch(server.url())
    assert (response.body, response.header("content-encoding")) == (b"\x0b\x02", "br")


async def test_a_response_without_a_body_needs_no_decoding(server: Server, open_guest: Open) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 77\r\n\r\n"
    server.answers.update({"/": head, "/none": b"HTTP/1.1 304 Same\r\nContent-Encoding: gzip\r\n\r\n"})
    guest = open_guest()
    response = await guest.fetch(server.url(), "HEAD")
    assert (response.body, response.header("content-length")) == (b"", "77")
    assert (await guest.fetch(server.url("/none"))).status == 304


async def test_a_body_that_is_no_gzip_fails_the_read(server: Server, open_guest: Open) -> None:
    server.answers["/"] = answer(b"plain", "200 OK", "Content-Encoding: gzip")
    failure = await open_guest().fail(server.url())
    where = f"127.0.0.1:{server.port}"
    assert failure == {
        "kind": 4, "type": "protocol", "message": f"the body from {where} is not as its Content-Encoding says",
    }  # fmt: skip


@pytest.mark.parametrize("layers", [1, 2])
async def test_a_bomb_costs_its_limit_and_no_memory(server: Server, open_guest: Open, layers: int) -> None:
    """100 MB in 100 kB: what is decoded counts, and no more is decoded than the guest has room for."""
    bomb = gzip.compress(b"\0" * 100_000_000)
    for _ in range(layers - 1):
        bomb = gzip.compress(bomb)
    server.answers["/"] = answer(bomb, "200 OK", "Content-Encoding: gzip")
    guest = open_guest(response_bytes=1_000_000)
    tracemalloc.start()
    try:
        if layers == 1:
            assert (await guest.fail(server.url()))["limit"] == "http.response_bytes"
        else:
            assert (await guest.fetch(server.url())).body[:2] == b"\x1f\x8b"
        await asyncio.sleep(0)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert guest.exchange.uses[0].received_bytes <= 1_000_000
