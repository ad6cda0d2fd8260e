"""Peers, addresses and contacts by number, for tests of Kademlia."""

from hashlib import sha256

from anyp2p_core.kad.contacts import Contact
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

HEAD = b"\x00\x24\x08\x01\x12\x20"


def peer(number):
    """A peer id that looks like that of an Ed25519 key."""
    return PeerId(HEAD + sha256(b"peer %d" % number).digest())


def public(number, port=4001):
    """A public address; every number below 2**22 is in a /16 of its own, as long as there are."""
    first, second = divmod(number % (40 * 256), 256)
    third, fourth = divmod(number // (40 * 256) % 65536, 256)
    return Multiaddr(f"/ip4/{130 + first}.{second}.{third}.{fourth}/tcp/{port}")


def contact(number, *groups):
    """A peer that another one told of."""
    return Contact(peer(number), (), groups)
