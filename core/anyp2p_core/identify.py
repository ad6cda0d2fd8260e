"""/ipfs/id/1.0.0 and /ipfs/id/push/1.0.0: who the other side is and what it speaks.

Spec: https://github.com/libp2p/specs/blob/master/identify/README.md

    identify   opener opens the stream    ->
                                          <-  one or more Identify messages, FIN
    push       opener sends its messages, FIN  ->

Several messages on one stream are merged. The first one that we send fits into 4 KiB, which is all
that some peers read; protocols and a signed record that do not fit follow in further ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from . import envelope, varint
from .connection import Connection
from .errors import DecodeError, LocalError, RemoteError, TimedOut
from .events import IdentifyFailed, PeerIdentified
from .keys import PublicKey
from .limits import Limits
from .multiaddr import Multiaddr
from .muxer import Stream
from .peer_id import PeerId
from .protobuf import BYTES, STRING, Field, Schema
from .scope import reachable
from .service import Service

PROTOCOL = "/ipfs/id/1.0.0"
PUSH = "/ipfs/id/push/1.0.0"
PROTOCOL_VERSION = "ipfs/0.1.0"

MAX_MESSAGE = 8 * 1024
MAX_MESSAGES = 10
MAX_TOTAL = 64 * 1024
MAX_SENT_MESSAGE = 4096
MAX_PROTOCOL_LENGTH = 1024
"""Bytes of a protocol name; longer ones are ignored."""
MAX_TEXT = 128
"""Code points of an agent or protocol version that are kept (draft in the spec)."""
RATE_LIMITED = 0x1003
PUSH_DELAY = 0.5
"""Seconds for which changes are gathered before they are pushed."""


@dataclass(slots=True)
class Message:
    """The wire message."""

    public_key: bytes | None = None
    listen_addrs: list[bytes] = field(default_factory=list)
    protocols: list[str] = field(default_factory=list)
    observed_addr: bytes | None = None
    protocol_version: str | None = None
    agent_version: str | None = None
    signed_peer_record: bytes | None = None


IDENTIFY = Schema(
    Message,
    Field(1, "public_key", BYTES),
    Field(2, "listen_addrs", BYTES, repeated=True, limit=64, overflow="drop"),
    Field(3, "protocols", STRING, repeated=True, limit=256, overflow="drop"),
    Field(4, "observed_addr", BYTES),
    Field(5, "protocol_version", STRING),
    Field(6, "agent_version", STRING),
    Field(8, "signed_peer_record", BYTES),
)


@dataclass(slots=True)
class IdentifyInfo:
    """What a peer said of itself. Texts are safe to print."""

    peer: PeerId
    agent: str = ""
    protocol_version: str = ""
    protocols: tuple[str, ...] = ()
    addresses: tuple[Multiaddr, ...] = ()
    """Where it says it listens; from the signed record if there is a valid one."""
    observed: Multiaddr | None = None
    """The address at which it says it sees us."""
    public_key: PublicKey | None = None
    signed_record: bool = False


def printable(text: str) -> str:
    """Replace control characters of a peer's text, so that it can be shown.

    >>> printable("good\\x1b[2Jbad")
    'good\\ufffd[2Jbad'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def merge(into: Message, part: Message, limits: Limits) -> None:
    """Join a further message: lists grow up to the limits, the other fields are replaced."""
    room = limits.max_addresses_per_peer - len(into.listen_addrs)
    into.listen_addrs += part.listen_addrs[: max(room, 0)]
    room = limits.max_protocols_per_peer - len(into.protocols)
    into.protocols += list(filter(_is_name, part.protocols))[: max(room, 0)]
    if part.public_key is not None:
        into.public_key = part.public_key
    if part.observed_addr is not None:
        into.observed_addr = part.observed_addr
    if part.protocol_version is not None:
        into.protocol_version = part.protocol_version
    if part.agent_version is not None:
        into.agent_version = part.agent_version
    if part.signed_peer_record is not None:
        into.signed_peer_record = part.signed_peer_record


def decode_addresses(encoded: Iterable[bytes], peer: PeerId) -> list[Multiaddr]:
    """The addresses that can be read, without a ``/p2p`` of ``peer`` at their end.

    The others are dropped, and so are those that end in another peer's id.
    """
    suffix = _P2P + varint.delimited(bytes(peer))
    addresses = []
    for data in encoded:
        try:
            address = Multiaddr.from_bytes(data.removesuffix(suffix))
        except DecodeError:
            continue
        if address.names[-1] != "p2p":
            addresses.append(address)
    return addresses


_P2P = varint.encode(421)


def _is_name(protocol: str) -> bool:
    if len(protocol) <= MAX_PROTOCOL_LENGTH // 4:
        return protocol != ""
    return len(protocol.encode()) <= MAX_PROTOCOL_LENGTH


def _keep(before: IdentifyInfo, info: IdentifyInfo, push: Message) -> None:
    """A push may be partial: what it does not carry stays as it was."""
    if push.agent_version is None:
        info.agent = before.agent
    if push.protocol_version is None:
        info.protocol_version = before.protocol_version
    if not push.protocols:
        info.protocols = before.protocols
    if not push.listen_addrs and not info.signed_record:
        info.addresses = before.addresses
        info.signed_record = before.signed_record
    if info.observed is None:
        info.observed = before.observed


class _Reader:
    """Collects the messages of one stream until its end, within size and time."""

    __slots__ = ("connection", "_count", "_frames", "_message", "_pushed", "_service", "_stream",
                 "_timer", "_total")  # fmt: skip

    def __init__(
        self, service: "Identify", connection: Connection, pushed: bool, now: float
    ) -> None:
        self.connection = connection
        self._count = 0
        self._total = 0
        self._frames = varint.Delimited(MAX_MESSAGE)
        self._message = Message()
        self._pushed = pushed
        self._service = service
        self._stream: Stream | None = None
        context = service.context
        deadline = now + context.limits.identify_timeout
        self._timer = context.call_at(deadline, "identify", self._expire)

    def take(self, stream: Stream, protocol: str, now: float) -> None:
        """Read from this stream."""
        self._stream = stream
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof
        stream.on_reset = self._on_reset

    def fail(self, error: Exception, now: float) -> None:
        """Give up; the connection stays."""
        if self._timer:
            context = self._service.context
            context.cancel(self._timer)
            self._timer = 0
            if self._stream is not None:
                self._stream.reset()
                context.touch(self.connection)
            self._service.failed(self.connection, error, self._pushed)

    def _on_data(self, data: bytes, now: float) -> None:
        assert self._stream is not None
        self._stream.credit(len(data), now)
        self._total += len(data)
        try:
            if self._total > MAX_TOTAL:
                raise RemoteError(f"the identify messages are longer than {MAX_TOTAL} bytes")
            for frame in self._frames.receive(data):
                self._count += 1
                if self._count > MAX_MESSAGES:
                    raise RemoteError(f"more than {MAX_MESSAGES} identify messages")
                merge(self._message, IDENTIFY.decode(frame), self._service.context.limits)
        except RemoteError as error:
            self.fail(error, now)

    def _on_eof(self, now: float) -> None:
        assert self._stream is not None
        if not self._count or self._frames.pending:
            self.fail(RemoteError("the identify stream ended in the middle of a message"), now)
            return
        self._service.context.cancel(self._timer)
        self._timer = 0
        self._stream.write_eof()
        self._service.received(self.connection, self._message, self._pushed, now)

    def _on_reset(self, code: int, now: float) -> None:
        self._stream = None
        reason = self.connection.error or RemoteError(f"the peer reset the stream (code {code:#x})")
        self.fail(reason, now)

    def _expire(self, now: float) -> None:
        limit = self._service.context.limits.identify_timeout
        self.fail(TimedOut(f"the peer did not identify itself within {limit:g} s"), now)


class Identify(Service):
    """Asks every new connection who it is, answers the same question, and pushes changes."""

    protocols = (PROTOCOL, PUSH)

    def __init__(self) -> None:
        self.infos: dict[int, IdentifyInfo] = {}
        """What the peer of each open connection said."""
        self._pushes: dict[int, tuple[float, int]] = {}
        self._record_seq = 0
        self._parts: _Parts | None = None
        self._version = 0
        """Changes of what we say; ``_told`` has the one that each connection was told of."""
        self._told: dict[int, int] = {}
        self._timer = 0

    # Notices from the node.

    def on_connected(self, connection: Connection, now: float) -> None:
        reader = _Reader(self, connection, False, now)
        try:
            connection.open_stream((PROTOCOL,), reader.take, reader.fail, now)
        except LocalError as error:
            reader.fail(error, now)

    def on_disconnected(self, connection: Connection, now: float) -> None:
        self.infos.pop(connection.id, None)
        self._pushes.pop(connection.id, None)
        self._told.pop(connection.id, None)

    def on_stream(self, connection: Connection, stream: Stream, protocol: str, now: float) -> None:
        if protocol == PROTOCOL:
            self._send(connection, stream, now)
        elif self._push_allowed(connection, now):
            _Reader(self, connection, True, now).take(stream, protocol, now)
        else:
            stream.reset(RATE_LIMITED)

    def changed(self, now: float) -> None:
        """Our addresses or protocols changed: tell the peers that want to know, a little later."""
        self._parts = None
        self._version += 1
        if self.context.connections():
            self._push_later(now)

    # Results of readers.

    def received(self, connection: Connection, message: Message, pushed: bool, now: float) -> None:
        """A peer said who it is."""
        peer = connection.peer
        assert peer is not None
        info = self._check(connection, peer, message)
        before = self.infos.get(connection.id)
        if pushed and before is not None:
            _keep(before, info, message)
        self.infos[connection.id] = info
        self._remember(connection, info, now)
        self.context.emit(PeerIdentified(connection.id, peer, info, pushed))
        # It may have asked before the last change, and not have been pushed to while unknown.
        if PUSH in info.protocols and self._told.get(connection.id, self._version) < self._version:
            self._push_later(now)

    def failed(self, connection: Connection, error: Exception, pushed: bool) -> None:
        """A peer did not say who it is, or said it wrongly."""
        if not pushed:
            assert connection.peer is not None
            self.context.emit(IdentifyFailed(connection.id, connection.peer, error))

    def _check(self, connection: Connection, peer: PeerId, message: Message) -> IdentifyInfo:
        sealed = message.signed_peer_record
        certified = self._certified(peer, sealed) if sealed else None
        if certified is None:  # a bad record is ignored, the rest of the message is used
            addresses: Sequence[Multiaddr] = decode_addresses(message.listen_addrs, peer)
        else:
            addresses = certified
        observed = decode_addresses((message.observed_addr or b"",), self.context.peer_id)
        return IdentifyInfo(
            peer=peer,
            agent=printable((message.agent_version or "")[:MAX_TEXT]),
            protocol_version=printable((message.protocol_version or "")[:MAX_TEXT]),
            protocols=tuple(dict.fromkeys(map(printable, message.protocols))),
            addresses=tuple(reachable(addresses, connection.remote)),
            observed=observed[0] if observed else None,
            public_key=connection.public_key,
            signed_record=certified is not None,
        )

    def _certified(self, peer: PeerId, sealed: bytes) -> Sequence[Multiaddr] | None:
        """The addresses in a signed record; None if it is bad, old, or of somebody else."""
        known = self.context.peers.learn(peer)
        if sealed == known.record:  # checked before, and checking is most of the work
            return known.certified
        try:
            record = envelope.open_peer_record(sealed, self.context.crypto)
        except DecodeError:
            return None
        if record.peer_id != peer or record.seq < known.record_seq:
            return None
        known.record_seq = record.seq
        known.record = sealed
        known.certified = tuple(record.addresses)
        return known.certified

    def _remember(self, connection: Connection, info: IdentifyInfo, now: float) -> None:
        peers = self.context.peers
        known = peers.learn(info.peer)
        known.agent = info.agent
        known.protocols = info.protocols
        known.public_key = connection.public_key
        others = self.context.connections(info.peer)
        if info.signed_record:
            # Where we reached it ourselves counts too: a port that is forwarded is in no record.
            reached = [c.remote for c in others if c.initiator and c.remote is not None]
            peers.set_addresses(info.peer, (*info.addresses, *reached), now)
        else:
            peers.add_addresses(info.peer, info.addresses, now)
        for other in others:
            old = self.infos.get(other.id)
            if old is not None and other is not connection:
                self.infos[other.id] = replace(
                    old,
                    agent=info.agent,
                    protocol_version=info.protocol_version,
                    protocols=info.protocols,
                )

    # Our own messages.

    def _send(self, connection: Connection, stream: Stream, now: float) -> None:
        self._told[connection.id] = self._version
        stream.write(self.encode(connection.remote, now))
        stream.write_eof()
        stream.stop_reading()

    def encode(self, observed: Multiaddr | None, now: float) -> bytes:
        """Our messages, length-prefixed, for a peer that we see at ``observed``."""
        if self._parts is None:
            self._parts = self._make_parts(now)
        parts = self._parts
        middle = IDENTIFY.encode(Message(observed_addr=bytes(observed))) if observed else b""
        first = parts.head + middle + parts.tail
        if len(first) > MAX_SENT_MESSAGE:
            first = parts.head + parts.tail
        if len(first) + len(parts.record) <= MAX_SENT_MESSAGE:
            return varint.delimited(first + parts.record) + parts.further
        return varint.delimited(first) + varint.delimited(parts.record) + parts.further

    def _make_parts(self, now: float) -> "_Parts":
        context = self.context
        key = context.key.public.encode()
        tail = IDENTIFY.encode(
            Message(protocol_version=PROTOCOL_VERSION, agent_version=context.agent[:MAX_TEXT])
        )
        room = MAX_SENT_MESSAGE - len(key) - len(tail) - _ROOM_FOR_OBSERVED
        addresses = context.addresses[: envelope.MAX_ADDRESSES]
        addresses = addresses[: _fitting(map(bytes, addresses), room // 2)]
        encoded = [bytes(address) for address in addresses]
        protocols = [name for name in context.protocols if _is_name(name)]
        count = _fitting(map(str.encode, protocols), room - sum(map(_size, encoded)))
        head = Message(public_key=key, listen_addrs=encoded, protocols=protocols[:count])
        further: list[bytes] = []
        while count < len(protocols) and len(further) < MAX_MESSAGES - 2:
            protocols = protocols[count:]
            count = _fitting(map(str.encode, protocols), MAX_SENT_MESSAGE)
            further.append(IDENTIFY.encode(Message(protocols=protocols[:count])))
        # A fresh number on every start, so that a restarted node is believed.
        self._record_seq = max(self._record_seq + 1, int(context.wall(now) * 1e9))
        record = envelope.seal_peer_record(context.key, self._record_seq, addresses)
        return _Parts(
            IDENTIFY.encode(head),
            tail,
            IDENTIFY.encode(Message(signed_peer_record=record)),
            b"".join(map(varint.delimited, further)),
        )

    # Push.

    def _push_later(self, now: float) -> None:
        if not self._timer:
            self._timer = self.context.call_at(now + PUSH_DELAY, "push identify", self._push)

    def _push(self, now: float) -> None:
        self._timer = 0
        for connection in self.context.connections():
            info = self.infos.get(connection.id)
            told = self._told.get(connection.id)
            if info is not None and PUSH in info.protocols and told != self._version:
                self._push_to(connection, now)

    def _push_to(self, connection: Connection, now: float) -> None:
        def on_open(stream: Stream, protocol: str, now: float) -> None:
            self._send(connection, stream, now)

        def on_fail(error: Exception, now: float) -> None:
            """It does not want to know; the next identify tells it."""

        try:
            connection.open_stream((PUSH,), on_open, on_fail, now)
        except LocalError:
            return  # it is closing, or has no room for a stream
        self.context.touch(connection)

    def _push_allowed(self, connection: Connection, now: float) -> bool:
        start, count = self._pushes.get(connection.id, (now, 0))
        if now - start >= 60.0:
            start, count = now, 0
        self._pushes[connection.id] = (start, count + 1)
        return count < self.context.limits.max_pushes_per_minute


@dataclass(slots=True)
class _Parts:
    """Our messages but for the observed address, encoded once for all peers."""

    head: bytes
    tail: bytes
    record: bytes
    further: bytes
    """Whole messages, with what the first one has no room for."""


_ROOM_FOR_OBSERVED = 256


def _size(item: bytes) -> int:
    """The most bytes that an element of a repeated field takes up."""
    return len(item) + 3


def _fitting(items: Iterable[bytes], room: int) -> int:
    """How many of the first elements fit into so many bytes."""
    count = 0
    for item in items:
        room -= _size(item)
        if room < 0:
            break
        count += 1
    return count
