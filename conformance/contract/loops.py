"""Runs a coroutine with a host, in bounded time, on the event loop with that name.

run("trio", role, seconds, options)  ->  await role(Host(**options), trio.sleep)
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

Sleep = Callable[[float], Awaitable[None]]
Role = Callable[[Any, Sleep], Coroutine[Any, Any, None]]
Options = dict[str, Any]


def run(runtime: str, role: Role, seconds: float, options: Options) -> None:
    """ImportError if the runtime is not installed; when the time is up, what the loop raises."""
    _RUN[runtime](role, seconds, options)


def _asyncio(role: Role, seconds: float, options: Options) -> None:
    asyncio.run(_on_asyncio(role, seconds, options))


def _uvloop(role: Role, seconds: float, options: Options) -> None:
    import uvloop

    uvloop.run(_on_asyncio(role, seconds, options))


async def _on_asyncio(role: Role, seconds: float, options: Options) -> None:
    from anyp2p.asyncio import Host

    async with asyncio.timeout(seconds), Host(**options) as host:
        await role(host, asyncio.sleep)


def _trio(role: Role, seconds: float, options: Options) -> None:
    import trio

    from anyp2p.trio import Host

    async def main() -> None:
        with trio.fail_after(seconds):
            async with Host(**options) as host:
                await role(host, trio.sleep)

    trio.run(main)


def _anyio(role: Role, seconds: float, options: Options) -> None:
    import anyio

    from anyp2p.anyio import Host

    async def main() -> None:
        with anyio.fail_after(seconds):
            async with Host(**options) as host:
                await role(host, anyio.sleep)

    anyio.run(main)


def _gevent(role: Role, seconds: float, options: Options) -> None:
    import gevent

    from anyp2p.gevent import Host

    async def sleep(delay: float) -> None:
        gevent.sleep(delay)

    with gevent.Timeout(seconds, TimeoutError("the time is up")), Host(**options) as host:
        try:
            role(_Awaitable(host), sleep).send(None)
        except StopIteration:
            return
        raise RuntimeError("a coroutine suspended")


class _Awaitable:
    """A host whose calls block, for a coroutine that awaits them."""

    def __init__(self, host: Any) -> None:
        self._host = host
        self.addresses = host.addresses

    async def connect(self, target: Any) -> Any:
        return self._host.connect(target)

    async def ping(self, target: Any) -> float:
        rtt: float = self._host.ping(target)
        return rtt


_RUN = {
    "asyncio": _asyncio,
    "uvloop": _uvloop,
    "trio": _trio,
    "anyio": _anyio,
    "gevent": _gevent,
}
RUNTIMES = tuple(_RUN)
