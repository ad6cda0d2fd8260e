"""Whose network an address is in, and which addresses a DHT of some reach keeps."""

import pytest

from anyp2p_core.kad.addresses import Reach, group, groups, within
from anyp2p_core.multiaddr import Multiaddr

PEER = "/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
GROUPS = [
    ("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.255.255/udp/2/quic-v1"),
    ("/ip6/2a01:4f8:1::1/tcp/1", "/ip6/2a01:4f8:ffff::2/tcp/1"),
    ("/dns4/a.Example.org/tcp/1", "/dns/example.org/tcp/2"),
    ("/dnsaddr/b.c.example.org", "/dns6/example.org/tcp/2"),
]
NONE = [
    "/ip4/127.0.0.1/tcp/1", "/ip4/10.1.2.3/tcp/1", "/ip4/192.168.0.1/tcp/1", "/ip6/::1/tcp/1",
    "/ip6/fe80::1/tcp/1", "/ip6zone/eth0/ip6/fe80::1/tcp/1", "/unix/a/b", PEER,
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), GROUPS)
def test_addresses_of_one_network(one, other):
    assert group(Multiaddr(one)) == group(Multiaddr(other)) is not None
    others = [group(Multiaddr(pair[0])) for pair in GROUPS if pair[0] != one]
    assert group(Multiaddr(one)) not in others[:2]


@pytest.mark.parametrize("text", NONE)
def test_addresses_without_a_network(text):
    assert group(Multiaddr(text)) is None


def test_neighbours_are_different_networks():
    assert group(Multiaddr("/ip4/1.2.3.4/tcp/1")) != group(Multiaddr("/ip4/1.3.3.4/tcp/1"))
    assert group(Multiaddr("/dns/a.org/tcp/1")) != group(Multiaddr("/dns/b.org/tcp/1"))
    # A name cannot pretend to be an IP network.
    assert group(Multiaddr("/ip4/46.99.111.109/tcp/1")) != group(Multiaddr("/dns/com/tcp/1"))


def test_each_group_once_in_order():
    addresses = [Multiaddr(text) for pair in GROUPS[:2] for text in pair] + [Multiaddr(NONE[0])]
    assert groups(addresses) == (group(addresses[0]), group(addresses[2]))
    assert groups([]) == ()


def test_reach():
    public, private = Multiaddr("/ip4/1.2.3.4/tcp/1"), Multiaddr("/ip4/10.0.0.1/tcp/1")
    assert within((public, private), Reach.ANY) == [public, private]
    assert within((public, private), Reach.WAN) == [public]
    assert within((public, private), Reach.LAN) == [private]
