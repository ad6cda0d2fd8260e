"""/echo/1.0.0: every byte comes back, then the end of the stream.

opener    bytes  ->
                 <-  the same bytes, as far as the opener reads them
          FIN    ->
                 <-  FIN
"""

from collections import deque

from .connection import Connection
from .muxer import Stream
from .service import Service

PROTOCOL = "/echo/1.0.0"

COALESCE = 4096
"""Smaller pieces than this are joined while they wait, so that tiny frames cost no object each."""


class Echoer:
    """One stream. What the peer does not read back is not credited, so its window bounds us."""

    __slots__ = ("_eof", "_pending", "_stream")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._pending: deque[bytes | bytearray] = deque()
        self._eof = False
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof
        stream.on_reset = self._on_reset
        stream.on_writable = self._on_writable

    def _on_data(self, data: bytes, now: float) -> None:
        pending = self._pending
        if not pending:
            self._write(data, now)
        elif len(data) >= COALESCE:
            pending.append(data)
        else:
            last = pending[-1]
            if type(last) is bytearray and len(last) < 4 * COALESCE:
                last += data
            else:
                pending.append(bytearray(data))

    def _on_writable(self, now: float) -> None:
        while self._pending:
            if not self._write(bytes(self._pending.popleft()), now):
                return
        if self._eof:
            self._stream.write_eof()

    def _write(self, data: bytes, now: float) -> bool:
        taken = self._stream.write(data)
        self._stream.credit(taken, now)
        if taken == len(data):
            return True
        self._pending.appendleft(data[taken:])
        return False

    def _on_eof(self, now: float) -> None:
        self._eof = True
        if not self._pending:
            self._stream.write_eof()

    def _on_reset(self, code: int, now: float) -> None:
        self._pending.clear()
        self._stream.stop_reading()  # else what is left stays charged to the connection


class Echo(Service):
    """Serves echo."""

    protocols = (PROTOCOL,)

    def on_stream(self, connection: Connection, stream: Stream, protocol: str, now: float) -> None:
        Echoer(stream)
