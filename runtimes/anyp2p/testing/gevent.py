"""gevent under the checks: a blocking host under the names and the awaits of the others.

Nothing here ever suspends, so that one ``send`` runs all the checks:

    from anyp2p.gevent_loop import finish
    finish(check_runtime(Host, GeventLoop()))
"""

import gc
import socket
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

import gevent
import greenlet  # type: ignore[import-untyped]

from anyp2p.gevent_loop import finish
from anyp2p.host import BaseHost

from .loops import Function, Loop

T = TypeVar("T")


class AwaitableStream:
    """A stream of ``anyp2p.gevent`` as the checks know streams."""

    def __init__(self, stream: Any) -> None:
        self.blocking = stream
        self.peer = stream.peer
        self.protocol = stream.protocol
        self.inbound = stream.inbound

    async def read(self, max_bytes: int = 65536) -> bytes:
        data: bytes = self.blocking.recv(max_bytes)
        return data

    async def readexactly(self, size: int) -> bytes:
        data: bytes = self.blocking.recv_exactly(size)
        return data

    async def write(self, data: Any) -> None:
        self.blocking.sendall(data)

    async def drain(self) -> None:
        self.blocking.drain()

    async def close_write(self) -> None:
        self.blocking.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        self.blocking.close()

    async def reset(self, code: int = 0) -> None:
        self.blocking.reset(code)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for data in self.blocking:
            yield data

    async def __aenter__(self) -> Self:
        self.blocking.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.blocking.__exit__(kind, error, traceback)


class AwaitableHost:
    """A host of ``anyp2p.gevent`` as the checks know hosts."""

    def __init__(self, host: Any) -> None:
        self.blocking = host

    def set_handler(self, protocol: str, handler: Any) -> None:
        def serve(stream: Any) -> None:
            finish(handler(AwaitableStream(stream)))

        self.blocking.set_handler(protocol, serve)

    async def open_stream(self, *args: Any, **options: Any) -> AwaitableStream:
        return AwaitableStream(self.blocking.open_stream(*args, **options))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.blocking, name)
        if name in ("node", "peer_id", "peers", "addresses", "handle", "remove_handler"):
            return found

        async def call(*args: Any, **options: Any) -> Any:
            return found(*args, **options)

        return call

    async def __aenter__(self) -> Self:
        self.blocking.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.blocking.__exit__(kind, error, traceback)


class GeventLoop(Loop):
    """gevent."""

    def adopt(self, host: Any) -> Any:
        return AwaitableHost(host)

    def base(self, host: Any) -> BaseHost[Any]:
        found: BaseHost[Any] = host.blocking._loop
        return found

    async def sleep(self, seconds: float) -> None:
        gevent.sleep(seconds)

    async def together(self, *functions: Function[T]) -> list[T]:
        calls = [_Call(function) for function in functions]
        greenlets = [gevent.spawn(call) for call in calls]
        try:
            for _ in gevent.iwait(greenlets):
                if any(call.error is not None for call in calls):
                    break
        finally:
            gevent.killall(greenlets)
        return [call.result() for call in calls]

    async def within(self, seconds: float, function: Function[T]) -> T:
        with gevent.Timeout(seconds, TimeoutError()):
            return await function()

    async def cancel_at(self, checkpoint: int, function: Function[Any], *, late: bool) -> bool:
        call = _Call(function)
        victim = gevent.Greenlet(call)
        hub = gevent.get_hub()
        left = checkpoint

        def on_switch(what: str, greenlets: tuple[Any, Any]) -> None:
            nonlocal left
            if greenlets == (victim, hub) and not victim.dead:
                left -= 1
                if not left:
                    victim.kill(block=False)

        greenlet.settrace(on_switch)
        try:
            victim.start()
            victim.join()
        finally:
            greenlet.settrace(None)
        call.result()
        return left <= 0

    def tasks(self) -> int:
        living = (each for each in gc.get_objects() if isinstance(each, gevent.Greenlet))
        return sum(not each.dead for each in living)

    def timers(self) -> int:
        active: int = gevent.get_hub().loop.activecnt
        return active


class _Call(Generic[T]):
    """Keeps what a function raises: gevent would print it as well."""

    def __init__(self, function: Function[T]) -> None:
        self.error: Exception | None = None
        self._function = function
        self._value: T | None = None

    def __call__(self) -> None:
        try:
            self._value = finish(cast(Coroutine[Any, Any, T], self._function()))
        except Exception as error:
            self.error = error

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return cast(T, self._value)
