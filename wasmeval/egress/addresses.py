"""Addresses: which of them a guest's request may go to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What is not the public internet. Our own list, because `is_global` differs between Python's patch releases.
# Source: IANA special-purpose address registries, IPv4 and IPv6; RFC 6890.
_SPECIAL_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        [
            "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for loopback
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier-grade NAT, and a cloud's metadata (100.100.100.200)
            "127.0.0.0/8",
            "168.63.129.16/32",  # public by its number, a cloud's own host by its use
            "169.254.0.0/16",  # link-local, most clouds' metadata
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocol assignments, and a cloud's metadata (192.0.0.192)
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ],
    )
)

# Of IPv6 nothing is public but 2000::/3, and of that not these.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    map(
        ipaddress.IPv6Network,
        [
            "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
            "2001:db8::/32",
            "2002::/16",  # 6to4, an IPv4 address inside
            "2620:4f:8000::/48",
            "3fff::/20",
        ],
    )
)

# Prefixes whose last 32 bits are the IPv4 address that is meant. NAT64's local-use prefix 64:ff9b:1::/48 is not
# among them: what it leads to is a private matter of that network.
_WRAPPING = tuple(map(ipaddress.IPv6Network, ["::ffff:0:0/96", "64:ff9b::/96"]))


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Raises ValueError that names the text."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def may_reach(text: str, allowed: Iterable[Network]) -> bool:
    """Whether the address `text` is public, or in one of the `allowed` networks. False for what is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return False
    meant = _meant(address)
    if any(meant in network or address in network for network in allowed):
        return True
    if isinstance(meant, ipaddress.IPv4Address):
        return not any(meant in network for network in _SPECIAL_V4)
    return meant in _GLOBAL_V6 and not any(meant in network for network in _SPECIAL_V6)


def _meant(address: Address) -> Address:
    """The IPv4 address inside `address`, when that is where it leads."""
    if isinstance(address, ipaddress.IPv6Address) and any(address in network for network in _WRAPPING):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
