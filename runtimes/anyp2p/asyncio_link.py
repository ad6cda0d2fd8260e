"""One TCP connection of a host on asyncio or uvloop, as a protocol object: no task, no queue."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from .sockets import socket_multiaddr

if TYPE_CHECKING:
    from .asyncio import Host


class AsyncioLink(asyncio.BufferedProtocol):
    """``conn`` is the number that the node gave to a dial, None for an accepted connection."""

    transport: asyncio.Transport

    def __init__(self, host: "Host", conn: int | None) -> None:
        self._host = host
        self._conn = conn
        self._paused = False
        self._greedy = False

    # What the host wants.

    def close(self, abort: bool) -> None:
        if abort:
            self.transport.abort()
        elif not self.transport.is_closing():
            with suppress(OSError):  # it broke meanwhile: connection_lost follows
                self.transport.write_eof()

    def pause(self, paused: bool) -> None:
        self._paused = paused
        if not self.transport.is_closing():  # which uvloop takes for an error
            if paused:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        host = self._host
        # A cast, not an assertion: uvloop's transports do not subclass asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self._greedy = not isinstance(transport, asyncio.Transport)
        if host.closed:  # it came while the last tasks were ended
            self.transport.abort()
            return
        conn = self._conn = host.on_connected(
            self._conn,
            socket_multiaddr(transport.get_extra_info("sockname")),
            socket_multiaddr(transport.get_extra_info("peername")),
        )
        host._links[conn] = self
        host.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._host._buffer

    def buffer_updated(self, nbytes: int) -> None:
        host = self._host
        buffer = host._buffer
        assert self._conn is not None
        host.on_data(self._conn, bytes(buffer[:nbytes]))
        if self._greedy and nbytes == len(buffer) and not self.transport.is_closing():
            # uvloop would read 32 times in a row, and what nobody takes meanwhile would pile up.
            self.transport.pause_reading()
            host._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        self.pause(self._paused)

    def eof_received(self) -> None:
        assert self._conn is not None
        self._host.on_eof(self._conn)

    def pause_writing(self) -> None:
        assert self._conn is not None
        self._host.on_blocked(self._conn, True)

    def resume_writing(self) -> None:
        assert self._conn is not None
        self._host.on_blocked(self._conn, False)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._conn is not None:
            self._host._links.pop(self._conn, None)
            self._host.on_disconnected(self._conn, exc)
