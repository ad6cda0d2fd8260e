"""``host.dht``: peers, values and providers of a Kademlia network, on every event loop.

    from anyp2p_core.kad.config import KadConfig

    async with Host(dht=KadConfig(bootstrap=(...,))) as host:
        found = await host.dht.find_peer("12D3KooW...")
        async for provider in host.dht.find_providers("bafybei..."):
            ...

    command    -> Kad, which returns a request's number -> wait for the event that carries it
    cancelled  -> Kad.cancel: its requests and dials end, no event follows

What commands return are the final events of ``anyp2p_core.kad.events``; each has the ``trace`` of
all peers that were asked. An error has one too, see ``trace_of``.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast
from weakref import ref

from anyp2p_core.errors import LocalError
from anyp2p_core.events import PeerIdentified
from anyp2p_core.kad.addresses import Reach, group, within
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.events import (
    DhtBootstrapped,
    DhtClosestFound,
    DhtPeerFound,
    DhtProvided,
    DhtValueFound,
    DhtValuePut,
    Trace,
)
from anyp2p_core.kad.query import Walk
from anyp2p_core.kad.service import Kad
from anyp2p_core.kad.table import Health, Table
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId
from anyp2p_core.scope import LOOPBACK, scope

from .dht_keys import Content, multihash_of, record_key, target_of
from .dht_search import Events, ProviderSearch, Search, ValueSearch

if TYPE_CHECKING:
    from .host import BaseHost

__all__ = [
    "Content",
    "Dht",
    "Network",
    "ProviderSearch",
    "Search",
    "ValueSearch",
    "multihash_of",
    "record_key",
    "trace_of",
]

S = TypeVar("S", bound=Search[Any, Any])

Network: TypeAlias = KadConfig | Kad
Mode: TypeAlias = Literal["client", "server", "auto"]

CONFIRMATIONS = 2
"""Networks from which somebody has to reach us before "auto" makes us a server."""


class Dht:
    """One network that a host is in.

    Every command may take a ``walk``, in place of the network's own, and ends within its
    ``timeout``, 60 s unless it says otherwise. Errors of all of them: ``DialError`` when nobody
    could be asked, ``TimedOut`` when nobody answered in time, ``LimitReached`` when
    ``max_operations`` are under way.
    """

    def __init__(self, host: "BaseHost[Any]", kad: Kad, events: "Events") -> None:
        self.host = host
        self.kad = kad
        """The state machine, for what has no method here."""
        self._events = events
        self._auto = False
        self._outside: dict[bytes, None] = {}
        """Networks from which somebody has reached us."""

    def __repr__(self) -> str:
        size = len(self.table)
        return f"<Dht {self.kad.config.protocol} {self.mode}, {size} peers in the table>"

    # Commands.

    async def find_peer(self, peer: PeerId | str, *, walk: Walk | None = None) -> DhtPeerFound:
        """Where a peer is; ``connected`` if it was reached there and proved who it is.

        DialError when nobody knows of it, LocalError for this node itself.
        """
        peer = peer if isinstance(peer, PeerId) else PeerId.parse(peer)
        found: DhtPeerFound = await self._run(self.kad.find_peer, peer, walk=walk)
        return found

    async def closest_peers(
        self, key: PeerId | Content, *, walk: Walk | None = None
    ) -> DhtClosestFound:
        """The up to k = 20 servers closest to a key, closest first, all of which have answered.

        ``key``: a peer id or a CID, as such or in text, or 1 to 1024 bytes such as a value's key.
        """
        found: DhtClosestFound = await self._run(self.kad.closest_peers, target_of(key), walk=walk)
        return found

    async def provide(
        self, content: Content, *, announce: bool = True, walk: Walk | None = None
    ) -> DhtProvided:
        """Tell the peers closest to it that we have some content, again every 22 h.

        Without ``announce`` only this node tells, when somebody asks it. LocalError when no address
        of ours belongs to this network: others could not reach us.
        """
        key = multihash_of(content)
        done: DhtProvided = await self._run(self.kad.provide, key, announce=announce, walk=walk)
        return done

    def stop_providing(self, content: Content) -> None:
        """Tell of it no more. Others forget it within 48 h, and cannot be told to."""
        self.host._check_thread()
        self.kad.stop_providing(multihash_of(content))

    def find_providers(
        self, content: Content, count: int = 20, *, walk: Walk | None = None
    ) -> ProviderSearch:
        """Search for up to ``count`` peers that have some content, 0 for as many as 1000.

        Iterate over it with ``async for``. What this node was told itself comes first.
        """
        key = multihash_of(content)
        return self._search(ProviderSearch, self.kad.find_providers, key, count=count, walk=walk)

    async def put(self, key: str | bytes, value: bytes, *, walk: Walk | None = None) -> DhtValuePut:
        """Store a value here, and at the peers closest to its key. They keep it for 48 h at most.

        LocalError if its namespace has no validator here, if it is not valid, if it is longer than
        others take (16 KiB with its key), or if a better one is stored here already.
        """
        key = record_key(key)
        done: DhtValuePut = await self._run(self.kad.put, key, bytes(value), walk=walk)
        return done

    async def get(
        self, key: str | bytes, *, quorum: int = 0, walk: Walk | None = None
    ) -> DhtValueFound:
        """The best valid value of a key, as ``value``. Peers that have an older one are told.

        So many valid values as ``quorum`` says end the search, 0: all that can be found. DialError
        when nobody has one.
        """
        found: DhtValueFound = await self._run(
            self.kad.get, record_key(key), quorum=quorum, walk=walk
        )
        return found

    def search(self, key: str | bytes, *, quorum: int = 0, walk: Walk | None = None) -> ValueSearch:
        """Search for the value of a key; ``async for`` takes ever better ones as they come."""
        return self._search(ValueSearch, self.kad.search, record_key(key), quorum=quorum, walk=walk)

    async def bootstrap(self) -> int:
        """Fill the table: ask the bootstrap peers, then look up ourselves and every bucket.

        Happens by itself when the host starts, and every 10 minutes. Returns the peers in the
        table. DialError when there are none.
        """
        done: DhtBootstrapped = await self._run(self.kad.bootstrap)
        return done.size

    # State.

    @property
    def table(self) -> Table:
        """The routing table, to look at."""
        return self.kad.table

    @property
    def health(self) -> Health:
        """How full, alive and diverse the table is."""
        return self.kad.health(self.host._time())

    @property
    def mode(self) -> Mode:
        """What was asked for; ``server`` tells what that comes to at present."""
        return "auto" if self._auto else "server" if self.kad.server else "client"

    @property
    def server(self) -> bool:
        """Whether we answer requests, and may be in the tables of others."""
        return bool(self.kad.server)

    def set_server(self, server: bool) -> None:
        """Answer requests from now on, or only ask. Only who can be reached should answer."""
        self._check_thread()
        self._auto = False
        self.kad.set_server(server, self.host._time())
        self.host._after_command()

    def set_auto(self) -> None:
        """Become a server as soon as others have shown that we can be reached.

        That is: peers from two networks (/16 of IPv4, /32 of IPv6; on a LAN two machines) have
        connected to us by themselves, from addresses of this network and not from this machine, and
        say that they see us at such an address. It is not undone when they leave.
        """
        self._check_thread()
        if not self._auto:
            self._auto = True
            self._outside.clear()

    def cancel(self, request: int) -> None:
        """Nobody waits for this request any more. One that is over is ignored."""
        self._events.forget(request)
        self.kad.cancel(request, self.host.now())
        self.host.flush()

    # Inside.

    async def _run(self, command: Callable[..., int], *args: Any, **options: Any) -> Any:
        host = self.host
        host._check_usable()
        self._events.drop_abandoned()
        request = command(*args, host.now(), **options)
        over = False
        try:
            event = await host._outcome(request)
            over = True
        finally:
            if not over:
                self.cancel(request)
        return event

    def _search(
        self,
        kind: Callable[["Dht", int], S],
        command: Callable[..., int],
        *args: Any,
        **options: Any,
    ) -> S:
        host = self.host
        host._check_usable()
        self._events.drop_abandoned()
        search = kind(self, command(*args, host.now(), **options))
        self._events.searches[search._request] = ref(search)
        host.flush()
        return search

    def _check_thread(self) -> None:
        if self.host._state == "running":
            self.host._check_thread()

    def on_identified(self, event: PeerIdentified) -> None:
        """Learn from a peer that has connected to us where it sees us."""
        if not self._auto or self.kad.server:
            return
        observed, reach = event.info.observed, self.kad.config.reach
        for connection in self.host.node.connections(event.peer):
            remote = connection.remote
            if connection.id != event.conn or connection.initiator or remote is None:
                continue
            if observed is not None and all(_is_outside(one, reach) for one in (remote, observed)):
                # Private addresses have no group: machines count there.
                self._outside[group(remote) or remote.components[0].raw] = None
        if len(self._outside) >= CONFIRMATIONS:
            self._outside.clear()
            self.kad.set_server(True, self.host.now())


def join(host: "BaseHost[Any]", networks: Iterable[Kad]) -> tuple[Dht, ...]:
    """What a host calls: make the interfaces to its networks, and have them hear of everything."""
    events = Events(host)
    found = tuple(Dht(host, kad, events) for kad in networks)
    events.networks = found
    return found


def make_networks(option: Network | Iterable[Network]) -> list[Kad]:
    """The services that a host's ``dht`` option asks for."""
    several = [option] if isinstance(option, KadConfig | Kad) else list(option)
    networks = [Kad(one) if isinstance(one, KadConfig) else one for one in several]
    for kad in networks:
        if not isinstance(kad, Kad):
            raise LocalError(f"dht takes KadConfig or Kad, one or several, not {kad!r}")
        if hasattr(kad, "context"):
            raise LocalError("this Kad is another host's: make one for each, or give its KadConfig")
    return networks


def trace_of(error: BaseException) -> Trace:
    """Whom a command asked before it failed with this error; empty if it is of something else."""
    return cast(Trace, getattr(error, "trace", ()))


def _is_outside(address: Multiaddr, reach: Reach) -> bool:
    """Whether an address is in this network, and not on this machine."""
    return scope(address) != LOOPBACK and bool(within([address], reach))
