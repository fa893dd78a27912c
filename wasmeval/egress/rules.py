"""Rules: a policy's, checked and made ready to judge requests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, unquote

from wasmeval.egress.hosts import DEFAULT_PORTS, HostPattern
from wasmeval.errors import InvalidArgument
from wasmeval.grants import HttpRule

MOST_RULES = 64
MOST_PREFIX = 1024
"""Characters of a path prefix."""

_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")

# What lenient servers read as / and . in a path.
_OVERLONG = {"\\": "/", "\xc0\xaf": "/", "\xc0\xae": "."}
_BLANK = "".join(map(chr, range(0x21)))

# CONNECT and TRACE are no requests for a resource; TRACE would echo the credential.
FORBIDDEN_METHODS = frozenset(["CONNECT", "TRACE", "TRACK"])


class Destination(Protocol):
    """What of a URL a rule looks at; host and path in their canonical spelling."""

    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def authority(self) -> str: ...
    @property
    def path(self) -> str: ...


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One HttpRule, ready to judge. An empty `methods` allows all."""

    host: HostPattern
    methods: frozenset[str]
    prefix: str
    schemes: frozenset[str]
    credential: str

    @property
    def opens_tunnels(self) -> bool:
        """Whether it asks for nothing that could not be seen from outside of a tunnel."""
        return not (self.methods or self.prefix or self.credential)

    def means(self, url: Destination) -> bool:
        """Whether scheme, host and port are among those that it is about."""
        return url.scheme in self.schemes and self.host.matches(url.host, url.port, url.scheme)

    def allows(self, method: str, url: Destination) -> bool:
        return (
            self.means(url) and (not self.methods or method in self.methods) and within(self.prefix, url.path)
        )


def compile_rules(rules: Iterable[HttpRule], field: str) -> tuple[CompiledRule, ...]:
    """All of `rules`; raises InvalidArgument that names the part below `field`."""
    if not isinstance(rules, tuple | list):
        raise InvalidArgument(field, f"must be a sequence of HttpRule, not {type(rules).__name__}")
    if len(rules) > MOST_RULES:
        raise InvalidArgument(field, f"has {len(rules)} rules; at most {MOST_RULES} are allowed")
    return tuple(compile_rule(rule, f"{field}[{index}]") for index, rule in enumerate(rules))


def compile_rule(rule: HttpRule, field: str) -> CompiledRule:
    if not isinstance(rule, HttpRule):
        raise InvalidArgument(field, f"must be an HttpRule, not {type(rule).__name__}")
    for name in ("host", "path_prefix", "credential"):
        if not isinstance(getattr(rule, name), str):
            raise InvalidArgument(f"{field}.{name}", f"must be a str, not {getattr(rule, name)!r}")
    return CompiledRule(
        _host(rule.host, f"{field}.host"),
        frozenset(_methods(rule.methods, f"{field}.methods")),
        _prefix(rule.path_prefix, f"{field}.path_prefix"),
        frozenset(_schemes(rule.schemes, f"{field}.schemes")),
        rule.credential,
    )


def _host(text: str, field: str) -> HostPattern:
    try:
        return HostPattern.parse(text)
    except ValueError as error:
        expected = "a rule's host is a name, *.NAME or *, with :PORT when it is not the scheme's own"
        raise InvalidArgument(field, f"cannot use {text[:100]!r}: {error}; {expected}") from None


def _methods(methods: object, field: str) -> Iterable[str]:
    if not isinstance(methods, tuple | list) or not all(isinstance(method, str) for method in methods):
        raise InvalidArgument(field, f"must be a sequence of str such as ('GET',), not {methods!r}")
    for method in methods:
        if not _METHOD.fullmatch(method.upper()) or method.upper() in FORBIDDEN_METHODS:
            raise InvalidArgument(field, f"{method[:40]!r} is not a method that can be allowed")
        yield method.upper()


def _schemes(schemes: object, field: str) -> Iterable[str]:
    if (
        not isinstance(schemes, tuple | list)
        or not schemes
        or any(s not in list(DEFAULT_PORTS) for s in schemes)
    ):
        raise InvalidArgument(field, f"must be some of {', '.join(DEFAULT_PORTS)}, not {schemes!r}")
    return schemes


def _prefix(text: str, field: str) -> str:
    prefix = canonical_path(text)
    if not text.startswith("/") or re.search(r"[?#\x00-\x20\x7f\\]", text) or len(text) > MOST_PREFIX:
        wanted = f"a path of at most {MOST_PREFIX} characters that begins with / and has no query"
        raise InvalidArgument(field, f"must be {wanted}, not {text[:100]!r}")
    if has_dot_segments(prefix):
        raise InvalidArgument(field, f"must have no . or .. segment, not {text[:100]!r}")
    return prefix.rstrip("/")


def canonical_path(path: str) -> str:
    """`path` with escapes in capitals, and none where none is needed. Source: RFC 3986, 6.2.2."""
    ascii_only = quote(path, safe="".join(map(chr, range(0x21, 0x7F))))
    return _ESCAPE.sub(_plain, ascii_only)


def _plain(escape: re.Match[str]) -> str:
    char = chr(int(escape[0][1:], 16))
    return char if _UNRESERVED.fullmatch(char) else escape[0].upper()


def within(prefix: str, path: str) -> bool:
    """Whether the canonical `path` is `prefix` or below it.

    A path that some server might still resolve out of the prefix (`/v1/%2e%2e/admin`, also escaped twice, with a
    backslash or a `;parameter`) is not within any but the empty one.
    """
    if not prefix:
        return True
    return (path == prefix or path.startswith(f"{prefix}/")) and not has_dot_segments(path)


def has_dot_segments(path: str) -> bool:
    """Whether `path` has a `.` or `..` segment, however it is escaped."""
    for _ in range(4):
        plain = unquote(path, "latin-1")
        if plain == path:
            break
        path = plain
    for long, short in _OVERLONG.items():
        path = path.replace(long, short)
    segments = (segment.partition(";")[0].strip(_BLANK) for segment in path.split("/"))
    # An escape that is left was escaped more often than any server unescapes: no honest path.
    return "%25" in path or any(segment in (".", "..") for segment in segments)
