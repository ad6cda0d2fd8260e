"""One connection to a peer: its streams, who they belong to, and how it ends.

Specs: https://github.com/libp2p/specs/blob/master/connections/README.md

negotiating --peer and muxer are known--> open --close--> draining --> finished
     any of them --lost, or fail: every stream is told--> over

What lies between the transport and the muxer is in ``upgrade``; QUIC has its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .errors import ConnectionLost, LocalError, MuxerError
from .multistream import encode
from .muxer import RESOURCE_LIMIT, Muxer, MuxerMaker, Stream
from .negotiation import FailCallback, Inbound, OpenCallback, Outbound
from .security import Security

if TYPE_CHECKING:
    from .closing import Drain
    from .keys import PublicKey
    from .limits import Limits
    from .multiaddr import Multiaddr
    from .peer_id import PeerId
    from .stream import AppStream


class Owner(Protocol):
    """What a connection needs from its node."""

    limits: "Limits"
    security: Mapping[str, Security]
    muxers: Mapping[str, MuxerMaker]
    unread: int

    def supports(self, protocol: str) -> bool: ...
    def wall(self, now: float) -> float: ...
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


class Connection(ABC):
    """State of one connection. Raises ``RemoteError`` when the peer breaks the rules."""

    __slots__ = (
        "id", "initiator", "local", "remote", "peer", "public_key", "muxer", "negotiated", "error",
        "reason", "closing", "draining", "finished", "announced", "peer_ended", "app_streams",
        "blocked_since", "paused", "timer", "stall_timer",
        "_owner", "_expected", "_listening", "_proposing", "_negotiation_timer",
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
    ) -> None:
        self.id = conn
        self.initiator = initiator
        self.local = local
        self.remote = remote
        self.peer: PeerId | None = None
        self.public_key: PublicKey | None = None
        self.muxer: Muxer | None = None
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
        self.peer_ended = False
        """The peer said that it sends nothing more, and the transport goes on."""
        self.app_streams: dict[int, AppStream] = {}
        self.blocked_since: float | None = None
        self.paused = False
        self.timer = 0
        self.stall_timer = 0
        self._owner = owner
        self._expected = expected
        # Streams that have not agreed on a protocol, by id, the oldest first, and the one timer
        # for them: most agree soon, and a timer each would cost more than the rest of it.
        self._listening: dict[int, Inbound] = {}
        self._proposing: dict[int, Outbound] = {}
        self._negotiation_timer = 0

    def __repr__(self) -> str:
        role = "dialed" if self.initiator else "accepted"
        return f"<Connection {self.id} {role} {self.remote} peer={self.peer}>"

    # What a transport adds.

    @abstractmethod
    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the transport."""

    @abstractmethod
    def receive_eof(self) -> None:
        """The peer closed its direction. Raises HandshakeError when that was too early."""

    @property
    @abstractmethod
    def wants_write(self) -> bool:
        """Whether ``data_to_send`` has something."""

    @abstractmethod
    def data_to_send(self, now: float) -> bytes:
        """About 64 KiB for the transport."""

    @abstractmethod
    def take_leave(self) -> None:
        """Our direction is about to be closed: ``data_to_send`` gives the last words."""

    @abstractmethod
    def _say_why(self, error: MuxerError, now: float) -> None:
        """Tell the peer why the connection cannot go on."""

    @property
    def greeted(self) -> bool:
        """Whether the peer has said anything that makes sense; not with another pre-shared key."""
        return True

    @property
    def queued_answers(self) -> int:
        """Bytes that the layers below the muxer have to say by themselves."""
        return 0

    @property
    def usable(self) -> bool:
        """Whether we may open streams."""
        return not self.closing and (self.muxer is None or self.muxer.peer_gone_away is None)

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
            self._say_why(error, now)
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

    def drop(self) -> None:
        """Nothing more is sent, not even last words."""
        self.finished = True

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
