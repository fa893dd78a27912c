"""Requests over real connections: what is sent, what comes back, how much and how long."""

from __future__ import annotations

import asyncio

import pytest

from tests.egress.conftest import ANY, LOOPBACK, Guest, Open, Server, answer, chunk, chunked
from wasmeval.egress import Egress, HttpCeiling, HttpFailure
from wasmeval.grants import HttpPolicy, HttpUse

FOR_EVER = None


async def test_a_request_arrives_and_its_response_comes_back_whole(server: Server, open_guest: Open) -> None:
    server.answers["/a"] = answer(b"hello", "201 Made", "X-One: 1", "Set-Cookie: a=1", "Set-Cookie: b=2")
    guest = open_guest()
    response = await guest.fetch(
        server.url("/a?q=1#fragment"),
        "POST",
        headers=[("X-Mine", "yes"), ("Content-Type", "text/plain")],
        body=b"ping",
    )
    assert (response.status, response.reason, response.body) == (201, "Made", b"hello")
    assert (response.url, response.redirected, response.stream) == (server.url("/a?q=1"), False, 0)
    assert [value for name, value in response.headers if name == "Set-Cookie"] == ["a=1", "b=2"]
    asked = server.asked[0]
    assert (asked.method, asked.target, asked.body) == ("POST", "/a?q=1", b"ping")
    assert asked.header("host") == f"127.0.0.1:{server.port}"
    assert (asked.header("x-mine"), asked.header("content-length")) == ("yes", "4")
    [use] = guest.exchange.uses
    assert (use.method, use.host, use.path, use.status) == ("POST", f"127.0.0.1:{server.port}", "/a", 201)
    assert (use.allowed, use.refused) == (True, "")
    assert use.sent_bytes >= len(b"ping") and use.received_bytes >= len(b"hello")


async def test_an_evaluation_uses_its_connection_again_and_shares_none(
    server: Server, open_guest: Open
) -> None:
    server.answers["/"] = answer(b"x")
    first = open_guest()
    for _ in range(3):
        await first.fetch(server.url())
    assert server.connections == 1
    await open_guest().fetch(server.url())
    assert server.connections == 2


async def test_no_cookie_is_kept(server: Server, open_guest: Open) -> None:
    server.answers["/"] = answer(b"", "200 OK", "Set-Cookie: session=1")
    guest = open_guest()
    await guest.fetch(server.url())
    await guest.fetch(server.url())
    assert [asked.header("cookie") for asked in server.asked] == [None, None]


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000])
async def test_bodies_of_any_length_come_whole(server: Server, open_guest: Open, size: int) -> None:
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    server.answers.update(
        {"/plain": answer(body), "/chunked": chunked(*[body[i : i + 999] for i in range(0, size, 999)])}
    )
    guest = open_guest()
    assert (await guest.fetch(server.url("/plain"))).body == body
    assert (await guest.fetch(server.url("/chunked"))).body == body


async def test_a_body_is_read_while_it_comes(server: Server, open_guest: Open) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.answers["/"] = [head + chunk(b"first"), FOR_EVER]
    guest = open_guest()
    response = await guest.begin(server.url())
    first = response.body or await guest.exchange.read(response.stream, 100)
    assert first == b"first"
    assert response.stream != 0
    guest.exchange.drop(response.stream)
    with pytest.raises(HttpFailure) as caught:
        await guest.exchange.read(response.stream, 100)
    assert caught.value.kind == 4
    assert b'"gone"' in caught.value.payload


async def test_a_reader_that_waits_stops_the_server(server: Server, open_guest: Open) -> None:
    """Nothing more is read than the guest takes, and what fits on the way."""
    part, sent = b"x" * 65536, 0

    def flood(_: object) -> list[bytes]:
        class Parts(list[bytes]):
            def __iter__(self):  # type: ignore[no-untyped-def]
                nonlocal sent
                yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(part) * 1024)
                for _ in range(1024):
                    sent += len(part)
                    yield part

        return Parts()

    server.answers["/"] = flood
    guest = open_guest(response_bytes=1 << 30)
    response = await guest.begin(server.url())
    await asyncio.sleep(0.3)
    assert sent < 32 * 1024 * 1024
    assert len(response.body) + len(await guest.rest(response.stream)) == len(part) * 1024


async def test_many_requests_at_once(server: Server, open_guest: Open) -> None:
    server.answers["/"] = lambda asked: [0.05, answer(asked.target.encode())]
    guest = open_guest(requests=100)
    responses = await asyncio.gather(*[guest.fetch(server.url(f"/?{n}")) for n in range(100)])
    assert [response.body for response in responses] == [f"/?{n}".encode() for n in range(100)]
    assert server.connections <= 32


async def test_unread_responses_are_bounded_and_say_so(server: Server, open_guest: Open) -> None:
    server.answers["/"] = [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", FOR_EVER]
    guest = open_guest(requests=100)
    streams = [(await guest.begin(server.url())).stream for _ in range(32)]
    assert len(set(streams)) == 32
    assert (await guest.fail(server.url()))["limit"] == "http.open"
    guest.exchange.drop(streams[0])
    assert (await guest.begin(server.url())).status == 200


async def test_the_number_of_requests_is_bounded(server: Server, open_guest: Open) -> None:
    server.answers["/"] = answer(b"x")
    guest = open_guest(requests=2)
    await guest.fetch(server.url())
    await guest.fail("ftp://nowhere/")  # a refused one counts
    failure = await guest.fail(server.url())
    assert failure == {
        "kind": 2, "limit": "http.requests", "message": "the evaluation may make 2 requests, redirects included",
    }  # fmt: skip
    assert len(server.asked) == 1
    assert len(guest.exchange.uses) == 2


async def test_the_bytes_sent_are_bounded(server: Server, open_guest: Open) -> None:
    server.answers["/"] = answer(b"x")
    guest = open_guest(request_bytes=1000)
    await guest.fetch(server.url(), "POST", body=b"x" * 500)
    assert (await guest.fail(server.url(), "POST", body=b"x" * 500))["limit"] == "http.request_bytes"
    assert len(server.asked) == 1
    assert (await guest.fetch(server.url(), "POST", body=b"x" * 100)).status == 200


async def test_the_bytes_received_are_bounded_and_what_came_before_is_readable(
    server: Server, open_guest: Open
) -> None:
    server.answers["/"] = answer(b"x" * 600)
    guest = open_guest(response_bytes=1000)
    assert (await guest.fetch(server.url())).body == b"x" * 600
    failure = await guest.fail(server.url())
    assert failure == {
        "kind": 2,
        "limit": "http.response_bytes",
        "message": "all responses together may have 1000 bytes",
    }


async def test_a_server_that_never_answers_ends_at_the_limit(server: Server, open_guest: Open) -> None:
    server.answers["/"] = [FOR_EVER]
    guest = open_guest(seconds=0.2)
    failure = await guest.fail(server.url())
    assert failure == {
        "kind": 2,
        "limit": "http.seconds",
        "message": "a request may take 0.2 s, to its last byte",
    }
    assert guest.exchange.uses[0].status == 0


async def test_a_guest_may_set_a_shorter_time(server: Server, open_guest: Open) -> None:
    server.answers["/"] = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", FOR_EVER]
    guest = open_guest(seconds=60.0)
    response = await guest.begin(server.url(), seconds=0.3)
    assert response.status == 200
    with pytest.raises(HttpFailure) as caught:
        await guest.rest(response.stream)
    assert (caught.value.kind, caught.value.message) == (4, "the request took longer than its 0.3 s")


async def test_cancelling_a_request_aborts_its_connection(server: Server, open_guest: Open) -> None:
    server.answers["/"] = [FOR_EVER]
    guest = open_guest()
    waiting = asyncio.create_task(guest.fetch(server.url()))
    while not server.asked:
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    server.answers["/"] = answer(b"on")
    assert (await guest.fetch(server.url())).body == b"on"
    assert server.connections == 2


async def test_closing_aborts_everything_and_may_be_done_twice(server: Server, open_guest: Open) -> None:
    server.answers.update(
        {"/": [FOR_EVER], "/body": [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", FOR_EVER]}
    )
    guest = open_guest()
    response = await guest.begin(server.url("/body"))
    reading = asyncio.create_task(guest.rest(response.stream))
    waiting = asyncio.create_task(guest.fetch(server.url()))
    while len(server.asked) < 2:
        await asyncio.sleep(0.01)
    await guest.exchange.aclose()
    await guest.exchange.aclose()
    for task in (waiting, reading):
        with pytest.raises(HttpFailure) as caught:
            await task
        assert b'"gone"' in caught.value.payload
    assert (await guest.fail(server.url()))["type"] == "gone"
    assert [use.status for use in guest.exchange.uses] == [200, 0]


async def test_nothing_remains_of_a_thousand_exchanges(server: Server) -> None:
    server.answers.update({"/": answer(b"x"), "/slow": [FOR_EVER]})
    egress = Egress(HttpCeiling((ANY,), private_networks=LOOPBACK))
    tasks = len(asyncio.all_tasks())
    for _ in range(250):
        guests = [Guest(egress.open(HttpPolicy((ANY,)))) for _ in range(4)]
        await asyncio.gather(*[one.fetch(server.url()) for one in guests[:2]])
        waiting = [asyncio.ensure_future(one.fetch(server.url("/slow"))) for one in guests[2:]]
        await asyncio.sleep(0.005)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.gather(*[one.exchange.aclose() for one in guests])
    assert not egress._exchanges
    for _ in range(100):
        if server.open == 0:
            break
        await asyncio.sleep(0.05)
    assert server.open == 0
    assert len(asyncio.all_tasks()) == tasks
    await egress.aclose()


async def test_a_refused_connection_is_a_failure_without_addresses(open_guest: Open) -> None:
    listener = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    guest = open_guest(names={"closed.test": ["127.0.0.1"]})
    failure = await guest.fail(f"http://closed.test:{port}/")
    assert failure == {
        "kind": 4, "type": "connect", "message": f"could not connect to closed.test:{port}: Connection refused",
    }  # fmt: skip


async def test_a_name_that_does_not_exist(open_guest: Open) -> None:
    failure = await open_guest().fail("http://missing.test/")
    assert failure == {"kind": 4, "type": "connect", "message": "the name missing.test could not be resolved"}


async def test_a_list_of_what_was_asked(server: Server, open_guest: Open) -> None:
    server.answers["/"] = answer(b"x")
    guest = open_guest()
    await guest.fetch(server.url("/?secret=1"))
    await guest.fail("http://10.0.0.1/x?secret=1")
    uses = guest.exchange.uses
    assert all(isinstance(use, HttpUse) for use in uses)
    assert [(use.path, use.allowed, bool(use.refused)) for use in uses] == [
        ("/", True, False),
        ("/x", False, True),
    ]
    assert "secret" not in repr(uses)
