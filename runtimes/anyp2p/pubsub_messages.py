"""What subscribers hold: the messages of a topic, in a queue with two bounds.

message --room--> queue --async for--> application
   '-- no room: drop="oldest"  the oldest goes, until there is room
                drop="newest"  the message goes
either way ``dropped`` counts it. One message always has room, however large.
"""

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from anyp2p_core.errors import ConnectionLost
from anyp2p_core.peer_id import PeerId
from anyp2p_core.pubsub.message import Message as CoreMessage

if TYPE_CHECKING:
    from .pubsub import PubSub

Drop: TypeAlias = Literal["oldest", "newest"]

MAX_MESSAGES = 1024
MAX_BYTES = 16 * 1024 * 1024


class Message:
    """A message of a topic."""

    __slots__ = ("topic", "_message")

    def __init__(self, message: CoreMessage, topic: str) -> None:
        self.topic = topic
        self._message = message

    def __repr__(self) -> str:
        return f"<Message of {self.author or 'nobody'} in {self.topic!r}, {len(self.data)} bytes>"

    @property
    def data(self) -> bytes:
        """What was published."""
        return self._message.data or b""

    @property
    def author(self) -> PeerId | None:
        """Who published it, proven if it is ``signed``. None: it is anonymous."""
        return self._message.author

    @property
    def signed(self) -> bool:
        """Whether the author has signed it; the signature is good then."""
        return self._message.signature is not None

    @property
    def received_from(self) -> PeerId | None:
        """The peer that sent it to us; None for our own."""
        return self._message.received_from

    @property
    def id(self) -> bytes:
        """What names it among all messages, by the message-id function."""
        return self._message.id

    @property
    def seqno(self) -> bytes | None:
        """The author's number for it."""
        return self._message.seqno

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return len(self._message.raw)


class Subscription:
    """The messages of its topics. Several tasks may take from it; each message goes to one of them.

    A cancelled wait has lost nothing. When it is closed iteration ends; when the host is closed,
    what has come can still be taken, then it raises ``ConnectionLost``.
    """

    __slots__ = (
        "closed", "dropped", "topics", "_drop", "_max_bytes", "_max_messages", "_number",
        "_numbers", "_pubsub", "_queue", "_size",
    )  # fmt: skip

    def __init__(
        self,
        pubsub: "PubSub",
        numbers: list[int],
        topics: tuple[str, ...],
        drop: Drop,
        max_messages: int,
        max_bytes: int,
    ) -> None:
        self.topics = topics
        self.closed = False
        self.dropped = 0
        """Messages that had no room."""
        self._drop = drop
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._number = numbers[0]
        self._numbers = numbers
        self._pubsub = pubsub
        self._queue: deque[Message] = deque()
        self._size = 0

    def __repr__(self) -> str:
        names = ", ".join(map(repr, self.topics))
        return f"<Subscription {names}, {self.waiting} waiting, {self.dropped} dropped>"

    @property
    def waiting(self) -> int:
        """Messages that have come and were not taken."""
        return len(self._queue)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        host = self._pubsub.host
        host._check_thread()
        while not self._queue:
            if self.closed:
                raise StopAsyncIteration
            if host._state != "running":
                raise ConnectionLost("the host was closed")
            await host._outcome(self._number)
        message = self._queue.popleft()
        self._size -= message.size
        return message

    async def close(self) -> None:
        """Leave the topics, unless there are other subscriptions of them. Harmless when repeated.

        What has come and was not taken is gone.
        """
        if self.closed:
            return
        host = self._pubsub.host
        host._check_thread()
        self.closed = True
        self._queue.clear()
        self._size = 0
        self._pubsub.forget(self._numbers)
        host._resolve(self._number, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def on_message(self, message: Message) -> None:
        """Called with each message."""
        queue, size = self._queue, message.size
        while queue and (len(queue) >= self._max_messages or self._size + size > self._max_bytes):
            self.dropped += 1
            if self._drop == "newest":
                return
            self._size -= queue.popleft().size
        queue.append(message)
        self._size += size
        self._pubsub.host._resolve(self._number, None)
