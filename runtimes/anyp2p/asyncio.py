"""asyncio: callbacks of the loop's selector, no task per connection. Also runs under uvloop.

from anyp2p.asyncio import Host

async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
    print(await host.ping("/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."))

Sockets are watched with ``add_reader``, cheaper than transports. Windows: use a SelectorEventLoop.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from time import monotonic
from typing import Any

from anyp2p_core.peer_id import PeerId

from .link import Link
from .socket_host import SocketHost
from .sockets import BLOCKED, AddressInfo, connect_error, socket_error
from .stream import LATE, Event, Stream
from .udp import UdpDoor

__all__ = ["Host", "Stream"]


class Host(SocketHost[Stream]):
    """A peer on asyncio."""

    def now(self) -> float:
        return monotonic()  # uvloop's own time counts in milliseconds

    def make_event(self) -> Event:
        return _Event(self._loop)

    async def _start(self) -> None:
        self._prepare()
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False
        # uvloop's habit: a socket that has an error is not watched any more, data left or not.
        self._forgets = not isinstance(self._loop, asyncio.BaseEventLoop)

    async def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._abort_all()
        for door in self._doors.values():
            self._loop.remove_reader(door.sock)
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for conn, link in list(self._links.items()):
                self._gone(conn, link)
            for link in self._sockets:  # that were draining
                self._loop.remove_writer(link.fd)
            self._close_all_sockets()

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
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def _within(self, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                return await function(*args)
        except TimeoutError:
            if not scope.expired():
                raise
        return LATE

    # Reading and writing by callbacks, where ``SocketHost`` has tasks.

    def accepted(self, sock: socket.socket) -> None:
        self._watch(self._link_opened(None, self.new_link(sock)))
        self.flush()

    async def _serve_link(self, conn: int | None, link: Link) -> None:
        self._watch(self._link_opened(conn, link))
        self.flush()

    def _watch(self, conn: int) -> None:
        link = self._links[conn]
        self._loop.add_reader(link.fd, self._readable, conn, link)

    def _readable(self, conn: int, link: Link) -> None:
        while not link.aborted:
            try:
                size = link.sock.recv_into(self._buffer)
            except OSError as error:
                if type(error) in BLOCKED and not link.error:
                    return
                size, link.error = 0, link.error or error
            if not size:
                break
            if self._forgets and (code := socket_error(link.sock)):
                link.error = connect_error(code)  # what has come before it is read to the end now
            self.on_data(conn, bytes(self._buffer[:size]))
            if not link.error:
                return
        if not (link.aborted or link.error):
            self.on_eof(conn)
        self._gone(conn, link)

    def _gone(self, conn: int, link: Link) -> None:
        self._loop.remove_reader(link.fd)
        link.resumed = None
        self._link_ended(conn, link)

    def _pause_reading(self, conn: int) -> None:
        link = self._links[conn]
        if not (link.paused or link.aborted):
            link.paused = True
            link.resumed = lambda: self._watch(conn)
            self._loop.remove_reader(link.fd)

    def _start_draining(self, conn: int, link: Link) -> None:
        self._loop.add_writer(link.fd, self._writable, conn, link)

    def _writable(self, conn: int, link: Link) -> None:
        self._go_on(conn, link)
        if link.pending is None:
            self._loop.remove_writer(link.fd)
            self._drained(link)

    def _watch_door(self, door: UdpDoor) -> None:
        self._loop.add_reader(door.sock, self._door_readable, door)

    def _door_readable(self, door: UdpDoor) -> None:
        door.readable()
        if door.closed:
            self._loop.remove_reader(door.sock)
            door.sock.close()

    # Waiting in tasks, for what is rare.

    def _wait_readable(self, sock: socket.socket) -> Awaitable[None]:
        return self._wait(sock.fileno(), self._loop.add_reader, self._loop.remove_reader)

    def _wait_writable(self, sock: socket.socket) -> Awaitable[None]:
        return self._wait(sock.fileno(), self._loop.add_writer, self._loop.remove_writer)

    async def _wait(self, fd: int, add: Callable[..., Any], remove: Callable[..., Any]) -> None:
        ready = self.make_event()
        add(fd, ready.set)
        try:
            await ready.wait()
        finally:
            remove(fd)

    async def _look_up(self, host: str, port: int, family: int) -> Sequence[AddressInfo]:
        return await self._loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)

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
