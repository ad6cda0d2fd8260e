"""Peers as other peers tell of them: who, and where they may be. Nothing of it is proven.

    answer -> at most 40 peers, each once, without us -> at most 16 readable addresses each, 4 KiB
           -> addresses of our network only -> Contact

All of this happens before anything is kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import DecodeError
from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from .addresses import Reach, groups, within
from .messages import MAX_ADDRESSES, MAX_CLOSER, ConnectionType, Peer

MAX_BYTES = 4 * 1024
"""Bytes of addresses that are read of one peer: a lookup keeps those of hundreds."""


@dataclass(slots=True)
class Contact:
    """A peer, where it is said to be, and the networks of those addresses."""

    peer: PeerId
    addresses: tuple[Multiaddr, ...] = ()
    groups: tuple[bytes, ...] = ()


def read_contacts(
    peers: Iterable[Peer], own: PeerId, reach: Reach, limit: int = MAX_CLOSER
) -> list[Contact]:
    """The peers of an answer that can be read, at most ``limit``, never ourselves."""
    found: dict[PeerId, Contact] = {}
    for one in peers:
        if len(found) == limit:
            break
        try:
            peer = PeerId(one.id)
        except DecodeError:
            continue
        if peer != own and peer not in found:
            addresses = within(read_addresses(one.addresses), reach)
            found[peer] = Contact(peer, tuple(addresses), groups(addresses))
    return list(found.values())


def read_addresses(encoded: Iterable[bytes]) -> list[Multiaddr]:
    """The addresses that can be read, each once, MAX_ADDRESSES and MAX_BYTES of them at most."""
    found: dict[Multiaddr, None] = {}
    room = MAX_BYTES
    for data in encoded:
        room -= len(data)
        if room < 0 or len(found) == MAX_ADDRESSES:
            break
        try:
            found[Multiaddr.from_bytes(data)] = None
        except DecodeError:
            continue
    return list(found)


def write_contact(peer: PeerId, addresses: Sequence[Multiaddr], connected: bool) -> Peer:
    """A peer as it is written."""
    connection = ConnectionType.CONNECTED if connected else ConnectionType.NOT_CONNECTED
    return Peer(bytes(peer), [bytes(one) for one in addresses[:MAX_ADDRESSES]], connection)
