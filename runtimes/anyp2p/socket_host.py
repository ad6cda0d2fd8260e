"""Sockets for every loop that can wait until one is readable or writable.

trio, anyio and gevent share this file: a task per connection reads, writing happens at once and needs
a task only while the socket is full. A runtime adds ``_wait_readable``, ``_wait_writable`` and
``_look_up`` to what ``BaseHost`` asks for.

    _send -> all taken
          -> socket full: blocked -> _drain waits and goes on -> unblocked

Closing never pulls a socket away from the task that waits for it: ``shutdown`` wakes the task, which
then closes.
"""

import errno
import logging
import socket
from abc import abstractmethod
from typing import Any

from anyp2p_core.errors import ListenError, LocalError
from anyp2p_core.multiaddr import Multiaddr

from .host import BaseHost, S
from .sockets import tcp_multiaddr, tcp_target
from .stream import Event

log = logging.getLogger("anyp2p")

BUFFER = 128 * 1024 - 64
"""One receive: larger temporary buffers cost page faults."""
TURNS = 4
"""Receives in a row from one socket before other tasks get their turn."""
BACKLOG = 1024
ACCEPT_PAUSE = 0.5
"""Seconds to wait when the process has no file descriptor left for an accepted connection."""
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Link:
    """One socket, and what it did not take yet."""

    __slots__ = ("aborted", "error", "half_close", "paused", "pending", "resumed", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pending: memoryview | None = None
        self.half_close = False
        self.aborted = False
        self.paused = False
        self.resumed: Event | None = None
        self.error: Exception | None = None

    def shut_down(self, how: int) -> None:
        """``shutdown``, whatever state the socket is in."""
        try:
            self.sock.shutdown(how)
        except OSError:
            pass  # not connected any more: whoever waits for it learns that by itself

    def abort(self) -> None:
        """Wake whoever waits for this socket; it closes it."""
        self.aborted = True
        self.pending = None
        self.shut_down(socket.SHUT_RDWR)
        if self.resumed is not None:
            self.resumed.set()


class SocketHost(BaseHost[S]):
    """What such loops have in common."""

    @abstractmethod
    async def _wait_readable(self, sock: socket.socket) -> None:
        """Return when ``sock`` may have something to read."""

    @abstractmethod
    async def _wait_writable(self, sock: socket.socket) -> None:
        """Return when ``sock`` may take something."""

    @abstractmethod
    async def _look_up(self, host: str, port: int) -> list[Any]:
        """What ``socket.getaddrinfo`` returns for a TCP connection, without blocking the loop."""

    @abstractmethod
    async def _yield(self) -> None:
        """Let other tasks run."""

    def _prepare(self) -> None:
        """Call it from ``_start``."""
        self._links: dict[int, Link] = {}
        self._listeners: list[Link] = []
        # Shared by all connections of this host: data is copied out before anything else runs.
        self._buffer = memoryview(bytearray(BUFFER))

    def _abort_all(self) -> None:
        """Call it from ``_stop``, before the tasks are ended."""
        self._stop_listening()
        for link in list(self._links.values()):
            link.abort()

    # What BaseHost asks for.

    def _dial(self, conn: int, address: Multiaddr) -> None:
        self._spawn(self._connect, conn, address)

    def _send(self, conn: int, data: bytes) -> None:
        link = self._links[conn]
        try:
            sent = link.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            link.error = error
            link.abort()
            return
        if sent < len(data):
            link.pending = memoryview(data)[sent:]
            self.on_blocked(conn, True)
            self._spawn(self._drain, conn, link)

    def _close_transport(self, conn: int, abort: bool) -> None:
        link = self._links.get(conn)
        if link is None:
            return
        if abort:
            link.abort()
        elif not link.half_close:
            link.half_close = True
            if link.pending is None:
                link.shut_down(socket.SHUT_WR)

    def _pause_reading(self, conn: int) -> None:
        self._links[conn].paused = True

    def _resume_reading(self, conn: int) -> None:
        link = self._links[conn]
        link.paused = False
        if link.resumed is not None:
            link.resumed.set()

    async def _listen(self, address: Multiaddr) -> list[Multiaddr]:
        host, port = tcp_target(address)
        links = []
        try:
            for family, kind, proto, _, target in await self._look_up(host, port):
                sock = socket.socket(family, kind, proto)
                links.append(Link(sock))
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(target)
                sock.listen(BACKLOG)
        except OSError as error:
            for link in links:
                link.sock.close()
            reason = error.strerror or str(error)
            raise ListenError(error.errno, f"cannot listen on {address}: {reason}") from None
        self._listeners += links
        for link in links:
            self._spawn(self._accept, link)
        found = [tcp_multiaddr(link.sock.getsockname()) for link in links]
        return [bound for bound in found if bound is not None]

    def _stop_listening(self) -> None:
        for link in self._listeners:
            link.abort()
        self._listeners.clear()

    # Tasks.

    async def _accept(self, listener: Link) -> None:
        with listener.sock:
            while not listener.aborted:
                try:
                    sock, _ = listener.sock.accept()
                except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                    await self._wait_readable(listener.sock)
                except OSError as error:
                    if error.errno not in OUT_OF_RESOURCES:
                        return  # closed
                    log.warning("cannot accept a connection: %s; trying again", error)
                    await self._pause(ACCEPT_PAUSE)
                else:
                    self._spawn(self._serve_socket, None, Link(sock))

    async def _connect(self, conn: int, address: Multiaddr) -> None:
        link: Link | None = None
        try:
            host, port = tcp_target(address)
            family, kind, proto, _, target = (await self._look_up(host, port))[0]
            link = Link(socket.socket(family, kind, proto))
            self._links[conn] = link
            link.sock.setblocking(False)
            if link.sock.connect_ex(target) == errno.EINPROGRESS:
                await self._wait_writable(link.sock)
            code = link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code or link.aborted:
                raise OSError(code, _reason(code))
            link.sock.getpeername()
        except (OSError, LocalError) as error:
            self._drop(conn, link)
            self.on_dial_failed(conn, error)
        except BaseException:
            self._drop(conn, link)
            raise
        else:
            await self._serve_socket(conn, link)

    async def _serve_socket(self, conn: int | None, link: Link) -> None:
        """Read from a socket until it ends."""
        sock = link.sock
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ends = [_address(sock.getsockname), _address(sock.getpeername)]
        conn = self.on_connected(conn, *ends)
        self._links[conn] = link
        try:
            self.flush()
            await self._read(conn, link)
        except OSError as error:
            link.error = link.error or error
        finally:
            self._drop(conn, link)
            self.on_disconnected(conn, None if link.aborted and not link.error else link.error)

    async def _read(self, conn: int, link: Link) -> None:
        sock, buffer = link.sock, self._buffer
        turns = 0
        while not link.aborted:
            if link.paused:
                link.resumed = self.make_event()
                await link.resumed.wait()
                link.resumed = None
                continue
            try:
                size = sock.recv_into(buffer)
            except (BlockingIOError, InterruptedError):
                turns = 0
                await self._wait_readable(sock)
                continue
            if not size:
                self.on_eof(conn)
                return
            self.on_data(conn, bytes(buffer[:size]))
            turns += 1
            if turns == TURNS:
                turns = 0
                await self._yield()

    async def _drain(self, conn: int, link: Link) -> None:
        """Send the rest of what a full socket did not take."""
        try:
            while link.pending is not None:
                await self._wait_writable(link.sock)
                if link.pending is not None:
                    try:
                        sent = link.sock.send(link.pending)
                    except (BlockingIOError, InterruptedError):
                        continue
                    rest = link.pending[sent:]
                    link.pending = rest if rest else None
        except OSError as error:
            link.error = link.error or error
            link.abort()
            return
        if not link.aborted:
            if link.half_close:
                link.shut_down(socket.SHUT_WR)
            self.on_blocked(conn, False)

    async def _pause(self, seconds: float) -> None:
        event = self.make_event()
        self.node.call_at(self.now() + seconds, "pause", lambda now: event.set())
        self.flush()
        await event.wait()

    def _drop(self, conn: int, link: Link | None) -> None:
        if link is not None:
            link.aborted = True
            link.pending = None
            link.sock.close()
            self._links.pop(conn, None)


def _address(function: Any) -> Multiaddr | None:
    try:
        return tcp_multiaddr(function())
    except OSError:  # it was closed before it was looked at
        return None


def _reason(code: int) -> str:
    return "the dial was cancelled" if not code else f"Connect call failed: {errno.errorcode.get(code, code)}"
