"""What a Node hands back: actions for the runtime, events for the application.

Actions are imperatives and must be carried out; events are past participles and may be ignored.
All are slotted and not frozen: creating a frozen one costs more than twice as much.

Connections, streams, dials and requests are numbered from one counter per node, so that an id
names one thing only.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .identify import IdentifyInfo
    from .multiaddr import Multiaddr
    from .peer_id import PeerId

ConnId = int
StreamId = int
RequestId = int


class _Item:
    """What ``dataclass`` would write into each class; once here makes importing faster."""

    __slots__ = ()
    __match_args__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({fields})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            getattr(self, name) == getattr(other, name) for name in self.__match_args__
        )

    __hash__ = None  # type: ignore[assignment]


class Action(_Item):
    """Base class of what the runtime must do."""

    __slots__ = ()


@dataclass(slots=True, eq=False, repr=False)
class Dial(Action):
    """Open a transport connection, then call ``connected`` or ``dial_failed``."""

    conn: ConnId
    address: "Multiaddr"


@dataclass(slots=True, eq=False, repr=False)
class CloseConnection(Action):
    """Close the transport.

    Without ``abort``: send what was handed out, half-close, and close when the peer has closed too.
    With ``abort``: drop everything at once, also a dial that is still under way.
    Either way ``disconnected`` follows.
    """

    conn: ConnId
    abort: bool


@dataclass(slots=True, eq=False, repr=False)
class PauseReading(Action):
    """Stop reading from this transport: the peer does not read what we answer."""

    conn: ConnId


@dataclass(slots=True, eq=False, repr=False)
class ResumeReading(Action):
    """Read again."""

    conn: ConnId


@dataclass(slots=True, eq=False, repr=False)
class OpenSocket(Action):
    """Bind a UDP socket, then call ``socket_opened`` or ``socket_failed``."""

    sock: int
    address: "Multiaddr"


class Event(_Item):
    """Base class of what the application may want to know."""

    __slots__ = ()


@dataclass(slots=True, eq=False, repr=False)
class ConnectionOpened(Event):
    """A connection is authenticated and carries streams."""

    conn: ConnId
    peer: "PeerId"
    inbound: bool
    address: "Multiaddr | None"


@dataclass(slots=True, eq=False, repr=False)
class ConnectionClosed(Event):
    """A connection is gone. ``peer`` is None when it was never authenticated.

    ``error`` says why; None means that one side closed it in order.
    """

    conn: ConnId
    peer: "PeerId | None"
    error: Exception | None


@dataclass(slots=True, eq=False, repr=False)
class PeerConnected(Event):
    """A dial succeeded, or its peer was connected already."""

    dial: RequestId
    peer: "PeerId"
    conn: ConnId


@dataclass(slots=True, eq=False, repr=False)
class DialFailed(Event):
    """No address of a dial could be reached."""

    dial: RequestId
    error: Exception


@dataclass(slots=True, eq=False, repr=False)
class StreamOpened(Event):
    """A stream agreed on ``protocol``, or proposed it alone, and can carry data."""

    stream: StreamId
    conn: ConnId
    peer: "PeerId"
    protocol: str
    inbound: bool


@dataclass(slots=True, eq=False, repr=False)
class StreamFailed(Event):
    """A stream that we asked for could not be opened."""

    stream: StreamId
    error: Exception


@dataclass(slots=True, eq=False, repr=False)
class StreamReadable(Event):
    """``stream_read`` has bytes, the end of the stream, or an error to tell."""

    stream: StreamId


@dataclass(slots=True, eq=False, repr=False)
class StreamWritable(Event):
    """``stream_write`` accepts bytes again, or has an error to tell."""

    stream: StreamId


@dataclass(slots=True, eq=False, repr=False)
class StreamDrained(Event):
    """All that was written has been handed to the transport."""

    stream: StreamId


@dataclass(slots=True, eq=False, repr=False)
class PingSucceeded(Event):
    """The peer answered a ping after ``rtt`` seconds."""

    request: RequestId
    conn: ConnId
    peer: "PeerId"
    rtt: float


@dataclass(slots=True, eq=False, repr=False)
class PingFailed(Event):
    """A ping got no right answer in time."""

    request: RequestId
    conn: ConnId
    peer: "PeerId"
    error: Exception


@dataclass(slots=True, eq=False, repr=False)
class PeerIdentified(Event):
    """A peer said who it is, at the start of a connection or by a push."""

    conn: ConnId
    peer: "PeerId"
    info: "IdentifyInfo"
    pushed: bool


@dataclass(slots=True, eq=False, repr=False)
class IdentifyFailed(Event):
    """A peer did not say who it is. The connection stays usable."""

    conn: ConnId
    peer: "PeerId"
    error: Exception


@dataclass(slots=True, eq=False, repr=False)
class PerfProgressed(Event):
    """Bytes moved so far by a perf run."""

    request: RequestId
    uploaded: int
    downloaded: int


@dataclass(slots=True, eq=False, repr=False)
class PerfFinished(Event):
    """A perf run ended. Times are in seconds, sizes in bytes."""

    request: RequestId
    uploaded: int
    downloaded: int
    upload_seconds: float
    download_seconds: float


@dataclass(slots=True, eq=False, repr=False)
class PerfFailed(Event):
    """A perf run broke off."""

    request: RequestId
    error: Exception
