"""Credentials: the server gets them, the guest never does."""

from __future__ import annotations

import base64
import json
import pickle
import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.egress.conftest import Asked, Guest, Open, Server, answer, chunk, redirect
from wasmeval import InvalidArgument
from wasmeval.egress import Credential, Egress, HttpCeiling
from wasmeval.egress.scrub import Scrubber
from wasmeval.grants import HttpPolicy, HttpRule

SECRET = "sk-9/+%&\"'<>\\~=0123"
USER = "someone:pass+word/99"
RULE = HttpRule("*:*", schemes=("http",), credential="k")


def lent(kind: str, secret: str = SECRET, name: str = "") -> Credential:
    return Credential(kind, secret, name, ("*:*",), insecure=True)


KINDS = {
    "bearer": lent("bearer"),
    "basic": lent("basic", USER),
    "header": lent("header", "Token " + SECRET, "X-Api-Key"),
    "query": lent("query", SECRET, "api_key"),
}


def guest_with(open_guest: Open, credential: Credential, **more: Any) -> Guest:
    return open_guest(RULE, credentials={"k": credential}, **more)


async def test_bearer(server: Server, open_guest: Open) -> None:
    server.answers["/"] = answer()
    await guest_with(open_guest, KINDS["bearer"]).fetch(
        server.url(), headers=[("authorization", "Bearer guess")]
    )
    assert server.asked[0].header("authorization") == f"Bearer {SECRET}"


async def test_basic(server: Server, open_guest: Open) -> None:
    server.answers["/"] = answer()
    await guest_with(open_guest, KINDS["basic"]).fetch(server.url())
    assert server.asked[0].header("authorization") == f"Basic {base64.b64encode(USER.encode()).decode()}"


async def test_header(server: Server, open_guest: Open) -> None:
    server.answers["/"] = answer()
    await guest_with(open_guest, KINDS["header"]).fetch(server.url(), headers=[("x-api-key", "guess")])
    assert server.asked[0].header("x-api-key") == f"Token {SECRET}"


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("", "?"),
        ("?a=1", "?a=1&"),
        ("?api_key=guess&a=%31&api%5Fkey=x", "?a=%31&"),
        ("?", "?"),
        ("?a&&b", "?a&b&"),
    ],
)
async def test_query(server: Server, open_guest: Open, query: str, sent: str) -> None:
    server.answers["/"] = answer()
    response = await guest_with(open_guest, KINDS["query"]).fetch(server.url(f"/{query}"))
    assert server.asked[0].target == f"/{sent}api_key={quote(SECRET, safe='')}"
    assert response.url == server.url(f"/{query}")


def echoes(asked: Asked) -> list[str]:
    """What a server may make of what it was sent."""
    raw = asked.raw.decode("latin-1")
    plain = [
        raw,
        quote(raw),
        quote(raw, safe=""),
        json.dumps(raw),
        json.dumps(raw).replace("/", "\\/"),
        lower_escapes(quote(raw)),
    ]
    html = (
        raw.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace('"', "&quot;")
        .replace("'", "&#39;")
    )
    return [
        *plain,
        html,
        "".join(f"\\u{ord(char):04x}" for char in raw),
        "".join(f"&#{ord(char)};" for char in raw),
    ]


def lower_escapes(text: str) -> str:
    return re.sub("%..", lambda found: found[0].lower(), text)


def forms(credential: Credential) -> list[str]:
    """The secret as it might be seen."""
    parts = [credential.secret, base64.b64encode(credential.secret.encode()).decode().rstrip("=")]
    if credential.kind == "basic":
        parts += credential.secret.split(":")
    return [
        form for part in parts for form in (part, quote(part), quote(part, safe=""), json.dumps(part)[1:-1])
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", range(9))
async def test_an_echoed_secret_is_taken_out(server: Server, open_guest: Open, kind: str, how: int) -> None:
    server.answers["/"] = lambda asked: answer(echoes(asked)[how].encode())
    response = await guest_with(open_guest, KINDS[kind]).fetch(server.url("/"))
    text = response.body.decode()
    assert "********" in text
    assert not [form for form in forms(KINDS[kind]) if form in text]
    assert len(text) == len(echoes(server.asked[0])[how])


@pytest.mark.parametrize("kind", KINDS)
async def test_an_echoed_secret_is_taken_out_of_heads(server: Server, open_guest: Open, kind: str) -> None:
    def echo(asked: Asked) -> bytes:
        said = asked.header("authorization") or asked.header("x-api-key") or asked.target
        return answer(
            b"", f"200 {said}", f"X-Echo: {said}", f"Location: /{quote(said)}", f"Set-Cookie: k={said}"
        )

    server.answers["/"] = echo
    guest = guest_with(open_guest, KINDS[kind])
    response = await guest.fetch(server.url("/"))
    seen = repr(response) + repr(guest.exchange.uses)
    assert not [form for form in forms(KINDS[kind]) if form in seen or repr(form)[1:-1] in seen]
    assert "*" * 8 in (response.header("x-echo") or "")
    assert "*" * 8 in response.reason


@pytest.mark.parametrize("cut", range(1, 26))
async def test_a_secret_in_two_pieces_is_taken_out(server: Server, open_guest: Open, cut: int) -> None:
    text = f"<{SECRET}>".encode()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    first, second = text[:cut], text[cut:] or b"."
    server.answers["/"] = [head + chunk(first), 0.01, chunk(second) + b"0\r\n\r\n"]
    response = await guest_with(open_guest, KINDS["bearer"]).fetch(server.url())
    assert response.body.rstrip(b".") == b"<" + b"*" * len(SECRET) + b">"


async def test_a_secret_in_a_compressed_body_is_taken_out(server: Server, open_guest: Open) -> None:
    import gzip

    body = gzip.compress(f"key={SECRET};".encode())
    server.answers["/"] = answer(body, "200 OK", "Content-Encoding: gzip")
    response = await guest_with(open_guest, KINDS["bearer"]).fetch(
        server.url(), headers=[("Accept-Encoding", "br")]
    )
    assert response.body == b"key=" + b"*" * len(SECRET) + b";"
    assert server.asked[0].header("accept-encoding") == "gzip, deflate"
    server.answers["/"] = answer(body, "200 OK", "Content-Encoding: br")
    failure = await guest_with(open_guest, KINDS["bearer"]).fail(server.url())
    assert failure["type"] == "protocol"


async def test_no_part_of_an_echo_can_be_asked_for(server: Server, open_guest: Open) -> None:
    server.answers["/"] = answer(b"x")
    headers = [("Range", "bytes=0-3"), ("If-Range", '"1"')]
    await guest_with(open_guest, KINDS["bearer"]).fetch(server.url(), headers=headers)
    assert server.asked[0].header("range") is None
    await open_guest().fetch(server.url(), headers=headers)
    assert server.asked[1].header("range") == "bytes=0-3"
    assert server.asked[1].header("accept-encoding") == "identity"


async def test_an_event_stream_is_not_held_back(server: Server, open_guest: Open) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.answers["/"] = [head + chunk(b"data: one\n\n"), None]
    guest = guest_with(open_guest, KINDS["bearer"])
    response = await guest.begin(server.url())
    assert (response.body or await guest.exchange.read(response.stream, 100)) == b"data: one\n\n"


@pytest.mark.parametrize("guess", ["sk-9/", "sk-8/", "zzzzz"])
def test_what_is_held_back_does_not_tell_how_much_of_a_guess_is_right(guess: str) -> None:
    stream = Scrubber([KINDS["bearer"]]).stream()
    assert stream.feed(f"said {guess}".encode()) == b"said "
    assert stream.end() == guess.encode()


@given(
    st.lists(st.binary(max_size=40) | st.just(SECRET.encode()) | st.just(quote(SECRET).encode())),
    st.integers(1, 50),
)
def test_a_body_is_scrubbed_alike_in_any_pieces(parts: list[bytes], size: int) -> None:
    scrubber, text = Scrubber([KINDS["bearer"]]), b" ".join(parts)
    stream = scrubber.stream()
    pieces = [stream.feed(text[start : start + size]) for start in range(0, len(text), size)]
    whole = b"".join([*pieces, stream.end()])
    assert whole == scrubber.whole(text)
    assert len(whole) == len(text)
    assert SECRET.encode() not in whole


async def test_errors_do_not_show_it(server: Server, open_guest: Open) -> None:
    server.answers["/"] = lambda asked: redirect(
        f"http://10.0.0.1/{quote(asked.header('authorization') or '')}"
    )
    guest = guest_with(open_guest, KINDS["bearer"])
    failure = await guest.fail(server.url())
    assert failure["kind"] == 3
    assert not [form for form in forms(KINDS["bearer"]) if form in repr(failure) + repr(guest.exchange.uses)]


def test_a_credential_is_in_no_repr() -> None:
    assert "sk-9" not in repr(KINDS["bearer"])
    assert pickle.loads(pickle.dumps(KINDS["bearer"])) == KINDS["bearer"]


WRONG = [
    (("other", SECRET), "kind: must be one of bearer, basic, header, query, not 'other'"),
    (("bearer", "short"), "secret: must have 8 to 4096 characters, not 5"),
    (("bearer", "has a space"), "secret: must be printable ASCII, without spaces around it"),
    (("bearer", "new\r\nline: x"), "secret: must be printable ASCII, without spaces around it"),
    (("header", "new\r\nline: x", "X"), "secret: must be printable ASCII, without spaces around it"),
    (("basic", "no-colon-here"), "secret: must be user:password for kind basic"),
    (("header", SECRET), "name: must name a header, not ''"),
    (("header", SECRET, "Bad Name"), "name: must name a header, not 'Bad Name'"),
    (("header", SECRET, "Host"), "name: must not be 'Host': that header is the connection's own"),
    (("bearer", SECRET, "X"), "name: must be empty for kind bearer, not 'X'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_a_wrong_credential_says_what_is_wrong(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Credential(*arguments, hosts=("a.test",))
    assert str(caught.value) == message
    assert SECRET not in str(caught.value)


def test_a_credential_needs_hosts() -> None:
    with pytest.raises(InvalidArgument, match="hosts: must name at least one host"):
        Credential("bearer", SECRET)


BOUND = [
    (("api.test",), HttpRule("api.test"), True),
    (("*.test",), HttpRule("api.test"), True),
    (("*.test",), HttpRule("*.api.test"), True),
    (("*.test",), HttpRule("*.test"), True),
    (("*",), HttpRule("*"), True),
    (("*.test",), HttpRule("test"), False),
    (("api.test",), HttpRule("*.api.test"), False),
    (("api.test",), HttpRule("*"), False),
    (("*.api.test",), HttpRule("*.test"), False),
    (("*.test",), HttpRule("api.test.evil"), False),
    (("*.test",), HttpRule("eviltest"), False),
    (("api.test",), HttpRule("api.test:8443"), False),
    (("api.test:8443",), HttpRule("api.test:8443"), True),
    (("api.test:*",), HttpRule("api.test:8443"), True),
    (("api.test",), HttpRule("api.test:*"), False),
    (("api.test",), HttpRule("api.test", schemes=("http",)), False),
    (("api.test",), HttpRule("api.test", schemes=("http", "https")), False),
]


@pytest.mark.parametrize(("hosts", "rule", "right"), BOUND)
def test_a_rule_may_name_a_credential_only_within_its_bound(
    hosts: tuple[str, ...], rule: HttpRule, right: bool
) -> None:
    egress = Egress(HttpCeiling.ANY_PUBLIC, {"k": Credential("bearer", SECRET, hosts=hosts)})
    policy = HttpPolicy((HttpRule(rule.host, schemes=rule.schemes, credential="k"),))
    if right:
        egress.check(policy)
        return
    with pytest.raises(InvalidArgument) as caught:
        egress.check(policy)
    assert caught.value.field == "http.rules[0].credential"


async def test_the_first_rule_that_allows_a_request_decides(server: Server, open_guest: Open) -> None:
    server.answers.update({"/open": answer(), "/": answer()})
    rules = (HttpRule("*:*", path_prefix="/open", schemes=("http",)), RULE)
    guest = open_guest(*rules, credentials={"k": KINDS["bearer"]})
    await guest.fetch(server.url("/open"))
    await guest.fetch(server.url("/"))
    assert [bool(asked.header("authorization")) for asked in server.asked] == [False, True]
