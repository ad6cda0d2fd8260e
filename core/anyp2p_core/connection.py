"""One transport connection: the layers joined, from raw bytes to streams.

Specs: https://github.com/libp2p/specs/blob/master/connections/README.md

    dialer                                           listener
      multistream "/noise", noise message 1    ->
                                               <-    multistream "/noise", noise message 2
      noise message 3                          ->    both authenticated, muxer known (early choice)
      streams, each with multistream inside   <->    streams

Without an early choice a second multistream inside the secure channel agrees on the muxer.

Layers are joined by calls: bytes go up through ``_receive``, which is assigned anew when a layer
takes over; they come down when ``data_to_send`` asks, so that frames are built when the socket can
take them and sealed once per flush.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .errors import ConnectionLost, HandshakeError, LocalError, MuxerError
from .multistream import Dialer, Listener, encode
from .negotiation import FailCallback, Inbound, OpenCallback, Outbound
from .security import SecureChannel, Security
from .stream import RESOURCE_LIMIT
from .yamux import Yamux
from .yamux_stream import Stream

if TYPE_CHECKING:
    from .closing import Drain
    from .keys import PublicKey
    from .limits import Limits
    from .multiaddr import Multiaddr
    from .peer_id import PeerId
    from .stream import AppStream

YAMUX = "/yamux/1.0.0"

FLUSH = 65519
"""Plaintext bytes per flush: one full noise message."""

Receive = Callable[[bytes, float], object]


class Owner(Protocol):
    """What a connection needs from its node."""

    limits: "Limits"
    security: dict[str, Security]
    unread: int

    def supports(self, protocol: str) -> bool: ...
    def call_at(self, when: float, reason: str, callback: Callable[[float], object]) -> int: ...
    def cancel(self, handle: int) -> None: ...
    def touch(self, connection: "Connection") -> None: ...
    def shed(self, now: float) -> None: ...
    def on_upgraded(self, connection: "Connection", now: float) -> None: ...
    def on_stream(
        self, connection: "Connection", stream: Stream, protocol: str, now: float
    ) -> None: ...


@dataclass(slots=True)
class Negotiated:
    """What the two ends agreed on."""

    security: str = ""
    muxer: str = ""
    early_muxer: bool = False


class Connection:
    """State of one connection. Raises ``RemoteError`` when the peer breaks the rules."""

    __slots__ = (
        "id", "initiator", "local", "remote", "peer", "public_key", "muxer", "negotiated", "error",
        "reason", "closing", "draining", "finished", "announced", "app_streams", "blocked_since",
        "paused", "timer", "stall_timer",
        "_now", "_owner", "_expected", "_out", "_inner", "_secure", "_receive",
        "_listening", "_proposing", "_negotiation_timer",
    )  # fmt: skip

    def __init__(
        self,
        conn: int,
        *,
        initiator: bool,
        owner: Owner,
        local: "Multiaddr | None",
        remote: "Multiaddr | None",
        expected: "PeerId | None",
        now: float,
    ) -> None:
        self.id = conn
        self.initiator = initiator
        self.local = local
        self.remote = remote
        self.peer: PeerId | None = None
        self.public_key: PublicKey | None = None
        self.muxer: Yamux | None = None
        self.negotiated = Negotiated()
        self.error: Exception | None = None
        """What streams report once the connection is over; None while it lives."""
        self.reason: Exception | None = None
        """Why it ended; None also when it was closed in order."""
        self.closing = False
        """No new streams."""
        self.draining: Drain | None = None
        """Closing in order: delivering what was written."""
        self.finished = False
        """Nothing more is sent: our direction of the transport is closed."""
        self.announced = False
        """The node has told of this connection."""
        self.app_streams: dict[int, AppStream] = {}
        self.blocked_since: float | None = None
        self.paused = False
        self.timer = 0
        self.stall_timer = 0
        self._now = now
        self._owner = owner
        self._expected = expected
        self._out: list[bytes] = []
        self._inner: list[bytes] = []
        self._secure: SecureChannel | None = None
        # Streams that have not agreed on a protocol, by id, the oldest first, and the one timer
        # for them: most agree soon, and a timer each would cost more than the rest of it.
        self._listening: dict[int, Inbound] = {}
        self._proposing: dict[int, Outbound] = {}
        self._negotiation_timer = 0
        names = tuple(owner.security)
        if initiator:
            dialer = Dialer(names, self._out.append)
            if len(names) == 1:  # then the first handshake message may travel with the proposal
                self._start_security(names[0])
            self._receive: Receive = _Select(dialer, self._security_agreed)
        else:
            listener = Listener(owner.security.__contains__, self._out.append)
            self._receive = _Select(listener, self._security_agreed)

    def __repr__(self) -> str:
        role = "dialed" if self.initiator else "accepted"
        return f"<Connection {self.id} {role} {self.remote} peer={self.peer}>"

    # Inputs.

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the transport."""
        self._now = now
        self._receive(data, now)

    def receive_eof(self) -> None:
        """The peer closed its direction. Raises HandshakeError when that was too early."""
        if self._secure is not None:
            self._secure.receive_eof()
        if self.muxer is None:
            raise HandshakeError("the peer closed the connection during negotiation")

    # Outputs.

    @property
    def usable(self) -> bool:
        """Whether we may open streams."""
        return not self.closing and (self.muxer is None or self.muxer.peer_gone_away is None)

    @property
    def wants_write(self) -> bool:
        if self._out or self._inner:
            return not self.finished
        muxer = self.muxer
        return muxer is not None and muxer.wants_write and not self.finished

    def data_to_send(self, now: float) -> bytes:
        """About 64 KiB for the transport, sealed once."""
        inner = self._inner
        if self.muxer is None:
            chunks = inner[:]
        elif inner:
            chunks = inner + self.muxer.data_to_send(FLUSH, now)
        else:
            chunks = self.muxer.data_to_send(FLUSH, now)
        inner.clear()
        out = self._out
        if not out:
            return self._secure.seal(chunks) if chunks and self._secure is not None else b""
        if chunks and self._secure is not None:
            out.append(self._secure.seal(chunks))
        data = b"".join(out)
        out.clear()  # in place: the layers hold this list's append
        return data

    # Commands.

    def open_stream(
        self,
        protocols: Sequence[str],
        on_open: OpenCallback,
        on_fail: FailCallback,
        now: float,
        *,
        optimistic: bool = True,
    ) -> Stream:
        """Open a stream and propose ``protocols``, best first.

        ``on_open(stream, protocol, now)`` sets the stream's callbacks. With one protocol and
        ``optimistic`` it is called at once, and ``on_fail`` may follow it.
        """
        if self.muxer is None:
            raise LocalError("the connection is still negotiating")
        if not self.usable:
            raise LocalError(f"the connection to {self.peer} is closing")
        if not protocols:
            raise LocalError("name at least one protocol")
        for protocol in protocols:
            encode(protocol)  # refuses what is no name, before anything is opened
        stream = self.muxer.open(now)
        limits = self._owner.limits
        deadline = now + limits.negotiation_timeout
        proposing = self._proposing
        if len(proposing) >= 2 * limits.max_outbound_streams:  # most of them were reset by us
            for stream_id in [key for key, one in proposing.items() if one.stream.is_reset]:
                del proposing[stream_id]
        proposing[stream.id] = Outbound(
            stream,
            protocols,
            on_open,
            on_fail,
            proposing.pop,
            optimistic=optimistic,
            deadline=deadline,
            now=now,
        )
        if not self._negotiation_timer:
            self._watch_negotiations(deadline)
        return stream

    def fail(self, error: Exception, now: float) -> None:
        """The connection cannot go on: say so to the peer if possible, and break every stream."""
        if self.muxer is not None and isinstance(error, MuxerError):
            self.muxer.go_away(error.code)
            self._inner += self.muxer.data_to_send(0, now)  # ``close`` drops what is queued
        self.lost(error, now)

    def lost(self, error: Exception | None, now: float) -> None:
        """The connection is over, in order if ``error`` is None."""
        if self.error is not None:
            return
        if error is None and self.muxer is not None and self.muxer.peer_gone_away:
            code = self.muxer.peer_gone_away
            error = MuxerError(f"the peer ended the session with code {code:#x}", code)
        where = self.peer or self.remote
        if error is None:
            self.error = ConnectionLost("the connection to {} was closed", where)
        else:
            self.reason = error
            self.error = ConnectionLost("the connection to {} ended: {}", where, error)
            self.error.__cause__ = error
        self.closing = True
        self._owner.cancel(self._negotiation_timer)
        if self.muxer is not None:
            self.muxer.close(now)
        self._proposing.clear()  # those that are left were reset by us

    def unsent(self) -> int:
        """Bytes written to streams and not yet handed out."""
        return 0 if self.muxer is None else sum(s.unsent for s in self.muxer.streams.values())

    # Accounting of what the application leaves unread.

    def on_unread(self, size: int, now: float) -> None:
        """An application stream buffered ``size`` bytes. (The muxer bounds one connection.)"""
        owner = self._owner
        owner.unread += size
        if owner.unread > owner.limits.max_unread_total:
            owner.shed(now)

    def on_read(self, stream: Stream, size: int, now: float) -> None:
        """The application read, or dropped, ``size`` buffered bytes."""
        self._owner.unread -= size
        stream.credit(size, now)

    # The upgrade.

    def _start_security(self, protocol: str) -> None:
        self.negotiated.security = protocol
        channel = self._secure = self._owner.security[protocol].start(
            initiator=self.initiator,
            expected=self._expected,
            muxers=(YAMUX,),
            write=self._out.append,
        )
        channel.on_open = self._on_secure

    def _security_agreed(self, protocol: str, rest: bytes, now: float) -> None:
        if self._secure is None:
            self._start_security(protocol)
        assert self._secure is not None
        self._receive = self._secure.receive
        if rest:
            self._receive(rest, now)

    def _on_secure(self) -> None:
        channel = self._secure
        assert channel is not None
        self.peer = channel.peer
        self.public_key = channel.public_key
        if channel.muxer is not None:
            self.negotiated.early_muxer = True
            self._start_muxer(channel.muxer, b"", self._now)
        elif self.initiator:
            channel.on_data = _Select(Dialer((YAMUX,), self._inner.append), self._start_muxer)
        else:
            channel.on_data = _Select(Listener(YAMUX.__eq__, self._inner.append), self._start_muxer)

    def _start_muxer(self, protocol: str, rest: bytes, now: float) -> None:
        assert self._secure is not None
        self.muxer = Yamux(
            initiator=self.initiator, limits=self._owner.limits, on_stream=self._on_stream
        )
        self.negotiated.muxer = protocol
        self._secure.on_data = self.muxer.receive
        self._owner.on_upgraded(self, now)
        if rest:
            self.muxer.receive(rest, now)

    # Streams that the peer opens.

    def _on_stream(self, stream: Stream, now: float) -> None:
        owner = self._owner
        limits = owner.limits
        listening = self._listening
        if self.closing or len(listening) >= limits.max_negotiating_streams:
            stream.reset(RESOURCE_LIMIT)
            return
        deadline = now + limits.negotiation_timeout
        listening[stream.id] = Inbound(
            stream, owner.supports, self._on_agreed, listening.pop, deadline=deadline
        )
        if not self._negotiation_timer:
            self._watch_negotiations(deadline)

    def _on_agreed(self, stream: Stream, protocol: str, now: float) -> None:
        self._owner.on_stream(self, stream, protocol, now)

    # Streams that do not agree in time.

    def _watch_negotiations(self, deadline: float) -> None:
        self._negotiation_timer = self._owner.call_at(
            deadline, "negotiate streams", self._negotiations_due
        )

    def _negotiations_due(self, now: float) -> None:
        self._negotiation_timer = 0
        deadlines = _expire(list(self._listening.values()), now)
        deadlines += _expire(list(self._proposing.values()), now)
        if deadlines and not self._negotiation_timer:
            self._watch_negotiations(min(deadlines))
        self._owner.touch(self)


def _expire(negotiations: list[Inbound] | list[Outbound], now: float) -> list[float]:
    """End those that are late, the oldest is first; return the next deadline, if there is one."""
    for negotiation in negotiations:
        if negotiation.deadline > now and not negotiation.stream.is_reset:
            return [negotiation.deadline]
        negotiation.expire(now)
    return []


class _Select:
    """multistream-select as a layer: feeds the negotiation, then whoever comes next, once."""

    __slots__ = ("_negotiation", "_next")

    def __init__(
        self, negotiation: Dialer | Listener, then: Callable[[str, bytes, float], object]
    ) -> None:
        self._negotiation = negotiation
        self._next = then

    def __call__(self, data: bytes, now: float) -> None:
        rest = self._negotiation.receive(data)
        if rest is not None:
            assert self._negotiation.protocol is not None
            self._next(self._negotiation.protocol, rest, now)
