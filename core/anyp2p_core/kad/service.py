"""The Kademlia service: a node's part in one network, as client or as server.

Spec: https://github.com/libp2p/specs/blob/master/kad-dht/README.md

    application --command--> operation --lookup--> requests --> other peers
    other peers --streams--> inbound --> responder: table, store
    members: who enters the table       maintenance: what is done now and then

    client   asks, and is in nobody's table
    server   also answers: its protocol is announced, others put it into their tables
    set_server(reachable)   whoever knows whether we are reachable switches

A node can be in several networks with one service each, for instance WAN and LAN.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from ..connection import Connection
from ..dial_budget import DialBudget
from ..errors import DecodeError, Error, LimitReached, LocalError, RemoteError
from ..events import Event, PeerIdentified
from ..multiaddr import Multiaddr
from ..muxer import RESOURCE_LIMIT, Stream
from ..peer_id import PeerId
from ..ratelimit import RateLimiter
from ..service import Context, Service
from . import messages
from .config import KadConfig
from .events import DhtModeChanged, DhtPeerFound, DhtProvided
from .framing import Held
from .inbound import Inbound
from .ipns import IpnsValidator
from .maintenance import Maintenance
from .members import Members
from .messages import MAX_PROVIDER_KEY, Type
from .operation import Operation
from .operations import ClosestPeers, FindPeer, FindProviders, GetValue, Provide, Put
from .providers import Republishing
from .query import Hop, Walk
from .records import PublicKeyValidator, Validator, Validators, split_key
from .requests import Requests
from .server import Responder
from .size import NetworkSize
from .store import MemoryStore, Store, StoredRecord
from .table import Health, Table


class Kad(Service):
    """One network. Commands return a request id; their events are listed in ``events``."""

    def __init__(
        self,
        config: KadConfig | None = None,
        *,
        store: Store | None = None,
        validators: Mapping[str, Validator] | None = None,
        budget: DialBudget | None = None,
    ) -> None:
        """``validators`` of namespaces besides pk and ipns. ``budget``: shared with others."""
        self.config = config = config or KadConfig()
        config.check()
        self.store: Store = store if store is not None else MemoryStore()
        self.server = config.server
        self.protocols = (config.protocol,) if config.server else ()
        self.rejected = 0
        """Answers that were wrong: records for other keys, values that are not valid."""
        self.refused = 0
        """Requests that were wrong."""
        self.served = 0
        """Requests that were right."""
        self.size = NetworkSize()
        self.held = Held(config.max_held)
        self._budget = budget or DialBudget(
            rate=config.dial_rate, burst=config.dial_burst, interval=config.dial_interval
        )
        self._extra = dict(validators or {})
        self._inbound: dict[PeerId, _Streams] = {}
        self._maintenance = Maintenance(self)
        self._operations: dict[int, Operation] = {}
        self._puts = RateLimiter(rate=config.put_rate, burst=config.put_burst)
        self.own_keys = Republishing(config.republish_interval)
        """What we provide."""

    def attach(self, context: Context) -> None:
        super().attach(context)
        config = self.config
        own = context.peer_id
        self.table = Table(
            own,
            k=config.walk.k,
            per_group=config.max_per_group,
            per_bucket=config.max_per_bucket,
        )
        built_in: dict[str, Validator] = {
            "pk": PublicKeyValidator(context.crypto),
            "ipns": IpnsValidator(context.crypto),
        }
        self.validators = Validators({**built_in, **self._extra})
        self.requests = Requests(context, config, self.held, self._budget)
        self.members = Members(
            context, config, self.table, self.requests, self._maintenance.refresh
        )
        for key, published in self.store.own_keys().items():
            self.own_keys.set(key, published)
        self._responder = Responder(
            own=own,
            table=self.table,
            store=self.store,
            own_keys=self.own_keys,
            validators=self.validators,
            addresses=self.addresses,
            connected=lambda peer: bool(context.connections(peer)),
            reach=config.reach,
            record_age=config.record_age,
        )

    # Commands.

    def start(self, now: float) -> None:
        """Begin to look after table and store; happens by itself with the first connection."""
        self._maintenance.start(now)

    def find_peer(self, peer: PeerId, now: float, *, walk: Walk | None = None) -> int:
        """Find out where a peer is, and connect to it: ``DhtPeerFound``."""
        if peer == self.context.peer_id:
            raise LocalError("this node knows where it is itself: see its addresses")
        request = self._admit()
        if self.context.connections(peer):
            known = tuple(self.context.peers.addresses(peer, now))
            self.context.emit(DhtPeerFound(request, peer, known, True, ()))
            return request
        return self.run(FindPeer(self, request, peer, walk or self.config.walk), now)

    def closest_peers(self, key: bytes, now: float, *, walk: Walk | None = None) -> int:
        """Find the peers closest to a key or binary peer id: ``DhtClosestFound``."""
        _check_key(key, messages.MAX_KEY)
        request = self._admit()
        return self.run(ClosestPeers(self, request, key, walk or self.config.walk), now)

    def provide(
        self, key: bytes, now: float, *, announce: bool = True, walk: Walk | None = None
    ) -> int:
        """Say that we have the content with this multihash, again every 22 h: ``DhtProvided``.

        When nobody can be told it is tried again. Without ``announce`` only this node tells, when
        it is asked, and until it is restarted.
        """
        _check_key(key, MAX_PROVIDER_KEY)
        addresses = self.addresses(self.context.peer_id, now)
        if announce and not addresses:
            raise LocalError(
                f"nothing to tell others: no address of this node is {self.config.reach.value}; "
                "listen first"
            )
        request = self._admit()
        if not announce:
            self.own_keys.keep(key)
            self.context.emit(DhtProvided(request, key, (), 0, False, ()))
            return request
        wall = self.context.wall(now)
        self.store.set_own(key, wall)
        self.own_keys.set(key, wall)
        return self.run(Provide(self, request, key, addresses, walk or self.config.walk), now)

    def stop_providing(self, key: bytes) -> None:
        """Do not tell any more that we have something. Others forget it within 48 h."""
        self.store.remove_own(key)
        self.own_keys.remove(key)

    def find_providers(
        self, key: bytes, now: float, *, count: int = 20, walk: Walk | None = None
    ) -> int:
        """Find up to ``count`` providers of a multihash, 0 for all: ``DhtProviderFound``."""
        _check_key(key, MAX_PROVIDER_KEY)
        if count < 0:
            raise LocalError("count is a number of providers, 0 for as many as can be found")
        request = self._admit()
        operation = FindProviders(self, request, key, count, walk or self.config.walk)
        return self.run(operation, now)

    def put(self, key: bytes, value: bytes, now: float, *, walk: Walk | None = None) -> int:
        """Store a value here and at the peers closest to its key: ``DhtValuePut``.

        LocalError if it is not valid, too long for others, or older than what is stored here.
        """
        wall = self.context.wall(now)
        try:
            self.validators.validate(key, value, wall)
            known = self.store.get(key, wall)
            if known is not None and self.validators.is_better(key, known.value, value):
                raise LocalError("a better value is stored here already")
        except RemoteError as error:
            raise LocalError(f"this value cannot be put: {error}") from error
        request = self._admit()
        operation = Put(self, request, key, value, walk or self.config.walk)
        self.keep(key, value, now)
        return self.run(operation, now)

    def get(self, key: bytes, now: float, *, quorum: int = 0, walk: Walk | None = None) -> int:
        """Find the best value of a key: ``DhtValueFound``.

        ``quorum`` valid values end the search, 0 means all that can be found.
        """
        return self._get(key, quorum, False, walk, now)

    def search(self, key: bytes, now: float, *, quorum: int = 0, walk: Walk | None = None) -> int:
        """Like ``get``, and ``DhtValueImproved`` for every better value on the way."""
        return self._get(key, quorum, True, walk, now)

    def bootstrap(self, now: float) -> int:
        """Ask the bootstrap peers, then look up ourselves and every bucket: ``DhtBootstrapped``."""
        request = self._admit()
        self.start(now)
        self._maintenance.bootstrap(request, now)
        return request

    def cancel(self, request: int, now: float) -> None:
        """Nobody waits for this command any more. One that is over is ignored."""
        operation = self._operations.pop(request, None)
        if operation is not None:
            operation.cancel(now)
        else:
            self._maintenance.waiting.pop(request, None)

    def trace(self, request: int) -> tuple[Hop, ...]:
        """Whom a command that is under way has asked so far."""
        operation = self._operations.get(request)
        return operation.trace if operation is not None else ()

    def set_server(self, server: bool, now: float) -> None:
        """Start or stop to answer requests; whoever learns that we are reachable calls this."""
        if server == self.server:
            return
        protocol = self.config.protocol
        if server:
            self.context.serve(self, protocol, now)
        else:
            self.context.unserve(protocol, now)
        self.server = server
        self.protocols = (protocol,) if server else ()
        if not server:
            for streams in list(self._inbound.values()):
                for stream in list(streams.open):
                    stream.reset()
        self.context.emit(DhtModeChanged(protocol, server))

    def health(self, now: float) -> Health:
        """The state of the table."""
        return self.table.health(now)

    # Notices from the node.

    def on_connected(self, connection: Connection, now: float) -> None:
        self.start(now)
        self.requests.on_connected(connection, now)

    def on_disconnected(self, connection: Connection, now: float) -> None:
        self.requests.on_disconnected(connection, now)

    def on_event(self, event: Event, now: float) -> None:
        self.requests.on_event(event, now)
        if isinstance(event, PeerIdentified):
            if self.config.protocol in event.info.protocols:
                self.members.on_server(event.peer, now)
            else:
                self.members.remove(event.peer)

    def on_stream(self, connection: Connection, stream: Stream, protocol: str, now: float) -> None:
        peer = connection.peer
        assert peer is not None
        streams = self._inbound.get(peer) or _Streams(self.held.share())
        if not self.server or len(streams.open) >= self.config.max_inbound_streams:
            stream.reset(RESOURCE_LIMIT)
            return
        self._inbound[peer] = streams
        inbound = Inbound(
            stream,
            connection,
            context=self.context,
            config=self.config,
            held=streams.held,
            respond=partial(self._respond, peer),
            over=partial(self._on_over, peer),
            now=now,
        )
        streams.open[inbound] = None

    # What operations call.

    def addresses(self, peer: PeerId, now: float) -> list[Multiaddr]:
        """Where a peer, or we ourselves, can be reached in this network; at most 16 addresses."""
        return self.members.addresses(peer, now)

    def is_reachable(self, peer: PeerId, now: float) -> bool:
        """Whether a peer can be asked without being told where it is."""
        return bool(self.context.connections(peer) or self.addresses(peer, now))

    def keep(self, key: bytes, value: bytes, now: float) -> None:
        """Store a valid value of our own here."""
        wall = self.context.wall(now)
        self.store.put(StoredRecord(key, value, wall, wall + self.config.record_age), wall)

    def provided(self, key: bytes, now: float) -> None:
        """Others know that we provide a key."""
        if key in self.own_keys:
            wall = self.context.wall(now)
            self.own_keys.set(key, wall)
            with suppress(LocalError):  # the worst is that it is repeated after a restart
                self.store.set_own(key, wall)

    def not_provided(self, key: bytes, now: float) -> None:
        """Nobody could be told that we provide a key."""
        if key in self.own_keys:
            self.own_keys.postpone(key, self.context.wall(now))

    def run(self, operation: Operation, now: float) -> int:
        """Start an operation. Raises LocalError if the store fails."""
        self._operations[operation.request] = operation
        try:
            operation.start(now)
        except LocalError:
            self._operations.pop(operation.request, None)
            operation.cancel(now)
            raise
        return operation.request

    def finished(self, operation: Operation) -> None:
        """An operation is over."""
        self._operations.pop(operation.request, None)

    # Inside.

    def _admit(self) -> int:
        """A number for a new command. Raises LimitReached."""
        limit = self.config.max_operations
        if len(self._operations) + len(self._maintenance.waiting) >= limit:
            raise LimitReached(f"max_operations: {limit} DHT commands are under way; wait for some")
        return self.context.next_id()

    def _get(
        self, key: bytes, quorum: int, incremental: bool, walk: Walk | None, now: float
    ) -> int:
        try:
            namespace = split_key(key)[0]
        except DecodeError as error:
            raise LocalError(str(error)) from error
        if namespace not in self.validators.namespaces:
            raise LocalError(f"no validator for the namespace {namespace!r}")
        if quorum < 0:
            raise LocalError("a quorum is a number of values, 0 for as many as can be found")
        request = self._admit()
        walk = walk or self.config.walk
        return self.run(GetValue(self, request, key, quorum, incremental, walk), now)

    def _respond(self, peer: PeerId, data: bytes, now: float) -> bytes | None:
        try:
            request = messages.decode(data)
            if request.type == Type.PUT_VALUE and not self._puts.allow(str(peer), now):
                raise RemoteError(f"more than {self.config.put_rate:g} PUT_VALUEs per second")
            answer = self._responder.answer(peer, request, now, self.context.wall(now))
        except Error:
            self.refused += 1
            raise
        self.served += 1
        return None if answer is None else messages.encode_answer(answer)

    def _on_over(self, peer: PeerId, stream: Inbound) -> None:
        streams = self._inbound[peer]
        del streams.open[stream]
        if not streams.open:
            del self._inbound[peer]


class _Streams:
    """The streams on which one peer asks us."""

    __slots__ = ("held", "open")

    def __init__(self, held: Held) -> None:
        self.held = held
        self.open: dict[Inbound, None] = {}


def _check_key(key: bytes, limit: int) -> None:
    if not 0 < len(key) <= limit:
        raise LocalError(f"a key of {len(key)} bytes; 1 to {limit} are allowed")
