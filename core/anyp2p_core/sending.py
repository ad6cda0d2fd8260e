"""The sending half of a multiplexed stream: what was written and waits for its turn.

    write --> chunks --(the outbox gives a turn)--> _take, _take_all --> frames
                '-- full: fewer bytes taken, on_writable when half is free again

A muxer's stream makes frames out of what it takes.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from .errors import LocalError

if TYPE_CHECKING:
    from .limits import Limits

_MAX_LOOSE = 256
"""Writes that may lie side by side before they are joined: an object costs more than a byte."""


class Turns(Protocol):
    """What gives streams their turns to send."""

    def wake(self, stream: Any) -> None: ...
    def remove(self, stream: Any) -> None: ...


def ignore(now: float) -> None:
    """The callback of a stream that nobody listens to."""


class SendingHalf:
    """``unsent`` bytes wait. ``send_window`` is how many more the peer takes.

    A muxer without flow control leaves it as it is: not 0. The values to begin with are set by
    ``MuxedStream``, for both halves in one call.
    """

    __slots__ = (
        "on_writable", "on_drained", "eof_sent", "is_reset", "unsent", "send_window",
        "_chunks", "_fin_queued", "_limits", "_loose", "_offset", "_outbox", "_queued",
        "_want_write",
    )  # fmt: skip

    on_writable: Callable[[float], object]
    on_drained: Callable[[float], object] | None
    eof_sent: bool  # write_eof was called; the end follows what is unsent
    is_reset: bool
    unsent: int  # written, not yet framed
    send_window: int
    _chunks: deque[bytes]
    _fin_queued: bool
    _limits: "Limits"
    _loose: int
    _offset: int  # how much of the first chunk has been sent
    _outbox: Turns
    _queued: bool  # in the outbox
    _want_write: bool

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Queue data and return how many bytes were taken.

        Fewer than all of it: the buffer (``Limits.max_unsent``) is full, wait for ``on_writable``.
        ``bytes`` are not copied. Raises LocalError after ``write_eof`` or a reset.
        """
        if self.eof_sent or self.is_reset:
            raise LocalError("the stream is closed for writing")
        size = len(data)
        room = self._limits.max_unsent - self.unsent
        if size > room or type(data) is not bytes:
            data = self._fit(data, room)
            size = len(data)
        if size:
            self._chunks.append(data)
            self.unsent += size
            self._loose += 1
            if self._loose == _MAX_LOOSE:
                self._join_loose()
            if not self._queued and self.send_window:
                self._outbox.wake(self)
        return size

    def writable(self) -> bool:
        """Whether ``write`` would take something; if not, ``on_writable`` follows.

        Raises LocalError as ``write`` does.
        """
        if self.eof_sent or self.is_reset:
            raise LocalError("the stream is closed for writing")
        if self.unsent < self._limits.max_unsent:
            return True
        self._want_write = True
        return False

    def write_eof(self) -> None:
        """Close our direction once everything written is sent. Again, or after a reset: no-op."""
        if not (self.eof_sent or self.is_reset):
            self.eof_sent = self._fin_queued = True
            self._want_write = False
            if not (self._queued or self.unsent):
                self._outbox.wake(self)

    # Inside, for the stream's muxer too.

    def _notify(self, now: float) -> None:
        """Something was sent: tell the application if it waits for that."""
        if self._want_write and self.unsent * 2 < self._limits.max_unsent:
            self._want_write = False
            self.on_writable(now)
        on_drained = self.on_drained
        if on_drained is not None and not self.unsent:
            self.on_drained = None
            on_drained(now)

    def _drop_unsent(self) -> None:
        """The stream was reset: nothing more is sent, and nobody is told about it."""
        self.on_drained = None
        self._chunks.clear()
        self.unsent = 0
        self._want_write = False

    def _take_all(self, out: list[bytes]) -> None:
        """Move all chunks to ``out``. The caller counts."""
        chunks = self._chunks
        if self._offset:
            out.append(cast("bytes", memoryview(chunks.popleft())[self._offset :]))
            self._offset = 0
        out += chunks
        chunks.clear()
        self._loose = 0

    def _take(self, size: int, out: list[bytes]) -> None:
        """Move ``size`` bytes, fewer than all, to ``out``. Large chunks go as views."""
        chunks = self._chunks
        offset = self._offset
        while size:
            chunk = chunks[0]
            left = len(chunk) - offset
            if left > size:
                out.append(cast("bytes", memoryview(chunk)[offset : offset + size]))
                offset += size
                break
            out.append(cast("bytes", memoryview(chunk)[offset:]) if offset else chunk)
            chunks.popleft()
            offset = 0
            size -= left
        self._offset = offset

    def _fit(self, data: bytes | bytearray | memoryview, room: int) -> bytes:
        """Return as much of ``data`` as there is room for, as something that cannot change."""
        view = memoryview(data).cast("B")
        if len(view) > room:
            self._want_write = True
            view = view[: max(room, 0)]
        return cast("bytes", view) if type(view.obj) is bytes else bytes(view)

    def _join_loose(self) -> None:
        """Join the writes that came since the last time, as far as they are not sent."""
        chunks = self._chunks
        # The first may be among them: what was sent of it is then the start of the join, too.
        tail = [chunks.pop() for _ in range(min(self._loose, len(chunks)))]
        tail.reverse()
        chunks.append(b"".join(tail))
        self._loose = 0
