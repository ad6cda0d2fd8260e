"""gevent: calls that block the greenlet, and streams that look like sockets. No monkey-patching.

    from anyp2p.gevent import Host

    with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
        print(host.ping("/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."))

The coroutines of the shared API never suspend here, because their waits block: one ``send`` runs each
of them to its end.
"""

import io
import socket
from collections.abc import Callable, Coroutine, Iterator
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

from anyp2p_core.identify import IdentifyInfo
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

from .extras import require
from .host import PerfResult, Target
from .socket_host import SocketHost
from .stream import Event
from .stream import Stream as BaseStream

require("gevent", "gevent")

import gevent  # noqa: E402
import gevent.event  # noqa: E402
import gevent.socket  # noqa: E402

__all__ = ["Host", "Stream"]

T = TypeVar("T")


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Finish a coroutine whose waits block instead of suspending."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine suspended: its waits do not block")


class _Event:
    def __init__(self) -> None:
        self._event = gevent.event.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        self._event.wait()


class _Loop(SocketHost[BaseStream]):
    """The shared API on greenlets."""

    def now(self) -> float:
        return monotonic()

    def make_event(self) -> Event:
        return _Event()

    async def _start(self) -> None:
        self._prepare()
        self._hub = gevent.get_hub()
        self._timer: Any = None
        self._soon = False
        self._greenlets: dict[Any, None] = {}

    async def _stop(self) -> None:
        self._abort_all()
        if self._timer is not None:
            self._timer.close()
        current = gevent.getcurrent()
        gevent.killall([greenlet for greenlet in list(self._greenlets) if greenlet is not current])

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.close()
        self._timer = self._hub.loop.timer(max(0.0, when - monotonic()))
        self._timer.start(self.on_timer)

    def _flush_soon(self) -> None:
        if not self._soon:
            self._soon = True
            self._hub.loop.run_callback(self._flush_now)

    def _flush_now(self) -> None:
        self._soon = False
        self.flush()

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        greenlet = gevent.spawn(lambda: _run(function(*args)))
        self._greenlets[greenlet] = None
        greenlet.rawlink(lambda done: self._greenlets.pop(done, None))

    async def _wait_readable(self, sock: socket.socket) -> None:
        gevent.socket.wait_read(sock.fileno())

    async def _wait_writable(self, sock: socket.socket) -> None:
        gevent.socket.wait_write(sock.fileno())

    async def _look_up(self, host: str, port: int) -> list[Any]:
        found: list[Any] = gevent.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return found

    async def _yield(self) -> None:
        gevent.sleep(0)

    def _make_stream(self, stream: int, peer: PeerId, protocol: str, inbound: bool) -> BaseStream:
        return BaseStream(self, stream, peer, protocol, inbound)


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
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """What ``settimeout`` was given."""
        return self._timeout

    def recv(self, max_bytes: int = 65536) -> bytes:
        """Up to ``max_bytes`` bytes, b"" at the end of the stream."""
        with self._limit():
            return _run(self._stream.read(max_bytes))

    def recv_exactly(self, size: int) -> bytes:
        """Exactly ``size`` bytes. Raises ``IncompleteRead`` when the stream ends before."""
        with self._limit():
            return _run(self._stream.readexactly(size))

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; after a timeout a prefix may have been sent."""
        with self._limit():
            _run(self._stream.write(data))

    def drain(self) -> None:
        """Wait until everything sent was handed to the transport."""
        with self._limit():
            _run(self._stream.drain())

    def shutdown(self, how: int) -> None:
        """``SHUT_WR`` closes our direction, ``SHUT_RD`` is of no effect, ``SHUT_RDWR`` closes."""
        if how == socket.SHUT_WR:
            _run(self._stream.close_write())
        elif how == socket.SHUT_RDWR:
            self.close()

    def close(self) -> None:
        """Close both directions; what was sent is delivered."""
        self._stream.abandon(graceful=True)

    def reset(self, code: int = 0) -> None:
        """Abort both directions at once."""
        _run(self._stream.reset(code))

    def makefile(self, mode: str = "r", buffering: int = -1, **text: Any) -> Any:
        """A file object, as ``socket.makefile`` makes it."""
        raw = _Raw(self)
        size = io.DEFAULT_BUFFER_SIZE if buffering < 0 else buffering
        reading, writing = "r" in mode, "w" in mode
        if size == 0:
            return raw
        file: Any
        if reading and writing:
            file = io.BufferedRWPair(raw, raw, size)
        else:
            file = io.BufferedWriter(raw, size) if writing else io.BufferedReader(raw, size)
        return file if "b" in mode else io.TextIOWrapper(file, **text)

    def _limit(self) -> Any:
        return gevent.Timeout(self._timeout, TimeoutError("timed out"))

    def __iter__(self) -> Iterator[bytes]:
        while data := self.recv():
            yield data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.abandon(graceful=error is None)


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


class Host:
    """A peer on gevent: the same API as everywhere, blocking."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._loop = _Loop(*args, **options)
        self.node = self._loop.node
        self.peer_id = self._loop.peer_id

    @property
    def addresses(self) -> list[Multiaddr]:
        """Where we can be dialed, with our peer id."""
        return self._loop.addresses

    @property
    def peers(self) -> list[PeerId]:
        """Peers that are connected."""
        return self._loop.peers

    def handle(self, protocol: str) -> Callable[[Callable[[Stream], None]], Any]:
        """Decorator: run the function in a greenlet with each stream of ``protocol``."""

        def register(handler: Callable[[Stream], None]) -> Callable[[Stream], None]:
            self._loop.set_handler(protocol, lambda stream: handler(Stream(stream)))
            return handler

        return register

    def remove_handler(self, protocol: str) -> None:
        """Accept no more streams of ``protocol``."""
        self._loop.remove_handler(protocol)

    def listen(self, address: Multiaddr | str) -> list[Multiaddr]:
        """Accept connections at ``address``."""
        return _run(self._loop.listen(address))

    def connect(self, target: Target, *more: Multiaddr | str) -> PeerId:
        """Connect to a peer."""
        return _run(self._loop.connect(target, *more))

    def disconnect(self, peer: Target) -> None:
        """Close every connection to a peer."""
        _run(self._loop.disconnect(peer))

    def open_stream(self, peer: Target, *protocols: str, optimistic: bool = True) -> Stream:
        """Open a stream that speaks one of ``protocols``."""
        return Stream(_run(self._loop.open_stream(peer, *protocols, optimistic=optimistic)))

    def ping(self, peer: Target) -> float:
        """The round-trip time in seconds."""
        return _run(self._loop.ping(peer))

    def identify(self, peer: Target) -> IdentifyInfo:
        """What the peer says of itself."""
        return _run(self._loop.identify(peer))

    def perf(
        self,
        peer: Target,
        upload: int,
        download: int,
        progress: Callable[[int, int], object] | None = None,
    ) -> PerfResult:
        """Move bytes both ways and measure."""
        return _run(self._loop.perf(peer, upload, download, progress))

    def start(self) -> None:
        """Begin; ``with`` does it for you."""
        _run(self._loop.start())

    def close(self) -> None:
        """Close in order."""
        _run(self._loop.close())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
