"""A whole node as one state machine: the boundary that every runtime drives.

Inputs are method calls that carry ``now``, in seconds of any clock that never goes back. They never
raise because of a peer. Commands raise ``LocalError`` for what cannot be done. After any input or
command, drain until nothing is left, in this order:

    for conn in node.writable(): send node.data_to_send(conn, now)
    for sock, target, data in node.datagrams(now): send it (nothing, without QUIC)
    for item in node.poll(): carry out an Action, tell the application an Event
    arm one timer for node.next_timeout()

    runtime                                  node
      connected, receive, ...           ->
                                        <-   writable / data_to_send
                                        <-   poll: Dial, CloseConnection, PauseReading, ...; events
      handle_timeout                    ->   when next_timeout has come

A connection whose socket is full is set aside with ``blocked(conn, True, now)``: what it would send
stays in the streams that produced it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from .admission import Admission
from .carriers import PLAIN, Carriers, Offers
from .closing import Closing
from .connection import Connection
from .crypto import Choice, Crypto, Entropy
from .dialing import Dialing
from .errors import (
    DialError,
    HandshakeError,
    LimitReached,
    LocalError,
    MuxerError,
    RemoteError,
    TimedOut,
)
from .events import (
    Action,
    CloseConnection,
    ConnectionClosed,
    ConnectionOpened,
    ConnId,
    Dial,
    Event,
    PauseReading,
    PeerConnected,
    RequestId,
    ResumeReading,
    StreamFailed,
    StreamId,
    StreamOpened,
)
from .identify import Identify, IdentifyInfo
from .keys import PrivateKey
from .layer import LayerMaker
from .limits import Limits
from .multiaddr import Multiaddr
from .multistream import encode
from .muxer import MuxerMaker, Stream
from .peer_id import PeerId
from .peerstore import Peerstore
from .perf import Perf
from .ping import Ping
from .pnet import HINT
from .resolver import Answered, Kind, Resolver
from .route import UDP, route, with_layers
from .security import NoiseSecurity, Security
from .service import Service
from .stream import AppStream, shed
from .timers import Timers
from .upgrade import UpgradedConnection
from .yamux import PROTOCOL as YAMUX, Yamux

if TYPE_CHECKING:
    from .quic_transport import MakeProvider, QuicTransport

PAUSE_AT = 64 * 1024
"""Unread answers, in bytes, above which we stop reading from a peer that does not read."""
RESOURCE_LIMIT = 0x1001
"""GoAway code of go peers for a resource limit."""


class Node:
    """All connections, services and timers of one peer."""

    def __init__(
        self,
        key: PrivateKey,
        *,
        crypto: Crypto,
        entropy: Entropy,
        choice: Choice,
        epoch: float = 0.0,
        limits: Limits | None = None,
        agent: str = "anyp2p",
        services: Iterable[Service] = (),
        security: Iterable[Security] = (),
        muxers: Mapping[str, MuxerMaker] | None = None,
        layers: Mapping[str, LayerMaker] | None = None,
        private: LayerMaker | None = None,
        quic: "MakeProvider | None" = None,
        resolver: Callable[[Timers], Resolver] | None = None,
    ) -> None:
        """``now + epoch`` is the wall time in seconds since 1970.

        ``security`` and ``muxers`` are what is offered and accepted, best first, and nothing else:
        Noise and yamux unless they are given. ``layers`` are what may lie under a connection,
        ``ws`` and ``tls``. ``private`` shuts out whoever does not have the key of this network.
        ``quic`` makes what QUIC is made of, once it is wanted, from the wall time. ``resolver``
        makes what looks names up; without it the runtime does, and /dnsaddr means nothing.
        """
        self.key = key
        self.peer_id = key.peer_id
        self.crypto = crypto
        self.entropy = entropy
        self.choice = choice
        self.limits = limits if limits is not None else Limits()
        self.agent = agent
        # Casts: pyright takes callbacks that have slots for methods.
        offered = tuple(security) or (cast("Security", NoiseSecurity(key, crypto, entropy)),)
        self.security: Mapping[str, Security] = {one.protocol: one for one in offered}
        self.muxers = muxers or {YAMUX: cast("MuxerMaker", Yamux)}
        self.carriers = Carriers(layers or {}, private)
        self.peers = Peerstore(self.limits)
        self.addresses: list[Multiaddr] = []
        """Where we listen, without our peer id."""
        self.timers = Timers()
        self.unread = 0
        """Bytes that applications left unread, over all connections."""
        self.epoch = epoch
        self._next = 0
        self._connections: dict[ConnId, Connection] = {}
        self._by_peer: dict[PeerId, dict[ConnId, Connection]] = {}
        self._admission = Admission(self.limits)
        self._closing = Closing(self)
        lookups = None if resolver is None else _Lookups(self, resolver(self.timers))
        self._dialing = Dialing(self, resolver=lookups, why_not=self._why_not)
        self._quic: QuicTransport | None = None
        if quic is not None and private is None:
            self._quic = _quic_transport(quic, self, self._admission, self._closing)
        self._streams: dict[StreamId, AppStream] = {}
        self._opening: dict[StreamId, tuple[Connection, Stream]] = {}
        self._handlers: dict[str, Service | None] = {}
        self._outputs: list[Action | Event] = []
        self._dirty: dict[ConnId, Connection] = {}
        self._now = 0.0
        self._watchers: list[Service] = []
        self._services: list[Service] = []
        self._identify = Identify()
        self._ping = Ping()
        self._perf: Perf | None = None
        for service in (self._identify, self._ping, *services):
            self.add_service(service)

    # Inputs from the runtime.

    def connected(
        self,
        conn: ConnId | None,
        local: Multiaddr | None,
        remote: Multiaddr | None,
        now: float,
        *,
        offers: Offers = PLAIN,
    ) -> ConnId:
        """A transport opened: ``conn`` from ``Dial``, or None when it was accepted.

        ``offers``: the layers that an accepted connection may have, any of them; first come the
        layers of one offer, next to the socket first.

        Returns the connection's id. A connection beyond the limits is answered with a
        ``CloseConnection`` and never looked at.
        """
        self._now = now
        inbound = conn is None
        dial = None
        if conn is None:
            conn = self.next_id()
            if not self._admission.admit(len(self._connections), remote, now):
                self._outputs.append(CloseConnection(conn, abort=True))
                return conn
        else:
            dial = self._dialing.attempt(conn)
            if dial is None or conn in self._connections:
                self._outputs.append(CloseConnection(conn, abort=True))
                return conn
        try:
            if dial is not None:
                where = route(dial.attempts[conn].address)
                self.carriers.check(where)
                offers = (where.layers,)
                carrier = self.carriers.dialed(where)
            else:
                carrier = self.carriers.accepted(offers, partial(self._decided, conn))
            connection = UpgradedConnection(
                conn,
                initiator=not inbound,
                owner=self,
                local=local,
                remote=remote,
                expected=dial.expected(conn) if dial is not None else None,
                now=now,
                carrier=carrier,
            )
        except LocalError as error:  # an address may ask for what no layer can do
            if inbound:
                self._admission.left(upgraded=False)
            self._dialing.failed(conn, error, now)
            self._outputs.append(CloseConnection(conn, abort=True))
            return conn
        if len(offers) == 1:
            _label(connection, offers[0])
        self.begin(connection, now)
        return conn

    def _decided(self, conn: ConnId, layers: tuple[str, ...]) -> None:
        """A connection to a shared port has told what it is."""
        _label(self._connections[conn], layers)

    def dial_failed(self, conn: ConnId, error: Exception, now: float) -> None:
        """A ``Dial`` could not be carried out."""
        self._now = now
        self._dialing.failed(conn, error, now)

    def receive(self, conn: ConnId, data: bytes, now: float) -> None:
        """Bytes arrived on a transport."""
        connection = self._connections.get(conn)
        if connection is None or connection.error is not None:
            return
        self._now = now
        try:
            connection.receive(data, now)
        except RemoteError as error:
            self._fail(connection, error, now)
        self._dirty[conn] = connection
        if connection.blocked_since is not None:
            self._pause(connection)
        if connection.peer_ended:
            self.receive_eof(conn, now)

    def receive_eof(self, conn: ConnId, now: float) -> None:
        """The peer closed its direction of a transport, which ends the connection."""
        connection = self._connections.get(conn)
        if connection is None or connection.error is not None:
            return
        self._now = now
        try:
            connection.receive_eof()
        except RemoteError as error:
            self._fail(connection, error, now)
        else:
            connection.lost(None, now)
            self._closing.ended_by_peer(connection, now)

    def disconnected(self, conn: ConnId, error: Exception | None, now: float) -> None:
        """A transport is gone, with ``error`` unless it was closed in order."""
        self._now = now
        connection = self._connections.pop(conn, None)
        self._dirty.pop(conn, None)
        if connection is None:
            self._dialing.failed(conn, error or DialError("the dial was cancelled"), now)
            return
        upgraded = connection.muxer is not None
        if error is None and not upgraded and connection.reason is None:
            error = HandshakeError("the connection was closed during negotiation")
        connection.lost(error, now)
        connection.finished = True
        self.timers.cancel(connection.timer)
        self.timers.cancel(connection.stall_timer)
        if not connection.initiator:
            self._admission.left(upgraded=connection.announced)
        reason = connection.reason or DialError("the connection was closed")
        if self.carriers.private and not connection.greeted and HINT not in str(reason):
            reason = HandshakeError(f"{reason}; {HINT}")
        self._dialing.failed(conn, reason, now)
        if connection.announced:
            self._forget(connection, now)
        self.emit(ConnectionClosed(conn, connection.peer, connection.reason))

    def blocked(self, conn: ConnId, full: bool, now: float) -> None:
        """The socket buffer filled up, or has room again."""
        connection = self._connections.get(conn)
        if connection is None:
            return
        self._now = now
        if not full:
            connection.blocked_since = None
            self._dirty[conn] = connection
            if connection.paused:
                connection.paused = False
                self._outputs.append(ResumeReading(conn))
        elif connection.error is not None and not connection.finished:
            self._drop(connection)  # its last word does not get through
        elif connection.blocked_since is None:
            connection.blocked_since = now
            if not connection.stall_timer:
                self._watch_stall(connection, now)

    def datagram(self, sock: int, data: bytes, source: tuple[str, int], now: float) -> None:
        """A datagram arrived at a UDP socket."""
        self._now = now
        if self._quic is not None:
            self._quic.receive(sock, data, source, now)

    def socket_opened(
        self, sock: int, address: Multiaddr, now: float, *, listening: bool = False
    ) -> None:
        """A UDP socket is bound to ``address``: that of ``OpenSocket``, or one for listening.

        With ``listening`` peers that we did not call are answered there.
        """
        self._now = now
        if self._quic is not None:
            self._quic.socket_opened(sock, address, now, listening=listening)

    def socket_failed(self, sock: int, error: Exception, now: float) -> None:
        """An ``OpenSocket`` could not be carried out."""
        self._now = now
        if self._quic is not None:
            self._quic.socket_failed(sock, error, now)

    def handle_timeout(self, now: float) -> None:
        """The time of ``next_timeout`` has come; harmless when it has not."""
        self._now = now
        self.timers.run(now)

    # Outputs to the runtime.

    def writable(self) -> list[ConnId]:
        """Connections that have something to send and a socket that takes it."""
        dirty = self._dirty
        if not dirty:
            return []
        ready = []
        for conn, connection in list(dirty.items()):
            if connection.blocked_since is None and connection.wants_write:
                ready.append(conn)
            else:
                del dirty[conn]
                if connection.draining is not None:
                    self._closing.check(connection, self._now)  # may put it back
        return ready

    def data_to_send(self, conn: ConnId, now: float) -> bytes:
        """About 64 KiB for one transport; empty when there is nothing."""
        connection = self._connections.get(conn)
        if connection is None:
            return b""
        was_finished = connection.finished
        data = connection.data_to_send(now)
        if not connection.wants_write:
            self._dirty.pop(conn, None)
        if connection.error is not None and not was_finished:
            self._drop(connection)
        elif was_finished:
            if data:  # the last words, which come once
                self._closing.said_goodbye(connection)
        elif connection.draining is not None:
            self._closing.check(connection, now)
        return data

    @property
    def has_datagrams(self) -> bool:
        """Whether ``datagrams`` may have something."""
        return self._quic is not None and self._quic.busy

    def datagrams(self, now: float) -> list[tuple[int, tuple[str, int], bytes]]:
        """What goes out by UDP: socket, target, datagram. Call it again until it is empty."""
        self._now = now
        return [] if self._quic is None else self._quic.datagrams(now)

    def poll(self) -> list[Action | Event]:
        """What happened and what is to be done since the last call, in order."""
        outputs = self._outputs
        if not outputs:
            return []
        taken = outputs[:]
        outputs.clear()  # in place: its append was handed out
        return taken

    @property
    def busy(self) -> bool:
        """Whether ``writable``, ``datagrams`` or ``poll`` may have something."""
        if self._dirty or self._outputs:
            return True
        return self._quic is not None and self._quic.busy

    def next_timeout(self) -> float | None:
        """When to call ``handle_timeout``, or None."""
        return self.timers.next_timeout()

    # Commands of the application: peers and connections.

    def listening(self, addresses: Sequence[Multiaddr], now: float) -> None:
        """Tell where we can be reached; peers that are connected are told."""
        self.addresses = list(addresses)
        self._identify.changed(now)

    def handle(self, protocol: str, now: float) -> None:
        """Accept streams of a protocol; they arrive as ``StreamOpened``."""
        encode(protocol)  # refuses what is no name
        self.serve(None, protocol, now)

    def unhandle(self, protocol: str, now: float) -> None:
        """Accept no more streams of a protocol. Open ones go on."""
        if self._handlers.get(protocol, self) is not None:
            raise LocalError(f"the application does not handle {protocol}")
        self.unserve(protocol, now)

    def check_transport(self, address: Multiaddr) -> None:
        """Raises LocalError if there is no transport for an address, or what it needs is missing.

        A private network has no QUIC: that knows no pre-shared keys.
        """
        where = route(address)
        self.carriers.check(where)
        if where.kind == UDP and not where.quic:
            raise LocalError(f"{address} does not say what is spoken over UDP: /quic-v1")
        if where.quic and self._quic is None:
            raise LocalError(
                "this host speaks no QUIC: pip install 'anyp2p[quic]' (simulated ones never do)"
            )

    def _why_not(self, address: Multiaddr) -> str | None:
        try:
            self.check_transport(address)
        except LocalError as error:
            return str(error)
        return None

    def stop_listening(self) -> None:
        """Take no more calls at UDP sockets. (Other listeners are the runtime's.)"""
        if self._quic is not None:
            self._quic.stop_listening()

    def add_service(self, service: Service) -> None:
        """Add a protocol that lives in the node."""
        for protocol in service.protocols:
            if protocol in self._handlers:
                raise LocalError(f"{protocol} has a handler already")
        service.attach(self)
        self._services.append(service)
        for protocol in service.protocols:
            self._handlers[protocol] = service
        if type(service).on_event is not Service.on_event:
            self._watchers.append(service)
        if isinstance(service, Perf):
            self._perf = service
        if service.protocols:
            self._identify.changed(self._now)

    def dial(
        self,
        peer: PeerId | None,
        addresses: Sequence[Multiaddr],
        now: float,
        *,
        hearsay: bool = False,
    ) -> RequestId:
        """Connect to a peer by the addresses given and known.

        Those given are always tried, unless others told of them (``hearsay``); those and known ones
        are spared for a while after they failed.
        ``PeerConnected`` or ``DialFailed`` carries the returned number. A dial to a peer that is
        being dialed joins it; a peer that is connected stays connected. Without ``peer``, whoever
        answers is accepted. Raises ``LimitReached`` for ``max_pending_dials`` and
        ``max_connections``.
        """
        self._now = now
        if peer is not None and (connections := self.connections(peer)):
            request = self.next_id()
            self.emit(PeerConnected(request, peer, connections[0].id))
            return request
        limit = self.limits.max_connections
        if len(self._connections) >= limit:
            raise LimitReached(f"max_connections: {limit} connections are open; close some")
        given = [_without_peer(address) for address in addresses]
        known: list[Multiaddr] = []
        if peer is not None:
            known += map(_without_peer, self.peers.addresses(peer, now))
        if hearsay:
            return self._dialing.dial(peer, (), now, known=[*given, *known])
        return self._dialing.dial(peer, given, now, known=known)

    def cancel_dial(self, dial: RequestId) -> None:
        """Nobody waits for this dial any more. One that is over is ignored."""
        self._dialing.cancel(dial)

    def close(self, conn: ConnId, now: float) -> None:
        """Close a connection in order: what was written is delivered first, within 5 s."""
        connection = self._connections.get(conn)
        if connection is None or connection.closing:
            return
        self._now = now
        self._dirty[conn] = connection
        if connection.announced:
            self._closing.start(connection, now)
        else:  # nobody has written anything yet
            self._closing.abort(connection, now)

    def abort(self, conn: ConnId, now: float) -> None:
        """Drop a connection and everything on it at once."""
        connection = self._connections.get(conn)
        if connection is not None:
            self._closing.abort(connection, now)

    def connections(self, peer: PeerId | None = None) -> list[Connection]:
        """Open connections, oldest first; all of them, or those to one peer."""
        if peer is not None:
            return [c for c in self._by_peer.get(peer, {}).values() if c.usable]
        return [c for c in self._connections.values() if c.announced and c.usable]

    def connection(self, peer: PeerId) -> Connection:
        """The oldest open connection to a peer. Raises ``LocalError`` if there is none."""
        for connection in self._by_peer.get(peer, {}).values():
            if connection.usable:
                return connection
        raise LocalError(f"not connected to {peer}: connect first")

    def is_connected(self, peer: PeerId) -> bool:
        """Whether a connection to a peer can carry streams."""
        same = self._by_peer.get(peer)
        return same is not None and any([connection.usable for connection in same.values()])

    def connected_peers(self) -> list[PeerId]:
        """Peers with an open connection, in the order of their first one."""
        return list(self._by_peer)

    def identified(self, peer: PeerId) -> IdentifyInfo | None:
        """What a connected peer said of itself, None until it has."""
        for connection in self._by_peer.get(peer, {}).values():
            info = self._identify.infos.get(connection.id)
            if info is not None:
                return info
        return None

    def ping(self, peer: PeerId, now: float) -> RequestId:
        """Measure a round trip; ``PingSucceeded`` or ``PingFailed`` carries the number."""
        connection = self.connection(peer)
        self._dirty[connection.id] = connection
        return self._ping.ping(connection, now)

    def perf(self, peer: PeerId, upload: int, download: int, now: float) -> RequestId:
        """Move bytes both ways; ``PerfFinished`` or ``PerfFailed`` carries the number."""
        if self._perf is None:
            self.add_service(Perf())
        assert self._perf is not None
        connection = self.connection(peer)
        self._dirty[connection.id] = connection
        return self._perf.run(connection, upload, download, now)

    def cancel_perf(self, request: RequestId, now: float) -> None:
        """Break off a perf run. One that is over is ignored."""
        if self._perf is not None:
            self._perf.cancel(request, now)

    # Commands of the application: streams.

    def open_stream(
        self, peer: PeerId, protocols: Sequence[str], now: float, *, optimistic: bool = True
    ) -> StreamId:
        """Open a stream; ``StreamOpened`` or ``StreamFailed`` carries the returned number.

        A single protocol is proposed together with the first bytes written, unless the peer has
        said that it does not speak it; a refusal then shows as an error on the stream.
        """
        connection = self.connection(peer)
        stream_id = self.next_id()
        info = self._identify.infos.get(connection.id)
        if info is not None and protocols and protocols[0] not in info.protocols:
            optimistic = False

        def on_open(stream: Stream, protocol: str, now: float) -> None:
            self._opening.pop(stream_id, None)
            self._add_stream(stream_id, connection, stream, protocol)

        def on_fail(error: Exception, now: float) -> None:
            waiting = self._opening.pop(stream_id, None)
            self.touch(connection)
            opened = self._streams.get(stream_id)
            if opened is not None:
                opened.fail(connection.error or error, now)
            elif waiting is not None:
                self.emit(StreamFailed(stream_id, connection.error or error))

        self._dirty[connection.id] = connection
        stream = connection.open_stream(protocols, on_open, on_fail, now, optimistic=optimistic)
        if stream_id not in self._streams:
            self._opening[stream_id] = (connection, stream)
        return stream_id

    def cancel_open(self, stream: StreamId, now: float) -> None:
        """Nobody waits for this stream any more: reset it, whether it opened or not."""
        opening = self._opening.pop(stream, None)
        if opening is not None:
            connection, unopened = opening
            unopened.reset()
            self.touch(connection)
        elif stream in self._streams:
            self.stream_reset(stream, 0, now)

    def stream(self, stream: StreamId) -> AppStream:
        """An open stream. Raises ``LocalError`` once it was closed or reset by us."""
        try:
            return self._streams[stream]
        except KeyError:
            raise LocalError(f"stream {stream} was closed") from None

    def stream_read(self, stream: StreamId, max_bytes: int, now: float) -> bytes | None:
        """Up to ``max_bytes``, b"" at the end, None: wait for ``StreamReadable``."""
        found = self.stream(stream)
        data = found.read(max_bytes, now)
        if data and found.connection.wants_write:  # mostly there is no window to grant yet
            self._dirty[found.connection.id] = found.connection
        return data

    def stream_write(self, stream: StreamId, data: bytes | bytearray | memoryview) -> int:
        """Bytes taken; fewer than all: wait for ``StreamWritable``."""
        found = self.stream(stream)
        connection = found.connection
        self._dirty[connection.id] = connection
        return found.write(data)

    def stream_writable(self, stream: StreamId) -> bool:
        """Whether a write would take something; if not, ``StreamWritable`` follows."""
        return self.stream(stream).writable()

    def stream_drained(self, stream: StreamId) -> bool:
        """Whether all that was written was handed out; if not, ``StreamDrained`` follows."""
        return self.stream(stream).drained()

    def stream_write_eof(self, stream: StreamId) -> None:
        """Close our direction once everything written is sent."""
        found = self.stream(stream)
        self._dirty[found.connection.id] = found.connection
        found.write_eof()

    def stream_close(self, stream: StreamId, now: float, *, discard: bool = True) -> None:
        """Close both directions: what was written is delivered, what still comes is dropped.

        Without ``discard`` what still comes is answered with a reset.
        """
        found = self._streams.pop(stream, None)
        if found is not None:
            found.connection.app_streams.pop(stream, None)
            self._dirty[found.connection.id] = found.connection
            found.close(now, discard=discard)

    def stream_reset(self, stream: StreamId, code: int, now: float) -> None:
        """Abort both directions at once."""
        found = self._streams.pop(stream, None)
        if found is not None:
            found.connection.app_streams.pop(stream, None)
            self._dirty[found.connection.id] = found.connection
            found.reset(code, now)

    # What services and connections call (see service.Context and connection.Owner).

    @property
    def protocols(self) -> list[str]:
        """Protocols that we accept streams for."""
        return list(self._handlers)

    def serve(self, service: Service | None, protocol: str, now: float) -> None:
        if protocol in self._handlers:
            raise LocalError(f"{protocol} has a handler already")
        self._handlers[protocol] = service
        self._identify.changed(now)

    def unserve(self, protocol: str, now: float) -> None:
        del self._handlers[protocol]
        self._identify.changed(now)

    def supports(self, protocol: str) -> bool:
        return protocol in self._handlers

    def wall(self, now: float) -> float:
        return now + self.epoch

    def next_id(self) -> int:
        self._next += 1
        return self._next

    def emit(self, event: Event) -> None:
        self._outputs.append(event)
        for service in self._watchers:
            service.on_event(event, self._now)

    def call_at(self, when: float, reason: str, callback: Callable[[float], object]) -> int:
        return self.timers.call_at(when, reason, callback)

    def cancel(self, handle: int) -> None:
        self.timers.cancel(handle)

    def act(self, action: Action) -> None:
        quic = self._quic
        if quic is not None:
            if type(action) is Dial and route(action.address).quic:
                dial = self._dialing.attempt(action.conn)
                expected = None if dial is None else dial.expected(action.conn)
                quic.dial(action.conn, action.address, expected, self._now)
                return
            if type(action) is CloseConnection:
                connection = self._connections.get(action.conn)
                if connection is not None and type(connection) is not UpgradedConnection:
                    quic.close(action.conn, self._now)
                    return
        self._outputs.append(action)

    def begin(self, connection: Connection, now: float) -> None:
        self._connections[connection.id] = connection
        self._dirty[connection.id] = connection
        connection.timer = self.timers.call_at(
            now + self.limits.upgrade_timeout,
            "upgrade",
            lambda now: self._upgrade_expired(connection, now),
        )

    def connection_count(self) -> int:
        return len(self._connections)

    def fail(self, conn: ConnId, error: Exception, now: float) -> bool:
        connection = self._connections.get(conn)
        if connection is not None:
            self._fail(connection, error, now)
        return connection is not None

    def touch(self, connection: Connection) -> None:
        if connection.id in self._connections:
            self._dirty[connection.id] = connection

    def shed(self, now: float) -> None:
        for stream in shed(self._streams.values(), self.limits.max_unread_total, now):
            self.touch(stream.connection)

    def on_upgraded(self, connection: Connection, now: float) -> None:
        peer = connection.peer
        assert peer is not None and connection.muxer is not None
        self.timers.cancel(connection.timer)
        if peer == self.peer_id:
            raise HandshakeError("the connection leads back to this node")
        same = self._by_peer.get(peer, {})
        if len(same) >= self.limits.max_connections_per_peer:
            raise MuxerError(
                f"{len(same)} connections to {peer} are open already "
                "(limit max_connections_per_peer)",
                RESOURCE_LIMIT,
            )
        if not connection.initiator:
            self._admission.upgraded()
        connection.announced = True
        self._by_peer.setdefault(peer, {})[connection.id] = connection
        self.peers.connected(peer)
        self.emit(
            ConnectionOpened(connection.id, peer, not connection.initiator, connection.remote)
        )
        address = self._dialing.connected(connection.id, peer)
        if address is not None:
            self.peers.add_addresses(peer, (address,), now)
        self._arm_muxer(connection)
        for service in self._services:
            service.on_connected(connection, now)

    def on_stream(self, connection: Connection, stream: Stream, protocol: str, now: float) -> None:
        service = self._handlers.get(protocol)
        if service is not None:
            service.on_stream(connection, stream, protocol, now)
        else:
            self._add_stream(self.next_id(), connection, stream, protocol)

    # Inside.

    def _add_stream(
        self, stream_id: StreamId, connection: Connection, stream: Stream, protocol: str
    ) -> None:
        opened = AppStream(stream_id, connection, stream, protocol, self.emit)
        self._streams[stream_id] = opened
        connection.app_streams[stream_id] = opened
        assert connection.peer is not None
        self.emit(StreamOpened(stream_id, connection.id, connection.peer, protocol, stream.inbound))

    def _upgrade_expired(self, connection: Connection, now: float) -> None:
        if connection.error is None:
            limit = self.limits.upgrade_timeout
            self._fail(connection, TimedOut(f"negotiation took longer than {limit:g} s"), now)

    def _arm_muxer(self, connection: Connection) -> None:
        assert connection.muxer is not None
        when = connection.muxer.next_timeout()
        if when is None:  # it has not sent anything yet: look again
            when = self._now + self.limits.keepalive_timeout
        connection.timer = self.timers.call_at(
            when, "keepalive", lambda now: self._muxer_due(connection, now)
        )

    def _muxer_due(self, connection: Connection, now: float) -> None:
        if connection.error is None and connection.muxer is not None:
            try:
                connection.muxer.handle_timeout(now)
            except RemoteError as error:
                self._fail(connection, error, now)
            else:
                self._dirty[connection.id] = connection
                self._arm_muxer(connection)

    def _pause(self, connection: Connection) -> None:
        """Stop reading from a peer that makes us answer and reads no answers."""
        queued = connection.queued_answers
        if connection.muxer is not None:
            queued += connection.muxer.queued_control
        if queued > PAUSE_AT and not connection.paused:
            connection.paused = True
            self._outputs.append(PauseReading(connection.id))

    def _watch_stall(self, connection: Connection, now: float) -> None:
        """Cut a peer off that has not taken a byte for ``send_timeout``."""
        since = connection.blocked_since
        connection.stall_timer = 0
        if since is None or connection.id not in self._connections:
            return
        limit = self.limits.send_timeout
        if now - since >= limit:
            self._fail(connection, TimedOut(f"the peer has read nothing for {limit:g} s"), now)
            return
        connection.stall_timer = self.timers.call_at(
            since + limit, "stall", lambda now: self._watch_stall(connection, now)
        )

    def _fail(self, connection: Connection, error: Exception, now: float) -> None:
        """End a connection because of ``error``; a last word to the peer goes out first."""
        if connection.error is None:
            connection.fail(error, now)
            self._dirty[connection.id] = connection
            if connection.blocked_since is not None or not connection.wants_write:
                self._drop(connection)  # otherwise behind the last word to the peer

    def _drop(self, connection: Connection) -> None:
        connection.drop()
        self.act(CloseConnection(connection.id, abort=True))

    def _forget(self, connection: Connection, now: float) -> None:
        peer = connection.peer
        assert peer is not None
        same = self._by_peer[peer]
        del same[connection.id]
        if not same:
            del self._by_peer[peer]
            self.peers.disconnected(peer, now)
        for service in self._services:
            service.on_disconnected(connection, now)


class _Lookups:
    """A resolver whose answers come as inputs of the node do: with the time."""

    __slots__ = ("_node", "_resolver")

    def __init__(self, node: Node, resolver: Resolver) -> None:
        self._node = node
        self._resolver = resolver

    def query(self, name: str, kind: Kind, answered: Answered, now: float) -> None:
        def heard(records: list[str] | Exception, now: float) -> None:
            self._node._now = now
            answered(records, now)

        self._resolver.query(name, kind, heard, now)


def _quic_transport(*args: Any) -> "QuicTransport":
    from .quic_transport import QuicTransport  # much to load for a node without it

    return QuicTransport(*args)


def _label(connection: Connection, layers: tuple[str, ...]) -> None:
    """Say in its addresses what lies under a connection."""
    if layers:
        connection.local = connection.local and with_layers(connection.local, layers)
        connection.remote = connection.remote and with_layers(connection.remote, layers)


def _without_peer(address: Multiaddr) -> Multiaddr:
    # Behind a /dnsaddr it says which of the answers are meant.
    return address if address.names[0] == "dnsaddr" else address.split_peer()[0] or address


__all__ = ["Node"]
