"""Addresses: nothing but the public internet, however it is spelled, unless the operator names a network."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval.egress.addresses import may_reach, parse_networks

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "223.255.255.255",
    "192.0.1.0",
]
PUBLIC += ["2606:4700:4700::1111", "2001:4860:4860::8888", "2a00::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert may_reach(address, ())


SPECIAL = {
    "this host": ["0.0.0.0", "0.1.2.3", "::"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "fc00::1", "fd12:3456::1"],
    "link-local": ["169.254.0.1", "fe80::1", "fe80::1%eth0", "fe80::1%1"],
    "site-local": ["fec0::1"],
    "carrier-grade NAT": ["100.64.0.1", "100.127.255.255"],
    "metadata": ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.0.0.1", "192.0.0.8", "198.18.0.1", "100::1", "4000::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "relays": ["192.88.99.1"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "0:0:0:0:0:FFFF:7F00:0001"],
    "IPv4-compatible": ["::127.0.0.1", "::10.0.0.1", "::8.8.8.8"],
    "IPv4-translated": ["::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254"],
    "NAT64, local use": ["64:ff9b:1::7f00:1", "64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff::1"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1", "2002:808:808::1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001::1"],
    "no address": ["", "localhost", "127.1"],
    "no IPv4 address": ["2130706433", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.1.", " 127.0.0.1", "1.1.1.1/32"],
}  # fmt: skip


@pytest.mark.parametrize("address", [address for kind in SPECIAL.values() for address in kind])
def test_special_addresses(address: str) -> None:
    assert not may_reach(address, ())


def test_an_operator_may_allow_networks() -> None:
    networks = parse_networks(["10.1.0.0/16", "fd00:1::/32"])
    for inside in ("10.1.0.1", "::ffff:10.1.0.1", "64:ff9b::a01:1", "fd00:1::1"):
        assert may_reach(inside, networks)
    for outside in ("10.2.0.1", "::ffff:10.2.0.1", "fd00:2::1", "127.0.0.1"):
        assert not may_reach(outside, networks)


def test_a_translated_network_may_be_named_as_such() -> None:
    assert may_reach("64:ff9b:1::a00:1", parse_networks(["64:ff9b:1::/48"]))


@given(st.ip_addresses())
def test_what_python_calls_special_is_refused(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    special = address.is_private or address.is_loopback or address.is_multicast or address.is_link_local
    if special or address.is_reserved or address.is_unspecified:
        wrapped = isinstance(address, ipaddress.IPv6Address) and (
            address.ipv4_mapped or address in ipaddress.ip_network("64:ff9b::/96")
        )
        assert wrapped or not may_reach(str(address), ())


@given(st.ip_addresses(v=4))
def test_wrappers_change_nothing(address: ipaddress.IPv4Address) -> None:
    for wrapped in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert may_reach(wrapped, ()) == may_reach(str(address), ())
    for refused in (f"::{address}", f"::ffff:0:{address}", f"64:ff9b:1::{address}"):
        assert not may_reach(refused, ())


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "ten", "", "10.0.0.0-10.1.0.0"])
def test_a_wrong_network(text: str) -> None:
    with pytest.raises(ValueError, match=r"(does not appear|has host bits set)"):
        parse_networks([text])
