"""The protocols of libp2p as pure state machines: no I/O, no clock, no randomness, no dependencies.

``Node`` is all connections of one peer; whoever moves its bytes is a runtime. Single machines
(``noise.Noise``, ``yamux.Yamux``, ``multistream.Dialer`` ...) are public in their modules.
"""

from .errors import (
    ConnectionLost,
    DecodeError,
    DialError,
    Error,
    HandshakeError,
    IncompleteRead,
    LimitReached,
    ListenError,
    LocalError,
    MuxerError,
    NegotiationError,
    PeerIdMismatch,
    RemoteError,
    StreamReset,
    TimedOut,
)
from .events import (
    Action,
    CloseConnection,
    ConnectionClosed,
    ConnectionOpened,
    Dial,
    DialFailed,
    Event,
    IdentifyFailed,
    PauseReading,
    PeerConnected,
    PeerIdentified,
    PerfFailed,
    PerfFinished,
    PerfProgressed,
    PingFailed,
    PingSucceeded,
    ResumeReading,
    StreamDrained,
    StreamFailed,
    StreamOpened,
    StreamReadable,
    StreamWritable,
)
from .identify import IdentifyInfo
from .keys import PrivateKey, PublicKey
from .limits import Limits
from .multiaddr import Multiaddr
from .node import Node
from .peer_id import PeerId
from .service import Context, Service

__all__ = [
    "Action",
    "CloseConnection",
    "ConnectionClosed",
    "ConnectionLost",
    "ConnectionOpened",
    "Context",
    "DecodeError",
    "Dial",
    "DialError",
    "DialFailed",
    "Error",
    "Event",
    "HandshakeError",
    "IdentifyFailed",
    "IdentifyInfo",
    "IncompleteRead",
    "LimitReached",
    "Limits",
    "ListenError",
    "LocalError",
    "Multiaddr",
    "MuxerError",
    "NegotiationError",
    "Node",
    "PauseReading",
    "PeerConnected",
    "PeerId",
    "PeerIdMismatch",
    "PeerIdentified",
    "PerfFailed",
    "PerfFinished",
    "PerfProgressed",
    "PingFailed",
    "PingSucceeded",
    "PrivateKey",
    "PublicKey",
    "RemoteError",
    "ResumeReading",
    "Service",
    "StreamDrained",
    "StreamFailed",
    "StreamOpened",
    "StreamReadable",
    "StreamReset",
    "StreamWritable",
    "TimedOut",
]
