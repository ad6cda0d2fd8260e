"""gevent: calls that block the greenlet, and streams that look like sockets. No monkey-patching.

from anyp2p.gevent import Host

with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
    print(host.ping("/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."))
"""

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from anyp2p_core.identify import IdentifyInfo
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

from .gevent_loop import Loop, finish
from .gevent_stream import Stream
from .host import PerfResult, Target

if TYPE_CHECKING:
    from .gevent_dht import Dht
    from .gevent_pubsub import PubSub

__all__ = ["Host", "Stream"]

Handler = Callable[[Stream], object]


class Host:
    """A peer on gevent: the same API as everywhere, blocking."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """See ``anyp2p.host.BaseHost``."""
        self._loop = Loop(*args, **options)
        self.node = self._loop.node
        self.peer_id = self._loop.peer_id
        self.dhts: tuple[Dht, ...] = ()
        """The Kademlia networks that ``dht`` named, in that order."""
        if self._loop.dhts:
            from . import gevent_dht

            self.dhts = tuple(map(gevent_dht.Dht, self._loop.dhts))
        self._pubsub: PubSub | None = None
        if self._loop._pubsub is not None:
            from . import gevent_pubsub

            self._pubsub = gevent_pubsub.PubSub(self._loop._pubsub)

    @property
    def dht(self) -> "Dht":
        """The Kademlia network, the first one if there are several. LocalError if there is none."""
        assert self._loop.dht  # says what is missing
        return self.dhts[0]

    @property
    def pubsub(self) -> "PubSub":
        """Topics to publish in and to subscribe to. LocalError if the host was made without."""
        assert self._loop.pubsub  # says what is missing
        assert self._pubsub is not None
        return self._pubsub

    @property
    def addresses(self) -> list[Multiaddr]:
        """Where we can be dialed, with our peer id."""
        return self._loop.addresses

    @property
    def peers(self) -> list[PeerId]:
        """Peers that are connected."""
        return self._loop.peers

    def handle(self, protocol: str) -> Callable[[Handler], Handler]:
        """Decorator: run the function in a greenlet with each stream of ``protocol``.

        When it returns the stream is closed; when it raises the stream is reset and the error is
        logged.
        """

        def register(handler: Handler) -> Handler:
            self.set_handler(protocol, handler)
            return handler

        return register

    def set_handler(self, protocol: str, handler: Handler) -> None:
        """What ``handle`` does, as a call."""

        def serve(stream: Any) -> None:
            handler(Stream(stream))

        self._loop.set_handler(protocol, serve)

    def remove_handler(self, protocol: str) -> None:
        """Accept no more streams of ``protocol``; those that are open go on."""
        self._loop.remove_handler(protocol)

    def listen(self, address: Multiaddr | str) -> list[Multiaddr]:
        """Accept connections at ``address``; returns the real addresses with our peer id."""
        return finish(self._loop.listen(address))

    def connect(self, target: Target, *more: Multiaddr | str) -> PeerId:
        """Connect to a peer by its addresses, or by its id when addresses are known."""
        return finish(self._loop.connect(target, *more))

    def disconnect(self, peer: Target) -> None:
        """Close every connection to a peer; what was written is delivered first."""
        finish(self._loop.disconnect(peer))

    def open_stream(self, peer: Target, *protocols: str, optimistic: bool = True) -> Stream:
        """Open a stream that speaks the first of ``protocols`` that the peer accepts."""
        return Stream(finish(self._loop.open_stream(peer, *protocols, optimistic=optimistic)))

    def ping(self, peer: Target) -> float:
        """The round-trip time in seconds."""
        return finish(self._loop.ping(peer))

    def identify(self, peer: Target) -> IdentifyInfo:
        """What the peer says of itself."""
        return finish(self._loop.identify(peer))

    def perf(
        self,
        peer: Target,
        upload: int,
        download: int,
        progress: Callable[[int, int], object] | None = None,
    ) -> PerfResult:
        """Move bytes both ways and measure, calling ``progress(uploaded, downloaded)``."""
        return finish(self._loop.perf(peer, upload, download, progress))

    def start(self) -> None:
        """Begin; ``with`` does it for you."""
        finish(self._loop.start())

    def close(self) -> None:
        """Close in order: what was written is delivered, within 5 s. Harmless when repeated."""
        finish(self._loop.close())

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
