"""Sockets for every loop that can wait until one is readable or writable.

All runtimes share this file. A task per connection reads, writing happens at once and takes a task
only while the socket is full; a loop that calls back needs neither, see ``asyncio.py``. A runtime
adds ``_wait_readable``, ``_wait_writable`` and ``_look_up`` to what ``BaseHost`` asks for.

    _dial   -> _connect -> _serve_link: on_connected, _read until the end, on_disconnected
    Acceptor -----------/
    _send   -> all taken
            -> socket full: blocked -> _drain waits and goes on -> unblocked
"""

import logging
import socket
from abc import abstractmethod
from collections.abc import Awaitable, Sequence
from typing import Any

from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.route import Route, route

from .acceptor import Acceptor
from .host import BaseHost, S
from .link import Link
from .sockets import (
    BLOCKED,
    BUFFER,
    IN_PROGRESS,
    AddressInfo,
    connect_error,
    dial_route,
    listen_error,
    look_up,
    numeric,
    open_listeners,
    socket_error,
    socket_multiaddr,
)
from .udp import UdpDoor

log = logging.getLogger("anyp2p")

TURNS = 2
"""Receives in a row from one socket before other tasks get their turn; more pile up in memory."""
MAX_RESOLVED = 8
"""Addresses of one name that are tried."""


class SocketHost(BaseHost[S]):
    """What such loops have in common."""

    @abstractmethod
    def _wait_readable(self, sock: socket.socket) -> Awaitable[None]:
        """Return when ``sock`` may have something to read, or was shut down."""

    @abstractmethod
    def _wait_writable(self, sock: socket.socket) -> Awaitable[None]:
        """Return when ``sock`` may take something, or was shut down."""

    def _prepare(self) -> None:
        """Call it from ``_start``."""
        self._links: dict[int, Link] = {}
        self._dialing: dict[int, Link | None] = {}
        self._acceptor = Acceptor(self)
        self._sockets: dict[Link, None] = {}
        # Shared by all connections of this host: data is copied out before anything else runs.
        self._buffer = memoryview(bytearray(BUFFER))

    def _abort_all(self) -> None:
        """Call it from ``_stop``, before the tasks are ended."""
        self._stop_listening()
        for link in list(self._sockets):
            link.abort()

    def _close_all_sockets(self) -> None:
        """Call it when the tasks have ended: some may have been ended before they began."""
        for link in self._sockets:
            link.sock.close()
        self._sockets.clear()
        for door in self._doors.values():
            door.sock.close()

    # What BaseHost asks for.

    def _dial(self, conn: int, address: Multiaddr) -> None:
        self.reserve(conn)
        self._spawn(self._connect, conn, address)

    def _send(self, conn: int, data: bytes) -> None:
        link = self._links[conn]
        link.send(data)
        if link.pending is not None:
            self.on_blocked(conn, True)
            if not link.draining:
                link.draining = True
                link.users += 1
                self._start_draining(conn, link)

    def _close_transport(self, conn: int, abort: bool) -> None:
        link = self._links.get(conn) or self._dialing.pop(conn, None)
        if link is not None:
            if abort:
                link.abort()
            else:
                link.finish()

    def _pause_reading(self, conn: int) -> None:
        self._links[conn].paused = True

    def _resume_reading(self, conn: int) -> None:
        self._links[conn].resume()

    async def _listen(self, address: Multiaddr) -> list[Multiaddr]:
        try:
            found = await self._resolve_address(route(address))
        except OSError as error:
            raise listen_error(address, error) from None
        self._check_usable()
        return self._acceptor.open(open_listeners(address, found))

    def _stop_listening(self) -> None:
        self._acceptor.stop()

    def _watch_door(self, door: UdpDoor) -> None:
        self._spawn(self._receive_datagrams, door)

    async def _receive_datagrams(self, door: UdpDoor) -> None:
        try:
            while not door.closed:
                await self._wait_readable(door.sock)
                door.readable()
        finally:
            door.sock.close()

    # Tasks.

    async def _connect(self, conn: int, address: Multiaddr) -> None:
        try:
            link = await self.reach(conn, await self._resolve_address(dial_route(address)))
        except Exception as error:  # whatever it is, this dial failed and nothing else
            self._dialing.pop(conn, None)
            self.on_dial_failed(conn, error)
        else:
            await self._serve_link(conn, link)

    def reserve(self, conn: int) -> None:
        """``reach`` will be called; it fails if ``_close_transport`` is called before."""
        self._dialing[conn] = None

    async def reach(self, conn: int, found: Sequence[AddressInfo]) -> Link:
        """A connected socket, to the first address of a name that answers; until then cancellable.

        Whoever gets it ends it and releases it.
        """
        errors = []
        for family, kind, proto, _, target in found[:MAX_RESOLVED]:
            if conn not in self._dialing:
                break
            link = self._dialing[conn] = self.new_link(socket.socket(family, kind, proto))
            try:
                code = link.sock.connect_ex(target)
                if code in IN_PROGRESS and family != socket.AF_UNIX:  # whose queue is full then
                    await self._wait_writable(link.sock)
                    code = socket_error(link.sock)
                if not (code or link.aborted):
                    del self._dialing[conn]
                    return link
            except BaseException:
                self.release(link)
                raise
            errors.append(connect_error(code))
            self.release(link)
        if conn not in self._dialing:
            raise OSError("the dial was cancelled")
        raise errors[0] if len(errors) == 1 else OSError("; ".join(map(str, errors)))

    def accepted(self, sock: socket.socket) -> None:
        """Somebody called."""
        self._spawn(self._serve_link, None, self.new_link(sock))

    async def _serve_link(self, conn: int | None, link: Link) -> None:
        """Read from a socket until it ends."""
        conn = self._link_opened(conn, link)
        try:
            self.flush()
            await self._read(conn, link)
        except OSError as error:
            link.error = link.error or error
        finally:
            self._link_ended(conn, link)

    def _link_opened(self, conn: int | None, link: Link) -> int:
        sock = link.sock
        local, remote = _try(sock.getsockname), _try(sock.getpeername)
        if type(local) is tuple:  # no path
            _try(sock.setsockopt, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn = self.on_connected(conn, socket_multiaddr(local), socket_multiaddr(remote))
        self._links[conn] = link
        return conn

    def _link_ended(self, conn: int, link: Link) -> None:
        del self._links[conn]
        link.end()
        self.release(link)
        self.on_disconnected(conn, link.error)

    async def _read(self, conn: int, link: Link) -> None:
        sock, buffer = link.sock, self._buffer
        while True:
            await self._wait_readable(sock)
            for _ in range(TURNS):
                if link.aborted:
                    return
                if link.paused:
                    event = self.make_event()
                    link.resumed = event.set
                    await event.wait()
                    link.resumed = None
                    continue
                try:
                    size = sock.recv_into(buffer)
                except BLOCKED:
                    break
                if not size:
                    self.on_eof(conn)
                    return
                self.on_data(conn, bytes(buffer[:size]))
                if size < BUFFER // 2:
                    break  # that was probably all: to ask costs more than to wait

    def _start_draining(self, conn: int, link: Link) -> None:
        """Send what a full socket did not take, for as long as it is full; then ``_drained``."""
        self._spawn(self._drain, conn, link)

    async def _drain(self, conn: int, link: Link) -> None:
        try:
            while link.pending is not None:
                await self._wait_writable(link.sock)
                self._go_on(conn, link)
        finally:
            self._drained(link)

    def _go_on(self, conn: int, link: Link) -> None:
        """The socket takes something again."""
        if link.pending is not None:
            link.send(link.pending)
            if link.pending is None and not link.aborted:
                if link.half_close:
                    link.finish()
                self.on_blocked(conn, False)

    def _drained(self, link: Link) -> None:
        link.draining = False
        self.release(link)

    # Inside, for Acceptor too.

    async def _resolve_address(self, found: Route) -> Sequence[AddressInfo]:
        return numeric(found) or await self._look_up(*look_up(found))

    def new_link(self, sock: socket.socket) -> Link:
        link = Link(sock)
        self._sockets[link] = None
        return link

    def release(self, link: Link) -> None:
        if link.release():
            self._sockets.pop(link, None)


def _try(function: Any, *args: Any) -> Any:
    """Its result, or None when the socket is closed already."""
    try:
        return function(*args)
    except OSError:
        return None
