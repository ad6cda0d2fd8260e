"""``host.dht`` on gevent: the same commands, blocking, and searches to iterate over.

for provider in host.dht.find_providers("bafybei..."):
    ...
"""

from typing import Generic, TypeVar

from anyp2p_core.kad.events import (
    DhtClosestFound,
    DhtPeerFound,
    DhtProvided,
    DhtProvidersSearched,
    DhtValueFound,
    DhtValuePut,
    Trace,
)
from anyp2p_core.kad.providers import Provider
from anyp2p_core.kad.query import Walk
from anyp2p_core.kad.table import Health, Table
from anyp2p_core.peer_id import PeerId

from .dht import Content, Dht as BaseDht, Mode, Search as BaseSearch
from .gevent_iterator import Blocking
from .gevent_loop import finish

T = TypeVar("T")
R = TypeVar("R")


class Search(Blocking[T], Generic[T, R]):
    """What a search finds, as it is found. Leaving ``with``, or ``close``, ends it."""

    __slots__ = ("_search",)

    def __init__(self, search: BaseSearch[T, R]) -> None:
        super().__init__(search)
        self._search = search

    @property
    def trace(self) -> Trace:
        """Everybody who was asked so far, in order."""
        return self._search.trace

    @property
    def over(self) -> bool:
        """Whether nobody is asked any more; what was found may still be waiting."""
        return self._search.over

    @property
    def result(self) -> R | None:
        """How it ended, once it has."""
        return self._search.result

    def close(self) -> None:
        """End the search. Harmless when repeated, and when it is over."""
        finish(self._search.aclose())


class Dht:
    """One network that a host is in; see ``anyp2p.dht.Dht`` for what each method does."""

    def __init__(self, dht: BaseDht) -> None:
        self._dht = dht
        self.kad = dht.kad

    def __repr__(self) -> str:
        return repr(self._dht)

    def find_peer(self, peer: PeerId | str, *, walk: Walk | None = None) -> DhtPeerFound:
        """Where a peer is."""
        return finish(self._dht.find_peer(peer, walk=walk))

    def closest_peers(self, key: PeerId | Content, *, walk: Walk | None = None) -> DhtClosestFound:
        """The servers closest to a key."""
        return finish(self._dht.closest_peers(key, walk=walk))

    def provide(
        self, content: Content, *, announce: bool = True, walk: Walk | None = None
    ) -> DhtProvided:
        """Tell others that we have some content."""
        return finish(self._dht.provide(content, announce=announce, walk=walk))

    def stop_providing(self, content: Content) -> None:
        """Tell of it no more."""
        self._dht.stop_providing(content)

    def find_providers(
        self, content: Content, count: int = 20, *, walk: Walk | None = None
    ) -> Search[Provider, DhtProvidersSearched]:
        """Search for peers that have some content; ``for`` takes them as they are found."""
        return Search(self._dht.find_providers(content, count, walk=walk))

    def put(self, key: str | bytes, value: bytes, *, walk: Walk | None = None) -> DhtValuePut:
        """Store a value."""
        return finish(self._dht.put(key, value, walk=walk))

    def get(self, key: str | bytes, *, quorum: int = 0, walk: Walk | None = None) -> DhtValueFound:
        """The best valid value of a key, as ``value``."""
        return finish(self._dht.get(key, quorum=quorum, walk=walk))

    def search(
        self, key: str | bytes, *, quorum: int = 0, walk: Walk | None = None
    ) -> Search[bytes, DhtValueFound]:
        """Search for the value of a key; ``for`` takes ever better ones as they come."""
        return Search(self._dht.search(key, quorum=quorum, walk=walk))

    def bootstrap(self) -> int:
        """Fill the table; returns the peers in it."""
        return finish(self._dht.bootstrap())

    @property
    def table(self) -> Table:
        """The routing table, to look at."""
        return self._dht.table

    @property
    def health(self) -> Health:
        """How full, alive and diverse the table is."""
        return self._dht.health

    @property
    def mode(self) -> Mode:
        """What was asked for."""
        return self._dht.mode

    @property
    def server(self) -> bool:
        """Whether we answer requests."""
        return self._dht.server

    def set_server(self, server: bool) -> None:
        """Answer requests from now on, or only ask."""
        self._dht.set_server(server)

    def set_auto(self) -> None:
        """Become a server as soon as others have shown that we can be reached."""
        self._dht.set_auto()
