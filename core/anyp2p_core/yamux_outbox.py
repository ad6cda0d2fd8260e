"""What a yamux session has to send: control frames first, then a frame of each stream in turn.

    streams:  wake -> ready -- next_frame --> has more: behind the others
                            <-- wake -------- has no more, or no window

Nothing is framed before the socket can take it, so what waits can still be dropped.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from .yamux_frame import HEADER_SIZE

if TYPE_CHECKING:
    from .yamux_stream import Stream


class Outbox:
    """``on_ready`` is called when it stops being empty."""

    __slots__ = ("control", "ready", "waiting", "_on_ready")

    def __init__(self, on_ready: Callable[[], object]) -> None:
        self.control: list[bytes] = []
        self.ready: deque[Stream] = deque()  # each stream once, and only if it has a frame
        self.waiting: list[Stream] = []  # those that sent something and want to know
        self._on_ready = on_ready

    def __bool__(self) -> bool:
        return bool(self.control or self.ready)

    def add(self, frame: bytes) -> None:
        """Queue a control frame."""
        quiet = not (self.ready or self.control)
        self.control.append(frame)
        if quiet:
            self._on_ready()

    def wake(self, stream: "Stream") -> None:
        """The stream, which is not in here, has something to send from now on."""
        quiet = not (self.ready or self.control)
        stream._queued = True
        self.ready.append(stream)
        if quiet:
            self._on_ready()

    def remove(self, stream: "Stream") -> None:
        """The stream, which is in here, has nothing to send any more. Linear in ``ready``."""
        stream._queued = False
        self.ready.remove(stream)

    def take(self, budget: int, now: float) -> list[bytes]:
        """Return all control frames, and frames of streams until ``budget`` bytes are reached.

        Streams that wait for it are told that they sent something.
        """
        out = self.control
        self.control = []
        budget -= len(out) * HEADER_SIZE
        ready = self.ready
        while ready and budget > 0:
            stream = ready.popleft()
            budget -= stream._next_frame(out)
            if stream._queued:
                ready.append(stream)
        if self.waiting:
            waiting, self.waiting = self.waiting, []
            for stream in waiting:
                stream._notify(now)
        return out

    def clear(self) -> None:
        """Drop everything: the connection is lost."""
        self.control.clear()
        for stream in self.ready:
            stream._queued = False
        self.ready.clear()
