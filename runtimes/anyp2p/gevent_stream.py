"""A stream that is used like a connected socket."""

import io
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self

import gevent

from .gevent_loop import finish
from .stream import Stream as BaseStream


class Stream:
    """A byte stream to one protocol of one peer, used like a connected socket."""

    __slots__ = ("_stream", "_timeout", "inbound", "peer", "protocol")

    def __init__(self, stream: BaseStream) -> None:
        self._stream = stream
        self._timeout: float | None = None
        self.peer = stream.peer
        self.protocol = stream.protocol
        self.inbound = stream.inbound

    def settimeout(self, seconds: float | None) -> None:
        """From now on calls that wait longer raise ``TimeoutError``; None: wait for ever."""
        if seconds is not None and seconds <= 0:
            raise ValueError("a timeout is more than 0 s, or None; there is no non-blocking mode")
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """What ``settimeout`` was given."""
        return self._timeout

    def recv(self, max_bytes: int = 65536) -> bytes:
        """Up to ``max_bytes`` bytes, b"" at the end of the stream."""
        with self._limit():
            return finish(self._stream.read(max_bytes))

    def recv_exactly(self, size: int) -> bytes:
        """Exactly ``size`` bytes. Raises ``IncompleteRead`` when the stream ends before."""
        with self._limit():
            return finish(self._stream.readexactly(size))

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; after a timeout a prefix may have been sent."""
        with self._limit():
            finish(self._stream.write(data))

    def drain(self) -> None:
        """Wait until everything sent was handed to the transport."""
        with self._limit():
            finish(self._stream.drain())

    def shutdown(self, how: int) -> None:
        """``SHUT_WR`` closes our direction, ``SHUT_RDWR`` both; ``SHUT_RD`` has no effect."""
        if how == socket.SHUT_WR:
            finish(self._stream.close_write())
        elif how == socket.SHUT_RDWR:
            self.close()

    def close(self) -> None:
        """Close both directions; what was sent is delivered. Harmless when repeated."""
        finish(self._stream.close())

    def reset(self, code: int = 0) -> None:
        """Abort both directions at once."""
        finish(self._stream.reset(code))

    def makefile(self, mode: str = "r", buffering: int = -1, **text: Any) -> Any:
        """A file object, as ``socket.makefile`` makes it. Closing it leaves the stream open."""
        raw = _Raw(self)
        size = io.DEFAULT_BUFFER_SIZE if buffering < 0 else buffering
        reading, writing = "r" in mode, "w" in mode
        if size == 0:
            if "b" not in mode:
                raise ValueError("unbuffered streams must be binary")
            return raw
        file: Any
        if reading and writing:
            file = io.BufferedRWPair(raw, raw, size)
        else:
            file = io.BufferedWriter(raw, size) if writing else io.BufferedReader(raw, size)
        return file if "b" in mode else io.TextIOWrapper(file, **text)

    def _limit(self) -> AbstractContextManager[Any]:
        if self._timeout is None:
            return _NO_LIMIT
        limit: AbstractContextManager[Any] = gevent.Timeout(
            self._timeout, TimeoutError(f"timed out after {self._timeout:g} s")
        )
        return limit

    def __iter__(self) -> Iterator[bytes]:
        while data := self.recv():
            yield data

    def __repr__(self) -> str:
        return repr(self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.abandon(graceful=error is None)


_NO_LIMIT = nullcontext()


class _Raw(io.RawIOBase):
    """What file objects read from and write to."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        self._stream.sendall(bytes(data))
        return len(data)
