"""Every runtime under one name: how to make a host of it, and how to run a coroutine on it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from anyp2p.testing import AnyioLoop, AsyncioLoop, Kit, Loop, TrioLoop
from anyp2p.testing.loops import only

T = TypeVar("T")
Main = Callable[[Kit], Awaitable[T]]


@dataclass
class Runtime:
    name: str
    run: Callable[[Main[Any]], Any]
    """Run a function with a kit of this runtime to its end."""


def _asyncio(main: Main[T]) -> T:
    import asyncio

    from anyp2p.asyncio import Host

    async def call() -> T:
        return await main(Kit(Host, AsyncioLoop()))

    with asyncio.Runner() as runner:
        return runner.run(call())


def _uvloop(main: Main[T]) -> T:
    import asyncio

    import uvloop

    from anyp2p.asyncio import Host

    async def call() -> T:
        return await main(Kit(Host, AsyncioLoop()))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(call())


def _trio(main: Main[T]) -> T:
    import trio

    from anyp2p.trio import Host

    return _bare(lambda: trio.run(main, Kit(Host, TrioLoop())))  # type: ignore[arg-type]


def _anyio(backend: str, main: Main[T]) -> T:
    import anyio

    from anyp2p.anyio import Host

    return _bare(lambda: anyio.run(main, Kit(Host, AnyioLoop()), backend=backend))


def _gevent(main: Main[T]) -> T:
    from anyp2p.gevent import Host
    from anyp2p.gevent_loop import finish
    from anyp2p.testing.gevent import GeventLoop

    return finish(main(Kit(Host, GeventLoop())))  # type: ignore[arg-type]


def _selectors(main: Main[T]) -> T:
    from selectors_checks import SelectorsLoop
    from selectors_loop import Loop
    from selectors_runtime import Host

    loop = Loop()
    loop.start()
    try:
        return loop.finish(lambda: main(Kit(partial(Host, loop), SelectorsLoop(loop))))  # type: ignore[arg-type,return-value]
    finally:
        loop.stop()


def _bare(run: Callable[[], T]) -> T:
    """Without the groups that nurseries make."""
    try:
        return run()
    except BaseExceptionGroup as group:
        raise only(group) from None


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("asyncio", _asyncio),
        Runtime("uvloop", _uvloop),
        Runtime("trio", _trio),
        Runtime("anyio-asyncio", partial(_anyio, "asyncio")),
        Runtime("anyio-trio", partial(_anyio, "trio")),
        Runtime("gevent", _gevent),
        Runtime("selectors", _selectors),
    )
}

__all__ = ["RUNTIMES", "Kit", "Loop", "Runtime"]
