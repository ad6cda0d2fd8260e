"""The shared API on greenlets: its coroutines never suspend, because their waits block.

One ``send`` runs each of them to its end, see ``finish``.
"""

import socket
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any, TypeVar, cast

from anyp2p_core.peer_id import PeerId

from .extras import require
from .socket_host import SocketHost
from .sockets import AddressInfo
from .stream import LATE, Event, Stream

require("gevent", "gevent")

import gevent  # noqa: E402
import gevent.event  # noqa: E402
import gevent.monkey  # noqa: E402
import gevent.socket  # noqa: E402

T = TypeVar("T")


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose waits block instead of suspending."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine suspended: its waits do not block")


class BlockingEvent:
    """An event whose ``wait`` blocks the greenlet."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = gevent.event.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        self._event.wait()


class Loop(SocketHost[Stream]):
    """A host with the shared, awaitable API; ``anyp2p.gevent.Host`` is its blocking face."""

    # After monkey.patch_all the usual one numbers greenlets.
    _thread_id = staticmethod(gevent.monkey.get_original("_thread", "get_ident"))

    def now(self) -> float:
        return monotonic()

    def make_event(self) -> Event:
        return BlockingEvent()

    async def _start(self) -> None:
        self._prepare()
        self._hub = gevent.get_hub()
        self._timer: Any = None
        self._parked: Any = None
        self._greenlets: dict[Any, None] = {}
        self._spawn(self._flush_when_asked)

    async def _stop(self) -> None:
        self._abort_all()
        if self._timer is not None:
            self._timer.close()
        current = gevent.getcurrent()
        greenlets = [greenlet for greenlet in self._greenlets if greenlet is not current]
        try:
            gevent.killall(greenlets)
        finally:
            self._close_all_sockets()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.close()
        self._timer = self._hub.loop.timer(max(0.0, when - monotonic()))
        self._timer.start(gevent.spawn, self.on_timer)  # the hub itself must never block

    def _flush_soon(self) -> None:
        if self._parked is not None:
            self._hub.loop.run_callback(self._parked.switch)
            self._parked = None

    async def _flush_when_asked(self) -> None:
        while True:
            self._parked = gevent.getcurrent()
            self._hub.switch()
            self.flush()

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        greenlet = gevent.Greenlet(lambda: finish(function(*args)))
        self._greenlets[greenlet] = None
        greenlet.rawlink(self._greenlets.pop)
        greenlet.start()

    async def _within(self, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
        with gevent.Timeout(seconds, cast(Any, False)):  # false: silent
            return await function(*args)
        return LATE

    async def _wait_readable(self, sock: socket.socket) -> None:
        gevent.socket.wait_read(sock.fileno())

    async def _wait_writable(self, sock: socket.socket) -> None:
        gevent.socket.wait_write(sock.fileno())

    async def _look_up(self, host: str, port: int, family: int) -> Sequence[AddressInfo]:
        found: Sequence[AddressInfo]
        found = gevent.socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        return found

    def _make_stream(self, stream: int, peer: PeerId, protocol: str, inbound: bool) -> Stream:
        return Stream(self, stream, peer, protocol, inbound)
