"""The Kademlia service: a node's part in one network, as client or as server.

Spec: https://github.com/libp2p/specs/blob/master/kad-dht/README.md

    identify says that a peer is a server --> probe: one FIND_NODE --answered--> table
    a peer answered a request of ours     ---------------------------------------^
    a peer failed, or is no server any more                          --> out of the table

    client   asks, and is in nobody's table
    server   also answers: its protocol is announced, others put it into their tables
    set_server(reachable)   whoever knows whether we are reachable switches

A node can be in several networks with one service each, for instance WAN and LAN.
"""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Protocol, runtime_checkable

from ..connection import Connection
from ..errors import DecodeError, DialError, Error, LimitReached, LocalError, RemoteError
from ..events import Event, PeerIdentified
from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from ..ratelimit import RateLimiter
from ..service import Context, Service
from ..stream import RESOURCE_LIMIT
from ..yamux_stream import Stream
from . import messages
from .addresses import groups, within
from .budget import DialBudget
from .config import KadConfig
from .events import (
    DhtBootstrapped,
    DhtClosestFound,
    DhtFailed,
    DhtModeChanged,
    DhtPeerFound,
    DhtProvided,
    DhtTableChanged,
)
from .framing import Held
from .inbound import Inbound
from .ipns import IpnsValidator
from .keys import key_of, preimage
from .messages import MAX_ADDRESSES, MAX_PROVIDER_KEY, Message, Type
from .operations import (
    ClosestPeers,
    FindPeer,
    FindProviders,
    GetValue,
    Operation,
    Provide,
    Put,
)
from .providers import Republishing
from .query import Hop, Walk
from .records import PublicKeyValidator, Validator, Validators, split_key
from .requests import Requests
from .server import Responder
from .size import NetworkSize
from .store import MemoryStore, Store, StoredRecord
from .table import Admission, Health, Table

MAX_BOOTSTRAP = 2
"""Bootstrap peers that are asked at once when the table is low."""
MAX_REPUBLISHING = 4
"""Keys that are provided again at the same time."""


@runtime_checkable
class Serving(Protocol):
    """What a node offers to a service that starts and stops to answer."""

    def serve(self, service: Service, protocol: str, now: float, /) -> None: ...
    def unserve(self, service: Service, protocol: str, now: float, /) -> None: ...


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
        self._inbound: dict[PeerId, dict[Inbound, None]] = {}
        self._operations: dict[int, Operation] = {}
        self._probes: dict[PeerId, None] = {}
        self._puts = RateLimiter(rate=config.put_rate, burst=config.put_burst)
        self._buckets: deque[int] = deque()
        """Buckets that the refresh under way has still to look into."""
        self._refreshing = False
        self._bootstraps: list[int] = []
        """Commands that wait for the end of a refresh."""
        self._republishing = Republishing(config.republish_interval)
        self._republished: dict[bytes, None] = {}
        """Keys that are being provided again."""
        self._started = False

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
        self.validators = Validators(
            {"pk": PublicKeyValidator(), "ipns": IpnsValidator(context.crypto), **self._extra}
        )
        self.requests = Requests(context, config, self.held, self._budget)
        for key, published in self.store.own_keys().items():
            self._republishing.set(key, published)
        self._responder = Responder(
            own=own,
            table=self.table,
            store=self.store,
            own_keys=self._republishing,
            validators=self.validators,
            addresses=self.addresses,
            connected=lambda peer: bool(context.connections(peer)),
            reach=config.reach,
            record_age=config.record_age,
        )

    # Commands.

    def start(self, now: float) -> None:
        """Begin to look after table and store; happens by itself with the first connection."""
        if self._started:
            return
        self._started = True
        config = self.config
        self._every(config.refresh_interval, "kad refresh", self._refresh, now)
        self._every(config.republish_check, "kad republish", self._republish, now)
        self._every(config.sweep_interval, "kad sweep", self._sweep, now)
        if config.bootstrap:
            self._every(config.low_interval, "kad low", self._check_low, now)
            self._check_low(now)

    def find_peer(self, peer: PeerId, now: float, *, walk: Walk | None = None) -> int:
        """Find out where a peer is, and connect to it: ``DhtPeerFound``."""
        if peer == self.context.peer_id:
            raise LocalError("this node knows where it is itself: see its addresses")
        request = self._admit()
        if self.context.connections(peer):
            known = tuple(self.context.peers.addresses(peer, now))
            self.context.emit(DhtPeerFound(request, peer, known, True, ()))
            return request
        return self._run(FindPeer(self, request, peer, walk or self.config.walk), now)

    def closest_peers(self, key: bytes, now: float, *, walk: Walk | None = None) -> int:
        """Find the peers closest to a key or binary peer id: ``DhtClosestFound``."""
        _check_key(key, messages.MAX_KEY)
        request = self._admit()
        return self._run(ClosestPeers(self, request, key, walk or self.config.walk), now)

    def provide(
        self, key: bytes, now: float, *, announce: bool = True, walk: Walk | None = None
    ) -> int:
        """Say that we have the content with this multihash, again every 22 h: ``DhtProvided``.

        Without ``announce`` only this node tells, when it is asked.
        """
        _check_key(key, MAX_PROVIDER_KEY)
        addresses = self.addresses(self.context.peer_id, now)
        if announce and not addresses:
            raise LocalError(
                f"nothing to tell others: no address of this node is {self.config.reach.value}; "
                "listen first"
            )
        request = self._admit()
        self.store.set_own(key, self.context.wall(now))
        self._republishing.set(key, self.context.wall(now))
        if not announce:
            self.context.emit(DhtProvided(request, key, (), 0, False, ()))
            return request
        return self._run(Provide(self, request, key, addresses, walk or self.config.walk), now)

    def stop_providing(self, key: bytes) -> None:
        """Do not tell any more that we have something. Others forget it within 48 h."""
        self.store.remove_own(key)
        self._republishing.remove(key)

    def find_providers(
        self, key: bytes, now: float, *, count: int = 20, walk: Walk | None = None
    ) -> int:
        """Find up to ``count`` providers of a multihash, 0 for all: ``DhtProviderFound``."""
        _check_key(key, MAX_PROVIDER_KEY)
        request = self._admit()
        operation = FindProviders(self, request, key, count, walk or self.config.walk)
        return self._run(operation, now)

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
        self.store.put(StoredRecord(key, value, wall, wall + self.config.record_age), wall)
        return self._run(operation, now)

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
        self._bootstraps.append(request)
        if not self._ask_bootstrap(len(self.config.bootstrap), self._refresh, now):
            self._refresh(now)
        return request

    def cancel(self, request: int, now: float) -> None:
        """Nobody waits for this command any more. One that is over is ignored."""
        operation = self._operations.pop(request, None)
        if operation is not None:
            operation.cancel(now)
        elif request in self._bootstraps:
            self._bootstraps.remove(request)

    def trace(self, request: int) -> tuple[Hop, ...]:
        """Whom a command that is under way has asked so far."""
        operation = self._operations.get(request)
        return operation.trace if operation is not None else ()

    def set_server(self, server: bool, now: float) -> None:
        """Start or stop to answer requests; whoever learns that we are reachable calls this."""
        if server == self.server:
            return
        node = self.context
        if not isinstance(node, Serving):
            raise LocalError("this node cannot change the protocols of a service")
        self.server = server
        protocol = self.config.protocol
        self.protocols = (protocol,) if server else ()
        if server:
            node.serve(self, protocol, now)
        else:
            node.unserve(self, protocol, now)
            for streams in list(self._inbound.values()):
                for stream in list(streams):
                    stream.reset()
            for connection in self.context.connections():
                self.context.touch(connection)
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
                self._on_server(event.peer, now)
            else:
                self._remove(event.peer)

    def on_stream(self, connection: Connection, stream: Stream, protocol: str, now: float) -> None:
        peer = connection.peer
        assert peer is not None
        streams = self._inbound.get(peer, {})
        if not self.server or len(streams) >= self.config.max_inbound_streams:
            stream.reset(RESOURCE_LIMIT)
            return
        self._inbound[peer] = streams
        inbound = Inbound(
            stream,
            context=self.context,
            config=self.config,
            held=self.held,
            respond=partial(self._respond, peer),
            over=partial(self._on_over, peer),
            now=now,
        )
        streams[inbound] = None

    # What operations call.

    def addresses(self, peer: PeerId, now: float) -> list[Multiaddr]:
        """Where a peer, or we ourselves, can be reached in this network; at most 16 addresses."""
        context = self.context
        if peer == context.peer_id:
            known = list(context.addresses)
        else:
            entry = self.table.get(peer)
            known = context.peers.addresses(peer, now)
            if entry is not None:
                known = list(dict.fromkeys([*known, *entry.addresses]))
        return within(known, self.config.reach)[:MAX_ADDRESSES]

    def is_reachable(self, peer: PeerId, now: float) -> bool:
        """Whether a peer can be asked without being told where it is."""
        return bool(self.context.connections(peer) or self.addresses(peer, now))

    def on_useful(self, peer: PeerId, now: float) -> None:
        """A peer answered a request of ours: that is what the table is made of."""
        if peer in self.table:
            self.table.add(peer, now)
            return
        addresses = tuple(self.addresses(peer, now))
        if not addresses:
            return  # it belongs to another network
        if self.table.add(peer, now, addresses=addresses, groups=self._groups(peer)) is not (
            Admission.ADDED
        ):
            return
        self._tell_table(peer, True)
        if len(self.table) == 1:
            self._refresh(now)

    def on_useless(self, peer: PeerId, error: Exception, now: float) -> None:
        """A peer did not answer, by its own fault and not by our limits."""
        offline = not self.context.connections()
        if not isinstance(error, LocalError) and not offline:
            self._remove(peer)

    def provided(self, key: bytes, now: float) -> None:
        """Others know that we provide a key."""
        if key in self._republishing:
            wall = self.context.wall(now)
            self._republishing.set(key, wall)
            with suppress(LocalError):  # the worst is that it is repeated after a restart
                self.store.set_own(key, wall)

    def finished(self, operation: Operation, event: Event | None, now: float) -> None:
        """An operation is over."""
        self._operations.pop(operation.request, None)
        if operation.then is not None:
            operation.then(event, now)
        elif event is not None:
            self.context.emit(event)

    # Inside: operations.

    def _admit(self) -> int:
        """A number for a new command. Raises LimitReached."""
        limit = self.config.max_operations
        if len(self._operations) >= limit:
            raise LimitReached(f"max_operations: {limit} DHT commands are under way; wait for some")
        return self.context.next_id()

    def _run(self, operation: Operation, now: float) -> int:
        self._operations[operation.request] = operation
        try:
            operation.start(now)
        except LocalError:  # the store failed
            self._operations.pop(operation.request, None)
            operation.cancel(now)
            raise
        return operation.request

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
        return self._run(GetValue(self, request, key, quorum, incremental, walk), now)

    # Inside: the table.

    def _on_server(self, peer: PeerId, now: float) -> None:
        """A connected peer says that it is a server: see whether it answers."""
        addresses = tuple(self.addresses(peer, now))
        entry = self.table.get(peer)
        if entry is not None:
            entry.addresses = addresses[: len(entry.addresses) or None] or entry.addresses
            return
        if (
            not addresses
            or peer in self._probes
            or len(self._probes) >= self.config.max_probes
            or self.table.judge(peer, now, self._groups(peer)) is not Admission.ADDED
        ):
            return
        self._probe(peer, now)

    def _probe(self, peer: PeerId, now: float) -> None:
        self._probes[peer] = None
        message = Message(Type.FIND_NODE, bytes(self.context.peer_id))
        timeout = self.config.walk.peer_timeout
        try:
            self.requests.send(peer, (), message, timeout, partial(self._on_probed, peer), now)
        except Error as error:
            self._on_probed(peer, None, error, now)

    def _on_probed(
        self, peer: PeerId, answer: Message | None, error: Exception | None, now: float
    ) -> None:
        self._probes.pop(peer, None)
        if error is None:
            self.on_useful(peer, now)
        else:
            self.on_useless(peer, error, now)

    def _remove(self, peer: PeerId) -> None:
        if self.table.remove(peer):
            self._tell_table(peer, False)

    def _tell_table(self, peer: PeerId, added: bool) -> None:
        self.context.emit(DhtTableChanged(self.config.protocol, peer, added, len(self.table)))

    def _groups(self, peer: PeerId) -> tuple[bytes, ...]:
        """The IP groups that a peer is really in, whatever it says."""
        remotes = [connection.remote for connection in self.context.connections(peer)]
        return groups(remote for remote in remotes if remote is not None)

    # Inside: what is done now and then.

    def _every(
        self, interval: float, reason: str, function: Callable[[float], object], now: float
    ) -> None:
        def tick(now: float) -> None:
            self.context.call_at(now + interval, reason, tick)
            function(now)

        self.context.call_at(now + interval, reason, tick)

    def _refresh(self, now: float) -> None:
        """Look up ourselves, then something in every bucket that nobody has looked into lately."""
        if self._refreshing:
            return
        self._refreshing = True
        for entry in self.table.stale(now)[: self.config.max_probes - len(self._probes)]:
            self._probe(entry.peer, now)
        self._look(bytes(self.context.peer_id), self._on_self_found, now)

    def _on_self_found(self, event: Event | None, now: float) -> None:
        self._buckets.extend(self.table.to_refresh(now, self.config.refresh_interval))
        self._refresh_next(now)

    def _on_bucket_found(self, event: Event | None, now: float) -> None:
        if isinstance(event, DhtClosestFound):
            target = key_of(event.key)
            distances = [key_of(bytes(one.peer)) ^ target for one in event.peers]
            self.size.learn(distances, self.config.walk.k)
        self._refresh_next(now)

    def _refresh_next(self, now: float) -> None:
        if self._buckets:
            prefix = self._buckets.popleft()
            key = preimage(self.table.key, prefix, self.context.choice)
            self._look(key, self._on_bucket_found, now)
            return
        self._refreshing = False
        waiting, self._bootstraps = self._bootstraps, []
        size = len(self.table)
        for request in waiting:
            if size:
                self.context.emit(DhtBootstrapped(request, size))
            else:
                error = DialError("no bootstrap peer answered: name some that are online")
                self.context.emit(DhtFailed(request, error, ()))

    def _look(self, key: bytes, then: Callable[[Event | None, float], object], now: float) -> None:
        walk = self.config.walk
        timeout = self.config.refresh_timeout
        walk = replace(walk, timeout=timeout, peer_timeout=min(timeout, walk.peer_timeout))
        operation = ClosestPeers(self, self.context.next_id(), key, walk)
        operation.then = then
        self._run(operation, now)

    def _check_low(self, now: float) -> None:
        if len(self.table) < self.config.low_peers:
            self._ask_bootstrap(MAX_BOOTSTRAP, self._refresh, now)

    def _ask_bootstrap(self, count: int, then: Callable[[float], object], now: float) -> bool:
        """Ask some bootstrap peers for ourselves, then go on; False if there is nobody to ask."""
        by_peer: dict[PeerId, list[Multiaddr]] = {}
        for address in self.config.bootstrap:
            by_peer.setdefault(PeerId.parse(address.components[-1].value), []).append(address)
        by_peer.pop(self.context.peer_id, None)
        message = Message(Type.FIND_NODE, bytes(self.context.peer_id))
        waiting: dict[PeerId, None] = {}

        def done(peer: PeerId, answer: Message | None, error: Exception | None, now: float) -> None:
            waiting.pop(peer, None)
            if error is None:
                self.on_useful(peer, now)
            if not waiting:
                then(now)

        for peer, addresses in self.context.choice.sample(list(by_peer.items()), count):
            waiting[peer] = None
            try:
                self.requests.send(
                    peer,
                    addresses,
                    message,
                    self.config.walk.peer_timeout,
                    partial(done, peer),
                    now,
                )
            except Error:
                del waiting[peer]
        return bool(waiting)

    def _republish(self, now: float) -> None:
        addresses = self.addresses(self.context.peer_id, now)
        if not addresses or not len(self.table):
            return
        for key in self._republishing.due(self.context.wall(now), MAX_REPUBLISHING):
            if key not in self._republished:
                self._republished[key] = None
                walk = self.config.walk
                operation = Provide(self, self.context.next_id(), key, addresses, walk)
                operation.then = partial(self._on_republished, key)
                self._run(operation, now)

    def _on_republished(self, key: bytes, event: Event | None, now: float) -> None:
        del self._republished[key]
        if isinstance(event, DhtProvided):  # else it is tried again at the next check
            self._republish(now)

    def _sweep(self, now: float) -> None:
        with suppress(LocalError):  # it is tried again
            self.store.sweep(self.context.wall(now))

    # Inside: requests of others.

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
        del streams[stream]
        if not streams:
            del self._inbound[peer]


def _check_key(key: bytes, limit: int) -> None:
    if not 0 < len(key) <= limit:
        raise LocalError(f"a key of {len(key)} bytes; 1 to {limit} are allowed")
