"""Address: where a server listens and a client connects, in gRPC's words, and whether others can reach it."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from wasmeval.errors import InvalidArgument

_UNIX = "unix:", "unix-abstract:"
_REMEDY = "use HOST:PORT, [IPV6]:PORT or unix:PATH"


@dataclass(frozen=True, slots=True)
class Address:
    """One place, with its name resolved.

    `target` is what gRPC is given, `host` the numeric address, empty for a unix socket, `port` 0 for a free one.
    """

    target: str
    host: str
    port: int

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it: a unix socket or a loopback address."""
        if not self.host:
            return True
        host = ipaddress.ip_address(self.host)
        mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
        return (mapped or host).is_loopback

    def with_port(self, port: int) -> Address:
        """The same place at another port."""
        return self if not self.host else Address(_target(self.host, port), self.host, port)


def resolve(field: str, text: str) -> Address:
    """The place that `text` names; of several addresses of one host name, the first IPv4 one.

    Whatever the spelling (`0`, `127.1`, a host name), `host` is the number that is bound or connected to, so
    that nothing else is checked than what is used. Raises InvalidArgument for `field`.
    """
    name, port = split(field, text)
    if text.startswith(_UNIX):
        return Address(text, "", 0)
    if not name:
        return Address(_target("::", port), "::", port)
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InvalidArgument(field, f"{text!r}: no such host ({error}); {_REMEDY}") from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    host = str(found[0][4][0])
    return Address(_target(host, port), host, port)


def split(field: str, text: str) -> tuple[str, int]:
    """The host's name, unresolved, and the port in `text`; "" and 0 for a unix socket. Raises InvalidArgument."""
    if text.startswith(_UNIX):
        if not text.partition(":")[2].strip("/"):
            raise InvalidArgument(field, f"{text!r} names no socket; {_REMEDY}")
        return "", 0
    name, colon, digits = text.rpartition(":")
    if not colon or not (digits.isascii() and digits.isdigit()) or int(digits) > 65535:
        raise InvalidArgument(field, f"{text!r} has no port between 0 and 65535; {_REMEDY}")
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    elif ":" in name:
        raise InvalidArgument(field, f"{text!r} is ambiguous; {_REMEDY}")
    return name, int(digits)


def _target(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
