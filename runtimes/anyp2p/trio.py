"""trio: everything runs inside the host's own nursery, and ends with it.

    from anyp2p.trio import Host

    async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
        print(await host.ping("/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."))

The tasks live in a second nursery inside the first one. Closing the host cancels that one alone:
the body of the ``async with`` block goes on.
"""

import math
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from anyp2p_core.errors import LocalError
from anyp2p_core.peer_id import PeerId

from .extras import require
from .socket_host import SocketHost
from .sockets import AddressInfo
from .stream import LATE, Event

require("trio", "trio")

import trio  # noqa: E402

from .trio_stream import Stream  # noqa: E402

__all__ = ["Host", "Stream"]


class Host(SocketHost[Stream]):
    """A peer on trio. Use it with ``async with``."""

    _outer: trio.Nursery | None = None
    _tasks: trio.Nursery | None = None

    def now(self) -> float:
        return trio.current_time()

    def make_event(self) -> Event:
        return trio.Event()

    async def __aenter__(self) -> Self:
        self._manager = trio.open_nursery()
        self._outer = await self._manager.__aenter__()
        try:
            return await super().__aenter__()
        except BaseException:
            await self._manager.__aexit__(None, None, None)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await super().__aexit__(kind, error, traceback)
        finally:
            # Not told of the body's error, which would come out wrapped in a group.
            await self._manager.__aexit__(None, None, None)

    async def _start(self) -> None:
        if self._outer is None:
            raise LocalError("on trio a host is used with `async with Host() as host`")
        self._prepare()
        self._due = math.inf
        self._timer = trio.CancelScope()
        self._parked: trio.lowlevel.Task | None = None
        self._ended = trio.Event()
        await self._outer.start(self._run)

    async def _stop(self) -> None:
        if self._tasks is not None:
            self._abort_all()
            self._tasks.cancel_scope.cancel()
            await self._ended.wait()

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as self._tasks:
                self._tasks.start_soon(self._keep_time)
                self._tasks.start_soon(self._flush_when_asked)
                task_status.started()
        finally:
            self._close_all_sockets()
            self._ended.set()

    def _flush_soon(self) -> None:
        if self._parked is not None:
            trio.lowlevel.reschedule(self._parked)
            self._parked = None

    async def _flush_when_asked(self) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            self._parked = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(abort)
            self.flush()

    def _set_timer(self, when: float) -> None:
        self._due = when
        self._timer.cancel()

    async def _keep_time(self) -> None:
        while True:
            with self._timer:
                await trio.sleep_until(self._due)
                self._due = math.inf
                self.on_timer()
            self._timer = trio.CancelScope()

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(function, *args)

    async def _within(self, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
        with trio.move_on_after(seconds):
            return await function(*args)
        return LATE

    def _wait_readable(self, sock: socket.socket) -> Awaitable[None]:
        return trio.lowlevel.wait_readable(sock)

    def _wait_writable(self, sock: socket.socket) -> Awaitable[None]:
        return trio.lowlevel.wait_writable(sock)

    async def _look_up(self, host: str, port: int, family: int) -> Sequence[AddressInfo]:
        return await trio.socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)

    def _make_stream(self, stream: int, peer: PeerId, protocol: str, inbound: bool) -> Stream:
        return Stream(self, stream, peer, protocol, inbound)
