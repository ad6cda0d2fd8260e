"""From where an address can be reached, by its IP address alone.

Registries: https://www.iana.org/assignments/iana-ipv4-special-registry
            https://www.iana.org/assignments/iana-ipv6-special-registry

    LOOPBACK < PRIVATE < PUBLIC      this machine, this network or none, the internet
"""

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from . import varint
from .multiaddr import Multiaddr

LOOPBACK, PRIVATE, PUBLIC = range(3)


def scope(address: Multiaddr) -> int:
    """LOOPBACK, PRIVATE or PUBLIC.

    IPv4 inside IPv6 counts as the IPv4 that it is, and "this host" as loopback, where it leads.
    Names are not resolved and count as PUBLIC, as does everything that is no IP address.
    """
    data = bytes(address)
    if data[0] == _IP6ZONE:
        size, start = varint.decode(data, 1)
        data = data[start + size :]
    if data.startswith(_IP4):
        return _scope4(data[1:5])
    return _scope6(data[1:17]) if data.startswith(_IP6) else PUBLIC


def reachable(addresses: Iterable[Multiaddr], remote: Multiaddr | None) -> list[Multiaddr]:
    """Drop what cannot be dialed from here, seen that the peer is at ``remote``.

    Of a public peer these are loopback and private addresses, of a private one those of loopback.
    """
    least = scope(remote) if remote is not None else LOOPBACK
    return [address for address in addresses if scope(address) >= least]


_IP4 = b"\x04"
_IP6 = b"\x29"
_IP6ZONE = 0x2A

_NETWORKS4 = (
    ("0.0.0.0/8", LOOPBACK),  # a socket connected to it reaches this machine
    ("10.0.0.0/8", PRIVATE),
    ("100.64.0.0/10", PRIVATE),  # carriers' NAT
    ("127.0.0.0/8", LOOPBACK),
    ("169.254.0.0/16", PRIVATE),
    ("172.16.0.0/12", PRIVATE),
    ("192.0.0.0/24", PRIVATE),
    ("192.0.2.0/24", PRIVATE),  # documentation, as 198.51.100 and 203.0.113
    ("192.168.0.0/16", PRIVATE),
    ("198.18.0.0/15", PRIVATE),
    ("198.51.100.0/24", PRIVATE),
    ("203.0.113.0/24", PRIVATE),
    ("224.0.0.0/4", PRIVATE),  # multicast
    ("240.0.0.0/4", PRIVATE),
)
_NETWORKS6 = (  # inside 2000::/3, the only global unicast addresses there are
    ("2001::/23", PRIVATE),
    ("2001:db8::/32", PRIVATE),
    ("3fff::/20", PRIVATE),
)
# IPv4 inside IPv6: mapped, NAT64.
_AROUND4 = (bytes(10) + b"\xff\xff", bytes.fromhex("0064ff9b") + bytes(8))
_6TO4 = b"\x20\x02"


def _edges(networks: Iterable[IPv4Network | IPv6Network]) -> list[bytes]:
    """Where each network starts and where it has ended; they ascend and do not overlap."""
    edges: list[bytes] = []
    for network in networks:
        # The second is longer than an address: behind the last one in order, before the next.
        edges += network.network_address.packed, network.broadcast_address.packed + b"\0"
    return edges


def _scope4(ip: bytes) -> int:
    at = bisect_right(_EDGES4, ip)
    return _NETWORKS4[at // 2][1] if at & 1 else PUBLIC


def _scope6(ip: bytes) -> int:
    if ip.startswith(_AROUND4):
        return _scope4(ip[12:])
    if ip.startswith(_6TO4):
        return _scope4(ip[2:6])
    if ip[0] >> 5 != 1:
        return LOOPBACK if ip[:15] == bytes(15) and ip[15] <= 1 else PRIVATE
    at = bisect_right(_EDGES6, ip)
    return _NETWORKS6[at // 2][1] if at & 1 else PUBLIC


_EDGES4 = _edges(IPv4Network(text) for text, _ in _NETWORKS4)
_EDGES6 = _edges(IPv6Network(text) for text, _ in _NETWORKS6)
