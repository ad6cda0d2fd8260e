"""What waits for one peer: four queues behind a stream that takes what it can.

                    stream not full, nothing waits --> written at once
    send --> queue  CONTROL > OWN > FORWARD > GOSSIP --stream drained--> written, in this order
               '-- full: the oldest of the least important goes, which may be what came

A message that waits and is not wanted any more is left out. Nothing blocks: a peer that does not
read loses messages, and no other peer notices. Control is never lost silently: without it, the
peer's picture of us would be wrong, so ``send`` tells, and the stream has to end.
"""

from collections import deque
from collections.abc import Callable
from enum import IntEnum

from ..muxer import Stream

HIGH = 32 * 1024
"""Bytes that lie in the stream, where nothing can be taken back any more."""


class Kind(IntEnum):
    """What is sent, the most important first."""

    CONTROL = 0
    OWN = 1
    FORWARD = 2
    GOSSIP = 3


class Outbox:
    """The writing end of our stream to a peer."""

    __slots__ = ("count", "lost", "size", "stream", "_is_unwanted", "_max_bytes", "_max_count",
                 "_partial", "_queues", "_touch")  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        *,
        max_bytes: int,
        max_count: int,
        touch: Callable[[], object],
        is_unwanted: Callable[[bytes], bool],
    ) -> None:
        """``touch`` is called when something was written, ``is_unwanted`` before a message is."""
        self.stream = stream
        self.count = 0
        """RPCs that wait."""
        self.size = 0
        """Their bytes."""
        self.lost: list[bytes] = []
        """RPCs that were dropped since somebody emptied this."""
        self._is_unwanted = is_unwanted
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._partial: memoryview | None = None
        self._queues: tuple[deque[tuple[bytes, bytes | None]], ...] = tuple(deque() for _ in Kind)
        self._touch = touch

    def send(self, data: bytes, kind: Kind, message_id: bytes | None = None) -> bool:
        """Send a complete RPC. False: it was dropped, or, for control, cannot be kept."""
        if not self.count and self._partial is None and self.stream.unsent < HIGH:
            self._write(data)
            self._touch()
            return True
        size = len(data)
        if not self._fits(size) and not self._make_room(kind, size):
            self.lost.append(data)
            return False
        self._queues[kind].append((data, message_id))
        self.count += 1
        self.size += size
        self.stream.on_drained = self._on_drained
        return True

    def waiting(self, kind: Kind) -> int:
        """How many RPCs of one kind wait."""
        return len(self._queues[kind])

    def _fits(self, size: int) -> bool:
        if not self.count:
            return True
        return self.count < self._max_count and self.size + size <= self._max_bytes

    def _make_room(self, kind: Kind, size: int) -> bool:
        """Drop what is not more important than ``kind``, and no control at all."""
        for queue in reversed(self._queues[max(kind, Kind.OWN) :]):
            while queue:
                data, _ = queue.popleft()
                self.lost.append(data)
                self.count -= 1
                self.size -= len(data)
                if self._fits(size):
                    return True
        return False

    def _write(self, data: bytes) -> None:
        taken = self.stream.write(data)
        if taken < len(data):
            self._partial = memoryview(data)[taken:]
            self.stream.on_drained = self._on_drained

    def _on_drained(self, now: float) -> None:
        stream = self.stream
        partial = self._partial
        if partial is not None:
            taken = stream.write(partial)
            self._partial = partial[taken:] if taken < len(partial) else None
        while self.count and self._partial is None and stream.unsent < HIGH:
            data, message_id = next(queue for queue in self._queues if queue).popleft()
            self.count -= 1
            self.size -= len(data)
            if message_id is None or not self._is_unwanted(message_id):
                self._write(data)
        if self.count or self._partial is not None:
            stream.on_drained = self._on_drained
        self._touch()
