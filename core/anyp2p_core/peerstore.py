"""What is known of peers: addresses, protocols, keys. Bounded, the least recently used goes first.

    learn -> others, oldest first --connected--> connected peers: never evicted, nothing expires
               |        ^------disconnected---------'
               `-- too many peers, or too many addresses in all: the oldest is forgotten

The number of connected peers is bounded by the connection limits.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from .keys import PublicKey
from .limits import Limits
from .multiaddr import Multiaddr
from .peer_id import PeerId

ADDRESS_TTL = 3600.0
"""Seconds for which an address is kept after it was last heard of, or after the disconnection."""
MAX_KEPT = 4096
"""Bytes of a record, and characters of protocol names, that are kept of a peer that has left."""


@dataclass(slots=True)
class PeerInfo:
    """What one peer said of itself, or what others proved about it."""

    addresses: dict[Multiaddr, float] = field(default_factory=dict)
    """Each address with the time at which it is forgotten; changed by ``Peerstore`` only."""
    protocols: tuple[str, ...] | None = None
    """None until the peer was identified."""
    agent: str = ""
    public_key: PublicKey | None = None
    record: bytes = b""
    """The newest valid signed peer record, sealed."""
    record_seq: int = -1
    certified: tuple[Multiaddr, ...] = ()
    """All addresses in that record, also those that cannot be reached from here."""


class Peerstore:
    """All peers that the node knows."""

    __slots__ = ("_connected", "_count", "_limits", "_others")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._connected: dict[PeerId, PeerInfo] = {}
        self._others: dict[PeerId, PeerInfo] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._connected) + len(self._others)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._connected or peer in self._others

    @property
    def address_count(self) -> int:
        """Addresses of all peers, also those that expired and were not looked at since."""
        return self._count

    def get(self, peer: PeerId) -> PeerInfo | None:
        """What is known of a peer."""
        return self._connected.get(peer) or self._others.get(peer)

    def learn(self, peer: PeerId) -> PeerInfo:
        """The entry of a peer, made if need be; the oldest entry makes room for it."""
        info = self._connected.get(peer)
        if info is None:
            info = self._others.pop(peer, None)
            if info is None:
                info = PeerInfo()
                self._evict(self._limits.max_peers - 1)
            self._others[peer] = info
        return info

    def add_addresses(self, peer: PeerId, addresses: Iterable[Multiaddr], now: float) -> None:
        """Remember addresses for ``ADDRESS_TTL`` seconds; the oldest ones make room."""
        table = self.learn(peer).addresses
        limits = self._limits
        for address in addresses:
            if table.pop(address, None) is None:
                self._count += 1
            table[address] = now + ADDRESS_TTL
            if len(table) > limits.max_addresses_per_peer:
                self._drop_oldest(table)
        self._evict(limits.max_peers)
        while self._count > limits.max_addresses:  # then all others are gone, and it is connected
            self._drop_oldest(table)

    def set_addresses(self, peer: PeerId, addresses: Iterable[Multiaddr], now: float) -> None:
        """Replace a peer's addresses: what it no longer certifies is gone."""
        table = self.learn(peer).addresses
        self._count -= len(table)
        table.clear()
        self.add_addresses(peer, addresses, now)

    def addresses(self, peer: PeerId, now: float) -> list[Multiaddr]:
        """Addresses that have not been forgotten, oldest first."""
        info = self.get(peer)
        if info is None:
            return []
        table = info.addresses
        if peer not in self._connected:
            expired = [address for address, expires in table.items() if expires <= now]
            self._count -= len(expired)
            for address in expired:
                del table[address]
        return list(table)

    def connected(self, peer: PeerId) -> None:
        """Exempt a peer from eviction and expiry."""
        if peer not in self._connected:
            known = self._others.pop(peer, None)
            self._connected[peer] = PeerInfo() if known is None else known

    def disconnected(self, peer: PeerId, now: float) -> None:
        """Let a peer grow old like any other, from now on."""
        info = self._connected.pop(peer, None)
        if info is None:
            return
        info.addresses = dict.fromkeys(info.addresses, now + ADDRESS_TTL)
        if len(info.record) > MAX_KEPT:
            info.record, info.certified = b"", ()
        if info.protocols is not None and sum(map(len, info.protocols)) > MAX_KEPT:
            info.protocols = None
        self._others[peer] = info
        self._evict(self._limits.max_peers)

    def _drop_oldest(self, table: dict[Multiaddr, float]) -> None:
        del table[next(iter(table))]
        self._count -= 1

    def _evict(self, peers: int) -> None:
        """Forget the oldest of the others, until ``peers`` are left and all addresses fit."""
        others = self._others
        while others and (len(others) > peers or self._count > self._limits.max_addresses):
            oldest = others.pop(next(iter(others)))
            self._count -= len(oldest.addresses)
