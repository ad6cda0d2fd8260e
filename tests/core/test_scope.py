import random
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given, settings, strategies as st

from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId
from anyp2p_core.scope import LOOPBACK, PRIVATE, PUBLIC, reachable, scope

PEER = PeerId(b"\x12\x20" + bytes(32))

TABLE = [
    ("/ip4/127.0.0.1/tcp/1", LOOPBACK),
    ("/ip4/127.255.255.255/tcp/1", LOOPBACK),
    ("/ip4/0.0.0.0/tcp/1", LOOPBACK),
    ("/ip4/0.1.2.3/tcp/1", LOOPBACK),
    ("/ip4/10.255.255.255/tcp/1", PRIVATE),
    ("/ip4/100.64.0.0/tcp/1", PRIVATE),
    ("/ip4/100.127.255.255/tcp/1", PRIVATE),
    ("/ip4/169.254.1.1/tcp/1", PRIVATE),
    ("/ip4/172.31.255.255/tcp/1", PRIVATE),
    ("/ip4/192.168.0.1/udp/1/quic-v1", PRIVATE),
    ("/ip4/203.0.113.7/tcp/1", PRIVATE),
    ("/ip4/224.0.0.251/udp/5353", PRIVATE),
    ("/ip4/255.255.255.255/tcp/1", PRIVATE),
    ("/ip4/1.0.0.0/tcp/1", PUBLIC),
    ("/ip4/8.8.8.8", PUBLIC),
    ("/ip4/9.255.255.255/tcp/1", PUBLIC),
    ("/ip4/11.0.0.0/tcp/1", PUBLIC),
    ("/ip4/100.63.255.255/tcp/1", PUBLIC),
    ("/ip4/172.32.0.0/tcp/1", PUBLIC),
    ("/ip4/223.255.255.255/tcp/1", PUBLIC),
    ("/ip6/::1/tcp/1", LOOPBACK),
    ("/ip6/::/tcp/1", LOOPBACK),
    ("/ip6/::2/tcp/1", PRIVATE),
    ("/ip6/fe80::1/tcp/1", PRIVATE),
    ("/ip6/fd00::1/tcp/1", PRIVATE),
    ("/ip6/ff02::1/udp/1", PRIVATE),
    ("/ip6/100::1/tcp/1", PRIVATE),
    ("/ip6/4000::1/tcp/1", PRIVATE),
    ("/ip6/2001:db8::1/tcp/1", PRIVATE),
    ("/ip6/2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/tcp/1", PRIVATE),
    ("/ip6/2001:db9::/tcp/1", PUBLIC),
    ("/ip6/2001:1ff::1/tcp/1", PRIVATE),
    ("/ip6/3fff:fff::1/tcp/1", PRIVATE),
    ("/ip6/2000::/tcp/1", PUBLIC),
    ("/ip6/2001:200::1/tcp/1", PUBLIC),
    ("/ip6/2606:4700:4700::1111/tcp/1", PUBLIC),
    ("/ip6/3fff:1000::1/tcp/1", PUBLIC),
    # IPv4 in disguise.
    ("/ip6/::ffff:127.0.0.1/tcp/1", LOOPBACK),
    ("/ip6/::ffff:10.0.0.1/tcp/1", PRIVATE),
    ("/ip6/::ffff:8.8.8.8/tcp/1", PUBLIC),
    ("/ip6/64:ff9b::127.0.0.1/tcp/1", LOOPBACK),
    ("/ip6/64:ff9b::8.8.8.8/tcp/1", PUBLIC),
    ("/ip6/64:ff9b:1::8.8.8.8/tcp/1", PRIVATE),
    ("/ip6/2002:7f00:1::/tcp/1", LOOPBACK),
    ("/ip6/2002:a00:1::/tcp/1", PRIVATE),
    ("/ip6/2002:808:808::1/tcp/1", PUBLIC),
    # The first component decides.
    ("/ip6zone/lo/ip6/::1/tcp/1", LOOPBACK),
    ("/ip6zone/eth0/ip6/fe80::1/tcp/1", PRIVATE),
    (f"/ip6zone/{'z' * 200}/ip6/fe80::1/tcp/1", PRIVATE),
    ("/ip6zone/eth0", PUBLIC),
    ("/dns4/example.com/tcp/1", PUBLIC),
    ("/dns/localhost/tcp/1", PUBLIC),
    ("/memory/7", PUBLIC),
    (f"/p2p/{PEER}/p2p-circuit", PUBLIC),
    (f"/ip4/10.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit", PRIVATE),
    ("/dns4/example.com/tcp/1/http/ip4/127.0.0.1", PUBLIC),
]


@pytest.mark.parametrize(("text", "expected"), TABLE, ids=[text for text, _ in TABLE])
def test_scope(text: str, expected: int) -> None:
    assert scope(Multiaddr(text)) == expected


def by_the_library(ip: IPv4Address | IPv6Address) -> int:
    """What the standard library says, where its versions agree with each other and the registry."""
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in IPv6Network("64:ff9b::/96"):
            inner = IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return by_the_library(inner)
        if ip.is_loopback or ip.is_unspecified:
            return LOOPBACK
        special = ("2001::/23", "3fff::/20")  # partly newer than Python 3.11
        if ip not in IPv6Network("2000::/3") or any(ip in IPv6Network(net) for net in special):
            return PRIVATE
    elif ip.is_loopback or ip.packed[0] == 0:
        return LOOPBACK
    elif ip.is_multicast or ip.packed[:3] == bytes((192, 0, 0)):
        return PRIVATE
    return PUBLIC if ip.is_global else PRIVATE


def check(ip: IPv4Address | IPv6Address) -> None:
    assert scope(Multiaddr(f"/ip{ip.version}/{ip}/tcp/1")) == by_the_library(ip), ip


@settings(deadline=None, max_examples=400)
@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_the_standard_library_agrees(ip: IPv4Address | IPv6Address) -> None:
    """Hypothesis draws addresses of the special networks, too."""
    check(ip)


def test_the_standard_library_agrees_on_many() -> None:
    source = random.Random(0)
    for _ in range(3000):
        check(IPv4Address(source.getrandbits(32)))
        check(IPv6Address(source.getrandbits(125) | 1 << 125))  # 2000::/3


def test_the_standard_library_agrees_around_every_edge() -> None:
    for text, _ in TABLE:
        address = Multiaddr(text)
        value = address.get("ip4") or address.get("ip6")
        if value is not None and text.startswith("/ip") and "zone" not in text:
            ip = ip_address(value)
            for step in (-1, 0, 1):
                number = int(ip) + step
                if 0 <= number < 1 << ip.max_prefixlen:
                    check(type(ip)(number))


EVERYWHERE = [
    Multiaddr(text)
    for text in (
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/192.168.1.1/tcp/1",
        "/ip4/8.8.8.8/tcp/1",
        "/ip6/::1/tcp/1",
        "/ip6/fd00::1/tcp/1",
        "/ip6/2606::1/tcp/1",
        "/dns4/example.com/tcp/1",
    )
]


@pytest.mark.parametrize(
    ("remote", "kept"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6]),
        ("/ip4/127.0.0.1/tcp/9", [0, 1, 2, 3, 4, 5, 6]),
        ("/ip6/::ffff:127.0.0.1/tcp/9", [0, 1, 2, 3, 4, 5, 6]),
        ("/ip4/192.168.1.9/tcp/9", [1, 2, 4, 5, 6]),
        ("/ip6/fe80::9/tcp/9", [1, 2, 4, 5, 6]),
        ("/ip4/8.8.4.4/tcp/9", [2, 5, 6]),
        ("/dns4/example.com/tcp/9", [2, 5, 6]),
    ],
)
def test_what_can_be_reached_depends_on_where_the_peer_is(
    remote: str | None, kept: list[int]
) -> None:
    at = Multiaddr(remote) if remote is not None else None
    assert reachable(EVERYWHERE, at) == [EVERYWHERE[index] for index in kept]
