"""The application's end of a multiplexed stream: what arrived and was not read yet.

    reading   OPEN --FIN--> bytes that are left, then b"" for ever
    writing   OPEN --write_eof--> closed
    either    --reset by a side, or connection lost--> error, after the bytes that are left
    close, reset by us: no event follows

Bytes that the application has not read are not credited to the peer, so a slow reader stops its
sender by the stream's window.
"""

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING

from .errors import LocalError, StreamReset
from .events import Event, StreamDrained, StreamReadable, StreamWritable
from .muxer import RESOURCE_LIMIT, Stream

if TYPE_CHECKING:
    from .connection import Connection

COALESCE = 4096
"""Smaller pieces than this are joined while they wait, so that tiny frames cost no object each."""

_unread = attrgetter("unread")


class AppStream:
    """A stream that the application reads and writes.

    Raises ``LocalError`` for what its state does not allow, and ``StreamReset`` or
    ``ConnectionLost`` once it broke.
    """

    __slots__ = (
        "id", "connection", "protocol", "inbound", "error", "unread",
        "_chunks", "_offset", "_eof", "_emit", "_late", "_stream",
    )  # fmt: skip

    def __init__(
        self,
        stream_id: int,
        connection: "Connection",
        stream: Stream,
        protocol: str,
        emit: Callable[[Event], object],
    ) -> None:
        self.id = stream_id
        self.connection = connection
        self.protocol = protocol
        self.inbound = stream.inbound
        self.error: Exception | None = None
        self.unread = 0
        """Bytes received and not read."""
        self._chunks: deque[bytes | bytearray] = deque()
        self._offset = 0
        self._eof = False
        self._emit = emit
        self._late: Callable[[], object] | None = None  # what to do about data after close
        self._stream = stream
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof
        stream.on_reset = self._on_reset
        stream.on_writable = self._on_writable

    # Commands.

    def read(self, max_bytes: int, now: float) -> bytes | None:
        """Up to ``max_bytes`` bytes, b"" at the end of the stream, None: there is nothing yet."""
        chunks = self._chunks
        if not chunks:
            if self._eof:
                return b""
            if self.error is not None:
                raise self.error.with_traceback(None)
            return None
        if max_bytes <= 0:
            return b""
        offset = self._offset
        chunk = chunks[0]
        size = len(chunk) - offset
        if size <= max_bytes:
            chunks.popleft()
            data = bytes(chunk) if not offset else bytes(memoryview(chunk)[offset:])
            self._offset = 0
        else:
            size = max_bytes
            data = bytes(memoryview(chunk)[offset : offset + size])
            self._offset = offset + size
        self.unread -= size
        self.connection.on_read(self._stream, size, now)
        return data

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Queue bytes; returns how many were taken, fewer than all: wait for ``StreamWritable``."""
        if self.error is not None:
            raise self.error.with_traceback(None)
        return self._stream.write(data)

    def write_eof(self) -> None:
        """Close our direction once everything written is sent. Harmless when repeated."""
        if self.error is None and not self._stream.eof_sent:
            self._stream.write_eof()

    def drained(self) -> bool:
        """Whether all that was written was handed out; if not, ``StreamDrained`` follows."""
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self._stream.unsent:
            self._stream.on_drained = self._on_drained
            return False
        return True

    def writable(self) -> bool:
        """Whether ``write`` would take at least a byte; if not, ``StreamWritable`` follows."""
        if self.error is not None:
            raise self.error.with_traceback(None)
        return self._stream.writable()

    def close(self, now: float, *, discard: bool) -> None:
        """Close both directions: what was written is delivered.

        What still arrives is dropped, or without ``discard`` answered with a reset, as TCP does.
        """
        stream = self._stream
        if self.error is None:
            self.write_eof()
            self._late = stream.stop_reading if discard else stream.reset
            if self._chunks and not discard:
                stream.reset()
        self._drop(now)
        self._emit = _ignore

    def reset(self, code: int, now: float) -> None:
        """Abort both directions at once; reads and writes fail from now on."""
        if self.error is None:
            self._stream.reset(code)
            self.error = StreamReset(f"stream {self.protocol} was reset by us", code)
        self._drop(now)
        self._emit = _ignore

    def fail(self, error: Exception, now: float) -> None:
        """The stream broke for the reason given."""
        if self.error is None:
            self.error = error
            self._wake()

    # Callbacks of the muxer's stream.

    def _on_data(self, data: bytes, now: float) -> None:
        chunks = self._chunks
        if not chunks:
            if self._late is not None:
                self._late()
                return
            self._emit(StreamReadable(self.id))
            chunks.append(data)
        elif len(data) >= COALESCE:
            chunks.append(data)
        else:
            last = chunks[-1]
            if type(last) is bytearray and len(last) < 4 * COALESCE:
                last += data
            else:
                chunks.append(bytearray(data))
        size = len(data)
        self.unread += size
        self.connection.on_unread(size, now)

    def _on_eof(self, now: float) -> None:
        self._eof = True
        self._emit(StreamReadable(self.id))

    def _on_reset(self, code: int, now: float) -> None:
        reason = self.connection.error
        if self._stream.shed:
            self._shed(now)
        elif reason is not None:
            self.fail(reason, now)
        else:
            peer = self.connection.peer
            text = f"stream {self.protocol} was reset by peer {peer} (code {code:#x})"
            self.fail(StreamReset(text, code), now)

    def _on_writable(self, now: float) -> None:
        self._emit(StreamWritable(self.id))

    def _on_drained(self, now: float) -> None:
        self._emit(StreamDrained(self.id))

    def overflow(self, now: float) -> None:
        """The node holds too much unread data, and this stream most of its connection's."""
        self._stream.reset(RESOURCE_LIMIT)
        self._shed(now)

    def _shed(self, now: float) -> None:
        text = (
            f"stream {self.protocol} was reset by us: {self.unread} bytes were left unread, more "
            "than the limits max_unread and max_unread_total allow; read faster or raise them"
        )
        self._drop(now)
        self._eof = False  # it is not the end of what was sent
        self.error = StreamReset(text, RESOURCE_LIMIT)
        self._wake()

    def _wake(self) -> None:
        self._emit(StreamReadable(self.id))
        self._emit(StreamWritable(self.id))
        self._emit(StreamDrained(self.id))

    def _drop(self, now: float) -> None:
        """Forget unread bytes."""
        self._chunks.clear()
        if self.unread:
            size, self.unread = self.unread, 0
            self.connection.on_read(self._stream, size, now)


def shed(streams: Iterable[AppStream], limit: int, now: float) -> list[AppStream]:
    """Reset streams until an eighth of ``limit`` is free again: those with most unread bytes.

    Whose connection holds most comes first, so that a peer that fills us pays for it itself. An
    eighth, so that the search does not happen for each frame that arrives.
    """
    by_connection: dict[int, list[AppStream]] = {}
    for stream in streams:
        by_connection.setdefault(stream.connection.id, []).append(stream)
    queue = []
    total = 0
    for conn, found in by_connection.items():
        found.sort(key=_unread)
        held = sum(map(_unread, found))
        total += held
        queue.append((-held, conn))
    heapify(queue)
    victims: list[AppStream] = []
    while total > limit - limit // 8:
        held, conn = heappop(queue)
        stream = by_connection[conn].pop()
        victims.append(stream)
        total -= stream.unread
        heappush(queue, (held + stream.unread, conn))
        stream.overflow(now)
    return victims


def _ignore(event: Event) -> None:
    """Nobody holds the stream any more."""


def require_bytes(data: object) -> None:
    """Refuse text and numbers with a sentence instead of a riddle."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise LocalError(f"a stream carries bytes, not {type(data).__name__}")
