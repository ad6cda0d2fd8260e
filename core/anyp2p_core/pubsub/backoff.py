"""Who must not enter which mesh before when.

    add -> backing off --expired--> may send GRAFT again --slack--> forgotten, may be asked by us

It outlives connections: a peer cannot come back by connecting again.
"""


class Backoff:
    """Deadlines by topic and peer, bounded: the oldest entries of a topic go first."""

    __slots__ = ("_size", "_slack", "_topics")

    def __init__(self, *, slack: float, size: int) -> None:
        """``slack``: seconds that we wait longer than we ask others to. ``size``: per topic."""
        self._size = size
        self._slack = slack
        self._topics: dict[bytes, dict[bytes, float]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._topics.values()))

    def add(self, topic: bytes, peer: bytes, until: float) -> None:
        """Start, or prolong, a backoff."""
        peers = self._topics.setdefault(topic, {})
        until = max(until, peers.pop(peer, until))
        peers[peer] = until
        if len(peers) > self._size:
            del peers[next(iter(peers))]

    def until(self, topic: bytes, peer: bytes) -> float | None:
        """When a backoff ends, or has ended; None if there is none."""
        return self._topics.get(topic, _NONE).get(peer)

    def blocks(self, topic: bytes, peer: bytes, now: float) -> bool:
        """Whether we must not ask a peer to enter."""
        until = self._topics.get(topic, _NONE).get(peer)
        return until is not None and until + self._slack > now

    def sweep(self, now: float) -> None:
        """Forget what is over."""
        limit = now - self._slack
        for topic, peers in list(self._topics.items()):
            for peer in [peer for peer, until in peers.items() if until <= limit]:
                del peers[peer]
            if not peers:
                del self._topics[topic]


_NONE: dict[bytes, float] = {}
