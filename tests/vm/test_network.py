"""Promise: a microVM's programs reach by the relay what policy and operator allow, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tests.egress.conftest import ANY, Server, answer, chunked, redirect, running
from tests.vm.relays import RELAY, Line, machine
from wasmeval.egress import Credential, HttpCeiling
from wasmeval.grants import HttpRule
from wasmeval.vm.network import MOST_CONNECTIONS, MOST_FRAME, WINDOW, Frames, Network, NetworkViolation

NAMES = {"good.test": ["127.0.0.1"], "bad.test": ["127.0.0.1"], "private.test": ["10.0.0.1"]}


@pytest.fixture
async def secure(authority: trustme.CA) -> AsyncIterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("good.test", "bad.test", "127.0.0.1").configure_cert(context)
    async with running(context) as server:
        yield server


def head(response: bytes) -> tuple[int, str, bytes]:
    """Status, reason and body of a response."""
    first, _, rest = response.partition(b"\r\n")
    _, status, reason = first.decode("latin-1").split(" ", 2)
    return int(status), reason, rest.partition(b"\r\n\r\n")[2]


async def run(line: Line, *argv: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a program says that has the relay as its proxy; it must succeed."""
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment = {**clean, **dict.fromkeys(names, line.url), **(env or {})}
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=environment,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, out.decode()
    return out.decode()


# --- requests by absolute URL ------------------------------------------------------------------------------------


async def test_a_request_and_its_response(server: Server) -> None:
    server.answers["/a"] = answer(b"hello", "201 Made", "X-One: 1", "Keep-Alive: 5")
    async with machine() as line:
        request = (
            f"POST {server.url('/a?q=1')} HTTP/1.1\r\nHost: elsewhere.test\r\nX-Mine: yes\r\nX-Hop: 1\r\n"
            "Proxy-Authorization: Basic x\r\nConnection: keep-alive, x-hop\r\nContent-Length: 4\r\n\r\nping"
        )
        response = await line.ask(request)
        assert response.startswith(
            b"HTTP/1.1 201 Made\r\nX-One: 1\r\nContent-Length: 5\r\nConnection: close\r\n"
        )
        assert head(response)[2] == b"hello"
        await line.quiet()
        assert line.exchange
        [use] = line.exchange.uses
    [asked] = server.asked
    assert (asked.method, asked.target, asked.body) == ("POST", "/a?q=1", b"ping")
    assert asked.header("host") == f"127.0.0.1:{server.port}"
    assert (asked.header("x-mine"), asked.header("x-hop")) == ("yes", None)
    assert asked.header("proxy-authorization") is asked.header("user-agent") is None
    assert (use.method, use.host, use.path, use.status) == ("POST", f"127.0.0.1:{server.port}", "/a", 201)
    assert use.allowed and use.sent_bytes >= 4 and use.received_bytes >= 5


async def test_bodies_stream_both_ways(server: Server) -> None:
    """A chunked body after `100 Continue`, and a chunked, encoded response as the server sent it."""
    server.answers["/"] = chunked(b"raw", b"bytes", headers=["Content-Encoding: br"])
    async with machine() as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(
            f"GET {server.url()} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: br\r\nContent-Length: 3\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"abc")
        response = await reader.read(-1)
        writer.close()
    assert b"Content-Encoding: br" in response and b"3\r\nraw\r\n5\r\nbytes\r\n0\r\n\r\n" in response
    assert (server.asked[0].body, server.asked[0].header("accept-encoding")) == (b"abc", "br")


async def test_a_redirect_is_the_clients_own(server: Server) -> None:
    server.answers["/"] = redirect("http://bad.test/")
    async with machine(HttpRule("127.0.0.1:*", schemes=("http",)), names=NAMES) as line:
        assert head(await line.get(server.url()))[0] == 302
        assert head(await line.get("http://bad.test/"))[:2] == (
            403, "no rule of this evaluation allows GET http://bad.test/",
        )  # fmt: skip


async def test_methods_and_paths_are_checked(server: Server) -> None:
    server.answers["/v1/x"] = answer(b"yes")
    rule = HttpRule("127.0.0.1:*", methods=("GET",), path_prefix="/v1", schemes=("http",))
    async with machine(rule) as line:
        assert head(await line.get(server.url("/v1/x")))[2] == b"yes"
        assert head(await line.get(server.url("/v2/x")))[0] == 403
        assert head(await line.get(server.url("/v1/%2e%2e/v2")))[0] == 403
        assert head(await line.ask(f"POST {server.url('/v1/x')} HTTP/1.0\r\n\r\n"))[0] == 403
        assert line.exchange
        assert [use.allowed for use in line.exchange.uses] == [True, False, False, False]
    assert len(server.asked) == 1


async def test_a_credential_is_added_and_scrubbed(secure: Server) -> None:
    """By an absolute `https` URL: TLS is spoken by the host then."""
    lent = Credential("bearer", "key-0123456789", hosts=("good.test:*",))
    secure.answers["/"] = lambda asked: answer(f"you said {asked.header('authorization')}".encode())
    rule = HttpRule("good.test:*", credential="k")
    async with machine(rule, credentials={"k": lent}, names=NAMES) as line:
        body = head(await line.get(secure.url("/", "good.test", "https")))[2]
        assert body.endswith(b"Bearer **************") or b"Bearer **************" in body
        refused = head(await line.ask(f"CONNECT good.test:{secure.port} HTTP/1.0\r\n\r\n"))
        assert refused[0] == 403 and "a rule with a credential does not" in refused[1]


@pytest.mark.parametrize(
    ("request_text", "status", "reason"),
    [
        ("nonsense\r\n\r\n", 400, "no request to an HTTP proxy"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "absolute URL"),
        ("GET http://good.test/ HTTP/1.1\r\n\r\n", 400, "Host"),
        ("GET http://good.test/ HTTP/1.1\r\nHost: x\r\n" + "A: b\r\n" * 200 + "\r\n", 400, "128 headers"),
        ("GET http://good.test/" + "a" * 100_000, 400, "no request to an HTTP proxy"),
        ("GET ftp://good.test/ HTTP/1.1\r\nHost: x\r\n\r\n", 403, "only http and https"),
        ("GET http://u:p@good.test/ HTTP/1.1\r\nHost: x\r\n\r\n", 403, "user name"),
        ("TRACE http://good.test/ HTTP/1.1\r\nHost: x\r\n\r\n", 403, "not a method"),
        ("CONNECT good.test HTTP/1.0\r\n\r\n", 400, "HOST:PORT"),
        ("CONNECT good.test:0 HTTP/1.0\r\n\r\n", 400, "HOST:PORT"),
        ("CONNECT 127.1:443 HTTP/1.0\r\n\r\n", 400, "four decimal numbers"),
        ("CONNECT a@good.test:443 HTTP/1.0\r\n\r\n", 400, "not a host name"),
        ("CONNECT good.test:25 HTTP/1.0\r\n\r\n", 403, "no rule"),
        ("CONNECT private.test:443 HTTP/1.0\r\n\r\n", 403, "not on the public internet"),
        ("CONNECT 169.254.169.254:443 HTTP/1.0\r\n\r\n", 403, "not on the public internet"),
        ("CONNECT nowhere.test:443 HTTP/1.0\r\n\r\n", 502, "could not be resolved"),
        ("GET http://nowhere.test/ HTTP/1.0\r\n\r\n", 502, "could not be resolved"),
        ("CONNECT 127.0.0.1:1 HTTP/1.0\r\n\r\n", 403, "no rule"),
        ("GET http://10.0.0.1/ HTTP/1.0\r\n\r\n", 403, "not on the public internet"),
    ],
)
async def test_what_is_refused_says_why(request_text: str, status: int, reason: str) -> None:
    async with machine(names=NAMES) as line:
        found = head(await line.ask(request_text))
        assert (found[0], reason in found[1]) == (status, True), found
        assert found[2].decode().startswith(found[1])
        assert line.exchange
        [use] = line.exchange.uses
        assert not use.allowed or status == 502


async def test_without_a_policy_everything_is_refused(server: Server) -> None:
    async with machine(policy=False) as line:
        assert head(await line.get(server.url()))[:2] == (
            403, "this evaluation may send no HTTP requests; give it `http`",
        )  # fmt: skip
        await line.quiet()


async def test_limits_of_requests_bytes_and_time(server: Server) -> None:
    server.answers["/big"] = answer(b"x" * 50_000)
    server.answers["/endless"] = [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", None]
    server.answers["/silent"] = [None]
    async with machine(requests=2) as line:
        assert [head(await line.get(server.url("/big")))[0] for _ in range(4)] == [200, 200, 429, 429]
    async with machine(request_bytes=1000) as line:
        sent = f"PUT {server.url('/big')} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + "x" * 2000
        assert "would pass the 1000" in head(await line.ask(sent))[1]
    async with machine(response_bytes=20_000) as line:
        with pytest.raises(ConnectionResetError):
            await line.get(server.url("/big"))
    async with machine(seconds=0.3) as line:
        assert head(await line.get(server.url("/silent")))[0] == 504
        with pytest.raises(ConnectionResetError):
            await line.get(server.url("/endless"))
        assert head(await line.ask("GET http://incomplete"))[0] == 408


# --- tunnels -----------------------------------------------------------------------------------------------------


async def test_a_tunnel_carries_tls_and_is_counted(secure: Server, authority: trustme.CA) -> None:
    secure.answers["/"] = answer(b"safe")
    async with machine(HttpRule("good.test:*"), names=NAMES) as line:
        out = await run(
            line,
            "curl",
            "-sS",
            secure.url("/", "good.test", "https"),
            env={"CURL_CA_BUNDLE": _pem(authority)},
        )
        assert out == "safe"
        await line.quiet()
        assert line.exchange
        [use] = line.exchange.uses
    assert (use.method, use.host, use.path, use.status) == ("CONNECT", f"good.test:{secure.port}", "", 200)
    assert use.allowed and use.sent_bytes > 300 and use.received_bytes > 500


def _pem(authority: trustme.CA) -> str:
    path = os.environ["SSL_CERT_FILE"]
    assert Path(path).read_bytes() == authority.cert_pem.bytes()
    return path


@pytest.mark.parametrize(
    ("rules", "ceiling", "reason"),
    [
        ((HttpRule("good.test:*", methods=("GET",)),), (ANY,), "a rule with methods or a path_prefix"),
        ((HttpRule("good.test:*", path_prefix="/v1"),), (ANY,), "a rule with methods or a path_prefix"),
        ((HttpRule("good.test:*", schemes=("http",)),), (ANY,), "no rule of this evaluation"),
        ((HttpRule("good.test"),), (ANY,), "no rule of this evaluation"),
        (
            (ANY,),
            (HttpRule("good.test:*", methods=("GET",)),),
            "the service's operator does not allow CONNECT",
        ),
    ],
)
async def test_a_tunnel_needs_an_unrestricted_rule(rules: Any, ceiling: Any, reason: str) -> None:
    async with machine(*rules, ceiling=HttpCeiling(ceiling), names=NAMES) as line:
        found = head(await line.ask("CONNECT good.test:4430 HTTP/1.1\r\nHost: good.test:4430\r\n\r\n"))
        assert found[0] == 403 and reason in found[1]


async def handshake(line: Line, where: str, name: str | None) -> None:
    """TLS through a tunnel to `where` that asks for `name`."""
    reader, writer = await line.tunnel(where)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        await writer.start_tls(context, server_hostname=name or "")
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await reader.read(100)).startswith(b"HTTP/1.1 200")
    finally:
        writer.transport.abort()


async def test_tls_must_ask_for_the_tunnels_host(secure: Server) -> None:
    secure.answers["/"] = answer(b"safe")
    there = f":{secure.port}"
    async with machine(names=NAMES) as line:
        await handshake(line, f"good.test{there}", "good.test")
        await handshake(line, f"good.test{there}", "GOOD.TEST")
        await handshake(line, f"127.0.0.1{there}", None)
        for where, name in (("good.test", "bad.test"), ("good.test", None), ("127.0.0.1", "bad.test")):
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await handshake(line, where + there, name)
            assert line.exchange
            use = line.exchange.uses[-1]
            assert (use.status, use.allowed) == (
                200,
                False,
            ) and "must ask for the tunnel's own" in use.refused
    assert len(secure.asked) == 3


async def test_other_protocols_get_no_byte_through(server: Server) -> None:
    async with machine() as line:
        for greeting in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x02",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x00\x04\x02\0\0\0",
        ):
            reader, writer = await line.tunnel(f"127.0.0.1:{server.port}")
            writer.write(greeting)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
    assert server.asked == []


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back what came, once all of it has come: half-closed connections must work."""
    data = await reader.read(-1)
    writer.write(data)
    writer.close()


def hello(name: bytes = b"") -> bytes:
    """A ClientHello that asks for `name`."""
    extension = struct.pack(">HHHBH", 0, len(name) + 5, len(name) + 3, 0, len(name)) + name if name else b""
    body = (
        b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0" + struct.pack(">H", len(extension)) + extension
    )
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\3\1" + struct.pack(">H", len(message)) + message


async def test_half_closed_tunnels_and_many_at_once() -> None:
    listener = await asyncio.start_server(echo, "127.0.0.1", 0, limit=1 << 24)
    port = listener.sockets[0].getsockname()[1]

    async def one(number: int) -> None:
        reader, writer = await line.tunnel(f"127.0.0.1:{port}")
        data = hello() + random.Random(number).randbytes(100_000)
        for start in range(0, len(data), 30_000):
            writer.write(data[start : start + 30_000])
            await writer.drain()
        writer.write_eof()
        assert await reader.read(-1) == data
        writer.close()

    async with machine(request_bytes=16 << 20) as line:
        await asyncio.gather(*(one(number) for number in range(100)))
        await line.quiet()
        assert line.exchange
        assert {use.status for use in line.exchange.uses} == {200}
        assert all(use.sent_bytes >= 100_000 <= use.received_bytes for use in line.exchange.uses)
    listener.close()


async def test_a_tunnel_is_cut_at_a_limit_and_when_nothing_moves() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(bytes(1 << 20))
        await reader.read(-1)
        writer.close()

    listener = await asyncio.start_server(flood, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with machine(response_bytes=100_000) as line:
        reader, writer = await line.tunnel(f"127.0.0.1:{port}")
        writer.write(hello())
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
        await line.quiet()
        assert line.exchange
        assert line.exchange.uses[0].refused == (
            "the tunnel was cut: all responses together may have 100000 bytes"
        )
        writer.close()
    async with machine(seconds=0.3) as line:
        reader, writer = await line.tunnel(f"127.0.0.1:{port}")
        assert await reader.read(-1) == b""
        await line.quiet()
        writer.close()
    listener.close()


# --- flow and growth ---------------------------------------------------------------------------------------------


async def test_one_that_does_not_read_holds_up_no_other(server: Server) -> None:
    server.answers["/big"] = answer(bytes(32 << 20))
    server.answers["/"] = answer(b"quick")
    async with machine(response_bytes=128 << 20) as line:
        slow = [await asyncio.open_connection("127.0.0.1", line.port, limit=1024) for _ in range(20)]
        for _, writer in slow:
            writer.write(f"GET {server.url('/big')} HTTP/1.0\r\n\r\n".encode())
        await asyncio.sleep(0.5)
        for _ in range(5):
            assert head(await line.get(server.url()))[2] == b"quick"
        status = Path(f"/proc/{line.process.pid}/status").read_text(encoding="ascii")
        assert int(status.split("VmRSS:")[1].split()[0]) < 40_000
        for _, writer in slow:
            writer.transport.abort()
        await line.quiet()


async def test_a_client_that_breaks_off_frees_its_servers(server: Server) -> None:
    server.answers["/"] = [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", None]
    async with machine() as line:
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", line.port)
            writer.write(f"GET {server.url()} HTTP/1.0\r\n\r\n".encode())
            while not server.open:
                await asyncio.sleep(0.01)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            await line.quiet()
            async with asyncio.timeout(5):
                while server.open:
                    await asyncio.sleep(0.01)


async def test_more_clients_than_there_may_be_wait(server: Server) -> None:
    server.answers["/"] = answer(b"x")
    async with machine() as line:
        idle = [await asyncio.open_connection("127.0.0.1", line.port) for _ in range(MOST_CONNECTIONS + 50)]
        waiting = asyncio.create_task(line.get(server.url()))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        for _, writer in idle:
            writer.transport.abort()
        assert head(await waiting)[2] == b"x"


async def test_hostile_clients_harm_themselves(server: Server) -> None:
    server.answers["/"] = answer(b"still here")
    rng = random.Random(1)
    async with machine() as line:

        async def one() -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", line.port)
            for _ in range(rng.randrange(4)):
                writer.write(rng.randbytes(rng.randrange(1, 5000)))
            if rng.random() < 0.5:
                writer.write_eof()
            await asyncio.sleep(rng.random() / 10)
            writer.transport.abort()

        for _ in range(4):
            await asyncio.gather(*(one() for _ in range(50)))
        await line.quiet()
        assert line.process.poll() is None
    async with machine() as line:
        assert head(await line.get(server.url()))[2] == b"still here"


async def test_the_end_of_the_exchange_ends_its_connections(server: Server) -> None:
    server.answers["/"] = [None]
    async with machine() as line:
        asked = asyncio.create_task(line.get(server.url()))
        while not server.open:
            await asyncio.sleep(0.01)
        assert line.exchange
        await line.exchange.aclose()
        with pytest.raises(ConnectionResetError):
            await asked
        assert head(await line.get(server.url()))[:2] == (502, "the evaluation is over")
        line.network.gateway = None
        assert head(await line.get(server.url()))[0] == 403


# --- frames ------------------------------------------------------------------------------------------------------


def frame(number: int, data: bytes = b"") -> bytes:
    return struct.pack("<II", number, len(data)) + data


CREDIT = struct.Struct("<II").pack


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (struct.pack("<II", 1, MOST_FRAME + 1), "a frame of 65537 bytes"),
        (frame(2, b"x"), "connection 2 after 0"),
        (frame(1, b"x") + frame(3, b"x"), "connection 3 after 1"),
        (frame(1, b"x") + frame(1) + frame(1, b"x"), "after its end"),
        (frame(1, b"x") + frame(1) + frame(1), "after its end"),
        (frame(1, bytes(MOST_FRAME)) * 3, "where 0 may come"),
        (frame(0, b"1234567"), "7 bytes of credits"),
        (frame(0, CREDIT(1, 5)), "credit for connection 1 of 0"),
        (frame(0, CREDIT(0, 5)), "credit for connection 0 of 0"),
        (frame(1, b"x") + frame(0, CREDIT(1, 5)), "credit of 5 where 0"),
        (frame(1, b"x") + frame(0, CREDIT(1, 0)), "credit of 0 where 0"),
        (frame(1, b"x") + frame(0, CREDIT(1, 0xFFFFFFFE)), "credit of"),
        (b"".join(frame(n, b"x") for n in range(1, 2 * MOST_CONNECTIONS + 2)), "more than 256 connections"),
    ],
)
async def test_a_frame_that_cannot_be_is_the_end(sent: bytes, why: str) -> None:
    class Waits:
        async def serve(self, stream: object) -> None:
            await asyncio.Event().wait()

    ours, theirs = socket.socketpair()
    network = Network(ours, Waits())
    theirs.sendall(sent)
    with pytest.raises(NetworkViolation, match=why):
        await asyncio.wait_for(network.run(), 5)
    assert (network.connections, ours.fileno()) == (0, -1)
    theirs.close()


@pytest.mark.parametrize("seed", range(20))
async def test_random_frames_end_or_are_answered(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever comes, in pieces of any size: a violation or the channel's end, and nothing is left open."""
    rng = random.Random(seed)
    stream = b"".join(
        frame(rng.choice([0, n, n, rng.randrange(1, n + 1)]), rng.randbytes(8 * rng.randrange(3)))
        for n in range(1, rng.randrange(2, 100))
    )

    async def send() -> None:
        loop, at = asyncio.get_running_loop(), 0
        theirs.setblocking(False)
        while at < len(stream):
            count = rng.randrange(1, 200)
            await loop.sock_sendall(theirs, stream[at : at + count])
            at += count
        theirs.shutdown(socket.SHUT_WR)

    ours, theirs = socket.socketpair()
    network = Network(ours)
    with caplog.at_level(logging.ERROR):
        _, ended = await asyncio.wait_for(asyncio.gather(send(), network.run(), return_exceptions=True), 10)
    assert ended is None or isinstance(ended, NetworkViolation)
    assert (network.connections, ours.fileno(), caplog.records) == (0, -1, [])
    theirs.close()


@given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=50))), st.lists(st.integers(1, 30)))
def test_frames_come_out_as_they_went_in(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(frame(*one) for one in sent)
    frames, came = Frames(), []
    for cut in cuts:
        came += frames.feed(stream[:cut])
        stream = stream[cut:]
    assert came + frames.feed(stream) == sent


@given(st.binary(max_size=400))
def test_any_bytes_are_frames_or_a_violation(data: bytes) -> None:
    try:
        for _, payload in Frames().feed(data):
            assert len(payload) <= MOST_FRAME
    except NetworkViolation:
        pass


async def test_a_guest_that_reads_nothing_makes_nothing_grow() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    network = Network(ours)
    task = asyncio.create_task(network.run())
    loop, sent, most = asyncio.get_running_loop(), 0, 0
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(2):
            while True:
                sent += 1
                await loop.sock_sendall(theirs, frame(sent, b"GET x HTTP/1.0\r\n\r\n"))
                await asyncio.sleep(0.0001)
                assert network._writer
                most = max(most, network._writer.transport.get_write_buffer_size())
    assert sent > 100 and most < 1 << 20
    await network.aclose()
    await asyncio.wait([task], timeout=5)
    # Held up for long enough, it has more open than a relay ever has.
    assert task.done() and isinstance(task.exception(), NetworkViolation | None)
    theirs.close()


async def test_a_flood_of_short_frames_leaves_the_loop_to_others() -> None:
    class Sink:
        async def serve(self, stream: Any) -> None:
            while await stream.read(1 << 16):
                pass

    ours, theirs = socket.socketpair()
    network = Network(ours, Sink())
    task = asyncio.create_task(network.run())
    code = (
        "import socket, struct, sys\ns = socket.socket(fileno=int(sys.argv[1]))\n"
        "d = (struct.pack('<II', 1, 1) + b'x') * 10000\ntry:\n  while True: s.sendall(d)\nexcept OSError: pass"
    )
    flood = subprocess.Popen([sys.executable, "-c", code, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    loop = asyncio.get_running_loop()
    began, busy = loop.time(), 0.0
    while loop.time() - began < 1.0 and not task.done():
        at = loop.time()
        await asyncio.sleep(0.001)
        busy = max(busy, loop.time() - at)
    assert busy < 0.5
    await network.aclose()
    await asyncio.wait([task], timeout=5)
    assert task.done() and not task.exception()
    flood.kill()
    flood.wait()


# --- programs ----------------------------------------------------------------------------------------------------


async def serve_folder(folder: Path) -> tuple[Any, int]:
    """A server of files, in a process of its own."""
    code = (
        "import http.server\n"
        "s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n"
        "print(s.server_address[1], flush=True); s.serve_forever()\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout
    return process, int(await process.stdout.readline())


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
async def test_git_clones_from_an_allowed_host(tmp_path: Path) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for argv in (
        ["init", "-q", "work"],
        ["-C", "work", *identity, "commit", "-q", "--allow-empty", "-m", "one"],
        ["clone", "-q", "--bare", "work", "repo.git"],
        ["-C", "repo.git", "update-server-info"],
    ):
        subprocess.run(["git", *argv], cwd=tmp_path, check=True)
    process, port = await serve_folder(tmp_path)
    async with machine(HttpRule(f"good.test:{port}", schemes=("http",)), names=NAMES) as line:
        await run(line, "git", "clone", "-q", f"http://good.test:{port}/repo.git", str(tmp_path / "clone"))
        assert line.exchange
        assert {use.host for use in line.exchange.uses} == {f"good.test:{port}"}
    log = subprocess.run(
        ["git", "-C", tmp_path / "clone", "log", "--format=%s"], capture_output=True, check=True
    )
    assert log.stdout == b"one\n"
    process.kill()
    await process.wait()


async def backend(folder: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request to git's own server of its protocol."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines[1:-2]}
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while length := int(await reader.readline(), 16):
            body += (await reader.readexactly(length + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    path, _, query = target.partition("?")
    variables = {
        "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(folder), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
        "QUERY_STRING": query, "REQUEST_METHOD": method, "CONTENT_TYPE": headers.get("content-type", ""),
        "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""), "REMOTE_USER": "a", "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(body)), "GIT_PROTOCOL": headers.get("git-protocol", ""),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        "git", "http-backend", env=variables, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(body)
    status = b"200 OK" if not out.startswith(b"Status: ") else out[8:].split(b"\r\n")[0]
    writer.write(b"HTTP/1.1 %b\r\nConnection: close\r\n" % status + out)
    writer.close()


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
async def test_git_fetches_and_pushes_by_its_own_protocol(tmp_path: Path) -> None:
    """A push that is larger than git's buffer is a chunked request."""
    subprocess.run(["git", "init", "-q", "--bare", "repo.git"], cwd=tmp_path, check=True)
    listener = await asyncio.start_server(partial(backend, tmp_path), "127.0.0.1", 0, limit=1 << 24)
    port = listener.sockets[0].getsockname()[1]
    rule = HttpRule(f"good.test:{port}", path_prefix="/repo.git", schemes=("http",))
    async with machine(rule, names=NAMES, request_bytes=16 << 20) as line:
        url = f"http://good.test:{port}/repo.git"
        await run(line, "git", "clone", "-q", url, "work", cwd=tmp_path)
        (tmp_path / "work/large").write_bytes(random.Random(1).randbytes(3 << 20))
        await run(line, "git", "add", "large", cwd=tmp_path / "work")
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        await run(line, "git", *identity, "commit", "-q", "-m", "large", cwd=tmp_path / "work")
        await run(line, "git", "push", "-q", "origin", "HEAD", cwd=tmp_path / "work")
        await run(line, "git", "clone", "-q", url, "again", cwd=tmp_path)
        assert line.exchange
        assert max(use.sent_bytes for use in line.exchange.uses) > 3 << 20
    assert (tmp_path / "again/large").read_bytes() == (tmp_path / "work/large").read_bytes()
    listener.close()


async def test_pip_installs_from_an_allowed_index(tmp_path: Path) -> None:
    import zipfile

    folder = tmp_path / "simple" / "tiny"
    folder.mkdir(parents=True)
    wheel = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "X = 1\n" + "#" * 300_000)
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(
            "tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny-1.0.dist-info/RECORD", "tiny.py,,\n")
    process, port = await serve_folder(tmp_path)
    async with machine(HttpRule(f"good.test:{port}", schemes=("http",)), names=NAMES) as line:
        index = f"http://good.test:{port}/simple/"
        argv = ["-m", "pip", "install", "--isolated", "--disable-pip-version-check", "--no-cache-dir", "-q"]
        more = [
            "--index-url",
            index,
            "--trusted-host",
            "good.test",
            "--target",
            str(tmp_path / "out"),
            "tiny",
        ]
        await run(line, sys.executable, *argv, *more, env={"PIP_CONFIG_FILE": os.devnull})
    assert (tmp_path / "out" / "tiny.py").exists()
    process.kill()
    await process.wait()


async def test_the_relay_runs_on_the_oldest_python(server: Server) -> None:
    """The guest's image decides which one there is."""
    names = ("python3.9", "python3.10", "/usr/bin/python3")
    found = [path for name in names if (path := shutil.which(name)) and works(path)]
    if not found:
        pytest.skip("no older Python is installed")
    server.answers["/"] = answer(b"old")
    async with machine(python=found[0]) as line:
        assert head(await line.get(server.url()))[2] == b"old"


def works(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def test_the_relay_says_how_it_is_used() -> None:
    ended = subprocess.run([sys.executable, RELAY, "--nonsense", "1"], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr[:6]) == (2, b"usage:")


def test_the_two_ends_agree() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("relay", RELAY)
    assert spec and spec.loader
    relay = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(relay)
    assert (relay.WINDOW, relay.MOST_FRAME, relay.MOST_CONNECTIONS) == (WINDOW, MOST_FRAME, MOST_CONNECTIONS)
