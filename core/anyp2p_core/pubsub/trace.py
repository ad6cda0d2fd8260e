"""What happened in pubsub, in the format that go peers' trace tools read.

Schema: https://github.com/libp2p/go-libp2p-pubsub/blob/master/pb/trace.proto

    TraceEvent { 1 type, 2 our peer id, 3 time in ns, 4 to 16: one field of the type's own }

A file of such events has each behind its length (``encode`` writes both).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from ..errors import DecodeError
from ..protobuf import BOOL, BYTES, STRING, UINT, Field, Schema
from ..varint import decode as read_varint, delimited
from . import message as messages, rpc as wire
from .message import Message


class Type(IntEnum):
    """What happened."""

    PUBLISH_MESSAGE = 0
    REJECT_MESSAGE = 1
    DUPLICATE_MESSAGE = 2
    DELIVER_MESSAGE = 3
    ON_NEW_OUTBOUND_STREAM = 4
    ON_CLOSED_OUTBOUND_STREAM = 5
    RECV_RPC = 6
    SEND_RPC = 7
    DROP_RPC = 8
    JOIN = 9
    LEAVE = 10
    GRAFT = 11
    PRUNE = 12


@dataclass(slots=True)
class MessageMeta:
    """A message of an RPC."""

    message_id: bytes | None = None
    topic: str | None = None


@dataclass(slots=True)
class SubMeta:
    """A subscription of an RPC."""

    subscribe: bool | None = None
    topic: str | None = None


@dataclass(slots=True)
class TopicMeta:
    """A GRAFT."""

    topic: str | None = None


@dataclass(slots=True)
class IdsMeta:
    """An IWANT or IDONTWANT."""

    message_ids: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class IHaveMeta:
    """An IHAVE."""

    topic: str | None = None
    message_ids: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class PruneMeta:
    """A PRUNE."""

    topic: str | None = None
    peers: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class ControlMeta:
    """The control of an RPC."""

    ihave: list[IHaveMeta] = field(default_factory=list)
    iwant: list[IdsMeta] = field(default_factory=list)
    graft: list[TopicMeta] = field(default_factory=list)
    prune: list[PruneMeta] = field(default_factory=list)
    idontwant: list[IdsMeta] = field(default_factory=list)


@dataclass(slots=True)
class RpcMeta:
    """What is in an RPC."""

    messages: list[MessageMeta] = field(default_factory=list)
    subscriptions: list[SubMeta] = field(default_factory=list)
    control: ControlMeta | None = None


@dataclass(slots=True)
class Published:
    """PUBLISH_MESSAGE"""

    message_id: bytes | None = None
    topic: str | None = None


@dataclass(slots=True)
class Rejected:
    """REJECT_MESSAGE"""

    message_id: bytes | None = None
    received_from: bytes | None = None
    reason: str | None = None
    topic: str | None = None


@dataclass(slots=True)
class Duplicate:
    """DUPLICATE_MESSAGE"""

    message_id: bytes | None = None
    received_from: bytes | None = None
    topic: str | None = None


@dataclass(slots=True)
class Delivered:
    """DELIVER_MESSAGE"""

    message_id: bytes | None = None
    topic: str | None = None
    received_from: bytes | None = None


@dataclass(slots=True)
class NewStream:
    """ON_NEW_OUTBOUND_STREAM"""

    peer: bytes | None = None
    protocol: str | None = None


@dataclass(slots=True)
class ClosedStream:
    """ON_CLOSED_OUTBOUND_STREAM"""

    peer: bytes | None = None


@dataclass(slots=True)
class RpcPassed:
    """RECV_RPC, SEND_RPC and DROP_RPC"""

    peer: bytes | None = None
    meta: RpcMeta | None = None


@dataclass(slots=True)
class Joined:
    """JOIN and LEAVE"""

    topic: str | None = None


@dataclass(slots=True)
class MeshChanged:
    """GRAFT and PRUNE"""

    peer: bytes | None = None
    topic: str | None = None


Detail = (
    Published | Rejected | Duplicate | Delivered | NewStream | ClosedStream | RpcPassed | Joined
    | MeshChanged
)  # fmt: skip


@dataclass(slots=True)
class TraceEvent:
    """One event; ``detail`` belongs to its type."""

    type: Type
    peer: bytes
    """Ours."""
    timestamp: int
    detail: Detail


Sink = Callable[[TraceEvent], object]


def encode(event: TraceEvent) -> bytes:
    """The event behind its length."""
    outer = _Outer(event.type, event.peer, event.timestamp, event.detail)
    return delimited(_SCHEMAS[event.type].encode(outer))


def decode(data: bytes) -> list[TraceEvent]:
    """The events of a file; DecodeError if it is none."""
    events = []
    pos = 0
    while pos < len(data):
        size, pos = read_varint(data, pos)
        body = data[pos : pos + size]
        pos += size
        if pos > len(data):
            raise DecodeError("a trace is cut off")
        try:
            kind = Type(_HEAD.decode(body).type)
        except ValueError as error:
            raise DecodeError(f"no type of trace event: {error}") from None
        outer = _SCHEMAS[kind].decode(body)
        events.append(TraceEvent(kind, outer.peer, outer.timestamp, outer.detail))
    return events


class Tracer:
    """Makes events of what the service does."""

    __slots__ = ("_id_of", "_own", "_sink", "_wall")

    def __init__(
        self,
        sink: Sink,
        own: bytes,
        wall: Callable[[float], float],
        id_of: Callable[[Message], bytes | None],
    ) -> None:
        self._id_of = id_of
        self._own = own
        self._sink = sink
        self._wall = wall

    def published(self, message: Message, now: float) -> None:
        """We published a message."""
        self._emit(Type.PUBLISH_MESSAGE, Published(message.id, _text(message.topic)), now)

    def rejected(self, message: Message, reason: str, now: float) -> None:
        """A message was dropped."""
        message_id = message.id or self._id_of(message)
        detail = Rejected(message_id, _sender(message), reason, _text(message.topic))
        self._emit(Type.REJECT_MESSAGE, detail, now)

    def duplicate(self, message: Message, now: float) -> None:
        """A message came again."""
        detail = Duplicate(message.id, _sender(message), _text(message.topic))
        self._emit(Type.DUPLICATE_MESSAGE, detail, now)

    def delivered(self, message: Message, now: float) -> None:
        """A message was accepted."""
        detail = Delivered(message.id, _text(message.topic), _sender(message))
        self._emit(Type.DELIVER_MESSAGE, detail, now)

    def stream_opened(self, peer: bytes, protocol: str, now: float) -> None:
        """We can send to a peer."""
        self._emit(Type.ON_NEW_OUTBOUND_STREAM, NewStream(peer, protocol), now)

    def stream_closed(self, peer: bytes, now: float) -> None:
        """We cannot any more."""
        self._emit(Type.ON_CLOSED_OUTBOUND_STREAM, ClosedStream(peer), now)

    def received(self, peer: bytes, rpc: wire.Rpc, now: float) -> None:
        """An RPC came."""
        self._emit(Type.RECV_RPC, RpcPassed(peer, self._meta(rpc)), now)

    def sent(self, peer: bytes, data: bytes, sent: bool, now: float) -> None:
        """An RPC of ours, with its length in front, was queued, or dropped."""
        size, start = read_varint(data)
        meta = self._meta(wire.parse(data[start : start + size], _ALL))
        self._emit(Type.SEND_RPC if sent else Type.DROP_RPC, RpcPassed(peer, meta), now)

    def joined(self, topic: str, now: float) -> None:
        """We subscribed to a topic."""
        self._emit(Type.JOIN, Joined(topic), now)

    def left(self, topic: str, now: float) -> None:
        """We left a topic."""
        self._emit(Type.LEAVE, Joined(topic), now)

    def grafted(self, peer: bytes, topic: str, now: float) -> None:
        """A peer came into our mesh."""
        self._emit(Type.GRAFT, MeshChanged(peer, topic), now)

    def pruned(self, peer: bytes, topic: str, now: float) -> None:
        """A peer left our mesh."""
        self._emit(Type.PRUNE, MeshChanged(peer, topic), now)

    def _emit(self, kind: Type, detail: Detail, now: float) -> None:
        self._sink(TraceEvent(kind, self._own, int(self._wall(now) * 1e9), detail))

    def _meta(self, rpc: wire.Rpc) -> RpcMeta:
        found = []
        for raw in rpc.publish:
            try:
                message = messages.parse(raw)
            except DecodeError:
                continue
            found.append(MessageMeta(self._id_of(message), _text(message.topic)))
        control = rpc.control
        return RpcMeta(
            found,
            [SubMeta(wanted, _text(topic)) for wanted, topic in rpc.subscriptions],
            None if control is None else _control_meta(control),
        )


def _control_meta(control: wire.Control) -> ControlMeta:
    return ControlMeta(
        [IHaveMeta(_text(topic), ids) for topic, ids in control.ihave],
        [IdsMeta(control.iwant)] if control.iwant else [],
        [TopicMeta(_text(topic)) for topic in control.graft],
        [PruneMeta(_text(one.topic), [peer for peer, _ in one.peers]) for one in control.prune],
        [IdsMeta(control.idontwant)] if control.idontwant else [],
    )


def _text(topic: bytes) -> str:
    return topic.decode("utf-8", "replace")


def _sender(message: Message) -> bytes | None:
    return None if message.received_from is None else bytes(message.received_from)


@dataclass(slots=True)
class _Outer:
    type: int
    peer: bytes
    timestamp: int
    detail: Any


@dataclass(slots=True)
class _Head:
    type: int


_ALL = wire.WireLimits(
    max_entries=1 << 30,
    max_subscriptions=1 << 30,
    max_control=1 << 30,
    max_ids=1 << 30,
    max_px=1 << 30,
)


def _many(number: int, name: str, kind: Any) -> Field:
    return Field(number, name, kind, repeated=True, limit=1 << 20)


def _schema(message: type[Any], *names: str, first: int = 1) -> Schema[Any]:
    """Texts and bytes, numbered one after the other."""
    texts = ("topic", "reason", "protocol")
    fields = [
        Field(number, name, STRING if name in texts else BYTES)
        for number, name in enumerate(names, first)
    ]
    return Schema(message, *fields)


_IDS = Schema(IdsMeta, _many(1, "message_ids", BYTES))
_IHAVE = Schema(IHaveMeta, Field(1, "topic", STRING), _many(2, "message_ids", BYTES))
_PRUNE = Schema(PruneMeta, Field(1, "topic", STRING), _many(2, "peers", BYTES))
_CONTROL = Schema(
    ControlMeta,
    _many(1, "ihave", _IHAVE),
    _many(2, "iwant", _IDS),
    _many(3, "graft", _schema(TopicMeta, "topic")),
    _many(4, "prune", _PRUNE),
    _many(5, "idontwant", _IDS),
)
_META = Schema(
    RpcMeta,
    _many(1, "messages", _schema(MessageMeta, "message_id", "topic")),
    _many(
        2, "subscriptions", Schema(SubMeta, Field(1, "subscribe", BOOL), Field(2, "topic", STRING))
    ),
    Field(3, "control", _CONTROL),
)
_RPC = Schema(RpcPassed, Field(1, "peer", BYTES), Field(2, "meta", _META))
_MESH = _schema(MeshChanged, "peer", "topic")
_DETAILS: tuple[Schema[Any], ...] = (
    _schema(Published, "message_id", "topic"),
    _schema(Rejected, "message_id", "received_from", "reason", "topic"),
    _schema(Duplicate, "message_id", "received_from", "topic"),
    _schema(Delivered, "message_id", "topic", "received_from"),
    _schema(NewStream, "peer", "protocol"),
    _schema(ClosedStream, "peer"),
    _RPC,
    _RPC,
    _RPC,
    _schema(Joined, "topic"),
    _schema(Joined, "topic", first=2),  # LEAVE has it at 2
    _MESH,
    _MESH,
)
_SCHEMAS: dict[Type, Schema[_Outer]] = {
    kind: Schema(
        _Outer,
        Field(1, "type", UINT, required=True),
        Field(2, "peer", BYTES, required=True),
        Field(3, "timestamp", UINT, required=True),
        Field(4 + kind, "detail", detail, required=True),
    )
    for kind, detail in zip(Type, _DETAILS, strict=True)
}
_HEAD = Schema(_Head, Field(1, "type", UINT, required=True))
