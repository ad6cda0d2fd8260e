"""Where records and provider records are kept: the interface, and the one in memory.

    service --put, get, add_provider, providers, own_keys ...--> Store
                                                                   |-- MemoryStore, in here
                                                                   `-- one that survives a crash

Whatever ``put`` and ``add_provider`` have accepted is there until it expires or has to make room.
Times are wall-clock seconds since 1970, because a store may outlive the process and its clock.
"""

from dataclasses import dataclass
from typing import Protocol

from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from .messages import MAX_VALUE
from .providers import MAX_KEYS, MAX_PER_KEY, SHARE, Provider, Providers

MAX_RECORDS = 1024
MAX_AGE = 48 * 3600.0
"""Seconds after which a record is not given out any more."""


@dataclass(slots=True)
class StoredRecord:
    """A value with its key, valid when it was stored."""

    key: bytes
    value: bytes
    received: float
    expires: float
    sender: bytes = b""
    """The binary id of the peer that brought it, empty if the application did."""


class Store(Protocol):
    """What the service keeps things in. Raises LocalError when it cannot (a full disk ...)."""

    def put(self, record: StoredRecord, wall: float, /) -> bool:
        """Store a record in place of any other of its key; False if there is no room for it."""
        ...

    def get(self, key: bytes, wall: float, /) -> StoredRecord | None:
        """The record of a key, unless it has expired."""
        ...

    def remove(self, key: bytes, /) -> None:
        """Forget the record of a key."""
        ...

    def add_provider(
        self, key: bytes, peer: PeerId, addresses: tuple[Multiaddr, ...], wall: float, /
    ) -> bool:
        """Note that a peer provides a key; False if there is no room for it."""
        ...

    def providers(self, key: bytes, wall: float, /) -> list[Provider]:
        """Who provides a key; addresses only while they are fresh."""
        ...

    def remove_provider(self, key: bytes, peer: PeerId, /) -> None:
        """Forget that a peer provides a key."""
        ...

    def set_own(self, key: bytes, wall: float, /) -> None:
        """Note that we provide a key and said so at ``wall``."""
        ...

    def remove_own(self, key: bytes, /) -> None:
        """We do not provide a key any more."""
        ...

    def own_keys(self) -> dict[bytes, float]:
        """The keys that we provide and when we last said so, oldest first."""
        ...

    def sweep(self, wall: float, /) -> object:
        """Forget what has expired. Called now and then."""
        ...


class Records:
    """Values in memory. One peer cannot fill it, and many peers only displace each other.

    When it is full, the oldest record of the peer with the most records makes room.
    """

    __slots__ = ("_by_count", "_by_sender", "_max_records", "_max_value", "_most", "_next_sweep",
                 "_records", "_share")  # fmt: skip

    def __init__(
        self, *, max_records: int = MAX_RECORDS, max_value: int = MAX_VALUE, share: float = SHARE
    ) -> None:
        self._max_records = max_records
        self._max_value = max_value
        self._share = max(int(max_records * share), 1)
        self._records: dict[bytes, StoredRecord] = {}
        self._by_sender: dict[bytes, dict[bytes, None]] = {}
        self._by_count: dict[int, dict[bytes, None]] = {}
        """Other peers by how many records they have."""
        self._most = 0
        """The greatest of these counts, or more."""
        self._next_sweep = 0.0
        """No record expires before."""

    def __len__(self) -> int:
        return len(self._records)

    def put(self, record: StoredRecord, wall: float) -> bool:
        """Store a record; False if it is too long, has expired, or everything here is our own."""
        if len(record.value) > self._max_value or record.expires <= wall:
            return False
        sender = record.sender
        self.remove(record.key)
        mine = self._by_sender.get(sender, {})
        if sender and len(mine) >= self._share:
            self.remove(next(iter(mine)))
        elif len(self._records) >= self._max_records:
            if wall >= self._next_sweep:
                self.sweep(wall)
            if len(self._records) >= self._max_records and not self._make_room():
                return False
        self._records[record.key] = record
        self._next_sweep = min(self._next_sweep, record.expires)
        mine = self._by_sender.setdefault(sender, {})
        mine[record.key] = None
        self._count(sender, len(mine) - 1, len(mine))
        return True

    def get(self, key: bytes, wall: float) -> StoredRecord | None:
        """The record of a key, unless it has expired."""
        record = self._records.get(key)
        if record is not None and record.expires <= wall:
            self.remove(key)
            return None
        return record

    def remove(self, key: bytes) -> None:
        """Forget a record."""
        record = self._records.pop(key, None)
        if record is not None:
            mine = self._by_sender[record.sender]
            del mine[key]
            self._count(record.sender, len(mine) + 1, len(mine))
            if not mine:
                del self._by_sender[record.sender]

    def sweep(self, wall: float) -> int:
        """Forget what has expired; returns how many."""
        expired = [key for key, record in self._records.items() if record.expires <= wall]
        for key in expired:
            self.remove(key)
        ends = (record.expires for record in self._records.values())
        self._next_sweep = min(ends, default=float("inf"))
        return len(expired)

    def _count(self, sender: bytes, before: int, after: int) -> None:
        """Note how many records a peer has; our own do not count."""
        if not sender:
            return
        if before:
            same = self._by_count[before]
            del same[sender]
            if not same:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, {})[sender] = None
            self._most = max(self._most, after)

    def _make_room(self) -> bool:
        if not self._by_count:
            return False
        while self._most not in self._by_count:
            self._most -= 1
        busiest = next(iter(self._by_count[self._most]))
        self.remove(next(iter(self._by_sender[busiest])))
        return True


class MemoryStore:
    """A store that is gone with the process."""

    __slots__ = ("_own", "_providers", "_records")

    def __init__(
        self,
        *,
        max_records: int = MAX_RECORDS,
        max_value: int = MAX_VALUE,
        max_provider_keys: int = MAX_KEYS,
        max_providers_per_key: int = MAX_PER_KEY,
        share: float = SHARE,
    ) -> None:
        """``share``: the part of all records, and of all provided keys, that one peer may have."""
        self._records = Records(max_records=max_records, max_value=max_value, share=share)
        self._providers = Providers(
            max_keys=max_provider_keys, per_key=max_providers_per_key, share=share
        )
        self._own: dict[bytes, float] = {}

    def put(self, record: StoredRecord, wall: float) -> bool:
        return self._records.put(record, wall)

    def get(self, key: bytes, wall: float) -> StoredRecord | None:
        return self._records.get(key, wall)

    def remove(self, key: bytes) -> None:
        self._records.remove(key)

    def add_provider(
        self, key: bytes, peer: PeerId, addresses: tuple[Multiaddr, ...], wall: float
    ) -> bool:
        return self._providers.add(key, peer, addresses, wall)

    def providers(self, key: bytes, wall: float) -> list[Provider]:
        return self._providers.find(key, wall)

    def remove_provider(self, key: bytes, peer: PeerId) -> None:
        self._providers.remove(key, peer)

    def set_own(self, key: bytes, wall: float) -> None:
        self._own.pop(key, None)
        self._own[key] = wall

    def remove_own(self, key: bytes) -> None:
        self._own.pop(key, None)

    def own_keys(self) -> dict[bytes, float]:
        return dict(self._own)

    def sweep(self, wall: float) -> None:
        self._records.sweep(wall)
        self._providers.sweep(wall)
