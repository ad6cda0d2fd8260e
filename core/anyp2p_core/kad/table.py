"""The routing table: peers that answered us, many near our own key and few far from it.

Spec: https://github.com/libp2p/specs/blob/master/kad-dht/README.md#kademlia-routing-table

    peer answers -> bucket = common prefix with our key
        bucket has room, network not crowded                -> ADDED
        bucket full, one has not answered for ``grace``     -> it makes room, ADDED
        bucket full of live peers                           -> FULL: who is here stays here
        too many of its IP group in table or bucket         -> CROWDED
    peer fails, or says that it is no server                -> removed

Old peers are preferred, since who has been there for long will be there for longer, and since a
flood of new ones cannot push them out. Who enters is the caller's business: only peers that
answered a request of ours may.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from enum import Enum

from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from .keys import MAX_PREIMAGE, Key, common_prefix, key_of, nearest

K = 20
"""Peers in a bucket, and peers that share the work for a key."""
GRACE = 2593.0
"""Seconds without an answer after which a peer makes room.

4.32 refreshes of 10 minutes: ln(1/k) / ln(1 - alpha/k) with k 20 and alpha 10, the time in which
a live peer is as good as certain to have been asked for something (go peers do the same).
"""
MAX_PER_GROUP = 3
"""Peers of one IP group in the whole table."""
MAX_PER_BUCKET = 2
"""Peers of one IP group in one bucket."""
MAX_ADDRESSES = 8
"""Addresses that are kept of one peer."""


class Admission(Enum):
    """What became of a peer that was offered to the table."""

    ADDED = "added"
    KNOWN = "known"
    FULL = "full"
    CROWDED = "crowded"
    SELF = "self"


@dataclass(slots=True)
class Entry:
    """A peer in the table."""

    peer: PeerId
    key: Key
    prefix: int
    """Leading bits that its key shares with ours: its bucket."""
    packed: tuple[bytes, ...]
    """Its addresses, as bytes: objects would take up more than all the rest."""
    groups: tuple[bytes, ...]
    added_at: float
    useful_at: float
    """When it last answered us."""

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """Where it was when it came, or where it said that it is now."""
        return tuple(map(Multiaddr.from_bytes, self.packed))


@dataclass(slots=True)
class Bucket:
    """What ``Health`` says of one bucket."""

    prefix: int
    size: int
    stale: int
    refreshed_at: float | None


@dataclass(slots=True)
class Health:
    """The state of the table, for people and for tests."""

    size: int
    stale: int
    """Peers that have not answered for ``grace`` seconds."""
    groups: int
    """Different IP groups."""
    largest_group: int
    buckets: tuple[Bucket, ...]
    """Those that hold peers, farthest first."""


class Table:
    """Peers by distance. Times are seconds of the caller's clock.

    >>> table = Table(PeerId.parse("12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"))
    >>> peer = PeerId.parse("12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq")
    >>> table.add(peer, 0.0)
    <Admission.ADDED: 'added'>
    >>> [entry.peer == peer for entry in table.closest(key_of(b"anything"), 20)]
    [True]
    """

    __slots__ = (
        "k", "key", "own", "_buckets", "_by_key", "_entries", "_grace", "_groups", "_keys",
        "_per_bucket", "_per_group", "_refreshed",
    )  # fmt: skip

    def __init__(
        self,
        own: PeerId,
        *,
        k: int = K,
        grace: float = GRACE,
        per_group: int = MAX_PER_GROUP,
        per_bucket: int = MAX_PER_BUCKET,
    ) -> None:
        self.own = own
        self.key = key_of(bytes(own))
        self.k = k
        self._grace = grace
        self._per_group = per_group
        self._per_bucket = per_bucket
        self._entries: dict[PeerId, Entry] = {}
        self._by_key: dict[Key, Entry] = {}
        self._keys: list[Key] = []  # sorted
        self._buckets: dict[int, dict[PeerId, Entry]] = {}  # in the order of their last answer
        self._groups: dict[bytes, int] = {}
        self._refreshed: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._entries

    def get(self, peer: PeerId) -> Entry | None:
        """The entry of a peer."""
        return self._entries.get(peer)

    def entries(self) -> list[Entry]:
        """All entries, in the order in which they were added."""
        return list(self._entries.values())

    def closest(self, key: Key, count: int) -> list[Entry]:
        """The ``count`` peers closest to a key, closest first."""
        by_key = self._by_key
        return [by_key[one] for one in nearest(self._keys, key, count)]

    def judge(self, peer: PeerId, now: float, groups: tuple[bytes, ...] = ()) -> Admission:
        """What ``add`` would do, without doing it."""
        return self._judge(peer, key_of(bytes(peer)), groups, now)[0]

    def add(
        self,
        peer: PeerId,
        now: float,
        *,
        addresses: tuple[Multiaddr, ...] = (),
        groups: tuple[bytes, ...] = (),
    ) -> Admission:
        """Take in a peer that has just answered us, or note that it did.

        ``groups`` are the IP groups that its connections come from; without one it is not limited.
        """
        known = self._entries.get(peer)
        if known is not None:
            known.useful_at = now
            if addresses:
                known.packed = _pack(addresses)
            bucket = self._buckets[known.prefix]
            bucket[peer] = bucket.pop(peer)
            return Admission.KNOWN
        key = key_of(bytes(peer))
        verdict, leaving = self._judge(peer, key, groups, now)
        if verdict is not Admission.ADDED:
            return verdict
        if leaving is not None:
            self.remove(leaving.peer)
        prefix = common_prefix(self.key, key)
        entry = Entry(peer, key, prefix, _pack(addresses), groups, now, now)
        self._entries[peer] = self._by_key[key] = entry
        insort(self._keys, key)
        self._buckets.setdefault(prefix, {})[peer] = entry
        for group in groups:
            self._groups[group] = self._groups.get(group, 0) + 1
        return verdict

    def moved(self, peer: PeerId, addresses: tuple[Multiaddr, ...]) -> None:
        """A peer that is here says where it is now; ignored if it says nothing."""
        entry = self._entries.get(peer)
        if entry is not None and addresses:
            entry.packed = _pack(addresses)

    def remove(self, peer: PeerId) -> bool:
        """Forget a peer; False if it is not here."""
        entry = self._entries.pop(peer, None)
        if entry is None:
            return False
        del self._by_key[entry.key]
        del self._keys[bisect_left(self._keys, entry.key)]
        bucket = self._buckets[entry.prefix]
        del bucket[peer]
        if not bucket:
            del self._buckets[entry.prefix]
        for group in entry.groups:
            if self._groups[group] > 1:
                self._groups[group] -= 1
            else:
                del self._groups[group]
        return True

    def stale(self, now: float) -> list[Entry]:
        """Peers that have not answered for the grace period, in the order of their buckets."""
        limit = now - self._grace
        return [e for b in self._buckets.values() for e in b.values() if e.useful_at <= limit]

    # Refreshing: every bucket is looked into now and then, whether anybody asked for it or not.

    def refreshed(self, key: Key, now: float) -> None:
        """A lookup for ``key`` has ended: the bucket that it falls into is fresh."""
        self._refreshed[min(common_prefix(self.key, key), MAX_PREIMAGE)] = now

    def to_refresh(self, now: float, interval: float) -> list[int]:
        """Buckets that nobody has looked into for ``interval`` seconds, farthest first.

        None beyond the deepest bucket in use, because a lookup of our own key covers those.
        """
        deepest = min(max(self._buckets, default=0), MAX_PREIMAGE)
        limit = now - interval
        refreshed = self._refreshed
        return [
            prefix
            for prefix in range(deepest + 1)
            if prefix not in refreshed or refreshed[prefix] <= limit
        ]

    def health(self, now: float) -> Health:
        """How full, how alive and how diverse the table is."""
        limit = now - self._grace
        buckets = []
        for prefix in sorted(self._buckets):
            bucket = self._buckets[prefix]
            stale = sum(entry.useful_at <= limit for entry in bucket.values())
            buckets.append(Bucket(prefix, len(bucket), stale, self._refreshed.get(prefix)))
        return Health(
            size=len(self._entries),
            stale=sum(bucket.stale for bucket in buckets),
            groups=len(self._groups),
            largest_group=max(self._groups.values(), default=0),
            buckets=tuple(buckets),
        )

    def _judge(
        self, peer: PeerId, key: Key, groups: tuple[bytes, ...], now: float
    ) -> tuple[Admission, Entry | None]:
        """The verdict, and who has to leave for it."""
        if peer == self.own:
            return Admission.SELF, None
        if peer in self._entries:
            return Admission.KNOWN, None
        bucket = self._buckets.get(common_prefix(self.key, key), {})
        leaving = None
        if len(bucket) >= self.k:
            leaving = next(iter(bucket.values()))  # the one that was silent for longest
            if leaving.useful_at > now - self._grace:
                return Admission.FULL, None
        for group in groups:
            gone = leaving is not None and group in leaving.groups
            here = sum(group in entry.groups for entry in bucket.values())
            if (
                here - gone >= self._per_bucket
                or self._groups.get(group, 0) - gone >= self._per_group
            ):
                return Admission.CROWDED, None
        return Admission.ADDED, leaving


def _pack(addresses: tuple[Multiaddr, ...]) -> tuple[bytes, ...]:
    return tuple(map(bytes, addresses[:MAX_ADDRESSES]))
