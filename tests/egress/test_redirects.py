"""Redirects: each hop is a request of its own to the rules, and what was meant for one origin stays there."""

from __future__ import annotations

import pytest

from tests.egress.conftest import LOOPBACK, Open, Server, answer, redirect
from wasmeval.egress import Credential, HttpCeiling
from wasmeval.grants import HttpRule


async def test_a_redirect_is_followed_and_told(server: Server, open_guest: Open) -> None:
    server.answers.update({"/old": redirect("/new?x=1"), "/new": answer(b"here")})
    guest = open_guest()
    response = await guest.fetch(server.url("/old"))
    assert (response.status, response.body) == (200, b"here")
    assert (response.url, response.redirected) == (server.url("/new?x=1"), True)
    assert [(use.path, use.status) for use in guest.exchange.uses] == [("/old", 302), ("/new", 200)]
    assert server.connections == 1


async def test_manual_redirects_are_the_guests_own(server: Server, open_guest: Open) -> None:
    server.answers["/"] = redirect("http://10.0.0.1/")
    response = await open_guest().fetch(server.url(), redirect="manual")
    assert (response.status, response.header("location")) == (302, "http://10.0.0.1/")


METHODS = [
    ("301 Moved", "POST", "GET"), ("302 Found", "POST", "GET"), ("302 Found", "PUT", "PUT"),
    ("302 Found", "HEAD", "HEAD"),
    ("303 See Other", "PUT", "GET"), ("303 See Other", "HEAD", "HEAD"), ("307 Again", "POST", "POST"),
    ("308 For Ever", "POST", "POST"), ("308 For Ever", "DELETE", "DELETE"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "method", "then"), METHODS)
async def test_methods_change_as_in_browsers(
    server: Server, open_guest: Open, status: str, method: str, then: str
) -> None:
    server.answers.update({"/a": redirect("/b", status), "/b": answer()})
    body = b"" if method == "HEAD" else b"payload"
    await open_guest().fetch(
        server.url("/a"), method, body=body, headers=[("Content-Type", "text/x"), ("X-Keep", "1")]
    )
    asked = server.asked[1]
    assert (asked.method, asked.header("x-keep")) == (then, "1")
    kept = then == method and method != "HEAD"
    assert asked.body == (b"payload" if kept else b"")
    assert asked.header("content-type") == ("text/x" if then == method else None)


async def test_the_number_of_redirects_is_bounded(server: Server, open_guest: Open) -> None:
    server.answers["/"] = redirect("/")
    failure = await open_guest(redirects=3).fail(server.url())
    assert failure == {
        "kind": 4,
        "type": "redirects",
        "message": "the request was redirected more than 3 times",
    }
    assert len(server.asked) == 4
    assert (await open_guest(redirects=0).fail(server.url()))["type"] == "redirects"


async def test_hops_count_as_requests(server: Server, open_guest: Open) -> None:
    server.answers["/"] = redirect("/")
    assert (await open_guest(requests=2, redirects=5).fail(server.url()))["limit"] == "http.requests"


OUTSIDE = [
    "http://10.0.0.1/", "http://127.0.0.2/", "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/", "http://[::ffff:a00:1]/",
    "http://2130706433/", "http://0177.0.0.1/", "//10.0.0.1/", "http://rebound.test/", "file:///etc/passwd", "ftp://127.0.0.1/",
    "gopher://127.0.0.1/", "http://user:secret@127.0.0.1/", "javascript:alert(1)", "http://a b/",
]  # fmt: skip


@pytest.mark.parametrize("location", OUTSIDE)
async def test_a_redirect_out_of_the_rules_is_refused(
    server: Server, open_guest: Open, location: str
) -> None:
    server.answers["/"] = redirect(location)
    guest = open_guest(names={"rebound.test": ["192.168.0.1"]})
    failure = await guest.fail(server.url())
    assert failure["kind"] == 3, failure
    first, second = guest.exchange.uses
    assert (first.status, first.allowed) == (302, True)
    assert (second.status, second.allowed, second.refused) == (0, False, failure["message"])


async def test_each_hop_needs_a_rule(server: Server, other: Server, open_guest: Open) -> None:
    server.answers.update(
        {"/in": redirect("/in/deeper"), "/in/deeper": redirect("/out"), "/out": answer(b"secret")}
    )
    rule = HttpRule(f"127.0.0.1:{server.port}", path_prefix="/in", schemes=("http",))
    failure = await open_guest(rule).fail(server.url("/in"))
    assert failure["kind"] == 3
    assert failure["message"] == f"no rule of this evaluation allows GET {server.url('/out')}"
    assert [asked.target for asked in server.asked] == ["/in", "/in/deeper"]
    server.answers["/in"] = redirect(other.url())
    assert (await open_guest(rule).fail(server.url("/in")))["kind"] == 3
    assert other.asked == []


async def test_the_guests_own_secrets_stay_at_their_origin(
    server: Server, other: Server, open_guest: Open
) -> None:
    server.answers.update({"/": redirect(other.url("/there")), "/same": redirect("/here"), "/here": answer()})
    other.answers["/there"] = redirect(server.url("/here"))
    headers = [("Authorization", "Bearer mine"), ("Cookie", "a=1"), ("X-Other", "stays")]
    await open_guest().fetch(server.url("/"), headers=headers)
    for asked in (*other.asked, server.asked[-1]):  # nor do they come back
        assert (asked.header("authorization"), asked.header("cookie"), asked.header("x-other")) == (
            None,
            None,
            "stays",
        )
    await open_guest().fetch(server.url("/same"), headers=headers)
    assert server.asked[-1].header("authorization") == "Bearer mine"


@pytest.mark.parametrize("kind", ["bearer", "basic", "header", "query"])
async def test_a_credential_does_not_follow_to_another_origin(
    server: Server, other: Server, open_guest: Open, kind: str
) -> None:
    """Not even when a rule would give it to that origin, nor when the way leads back."""
    secret = "user:pass-word-1234" if kind == "basic" else "key-0123456789"
    lent = Credential(kind, secret, "X-Key" if kind in ("header", "query") else "", ("*:*",), insecure=True)
    server.answers.update({"/": redirect(other.url("/there")), "/back": answer(), "/near": redirect("/back")})
    other.answers["/there"] = redirect(server.url("/back"))
    rule = HttpRule("*:*", schemes=("http",), credential="k")
    guest = open_guest(rule, credentials={"k": lent})
    await guest.fetch(server.url())
    assert _carries(server, 0)
    assert not _carries(other, 0)
    assert not _carries(server, 1)
    await guest.fetch(server.url("/near"))
    assert _carries(server, 2)
    assert _carries(server, 3)


def _carries(server: Server, index: int) -> bool:
    asked = server.asked[index]
    return "key-0123" in asked.raw.decode() or asked.header("authorization") is not None


async def test_a_server_cannot_pass_a_secret_on_in_a_redirect(
    server: Server, other: Server, open_guest: Open
) -> None:
    server.answers["/"] = lambda asked: redirect(
        f"{other.url('/')}{asked.target[2:]}&{asked.header('authorization')}"
    )
    other.answers["/"] = answer()
    lent = Credential("query", "key-0123456789", "key", ("*:*",), insecure=True)
    rule = HttpRule("*:*", schemes=("http",), credential="k")
    guest = open_guest(rule, credentials={"k": lent})
    server.answers["/"] = lambda asked: redirect(other.url("/") + asked.target[1:])
    response = await guest.fetch(server.url())
    assert other.asked[0].target == "/?key=" + "*" * 14
    assert response.url == other.url("/?key=" + "*" * 14)


async def test_the_operators_rules_judge_hops_too(server: Server, other: Server, open_guest: Open) -> None:
    server.answers["/"] = redirect(other.url())
    ceiling = HttpCeiling(
        (HttpRule(f"127.0.0.1:{server.port}", schemes=("http",)),), private_networks=LOOPBACK
    )
    failure = await open_guest(ceiling=ceiling).fail(server.url())
    assert failure == {"kind": 3, "message": f"the service's operator does not allow GET {other.url('/')}"}
    assert other.asked == []


async def test_a_redirect_without_a_place_is_the_response(server: Server, open_guest: Open) -> None:
    server.answers["/"] = answer(b"where to?", "302 Found")
    response = await open_guest().fetch(server.url())
    assert (response.status, response.body) == (302, b"where to?")
