"""TLS: the certificate is the URL's host's, whatever address the connection goes to."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from tests.egress.conftest import Open, Server, answer, redirect, running
from wasmeval.egress import Credential
from wasmeval.grants import HttpRule


@pytest.fixture
async def secure(authority: trustme.CA) -> AsyncIterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("good.test", "127.0.0.1").configure_cert(context)
    async with running(context) as server:
        yield server


NAMES = {"good.test": ["127.0.0.1"], "bad.test": ["127.0.0.1"]}


async def test_a_trusted_certificate(secure: Server, open_guest: Open) -> None:
    secure.answers["/"] = answer(b"safe")
    guest = open_guest(names=NAMES)
    for host in ("good.test", "127.0.0.1"):
        assert (await guest.fetch(secure.url("/", host, "https"))).body == b"safe"
        assert secure.asked[-1].header("host") == f"{host}:{secure.port}"


async def test_another_hosts_certificate_is_refused(secure: Server, open_guest: Open) -> None:
    secure.answers["/"] = answer(b"safe")
    failure = await open_guest(names=NAMES).fail(secure.url("/", "bad.test", "https"))
    assert (failure["kind"], failure["type"]) == (4, "tls")
    assert failure["message"] == (
        f"the certificate of bad.test:{secure.port} does not verify: "
        "Hostname mismatch, certificate is not valid for 'bad.test'."
    )
    assert secure.asked == []


async def test_an_unknown_authority_is_refused(authority: trustme.CA, open_guest: Open) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("good.test").configure_cert(context)
    async with running(context) as server:
        failure = await open_guest(names=NAMES).fail(server.url("/", "good.test", "https"))
    assert failure["type"] == "tls"
    assert "unable to get local issuer certificate" in failure["message"]


async def test_a_server_without_tls(open_guest: Open) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    failure = await open_guest().fail(f"https://127.0.0.1:{port}/")
    listener.close()
    assert (failure["kind"], failure["type"]) == (4, "tls")
    assert failure["message"].startswith(f"TLS with 127.0.0.1:{port} failed: ")


async def test_a_credential_goes_by_https_alone(secure: Server, server: Server, open_guest: Open) -> None:
    """Also when its server redirects to the same host without TLS."""
    secure.answers["/"] = redirect(server.url("/", "good.test"))
    server.answers["/"] = answer(b"plain")
    lent = Credential("bearer", "key-0123456789", hosts=("good.test:*",))
    rules = (HttpRule("good.test:*", credential="k"), HttpRule("*:*", schemes=("http",)))
    guest = open_guest(*rules, credentials={"k": lent}, names=NAMES)
    assert (await guest.fetch(secure.url("/", "good.test", "https"))).body == b"plain"
    assert secure.asked[0].header("authorization") == "Bearer key-0123456789"
    assert server.asked[0].header("authorization") is None


async def test_tls_that_breaks_in_the_middle(authority: trustme.CA, open_guest: Open) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("good.test").configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        await writer.drain()
        os.write(writer.get_extra_info("socket").fileno(), b"this is no TLS" * 20)
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    guest = open_guest(names=NAMES)
    failure = await guest.fail(f"https://good.test:{port}/")
    listener.close()
    assert (failure["kind"], failure["type"]) in ((4, "tls"), (4, "connect"))


async def test_certificates_that_cannot_be_read(open_guest: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    guest = open_guest(names=NAMES)
    for _ in range(2):
        assert await guest.fail("https://good.test/") == {
            "kind": 4, "type": "tls", "message": "the service cannot read its trusted certificates",
        }  # fmt: skip
