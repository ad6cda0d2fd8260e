"""What is known of peers: addresses, protocols, keys. Bounded, the least recently used goes first.

Connected peers are never evicted; their number is bounded by the connection limits.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from .keys import PublicKey
from .limits import Limits
from .multiaddr import Multiaddr
from .peer_id import PeerId

ADDRESS_TTL = 3600.0
"""Seconds for which an address is kept after it was last heard of."""


@dataclass(slots=True)
class PeerInfo:
    """What one peer said of itself, or what others proved about it."""

    addresses: dict[Multiaddr, float] = field(default_factory=dict)
    """Each address with the time at which it is forgotten."""
    protocols: tuple[str, ...] | None = None
    """None until the peer was identified."""
    agent: str = ""
    public_key: PublicKey | None = None
    record: bytes = b""
    """The newest valid signed peer record, sealed."""
    record_seq: int = -1


class Peerstore:
    """All peers that the node knows."""

    __slots__ = ("_connected", "_limits", "_others")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._connected: dict[PeerId, PeerInfo] = {}
        self._others: dict[PeerId, PeerInfo] = {}

    def __len__(self) -> int:
        return len(self._connected) + len(self._others)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._connected or peer in self._others

    def get(self, peer: PeerId) -> PeerInfo | None:
        """What is known of a peer."""
        return self._connected.get(peer) or self._others.get(peer)

    def learn(self, peer: PeerId) -> PeerInfo:
        """The entry of a peer, made if need be; the oldest entry makes room for it."""
        info = self._connected.get(peer)
        if info is not None:
            return info
        others = self._others
        info = others.pop(peer, None)
        if info is None:
            info = PeerInfo()
            if len(others) >= self._limits.max_peers:
                del others[next(iter(others))]
        others[peer] = info
        return info

    def add_addresses(self, peer: PeerId, addresses: Iterable[Multiaddr], now: float) -> None:
        """Remember addresses for ``ADDRESS_TTL`` seconds; the oldest ones make room."""
        table = self.learn(peer).addresses
        for address in addresses:
            table.pop(address, None)
            if len(table) >= self._limits.max_addresses_per_peer:
                del table[next(iter(table))]
            table[address] = now + ADDRESS_TTL

    def set_addresses(self, peer: PeerId, addresses: Iterable[Multiaddr], now: float) -> None:
        """Replace a peer's addresses: what it no longer certifies is gone."""
        self.learn(peer).addresses.clear()
        self.add_addresses(peer, addresses, now)

    def addresses(self, peer: PeerId, now: float) -> list[Multiaddr]:
        """Addresses that have not been forgotten, oldest first."""
        info = self.get(peer)
        if info is None:
            return []
        return [address for address, expires in info.addresses.items() if expires > now]

    def connected(self, peer: PeerId) -> None:
        """Exempt a peer from eviction."""
        info = self.learn(peer)
        if self._others.pop(peer, None) is not None:
            self._connected[peer] = info

    def disconnected(self, peer: PeerId) -> None:
        """Let a peer grow old like any other."""
        info = self._connected.pop(peer, None)
        if info is not None:
            if len(self._others) >= self._limits.max_peers:
                del self._others[next(iter(self._others))]
            self._others[peer] = info
