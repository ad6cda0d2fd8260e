"""Messages cut out of streams, with one account for all that is incomplete.

stream 1 --bytes--> Framing --messages-->
stream 2 --bytes--> Framing --messages-->        incomplete bytes of both <= Held.limit
"""

from ..errors import RemoteError
from ..varint import Delimited


class Held:
    """Counts bytes of messages that have not arrived completely, over many streams."""

    __slots__ = ("limit", "total")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0


class Framing:
    """Reads the length-prefixed messages of one stream.

    RemoteError when a message is announced that is too long, and when all streams together hold
    too much; the stream has to be reset then.
    """

    __slots__ = ("_frames", "_held", "pending")

    def __init__(self, limit: int, held: Held) -> None:
        self._frames = Delimited(limit)
        self._held = held
        self.pending = 0
        """Bytes of the incomplete message."""

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that ``data`` completes."""
        frames = self._frames.receive(data)
        held, pending = self._held, self._frames.pending
        held.total += pending - self.pending
        self.pending = pending
        if held.total > held.limit and pending:
            raise RemoteError(f"more than {held.limit} bytes of incomplete messages are held")
        return frames

    def close(self) -> None:
        """Nothing more comes: let go of what is incomplete."""
        self._held.total -= self.pending
        self.pending = 0
