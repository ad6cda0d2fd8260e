"""Our peer on gevent.

The commands are coroutines; here nothing in them ever suspends, because what they await is made of
the blocking calls of ``anyp2p.gevent``. So one ``send`` runs each of them to its end.
"""

import argparse
import json
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, cast

import gevent
import gevent.os
from commands import AGENT, LIMITS, Commands, emit, make_key, ready, serve

from anyp2p.gevent import Host, Stream
from anyp2p.host import BaseHost

T = TypeVar("T")


def finish(awaitable: Awaitable[T]) -> T:
    """Run a coroutine that does not suspend."""
    coroutine = cast(Coroutine[Any, Any, T], awaitable)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast(T, stop.value)
    raise RuntimeError("a coroutine suspended")


class AwaitableStream:
    """A stream of gevent under the names that the commands use."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.peer = stream.peer
        self.protocol = stream.protocol

    async def read(self, size: int) -> bytes:
        return self._stream.recv(size)

    async def readexactly(self, size: int) -> bytes:
        return self._stream.recv_exactly(size)

    async def write(self, data: bytes) -> None:
        self._stream.sendall(data)

    async def close_write(self) -> None:
        self._stream.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        self._stream.close()

    async def reset(self, code: int = 0) -> None:
        self._stream.reset(code)


class AwaitableHost:
    """A host of gevent under the names that the commands use."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.peer_id = host.peer_id

    @property
    def addresses(self) -> list[Any]:
        return self._host.addresses

    @property
    def peers(self) -> list[Any]:
        return self._host.peers

    def handle(self, protocol: str) -> Callable[[Callable[[Any], Awaitable[None]]], object]:
        def register(handler: Callable[[Any], Awaitable[None]]) -> object:
            def blocking(stream: Stream) -> None:
                finish(handler(AwaitableStream(stream)))

            return self._host.handle(protocol)(blocking)

        return register

    async def connect(self, address: str) -> Any:
        return self._host.connect(address)

    async def disconnect(self, peer: Any) -> None:
        self._host.disconnect(peer)

    async def open_stream(self, peer: Any, *protocols: str, **options: bool) -> AwaitableStream:
        return AwaitableStream(self._host.open_stream(peer, *protocols, **options))

    async def ping(self, peer: str) -> float:
        return self._host.ping(peer)

    async def identify(self, peer: str) -> Any:
        return self._host.identify(peer)

    async def perf(self, peer: str, upload: int, download: int) -> Any:
        return self._host.perf(peer, upload, download)


class GeventTools:
    """``commands.Tools`` in gevent's words."""

    async def together(self, *functions: Callable[[], Awaitable[T]]) -> list[T]:
        greenlets: list[Any] = [
            gevent.spawn(lambda f=function: finish(f())) for function in functions
        ]
        try:
            gevent.joinall(greenlets, raise_error=True)
        finally:
            gevent.killall(greenlets)
        return [greenlet.value for greenlet in greenlets]

    async def within(self, seconds: float, function: Callable[[], Awaitable[T]]) -> T:
        with gevent.Timeout(seconds, TimeoutError(f"not done in {seconds:.0f} s")):
            return await function()

    async def sleep(self, seconds: float) -> None:
        gevent.sleep(seconds)


def main(options: argparse.Namespace) -> None:
    key = make_key(options.key)
    with Host(
        key, listen=options.listen, agent=AGENT, limits=LIMITS, echo=True, perf=True
    ) as blocking:
        host = cast(BaseHost[Any], AwaitableHost(blocking))
        serve(host)
        emit(ready(host))
        commands = Commands(host, GeventTools())
        buffer = b""
        while data := gevent.os.tp_read(0, 1 << 16):
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if request["cmd"] == "stop":
                    emit({"id": request["id"], "ok": True})
                    os._exit(0)
                gevent.spawn(lambda r=request: finish(commands.run(r)))
        # "At once": what peers and running commands still expect does not matter.
        os._exit(0)
