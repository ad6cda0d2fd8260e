"""All QUIC connections of a node: which datagram belongs to which, and which are answered at all.

Specs: https://www.rfc-editor.org/rfc/rfc9000#section-5 and #section-8
       https://github.com/libp2p/specs/blob/master/quic/README.md

    datagram --id is ours, same socket, same address--> session
             --another address--> dropped: there is no migration
             --long header, another version, 1200 bytes or more--> version negotiation
             --Initial, 1200 bytes or more, on a listening socket-->
                   many half open, no valid token--> Retry
                   not admitted--> dropped
                   admitted--> new session
             --an id that we closed--> our last words, a few times
             --else--> dropped

    session --dirty--> datagrams, at most MAX_BATCH at a time --> sockets

A session that nothing happens to is not looked at. Each has one timer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from .errors import HandshakeError, RemoteError
from .limits import Limits
from .multiaddr import Multiaddr
from .quic_connection import NO_ERROR, QuicConnection
from .quic_packet import (
    LONG,
    MIN_FIRST_ID,
    MIN_INITIAL,
    VERSION_1,
    LongHeader,
    parse_long_header,
    version_negotiation,
)
from .quic_session import ID_LENGTH, QuicProvider, QuicSession

if TYPE_CHECKING:
    from .connection import Connection

Source = tuple[str, int]
Datagram = tuple[int, Source, bytes]

MAX_BATCH = 256
"""Datagrams that one call of ``datagrams`` returns, and not many more."""
MAX_STATELESS = 64
"""Answers that belong to no session and wait to be sent; more are dropped."""
MAX_FAREWELLS = 256
FAREWELL_TIME = 3.0
"""Seconds for which our last words are repeated to a peer that has missed them."""
MAX_REPEATS = 3

FAR = 0.01
"""Seconds: a timer further away than this stays when its deadline moves back, and looks again."""

_SHORT_END = 1 + ID_LENGTH


class Owner(Protocol):
    """What an endpoint needs from its node."""

    limits: Limits

    def call_at(self, when: float, reason: str, callback: Callable[[float], object]) -> int: ...
    def cancel(self, handle: int) -> None: ...
    def accept_quic(self, sock: int, source: Source, now: float) -> QuicConnection | None:
        """A connection for a peer that calls; None: it is not admitted."""
        ...

    def fail(self, conn: int, error: Exception, now: float) -> object: ...
    def disconnected(self, conn: int, error: Exception | None, now: float) -> object: ...
    def flushed(self, connection: "Connection", now: float) -> object:
        """Something was sent for a connection that is closing in order."""
        ...


class _Link:
    """One session, where its peer is, and what it is called."""

    __slots__ = (
        "connection", "deadline", "error", "half_open", "ids", "over", "session", "sock", "target",
        "timer",
    )  # fmt: skip

    def __init__(
        self, connection: QuicConnection, session: QuicSession, sock: int, target: Source
    ) -> None:
        self.connection = connection
        self.session = session
        self.sock = sock
        self.target = target
        self.ids: dict[bytes, None] = {}
        self.timer = 0
        self.deadline = 0.0
        self.half_open = False
        self.over = False
        self.error: Exception | None = None


@dataclass(slots=True)
class _Farewell:
    """What a closed session said last, for whoever still talks to it."""

    sock: int
    target: Source
    packets: list[bytes]
    until: float
    left: int


class QuicEndpoint:
    """The sessions of one node. Sockets are numbers; addresses are (host, port) pairs."""

    def __init__(self, provider: QuicProvider, owner: Owner) -> None:
        self.listening: dict[int, None] = {}
        """Sockets on which strangers may call."""
        self._provider = provider
        self._owner = owner
        self._links: dict[bytes, _Link] = {}
        self._by_conn: dict[int, _Link] = {}
        self._dirty: dict[int, _Link] = {}
        self._farewells: dict[bytes, _Farewell] = {}
        self._half_open = 0
        self._stateless: list[Datagram] = []

    def __len__(self) -> int:
        """The number of sessions."""
        return len(self._by_conn)

    @property
    def busy(self) -> bool:
        """Whether ``datagrams`` may have something."""
        return bool(self._dirty or self._stateless)

    # Inputs.

    def dial(self, connection: QuicConnection, sock: int, target: Source, now: float) -> None:
        """Call ``target``; the connection knows whom it expects there."""
        link = self._start(connection, self._provider.connect(now), sock, target)
        self._dirty[connection.id] = link

    def receive(self, sock: int, data: bytes, source: Source, now: float) -> None:
        """Take a datagram that arrived. Never raises, whatever it is."""
        if len(data) <= _SHORT_END:
            return
        if data[0] & LONG:
            header = parse_long_header(data)
            if header is None:
                return
            link = self._links.get(header.destination)
            if link is None:
                self._receive_unknown(header, sock, data, source, now)
                return
        else:
            name = data[1:_SHORT_END]
            link = self._links.get(name)
            if link is None:
                self._repeat(name, sock, source, now)
                return
        if link.target == source and link.sock == sock and not link.over:
            self._feed(link, data, now)

    # Outputs.

    def datagrams(self, now: float) -> list[Datagram]:
        """What is to be sent, ``(socket, target, datagram)``. Call again until it is empty."""
        out = self._stateless[:]
        self._stateless.clear()
        dirty = self._dirty
        while dirty and len(out) < MAX_BATCH:
            for conn, link in list(dirty.items()):
                del dirty[conn]
                self._flush(link, out, now)
                if len(out) >= MAX_BATCH:
                    break
        return out

    # Commands.

    def close(self, conn: int, now: float, code: int = NO_ERROR) -> None:
        """End a session; the peer is told ``code`` unless it was told another before.

        ``Owner.disconnected`` follows from ``datagrams``. A connection that is not ours is ignored.
        """
        link = self._by_conn.get(conn)
        if link is not None:
            link.session.close(code)
            link.over = True
            self._dirty[conn] = link

    # Arrivals that no session knows.

    def _receive_unknown(
        self, header: LongHeader, sock: int, data: bytes, source: Source, now: float
    ) -> None:
        if header.destination in self._farewells:
            self._repeat(header.destination, sock, source, now)
            return
        if sock not in self.listening or len(data) < MIN_INITIAL:
            return
        if header.version != VERSION_1:
            if header.version:  # 0: somebody answers what we never asked
                self._answer(sock, source, version_negotiation(header))
            return
        destination = header.destination
        if not header.initial or len(destination) < MIN_FIRST_ID:
            return
        original = None
        if header.token:
            original = self._provider.check_token(header.token, source, destination, now)
        if original is None and self._half_open >= self._owner.limits.max_pending_inbound // 4:
            # Whoever is not where it says it is costs us no state from here on.
            answer = self._provider.retry(source, destination, header.source, now)
            self._answer(sock, source, answer)
            return
        connection = self._owner.accept_quic(sock, source, now)
        if connection is None:
            return
        session = self._provider.accept(destination, original, now)
        link = self._start(connection, session, sock, source)
        link.half_open = True
        self._half_open += 1
        self._name(link, destination)
        self._feed(link, data, now)
        if not session.started:
            self._on_closed(link, HandshakeError("the first packet was not what it seemed"), now)

    def _answer(self, sock: int, source: Source, data: bytes) -> None:
        if len(self._stateless) < MAX_STATELESS:
            self._stateless.append((sock, source, data))

    def _repeat(self, name: bytes, sock: int, source: Source, now: float) -> None:
        """A packet for a session that was closed: its peer may have missed that."""
        farewell = self._farewells.get(name)
        if farewell is None or farewell.sock != sock or farewell.target != source:
            return
        if now >= farewell.until or not farewell.left:
            del self._farewells[name]
            return
        farewell.left -= 1
        for packet in farewell.packets:
            self._answer(sock, source, packet)

    # Sessions.

    def _start(
        self, connection: QuicConnection, session: QuicSession, sock: int, target: Source
    ) -> _Link:
        link = _Link(connection, session, sock, target)
        self._by_conn[connection.id] = link
        self._name(link, session.id)
        session.on_issued = partial(self._name, link)
        session.on_retired = partial(self._unname, link)
        session.on_closed = partial(self._on_closed, link)
        connection.attach(session, self._provider, partial(self._wake, link))
        return link

    def _feed(self, link: _Link, data: bytes, now: float) -> None:
        self._dirty[link.connection.id] = link
        try:
            link.session.receive(data, now)
        except RemoteError as error:
            self._owner.fail(link.connection.id, error, now)
        if link.half_open and link.connection.muxer is not None:
            link.half_open = False
            self._half_open -= 1

    def _flush(self, link: _Link, out: list[Datagram], now: float) -> None:
        """Append what one session has to send. A session that is over says its last words."""
        session = link.session
        sock, target = link.sock, link.target
        muxer = link.connection.streams
        packets: list[bytes] = []
        while not link.over:
            fed = 0 if muxer is None else muxer.feed(now)
            packets = session.datagrams_to_send(now)
            for packet in packets:
                out.append((sock, target, packet))
            if not fed or not packets:
                break
            if len(out) >= MAX_BATCH:
                self._dirty[link.connection.id] = link
                break
        if link.over:
            last = session.datagrams_to_send(now)
            for packet in last:
                out.append((sock, target, packet))
            self._remove(link)
            if last:
                self._remember(link, last, now)
            self._owner.disconnected(link.connection.id, link.error, now)
            return
        if link.connection.draining is not None:
            self._owner.flushed(link.connection, now)
        self._arm(link, now)

    def _arm(self, link: _Link, now: float) -> None:
        when = link.session.next_timeout()
        if when is None:
            return
        if link.timer:
            if link.deadline <= when and (link.deadline == when or link.deadline - now > FAR):
                return
            self._owner.cancel(link.timer)
        link.deadline = when
        link.timer = self._owner.call_at(when, "quic", partial(self._due, link))

    def _due(self, link: _Link, now: float) -> None:
        link.timer = 0
        when = link.session.next_timeout()
        if when is None or when > now:
            self._arm(link, now)
            return
        self._dirty[link.connection.id] = link
        try:
            link.session.handle_timeout(now)
        except RemoteError as error:
            self._owner.fail(link.connection.id, error, now)

    def _wake(self, link: _Link) -> None:
        conn = link.connection.id
        if conn in self._by_conn:
            self._dirty[conn] = link

    def _name(self, link: _Link, name: bytes) -> None:
        if name not in self._links and link.connection.id in self._by_conn:
            self._links[name] = link
            link.ids[name] = None

    def _unname(self, link: _Link, name: bytes) -> None:
        if name in link.ids:
            del link.ids[name]
            del self._links[name]

    def _on_closed(self, link: _Link, error: Exception | None, now: float) -> None:
        if not link.over:
            link.over = True
            link.error = error
            self._wake(link)

    def _remove(self, link: _Link) -> None:
        conn = link.connection.id
        del self._by_conn[conn]
        self._dirty.pop(conn, None)
        for name in link.ids:
            del self._links[name]
        if link.half_open:
            self._half_open -= 1
        if link.timer:
            self._owner.cancel(link.timer)

    def _remember(self, link: _Link, packets: list[bytes], now: float) -> None:
        farewells = self._farewells
        farewell = _Farewell(link.sock, link.target, packets, now + FAREWELL_TIME, MAX_REPEATS)
        for name in link.ids:
            farewells[name] = farewell
        while len(farewells) > MAX_FAREWELLS:
            del farewells[next(iter(farewells))]


def quic_address(source: Source) -> Multiaddr:
    """The address of a QUIC peer at ``source``.

    >>> str(quic_address(("192.0.2.1", 4001)))
    '/ip4/192.0.2.1/udp/4001/quic-v1'
    """
    host, port = source
    host, _, zone = host.partition("%")
    family = "ip6" if ":" in host else "ip4"
    scope = f"/ip6zone/{zone}" if zone else ""
    return Multiaddr(f"{scope}/{family}/{host}/udp/{port}/quic-v1")
