"""Servers that do not keep to HTTP: each ends its own request, says why, and harms no other."""

from __future__ import annotations

import asyncio

import pytest

from tests.egress.conftest import Guest, Open, Server, answer, chunk, running

HEAD = b"HTTP/1.1 200 OK\r\n"

BROKEN = {
    "nothing": b"",
    "no HTTP": b"220 mail.test ESMTP\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nxx",
    "a header without a colon": HEAD + b"nonsense\r\n\r\n",
    "a NUL in a header": HEAD + b"X-A: a\0b\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a head without end": HEAD + b"X-A: " + b"x" * 200_000,
    "very many headers": HEAD + b"a: b\r\n" * 50_000,
    "a chunk without a number": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an endless chunk head": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 200_000,
    "an unknown framing": HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "an early end": HEAD + b"Content-Length: 10\r\n\r\nabc",
    "an early end in chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"abc"),
}


async def closing(server: Server, text: bytes) -> None:
    """Serve `text` and close, to every connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        writer.close()

    server.serve = serve  # type: ignore[method-assign]


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_response_fails_its_request(server: Server, open_guest: Open, name: str) -> None:
    await closing(server, BROKEN[name])
    guest = open_guest()
    failure = await guest.fail(server.url())
    assert (failure["kind"], failure["type"]) in ((4, "protocol"), (4, "connect")), failure
    await still_works(guest)


async def still_works(guest: Guest) -> None:
    async with running() as another:
        another.answers["/"] = answer(b"on")
        assert (await guest.fetch(another.url())).body == b"on"


async def test_endless_interim_responses_end(server: Server, open_guest: Open) -> None:
    server.answers["/"] = [b"HTTP/1.1 100 Continue\r\n\r\n" * 4000] * 100
    guest = open_guest(response_bytes=1_000_000)
    assert (await guest.fail(server.url()))["limit"] == "http.response_bytes"
    assert guest.exchange.uses[0].status == 0


async def test_a_flood_of_headers_counts(server: Server, open_guest: Open) -> None:
    server.answers["/"] = HEAD + b"X-A: " + b"x" * 5000 + b"\r\nContent-Length: 0\r\n\r\n"
    assert (await open_guest(response_bytes=4000).fail(server.url()))["limit"] == "http.response_bytes"


async def test_a_body_in_single_bytes_ends(server: Server, open_guest: Open) -> None:
    server.answers["/"] = [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk(b"x") * 1000] * 200]
    guest = open_guest()
    failure = await guest.fail(server.url())
    assert failure == {
        "kind": 4, "type": "protocol", "message": "the body comes in more than 65536 pieces of less than 64 bytes",
    }  # fmt: skip


async def test_framing_counts_too(server: Server, open_guest: Open) -> None:
    extension = b"1;" + b"x" * 10_000 + b"\r\nx\r\n"
    server.answers["/"] = [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[extension] * 1000]
    guest = open_guest(response_bytes=1_000_000)
    assert (await guest.fail(server.url()))["limit"] == "http.response_bytes"


async def test_a_drip_ends_at_the_limit_of_seconds(server: Server, open_guest: Open) -> None:
    drip: list[bytes | float] = [part for _ in range(1000) for part in (b"X-A: b\r\n", 0.02)]
    server.answers["/"] = [HEAD, *drip]
    assert (await open_guest(seconds=0.3).fail(server.url()))["limit"] == "http.seconds"


async def test_a_server_that_takes_nothing_ends_at_the_limit_of_seconds(open_guest: Open) -> None:
    listener = await asyncio.start_server(lambda reader, writer: asyncio.sleep(1e6), "127.0.0.1", 0, limit=1)
    port = listener.sockets[0].getsockname()[1]
    guest = open_guest(seconds=0.5, request_bytes=1 << 24)
    failure = await guest.fail(f"http://127.0.0.1:{port}/", "POST", body=b"x" * (15 << 20))
    assert failure["limit"] == "http.seconds"
    listener.close()


async def test_a_body_without_a_length_ends_with_its_connection(server: Server, open_guest: Open) -> None:
    await closing(server, HEAD + b"\r\nall of it")
    assert (await open_guest().fetch(server.url())).body == b"all of it"
