"""HttpCeiling and Credential: what the operator allows, and the secrets that he lends."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

from wasmeval.egress.addresses import parse_networks
from wasmeval.egress.hosts import HostPattern
from wasmeval.egress.rules import compile_rules
from wasmeval.errors import InvalidArgument
from wasmeval.grants import HttpPolicy, HttpRule, check_seconds
from wasmeval.limits import MIB

LEAST_SECRET = 8
"""Characters. A shorter secret is found in every text, so that it could not be taken out of one."""

MOST_SECRET = 4096

KINDS = ("bearer", "basic", "header", "query")

_VISIBLE = re.compile(r"[!-~]+")
_PRINTABLE = re.compile(r"[!-~]([ -~]*[!-~])?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# Set by the egress alone: a credential in one of them would be taken for the request's framing.
_FRAMING = frozenset(
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"]
)


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret that is added to requests outside the guest, which never sees it.

    `kind` is `bearer` (Authorization: Bearer SECRET), `basic` (`secret` is `user:password`), `header` (a header called
    `name`) or `query` (a parameter called `name`). `hosts` are patterns as a rule's, at least one: a rule may name this
    credential only for hosts among them. It travels by HTTPS alone unless `insecure`. Raises InvalidArgument.
    """

    kind: str
    secret: str = field(repr=False)
    name: str = ""
    hosts: tuple[str, ...] = ()
    insecure: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", _strings("hosts", self.hosts))
        _strings("kind, secret and name", (self.kind, self.secret, self.name))
        if self.kind not in KINDS:
            raise InvalidArgument("kind", f"must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if not self.hosts:
            raise InvalidArgument("hosts", "must name at least one host that the credential may go to")
        self.patterns()
        self._check_secret()
        self._check_name()

    def patterns(self) -> tuple[HostPattern, ...]:
        """`hosts`, parsed."""
        return tuple(_pattern(f"hosts[{index}]", host) for index, host in enumerate(self.hosts))

    def _check_secret(self) -> None:
        form = _PRINTABLE if self.kind in ("basic", "header") else _VISIBLE
        if not form.fullmatch(self.secret):
            raise InvalidArgument("secret", "must be printable ASCII, without spaces around it")
        if not LEAST_SECRET <= len(self.secret) <= MOST_SECRET:
            raise InvalidArgument(
                "secret", f"must have {LEAST_SECRET} to {MOST_SECRET} characters, not {len(self.secret)}"
            )
        if self.kind == "basic" and ":" not in self.secret:
            raise InvalidArgument("secret", "must be user:password for kind basic")

    def _check_name(self) -> None:
        if self.kind in ("bearer", "basic"):
            if self.name:
                raise InvalidArgument("name", f"must be empty for kind {self.kind}, not {self.name!r}")
        elif not _TOKEN.fullmatch(self.name):
            raise InvalidArgument("name", f"must name a {self.kind}, not {self.name!r}")
        elif self.kind == "header" and self.name.lower() in _FRAMING:
            raise InvalidArgument("name", f"must not be {self.name!r}: that header is the connection's own")


@dataclass(frozen=True, slots=True)
class HttpCeiling:
    """What HTTP the operator allows at most. Without rules nobody gets any.

    A request must be allowed by the evaluation's own policy and by one of these `rules`; numbers above these are
    lowered to them. `private_networks` (`10.1.0.0/16`, `127.0.0.1/32`) may be reached although they are not public,
    by any name that the rules allow. Raises InvalidArgument.
    """

    rules: tuple[HttpRule, ...] = ()
    requests: int = 256
    request_bytes: int = 16 * MIB
    response_bytes: int = 128 * MIB
    seconds: float = 120.0
    redirects: int = 10
    private_networks: tuple[str, ...] = ()

    NONE: ClassVar[HttpCeiling]
    ANY_PUBLIC: ClassVar[HttpCeiling]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))
        object.__setattr__(self, "private_networks", _strings("private_networks", self.private_networks))
        for index, rule in enumerate(compile_rules(self.rules, "rules")):
            if rule.credential:
                raise InvalidArgument(
                    f"rules[{index}].credential", "must be empty: a request's own rules name credentials"
                )
        check_numbers(self)
        try:
            parse_networks(self.private_networks)
        except ValueError as error:
            raise InvalidArgument("private_networks", str(error)) from None


def check_numbers(bounds: HttpCeiling | HttpPolicy, prefix: str = "") -> None:
    """Raises InvalidArgument that names the wrong number, after `prefix`."""
    for name, least in (("requests", 1), ("request_bytes", 1), ("response_bytes", 1), ("redirects", 0)):
        value = getattr(bounds, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidArgument(f"{prefix}{name}", f"must be an integer of at least {least}, not {value!r}")
    check_seconds(f"{prefix}seconds", bounds.seconds)


def _strings(name: str, values: object) -> tuple[str, ...]:
    if not isinstance(values, tuple | list) or not all(isinstance(value, str) for value in values):
        raise InvalidArgument(name, "must be a sequence of str")
    return tuple(values)


def _pattern(name: str, host: str) -> HostPattern:
    try:
        return HostPattern.parse(host)
    except ValueError as error:
        raise InvalidArgument(name, f"cannot use {host[:100]!r}: {error}") from None


HttpCeiling.NONE = HttpCeiling()
HttpCeiling.ANY_PUBLIC = HttpCeiling(rules=(HttpRule("*:*", schemes=("http", "https")),))
