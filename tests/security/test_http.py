"""Promise: a guest's requests reach what policy and operator allow, and nothing else; it never sees a credential.

These attack the way out itself, with every byte that a guest could send and with servers that help it. The listener is
real and on loopback: what must not reach it is seen not to.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.egress.conftest import (
    ANY,
    LOOPBACK,
    Guest,
    Open,
    Server,
    answer,
    encode,
    open_guest,
    other,
    redirect,
    server,
)
from wasmeval.egress import Credential, Egress, HttpCeiling, HttpFailure
from wasmeval.grants import HttpPolicy, HttpRule

__all__ = ["open_guest", "other", "server"]

HERE = [
    "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7F.0.0.1", "0177.0.0.1",
    "017700000001", "127.0.0.0x1", "00127.0.0.1", "0.0.0.0", "0", "127.255.255.254", "localhost",
    "LOCALHOST", "localhost.", "me.test", "me.test.", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::127.0.0.1]", "[2002:7f00:1::]",
    "[2001:0:7f00:1::]", "[fe80::1%25lo]", "[::1%25lo]", "[::1%lo]", "127。0。0。1", "１２７.0.0.1", "①②⑦.⓪.⓪.①",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "𝐥𝐨𝐜𝐚𝐥𝐡𝐨𝐬𝐭", "local\u00adhost", "me。test", "xn--localhost-", "%31%32%37.0.0.1",
    "127.0.0.1%00.good.test", "good.test@127.0.0.1", "127.0.0.1#@good.test", "127.0.0.1\\@good.test",
    "good.test\\@127.0.0.1", "127.0.0.1\t", "127.0.0.1\r\nHost: good.test", " 127.0.0.1", "127.0.0.1 ",
    "mapped.test", "nat64.test", "sixtofour.test", "scoped.test", "nothing.test", "odd.test",
]  # fmt: skip

NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "me.test": ["127.0.0.1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "nat64.test": ["64:ff9b::127.0.0.1"],
    "sixtofour.test": ["2002:7f00:1::"],
    "scoped.test": ["::1%1"],
    "nothing.test": [],
    "odd.test": ["127.1", "0x7f000001", "localhost", ""],
}


@pytest.mark.parametrize("host", HERE)
async def test_this_machine_is_reached_in_no_spelling(server: Server, open_guest: Open, host: str) -> None:
    server.answers["/"] = answer(b"inside")
    guest = open_guest(ceiling=HttpCeiling.ANY_PUBLIC, names=NAMES)
    failure = await guest.fail(f"http://{host}:{server.port}/")
    assert failure["kind"] == 3 or "could not be resolved" in failure["message"], failure
    server.answers["/"] = redirect(f"http://{host}:{server.port}/", "307 Again")
    reach = open_guest(HttpRule(f"127.0.0.1:{server.port}", schemes=("http",)), names=NAMES)
    if host.rstrip(". ") not in ("127.0.0.1", "127。0。0。1") and "#" not in host:
        assert (await reach.fail(f"http://127.0.0.1:{server.port}/"))["kind"] == 3
        assert len(server.asked) == 1
    assert server.connections <= 1


async def test_a_name_that_changes_is_asked_for_once(server: Server) -> None:
    """DNS rebinding: the first answer was checked, so it is the one that is used, also by later requests."""
    server.answers["/"] = answer(b"inside")
    asked = 0

    async def resolve(host: str) -> Sequence[str]:
        nonlocal asked
        asked += 1
        return (
            ["127.0.0.2"] if asked == 1 else ["127.0.0.1"]
        )  # where nobody listens, and where the server does

    egress = Egress(HttpCeiling((ANY,), private_networks=("127.0.0.2/32",)), resolve=resolve)
    guest = Guest(egress.open(HttpPolicy((ANY,))))
    for _ in range(3):
        assert (await guest.fail(server.url("/", "rebinding.test")))["type"] == "connect"
    assert asked == 1
    await egress.aclose()
    assert server.connections == 0


async def test_of_a_mixed_name_only_the_allowed_addresses_are_tried(server: Server, open_guest: Open) -> None:
    server.answers["/"] = answer(b"allowed")
    names = {"mixed.test": ["10.0.0.1", "169.254.169.254", "::1", "127.0.0.1", "fd00::1"]}
    guest = open_guest(names=names)
    assert (await guest.fetch(server.url("/", "mixed.test"))).body == b"allowed"


async def test_an_answer_of_the_wrong_kind_is_refused(open_guest: Open) -> None:
    guest = open_guest(names={"long.test": ["10.0.0.1"] * 10_000})
    assert (await guest.fail("http://long.test/"))["kind"] == 3


PROXIES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]


@pytest.mark.parametrize("name", PROXIES)
async def test_the_environments_proxy_is_not_used(
    server: Server, other: Server, open_guest: Open, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, other.url())
    server.answers["/"] = answer(b"direct")
    guest = open_guest(names={"somewhere.test": ["127.0.0.1"]})
    assert (await guest.fetch(server.url("/", "somewhere.test"))).body == b"direct"
    assert other.connections == 0


async def test_a_netrc_is_not_read(
    server: Server,
    open_guest: Open,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / ".netrc").write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    server.answers["/"] = answer()
    await open_guest().fetch(server.url())
    assert server.asked[0].header("authorization") is None


async def test_no_rule_no_request(server: Server, open_guest: Open) -> None:
    """Neither a name server nor a server hears of what no rule allows."""
    looked_up: list[str] = []

    async def resolve(host: str) -> Sequence[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    ceiling = HttpCeiling(
        (HttpRule(f"*.good.test:{server.port}", ("GET",), "/v1", ("http",)),), private_networks=LOOPBACK
    )
    egress = Egress(ceiling, resolve=resolve)
    guest = Guest(egress.open(HttpPolicy((ANY,))))
    server.answers["/v1/x"] = answer(b"yes")
    for url, method in [
        (server.url("/v1/x", "exfiltrate-this.evil.test"), "GET"),
        (server.url("/v1/x", "good.test"), "GET"),
        (server.url("/v1/x", "a.good.test.evil.test"), "GET"),
        (server.url("/v10", "a.good.test"), "GET"),
        (server.url("/v1/%2e%2e/admin", "a.good.test"), "GET"),
        (server.url("/v1/../admin", "a.good.test"), "GET"),
        (server.url("/v1/x", "a.good.test"), "POST"),
        (server.url("/v1/x", "a.good.test", "https"), "GET"),
        ("http://a.good.test/v1/x", "GET"),
    ]:
        failure = await guest.fail(url, method)
        assert failure["kind"] == 3
        assert failure["message"].startswith("the service's operator does not allow ")
    assert looked_up == []
    assert server.connections == 0
    assert (await guest.fetch(server.url("/v1/x", "A.Good.Test."))).body == b"yes"
    await egress.aclose()


async def test_the_host_header_is_the_host_that_was_checked(server: Server, open_guest: Open) -> None:
    server.answers["/"] = answer()
    guest = open_guest(names={"front.test": ["127.0.0.1"]})
    await guest.fetch(
        server.url("/", "Front.Test."), headers=[("Host", "admin.test"), ("hOST", "admin.test")]
    )
    assert server.asked[0].header("host") == f"front.test:{server.port}"


SMUGGLED = [
    "/\r\nX-Evil: 1", "/ HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET /admin", "/%0d%0aX-Evil: 1",
    "/\u010d\u010aX-Evil: 1", "/?a=\r\nX-Evil: 1", "/\u2028X-Evil: 1", "/\0", "/#\r\nX-Evil: 1",
]  # fmt: skip


@pytest.mark.parametrize("path", SMUGGLED)
async def test_no_second_request_can_be_smuggled_in_a_url(
    server: Server, open_guest: Open, path: str
) -> None:
    class Anything(dict[str, bytes]):
        def __missing__(self, key: str) -> bytes:
            return answer()

    server.answers = Anything()
    await asyncio.gather(open_guest().fetch(server.url() + path[1:]), return_exceptions=True)
    assert len(server.asked) <= 1
    assert all(asked.header("x-evil") is None for asked in server.asked)


async def test_a_guest_that_helps_a_server_does_not_get_the_secret(server: Server, open_guest: Open) -> None:
    """The worst a guest of an honest echo can do: every header that might make it answer in another way."""
    secret = "sk_live_0123456789abcdef"
    server.answers["/"] = lambda asked: answer(
        asked.raw, "200 OK", "X-Echo: " + str(asked.header("authorization"))
    )
    lent = Credential("bearer", secret, hosts=("*:*",), insecure=True)
    rule = HttpRule("*:*", schemes=("http",), credential="k")
    guest = open_guest(rule, credentials={"k": lent})
    headers = [
        ("Accept-Encoding", "br, zstd, compress"),
        ("TE", "trailers"),
        ("Range", "bytes=0-9"),
        ("Authorization", "x"),
    ]
    for method in ("GET", "POST", "OPTIONS", "PROPFIND"):
        response = await guest.fetch(server.url(), method, headers=headers)
        assert secret not in repr(response)
        assert b"Bearer " + b"*" * len(secret) in response.body
    for method in ("TRACE", "CONNECT"):
        assert (await guest.fail(server.url(), method))["kind"] == 3
    assert secret not in repr(guest.exchange.uses) + repr(vars(guest.exchange)) + repr(lent)


async def test_what_one_evaluation_does_changes_nothing_for_another(server: Server) -> None:
    server.answers["/"] = lambda asked: answer(b"x", "200 OK", "Set-Cookie: a=1")
    egress = Egress(HttpCeiling((ANY,), private_networks=LOOPBACK))
    first, second = (Guest(egress.open(HttpPolicy((ANY,), requests=2))) for _ in range(2))
    await first.fetch(server.url(), headers=[("Cookie", "mine=1"), ("Authorization", "mine")])
    await first.fetch(server.url())
    assert (await first.fail(server.url()))["limit"] == "http.requests"
    await first.exchange.aclose()
    await second.fetch(server.url())
    asked = server.asked[-1]
    assert (asked.header("cookie"), asked.header("authorization")) == (None, None)
    assert len(second.exchange.uses) == 1
    assert server.connections == 2
    await egress.aclose()


async def test_garbage_ends_in_a_refusal_and_is_counted(open_guest: Open) -> None:
    guest = open_guest(requests=20)
    garbage = [
        b"",
        b"\xff" * 9,
        b"\0\0\0\0",
        encode("GET", "\ud800".encode("utf-8", "ignore").decode()),
        b"\1\0\0\0{" * 50,
    ]
    for request in garbage * 4:
        with pytest.raises(HttpFailure) as caught:
            await guest.exchange.request(request)
        assert caught.value.kind == 3
    with pytest.raises(HttpFailure) as caught:
        await guest.exchange.request(b"")
    assert caught.value.kind == 2
    assert len(guest.exchange.uses) == 20


@pytest.mark.parametrize("stream", [0, 1, 1 << 30, (1 << 32) - 1])
async def test_a_stream_that_is_not_there(open_guest: Open, stream: int) -> None:
    guest = open_guest()
    guest.exchange.drop(stream)
    with pytest.raises(HttpFailure) as caught:
        await guest.exchange.read(stream, 1 << 31)
    assert caught.value.kind == 4


def test_nothing_of_it_is_loaded_until_it_is_needed() -> None:
    late = ["anyio", "httpcore", "httpx", "idna"]
    code = f"import sys, wasmeval.egress; print([name for name in {late} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_service_that_offers_http_and_folders_has_loaded_all_of_it_before_it_listens() -> None:
    code = """
import asyncio, sys
from pathlib import Path
from wasmeval.egress import Egress, HttpCeiling
from wasmeval.grants import Folder
from wasmeval.offer import Offer
asyncio.run(Offer(Egress(HttpCeiling.ANY_PUBLIC), {"here": Folder(Path.cwd())}).load())
loaded = set(sys.modules)
import wasmeval.egress.network, wasmeval.egress.transfer, wasmeval.preopens
print("httpx" in loaded, sorted(set(sys.modules) - loaded))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True []\n"
