"""Messages cut out of streams, with one account for all that is incomplete.

stream 1 --bytes--> Framing --messages-->
stream 2 --bytes--> Framing --messages-->      incomplete bytes of one peer <= its share,
                                               of all peers <= the limit
"""

from ..errors import RemoteError
from ..varint import Delimited


class Held:
    """Counts bytes of messages that have not arrived completely, over many streams."""

    __slots__ = ("_whole", "limit", "total")

    def __init__(self, limit: int, whole: "Held | None" = None) -> None:
        """``whole``: the account of everybody, which this one is a part of."""
        self._whole = whole
        self.limit = limit
        self.total = 0

    def share(self) -> "Held":
        """The account of one peer: nobody may take more than a quarter."""
        return Held(self.limit // 4, self)

    def add(self, size: int) -> None:
        """So many bytes more, or fewer if it is negative."""
        self.total += size
        if self._whole is not None:
            self._whole.add(size)

    def check(self) -> None:
        """RemoteError if there are too many."""
        if self.total > self.limit:
            raise RemoteError(f"more than {self.limit} bytes of incomplete messages are held")
        if self._whole is not None:
            self._whole.check()


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
        pending = self._frames.pending
        self._held.add(pending - self.pending)
        self.pending = pending
        if pending:
            self._held.check()
        return frames

    def close(self) -> None:
        """Nothing more comes: let go of what is incomplete."""
        self._held.add(-self.pending)
        self.pending = 0
