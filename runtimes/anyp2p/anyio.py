"""anyio: for programs that run on either of its backends, asyncio and trio.

    from anyp2p.anyio import Host

    async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
        print(await host.ping("/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."))

The tasks live in a second task group inside the first one. Closing the host cancels that one alone:
the body of the ``async with`` block goes on.
"""

import math
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self

from anyp2p_core.errors import LocalError
from anyp2p_core.peer_id import PeerId

from .extras import require
from .socket_host import SocketHost
from .sockets import AddressInfo
from .stream import LATE, Event

require("anyio", "anyio")

import anyio  # noqa: E402
import anyio.abc  # noqa: E402

from .anyio_stream import Stream, StreamAttribute  # noqa: E402

__all__ = ["Host", "Stream", "StreamAttribute"]


class Host(SocketHost[Stream]):
    """A peer on anyio. Use it with ``async with``."""

    _outer: anyio.abc.TaskGroup | None = None
    _tasks: anyio.abc.TaskGroup | None = None

    def now(self) -> float:
        return self._clock()

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
        # On asyncio both clocks are the same, but uvloop's counts in milliseconds.
        same = abs(anyio.current_time() - monotonic()) < 1.0
        self._clock = monotonic if same else anyio.current_time
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
                await anyio.sleep(max(0.0, self._due - self._clock()))
                self._due = math.inf
                self.on_timer()
            self._timer = anyio.CancelScope()

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(function, *args)

    async def _within(self, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
        with anyio.move_on_after(seconds):
            return await function(*args)
        return LATE

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
