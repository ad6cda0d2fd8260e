"""A stream as applications hold it, on any event loop."""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from anyp2p_core.errors import IncompleteRead, LocalError
from anyp2p_core.peer_id import PeerId
from anyp2p_core.stream import require_bytes

if TYPE_CHECKING:
    from .host import BaseHost


class Event(Protocol):
    """One-shot: set once, wakes everyone who waits, now or later."""

    def set(self) -> object: ...
    async def wait(self) -> object: ...


LATE = object()
"""What ``BaseHost._within`` returns in place of a result."""


class StreamBusy(LocalError):
    """Another task uses this direction of the stream."""


class Stream:
    """A byte stream to one protocol of one peer. One task may read while another one writes."""

    __slots__ = (
        "_host", "_id", "closed", "drained", "inbound", "peer", "protocol", "readable", "writable",
    )  # fmt: skip

    def __init__(
        self, host: "BaseHost[Any]", stream: int, peer: PeerId, protocol: str, inbound: bool
    ) -> None:
        self.peer = peer
        self.protocol = protocol
        self.inbound = inbound
        self.closed = False
        self.readable: Event | None = None
        self.writable: Event | None = None
        self.drained: Event | None = None
        self._host = host
        self._id = stream

    def __repr__(self) -> str:
        return f"<Stream {self._id} {self.protocol} peer={self.peer}>"

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Up to ``max_bytes``, b"" at the end of the stream.

        What arrived before a reset or a lost connection can still be read; then it raises.
        """
        host = self._host
        host._check_thread()
        while (data := host.node.stream_read(self._id, max_bytes, host.now())) is None:
            if self.readable is not None:
                raise StreamBusy("another task is reading from this stream")
            self.readable = host.make_event()
            try:
                host.flush()
                await self.readable.wait()
            finally:
                self.readable = None
        if host.node.busy:
            host._flush_soon()
        return data

    async def readexactly(self, size: int) -> bytes:
        """Exactly ``size`` bytes. Raises ``IncompleteRead`` when the stream ends before."""
        parts: list[bytes] = []
        left = size
        while left:
            data = await self.read(left)
            if not data:
                text = f"the stream ended after {size - left} of {size} bytes"
                raise IncompleteRead(text, b"".join(parts))
            parts.append(data)
            left -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data``; waits while the peer's window and our buffer are full.

        When cancelled, a prefix may have been written.
        """
        require_bytes(data)
        host = self._host
        host._check_thread()
        if self.writable is not None:
            raise StreamBusy("another task is writing to this stream")
        if type(data) is memoryview:
            data = data.cast("B")  # whose length is in bytes
        while (taken := host.node.stream_write(self._id, data)) < len(data):
            data = memoryview(data)[taken:]
            await self._wait_for_room()
        host._flush_soon()

    async def wait_writable(self) -> None:
        """Wait until a write would take something."""
        self._host._check_thread()
        if self.writable is not None:
            raise StreamBusy("another task is writing to this stream")
        while not self._host.node.stream_writable(self._id):
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        self.writable = self._host.make_event()
        try:
            self._host.flush()
            await self.writable.wait()
        finally:
            self.writable = None

    async def drain(self) -> None:
        """Wait until everything written was handed to the transport."""
        host = self._host
        host._check_thread()
        while not host.node.stream_drained(self._id):
            if self.drained is None:
                self.drained = host.make_event()
            event = self.drained
            host.flush()
            await event.wait()

    async def close_write(self) -> None:
        """Close our direction once everything written is sent; reading goes on."""
        self._host._check_thread()
        if self.writable is not None:
            raise StreamBusy("another task is writing to this stream")
        self._host.node.stream_write_eof(self._id)
        self._host._flush_soon()

    async def close(self) -> None:
        """Close both directions; what was written is delivered. Harmless when repeated."""
        self._host._check_thread()
        self.abandon(graceful=True)

    async def reset(self, code: int = 0) -> None:
        """Abort both directions at once."""
        host = self._host
        host._check_thread()
        host.node.stream_reset(self._id, code, host.now())
        self._let_go()

    def abandon(self, *, graceful: bool, discard: bool = True) -> None:
        """Close or reset without waiting. ``discard``: see ``Node.stream_close``."""
        host = self._host
        if graceful:
            host.node.stream_close(self._id, host.now(), discard=discard)
        else:
            host.node.stream_reset(self._id, 0, host.now())
        self._let_go()

    def _let_go(self) -> None:
        self.closed = True
        for event in (self.readable, self.writable, self.drained):
            if event is not None:
                event.set()
        self._host.forget(self._id)
        self._host._flush_soon()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        data = await self.read()
        if not data:
            raise StopAsyncIteration
        return data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abandon(graceful=error is None)
