"""What an address says about a peer: which network it belongs to, and whose it may be.

    reach    WAN keeps public addresses, LAN those of this network and this machine, ANY both
    group    /16 of IPv4, /32 of IPv6, the domain of a name: one owner may have all of it

Addresses that are not public have no group: they do not tell owners apart.
"""

from collections.abc import Iterable
from enum import Enum

from .. import varint
from ..multiaddr import Multiaddr
from ..scope import PUBLIC, scope


class Reach(Enum):
    """Which addresses belong to a network."""

    ANY = "any"
    WAN = "wan"
    LAN = "lan"


_IP4, _IP6 = 0x04, 0x29
_NAMES = (53, 54, 55, 56)
"""dns, dns4, dns6, dnsaddr."""


def group(address: Multiaddr) -> bytes | None:
    """The network that a public address is in, None for others."""
    if scope(address) != PUBLIC:
        return None
    data = bytes(address)
    code = data[0]
    if code == _IP4:
        return data[:3]
    if code == _IP6:
        return data[:5]
    if code in _NAMES:
        size, start = varint.decode(data, 1)
        return b"." + b".".join(data[start : start + size].lower().rsplit(b".", 2)[-2:])
    return None


def groups(addresses: Iterable[Multiaddr]) -> tuple[bytes, ...]:
    """The networks that addresses are in, each once."""
    return tuple(dict.fromkeys(one for one in map(group, addresses) if one is not None))


def within(addresses: Iterable[Multiaddr], reach: Reach) -> list[Multiaddr]:
    """The addresses that belong to a network of this reach."""
    if reach is Reach.ANY:
        return list(addresses)
    public = reach is Reach.WAN
    return [one for one in addresses if (scope(one) == PUBLIC) is public]
