"""Records for the tests of the DHT: made here, not by the nodes, which only carry them.

A record is ``{"key": ..., "value": ...}`` in hexadecimal, as the command dht_put takes it.
"""

import os
import time

from peer import Message

from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p_core.crypto import KeyType
from anyp2p_core.kad import ipns
from anyp2p_core.keys import PrivateKey

LARGE = 20_000
"""Bytes that no longer fit into a message of 16 KiB."""


def new_key(kind: KeyType = KeyType.ED25519) -> PrivateKey:
    return PrivateKey.generate(Cryptography(), OsEntropy(), kind)


def sha2_256() -> str:
    """The multihash of some content, in hexadecimal."""
    return (b"\x12\x20" + os.urandom(32)).hex()


def sha2_512() -> str:
    """The same with a longer hash."""
    return (b"\x13\x40" + os.urandom(64)).hex()


def public_key(kind: KeyType) -> Message:
    """A record of the namespace "pk": under /pk/ and the binary peer id stands the key."""
    key = new_key(kind)
    return {"key": (b"/pk/" + bytes(key.peer_id)).hex(), "value": key.public.encode().hex()}


def example(value: bytes) -> Message:
    """A record of the namespace in which all is valid and the largest value is best."""
    return {"key": (b"/example/" + os.urandom(8).hex().encode()).hex(), "value": value.hex()}


class Name:
    """An IPNS name and its records."""

    def __init__(self) -> None:
        self._key = new_key()
        self.key = ipns.key_for(self._key.peer_id).hex()

    def record(self, sequence: int, *, lifetime: float = 3600.0) -> Message:
        """A record; with lifetime 0 one that has expired."""
        wall = time.time() - (1.0 if lifetime == 0 else 0.0)
        path = f"/ipfs/bafkqaaa/{sequence}".encode()
        value = ipns.seal(self._key, path, sequence, wall, lifetime=lifetime)
        return {"key": self.key, "value": value.hex()}

    def forged(self) -> Message:
        """A record that another name has signed."""
        return {"key": self.key, "value": Name().record(1)["value"]}
