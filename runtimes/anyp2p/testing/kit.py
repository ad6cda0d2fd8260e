"""What the checks share: hosts, waiting, and counting what is left behind."""

import logging
import operator
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from anyp2p.host import BaseHost
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

from .loops import Loop

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
ECHO = "/echo/1.0.0"


@dataclass(slots=True)
class Census:
    """What a process and its loop hold. Parts that cannot be counted here are 0."""

    tasks: int
    timers: int
    descriptors: int
    threads: int

    def more_than(self, other: "Census") -> list[str]:
        """What there is more of, in words."""
        return [
            f"{getattr(self, name) - getattr(other, name)} {name}"
            for name in self.__slots__
            if getattr(self, name) > getattr(other, name)
        ]


class Pair:
    """A host that dialed, one that listens and serves echo and perf, and who that is."""

    def __init__(self, kit: "Kit", options: dict[str, Any]) -> None:
        self._kit = kit
        self._options = options
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        kit, stack = self._kit, self._stack
        await stack.__aenter__()
        try:
            self.server = await stack.enter_async_context(kit.server(**self._options))
            self.client = await stack.enter_async_context(kit.host(**self._options))
            self.peer: PeerId = await self.client.connect(self.server.addresses[0])
        except BaseException:
            await stack.aclose()
            raise
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def serve(self, protocol: str, handler: Callable[[Any], Awaitable[None]]) -> None:
        """Set a handler at the server, and wait until the client knows of it."""
        await self.client.identify(self.peer)
        self.server.set_handler(protocol, handler)
        await self._kit.eventually(
            lambda: protocol in self.client.node.identified(self.peer).protocols,
            "the peer did not tell of its new protocol",
        )

    async def open(self, protocol: str = ECHO) -> Any:
        """A stream from the client to the server."""
        return await self.client.open_stream(self.peer, protocol)

    async def works(self) -> None:
        """Whatever happened before, these two can still talk."""
        assert await self.client.ping(self.peer) >= 0
        stream = await self.open()
        await stream.write(b"still here")
        await stream.close_write()
        assert await stream.readexactly(10) == b"still here"
        assert await stream.read() == b""
        await stream.close()


class Kit:
    """Everything that a check may use."""

    patience = 20.0
    """Seconds until something that has to happen is missed. Machines may be slow and loaded."""
    time_limit = 120.0
    """Seconds for one check."""

    def __init__(self, make_host: Callable[..., Any], loop: Loop) -> None:
        self.loop = loop
        self._make_host = make_host
        self._hosts: list[BaseHost[Any]] = []

    def host(self, **options: Any) -> Any:
        """A new host, with awaitable methods whatever the loop."""
        host = self.loop.adopt(self._make_host(**options))
        self._hosts.append(self.base(host))
        return host

    def server(self, **options: Any) -> Any:
        """A new host that listens and serves echo and perf."""
        return self.host(**{"listen": [LOOPBACK], "echo": True, "perf": True, **options})

    def pair(self, **options: Any) -> Pair:
        """Two hosts that are connected; ``options`` are for both."""
        return Pair(self, options)

    def base(self, host: Any) -> BaseHost[Any]:
        """What is under a host of ours."""
        return self.loop.base(host)

    async def eventually(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until ``condition()`` is true; fails with ``what`` when that takes too long."""
        waited = 0.0
        while not condition():
            if waited > self.patience:
                raise AssertionError(what)
            await self.loop.sleep(0.01)
            waited += 0.01

    async def settled(self, pair: Pair, value: Callable[[], Any]) -> Any:
        """The value once five round trips in a row have not changed it."""
        before, same = value(), 0
        while same < 5:
            await pair.client.ping(pair.peer)
            await self.loop.sleep(0.005)
            after = value()
            same = same + 1 if after == before else 0
            before = after
        return before

    async def fails(
        self,
        kind: type[Exception] | tuple[type[Exception], ...],
        call: Callable[[], Awaitable[Any]],
    ) -> Any:
        """The exception of ``kind`` that ``call`` has to raise."""
        try:
            result = await call()
        except kind as error:
            return error
        raise AssertionError(f"{kind} was expected, and {result!r} returned")

    @contextmanager
    def logged(self) -> Iterator[list[str]]:
        """What hosts log meanwhile, which is not shown."""
        collector = _Collector()
        log = logging.getLogger("anyp2p")
        propagate, log.propagate = log.propagate, False
        log.addHandler(collector)
        try:
            yield collector.lines
        finally:
            log.removeHandler(collector)
            log.propagate = propagate

    def census(self) -> Census:
        """What there is now."""
        return Census(self.loop.tasks(), self.loop.timers(), open_descriptors(), count_threads())

    async def no_more_than(self, before: Census) -> None:
        """Wait until nothing is left of what was made since."""
        more: list[str] = []

        def nothing_left() -> bool:
            more[:] = self.census().more_than(before)
            return not more

        try:
            await self.eventually(nothing_left, "")
        except AssertionError:
            raise AssertionError(f"left behind: {', '.join(more)}") from None

    def no_internal_errors(self) -> None:
        """No host that was made since the last call had to give something up by a fault of ours."""
        errors = sum(host.internal_errors for host in self._hosts)
        self._hosts.clear()
        assert not errors, f"{errors} internal errors were logged"

    async def nobody_waits(self, *hosts: Any) -> None:
        """No host has a waiter, an opening stream or a forgotten one."""
        for base in map(self.base, hosts):
            for left in (base._waiters, base._streams):
                await self.eventually(partial(operator.not_, left), f"{base} still has {left}")


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def full_backlog() -> Iterator[Multiaddr]:
    """An address where nobody answers at all: its queue of connections is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        queued = [socket.socket() for _ in range(4)]
        try:
            for each in queued:
                each.setblocking(False)
                each.connect_ex(listener.getsockname())
            yield Multiaddr(f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}")
        finally:
            for each in queued:
                each.close()


@contextmanager
def silent_listener() -> Iterator[Multiaddr]:
    """An address where connections are taken and nothing is ever said."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        yield Multiaddr(f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}")


def closed_port() -> Multiaddr:
    """An address where connections are refused."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Multiaddr(f"/ip4/127.0.0.1/tcp/{sock.getsockname()[1]}")


def open_descriptors() -> int:
    for directory in ("/proc/self/fd", "/dev/fd"):
        if os.path.isdir(directory):
            return len(os.listdir(directory))
    return 0


def count_threads() -> int:
    if os.path.isdir("/proc/self/task"):
        return len(os.listdir("/proc/self/task"))
    return threading.active_count()
