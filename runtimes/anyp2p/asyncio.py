"""asyncio: one protocol object per connection, no task per connection. Also runs under uvloop.

from anyp2p.asyncio import Host

async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
    print(await host.ping("/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."))
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any

from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId
from anyp2p_core.route import TCP, route

from .asyncio_link import AsyncioLink
from .host import BaseHost
from .sockets import (
    ACCEPT_PAUSE,
    BUFFER,
    AddressInfo,
    bound_addresses,
    connect_error,
    connected_unix,
    dial_route,
    forget_name,
    listen_error,
    look_up,
    numeric,
    open_listeners,
)
from .stream import Event, Stream
from .udp import UdpDoor

log = logging.getLogger("anyp2p")

__all__ = ["Host", "Stream"]


class Host(BaseHost[Stream]):
    """A peer on asyncio."""

    def now(self) -> float:
        return monotonic()  # uvloop's own time counts in milliseconds

    def make_event(self) -> Event:
        return _Event(self._loop)

    async def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._links: dict[int, AsyncioLink] = {}
        self._dialing: dict[int, asyncio.Task[None]] = {}
        self._listeners: dict[socket.socket, asyncio.Task[None]] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._adopting: dict[asyncio.Task[None], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False
        # Shared by all connections of this host: data is copied out before anything else runs.
        self._buffer = memoryview(bytearray(BUFFER))

    async def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for door in self._doors.values():
            self._close_socket(door)
        for link in self._links.values():
            link.close(abort=True)
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        # uvloop forgets a transport whose maker is cancelled after the transport was made.
        made = [self._dialing[conn] for conn in self._links if conn in self._dialing]
        for task in tasks:
            if task not in self._adopting and task not in made:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        while self._links:
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
        self._start_task(function(*args))

    def _start_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    def _dial(self, conn: int, address: Multiaddr) -> None:
        self._dialing[conn] = self._start_task(self._connect(conn, address))

    async def _connect(self, conn: int, address: Multiaddr) -> None:
        try:
            found = dial_route(address)
            if found.kind == TCP:
                host, port, family = look_up(found)
                await self._loop.create_connection(
                    lambda: AsyncioLink(self, conn), host, port, family=family
                )
            else:
                await self._loop.create_unix_connection(
                    lambda: AsyncioLink(self, conn), sock=connected_unix(numeric(found)[0][4])
                )
        except Exception as error:  # whatever it is, this dial failed and nothing else
            code = getattr(error, "errno", None) or 0
            self.on_dial_failed(conn, connect_error(code) if code > 0 else error)
        finally:
            del self._dialing[conn]

    def _send(self, conn: int, data: bytes) -> None:
        self._links[conn].transport.write(data)

    def _close_transport(self, conn: int, abort: bool) -> None:
        if conn in self._links:
            self._links[conn].close(abort)
        elif conn in self._dialing:
            self._dialing[conn].cancel()

    def _pause_reading(self, conn: int) -> None:
        self._links[conn].pause(True)

    def _resume_reading(self, conn: int) -> None:
        self._links[conn].pause(False)

    async def _listen(self, address: Multiaddr) -> list[Multiaddr]:
        where = route(address)
        try:
            found: Sequence[AddressInfo] = numeric(where)
            if not found:
                found = await self._look_up(*look_up(where))
        except OSError as error:
            raise listen_error(address, error) from None
        self._check_usable()
        sockets = open_listeners(address, found)
        self._listeners |= {sock: self._start_task(self._accept(sock)) for sock in sockets}
        return bound_addresses(sockets)

    def _stop_listening(self) -> None:
        for sock, task in self._listeners.items():
            task.cancel()
            self._loop.remove_reader(sock)
            forget_name(sock)
            sock.close()

    def _watch_door(self, door: UdpDoor) -> None:
        self._loop.add_reader(door.sock, self._door_readable, door)

    def _door_readable(self, door: UdpDoor) -> None:
        door.readable()
        if door.closed:
            self._close_socket(door)

    def _close_socket(self, door: UdpDoor) -> None:
        self._loop.remove_reader(door.sock)
        door.sock.close()

    async def _look_up(self, host: str, port: int, family: int) -> Sequence[AddressInfo]:
        return await self._loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)

    async def _accept(self, listener: socket.socket) -> None:
        """A server of asyncio's own logs a hundred errors at once when no descriptor is left."""
        while True:
            try:
                sock, _ = await self._loop.sock_accept(listener)
            except OSError as error:
                log.warning("cannot accept a connection: %s; trying again", error)
                await asyncio.sleep(ACCEPT_PAUSE)
            else:
                task = self._start_task(self._adopt(sock))
                self._adopting[task] = None
                task.add_done_callback(self._adopting.pop)
                await asyncio.sleep(0)  # it returns at once as long as others are waiting

    async def _adopt(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: AsyncioLink(self, None), sock)
        except OSError:
            sock.close()  # it was gone before it was looked at

    def _make_stream(self, stream: int, peer: PeerId, protocol: str, inbound: bool) -> Stream:
        return Stream(self, stream, peer, protocol, inbound)


class _Event:
    """``asyncio.Event`` without what is not needed: it costs a third."""

    __slots__ = ("_done", "_loop", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._done = False
        self._loop = loop
        self._waiters: list[asyncio.Future[None]] = []

    def set(self) -> None:
        self._done = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait(self) -> None:
        if not self._done:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter
