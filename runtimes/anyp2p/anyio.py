"""anyio: for programs that run on either of its backends, asyncio and trio.

    from anyp2p.anyio import Host

    async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
        print(await host.ping("/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."))

The tasks live in a second task group inside the first one. Closing the host cancels that one alone:
the body of the ``async with`` block goes on.
"""

import math
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from anyp2p_core.errors import LocalError
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

from .extras import require
from .socket_host import SocketHost
from .sockets import AddressInfo
from .stream import Event
from .stream import Stream as BaseStream

require("anyio", "anyio")

import anyio  # noqa: E402
import anyio.abc  # noqa: E402

__all__ = ["Host", "Stream", "StreamAttribute"]


class StreamAttribute(anyio.TypedAttributeSet):
    """What ``stream.extra`` knows. Addresses are missing where the transport has none."""

    peer_id: PeerId = anyio.typed_attribute()
    protocol: str = anyio.typed_attribute()
    local_address: Multiaddr = anyio.typed_attribute()
    remote_address: Multiaddr = anyio.typed_attribute()


class Stream(BaseStream, anyio.abc.ByteStream):
    """A stream with anyio's own interface beside ``read`` and ``write``."""

    __slots__ = ("_attributes",)

    def __init__(
        self, host: "Host", stream: int, peer: PeerId, protocol: str, inbound: bool
    ) -> None:
        super().__init__(host, stream, peer, protocol, inbound)
        connection = host.node.stream(stream).connection
        values = {
            StreamAttribute.peer_id: peer,
            StreamAttribute.protocol: protocol,
            StreamAttribute.local_address: connection.local,
            StreamAttribute.remote_address: connection.remote,
        }
        self._attributes = {key: value for key, value in values.items() if value is not None}

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {key: lambda value=value: value for key, value in self._attributes.items()}

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Up to ``max_bytes`` bytes. Raises ``anyio.EndOfStream`` at the end."""
        with self._anyio_errors(self.readable, "receiving from"):
            await anyio.lowlevel.checkpoint()
            data = await self.read(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Send all of ``item``; if cancelled, a prefix of it."""
        with self._anyio_errors(self.writable, "sending to"):
            await anyio.lowlevel.checkpoint()
            await self.write(item)

    async def send_eof(self) -> None:
        """Close our direction."""
        with self._anyio_errors(self.writable, "sending to"):
            await anyio.lowlevel.checkpoint()
            await self.close_write()

    async def aclose(self) -> None:
        """Close both directions; a peer that goes on sending is told with a reset."""
        self.abandon(graceful=True, discard=False)
        await anyio.lowlevel.checkpoint()

    @contextmanager
    def _anyio_errors(self, busy: Event | None, doing: str) -> Iterator[None]:
        if busy is not None:
            raise anyio.BusyResourceError(doing)
        if self.closed:
            raise anyio.ClosedResourceError
        try:
            yield
        except LocalError:
            raise anyio.ClosedResourceError from None
        except ConnectionError as error:
            raise anyio.BrokenResourceError(str(error)) from error


class Host(SocketHost[Stream]):
    """A peer on anyio. Use it with ``async with``."""

    _outer: anyio.abc.TaskGroup | None = None
    _tasks: anyio.abc.TaskGroup | None = None

    def now(self) -> float:
        return anyio.current_time()

    def make_event(self) -> Event:
        return anyio.Event()

    async def __aenter__(self) -> Self:
        self._outer = await anyio.create_task_group().__aenter__()
        try:
            return await super().__aenter__()
        except BaseException:
            await self._outer.__aexit__(None, None, None)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._outer is not None
        try:
            await super().__aexit__(kind, error, traceback)
        finally:
            # Not told of the body's error, which would come out wrapped in a group.
            await self._outer.__aexit__(None, None, None)

    async def _start(self) -> None:
        if self._outer is None:
            raise LocalError("on anyio a host is used with `async with Host() as host`")
        self._prepare()
        self._due = math.inf
        self._timer = anyio.CancelScope()
        self._wanted = anyio.Event()
        self._ended = anyio.Event()
        await self._outer.start(self._run)

    async def _stop(self) -> None:
        if self._tasks is not None:
            self._abort_all()
            self._tasks.cancel_scope.cancel()
            await self._ended.wait()

    async def _run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._keep_time)
                self._tasks.start_soon(self._flush_when_asked)
                task_status.started()
        finally:
            self._close_all_sockets()
            self._ended.set()

    def _flush_soon(self) -> None:
        self._wanted.set()

    async def _flush_when_asked(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            self.flush()

    def _set_timer(self, when: float) -> None:
        self._due = when
        self._timer.cancel()

    async def _keep_time(self) -> None:
        while True:
            with self._timer:
                if self._due == math.inf:  # which not every loop takes for a time
                    await anyio.sleep_forever()
                await anyio.sleep_until(self._due)
                self._due = math.inf
                self.on_timer()
            self._timer = anyio.CancelScope()

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(function, *args)

    def _wait_readable(self, sock: socket.socket) -> Awaitable[None]:
        return anyio.wait_readable(sock)

    def _wait_writable(self, sock: socket.socket) -> Awaitable[None]:
        return anyio.wait_writable(sock)

    async def _look_up(self, host: str, port: int, family: int) -> Sequence[AddressInfo]:
        return await anyio.getaddrinfo(
            host, port, family=socket.AddressFamily(family), type=socket.SOCK_STREAM
        )

    def _make_stream(self, stream: int, peer: PeerId, protocol: str, inbound: bool) -> Stream:
        return Stream(self, stream, peer, protocol, inbound)
