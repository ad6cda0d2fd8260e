"""Messages of the last heartbeats: what we gossip about, and what we can still give.

    put -> window 0 --shift--> 1 -> ... -> length - 1 --shift--> forgotten
           '--- ids are gossiped ---'

Bounded in bytes too: the oldest messages go first.
"""

from collections import deque

from ..peer_id import PeerId
from .message import Message


class Entry:
    """A message that is kept."""

    __slots__ = ("message", "sent")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.sent: dict[PeerId, int] | None = None
        """How often each peer was sent it because it asked, also one that has gone since."""


class MessageCache:
    """The last ``length`` windows of messages, of which ``gossip`` are talked about."""

    __slots__ = ("_entries", "_gossip", "_max_bytes", "_windows", "size")

    def __init__(self, *, length: int, gossip: int, max_bytes: int) -> None:
        self.size = 0
        """Bytes of all messages."""
        self._entries: dict[bytes, Entry] = {}
        self._gossip = gossip
        self._max_bytes = max_bytes
        self._windows: deque[dict[bytes, dict[bytes, None]]] = deque(
            ({} for _ in range(length)), maxlen=length
        )

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, message: Message) -> None:
        """Keep a message; one that is kept already, or longer than all may be, is ignored."""
        entries = self._entries
        size = len(message.raw)
        if message.id in entries or size > self._max_bytes:
            return
        entries[message.id] = Entry(message)
        self._windows[0].setdefault(message.topic, {})[message.id] = None
        self.size += size
        while self.size > self._max_bytes:
            self._drop(next(iter(entries)))

    def get(self, message_id: bytes) -> Entry | None:
        """A message that is still there."""
        return self._entries.get(message_id)

    def ids(self, topic: bytes) -> list[bytes]:
        """Messages of a topic to gossip about, those of the last heartbeat first."""
        found: list[bytes] = []
        entries = self._entries
        for number, window in enumerate(self._windows):
            if number == self._gossip:
                break
            found += [one for one in window.get(topic, ()) if one in entries]
        return found

    def shift(self) -> None:
        """A heartbeat has passed."""
        for ids in self._windows[-1].values():
            for message_id in ids:
                if message_id in self._entries:
                    self._drop(message_id)
        self._windows.appendleft({})

    def _drop(self, message_id: bytes) -> None:
        self.size -= len(self._entries.pop(message_id).message.raw)
