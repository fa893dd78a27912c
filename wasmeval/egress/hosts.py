"""Hosts: one canonical spelling for those in URLs, and the patterns that rules have for them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

DEFAULT_PORTS = {"http": 80, "https": 443}

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_MOST_TEXT = 512
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# Ports of other protocols, some of which can be talked to through a request's body. A `*` port does not mean them.
# Source: Fetch standard, "Port blocking".
OTHER_PROTOCOLS = frozenset([
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
    531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190,
    5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
    # Not in that list, but found on a network of servers: Docker, etcd, Redis, memcached.
    2375, 2379, 6379, 11211,
])  # fmt: skip


def canonical_host(text: str) -> str:
    """`text` as ASCII in lower case: a name without a trailing dot, or an address without brackets.

    Names are mapped by IDNA (UTS 46) as browsers do. An IPv4 address has four decimal numbers; its octal,
    hexadecimal, shortened and single-number spellings are refused. Raises ValueError.
    """
    if len(text) > _MOST_TEXT:
        raise ValueError(f"it has {len(text)} characters")
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare:
        return str(ipaddress.IPv6Address(bare))
    name = _ascii(bare).lower()
    name = name[:-1] if name.endswith(".") else name
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("it is not a host name")
    if not _NUMBER.fullmatch(labels[-1]):
        return name
    try:
        return str(ipaddress.IPv4Address(name))
    except ipaddress.AddressValueError:
        raise ValueError("it is a number; write an IPv4 address as four decimal numbers") from None


def _ascii(name: str) -> str:
    if name.isascii():
        return name
    import idna

    try:
        return idna.encode(name, uts46=True, transitional=False).decode("ascii")
    except (idna.IDNAError, UnicodeError, IndexError) as error:
        raise ValueError(f"IDNA does not allow it: {error}") from None


def is_address(host: str) -> bool:
    """Whether the canonical `host` is an IP address."""
    return ":" in host or host.rpartition(".")[2].isdecimal()


def split_port(text: str) -> tuple[str, str]:
    """Host and port of `text`, the port as it stands, empty for none."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if rest and not rest.startswith(":"):
            raise ValueError("after ] only :PORT may follow")
        return host + bracket, rest[1:]
    host, _, port = text.partition(":")
    return host, port


@dataclass(frozen=True, slots=True)
class HostPattern:
    """What a rule's `host` means: an exact host, all names below one (`*.`), or any (`*`).

    `port` is 0 for the scheme's own, -1 for any but those of other protocols.
    """

    name: str
    below: bool = False
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """Raises ValueError that says what is wrong with `text`."""
        host, port = split_port(text)
        number = _port(port) if port or text.endswith(":") else 0
        if host == "*":
            return cls("", below=True, port=number)
        below = host.startswith("*.")
        name = canonical_host(host[2:] if below else host)
        if below and is_address(name):
            raise ValueError("an address has no names below it")
        return cls(name, below, number)

    def matches(self, host: str, port: int, scheme: str) -> bool:
        """Whether the canonical `host` at `port` is meant."""
        return self._names(host) and self._ports(port, scheme)

    def covers(self, other: HostPattern) -> bool:
        """Whether everything that `other` means is meant here too."""
        if self.port != -1 and self.port != other.port:
            return False
        if other.below:
            return self.below and (not self.name or other.name == self.name or self._names(other.name))
        return self._names(other.name)

    def _names(self, host: str) -> bool:
        if not self.below:
            return host == self.name
        return not self.name or host.endswith(f".{self.name}")

    def _ports(self, port: int, scheme: str) -> bool:
        own = DEFAULT_PORTS[scheme]
        if self.port == -1:
            return port == own or port not in OTHER_PROTOCOLS
        return port == (self.port or own)


def _port(text: str) -> int:
    if text == "*":
        return -1
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError(f"a port is a number from 1 to 65535 or *, not {text[:16]!r}")
    return int(text)
