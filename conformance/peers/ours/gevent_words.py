"""The blocking calls of ``anyp2p.gevent`` under the names that the commands await.

The commands are coroutines; here nothing in them ever suspends, because what they await blocks.
So one ``send`` runs each of them to its end.
"""

import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self, TypeVar, cast

from anyp2p.gevent import Host, Stream

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
    """A stream of gevent."""

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


class AwaitableSearch:
    """A search of the DHT."""

    def __init__(self, search: Any) -> None:
        self._search = search

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._search)
        except StopIteration:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *reason: object) -> None:
        self._search.close()


class AwaitableDht:
    """``host.dht`` of gevent."""

    def __init__(self, dht: Any) -> None:
        self._dht = dht
        self.kad = dht.kad

    @property
    def table(self) -> Any:
        return self._dht.table

    @property
    def server(self) -> bool:
        return bool(self._dht.server)

    async def bootstrap(self) -> int:
        return int(self._dht.bootstrap())

    async def find_peer(self, peer: str) -> Any:
        return self._dht.find_peer(peer)

    async def closest_peers(self, key: bytes) -> Any:
        return self._dht.closest_peers(key)

    async def provide(self, content: Any) -> Any:
        return self._dht.provide(content)

    def find_providers(self, content: Any, count: int) -> AwaitableSearch:
        return AwaitableSearch(self._dht.find_providers(content, count))

    async def put(self, key: bytes, value: bytes) -> Any:
        return self._dht.put(key, value)

    async def get(self, key: bytes) -> Any:
        return self._dht.get(key)


class AwaitableSubscription:
    """A subscription of pubsub."""

    def __init__(self, subscription: Any) -> None:
        self._subscription = subscription

    @property
    def waiting(self) -> int:
        return int(self._subscription.waiting)

    @property
    def closed(self) -> bool:
        return bool(self._subscription.closed)

    async def __anext__(self) -> Any:
        return next(self._subscription)

    async def close(self) -> None:
        self._subscription.close()


class AwaitablePubSub:
    """``host.pubsub`` of gevent."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub
        self.router = pubsub.router

    def subscribe(self, topic: str, **options: int) -> AwaitableSubscription:
        return AwaitableSubscription(self._pubsub.subscribe(topic, **options))

    async def publish(self, topic: str, data: bytes) -> Any:
        return self._pubsub.publish(topic, data)

    def peers(self, topic: str) -> Any:
        return self._pubsub.peers(topic)

    def mesh(self, topic: str) -> Any:
        return self._pubsub.mesh(topic)

    def score(self, peer: Any) -> float:
        return float(self._pubsub.score(peer))


class AwaitableHost:
    """A host of gevent."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.node = host.node
        self.peer_id = host.peer_id

    @property
    def addresses(self) -> list[Any]:
        return self._host.addresses

    @property
    def peers(self) -> list[Any]:
        return self._host.peers

    @property
    def dht(self) -> AwaitableDht:
        return AwaitableDht(self._host.dht)

    @property
    def pubsub(self) -> AwaitablePubSub:
        return AwaitablePubSub(self._host.pubsub)

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
