"""asyncio: one protocol object per connection, no task per connection. Also runs under uvloop.

from anyp2p.asyncio import Host

async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
    print(await host.ping("/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."))
"""

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, cast

from anyp2p_core.errors import ListenError, LocalError
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

from .host import BaseHost
from .sockets import tcp_multiaddr, tcp_target
from .stream import Event, Stream

BUFFER = 128 * 1024 - 64
"""One receive: larger temporary buffers cost page faults."""

__all__ = ["Host", "Stream"]


class Host(BaseHost[Stream]):
    """A peer on asyncio."""

    def now(self) -> float:
        return monotonic()  # uvloop's own time counts in milliseconds

    def make_event(self) -> Event:
        return asyncio.Event()

    async def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transports: dict[int, asyncio.Transport] = {}
        self._dialing: dict[int, asyncio.Task[None]] = {}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False
        # Shared by all connections of this host: data is copied out before anything else runs.
        self.buffer = memoryview(bytearray(BUFFER))

    async def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for transport in self._transports.values():
            transport.abort()
        current = asyncio.current_task()
        tasks = [task for task in (*self._tasks, *self._dialing.values()) if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._transports:
            await asyncio.sleep(0)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, when - monotonic()), self.on_timer)

    def _flush_soon(self) -> None:
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._soon = False
        self.flush()

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        task = self._loop.create_task(function(*args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _dial(self, conn: int, address: Multiaddr) -> None:
        task = self._loop.create_task(self._connect(conn, address))
        self._dialing[conn] = task
        task.add_done_callback(lambda _: self._dialing.pop(conn, None))

    async def _connect(self, conn: int, address: Multiaddr) -> None:
        try:
            host, port = tcp_target(address)
            await self._loop.create_connection(lambda: _Link(self, conn), host, port)
        except (OSError, LocalError) as error:
            self.on_dial_failed(conn, error)

    def _send(self, conn: int, data: bytes) -> None:
        self._transports[conn].write(data)

    def _close_transport(self, conn: int, abort: bool) -> None:
        transport = self._transports.get(conn)
        if transport is None:
            task = self._dialing.get(conn)
            if task is not None:
                task.cancel()
        elif abort:
            transport.abort()
        elif not transport.is_closing():
            transport.write_eof()

    def _pause_reading(self, conn: int) -> None:
        self._transports[conn].pause_reading()

    def _resume_reading(self, conn: int) -> None:
        self._transports[conn].resume_reading()

    async def _listen(self, address: Multiaddr) -> list[Multiaddr]:
        host, port = tcp_target(address)
        try:
            server = await self._loop.create_server(lambda: _Link(self, None), host, port)
        except OSError as error:
            raise ListenError(
                error.errno, f"cannot listen on {address}: {error.strerror}"
            ) from None
        self._servers.append(server)
        found = [tcp_multiaddr(sock.getsockname()) for sock in server.sockets]
        return [bound for bound in found if bound is not None]

    def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()

    def _make_stream(self, stream: int, peer: PeerId, protocol: str, inbound: bool) -> Stream:
        return Stream(self, stream, peer, protocol, inbound)


class _Link(asyncio.BufferedProtocol):
    """One TCP connection."""

    def __init__(self, host: Host, conn: int | None) -> None:
        self._host = host
        self._conn = conn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        host = self._host
        conn = self._conn = host.on_connected(
            self._conn,
            tcp_multiaddr(transport.get_extra_info("sockname")),
            tcp_multiaddr(transport.get_extra_info("peername")),
        )
        # A cast, not an assertion: uvloop's transports do not subclass asyncio's.
        host._transports[conn] = cast(asyncio.Transport, transport)
        host.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._host.buffer

    def buffer_updated(self, nbytes: int) -> None:
        host = self._host
        assert self._conn is not None
        host.on_data(self._conn, bytes(host.buffer[:nbytes]))

    def eof_received(self) -> None:
        assert self._conn is not None
        self._host.on_eof(self._conn)

    def pause_writing(self) -> None:
        assert self._conn is not None
        self._host.on_blocked(self._conn, True)

    def resume_writing(self) -> None:
        assert self._conn is not None
        self._host.on_blocked(self._conn, False)

    def connection_lost(self, error: Exception | None) -> None:
        assert self._conn is not None
        del self._host._transports[self._conn]
        self._host.on_disconnected(self._conn, error)
