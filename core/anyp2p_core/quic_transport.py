"""QUIC as a transport of one node: its UDP sockets, who calls through which, who may call us.

dial --a socket that reaches there--> the endpoint calls
     --none--> OpenSocket, and the dial waits --socket_opened--> calls
                                              --socket_failed--> the dial failed
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from .admission import Admission
from .connection import Owner as ConnectionOwner
from .crypto import Crypto
from .errors import DialError
from .events import Action, OpenSocket
from .multiaddr import Multiaddr
from .quic import Datagram, QuicEndpoint, Source, quic_address
from .quic_connection import QuicConnection
from .quic_session import QuicProvider
from .route import Route, route
from .scope import LOOPBACK, scope

if TYPE_CHECKING:
    from .closing import Closing
    from .connection import Connection
    from .peer_id import PeerId

MakeProvider: TypeAlias = Callable[[float], QuicProvider]

_ANYWHERE = {"ip4": "0.0.0.0", "ip6": "::"}


class Owner(ConnectionOwner, Protocol):
    """What this transport needs from its node."""

    crypto: Crypto

    def next_id(self) -> int: ...
    def act(self, action: Action) -> None: ...
    def fail(self, conn: int, error: Exception, now: float) -> bool: ...
    def disconnected(self, conn: int, error: Exception | None, now: float) -> None: ...
    def begin(self, connection: "Connection", now: float) -> None:
        """A connection is in the making: from now on it has a deadline."""
        ...

    def connection_count(self) -> int: ...


class QuicTransport:
    """All of QUIC that is not the protocol itself."""

    def __init__(
        self, make: MakeProvider, owner: Owner, admission: Admission, closing: "Closing"
    ) -> None:
        """``make`` is called with the wall time, once QUIC is really wanted."""
        self._make = make
        self._owner = owner
        self._admission = admission
        self._closing = closing
        self._made: QuicEndpoint | None = None
        self._sockets: dict[int, Multiaddr] = {}
        self._opening: dict[str, int] = {}
        """By family: the socket that was asked for."""
        self._waiting: dict[int, tuple[QuicConnection, Route]] = {}
        self.limits = owner.limits
        self.call_at = owner.call_at
        self.cancel = owner.cancel

    @property
    def busy(self) -> bool:
        return self._made is not None and self._made.busy

    # Sockets.

    def socket_opened(self, sock: int, address: Multiaddr, now: float, *, listening: bool) -> None:
        """A socket is there; with ``listening`` strangers may call at it."""
        self._sockets[sock] = address
        if listening:
            self._endpoint(now).listening[sock] = None
        for family, number in list(self._opening.items()):
            if number == sock:
                del self._opening[family]
        for conn, (connection, where) in list(self._waiting.items()):
            if self._reaching(where) is not None:
                del self._waiting[conn]
                self._call(connection, where, now)

    def socket_failed(self, sock: int, error: Exception, now: float) -> None:
        """A socket could not be opened: so nobody can be called through it."""
        for family, number in list(self._opening.items()):
            if number != sock:
                continue
            del self._opening[family]
            for conn, (_, where) in list(self._waiting.items()):
                if where.family == family:
                    del self._waiting[conn]
                    self._owner.disconnected(conn, error, now)

    def stop_listening(self) -> None:
        """Nobody may call any more; what is open goes on."""
        if self._made is not None:
            self._made.listening.clear()

    # Connections.

    def dial(self, conn: int, address: Multiaddr, expected: "PeerId | None", now: float) -> None:
        """Call an IP address."""
        owner = self._owner
        where = route(address)
        connection = QuicConnection(
            conn,
            initiator=True,
            owner=owner,
            crypto=owner.crypto,
            local=None,
            remote=address,
            expected=expected,
        )
        owner.begin(connection, now)
        if self._reaching(where) is not None:
            self._call(connection, where, now)
            return
        self._waiting[conn] = (connection, where)
        if where.family not in self._opening:
            sock = self._opening[where.family] = owner.next_id()
            anywhere = _ANYWHERE[where.family]
            owner.act(OpenSocket(sock, Multiaddr(f"/{where.family}/{anywhere}/udp/0")))

    def close(self, conn: int, now: float) -> None:
        """End a connection, or a dial."""
        if self._waiting.pop(conn, None) is not None:
            self._owner.disconnected(conn, DialError("the dial was cancelled"), now)
        else:
            self._endpoint(now).close(conn, now)

    def receive(self, sock: int, data: bytes, source: Source, now: float) -> None:
        """A datagram arrived. Never raises."""
        if self._made is not None:
            self._made.receive(sock, data, source, now)

    def datagrams(self, now: float) -> list[Datagram]:
        """What is to be sent, until it is empty."""
        return [] if self._made is None else self._made.datagrams(now)

    # What the endpoint asks for.

    def accept_quic(self, sock: int, source: Source, now: float) -> QuicConnection | None:
        owner = self._owner
        remote = quic_address(source)
        if not self._admission.admit(owner.connection_count(), remote, now):
            return None
        local = self._sockets.get(sock)
        connection = QuicConnection(
            owner.next_id(),
            initiator=False,
            owner=owner,
            crypto=owner.crypto,
            local=None if local is None else local.encapsulate("/quic-v1"),
            remote=remote,
            expected=None,
        )
        owner.begin(connection, now)
        return connection

    def fail(self, conn: int, error: Exception, now: float) -> bool:
        return self._owner.fail(conn, error, now)

    def disconnected(self, conn: int, error: Exception | None, now: float) -> None:
        self._owner.disconnected(conn, error, now)

    def flushed(self, connection: "Connection", now: float) -> None:
        self._closing.check(connection, now)

    # Inside.

    def _endpoint(self, now: float) -> QuicEndpoint:
        if self._made is None:
            self._made = QuicEndpoint(self._make(self._owner.wall(now)), self)
        return self._made

    def _reaching(self, where: Route) -> int | None:
        """A socket from which an address can be reached: one bound to loopback stays there."""
        near = where.host.startswith("127.") or where.host == "::1"
        for sock, address in self._sockets.items():
            first = address.components[0]
            if first.name != where.family:
                continue
            if first.value == _ANYWHERE[where.family] or (scope(address) == LOOPBACK) == near:
                return sock
        return None

    def _call(self, connection: QuicConnection, where: Route, now: float) -> None:
        sock = self._reaching(where)
        assert sock is not None
        connection.local = self._sockets[sock].encapsulate("/quic-v1")
        self._endpoint(now).dial(connection, sock, (where.host, where.port), now)
