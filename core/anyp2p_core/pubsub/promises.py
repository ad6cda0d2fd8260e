"""What peers announced and we asked for: one id of each request, until it came.

asked --somebody sent it--> kept
      --too late--> broken, held against who announced it, also when it has gone since
"""

from ..peer_id import PeerId

MAX_PROMISES = 16_384
"""Open promises of all peers; beyond it, the oldest are let off."""


class Promises:
    """Open promises, bounded in number."""

    __slots__ = ("_by_id", "_count", "_timeout")

    def __init__(self, timeout: float) -> None:
        self._by_id: dict[bytes, dict[PeerId, float]] = {}
        self._count = 0
        self._timeout = timeout

    def __len__(self) -> int:
        return self._count

    def add(self, peer: PeerId, message_id: bytes, now: float) -> None:
        """``peer`` was asked for a message that it announced."""
        peers = self._by_id.setdefault(message_id, {})
        if peer not in peers:
            peers[peer] = now + self._timeout
            self._count += 1
            if self._count > MAX_PROMISES:
                self.kept(next(iter(self._by_id)))

    def kept(self, message_id: bytes) -> None:
        """The message came; whoever sent it, the others had no chance any more."""
        peers = self._by_id.pop(message_id, None)
        if peers is not None:
            self._count -= len(peers)

    def broken(self, now: float) -> dict[PeerId, int]:
        """How many promises each peer broke since the last call."""
        found: dict[PeerId, int] = {}
        empty = []
        for message_id, peers in self._by_id.items():
            late = [peer for peer, due in peers.items() if due < now]
            for peer in late:
                found[peer] = found.get(peer, 0) + 1
                del peers[peer]
            self._count -= len(late)
            if not peers:
                empty.append(message_id)
        for message_id in empty:
            del self._by_id[message_id]
        return found
