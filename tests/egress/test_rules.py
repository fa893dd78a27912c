"""Rules: what they allow, and what a wrong one says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval import InvalidArgument
from wasmeval.egress import Credential, Egress, HttpCeiling
from wasmeval.egress.hosts import HostPattern, canonical_host
from wasmeval.egress.rules import canonical_path, compile_rule, within
from wasmeval.grants import HttpPolicy, HttpRule


class Url(NamedTuple):
    scheme: str
    host: str
    port: int
    path: str


HOSTS = [
    ("api.test", "api.test", 443, True),
    ("API.Test.", "api.test", 443, True),
    ("api.test", "x.api.test", 443, False),
    ("api.test", "api.test", 8443, False),
    ("api.test:8443", "api.test", 8443, True),
    ("api.test:8443", "api.test", 443, False),
    ("*.api.test", "x.api.test", 443, True),
    ("*.api.test", "x.y.api.test", 443, True),
    ("*.api.test", "api.test", 443, False),
    ("*.api.test", "evilapi.test", 443, False),
    ("*.api.test", "api.test.evil", 443, False),
    ("*", "anything.test", 443, True),
    ("*", "anything.test", 444, False),
    ("*:*", "anything.test", 444, True),
    ("*:*", "anything.test", 25, False),
    ("*:*", "anything.test", 6379, False),
    ("redis.test:6379", "redis.test", 6379, True),
    ("bücher.test", "xn--bcher-kva.test", 443, True),
    ("BÜCHER。test", "xn--bcher-kva.test", 443, True),
    ("127.0.0.1", "127.0.0.1", 443, True),
    ("[::1]", "::1", 443, True),
    ("[0:0::1]:8080", "::1", 8080, True),
]


@pytest.mark.parametrize(("pattern", "host", "port", "allowed"), HOSTS)
def test_hosts(pattern: str, host: str, port: int, allowed: bool) -> None:
    rule = compile_rule(HttpRule(pattern), "rule")
    assert rule.allows("GET", Url("https", host, port, "/")) is allowed


def test_the_schemes_own_port_is_meant_by_none() -> None:
    rule = compile_rule(HttpRule("a.test", schemes=("http",)), "rule")
    assert rule.allows("GET", Url("http", "a.test", 80, "/"))
    assert not rule.allows("GET", Url("http", "a.test", 443, "/"))
    assert not rule.allows("GET", Url("https", "a.test", 443, "/"))


def test_methods() -> None:
    rule = compile_rule(HttpRule("a.test", methods=("get", "POST")), "rule")
    allowed = [
        method
        for method in ("GET", "POST", "PUT", "HEAD")
        if rule.allows(method, Url("https", "a.test", 443, "/"))
    ]
    assert allowed == ["GET", "POST"]


PATHS = [
    ("/", "/anything/../at%2f..%2fall", True),
    ("/v1", "/v1", True),
    ("/v1", "/v1/", True),
    ("/v1", "/v1/x", True),
    ("/v1/", "/v1", True),
    ("/v1", "/v10", False),
    ("/v1", "/v1.json", False),
    ("/v1", "/", False),
    ("/v1", "/V1", False),
    ("/v1", "//v1", False),
    ("/v1", "/%761/x", True),
    ("/a%2fb", "/a%2Fb/c", True),
    ("/ü", "/%c3%bc/x", True),
    ("/v1", "/v1/../admin", False),
    ("/v1", "/v1/%2e%2e/admin", False),
    ("/v1", "/v1/%2E./admin", False),
    ("/v1", "/v1/%252e%252e/admin", False),
    ("/v1", "/v1/%25252e%25252e/admin", False),
    ("/v1", "/v1/%2525252525252e./admin", False),
    ("/v1", "/v1/..%2fadmin", False),
    ("/v1", "/v1%2f..%2fadmin", False),
    ("/v1", "/v1/..%5cadmin", False),
    ("/v1", "/v1/..\\admin", False),
    ("/v1", "/v1/..;x=1/admin", False),
    ("/v1", "/v1/%2e%2e%3bx/admin", False),
    ("/v1", "/v1/%c0%ae%c0%ae/admin", False),
    ("/v1", "/v1/..%c0%afadmin", False),
    ("/v1", "/v1/..%00/admin", False),
    ("/v1", "/v1/..%09/admin", False),
    ("/v1", "/v1/./x", False),
    ("/v1", "/v1/...", True),
    ("/v1", "/v1/a..b/c.d", True),
    ("/v1", "/v1/100%25", True),
]


@pytest.mark.parametrize(("prefix", "path", "inside"), PATHS)
def test_path_prefixes(prefix: str, path: str, inside: bool) -> None:
    rule = compile_rule(HttpRule("a.test", path_prefix=prefix), "rule")
    assert rule.allows("GET", Url("https", "a.test", 443, canonical_path(path))) is inside


@given(st.text(alphabet="/.%25eEfFcCaAbB;\\x", max_size=30))
def test_nothing_inside_a_prefix_resolves_out_of_it(tail: str) -> None:
    import posixpath
    from urllib.parse import unquote

    path = canonical_path(f"/v1/{tail}")
    if within("/v1", path):
        for _ in range(3):
            resolved = posixpath.normpath(path.replace("\\", "/"))
            assert resolved == "/v1" or resolved.startswith("/v1/"), path
            path = unquote(path, "latin-1")


WRONG_HOSTS = [
    "", " ", "a b", "https://a.test", "a.test/path", "a.test:", "a.test:0", "a.test:65536", "a.test:x",
    "a..test", ".test", "*.", "*test", "a.*.test", "**", "*.*", "*.127.0.0.1", "-a.test", "a-.test",
    "0x7f.1", "2130706433", "127.1", "0177.0.0.1", "127.0.0.1.2", "1.2.3.256", "[::1", "::1]x", "[::1]x",
    "a" * 64 + ".test", "a." * 200 + "test", "user@a.test", "a.test?", "a%2etest", "a\r\nb", "a\0b",
    "xn--\N{SNOWMAN}", "\N{ZERO WIDTH JOINER}", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("host", WRONG_HOSTS)
def test_a_wrong_host_is_refused_by_name(host: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Egress(HttpCeiling.ANY_PUBLIC).check(HttpPolicy((HttpRule("a.test"), HttpRule(host))))
    assert caught.value.field == "http.rules[1].host"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"host": 1}, "http.rules[0].host: must be a str, not 1"),
    ({"methods": "GET"}, "http.rules[0].methods: must be a sequence of str such as ('GET',), not 'GET'"),
    ({"methods": ("GET ",)}, "http.rules[0].methods: 'GET ' is not a method that can be allowed"),
    ({"methods": ("CONNECT",)}, "http.rules[0].methods: 'CONNECT' is not a method that can be allowed"),
    ({"methods": ("trace",)}, "http.rules[0].methods: 'trace' is not a method that can be allowed"),
    ({"schemes": ()}, "http.rules[0].schemes: must be some of http, https, not ()"),
    ({"schemes": ("ftp",)}, "http.rules[0].schemes: must be some of http, https, not ('ftp',)"),
    ({"schemes": ([],)}, "http.rules[0].schemes: must be some of http, https, not ([],)"),
    (
        {"path_prefix": "/a/%2e%2e"},
        "http.rules[0].path_prefix: must have no . or .. segment, not '/a/%2e%2e'",
    ),
    ({"credential": "nope"}, "http.rules[0].credential: there is no credential 'nope' here"),
    ({"credential": None}, "http.rules[0].credential: must be a str, not None"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_rule_says_what_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Egress(HttpCeiling.ANY_PUBLIC).check(HttpPolicy((replace(HttpRule("a.test"), **change),)))
    assert str(caught.value) == message


@pytest.mark.parametrize("prefix", ["", "v1", "/a?b", "/a#b", "/a b", "/a\n", "/a\\b", "/" + "x" * 1024])
def test_a_wrong_prefix(prefix: str) -> None:
    with pytest.raises(
        InvalidArgument, match=r"path_prefix: must be a path of at most 1024 characters that begins with /"
    ):
        Egress(HttpCeiling.ANY_PUBLIC).check(HttpPolicy((HttpRule("a.test", path_prefix=prefix),)))


@pytest.mark.parametrize("name", ["requests", "request_bytes", "response_bytes", "seconds", "redirects"])
@pytest.mark.parametrize("value", [-1, True, "1", float("nan"), float("inf"), None])
def test_a_wrong_number_is_named(name: str, value: object) -> None:
    policy = replace(HttpPolicy((HttpRule("a.test"),)), **{name: value})
    with pytest.raises(InvalidArgument) as caught:
        Egress(HttpCeiling.ANY_PUBLIC).check(policy)
    assert caught.value.field == f"http.{name}"


def test_numbers_are_lowered_to_the_ceiling() -> None:
    egress = Egress(
        HttpCeiling((HttpRule("*"),), requests=3, request_bytes=4, response_bytes=5, seconds=6.0, redirects=0)
    )
    rules = (HttpRule("a.test"),)
    assert egress.check(HttpPolicy(rules)) == HttpPolicy(rules, 3, 4, 5, 6.0, 0)
    assert egress.check(HttpPolicy(rules, 1, 2, 3, 0.5, 0)) == HttpPolicy(rules, 1, 2, 3, 0.5, 0)


def test_without_a_ceiling_there_is_no_http() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Egress().check(HttpPolicy((HttpRule("a.test"),)))
    assert (
        str(caught.value) == "http: is not offered here: the operator allows no HTTP requests; leave it out"
    )
    assert HttpCeiling() == HttpCeiling.NONE


@pytest.mark.parametrize("rules", [(), None, "a.test", ("a.test",), (HttpRule("a.test"),) * 65])
def test_wrong_rules(rules: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Egress(HttpCeiling.ANY_PUBLIC).check(HttpPolicy(rules))
    assert caught.value.field.startswith("http.rules")


WRONG_CEILINGS: list[tuple[dict[str, Any], str]] = [
    ({"rules": (HttpRule("a b"),)}, "rules[0].host"),
    ({"rules": (HttpRule("a.test", credential="k"),)}, "rules[0].credential"),
    ({"private_networks": ("10.0.0.1/8",)}, "private_networks"),
    ({"private_networks": ("everything",)}, "private_networks"),
    ({"private_networks": "10.0.0.0/8"}, "private_networks"),
    ({"requests": 0}, "requests"),
    ({"redirects": -1}, "redirects"),
    ({"seconds": float("inf")}, "seconds"),
]


@pytest.mark.parametrize(("change", "field"), WRONG_CEILINGS)
def test_a_wrong_ceiling_names_the_part(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        HttpCeiling(**change)
    assert caught.value.field == field


def test_a_credential_is_named_by_its_place_in_the_request() -> None:
    egress = Egress(HttpCeiling.ANY_PUBLIC, {"k": Credential("bearer", "x" * 20, hosts=("a.test",))})
    egress.check(HttpPolicy((HttpRule("a.test", credential="k"),)))
    with pytest.raises(
        InvalidArgument, match=r"^http\.rules\[1\]\.credential: 'k' may not go to all hosts of this rule$"
    ):
        egress.check(HttpPolicy((HttpRule("a.test"), HttpRule("b.test", credential="k"))))


@given(st.text(max_size=60))
def test_canonical_hosts_stay_as_they_are(text: str) -> None:
    try:
        host = canonical_host(text)
    except ValueError:
        return
    assert host.isascii()
    assert canonical_host(host) == host


@given(st.text(alphabet="ab.*:0123456789[]-_", max_size=20))
def test_every_pattern_covers_itself(text: str) -> None:
    try:
        pattern = HostPattern.parse(text)
    except ValueError:
        return
    assert pattern.covers(pattern)
