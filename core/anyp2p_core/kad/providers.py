"""Who has said to have what: provider records in memory, bounded whatever is thrown at them.

Spec: https://github.com/libp2p/specs/blob/master/kad-dht/README.md#content-provider-advertisement

    add -> peer has its share of keys      -> its own oldest one goes
        -> key has its 20 providers        -> the one farthest from the key goes, if it is farther
        -> as many keys as there may be    -> the key that nobody asked for or provided for longest
    find -> those of the last 48 h, with addresses if they are of the last 24 h

A flood of one peer costs that peer's own records only, and 20 strangers cannot lock out a provider
that is closer to the key. Times are wall-clock seconds since 1970.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from .keys import Key, key_of

VALIDITY = 48 * 3600.0
"""Seconds for which a provider record counts."""
ADDRESS_VALIDITY = 24 * 3600.0
"""Seconds for which a provider's addresses are given out with it."""
REPUBLISH = 22 * 3600.0
"""Seconds after which a provider repeats itself."""
RETRY = 600.0
"""The same when it could tell nobody."""
MAX_KEYS = 10_000
MAX_PER_KEY = 20
SHARE = 0.05
"""The part of all keys that one peer may provide."""
MAX_ADDRESSES = 8
"""Addresses that are kept of one provider."""


@dataclass(slots=True)
class Provider:
    """A peer that said to have something."""

    peer: PeerId
    addresses: tuple[Multiaddr, ...] = ()
    """Empty when they are too old."""


@dataclass(slots=True)
class _Holder:
    """One peer with the keys that it provides, the oldest first."""

    key: Key
    keys: dict[bytes, None] = field(default_factory=dict)
    addresses: tuple[bytes, ...] = ()
    addresses_until: float = 0.0


class Providers:
    """Provider records of other peers."""

    __slots__ = ("_holders", "_keys", "_max_keys", "_per_key", "_share")

    def __init__(
        self, *, max_keys: int = MAX_KEYS, per_key: int = MAX_PER_KEY, share: float = SHARE
    ) -> None:
        self._max_keys = max_keys
        self._per_key = per_key
        self._share = max(int(max_keys * share), 1)
        self._keys: dict[bytes, dict[PeerId, float]] = {}  # to expiry; least recently used first
        self._holders: dict[PeerId, _Holder] = {}

    def __len__(self) -> int:
        """Keys that somebody provides."""
        return len(self._keys)

    def add(self, key: bytes, peer: PeerId, addresses: tuple[Multiaddr, ...], wall: float) -> bool:
        """Note that a peer provides a key; False if closer ones fill its place."""
        known = self._keys.get(key)
        if known is not None and peer not in known and len(known) >= self._per_key:
            self._expire(key, known, wall)
            if len(known) >= self._per_key and not self._replace(key, known, peer):
                return False
        holder = self._holders.get(peer)
        if holder is None:
            holder = self._holders[peer] = _Holder(key_of(bytes(peer)))
        elif key not in holder.keys and len(holder.keys) >= self._share:
            self._drop(next(iter(holder.keys)), peer, keep=True)
        if addresses:
            holder.addresses = tuple(bytes(one) for one in addresses[:MAX_ADDRESSES])
            holder.addresses_until = wall + ADDRESS_VALIDITY
        holder.keys.pop(key, None)
        holder.keys[key] = None
        known = self._keys.pop(key, None)
        if known is None:
            known = {}
            if len(self._keys) >= self._max_keys:
                self._forget(next(iter(self._keys)))
        known[peer] = wall + VALIDITY
        self._keys[key] = known
        return True

    def find(self, key: bytes, wall: float) -> list[Provider]:
        """Who provides a key, in the order in which they first said so."""
        known = self._keys.pop(key, None)
        if known is None:
            return []
        self._keys[key] = known
        self._expire(key, known, wall)
        found = []
        for peer in known:
            holder = self._holders[peer]
            fresh = holder.addresses if holder.addresses_until > wall else ()
            found.append(Provider(peer, tuple(map(Multiaddr.from_bytes, fresh))))
        return found

    def remove(self, key: bytes, peer: PeerId) -> None:
        """Forget that a peer provides a key."""
        if peer in self._keys.get(key, ()):
            self._drop(key, peer)

    def sweep(self, wall: float) -> int:
        """Forget keys whose records have all expired; returns how many.

        Only keys that were not used since: the others are cleaned when they are used.
        """
        count = 0
        for key in list(self._expired(wall)):
            self._forget(key)
            count += 1
        return count

    def _expired(self, wall: float) -> Iterator[bytes]:
        for key, known in self._keys.items():
            if max(known.values()) > wall:
                return
            yield key

    def _replace(self, key: bytes, known: dict[PeerId, float], peer: PeerId) -> bool:
        """Let the farthest provider go, if the new one is closer."""
        target = key_of(key)
        farthest = max(known, key=lambda one: self._holders[one].key ^ target)
        if key_of(bytes(peer)) ^ target > self._holders[farthest].key ^ target:
            return False
        self._drop(key, farthest)
        return True

    def _expire(self, key: bytes, known: dict[PeerId, float], wall: float) -> None:
        for peer in [one for one, expires in known.items() if expires <= wall]:
            self._drop(key, peer)

    def _drop(self, key: bytes, peer: PeerId, *, keep: bool = False) -> None:
        known = self._keys[key]
        del known[peer]
        if not known:
            del self._keys[key]
        holder = self._holders[peer]
        del holder.keys[key]
        if not holder.keys and not keep:
            del self._holders[peer]

    def _forget(self, key: bytes) -> None:
        for peer in list(self._keys[key]):
            self._drop(key, peer)


class Republishing:
    """What we provide ourselves, and when it has to be said again.

    >>> again = Republishing(); again.set(b"key", 0.0)
    >>> again.due(REPUBLISH - 1), again.due(REPUBLISH)
    ([], [b'key'])
    """

    __slots__ = ("_interval", "_kept", "_postponed", "_said")

    def __init__(self, interval: float = REPUBLISH) -> None:
        self._interval = interval
        # Each to the wall-clock time at which it is due; the one that is due first is first.
        self._said: dict[bytes, float] = {}
        self._postponed: dict[bytes, float] = {}
        self._kept: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._said) + len(self._postponed) + len(self._kept)

    def __contains__(self, key: object) -> bool:
        return key in self._said or key in self._postponed or key in self._kept

    def set(self, key: bytes, wall: float) -> None:
        """The key was provided just now; later calls must not have earlier times."""
        self.remove(key)
        self._said[key] = wall + self._interval

    def postpone(self, key: bytes, wall: float) -> None:
        """Nobody could be told: others have their turn first, then it is tried again."""
        self.remove(key)
        self._postponed[key] = wall + RETRY

    def keep(self, key: bytes) -> None:
        """The key is provided, and never said by ourselves."""
        self.remove(key)
        self._kept[key] = None

    def remove(self, key: bytes) -> None:
        """The key is not provided any more."""
        self._said.pop(key, None)
        self._postponed.pop(key, None)
        self._kept.pop(key, None)

    def due(self, wall: float, limit: int = 1) -> list[bytes]:
        """Keys that have to be provided again, at most so many."""
        found: list[bytes] = []
        for keys in (self._postponed, self._said):
            for key, when in keys.items():
                if when > wall or len(found) >= limit:
                    break
                found.append(key)
        return found
